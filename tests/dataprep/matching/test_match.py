"""Matching: the optimum, the proof, limits, resuming; beside SciPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from dataprep.matching import Matching, Quota, match, solve, verify

Floats = NDArray[np.float32]
SMALL = {"progress": False, "threads": 1}


def instance(seed: int) -> tuple[Floats, Floats]:
    """Any shape; every third of small integers (ties), every third with duplicate rows."""
    draw = np.random.default_rng(seed)
    n, m, d = draw.integers(1, 40), draw.integers(1, 60), draw.integers(1, 6)
    if seed % 3 == 0:
        return (draw.integers(-2, 3, (size, d)).astype(np.float32) for size in (n, m))  # type: ignore[return-value]
    rows, columns = (draw.normal(size=(size, d)).astype(np.float32) for size in (n, m))
    if seed % 3 == 1:
        rows[n // 2 :], columns[m // 2 :] = rows[0], columns[-1]
    return rows, columns


def optimum(rows: Floats, columns: Floats) -> float:
    matrix = rows.astype(np.float64) @ columns.T.astype(np.float64)
    return float(matrix[linear_sum_assignment(matrix, maximize=True)].sum())


def video(n: int, m: int, d: int = 32, seed: int = 0) -> tuple[Floats, Floats]:
    """Scenes of near-duplicate frames against clustered pictures, of unit length."""
    draw = np.random.default_rng(seed)
    scenes = np.sort(draw.zipf(1.5, n) % max(n // 20, 1))
    middles = draw.normal(size=(max(n // 20, 1), d))
    rows = middles[scenes] + 0.1 * draw.normal(size=(n, d))
    columns = draw.normal(size=(m // 10 + 1, d))[draw.integers(0, m // 10 + 1, m)]
    columns = columns + 0.3 * draw.normal(size=(m, d))
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, columns))
    return tuple(x.astype(np.float32) for x in unit)  # type: ignore[return-value]


@pytest.mark.parametrize("part", range(10))
def test_exact_mode_finds_scipys_optimum(part: int) -> None:
    """500 instances in all: rectangular both ways, ties, duplicates, negative similarities.

    A coarse auction leaves more for the paths to mend, forward and backward.
    """
    for seed in range(50 * part, 50 * part + 50):
        rows, columns = instance(seed)
        best = optimum(rows, columns)
        coarse = (1e-4, 0.1, 3.0)[seed // 3 % 3]
        found = match(rows, columns, exact=True, epsilon=coarse, **SMALL)
        assert found.total == pytest.approx(best, abs=1e-4), seed
        assert found.bound == pytest.approx(best, abs=1e-4), seed
        assert (found.columns >= 0).sum() == min(len(rows), len(columns))


@pytest.mark.parametrize("part", range(4))
def test_exact_mode_mends_what_a_coarse_auction_left(
    part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short lists, coarse bids, rows left out: prices fall, bounds widen, lists are made anew."""
    for seed in range(20 * part, 20 * part + 20):
        draw = np.random.default_rng(seed)
        n, m = int(draw.integers(20, 200)), int(draw.integers(20, 300))
        monkeypatch.setattr(solve, "FIRST_KEEP", int(draw.choice([2, 3, 8])))
        rows, columns = video(n, m, d=8, seed=seed)
        floor = (None, 0.3, 0.6, 0.8)[seed % 4]
        matrix = rows.astype(np.float64) @ columns.T
        if floor is not None:
            matrix = np.hstack([matrix, np.full((n, n), floor)])
        best = matrix[linear_sum_assignment(matrix, maximize=True)].sum()
        epsilon = float(draw.choice([1e-3, 1e-2, 0.1]))
        found = match(rows, columns, exact=True, epsilon=epsilon, reject_below=floor, **SMALL)
        assert found.total == pytest.approx(best, abs=1e-4), seed
        assert found.bound == pytest.approx(best, abs=1e-4), seed


@pytest.mark.parametrize("num_rows", [100, 200, 400])
@pytest.mark.parametrize("epsilon", [1e-2, 1.0])
def test_integer_costs_as_in_or_library(num_rows: int, epsilon: float) -> None:
    """Square, costs uniform in 1..100 (Beasley 1990, `assign100` to `assign800`): many ties."""
    costs = np.random.default_rng(num_rows).integers(1, 101, (num_rows, num_rows))
    rows, columns = -costs.astype(np.float32), np.eye(num_rows, dtype=np.float32)
    found = match(rows, columns, exact=True, epsilon=epsilon, **SMALL)
    assert found.total == -costs[linear_sum_assignment(costs)].sum()
    assert found.bound == pytest.approx(found.total, abs=1e-6)


def test_one_row_one_column() -> None:
    one = np.full((1, 1), 0.5, np.float32)
    for exact in (False, True):
        found = match(one, one, exact=exact, **SMALL)
        assert (found.total, found.bound) == (0.25, 0.25)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("keep", [3, 8, 40])
def test_short_lists_grow_until_they_prove(
    exact: bool, keep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solve, "FIRST_KEEP", keep)
    monkeypatch.setattr(solve, "MOST_KEEP", 2 * keep)
    rows, columns = video(300, 900)
    best = optimum(rows, columns)
    found = match(rows, columns, exact=exact, epsilon=1e-2 if exact else 1e-4, **SMALL)
    assert found.rounds > 1
    assert best - 300e-4 - 1e-3 <= found.total <= best + 1e-3
    assert found.bound >= best - 1e-3
    assert verify(rows, columns, found) >= best - 1e-3
    if exact:
        assert found.total == pytest.approx(best, abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-2, 1e-3]))
def test_the_auction_keeps_its_promise(seed: int, epsilon: float) -> None:
    rows, columns = instance(seed)
    best = optimum(rows, columns)
    found = match(rows, columns, epsilon=epsilon, **SMALL)
    assert found.total >= best - min(len(rows), len(columns)) * epsilon - 1e-4
    assert found.bound >= best - 1e-4
    proven = verify(rows, columns, found)
    assert np.isnan(proven) or proven >= best - 1e-3


def test_any_number_of_threads_gives_the_same_bits() -> None:
    rows, columns = video(1500, 5000)
    one, two, five = (match(rows, columns, threads=k, progress=False) for k in (1, 2, 5))
    assert np.array_equal(one.columns, two.columns) and np.array_equal(one.columns, five.columns)
    assert one.prices is not None and two.prices is not None
    assert np.array_equal(one.prices, two.prices)


def test_similarities_of_another_device_prove_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of a GPU, which hands over the best of each tile, on PyTorch's CPU."""
    monkeypatch.setattr(solve, "FIRST_KEEP", 16)
    rows, columns = video(500, 2000)
    best = optimum(rows, columns)
    found = match(rows, columns, device="cpu:0", **SMALL)
    assert best - 500e-4 - 1e-3 <= found.total <= best + 1e-3
    assert found.bound >= best - 1e-3 and found.rounds > 1
    exact = match(rows, columns, device="cpu:0", exact=True, **SMALL)
    assert exact.total == pytest.approx(best, abs=1e-3)


def test_little_memory_gives_a_matching_as_good() -> None:
    rows, columns = video(600, 2000)
    little = match(rows, columns, memory_bytes=1 << 20, **SMALL)
    assert little.total == pytest.approx(match(rows, columns, **SMALL).total, abs=600e-4)


@pytest.mark.parametrize("floor", [-1.0, 0.5, 0.7, 2.0])
@pytest.mark.parametrize("exact", [False, True])
def test_rejection(floor: float, exact: bool) -> None:
    """Each row may stay out at the price of ``floor``: SciPy with a dummy column a row."""
    rows, columns = video(120, 90)
    matrix = np.hstack([rows @ columns.T, np.full((120, 120), floor)]).astype(np.float64)
    best = matrix[linear_sum_assignment(matrix, maximize=True)].sum()
    epsilon = 1e-2 if exact else 1e-4
    found = match(rows, columns, reject_below=floor, exact=exact, epsilon=epsilon, **SMALL)
    assert found.total == pytest.approx(best, abs=1e-3 if exact else 120e-4 + 1e-3)
    assert found.bound >= best - 1e-3
    assert np.nanmin(found.similarity, initial=9.0) >= floor - (0 if exact else 1e-4)
    assert verify(rows, columns, found) >= best - 1e-3


@pytest.mark.parametrize("limits", [(20, 200, 5), (0, 60, 60), (40, 40, 40), (300, 300, 300)])
def test_quota(limits: tuple[int, int, int]) -> None:
    """As many of a source as its limit: SciPy on a network in which a limit is a choice of places.

    The optimum under quotas is that of a linear program; solved here by HiGHS.
    """
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, kron, vstack

    rows, columns = video(60, 200)
    source = np.arange(200) % 3
    matrix = (rows @ columns.T).astype(np.float64)
    per_row = kron(np.eye(60), np.ones((1, 200)))
    per_column = kron(np.ones((1, 60)), np.eye(200))
    per_source = csr_array((source[None] == np.arange(3)[:, None]).astype(float)) @ per_column
    best = -linprog(
        -matrix.ravel(), A_eq=per_row, b_eq=np.ones(60), A_ub=vstack([per_column, per_source]),
        b_ub=np.concatenate([np.ones(200), limits]), bounds=(0, 1), method="highs",
    ).fun  # fmt: skip
    found = match(rows, columns, quota=Quota(source, limits), **SMALL)
    assert (np.bincount(source[found.columns], minlength=3) <= limits).all()
    assert best - 60e-4 - 1e-3 <= found.total <= best + 1e-3
    assert found.bound >= best - 1e-3
    assert verify(rows, columns, found) >= best - 1e-3


def test_several_columns_a_row() -> None:
    rows, columns = video(50, 400)
    found = match(rows, columns, per_row=3, **SMALL)
    assert found.columns.shape == (150,) and len(set(found.columns)) == 150
    best = optimum(np.repeat(rows, 3, axis=0), columns)
    assert best - 150e-4 - 1e-3 <= found.total <= best + 1e-3


@pytest.mark.parametrize("exact", [False, True])
def test_a_killed_matching_goes_on(
    exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every state that it keeps, also within a round: the end is the same to the bit."""
    monkeypatch.setattr(solve, "FIRST_KEEP", 8)
    monkeypatch.setattr(solve, "SAVE_EVERY_S", 0.0)
    rows, columns = video(400, 1200)
    little = SMALL | {"memory_bytes": 1 << 20, "exact": exact}  # 64 rows a block, 256 a part
    whole = match(rows, columns, **little)
    saved = 0

    def kill(folder: Path, progress: Any) -> None:
        nonlocal saved
        save(folder, progress)
        saved += 1
        if progress is not None:
            raise KeyboardInterrupt

    save = solve.save_progress
    monkeypatch.setattr(solve, "save_progress", kill)
    found: Matching | None = None
    for _ in range(100):
        try:
            found = match(rows, columns, resume=tmp_path / "state", **little)
            break
        except KeyboardInterrupt:
            with pytest.raises(ValueError, match="state of another matching"):
                match(rows[1:], columns, resume=tmp_path / "state", **little)
    assert found is not None and saved > 2 * found.rounds - 1
    assert (found.columns == whole.columns).all() and found.prices is not None
    assert (found.prices == whole.prices).all() and found.bids == whole.bids
    assert not list((tmp_path / "state").iterdir())


def test_empty_problems() -> None:
    none = np.zeros((0, 3), np.float32)
    some = np.ones((2, 3), np.float32)
    assert match(none, some, **SMALL).columns.shape == (0,)
    assert (match(some, none, **SMALL).columns == -1).all()


def test_half_precision_and_maps_are_taken(tmp_path: Path) -> None:
    rows, columns = video(40, 90)
    np.save(tmp_path / "c.npy", columns.astype(np.float16))
    mapped = np.load(tmp_path / "c.npy", mmap_mode="r")
    found = match(rows.astype(np.float64), mapped, **SMALL)
    assert found.total == pytest.approx(optimum(rows, columns), abs=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": np.ones(3, np.float32)}, "rows: floating"),
        ({"columns": np.ones((3, 3), np.int64)}, "columns: floating"),
        ({"columns": np.ones((3, 4), np.float32)}, "columns: width 3 expected, got 4"),
        ({"rows": np.array([[1.0, np.nan, 0]])}, "rows: row 0 is not finite"),
        ({"epsilon": 0.0}, "epsilon: more than 0"),
        ({"per_row": 0}, "per_row: at least 1"),
        ({"reject_below": np.inf}, "reject_below: a finite number"),
        ({"quota": Quota(np.zeros(9, int), (1,)), "exact": True}, "exact: not with a quota"),
        ({"quota": Quota(np.zeros(9, int), (1,))}, "quota: 1 places for 4 rows"),
        ({"quota": Quota(np.zeros(8, int), (9,))}, r"quota: source must be integers \[9\]"),
        ({"quota": Quota(np.ones(9, int), (9,))}, "quota: each source must be an index"),
    ],
)
def test_bad_input_names_the_argument(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "rows": np.ones((4, 3), np.float32), "columns": np.ones((9, 3), np.float32)
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        match(**(good | change), **SMALL)
