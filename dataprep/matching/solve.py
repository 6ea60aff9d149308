"""`match`: a different column for every row, at the largest total similarity."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dataprep.matching.progress import Progress, load_progress, problem_key, save_progress
from dataprep.matching.result import Matching, Quota
from dataprep.matching.tiles import Tiles

__all__ = ["match", "settle"]

FIRST_KEEP = 128
"""Columns of a row's first list."""
MOST_KEEP = 4096
"""Columns of its later ones, at most (exact mode: all)."""
SLICE = 200_000
"""Bids between two looks at the clock and at signals."""
SAVE_EVERY_S = 20.0
"""Seconds between two states that are kept, when they are: what a kill may cost."""
PATHS = 1000
"""Shortest paths between two such looks."""


def settle(core: Any) -> int:
    """Make an auction's matching optimal on its lists; return how many rows that does not prove."""
    core.unsettle()
    while core.augment(PATHS) or core.lower(PATHS):
        pass
    return core.settle()


def match(
    rows: NDArray[Any],
    columns: NDArray[Any],
    *,
    epsilon: float = 1e-4,
    exact: bool = False,
    quota: Quota | None = None,
    reject_below: float | None = None,
    per_row: int = 1,
    memory_bytes: int | None = None,
    threads: int | None = None,
    progress: bool = True,
    device: str = "cpu",
    resume: Path | None = None,
) -> Matching:
    """Pick a different column for every row so that the sum of ``rows @ columns.T`` is largest.

    The matrix of similarities is never stored: rows keep short lists of their best columns and bid
    for them; a list that can no longer prove a bid is made anew at the prices of the moment
    (auction, Bertsekas 1988). The result is within ``n * epsilon`` of the optimum over *all*
    pairs, and its `bound` proves how near.

    Args:
        rows: ``[n, d]``, floating; for cosine similarity of unit length.
        columns: ``[m, d]``. With fewer columns than rows every column gets a row instead.
        epsilon: what a bid adds, in units of similarity.
        exact: find the optimum itself: rows that could do better at the auction's prices are
            matched anew by shortest augmenting paths, until the bound is the total.
        quota: limits on the columns taken from each source (not with ``exact``).
        reject_below: leave a row out rather than give it a column less similar than that, or
            push another row that far down.
        per_row: columns for each row; ``columns`` and ``similarity`` are then ``[n * per_row]``,
            those of a row together.
        memory_bytes: for tiles and lists; default 1 GiB.
        threads: processor cores; default all. The result does not depend on it.
        progress: show a bar with rate and remaining time.
        device: ``cpu``, or ``cuda`` for the similarities.
        resume: folder in which the state is kept every 20 s: a later call with the same problem
            goes on from there, to the same result. It is emptied at the end.

    Raises:
        ValueError: naming the argument that is wrong, or saying that the rows cannot all be served.
    """
    started = time.perf_counter()
    rows, columns = _embeddings("rows", rows), _embeddings("columns", columns)
    _check(rows, columns, epsilon, exact, quota, reject_below, per_row)
    if per_row > 1:
        rows = np.repeat(rows, per_row, axis=0)
    turned = len(rows) > len(columns) and reject_below is None
    if turned:
        if quota is not None:
            raise ValueError(
                f"quota: {len(rows)} rows need reject_below, for there are {len(columns)} columns"
            )
        rows, columns = columns, rows
    if quota is not None and reject_below is None and _places(quota) < len(rows):
        raise ValueError(
            f"quota: {_places(quota)} places for {len(rows)} rows; raise limits or set reject_below"
        )
    solver = _Solver(
        rows, columns, epsilon=epsilon, exact=exact, quota=quota, reject_below=reject_below,
        memory_bytes=memory_bytes or 1 << 30, threads=threads or os.cpu_count() or 1,
        progress=progress, device=device, resume=resume,
    )  # fmt: skip
    found = solver.run()
    if turned:
        found = _turn(found, len(columns))
    found.seconds["all"] = time.perf_counter() - started
    return found


def _embeddings(name: str, given: NDArray[Any]) -> NDArray[np.float32]:
    if given.ndim != 2 or not np.issubdtype(given.dtype, np.floating):
        raise ValueError(f"{name}: floating [n, d] expected, got {given.dtype} of {given.shape}")
    wide = np.ascontiguousarray(given, np.float32)
    if not np.isfinite(wide).all():
        bad = int(np.flatnonzero(~np.isfinite(wide).all(axis=1))[0])
        raise ValueError(f"{name}: row {bad} is not finite")
    return wide


def _check(
    rows: NDArray[Any], columns: NDArray[Any], epsilon: float, exact: bool, quota: Quota | None,
    reject_below: float | None, per_row: int,
) -> None:  # fmt: skip
    if rows.shape[1] != columns.shape[1]:
        raise ValueError(f"columns: width {rows.shape[1]} expected, got {columns.shape[1]}")
    if not epsilon > 0:
        raise ValueError(f"epsilon: more than 0 expected, got {epsilon}")
    if per_row < 1:
        raise ValueError(f"per_row: at least 1 expected, got {per_row}")
    if reject_below is not None and not np.isfinite(reject_below):
        raise ValueError(f"reject_below: a finite number expected, got {reject_below}")
    if quota is None:
        return
    if exact:
        raise ValueError("exact: not with a quota; accepted: one of the two")
    if quota.source.shape != (len(columns),) or not np.issubdtype(quota.source.dtype, np.integer):
        raise ValueError(
            f"quota: source must be integers [{len(columns)}], got {quota.source.dtype} of "
            f"{quota.source.shape}"
        )
    if min(quota.limits, default=0) < 0 or (
        len(columns) and not 0 <= quota.source.min() <= quota.source.max() < len(quota.limits)
    ):
        raise ValueError("quota: each source must be an index into limits, and no limit negative")


def _places(quota: Quota) -> int:
    counts = np.bincount(quota.source, minlength=len(quota.limits))
    return int(np.minimum(counts, quota.limits).sum())


def _turn(found: Matching, num_rows: int) -> Matching:
    """Return a matching of columns to rows as one of rows to columns (prices stay behind)."""
    columns = np.full(num_rows, -1, np.int32)
    similarity = np.full(num_rows, np.nan, np.float32)
    columns[found.columns] = np.arange(len(found.columns), dtype=np.int32)
    similarity[found.columns] = found.similarity
    return Matching(
        columns, similarity, found.total, found.bound, found.rounds, found.seconds, found.bids,
        method=found.method,
    )  # fmt: skip


class _Solver:
    def __init__(
        self, rows: NDArray[np.float32], columns: NDArray[np.float32], *, epsilon: float,
        exact: bool, quota: Quota | None, reject_below: float | None, memory_bytes: int,
        threads: int, progress: bool, device: str, resume: Path | None,
    ) -> None:  # fmt: skip
        from _native import Assignment

        self.shape = (len(rows), len(columns))
        self.epsilon, self.exact, self.quota = epsilon, exact, quota
        self.reject_below, self.resume, self.show = reject_below, resume, progress
        empty = np.empty(0, np.int32)
        self.core = Assignment(
            rows, columns, empty if quota is None else quota.source.astype(np.int32),
            [] if quota is None else list(quota.limits),
            -np.inf if reject_below is None else reject_below,
        )  # fmt: skip
        self.tiles = Tiles(
            self.core, rows, columns, threads=threads, memory_bytes=memory_bytes, device=device
        )
        # A list entry and its buffer: 12 bytes listed, 24 while it is made.
        self.most_keep = MOST_KEEP
        self.first_keep = max(1, min(FIRST_KEEP, memory_bytes // 2 // (36 * max(len(rows), 1))))
        self.saved = time.monotonic()
        self.at = Progress(key=problem_key(rows, columns, epsilon, exact, quota, reject_below))

    def run(self) -> Matching:
        num_rows = self.shape[0]
        if self.resume is not None and (saved := load_progress(self.resume, self.at.key)):
            self.at = saved
            self.core.set_state(saved.state)
        keep = self.at.keep if len(self.at.keep) else np.zeros(num_rows, np.int64)
        while True:
            asked = self.core.parked()
            if len(asked):
                self._refresh(asked, keep)
            self._bid()
            self.at.rounds += 1
            if not len(self.core.parked()) and not (self.exact and self._settle()):
                break
            self._save(keep)
        if self.resume is not None:
            save_progress(self.resume, None)
        return self._result()

    def _refresh(self, asked: NDArray[np.int32], keep: NDArray[np.int64]) -> None:
        """Make lists, of rows with lists of one length together."""
        began = time.perf_counter()
        num_columns = max(self.shape[1], 1)
        show = self.show and len(asked) * num_columns > 10**8  # less is done at once
        with tqdm(
            total=len(asked) * num_columns, unit="pair", unit_scale=True, leave=False,
            disable=not show,
            desc=f"round {self.at.rounds + 1}: lists of {len(asked):,} rows",
        ) as bar:  # fmt: skip

            def report(pairs: int) -> None:
                bar.update(pairs)

            lengths = self._lengths(asked, keep)
            block = self.tiles.block
            for size in np.unique(lengths):
                # So many at once that their buffers stay within bounds, and a kill loses little.
                some = asked[lengths == size]
                most = min((256 << 20) // int(24 * size), 4 * self.tiles.threads * block)
                step = max(most // block, 1) * block
                for first in range(0, len(some), step):
                    part = some[first : first + step]
                    self.tiles.refresh(part, int(size), report)
                    keep[part] = size
                    self._save(keep)
        self._spent("lists", began)

    def _lengths(self, asked: NDArray[np.int32], keep: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how long the new lists are: twice the old ones, where there were any."""
        stuck = np.isin(asked, self.core.stuck()) | self.exact
        most = np.where(stuck, max(self.shape[1], 1), np.maximum(self.most_keep, keep[asked]))
        return np.where(keep[asked], np.minimum(2 * keep[asked], most), self.first_keep)

    def _save(self, keep: NDArray[np.int64]) -> None:
        """Keep the state for a later process now and then, where a folder was given."""
        if self.resume is not None and time.monotonic() - self.saved >= SAVE_EVERY_S:
            self.at.keep, self.at.state = keep, self.core.state()
            save_progress(self.resume, self.at)
            self.at.state = {}
            self.saved = time.monotonic()

    def _bid(self) -> None:
        began = time.perf_counter()
        while made := self.core.bid(self.epsilon, SLICE):
            self.at.bids += made
        self._spent("solve", began)

    def _settle(self) -> bool:
        """Make the matching optimal on the lists; return whether some row needs a new one."""
        began = time.perf_counter()
        unproven = settle(self.core)
        self._spent("paths", began)
        return unproven > 0

    def _spent(self, on: str, began: float) -> None:
        self.at.seconds[on] = self.at.seconds.get(on, 0.0) + time.perf_counter() - began

    def _result(self) -> Matching:
        columns = np.array(self.core.column_of())
        similarity = np.array(self.core.similarity(), np.float32)
        similarity[columns < 0] = np.nan
        columns[columns < 0] = -1
        prices = np.minimum(self.core.prices(), 1e30)
        return Matching(
            columns, similarity, self.core.total(), self.core.bound(), self.at.rounds,
            dict(self.at.seconds), self.at.bids, prices,
            None if self.quota is None else self.core.levels(), self.quota, self.reject_below,
            "auction and augmenting paths" if self.exact else "auction",
        )  # fmt: skip
