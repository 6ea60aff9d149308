"""The independent check finds what is wrong; baselines keep the interface."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dataprep.matching import Quota, match, verify
from dataprep.matching.baselines import BASELINES, top_candidates


def _unit(n: int, d: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


ROWS, COLUMNS = _unit(30, 8, 0), _unit(100, 8, 1)
FOUND = match(ROWS, COLUMNS, progress=False, threads=1)


def test_what_match_returns_holds() -> None:
    proven = verify(ROWS, COLUMNS, FOUND, block=7)
    assert FOUND.total <= proven <= FOUND.bound + 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": np.r_[FOUND.columns[1], FOUND.columns[1:]]}, "gives a column to two rows"),
        ({"columns": FOUND.columns[:-1]}, "is not one of these"),
        ({"columns": np.r_[FOUND.columns[:-1], 100].astype(np.int32)}, "is not one of these"),
        ({"columns": np.roll(FOUND.columns, 1)}, "similarities are not those"),
        ({"total": FOUND.total + 0.01}, "its total is"),
        ({"prices": FOUND.prices - 0.1}, "negative price"),  # type: ignore[operator]
        ({"quota": Quota(np.zeros(100, int), (29,))}, "were taken"),
    ],
)
def test_what_is_wrong_is_found(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verify(ROWS, COLUMNS, dataclasses.replace(FOUND, **change))


def test_any_prices_give_a_bound() -> None:
    for seed in range(5):
        prices = np.random.default_rng(seed).random(100)
        assert verify(ROWS, COLUMNS, dataclasses.replace(FOUND, prices=prices)) >= FOUND.total


@pytest.mark.parametrize("name", BASELINES)
def test_baselines(name: str) -> None:
    options = {"keep": 60} if name in ("sparse", "greedy") else {}
    found = BASELINES[name](ROWS, COLUMNS, **options)
    best = BASELINES["dense"](ROWS, COLUMNS).total
    assert found.method == name and found.total <= best + 1e-4
    assert np.isnan(verify(ROWS, COLUMNS, found))  # valid, and proves nothing
    assert (found.columns >= 0).all()
    assert found.total > (0.2 * best if name != "random" else -30)
    if name == "sparse":
        assert found.total == pytest.approx(best, abs=1e-3)


def test_candidates_are_the_best_ones() -> None:
    starts, listed, values = top_candidates(ROWS, COLUMNS, 5)
    matrix = ROWS @ COLUMNS.T
    for row in range(30):
        part = slice(starts[row], starts[row + 1])
        assert set(listed[part]) == set(np.argsort(-matrix[row])[:5])
        np.testing.assert_allclose(values[part], matrix[row, listed[part]], rtol=1e-6)
