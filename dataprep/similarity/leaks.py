"""How much of a test set was seen in training: the leak of a split, as a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dataprep.similarity.dhash import Hashes, nearest
from dataprep.similarity.duplicates import COSINE, HAMMING

__all__ = ["Leak", "leak_table", "measure_leaks"]

Vectors = NDArray[np.floating]


@dataclass(frozen=True)
class Leak:
    """Of one held-out split, against the training split."""

    split: str
    pictures: int
    by_hash: int
    """Pictures with one in training whose 64-bit hash differs in at most ``hamming`` bits."""
    by_cosine: int | None
    """Pictures with one in training of a cosine above ``cosine``; None without vectors."""
    same_recording: int
    """Pictures whose recording is in training too."""
    hamming: int
    cosine: float

    def facts(self) -> dict[str, object]:
        """What a manifest says of it."""
        return dict(self.__dict__)


def measure_leaks(
    split_of: NDArray[np.object_], group: NDArray[np.object_], hashes: Hashes,
    vectors: Vectors | None = None, *, train: str = "train", hamming: int = HAMMING,
    cosine: float = COSINE, progress: bool = False,
) -> list[Leak]:  # fmt: skip
    """Compare every picture of every other split with all of the training split.

    Args:
        split_of: ``[n]``, the split of each picture.
        group: ``[n]``, its recording.
        hashes: ``[n]``.
        vectors: ``[n, d]`` of unit length, or None.
        train: name of the training split.
        hamming: bits up to which two are near-duplicates.
        cosine: cosine above which they are.
        progress: show bars.
    """
    seen = np.flatnonzero(split_of == train)
    known = set(group[seen])
    found = []
    for split in sorted({str(name) for name in split_of} - {train}):
        mine = np.flatnonzero(split_of == split)
        label = f"leak of {split}" if progress else ""
        near = nearest(hashes[mine], hashes[seen], label=label) <= hamming
        alike = None if vectors is None else _above(vectors, mine, seen, cosine, label)
        found.append(Leak(
            split, len(mine), int(near.sum()), alike, sum(group[at] in known for at in mine),
            hamming, cosine,
        ))  # fmt: skip
    return found


def _above(
    vectors: Vectors, mine: NDArray[np.int64], seen: NDArray[np.int64], cosine: float, label: str
) -> int:
    best = np.full(len(mine), -np.inf, np.float32)
    for tile in tqdm(
        range(0, len(seen), 8192), desc=label, unit="block", leave=False, disable=not label
    ):
        some = np.asarray(vectors[seen[tile : tile + 8192]], np.float32)
        for first in range(0, len(mine), 1024):
            part = np.asarray(vectors[mine[first : first + 1024]], np.float32) @ some.T
            held = best[first : first + 1024]
            np.maximum(held, part.max(axis=1), out=held)
    return int((best > cosine).sum())


def leak_table(leaks: Mapping[str, list[Leak]]) -> str:
    """Lines for a person: one a way of splitting and held-out split."""
    lines = ["Leak: share of held-out pictures with a near-duplicate in training"]
    for way, rows in leaks.items():
        for row in rows:
            count = max(row.pictures, 1)
            parts = [f"hash <= {row.hamming} bits {row.by_hash / count:6.1%}"]
            if row.by_cosine is not None:
                parts.append(f"cosine > {row.cosine:g} {row.by_cosine / count:6.1%}")
            parts.append(f"same recording {row.same_recording / count:6.1%}")
            lines.append(f"  {way:<12} {row.split:<8} {row.pictures:>8,} pictures: "
                         + ", ".join(parts))  # fmt: skip
    return "\n".join(lines)
