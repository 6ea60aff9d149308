"""Intervals against known values and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from benchmarks_eval.statistics import bootstrap, interval, wilson


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (550, 2200), (25, 100), (7, 7)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    reference = binomtest(hits, n).proportion_ci(method="wilson")
    got = wilson(hits / n, n)
    assert (got.low, got.high) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_bootstrap_of_independent_values_is_near_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(size=400)
    got = bootstrap(values, [str(k) for k in range(400)], seed=3)
    half = 1.96 * values.std() / 20
    assert got.low == pytest.approx(values.mean() - half, abs=0.02)
    assert got.high == pytest.approx(values.mean() + half, abs=0.02)
    assert got == bootstrap(values, [str(k) for k in range(400)], seed=3)


def test_repeated_pictures_widen_the_interval() -> None:
    # Ten copies of the same 30 answers hold the information of 30 answers.
    one = (np.random.default_rng(1).random(30) < 0.6).astype(float)
    values = np.repeat(one, 10)
    clusters = [str(k) for k in range(30) for _ in range(10)]
    clustered = interval(values, clusters, share=True, seed=0)
    naive = wilson(float(values.mean()), 300)
    alone = wilson(float(one.mean()), 30)
    assert clustered.method == "cluster bootstrap"
    assert clustered.high - clustered.low > 2.5 * (naive.high - naive.low)
    assert clustered.high - clustered.low == pytest.approx(alone.high - alone.low, rel=0.15)


def test_agreeing_clusters_do_not_claim_certainty() -> None:
    got = interval(np.ones(40), [str(k % 8) for k in range(40)], share=True, seed=0)
    assert got.method == "wilson over clusters"
    assert (got.low, got.high) == pytest.approx((wilson(1.0, 8).low, 1.0))


def test_each_case_uses_its_interval() -> None:
    values = np.array([1.0, 0, 1, 1])
    assert interval(values, list("abcd"), share=True, seed=0).method == "wilson"
    assert interval(values, list("abcd"), share=False, seed=0).method == "bootstrap"
