"""The request store after kills, torn lines, full disks, lost indexes."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.llm import Request, RequestStore
from dataprep.llm.segments import decode, encode
from dataprep.llm.store import Answer


def key(number: int) -> str:
    return f"{number:064x}"


def an_answer(number: int, text: str = '{"word": "bäll\\n"}') -> Answer:
    return Answer(key(number), "http://here", "stop", text, None, {"prompt_tokens": 3}, "m", "id")


def filled(path: Path, count: int, **options) -> Path:
    with RequestStore(path, **options) as store:
        for number in range(count):
            store.add([an_answer(number)])
    return path


def held(path: Path) -> set[str]:
    with RequestStore(path) as store:
        for number in range(20):
            record = store.record(key(number))
            assert record is None or record["text"] == an_answer(number).text
        return {key(n) for n in range(20) if key(n) in store}


def test_answers_come_back(tmp_path: Path) -> None:
    ask = Request("m", ({"role": "user", "content": "?"},))
    with RequestStore(tmp_path / "s") as store:
        assert (ask.key in store, store.reply(ask), len(store)) == (False, None, 0)
        usage = {"prompt_tokens": 3}
        store.add([Answer(ask.key, "o", "stop", "yes \ud800", None, usage, "m2", "")])
        name = store.id
    with RequestStore(tmp_path / "s") as store:
        reply = store.reply(ask)
        assert reply is not None
        assert reply.value == {"text": "yes \ud800"}
        assert (reply.usage, reply.model) == ({"prompt_tokens": 3}, "m2")
        assert (store.id, store.origins(), len(store)) == (name, {"o": 1}, 1)


def test_the_first_answer_stays(tmp_path: Path) -> None:
    with RequestStore(tmp_path / "s") as store:
        store.add([an_answer(1, "first")])
        store.add([an_answer(1, "second")])
        assert (store.record(key(1)) or {})["text"] == "first"


@pytest.mark.parametrize("keep_index", [True, False])
def test_a_torn_last_line_is_dropped_wherever_it_tore(tmp_path: Path, keep_index: bool) -> None:
    whole = filled(tmp_path / "whole", 3)
    segment = whole / "segments" / "000001.jsonl"
    data = segment.read_bytes()
    last = data.rfind(b"\n", 0, -1) + 1
    for end in [*range(last + 1, len(data), 17), len(data) - 1]:
        torn = tmp_path / f"torn{end}"
        shutil.copytree(whole, torn)
        (torn / "segments" / "000001.jsonl").write_bytes(data[:end])
        if not keep_index:
            (torn / "index.sqlite").unlink()
        with RequestStore(torn) as store:
            assert store.dropped_bytes == end - last
        assert held(torn) == {key(0), key(1)}
        with RequestStore(torn) as store:
            assert store.dropped_bytes == 0
            store.add([an_answer(2)])
        assert held(torn) == {key(0), key(1), key(2)}


def test_zeros_at_the_end_are_a_torn_line(tmp_path: Path) -> None:
    path = filled(tmp_path / "s", 3)
    with (path / "segments" / "000001.jsonl").open("ab") as file:
        file.write(bytes(3_000_000))  # longer than one block of the search backwards
    assert held(path) == {key(0), key(1), key(2)}


def test_a_damaged_line_in_the_middle_is_told(tmp_path: Path) -> None:
    path = filled(tmp_path / "s", 3)
    segment = path / "segments" / "000001.jsonl"
    data = bytearray(segment.read_bytes())
    start = data.index(b"\n") + 1
    data[start + 100] ^= 1
    segment.write_bytes(data)
    (path / "index.sqlite").unlink()
    with pytest.raises(ValueError, match=rf"000001.jsonl: the line at byte {start} is damaged"):
        RequestStore(path)
    # the lock was let go of: repaired as advised, it opens
    segment.write_bytes(data[:start] + data[data.index(b"\n", start) + 1 :])
    assert held(path) == {key(0), key(2)}


def test_damage_that_the_index_hides_is_told_on_reading(tmp_path: Path) -> None:
    path = filled(tmp_path / "s", 3)
    segment = path / "segments" / "000001.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b"here", b"hers", 1))
    with RequestStore(path) as store, pytest.raises(ValueError, match="byte 0 is damaged"):
        store.record(key(0))


@pytest.mark.parametrize("harm", ["gone", "garbage", "older", "ahead", "another"])
def test_the_index_is_made_anew(tmp_path: Path, harm: str) -> None:
    path = filled(tmp_path / "s", 4, segment_bytes=300)
    assert len(list((path / "segments").iterdir())) > 1
    index = path / "index.sqlite"
    if harm == "gone":
        index.unlink()
    elif harm == "garbage":
        index.write_bytes(os.urandom(5000))
    elif harm == "older":  # killed between the journal and the index
        shutil.copy(index, tmp_path / "older")
        with RequestStore(path) as store:
            store.add([an_answer(4)])
        shutil.copy(tmp_path / "older", index)
    elif harm == "ahead":  # the journal was restored from a backup
        sorted((path / "segments").iterdir())[-1].unlink()
    else:
        shutil.copy(filled(tmp_path / "t", 9) / "index.sqlite", index)
    count = {"older": 5, "ahead": 2}.get(harm, 4)
    assert held(path) == {key(n) for n in range(count)}


def test_a_full_disk_keeps_what_was_before(tmp_path: Path, monkeypatch) -> None:
    real = os.pwrite

    def full(handle: int, data, offset: int) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(handle, data[: room[0]], offset)
        room[0] -= done
        return done

    room = [10**9]
    with RequestStore(tmp_path / "s") as store:
        store.add([an_answer(0)])
        monkeypatch.setattr("dataprep.llm.segments.os.pwrite", full)
        room[0] = 100  # half a line fits
        with pytest.raises(OSError, match=r"000001.jsonl: cannot be written \(No space left"):
            store.add([an_answer(1), an_answer(2)])
        assert key(1) not in store
        room[0] = 10**9
        store.add([an_answer(3)])
    assert held(tmp_path / "s") == {key(0), key(3)}


def test_a_nearly_full_disk_stops_before_paying(tmp_path: Path, monkeypatch) -> None:
    with RequestStore(tmp_path / "s") as store:
        store.check_space()
        status = os.statvfs(tmp_path)
        monkeypatch.setattr(
            "dataprep.llm.store.os.statvfs",
            lambda path: os.statvfs_result([status.f_bsize, 4096, 0, 0, 100, 0, 0, 0, 0, 0]))
        with pytest.raises(OSError, match=r"nearly full \(0.4 MiB free\); nothing more was sent"):
            store.check_space()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        RequestStore(tmp_path / "s"),
        pytest.raises(OSError, match=f"another process \\(id {os.getpid()}\\) uses this store"),
    ):
        RequestStore(tmp_path / "s")
    RequestStore(tmp_path / "s").close()


def test_other_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="a file; accepted"):
        RequestStore(tmp_path / "file")
    path = filled(tmp_path / "s", 2)
    about = (path / "store.json").read_text()
    (path / "store.json").write_text(about.replace('"format": 1', '"format": 9'))
    with pytest.raises(ValueError, match="format 9; accepted: 1"):
        RequestStore(path)
    (path / "store.json").write_text("[]")
    with pytest.raises(ValueError, match="does not describe a request store"):
        RequestStore(path)
    (path / "store.json").unlink()
    with pytest.raises(ValueError, match="missing, but there are segments"):
        RequestStore(path)
    (path / "store.json").write_text(about)
    (path / "segments" / "000003.jsonl").touch()
    with pytest.raises(ValueError, match="one is missing"):
        RequestStore(path)


def test_what_is_under_way_is_known_after_a_kill(tmp_path: Path) -> None:
    store = RequestStore(tmp_path / "s")
    store.sending([key(1), key(2), key(3)])
    store.add([an_answer(1)])
    store.not_answered([key(2)])
    first = store.begin_part([key(4), key(5)])
    second = store.begin_part([key(6)])
    store.part_uploaded(first, "file-1")
    store.part_batch(first, "batch-1")
    for number in (5, 6):
        assert store.in_open_part(key(number))
    store.close_part(second, "refused")
    store.close()
    for harm in (False, True):
        if harm:
            (tmp_path / "s" / "index.sqlite").unlink()
        with RequestStore(tmp_path / "s") as store:
            assert store.interrupted == [key(3)]
            (part,) = store.open_parts()
            assert tuple(part) == (first, "file-1", "batch-1", 2)
            assert store.part_keys(first) == [key(4), key(5)]
            assert not store.in_open_part(key(6))
            third = store.begin_part([key(7)])
            assert third not in (first, second)
            store.close_part(third, "x")


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none(), min_size=1))
def test_lines_say_whether_they_are_whole(record: dict) -> None:
    record.pop("crc", None)
    record["kind"] = "x"
    line = encode(record)
    assert line.count(b"\n") == 1
    assert decode(line) == record
    for end in range(len(line)):
        assert decode(line[:end]) is None
