"""Near-duplicate pictures: found, written down, and dropped only when that is asked for.

Two passes, both of which compare a picture with *kept* ones, so that a slow pan does not chain a
whole recording into one group: every member is within the limit of the picture it is laid to.

1. Over time: within a recording, a frame joins the last kept frame while their 64-bit hashes
   differ in few bits.
2. Exact: of what is left, each picture joins the most similar kept one whose cosine is above a
   limit, compared with all of them, in blocks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from dataprep.similarity.dhash import Hashes, hamming
from dataprep.similarity.recordings import Frames

__all__ = [
    "COSINE", "HAMMING", "Duplicates", "cosine_leaders", "find_duplicates", "time_leaders",
    "write_duplicates",
]  # fmt: skip

HAMMING = 4
"""Bits of 64 in which neighbours in time may differ. Ours; nothing is published."""
COSINE = 0.95
"""Cosine from which two pictures count as the same. Ours, for CLIP."""
BLOCK, TILE = 1024, 8192
SAVE_EVERY_S = 30.0
Vectors = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Duplicates:
    """For each picture, in the order given, the one it was laid to: itself if it is kept."""

    near: NDArray[np.int64]
    """``[n]``: position of the picture that it was found near."""
    group: NDArray[np.int64]
    """``[n]``: position of the kept picture at the end of that chain of at most two."""
    bits: NDArray[np.int64]
    """``[n]``: Hamming distance to ``near``, -1 where it was not found by its hash."""
    cosine: NDArray[np.float64]
    """``[n]``: cosine to ``near``, NaN where it was not found by its vector."""

    @property
    def kept(self) -> NDArray[np.bool_]:
        """``[n]``: True where the picture is the one that stays."""
        return self.group == np.arange(len(self.group))


def time_leaders(hashes: Hashes, recording: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Lay each frame to the last kept frame of its recording that is within ``limit`` bits.

    Args:
        hashes: ``[n]``, frames of a recording together and in time.
        recording: ``[n]``, a number for each recording.
        limit: bits, 0 to 64.

    Returns:
        Int64 ``[n]``: position of the frame it is laid to, itself if kept.
    """
    leader = np.arange(len(hashes))
    ends = np.flatnonzero(np.diff(recording, append=-1)) + 1
    start = 0
    for end in ends:
        at = start
        while at < end:
            step, last = 32, at + 1
            while last < end:
                far = hamming(hashes[last : min(last + step, end)], hashes[at]) > limit
                if far.any():
                    last += int(far.argmax())
                    break
                last, step = min(last + step, end), 2 * step
            leader[at:last] = at
            at = last
        start = int(end)
    return leader


def cosine_leaders(
    vectors: Vectors, limit: float, *, state: Path | None = None, progress: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Lay each picture to the most similar earlier kept one, if their cosine is above ``limit``.

    Exact: every picture is compared with all kept before it. In float32 products.

    Args:
        vectors: ``[n, d]`` of unit length.
        limit: cosine.
        state: file in which the work so far is kept every half minute; of these vectors and this
            limit alone. It is removed at the end.
        progress: show a bar.

    Returns:
        Position it is laid to (itself if kept) ``[n]``, and that cosine (NaN if kept) ``[n]``.
    """
    count = len(vectors)
    leader = np.arange(count)
    cosine = np.full(count, np.nan)
    kept = np.empty((count, vectors.shape[1]), np.float32)
    kept_at = np.empty(count, np.int64)
    num_kept = start = 0
    if state is not None and state.is_file():
        with np.load(state) as held:
            start = len(held["leader"])
            leader[:start], cosine[:start] = held["leader"], held["cosine"]
        at = np.flatnonzero(leader[:start] == np.arange(start))
        num_kept = len(at)
        kept[:num_kept], kept_at[:num_kept] = vectors[at], at
    saved = time.monotonic()
    with tqdm(
        total=count, initial=start, unit="picture", desc="exact cosine", disable=not progress
    ) as bar:
        for first in range(start, count, BLOCK):
            block = np.asarray(vectors[first : first + BLOCK], np.float32)
            best = np.full(len(block), -np.inf, np.float32)
            to = np.full(len(block), -1, np.int64)
            for tile in range(0, num_kept, TILE):
                product = block @ kept[tile : min(tile + TILE, num_kept)].T
                where = product.argmax(axis=1)
                value = product[np.arange(len(block)), where]
                better = value > best
                best[better], to[better] = value[better], kept_at[tile + where[better]]
            _within(block, first, limit, best, to)
            found = best > limit
            leader[first : first + BLOCK][found] = to[found]
            cosine[first : first + BLOCK][found] = best[found]
            new = np.flatnonzero(~found)
            kept[num_kept : num_kept + len(new)] = block[new]
            kept_at[num_kept : num_kept + len(new)] = first + new
            num_kept += len(new)
            bar.update(len(block))
            if state is not None and time.monotonic() - saved > SAVE_EVERY_S:
                done = first + len(block)
                partial = state.with_suffix(".partial")
                with partial.open("wb") as file:
                    np.savez(file, leader=leader[:done], cosine=cosine[:done])
                partial.replace(state)
                saved = time.monotonic()
    if state is not None:
        state.unlink(missing_ok=True)
    return leader, cosine


def _within(
    block: NDArray[np.float32], first: int, limit: float, best: NDArray[np.float32],
    to: NDArray[np.int64],
) -> None:  # fmt: skip
    """Let what no earlier block has taken look for a kept picture in its own block, in order."""
    free = np.flatnonzero(best <= limit)
    alike = np.tril(block[free] @ block[free].T, -1)
    is_kept = np.ones(len(free), bool)
    for row in np.flatnonzero((alike > limit).any(axis=1)):
        some = np.where(is_kept[:row], alike[row, :row], -np.inf)
        at = int(some.argmax())
        if some[at] > limit:
            is_kept[row] = False
            best[free[row]], to[free[row]] = some[at], first + free[at]


def find_duplicates(
    frames: Sequence[Frames],
    hashes: Sequence[Hashes],
    vectors: Sequence[Vectors] | None = None,
    *,
    hamming_limit: int = HAMMING,
    cosine_limit: float = COSINE,
    state: Path | None = None,
    progress: bool = True,
) -> Duplicates:
    """Find near-duplicates among the pictures of several splits.

    Args:
        frames: of each split; what comes first is kept rather than what comes later.
        hashes: of their pictures.
        vectors: of their pictures; None leaves the second pass out.
        hamming_limit: bits, 0 to 64.
        cosine_limit: cosine above which two are the same.
        state: file of the second pass (`cosine_leaders`).
        progress: show bars.

    Returns:
        Positions count through the splits as given.

    Raises:
        ValueError: a limit out of range.
    """
    if not 0 <= hamming_limit <= 64:
        raise ValueError(f"--hamming {hamming_limit}: accepted are 0 to 64 bits")
    if not 0 < cosine_limit <= 1:
        raise ValueError(f"--cosine {cosine_limit}: accepted are more than 0, to 1")
    starts = np.cumsum([0, *(len(part) for part in frames)])
    order = [part.in_time() + start for part, start in zip(frames, starts[:-1], strict=True)]
    order = np.concatenate([*order, np.empty(0, np.int64)]).astype(np.int64)
    named = [f"{part.split}\0{name}" for part in frames for name in part.group]
    _, recording = np.unique(np.array(named, str), return_inverse=True)
    every = np.concatenate([*hashes, np.empty(0, np.uint64)])

    count = len(order)
    near, cosine = np.arange(count), np.full(count, np.nan)
    bits = np.full(count, -1, np.int64)
    leader = order[time_leaders(every[order], recording[order], hamming_limit)]
    near[order] = leader
    by_hash = near != np.arange(count)
    bits[by_hash] = hamming(every[by_hash], every[near[by_hash]])
    group = near.copy()
    if vectors is not None:
        left = order[near[order] == order]
        flat = np.concatenate(list(vectors))[left]
        found, value = cosine_leaders(flat, cosine_limit, state=state, progress=progress)
        near[left], cosine[left] = left[found], value
        # Those laid to a frame that is now laid to another go with it.
        group = near[near]
    return Duplicates(near, group, bits, cosine)


def write_duplicates(file: Path, frames: Sequence[Frames], found: Duplicates) -> None:
    """Write one row a picture: ids, recording, time, what it is near to and by which measure."""
    image = np.concatenate([part.image for part in frames])
    view = np.concatenate([part.view for part in frames])
    method = np.where(found.bits >= 0, "dhash", np.where(found.kept, "", "cosine"))
    kept = found.kept
    table = pa.table({
        "split": np.concatenate([np.full(len(part), part.split, object) for part in frames]),
        "image": image,
        "view": view,
        "recording": np.concatenate([part.group for part in frames]),
        "time_s": pa.array(np.concatenate([part.time_s for part in frames]), from_pandas=True),
        "group": image[found.group],
        "kept": kept,
        "near": pa.array(image[found.near], mask=kept),
        "near_view": pa.array(view[found.near], mask=kept),
        "method": method.astype(object),
        "hamming": pa.array(found.bits, mask=found.bits < 0),
        "cosine": pa.array(found.cosine, from_pandas=True),
    })  # fmt: skip
    pq.write_table(table, file)
