"""What matching returns, and the independent check of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Matching", "Quota", "verify"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Quota:
    """At most ``limits[s]`` of the columns of source ``s`` are taken.

    ``source``: int ``[m]``, the source of each column, an index into ``limits``.
    """

    source: NDArray[np.integer]
    limits: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Matching:
    """A column for each row, and the proof of how good that is."""

    columns: NDArray[np.int32]
    """``[n]``: the column of each row, -1 where it has none."""
    similarity: NDArray[np.float32]
    """``[n]``: similarity to it, NaN where there is none."""
    total: float
    """Sum of the similarities; a row left out counts ``reject_below``, if that was given."""
    bound: float = float("nan")
    """No assignment of any kind has a larger total (NaN where the method proves nothing)."""
    rounds: int = 0
    """How often rows got new lists, the first time included."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of the parts: ``lists``, ``solve``."""
    bids: int = 0
    """Bids of the auction."""
    prices: Floats | None = None
    """``[m]``: dual variable of each column, which `verify` takes."""
    levels: Floats | None = None
    """Dual variable of each source's limit, with a quota."""
    quota: Quota | None = None
    reject_below: float | None = None
    method: str = "auction"

    @property
    def gap(self) -> float:
        """How far from the optimum the total may be at most, as a share of the bound."""
        return max(0.0, self.bound - self.total) / max(abs(self.bound), 1e-300)


def verify(
    rows: NDArray[Any], columns: NDArray[Any], matching: Matching, *, block: int = 2048
) -> float:
    """Check a matching in one pass over all pairs; return an upper bound on every assignment.

    Independent of how the matching was found: NumPy only. The bound is that of linear programming
    duality for any prices: the best ``similarity - price`` of each row over **all** columns, plus
    the prices (Bertsekas 1988), in float32 products and float64 sums.

    Args:
        rows: ``[n, d]``, floating.
        columns: ``[m, d]``.
        matching: what `match` returned for them.
        block: rows of a product.

    Raises:
        ValueError: a column is given twice, a quota is exceeded, a similarity is not that of its
            pair, or the total is not their sum.
    """
    taken = np.flatnonzero(matching.columns >= 0)
    found = matching.columns[taken]
    if matching.columns.shape != (len(rows),) or (len(found) and found.max() >= len(columns)):
        raise ValueError("matching: is not one of these rows and columns")
    if len(np.unique(found)) != len(found):
        raise ValueError("matching: gives a column to two rows")
    if matching.quota is not None:
        counts = np.bincount(matching.quota.source[found], minlength=len(matching.quota.limits))
        if (counts > np.asarray(matching.quota.limits)).any():
            raise ValueError(f"matching: {counts.tolist()} of {matching.quota.limits} were taken")
    exact = np.empty(len(taken))
    for first in range(0, len(taken), 65_536):
        part = slice(first, first + 65_536)
        a = np.asarray(rows[taken[part]], np.float64)
        exact[part] = np.einsum("nd,nd->n", a, np.asarray(columns[found[part]], np.float64))
    if not np.allclose(matching.similarity[taken], exact, atol=1e-5):
        raise ValueError("matching: similarities are not those of its pairs")
    left_out = len(rows) - len(taken)
    total = exact.sum() + (left_out * (matching.reject_below or 0.0) if left_out else 0.0)
    if not np.isclose(total, matching.total, rtol=1e-6, atol=1e-6):
        raise ValueError(f"matching: its total is {total}, not {matching.total}")
    if matching.prices is None:
        return float("nan")
    return _dual(rows, columns, matching, matching.prices, block)


def _dual(
    rows: NDArray[Any], columns: NDArray[Any], matching: Matching, prices: Floats, block: int
) -> float:
    if (prices < 0).any():
        raise ValueError("matching: has a negative price")
    floor = -np.inf if matching.reject_below is None else matching.reject_below
    best = np.full(len(rows), floor)
    narrow = prices.astype(np.float32)
    for column in range(0, len(columns), 8192):
        some = np.asarray(columns[column : column + 8192], np.float32)
        for first in range(0, len(rows), block):
            worth = np.asarray(rows[first : first + block], np.float32) @ some.T
            worth -= narrow[column : column + 8192]
            part = best[first : first + block]
            np.maximum(part, worth.max(axis=1), out=part)
    if matching.quota is None or matching.levels is None:
        return float(best.sum() + prices.sum())
    limits = np.asarray(matching.quota.limits, np.float64)
    open_ = limits > 0
    above = np.maximum(prices - matching.levels[matching.quota.source], 0.0)
    return float(best.sum() + (limits * matching.levels)[open_].sum() + above.sum())
