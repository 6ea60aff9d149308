"""The command, end to end, on a part of what is installed."""

from __future__ import annotations

import csv
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataprep.__main__ import main
from dataprep.picturebook.book import collect, make_book
from dataprep.picturebook.build import build
from dataprep.picturebook.drawings import Drawing
from engine import read_corpus


@pytest.fixture(scope="module")
def some() -> list[Drawing]:
    drawings = collect()
    concepts = sorted({d.concept for d in drawings if d.vendor == "twemoji"})[::6]
    groups = {d.group for d in drawings if d.concept in set(concepts)}
    return [d for d in drawings if d.concept in set(concepts) or (
        d.vendor == "tuxpaint" and d.group in groups)]


@pytest.fixture(scope="module")
def corpus_path(some: list[Drawing], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("book") / "picturebook"
    build(path, image_size=32, seed=3, drawings=some)
    return path


def digests(path: Path) -> dict[str, str]:
    return {
        str(f.relative_to(path)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(path.rglob("*")) if f.is_file()
    }


def test_same_seed_same_bytes(corpus_path: Path, some: list[Drawing], tmp_path: Path) -> None:
    build(tmp_path / "again", image_size=32, seed=3, drawings=some)
    assert digests(tmp_path / "again") == digests(corpus_path)


def test_corpus_is_whole(corpus_path: Path, some: list[Drawing]) -> None:
    corpus = read_corpus(corpus_path)
    assert set(corpus.splits) == {"train", "val", "test-concept", "test-view"}
    views: dict[str, str] = {}
    for name in corpus.splits:
        pairs = corpus.pairs(name)
        assert set(pairs.row) == set(range(len(corpus.images(name))))
        for view, source, how in zip(pairs.view, pairs.source, pairs.provenance, strict=True):
            assert views.setdefault(view, name) == name
            templated = source.endswith("-templated")
            assert templated == bool(how) == (not view.startswith("tuxpaint/"))
    assert set(views) == {d.key for d in some}
    made_by = corpus.info["made_by"]
    assert "look, {a}!" in made_by["templates"]["naming"]
    assert "templates" in corpus.info["notes"]
    licences = {source["licence"] for source in corpus.info["sources"]}
    assert licences >= {"GPL-2.0", "CC-BY-SA-4.0", "CC-BY-4.0"}
    Image.open(corpus_path / "contact_sheet.png").verify()


def test_evaluation_sets_fit_the_splits(corpus_path: Path) -> None:
    corpus = read_corpus(corpus_path)
    train = set(" ".join(corpus.pairs("train").utterance).lower().replace(",", " ").split())
    train = {word.strip("!?.\u201c\u201d") for word in train}
    for name in ("test-view", "test-concept"):
        folder = corpus_path / "benchmarks"
        held_out = {f"images/{v.replace('/', '_')}.png" for v in corpus.pairs(name).view}
        for kind in ("labeled", "two_word", "winoground", "caption"):
            with (folder / name / f"{kind}.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))
            assert rows, (name, kind)
            for row in rows:
                assert (folder / row["image"]).is_file()
                if row["image"] not in held_out:  # recoloured
                    assert row["image"].rsplit("_", 1)[0] + ".png" in held_out
            if kind == "caption":
                assert {row["image"] for row in rows} == held_out
            if kind == "two_word":
                for row in rows:
                    colour, noun = row["positive_phrase"].split()
                    assert colour in train
                    assert (noun in train) == (name == "test-view"), noun
    with Image.open(folder / sorted(held_out)[0]) as image:
        assert image.size == (32, 32) and image.mode == "RGB"


def test_no_leak_between_splits(some: list[Drawing]) -> None:
    book = make_book(some, 32, seed=3)
    x = np.stack([r.picture for r in book.rendered]).reshape(len(book.rendered), -1)
    correlation = np.corrcoef(x.astype(np.float64))  # independent of the code under test
    split_of = np.array([book.split_of[r.drawing.key] for r in book.rendered])
    across = split_of[:, None] != split_of[None]
    assert correlation[across].max() < 0.9
    assert book.dropped == [] and correlation[~across & ~np.eye(len(x), dtype=bool)].max() > 0.9


def test_bad_input_is_one_line(
    corpus_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    for arguments, message in (
        (["--out", str(corpus_path)], "exists already; --force"),
        (["--out", str(tmp_path / "mine"), "--force"], "is not a corpus"),
        (["--out", str(tmp_path / "new"), "--image-size", "16"], "--image-size 16"),
        (["--out", str(tmp_path / "new"), "--seed", "-1"], "--seed -1"),
    ):
        assert main(["picturebook", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert (tmp_path / "mine" / "thesis.txt").is_file() and not (tmp_path / "new").exists()


def children(pid: int) -> list[int]:
    out = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            out.append(int(stat.parent.name))
    return out


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_killed_while_drawing_leaves_nothing(tmp_path: Path, kill: signal.Signals) -> None:
    command = [sys.executable, "-m", "dataprep", "picturebook", "--out", str(tmp_path / "book")]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[2],
        # A job that a shell put into the background ignores Ctrl-C, and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)
    deadline, seen = time.monotonic() + 60, b""
    while b"1/" not in seen.replace(b" 0/", b"") and time.monotonic() < deadline:
        seen += process.stderr.read() or b""
        time.sleep(0.05)
    workers = children(process.pid)
    assert len(workers) >= 2, seen
    process.send_signal(kill)
    assert process.wait(20) == (130 if kill == signal.SIGINT else -kill)
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers)) and list(tmp_path.iterdir()) == []
    process.stderr.close()
