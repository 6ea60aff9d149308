"""Power: what is promised to be found is found that often."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks_eval.statistics import detectable_share, paired


@pytest.mark.parametrize(("n", "chance"), [(967, 0.5), (2200, 0.25), (365, 1 / 6), (40, 0.5)])
def test_detectable_share_has_its_power(n: int, chance: float) -> None:
    share = detectable_share(n, chance)
    needed = next(k for k in range(n + 1) if stats.binom.sf(k - 1, n, chance) <= 0.025)
    assert stats.binom.sf(needed - 1, n, share) == pytest.approx(0.8, abs=1e-6)
    assert chance < share < 1


def test_a_set_too_small_shows_nothing() -> None:
    assert detectable_share(5, 0.5) == 1.0  # five of five happen once in 32 times
    with pytest.raises(ValueError, match="0 trials"):
        detectable_share(0, 0.5)
    with pytest.raises(ValueError, match="chance"):
        detectable_share(10, 1.0)


def test_what_a_comparison_says_it_shows_is_found() -> None:
    rng = np.random.default_rng(1)
    clusters = [str(k) for k in range(30) for _ in range(20)]

    def answers(gain: float) -> tuple[np.ndarray, np.ndarray]:
        lean = np.repeat(rng.normal(scale=0.1, size=30), 20)
        before = (rng.random(600) < 0.5).astype(float)
        return before, (rng.random(600) < np.clip(0.5 + gain + lean, 0, 1)).astype(float)

    said = [paired(*answers(0.0), clusters, seed=0).detectable for _ in range(40)]
    gap = float(np.mean([one for one in said if one is not None]))
    found = sum(paired(*answers(gap), clusters, seed=0).p <= 0.05 for _ in range(150))
    assert found / 150 == pytest.approx(0.8, abs=0.12)
