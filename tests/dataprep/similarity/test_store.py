"""Stores of vectors: killed at any moment they go on, and end with the bytes of one go."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dataprep.similarity import store as module
from dataprep.similarity.store import EmbeddingStore, fill_store

ROWS, DIM, BATCH = 203, 6, 8
KEY = {"corpus": "c", "split": "train", "what": "images", "scorer": "s"}


def numbers(first: int, last: int) -> NDArray[np.float32]:
    return np.arange(first * DIM, last * DIM, dtype=np.float32).reshape(-1, DIM)


def fill(folder: Path, compute=numbers, batch_size: int = BATCH, key=KEY, rows: int = ROWS):
    return fill_store(folder, compute, key=key, about={}, rows=rows, dim=DIM,
                      batch_size=batch_size, progress=False)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_rows_are_there_in_order(tmp_path: Path) -> None:
    store = fill(tmp_path / "a")
    assert isinstance(store.vectors, np.memmap) and len(store) == ROWS
    np.testing.assert_array_equal(store.vectors, numbers(0, ROWS))
    assert store.key == KEY and store.facts["done"] == ROWS
    np.testing.assert_array_equal(np.load(tmp_path / "a" / "vectors.npy"), store.vectors)


def test_a_whole_store_computes_nothing(tmp_path: Path) -> None:
    before = files(fill(tmp_path / "a").folder)

    def never(first: int, last: int) -> NDArray[np.float32]:
        raise AssertionError("computed again")

    fill(tmp_path / "a", never)
    assert files(tmp_path / "a") == before


def _slowly(folder: Path) -> None:
    module.SAVE_EVERY_S = 0.0

    def compute(first: int, last: int) -> NDArray[np.float32]:
        time.sleep(0.004)
        return numbers(first, last)

    fill(folder, compute)


def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    fill(tmp_path / "whole")
    draw = np.random.default_rng(5)
    killed, starts = 0, []

    def done() -> int:
        facts = tmp_path / "a" / "facts.json"
        return json.loads(facts.read_text())["done"] if facts.exists() else 0

    for _ in range(60):
        child = multiprocessing.get_context("fork").Process(target=_slowly, args=(tmp_path / "a",))
        child.start()
        before = starts[-1] if starts else 0
        while child.is_alive() and done() <= before:  # by progress, not by the clock
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.01))
        child.kill()
        child.join()
        killed += child.exitcode == -signal.SIGKILL
        starts.append(done())
        if child.exitcode == 0:
            break
    assert killed >= 3 and starts == sorted(starts) and starts[killed - 1] > 0
    fill(tmp_path / "a")
    assert files(tmp_path / "a") == files(tmp_path / "whole")


def test_what_was_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY_S", 0.0)

    def failing(first: int, last: int) -> NDArray[np.float32]:
        if first >= 80:
            raise ValueError("picture 83 is corrupt")
        return numbers(first, last)

    with pytest.raises(ValueError, match="picture 83"):
        fill(tmp_path / "a", failing)
    with pytest.raises(ValueError, match="80 of 203 rows are there"):
        EmbeddingStore(tmp_path / "a")
    asked = []
    fill(tmp_path / "a", lambda first, last: (asked.append(first), numbers(first, last))[1])
    assert asked[0] == 80


def test_a_full_disk_is_an_error_and_the_rest_is_kept(tmp_path: Path) -> None:
    def child(folder: Path) -> None:
        module.SAVE_EVERY_S = 0.0
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
        try:
            fill(folder)
        except OSError:
            os._exit(7)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=child, args=(tmp_path / "a",))
    process.start()
    process.join()
    assert process.exitcode == 7
    done = json.loads((tmp_path / "a" / "facts.json").read_text())["done"]
    assert 0 < done < ROWS and done % BATCH == 0
    np.testing.assert_array_equal(fill(tmp_path / "a").vectors, numbers(0, ROWS))


def test_another_store_is_not_overwritten(tmp_path: Path) -> None:
    fill(tmp_path / "a")
    for change in ({"key": {**KEY, "scorer": "t"}}, {"rows": ROWS - 1}):
        with pytest.raises(ValueError, match="holds another store"):
            fill(tmp_path / "a", **change)


def test_two_processes_do_not_fill_one_store(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=_slowly, args=(tmp_path / "a",))
    child.start()
    while not (tmp_path / "a" / "facts.json").exists():
        time.sleep(0.002)
    with pytest.raises(ValueError, match="another process"):
        fill(tmp_path / "a")
    child.join()
    np.testing.assert_array_equal(fill(tmp_path / "a").vectors, numbers(0, ROWS))


def test_damage_is_seen(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no store of vectors there"):
        EmbeddingStore(tmp_path)
    fill(tmp_path / "a")
    data = (tmp_path / "a" / "vectors.npy").read_bytes()
    (tmp_path / "a" / "vectors.npy").write_bytes(data[:-4])
    with pytest.raises(ValueError, match=r"vectors\.npy: cannot be read"):
        EmbeddingStore(tmp_path / "a")
    facts = json.loads((tmp_path / "a" / "facts.json").read_text())
    (tmp_path / "a" / "facts.json").write_text(json.dumps({**facts, "done": 160}))
    (tmp_path / "a" / "vectors.npy").write_bytes(data[:500])
    with pytest.raises(ValueError, match=r"too short for the 160 rows"):
        fill(tmp_path / "a")
    (tmp_path / "a" / "facts.json").write_text("{")
    with pytest.raises(ValueError, match=r"facts\.json: not JSON"):
        fill(tmp_path / "a")


def test_wrong_batch(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch size 0: accepted are 1 and above"):
        fill(tmp_path / "a", batch_size=0)
    with pytest.raises(ValueError, match=r"rows 0 to 8 came as \(8, 5\)"):
        fill(tmp_path / "b", lambda first, last: np.zeros((last - first, 5), np.float32))


def test_no_rows(tmp_path: Path) -> None:
    assert fill(tmp_path / "a", rows=0).vectors.shape == (0, DIM)
