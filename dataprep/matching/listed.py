"""The same solvers on a given sparse graph: what to measure against SciPy's sparse one."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from dataprep.matching.result import Matching
from dataprep.matching.solve import settle

__all__ = ["match_listed"]

SLICE = 1_000_000


def match_listed(
    starts: NDArray[np.int64],
    listed: NDArray[np.int32],
    values: NDArray[np.float32],
    num_columns: int,
    *,
    epsilon: float = 1e-4,
    exact: bool = False,
) -> Matching:
    """Match rows to the columns that a sparse matrix lists, and to no others.

    Args:
        starts: ``[n + 1]``: where each row's entries begin, as in SciPy's CSR.
        listed: columns of the entries.
        values: their similarities.
        num_columns: m.
        epsilon, exact: as in `match`.

    Raises:
        ValueError: the graph has no full matching.
    """
    from _native import Assignment

    began = time.perf_counter()
    num_rows = len(starts) - 1
    core = Assignment(
        np.empty((num_rows, 0), np.float32), np.empty((num_columns, 0), np.float32),
        np.empty(0, np.int32), [], -np.inf,
    )  # fmt: skip
    core.give(starts, listed, values)
    bids, made = 0, 1
    # A price beyond this shows a set of rows that share too few columns (Bertsekas 1988, §5).
    limit = (num_rows + 1) * (float(np.ptp(values)) + epsilon) if len(values) else 0.0
    while made:
        made = core.bid(epsilon, SLICE)
        bids += made
        prices = core.prices()
        if prices[prices < 1e29].max(initial=0.0) > limit:
            raise ValueError("listed: no full matching within the graph")
    if exact:
        settle(core)
    found = np.array(core.column_of())
    if (found < 0).any():
        raise ValueError("listed: no full matching within the graph")
    return Matching(
        found, np.array(core.similarity(), np.float32), core.total(), core.bound(),
        seconds={"all": time.perf_counter() - began}, bids=bids, prices=core.prices(),
        method="auction and augmenting paths" if exact else "auction",
    )  # fmt: skip
