"""Paired tests against scipy's, and their error rates in simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks_eval.statistics import mcnemar, paired, sign_flip

SINGLE = [str(k) for k in range(10_000)]


@pytest.mark.parametrize(("fixed", "broken"),
                         [(0, 0), (6, 0), (5, 0), (3, 9), (40, 61), (700, 640)])
def test_mcnemar_is_the_binomial_test(fixed: int, broken: int) -> None:
    reference = stats.binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    assert mcnemar(fixed, broken) == pytest.approx(reference, rel=1e-9)


def test_sign_flips_of_single_hits_are_mcnemars_test() -> None:
    difference = np.array([1.0] * 61 + [-1.0] * 40 + [0.0] * 300)
    p, exact = sign_flip(difference, SINGLE[:401], seed=0)
    assert exact
    assert p == pytest.approx(mcnemar(61, 40), rel=1e-9)


def test_sign_flips_are_scipys_permutation_test() -> None:
    # 10 clusters: scipy goes through all 1,024 signs.
    rng = np.random.default_rng(0)
    clusters = [str(k % 10) for k in range(70)]
    difference = rng.integers(-1, 2, size=70) + rng.integers(0, 2, size=70) / 2
    sums = np.array([difference[k::10].sum() for k in range(10)])
    reference = stats.permutation_test(
        (sums, np.zeros(10)), lambda a, b, axis: (a - b).sum(axis=axis), vectorized=True,
        permutation_type="samples", n_resamples=np.inf, alternative="two-sided").pvalue
    p, exact = sign_flip(difference, clusters, seed=0)
    assert exact
    assert p == pytest.approx(float(reference), rel=1e-9)


def test_credits_of_ties_are_counted_exactly() -> None:
    # 1/3, 1/4 and 1/24 have 1/24 in common; brute force over 2**5 signs.
    difference = np.array([1 / 3, -1 / 4, 5 / 24, 1.0, -1 / 2])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1).T
    totals = np.abs(signs @ np.abs(difference))
    reference = (totals >= abs(difference.sum()) - 1e-9).mean()
    p, exact = sign_flip(difference, list("abcde"), seed=0)
    assert exact
    assert p == pytest.approx(reference)


def test_differences_in_nats_are_drawn() -> None:
    rng = np.random.default_rng(1)
    difference = rng.normal(loc=0.2, size=80)
    p, exact = sign_flip(difference, SINGLE[:80], seed=0)
    assert not exact
    assert p == pytest.approx(float(stats.ttest_1samp(difference, 0).pvalue), abs=0.02)
    assert p == sign_flip(difference, SINGLE[:80], seed=0)[0]
    strong, _ = sign_flip(difference + 5, SINGLE[:80], seed=0)
    assert strong == pytest.approx(1 / 20_001)


def test_flips_hold_their_level_where_mcnemar_does_not() -> None:
    # 20 toys with 30 frames each; the models are equally good but differ toy by toy.
    rng = np.random.default_rng(2)
    clusters = [str(k) for k in range(20) for _ in range(30)]
    flips = plain = 0
    for _ in range(200):
        lean = np.repeat(rng.normal(scale=0.3, size=20), 30)
        before = (rng.random(600) < np.clip(0.5 - lean, 0, 1)).astype(float)
        after = (rng.random(600) < np.clip(0.5 + lean, 0, 1)).astype(float)
        got = paired(before, after, clusters, seed=0)
        flips += got.p <= 0.05
        plain += got.mcnemar_p <= 0.05
    assert flips / 200 < 0.09
    assert plain / 200 > 0.3


def test_paired_says_what_changed() -> None:
    before = np.array([1.0, 0, 0, 0.5, 1, 0])
    after = np.array([1.0, 1, 1, 1.0, 0, 0])
    got = paired(before, after, list("abcdef"), seed=0)
    assert (got.n, got.clusters, got.fixed, got.broken) == (6, 6, 3, 1)
    assert got.before == pytest.approx(2.5 / 6) and got.after == pytest.approx(4 / 6)
    assert got.difference == pytest.approx(0.25)
    assert got.low < 0.25 < got.high and got.interval == "paired bootstrap"
    back = paired(after, before, list("abcdef"), seed=0)
    assert (back.p, back.mcnemar_p) == (got.p, got.mcnemar_p)
    assert back.difference == -got.difference


def test_one_cluster_is_judged_by_its_trials() -> None:
    before, after = np.array([0.0] * 10 + [1.0] * 10), np.ones(20)
    one = paired(before, after, ["paradigm"] * 20, seed=0)
    each = paired(before, after, SINGLE[:20], seed=0)
    assert one.p == each.p < 0.01 and one.detectable == each.detectable
    assert one.clusters == 1 and one.interval == "paired bootstrap within one cluster"


def test_equal_models_do_not_differ() -> None:
    values = np.array([1.0, 0, 1, 1])
    got = paired(values, values, list("abcd"), seed=0)
    assert (got.p, got.mcnemar_p, got.difference, got.low, got.high) == (1.0, 1.0, 0.0, 0.0, 0.0)
    assert got.detectable is None


def test_pairing_is_what_makes_small_differences_visible() -> None:
    # 2,000 trials; the second model only fixes 20.
    before = (np.random.default_rng(3).random(2000) < 0.6).astype(float)
    after = before.copy()
    after[np.flatnonzero(before == 0)[:20]] = 1.0
    got = paired(before, after, SINGLE[:2000], seed=0)
    assert got.p < 1e-5
    unpaired = stats.ttest_ind(before, after).pvalue
    assert unpaired > 0.4


def test_coverage_of_the_paired_interval() -> None:
    rng = np.random.default_rng(4)
    clusters = [str(k) for k in range(22) for _ in range(20)]
    hits = 0
    for _ in range(200):
        gain = np.repeat(rng.normal(loc=0.1, scale=0.15, size=22), 20)
        before = (rng.random(440) < 0.5).astype(float)
        after = (rng.random(440) < np.clip(0.5 + gain, 0, 1)).astype(float)
        got = paired(before, after, clusters, seed=0)
        hits += got.low <= 0.1 <= got.high
    assert hits / 200 > 0.9
