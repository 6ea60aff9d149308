"""Intervals against known values, independent formulas and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks_eval.statistics import (
    bootstrap,
    cluster_variance,
    clustered_wilson,
    interval,
    wilson,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (550, 2200), (25, 100), (7, 7)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    reference = stats.binomtest(hits, n).proportion_ci(method="wilson")
    got = wilson(hits / n, n)
    assert (got.low, got.high) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_bootstrap_of_independent_values_is_near_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(size=400)
    clusters = [str(k) for k in range(400)]
    got = bootstrap(values, clusters, seed=3)
    half = 1.96 * values.std() / 20
    assert got.low == pytest.approx(values.mean() - half, abs=0.02)
    assert got.high == pytest.approx(values.mean() + half, abs=0.02)
    assert got == bootstrap(values, clusters, seed=3)
    assert got != bootstrap(values, clusters, seed=4)


def test_bootstrap_is_scipys() -> None:
    # With many clusters the expanded percentiles are the plain ones.
    values = np.random.default_rng(1).exponential(size=3000)
    got = bootstrap(values, [str(k) for k in range(3000)], seed=0, resamples=4000)
    reference = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile",
                                rng=np.random.default_rng(5)).confidence_interval
    assert got.low == pytest.approx(reference.low, abs=0.003)
    assert got.high == pytest.approx(reference.high, abs=0.003)


def test_bootstrap_of_few_clusters_is_as_wide_as_t() -> None:
    # Plain percentiles of 6 values are narrower by a third.
    values = np.random.default_rng(7).normal(size=6)
    got = bootstrap(values, list("abcdef"), seed=0, resamples=50_000)
    half = stats.t.ppf(0.975, 5) * values.std(ddof=1) / np.sqrt(6)
    assert got.high - got.low == pytest.approx(2 * half, rel=0.1)


def test_order_of_trials_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    values = rng.random(60)
    clusters = [str(k) for k in rng.integers(9, size=60)]
    order = rng.permutation(60)
    shuffled = bootstrap(values[order], [clusters[k] for k in order], seed=0)
    straight = bootstrap(values, clusters, seed=0)
    assert (shuffled.low, shuffled.high) == pytest.approx((straight.low, straight.high))


def test_variance_of_single_trials_is_the_usual_one() -> None:
    values = np.random.default_rng(3).random(50)
    got = cluster_variance(values, [str(k) for k in range(50)])
    assert got == pytest.approx(values.var(ddof=1) / 50)


def test_cluster_variance_by_hand() -> None:
    # Means .5; cluster sums of deviations: a: 1, b: -1, c: 0. 3/2 * (1 + 1 + 0) / 36.
    values = np.array([1.0, 1, 0, 0, 1, 0])
    assert cluster_variance(values, list("aabbcc")) == pytest.approx(3 / 36)
    with pytest.raises(ValueError, match="one cluster"):
        cluster_variance(values, ["a"] * 6)


def test_repeated_pictures_widen_the_interval() -> None:
    # Ten copies of the same 30 answers hold the information of 30 answers.
    one = (np.random.default_rng(1).random(30) < 0.6).astype(float)
    values = np.repeat(one, 10)
    clusters = [str(k) for k in range(30) for _ in range(10)]
    clustered = interval(values, clusters, share=True, seed=0)
    naive = wilson(float(values.mean()), 300)
    alone = wilson(float(one.mean()), 30)
    assert clustered.method == "cluster wilson"
    assert clustered.high - clustered.low > 2.5 * (naive.high - naive.low)
    assert clustered.high - clustered.low == pytest.approx(alone.high - alone.low, rel=0.15)


def test_agreeing_clusters_do_not_claim_certainty() -> None:
    got = interval(np.ones(40), [str(k % 8) for k in range(40)], share=True, seed=0)
    assert got.method == "wilson over clusters"
    assert (got.low, got.high) == pytest.approx((wilson(1.0, 8).low, 1.0))
    halves = interval(np.full(40, 0.5), [str(k % 8) for k in range(40)], share=True, seed=0)
    assert halves.high - halves.low > 0.5
    one = interval(np.array([1.0, 0, 1]), ["a"] * 3, share=True, seed=0)
    assert one.method == "wilson within one cluster"
    assert (one.low, one.high) == (wilson(2 / 3, 3).low, wilson(2 / 3, 3).high)


def test_each_case_uses_its_interval() -> None:
    values = np.array([1.0, 0, 1, 1])
    assert interval(values, list("abcd"), share=True, seed=0).method == "wilson"
    assert interval(values, list("aabb"), share=True, seed=0).method == "cluster wilson"
    assert interval(values, list("abcd"), share=False, seed=0).method == "bootstrap"
    assert interval(values, list("aabb"), share=False, seed=0).method == "cluster bootstrap"
    within = interval(values, list("aaaa"), share=False, seed=0)
    assert within.method == "bootstrap within one cluster" and within.low < within.high


@pytest.mark.parametrize(("clusters", "size", "mean"), [(22, 100, 0.5), (45, 10, 0.9)])
def test_coverage_of_clustered_trials(clusters: int, size: int, mean: float) -> None:
    rng = np.random.default_rng(5)
    names = [str(k) for k in range(clusters) for _ in range(size)]
    naive = hits = 0
    for _ in range(300):
        skill = rng.beta(6 * mean, 6 * (1 - mean), size=clusters)
        values = (rng.random(clusters * size) < np.repeat(skill, size)).astype(float)
        got = clustered_wilson(values, names)
        hits += got.low <= mean <= got.high
        plain = wilson(float(values.mean()), clusters * size)
        naive += plain.low <= mean <= plain.high
    assert hits / 300 > 0.91
    assert naive / 300 < 0.88  # what treating them as independent would claim
