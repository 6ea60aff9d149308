"""Rows of numbers on disk, one a picture or pair: filled in batches, killed and resumed, mapped.

    facts.json    what the rows are (the key), how many are done, SHA-256 of vectors.npy once whole
    vectors.npy   a NumPy array [rows, dim]; shorter than it says until it is whole

Rows are appended by ordinary writes, not through the map: a full disk is then an error and not a
signal that ends the process. What counts as done was flushed to the device before.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from tqdm import tqdm

from dataprep.files import sha256_file, write_whole

__all__ = ["EmbeddingStore", "fill_store", "write_json"]

FACTS, VECTORS, LOCK = "facts.json", "vectors.npy", ".lock"
SAVE_EVERY_S = 2.0
"""Seconds of work that a kill may cost."""

Compute = Callable[[int, int], NDArray[Any]]
"""Rows ``first`` to ``last`` (exclusive) as ``[last - first, dim]``."""


class EmbeddingStore:
    """A whole store, opened for reading.

    Attributes: ``folder``; ``facts``, what ``facts.json`` says; ``vectors``, the memory-mapped
    array ``[rows, dim]``, row ``i`` being row ``i`` of the split's pictures, or its pair ``i``.

    Raises:
        ValueError: no store there, an unfinished one, or files that do not belong together.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = _read_facts(folder)
        rows, done = self.facts["rows"], self.facts["done"]
        if done != rows:
            raise ValueError(
                f"{folder}: {done} of {rows} rows are there; the command that began it goes on"
            )
        try:
            self.vectors: NDArray[Any] = np.load(folder / VECTORS, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder / VECTORS}: cannot be read ({error})") from None
        if self.vectors.shape != (rows, self.facts["dim"]):
            raise ValueError(
                f"{folder / VECTORS}: shape {self.vectors.shape}; {FACTS} says "
                f"({rows}, {self.facts['dim']})"
            )

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def key(self) -> dict[str, Any]:
        """What the rows are of: corpus digest, split, pictures or texts, scorer hash."""
        return self.facts["key"]


def fill_store(
    folder: Path,
    compute: Compute,
    *,
    key: Mapping[str, Any],
    about: Mapping[str, Any],
    rows: int,
    dim: int,
    dtype: DTypeLike = np.float32,
    batch_size: int = 64,
    unit: str = "row",
    label: str = "",
    progress: bool = True,
) -> EmbeddingStore:
    """Make the store at ``folder``, go on with a half-filled one, or open a whole one.

    Args:
        folder: of this store alone.
        compute: gives the rows of a batch; called in order.
        key: decides what the rows are; a store with another key is refused.
        about: further facts to keep (the scorer's).
        rows: how many.
        dim: numbers a row.
        dtype: of the numbers.
        batch_size: rows a call; batches begin at its multiples, so a resumed store has the bytes
            of one that was never stopped.
        unit: what the progress bar counts.
        label: what it says before.
        progress: show it.

    Raises:
        ValueError: ``folder`` holds another store, or another process is filling it.
        OSError: the disk is full; what was done before stays.
    """
    if batch_size < 1:
        raise ValueError(f"batch size {batch_size}: accepted are 1 and above")
    wanted = {
        "key": dict(key), "rows": rows, "dim": dim, "dtype": np.dtype(dtype).str,
        "about": dict(about),
    }  # fmt: skip
    if not _is_whole(folder, wanted):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            facts = _started(folder, wanted, batch_size)
            _append(folder, facts, compute, batch_size, unit, label, progress)
    return EmbeddingStore(folder)


def _is_whole(folder: Path, wanted: dict[str, Any]) -> bool:
    """Whether the wanted store is there; ``ValueError`` when another one is."""
    if not (folder / FACTS).is_file():
        return False
    facts = _read_facts(folder)
    for name in ("key", "rows", "dim", "dtype"):
        if facts[name] != wanted[name]:
            raise ValueError(
                f"{folder}: holds another store ({name} is {facts[name]}, not {wanted[name]}); "
                "remove it or name another folder"
            )
    return facts["done"] == facts["rows"] and "sha256" in facts


def _started(folder: Path, wanted: dict[str, Any], batch_size: int) -> dict[str, Any]:
    """Return the facts of the store at ``folder``, begun now if there is none."""
    if (folder / FACTS).is_file():
        facts = _read_facts(folder)
        # Only whole batches of this size count, so that the bytes are those of one go.
        facts["done"] -= facts["done"] % batch_size
        facts["batch_size"] = batch_size
        return facts
    facts = {**wanted, "batch_size": batch_size, "done": 0}
    with (folder / VECTORS).open("wb") as file:
        header = {"descr": wanted["dtype"], "fortran_order": False,
                  "shape": (wanted["rows"], wanted["dim"])}  # fmt: skip
        np.lib.format.write_array_header_1_0(file, header)
        _flush(file)
    write_json(folder / FACTS, facts)
    return facts


def _append(
    folder: Path, facts: dict[str, Any], compute: Compute, batch_size: int, unit: str, label: str,
    progress: bool,
) -> None:  # fmt: skip
    rows, dim, dtype = facts["rows"], facts["dim"], np.dtype(facts["dtype"])
    with (folder / VECTORS).open("r+b") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        start, row_bytes = file.tell(), dim * dtype.itemsize
        size = file.seek(0, os.SEEK_END)
        if size < start + facts["done"] * row_bytes:
            raise ValueError(
                f"{folder / VECTORS}: {size} bytes, too short for the {facts['done']} rows that "
                f"{FACTS} counts; remove the folder"
            )
        file.truncate(start + facts["done"] * row_bytes)
        file.seek(0, os.SEEK_END)
        saved = time.monotonic()
        with tqdm(
            total=rows, initial=facts["done"], unit=unit, desc=label, disable=not progress,
            unit_scale=False,
        ) as bar:  # fmt: skip
            for first in range(facts["done"], rows, batch_size):
                last = min(first + batch_size, rows)
                part = np.ascontiguousarray(compute(first, last), dtype)
                if part.shape != (last - first, dim):
                    raise ValueError(f"{folder}: rows {first} to {last} came as {part.shape}")
                file.write(part.tobytes())
                bar.update(last - first)
                if time.monotonic() - saved > SAVE_EVERY_S and last < rows:
                    _flush(file)
                    facts["done"] = last
                    write_json(folder / FACTS, facts)
                    saved = time.monotonic()
        _flush(file)
    facts["sha256"] = sha256_file(folder / VECTORS)
    facts["done"] = rows
    write_json(folder / FACTS, facts)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out; the lock goes with the process that holds it."""
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another process is filling this store") from None
        yield


def _read_facts(folder: Path) -> dict[str, Any]:
    file = folder / FACTS
    try:
        facts = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder}: no store of vectors there ({FACTS} is missing)") from None
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error})") from None
    if not isinstance(facts, dict) or not {"key", "rows", "dim", "dtype", "done"} <= facts.keys():
        raise ValueError(f"{file}: not the facts of a store of vectors")
    return facts


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def write_json(file: Path, content: Any) -> None:
    """Replace ``file`` by ``content`` as JSON in one step (one process at a time)."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_whole(file, text, f".{file.name}.partial")
