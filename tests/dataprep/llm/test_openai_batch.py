"""Batches through the real client: split, waited for, reconciled; each request paid once."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from dataprep.llm import RequestStore, answer, fill
from dataprep.llm.openai_batch import OpenAIBatch
from dataprep.llm.openai_sync import OpenAISync
from dataprep.llm.server import Faults, LocalServer
from dataprep.llm.server_state import ServerState


def quick(url: str, **options) -> OpenAIBatch:
    return OpenAIBatch(url, **{
        "poll_s": 0.02, "settle_s": 0.0, "first_wait_s": 0.02, "patience_s": 0.5} | options)


class Killed(BaseException):
    """What a kill looks like from the server's side."""


def die_in(monkeypatch: pytest.MonkeyPatch, method: str, after: bool = False) -> None:
    real = getattr(RequestStore, method)

    def dying(self, *arguments):
        if after:
            real(self, *arguments)
        monkeypatch.setattr(RequestStore, method, real)
        raise Killed

    monkeypatch.setattr(RequestStore, method, dying)


def once(server: LocalServer, count: int) -> bool:
    return len(server.state.paid) == count == sum(server.state.paid.values())


def test_files_are_split_by_number_and_size(rules, ask, store) -> None:
    with LocalServer(rules) as server:
        replies = answer(ask(25), store, quick(server.base_url, max_requests=10), progress=False)
        assert [b.total for b in server.state.batches.values()] == [10, 10, 5]
        assert [r.value for r in replies.values()] == [{"word": f"word {n}"} for n in range(25)]
        assert once(server, 25)
        size = max(len(data) for name, data in server.state.files.values() if "batch" not in name)
        fill(ask(25, 100), store, quick(server.base_url, max_bytes=size // 2), progress=False)
        sent = [b for b in server.state.batches.values()][3:]
        assert len(sent) >= 5
        for batch in sent:
            assert len(server.state.files[batch.file][1]) <= size // 2
        assert once(server, 50)
        with pytest.raises(ValueError, match="bytes; a batch file takes 50"):
            fill(ask(1, 900), store, quick(server.base_url, max_bytes=50), progress=False)
    assert not (store.path / "upload.jsonl").exists()
    assert not store.open_parts()


def test_expired_and_failing_lines_are_sent_again_and_only_they(rules, ask, store) -> None:
    faults = Faults(expire=0.3, error_500=0.3, batch_s=0.05, refusal=0.1, bad_content=0.1)
    with LocalServer(rules, faults) as server:
        replies = answer(ask(40), store, quick(server.base_url), progress=False)
        first, *later = server.state.batches.values()
        assert first.end == "expired"
        assert sum(batch.total for batch in later) < 40
        assert once(server, 40)
    kinds = {reply.failure for reply in replies.values()}
    assert kinds == {None, "refusal", "schema"}


def test_requests_that_never_get_their_turn_are_given_up(rules, ask, store) -> None:
    with LocalServer(rules, Faults(expire=0.3, times=99)) as server:
        replies = answer(ask(20), store, quick(server.base_url, attempts=2), progress=False)
        left = [reply for reply in replies.values() if reply.failure]
        assert 0 < len(left) < 20
        assert {reply.failure for reply in left} == {"transport"}
        assert "batch_expired" in left[0].text
        assert len(server.state.batches) == 3  # the first, and two without any success
        assert len(store) == 20 - len(left) == sum(server.state.paid.values())


def test_a_full_queue_is_waited_for(rules, ask, store) -> None:
    with LocalServer(rules, Faults(batch_queue=25, batch_s=0.1)) as server:
        fill(ask(40), store, quick(server.base_url, max_requests=10), progress=False)
        ends = [batch.end for batch in server.state.batches.values()]
        assert "failed" in ends
        assert once(server, 40)


@pytest.mark.parametrize(("method", "after"), [
    ("begin_part", False), ("begin_part", True), ("part_uploaded", False), ("part_uploaded", True),
    ("part_batch", False), ("part_batch", True), ("add", False), ("add", True),
    ("close_part", False), ("close_part", True)])
def test_death_at_every_step_costs_nothing(method, after, rules, ask, tmp_path, monkeypatch):
    with LocalServer(rules, Faults(batch_s=0.05)) as server:
        with RequestStore(tmp_path / "s") as store:
            die_in(monkeypatch, method, after)
            with pytest.raises(Killed):
                fill(ask(20), store, quick(server.base_url, max_requests=10), progress=False)
        with RequestStore(tmp_path / "s") as store:
            summary = fill(ask(20), store, quick(server.base_url), progress=False)
            assert len(store) == 20
            assert summary.unsure == 0
            assert not store.open_parts()
        assert once(server, 20)


def test_a_batch_that_arrives_after_its_maker_died_finds_no_file(rules, ask, tmp_path) -> None:
    """The client sends the request for a batch, dies, and the server is slow to act on it."""
    with LocalServer(rules, Faults(create_s=0.6)) as server:
        with RequestStore(tmp_path / "s") as store:
            backend = quick(server.base_url)
            part = store.begin_part([request.key for request in ask(5)])
            lines = b"".join(json.dumps({"custom_id": r.key, "body": r.body()}).encode() + b"\n"
                             for r in ask(5))
            file = backend._client.files.create(file=("f", lines), purpose="batch").id
            store.part_uploaded(part, file)
            body = json.dumps({"input_file_id": file, "metadata": {
                "store": store.id, "part": part}}).encode()
            late = socket.create_connection(("127.0.0.1", server.port))
            late.sendall(b"POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Length: "
                         + str(len(body)).encode() + b"\r\n\r\n" + body)
        server.state.faults = Faults()
        time.sleep(0.1)
        with RequestStore(tmp_path / "s") as store:
            fill(ask(5), store, quick(server.base_url), progress=False)
            assert once(server, 5)
        assert b" 400 " in late.recv(100)  # the late one was refused
        late.close()
        assert once(server, 5)


def test_a_lost_answer_to_making_a_batch_does_not_make_two(rules, ask, store, monkeypatch) -> None:
    make, calls = ServerState.make_batch, []

    def cut(self, file, metadata):
        batch = make(self, file, metadata)
        calls.append(batch)
        if len(calls) == 1:
            raise ConnectionResetError  # made, but the client never hears
        return batch

    monkeypatch.setattr(ServerState, "make_batch", cut)
    said: list[str] = []
    with LocalServer(rules) as server:
        fill(ask(5), store, quick(server.base_url), progress=False, say=said.append)
        assert once(server, 5)
    assert len(calls) == 1
    assert "of an earlier attempt was found" in said[0]


def test_batches_of_other_requests_are_collected_too(rules, ask, tmp_path, monkeypatch) -> None:
    with LocalServer(rules) as server:
        with RequestStore(tmp_path / "s") as store:
            die_in(monkeypatch, "part_batch")
            with pytest.raises(Killed):
                fill(ask(5), store, quick(server.base_url), progress=False)
        with RequestStore(tmp_path / "s") as store:
            fill(ask(5, 100), store, quick(server.base_url), progress=False)
            assert len(store) == 10  # what was paid for is kept, wanted now or not
        assert once(server, 10)


def test_an_unknown_batch_is_not_paid_again_unasked(rules, ask, tmp_path, monkeypatch) -> None:
    with LocalServer(rules) as server, RequestStore(tmp_path / "s") as store:
        die_in(monkeypatch, "part_batch", after=True)
        with pytest.raises(Killed):
            fill(ask(5), store, quick(server.base_url), progress=False)
        server.state.batches.clear()
        with pytest.raises(OSError, match=r"batch_000002 \(5 requests, maybe paid\).*--forget"):
            fill(ask(5), store, quick(server.base_url), progress=False)
        summary = fill(
            ask(5), store, quick(server.base_url, forget_lost=True), progress=False)
        assert (summary.unsure, len(store)) == (5, 5)


def test_results_that_the_server_deleted_are_not_paid_again_unasked(rules, ask, store) -> None:
    with LocalServer(rules, Faults(batch_s=0.1)) as server:
        backend = quick(server.base_url)
        look = backend._look

        def late(part, journal):
            batch = look(part, journal)
            if batch.output_file_id:
                server.state.files.pop(batch.output_file_id, None)
            return batch

        backend._look = late
        with pytest.raises(OSError, match=r"result file file-\d+ \(5 requests, maybe paid\)"):
            fill(ask(5), store, backend, progress=False)
        patient = quick(server.base_url, forget_lost=True)
        summary = fill(ask(5), store, patient, progress=False)
        assert (summary.unsure, len(store), sum(server.state.paid.values())) == (5, 5, 10)


def test_another_backend_does_not_pay_for_what_a_batch_holds(
    rules, ask, store, monkeypatch
) -> None:
    with LocalServer(rules) as server:
        die_in(monkeypatch, "part_batch", after=True)
        with pytest.raises(Killed):
            fill(ask(5), store, quick(server.base_url), progress=False)
        with pytest.raises(OSError, match="5 requests are under way as batches and compatible"):
            fill(ask(8), store, OpenAISync(server.base_url), progress=False)
        assert once(server, 8)
        fill(ask(8), store, quick(server.base_url), progress=False)
        assert once(server, 8)


def test_a_cut_result_file_is_fetched_again(rules, ask, store, monkeypatch) -> None:
    from dataprep.llm import openai_batch

    read, cuts = openai_batch.read_lines, [0.5, 0.7]

    def cut(text: str):
        if not cuts:
            return read(text)
        share = cuts.pop()  # 1.0: at the end of the last line but one, so every line is whole
        end = text.rfind("\n", 0, -1) + 1 if share == 1.0 else int(share * len(text)) + 1
        return read(text[:end])

    monkeypatch.setattr(openai_batch, "read_lines", cut)
    with LocalServer(rules) as server:
        fill(ask(5), store, quick(server.base_url), progress=False)
        assert once(server, 5)
        assert len(store) == 5
        for share, said in ((0.5, "is not JSON lines"), (1.0, "has 3 of 4 lines")):
            cuts += [share] * 5
            with pytest.raises(OSError, match=f"{said}; nothing is lost, run again"):
                fill(ask(9), store, quick(server.base_url), progress=False)
        assert not cuts
        fill(ask(9), store, quick(server.base_url), progress=False)
        assert once(server, 9)


def test_wrong_key_dead_server_and_rejected_batches_are_one_line(
    rules, ask, store, monkeypatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    with LocalServer(rules, key="sk-right") as server:
        with pytest.raises(OSError, match="was refused"):
            fill(ask(5), store, quick(server.base_url), progress=False)
        url = server.base_url
    with pytest.raises(OSError, match=r"upload of a batch file: no success for \d s"):
        fill(ask(5), store, quick(url), progress=False)
    with LocalServer(rules) as server:
        monkeypatch.setattr("dataprep.llm.server_state.MAX_REQUESTS", 4)
        with pytest.raises(OSError, match="failed: invalid_batch_size the file has too many"):
            fill(ask(5), store, quick(server.base_url), progress=False)
        fill(ask(5), store, quick(server.base_url, max_requests=4), progress=False)
        assert once(server, 5)


def test_a_server_that_dies_while_batches_run(rules, ask, store) -> None:
    with LocalServer(rules, Faults(batch_s=0.5)) as server:
        timer = threading.Timer(0.3, server.close)
        timer.start()
        with pytest.raises(OSError, match="looking at a batch: no success"):
            fill(ask(5), store, quick(server.base_url, patience_s=0.2), progress=False)
        timer.join()
        server.close = lambda: None
    with LocalServer(rules, state=server.state) as revived:
        fill(ask(5), store, quick(revived.base_url), progress=False)
        assert once(revived, 5)
