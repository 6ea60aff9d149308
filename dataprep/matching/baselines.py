"""Other ways to match, under the interface of `match`: what to compare with, and small problems.

None of them proves anything about all pairs, except the dense one, which is the optimum.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from dataprep.matching.result import Matching

__all__ = ["BASELINES", "blockwise", "dense", "greedy", "random_pairs", "sparse", "top_candidates"]

Embeddings = NDArray[Any]


def dense(rows: Embeddings, columns: Embeddings) -> Matching:
    """The optimum, by SciPy's Hungarian method on the whole matrix in float64: 8 n m bytes."""
    began = time.perf_counter()
    matrix = _product(rows, columns).astype(np.float64)
    chosen, found = linear_sum_assignment(matrix, maximize=True)
    return _result("dense", rows, columns, _filled(len(rows), chosen, found), began, optimal=True)


def sparse(rows: Embeddings, columns: Embeddings, *, keep: int = 512) -> Matching:
    """SciPy's sparse solver on each row's ``keep`` best columns.

    Raises:
        ValueError: no full matching within these lists, as near-duplicate rows easily cause.
    """
    began = time.perf_counter()
    starts, listed, values = top_candidates(rows, columns, keep)
    # Weights must not be zero, and it minimises.
    graph = csr_array((3.0 - values.astype(np.float64), listed, starts), (len(rows), len(columns)))
    chosen, found = min_weight_full_bipartite_matching(graph)
    return _result("sparse", rows, columns, _filled(len(rows), chosen, found), began)


def blockwise(rows: Embeddings, columns: Embeddings, *, blocks: int = 5, seed: int = 0) -> Matching:
    """Hungarian within random blocks of rows and columns: what fits where the whole does not."""
    began = time.perf_counter()
    draw = np.random.default_rng(seed)
    found = np.full(len(rows), -1, np.int32)
    row_parts = np.array_split(draw.permutation(len(rows)), blocks)
    for some, others in zip(
        row_parts, np.array_split(draw.permutation(len(columns)), blocks), strict=True
    ):
        chosen, to = linear_sum_assignment(_product(rows[some], columns[others]), maximize=True)
        found[some[chosen]] = others[to]
    return _result("blockwise", rows, columns, found, began)


def greedy(rows: Embeddings, columns: Embeddings, *, keep: int = 512) -> Matching:
    """The most similar free pair first, among each row's ``keep`` best columns."""
    began = time.perf_counter()
    starts, listed, values = top_candidates(rows, columns, keep)
    owner = np.repeat(np.arange(len(rows)), np.diff(starts))
    found = np.full(len(rows), -1, np.int32)
    free = np.ones(len(columns), bool)
    for at in np.argsort(-values, kind="stable"):
        row, column = owner[at], listed[at]
        if found[row] < 0 and free[column]:
            found[row], free[column] = column, False
    return _result("greedy", rows, columns, found, began)


def random_pairs(rows: Embeddings, columns: Embeddings, *, seed: int = 0) -> Matching:
    """Any different column for each row: the paper's control."""
    began = time.perf_counter()
    order = np.random.default_rng(seed).permutation(len(columns))[: len(rows)]
    found = np.full(len(rows), -1, np.int32)
    found[: len(order)] = order
    return _result("random", rows, columns, found, began)


BASELINES: dict[str, Callable[..., Matching]] = {
    "dense": dense, "sparse": sparse, "blockwise": blockwise, "greedy": greedy,
    "random": random_pairs,
}  # fmt: skip


def top_candidates(
    rows: Embeddings, columns: Embeddings, keep: int, prices: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Return each row's ``keep`` most similar columns as a sparse matrix: starts, columns, values.

    Columns of a row rise, as SciPy wants them. With ``prices [m]`` the best are those of similarity
    less price: near-duplicate rows then list columns enough for all of them.
    """
    keep = min(keep, len(columns))
    listed = np.empty((len(rows), keep), np.int32)
    values = np.empty((len(rows), keep), np.float32)
    for first in range(0, len(rows), 512):
        part = _product(rows[first : first + 512], columns)
        worth = part if prices is None else part - prices.astype(np.float32)
        best = np.sort(np.argpartition(worth, len(columns) - keep, axis=1)[:, -keep:], axis=1)
        listed[first : first + 512] = best
        values[first : first + 512] = np.take_along_axis(part, best, axis=1)
    starts = np.arange(len(rows) + 1, dtype=np.int64) * keep
    return starts, listed.ravel(), values.ravel()


def _product(rows: Embeddings, columns: Embeddings) -> NDArray[np.float32]:
    return np.asarray(rows, np.float32) @ np.asarray(columns, np.float32).T


def _filled(num_rows: int, chosen: NDArray[Any], found: NDArray[Any]) -> NDArray[np.int32]:
    columns = np.full(num_rows, -1, np.int32)
    columns[chosen] = found
    return columns


def _result(
    method: str, rows: Embeddings, columns: Embeddings, found: NDArray[np.int32], began: float,
    *, optimal: bool = False,
) -> Matching:  # fmt: skip
    taken = np.flatnonzero(found >= 0)
    similarity = np.full(len(rows), np.nan, np.float32)
    a, b = np.asarray(rows[taken], np.float64), np.asarray(columns[found[taken]], np.float64)
    exact = np.einsum("nd,nd->n", a, b)
    similarity[taken] = exact
    total = float(exact.sum())
    seconds = {"all": time.perf_counter() - began}
    return Matching(
        found, similarity, total, total if optimal else float("nan"), seconds=seconds,
        method=method,
    )  # fmt: skip
