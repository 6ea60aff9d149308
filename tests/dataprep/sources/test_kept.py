"""Ingestion that was killed goes on: what was made is not made again, the bytes are the same."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataprep.sources import general, kept
from dataprep.sources.cvcl import ingest_cvcl
from dataprep.sources.general import Layout, ingest_general
from dataprep.sources.kept import Kept
from dataprep.sources.pictures import Prepared
from engine import Source

ROWS = 60
MADE: list[Prepared | str | None] = [
    Prepared(b"jpeg", "ab" * 32), "not a picture (ü)", None, Prepared(b"", "00" * 32)]


def write(folder: Path) -> Path:
    """Rows of which every seventh has no picture and every ninth no words."""
    draw = np.random.default_rng(0)
    folder.mkdir()
    lines = ["image,text"]
    for k in range(ROWS):
        if k % 7:
            Image.fromarray(draw.integers(0, 256, (40, 30, 3), np.uint8)).save(folder / f"{k}.png")
        lines.append(f"{k}.png,{'' if k % 9 == 4 else f'row {k}'}")
    rows = folder / "rows.csv"
    rows.write_text("\n".join(lines) + "\n")
    return rows


def run(rows: Path, out: Path, **changes: Any) -> None:
    options = {"source": Source("a", "CC0-1.0", ""), "image_size": 32, "workers": 2} | changes
    ingest_general(Layout("csv", (("", rows),)), None, out, progress=False, **options)


def digests(out: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(out.iterdir())}


def _slowly(rows: Path, out: Path) -> None:
    make = general.prepare

    def prepare(*args: Any) -> Prepared | str:
        time.sleep(0.01)
        return make(*args)

    general.prepare = prepare  # type: ignore[assignment]
    kept.SYNC_EVERY_S = 0.0
    run(rows, out)


def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows")
    run(rows, tmp_path / "whole")
    draw, file = np.random.default_rng(3), tmp_path / "out.pictures" / "0.bin"
    killed, sizes = 0, [0]
    for _ in range(60):
        child = multiprocessing.get_context("fork").Process(
            target=_slowly, args=(rows, tmp_path / "out"))
        child.start()
        while child.is_alive() and not (file.exists() and file.stat().st_size > sizes[-1]):
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.06))
        child.kill()
        child.join()
        if child.exitcode == 0:
            break
        killed += 1
        if file.exists():  # else it was killed when all was done, tidying up
            sizes.append(file.stat().st_size)
    assert killed >= 3 and sizes == sorted(sizes)
    if not (tmp_path / "out").exists():
        run(rows, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert not (tmp_path / "out.pictures").exists()


def test_what_was_made_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = write(tmp_path / "rows")
    make, names = general.prepare, []

    def stopping(read: Any, *args: Any) -> Prepared | str:
        names.append(len(names))
        if len(names) == 30:
            raise KeyboardInterrupt
        return make(read, *args)

    monkeypatch.setattr(general, "prepare", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(rows, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()
    before = len(names)
    run(rows, tmp_path / "out", workers=1)
    with_words = sum(k % 9 != 4 for k in range(ROWS))
    assert with_words < len(names) <= with_words + 6  # those under way at the stop, once more
    assert len(names) - before < with_words - 20
    assert len(json.loads((tmp_path / "out" / "corpus.json").read_text())["splits"]) == 1


def test_other_settings_start_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = write(tmp_path / "rows")

    def interrupted(self: Kept, made: Any) -> None:
        add(self, made)
        if made is not None and not isinstance(made, str):
            raise KeyboardInterrupt

    add = Kept.add
    with monkeypatch.context() as patch:
        patch.setattr(Kept, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(rows, tmp_path / "out")
    run(rows, tmp_path / "out", image_size=16)
    run(rows, tmp_path / "whole", image_size=16)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


@pytest.mark.parametrize("cut", [1, 5, 44, 60])
def test_a_torn_tail_is_dropped(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "folder" / "0.bin"
    with Kept(path, ["facts"]) as file:
        assert list(file.known()) == []
        for made in MADE:
            file.add(made)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Kept(path, ["facts"]) as file:
        known = list(file.known())
        assert known == MADE[:len(known)] and len(MADE) - 3 <= len(known) < len(MADE)
        for made in MADE[len(known):]:
            file.add(made)
    assert path.read_bytes() == whole
    damaged = bytearray(whole)
    damaged[whole.index(b"jpeg")] ^= 1
    path.write_bytes(damaged)
    with Kept(path, ["facts"]) as file:
        assert list(file.known()) == []
    with Kept(path, ["other"]) as file:
        assert list(file.known()) == [] and path.stat().st_size <= 41


def test_frames_of_cvcl_go_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "frames").mkdir()
    names = [f"S_{k}.jpg" for k in range(6)]
    for k, name in enumerate(names):
        Image.new("RGB", (224, 224), (40 * k, 9, 9)).save(tmp_path / "frames" / name)
    said = [{"utterance": "look", "transcript_filename": "t.csv", "video_filename": "v.mp4",
             "utterance_num": k, "num_frames": 1, "timestamps": [float(k)],
             "frame_filenames": [name]} for k, name in enumerate(names)]
    for split, data in (("train", said), ("val", []), ("test", [])):
        (tmp_path / f"{split}.json").write_text(json.dumps({"data": data}))

    def interrupted(self: Kept, made: Any) -> None:
        add(self, made)
        raise KeyboardInterrupt

    add = Kept.add
    with monkeypatch.context() as patch:
        patch.setattr(Kept, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ingest_cvcl(tmp_path / "frames", tmp_path, tmp_path / "out", progress=False)
    assert (tmp_path / "out.pictures" / "0.bin").stat().st_size > 41
    for out in ("out", "whole"):
        ingest_cvcl(tmp_path / "frames", tmp_path, tmp_path / out, progress=False)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert not list(tmp_path.glob("*.pictures"))
