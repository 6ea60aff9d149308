"""Floors and many tests at once."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks_eval.statistics import floor_adjusted, holm


def test_floor_adjusted_scale() -> None:
    assert floor_adjusted(0.53, 0.53) == 0.0
    assert floor_adjusted(1.0, 0.76) == pytest.approx(1.0)
    assert floor_adjusted(0.625, 0.53) == pytest.approx(0.2021, abs=1e-4)
    assert floor_adjusted(0.2, 0.25) < 0
    with pytest.raises(ValueError, match="blind floor of 1"):
        floor_adjusted(1.0, 1.0)


def test_holm_by_hand() -> None:
    # Holm 1979: sorted p times the number of tests left, never falling.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.01, 0.02, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_holm_holds_the_chance_of_any_false_rejection() -> None:
    rng = np.random.default_rng(0)
    wrong = sum(min(holm(rng.random(20))) <= 0.05 for _ in range(1000))
    assert wrong / 1000 == pytest.approx(0.05, abs=0.02)
