"""Seeds as a random effect: variance components, coverage, levels."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks_eval.statistics import interval, over_seeds, seed_gap


def recipe(rng: np.random.Generator, runs: int, *, mean: float = 0.6, seed_sd: float = 0.05,
           toys: int = 40, frames: int = 10, item: np.ndarray | None = None) -> np.ndarray:
    """Credits [runs, toys * frames] with effects of seed, toy and both."""
    if item is None:
        item = rng.normal(scale=0.15, size=toys)
    skill = (mean + rng.normal(scale=seed_sd, size=(runs, 1)) + item
             + rng.normal(scale=0.05, size=(runs, toys)))
    return (rng.random((runs, toys * frames)) < np.repeat(skill, frames, axis=1)).astype(float)


CLUSTERS = [str(k) for k in range(40) for _ in range(10)]


def test_balanced_table_by_hand() -> None:
    # Two runs, three single trials. Run means 2/3 and 1/3; trial means 1, .5, 0.
    credits_ = np.array([[1.0, 1, 0], [1.0, 0, 0]])
    got = over_seeds(credits_, list("abc"), share=False, seed=0)
    # Mean squares of the two-way table: runs 1/6, trials 1/2, residual 1/6.
    # Variance of the mean: (1/6 + 1/2 - 1/6) / 6.
    half = got.high - got.mean
    between = (1 / 6) / 3 / 2  # the runs' mean square over trials and runs
    trials = (1 / 2) / 2 / 3
    dof = (between + trials) ** 2 / (between**2 / 1 + trials**2 / 2)
    from scipy.stats import t

    assert got.mean == pytest.approx(0.5)
    assert got.between_sd == pytest.approx(np.std([2 / 3, 1 / 3], ddof=1))
    assert half == pytest.approx(t.ppf(0.975, dof) * np.sqrt((1 / 2) / 6))
    assert got.seed_sd == pytest.approx(0.0)  # no more between runs than within


def test_one_run_is_its_trials_alone() -> None:
    credits_ = recipe(np.random.default_rng(0), 1)
    got = over_seeds(credits_, CLUSTERS, share=True, seed=0)
    alone = interval(credits_[0], CLUSTERS, share=True, seed=0)
    assert (got.low, got.high) == (alone.low, alone.high)
    assert got.interval.endswith("one run") and got.between_sd is None


def test_the_seeds_own_scatter_is_found() -> None:
    rng = np.random.default_rng(1)
    sds = [over_seeds(recipe(rng, 8), CLUSTERS, share=True, seed=0).seed_sd for _ in range(60)]
    none = [over_seeds(recipe(rng, 8, seed_sd=0.0), CLUSTERS, share=True, seed=0)
            for _ in range(60)]
    squares = float(np.mean([sd**2 for sd in sds if sd is not None]))
    assert np.sqrt(squares) == pytest.approx(0.05, abs=0.008)
    # Noise of trials makes runs differ, too: between_sd shows it and seed_sd takes it out.
    assert np.mean([one.between_sd for one in none]) > 0.018
    assert np.mean([one.seed_sd for one in none]) < 0.012


def test_the_interval_covers_the_recipe_and_one_runs_does_not() -> None:
    rng = np.random.default_rng(2)
    hits = alone = 0
    for _ in range(200):
        credits_ = recipe(rng, 4, seed_sd=0.08)
        got = over_seeds(credits_, CLUSTERS, share=True, seed=0)
        hits += got.low <= 0.6 <= got.high
        one = interval(credits_[0], CLUSTERS, share=True, seed=0)
        alone += one.low <= 0.6 <= one.high
    assert hits / 200 > 0.91
    assert alone / 200 < 0.8


def test_gap_of_equal_recipes_holds_its_level() -> None:
    rng = np.random.default_rng(3)
    found = covered = 0
    for _ in range(300):
        item = rng.normal(scale=0.15, size=40)
        before, after = (recipe(rng, 3, item=item) for _ in range(2))
        got = seed_gap(before, after, CLUSTERS, share=True, seed=0)
        found += got.p <= 0.05
        covered += got.low <= 0 <= got.high
    assert found / 300 < 0.08
    assert covered == 300 - found


def test_gap_that_is_there_is_found() -> None:
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(60):
        item = rng.normal(scale=0.15, size=40)
        before = recipe(rng, 5, item=item, seed_sd=0.02, mean=0.5)
        after = recipe(rng, 5, item=item, seed_sd=0.02, mean=0.6)
        got = seed_gap(before, after, CLUSTERS, share=True, seed=0)
        found += got.p <= 0.05 and got.difference > 0
    assert found > 50


def test_one_run_says_nothing_about_seeds() -> None:
    rng = np.random.default_rng(5)
    with pytest.raises(ValueError, match="at least two runs on each side, here 1 and 3"):
        seed_gap(recipe(rng, 1), recipe(rng, 3), CLUSTERS, share=True, seed=0)
    same = np.ones((2, 400))
    got = seed_gap(same, same, CLUSTERS, share=True, seed=0)
    assert got.p == 1.0 and got.difference == 0.0
