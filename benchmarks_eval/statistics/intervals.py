"""Intervals of one mean, of independent trials or of trials in clusters.

Frames of one utterance, or the hundred trials of one category, are not independent: an interval
that treats them so is too narrow. Which interval stands beside a figure was chosen by coverage in
simulation (1,000 sets of trials each, nominal 95 %; percentile bootstrap / t with cluster-robust
variance / Wilson's with the effective number of trials):

    22 categories of 100 trials, mean .5     .925  .947  .950
     8 clusters of 5, mean .6                .903  .935  .966
    45 clusters of 10, mean .9               .914  .909  .932
    20 clusters of unequal size, mean .7     .913  .917  .925
   365 single trials, mean .07               .930  .928  .950

so shares get Wilson's with the effective number of trials, and means of anything else (nats,
METEOR) the bootstrap of clusters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

Z95 = 1.959963984540054
RESAMPLES = 2000

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A 95 % interval and how it was made."""

    low: float
    high: float
    method: str


def wilson(share: float, n: float, z: float = Z95) -> Interval:
    """Wilson's score interval of a proportion (fractional credit counts as a share of n).

    Args:
        share: the proportion, 0 to 1.
        n: number of trials; an effective number need not be whole.
        z: half-width in standard deviations of the normal (or t) law.

    Example: ``wilson(0.25, 2200)`` is about [.232, .269].
    """
    assert n > 0 and 0 <= share <= 1
    z2 = z * z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At the ends the formula is exact on paper and off by an ulp in floating point.
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return Interval(low, high, "wilson")


def units(clusters: Sequence[str]) -> list[str]:
    """What is drawn anew when an evaluation is repeated: the clusters, or the trials themselves
    where all lie in one cluster (one paradigm, one word), beyond which nothing can be said."""
    if len(set(clusters)) == 1:
        return [str(k) for k in range(len(clusters))]
    return list(clusters)


def codes(clusters: Sequence[str]) -> tuple[NDArray[np.int64], int]:
    """Clusters as numbers 0..G-1 in alphabetical order (not in the trials' order), and G."""
    names = {name: k for k, name in enumerate(sorted(set(clusters)))}
    return np.array([names[name] for name in clusters], dtype=np.int64), len(names)


def cluster_variance(values: Values, clusters: Sequence[str]) -> float:
    """Variance of the mean when trials of one cluster may be alike in any way.

    The sandwich estimator with the factor G / (G - 1) (Miller 2024, "Adding Error Bars to Evals",
    eq. 4, plus that factor). With one trial a cluster it is the usual variance of a mean.

    Raises:
        ValueError: all trials are of one cluster, which says nothing about others.
    """
    index, count = codes(clusters)
    if count < 2:
        raise ValueError("one cluster has no variance between clusters")
    sums = np.bincount(index, weights=values - values.mean(), minlength=count)
    return float(count / (count - 1) * (sums**2).sum() / len(values) ** 2)


def effective_wilson(share: float, variance: float, *, most: float, fewest: int, dof: float,
                     method: str) -> Interval:
    """Wilson's interval with the number of independent trials that have this variance.

    Args:
        share: mean of credits of 0 to 1.
        variance: variance of that mean.
        most: number of trials: more the effective number never is, for negative correlation
            within clusters is more often noise than truth.
        fewest: number of clusters: the number of trials to count on where all clusters have the
            same mean, whose variance would claim certainty.
        dof: degrees of freedom of the variance.
        method: what to call the interval.
    """
    spread = share * (1 - share)
    if variance <= 0 or spread <= 0:
        made = wilson(share, fewest)
        return Interval(made.low, made.high, "wilson over clusters")
    made = wilson(share, min(spread / variance, most), float(stdtrit(dof, 0.975)))
    return Interval(made.low, made.high, method)


def clustered_wilson(values: Values, clusters: Sequence[str]) -> Interval:
    """Wilson's interval for credits of 0 to 1 that come in clusters (at least two)."""
    _, count = codes(clusters)
    return effective_wilson(float(values.mean()), cluster_variance(values, clusters),
                            most=len(values), fewest=count, dof=count - 1,
                            method="cluster wilson")


def bootstrap_means(values: Values, clusters: Sequence[str], *, seed: int,
                    resamples: int = RESAMPLES) -> Values:
    """Means [resamples] of sets of whole clusters drawn with replacement."""
    assert len(values) == len(clusters) > 0
    index, count = codes(clusters)
    sums = np.bincount(index, weights=values, minlength=count)
    sizes = np.bincount(index, minlength=count)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, (1 << 22) // count)  # 32 MB of draws at a time
    for start in range(0, resamples, step):
        draws = rng.integers(count, size=(min(step, resamples - start), count))
        means[start:start + len(draws)] = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    return means


def bootstrap(values: Values, clusters: Sequence[str], *, seed: int,
              resamples: int = RESAMPLES) -> Interval:
    """Interval of the mean, resampling whole clusters with replacement.

    Percentiles alone are too narrow for few clusters; these are expanded by the ratio of t to the
    normal law (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 5.3). A
    mean over a single cluster is resampled by trials, and the method says so.
    """
    drawn = units(clusters)
    means = bootstrap_means(values, drawn, seed=seed, resamples=resamples)
    tail = expanded_tail(len(set(drawn)))
    low, high = np.quantile(means, [tail, 1 - tail])
    if len(set(clusters)) == 1 < len(values):
        method = "bootstrap within one cluster"
    else:
        method = "cluster bootstrap" if len(set(drawn)) < len(values) else "bootstrap"
    return Interval(float(low), float(high), method)


def expanded_tail(count: int) -> float:
    """The tail to cut from each end of a bootstrap of ``count`` clusters: .025 for very many."""
    if count < 2:
        return 0.0
    return float(ndtr(-math.sqrt(count / (count - 1)) * stdtrit(count - 1, 0.975)))


def interval(values: Values, clusters: Sequence[str], *, share: bool, seed: int) -> Interval:
    """The interval to print beside a mean.

    Shares get Wilson's interval (with the effective number of trials where clusters repeat),
    everything else the bootstrap of clusters. Where all trials lie in one cluster the interval is
    for more trials of that cluster, and the method says so.
    """
    if not share:
        return bootstrap(values, clusters, seed=seed)
    count = len(set(clusters))
    if count == len(values):
        return wilson(float(values.mean()), count)
    if count == 1:
        made = wilson(float(values.mean()), len(values))
        return Interval(made.low, made.high, "wilson within one cluster")
    return clustered_wilson(values, clusters)
