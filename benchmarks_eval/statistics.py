"""Intervals: Wilson for independent trials, a cluster bootstrap where pictures repeat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A 95 % interval and how it was made."""

    low: float
    high: float
    method: str


def wilson(share: float, n: int) -> Interval:
    """Wilson's score interval of a proportion (fractional credit counts as a share of n).

    Example: ``wilson(0.25, 2200)`` is about [.232, .269].
    """
    assert n > 0 and 0 <= share <= 1
    z2 = Z95 * Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At the ends the formula is exact on paper and off by an ulp in floating point.
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return Interval(low, high, "wilson")


def bootstrap(values: NDArray[np.float64], clusters: Sequence[str], *, seed: int,
              resamples: int = RESAMPLES) -> Interval:
    """Percentile interval of the mean, resampling whole clusters with replacement."""
    assert len(values) == len(clusters) > 0
    names, index = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    sums = np.bincount(index, weights=values)
    counts = np.bincount(index)
    draws = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    method = "cluster bootstrap" if len(names) < len(values) else "bootstrap"
    return Interval(float(low), float(high), method)


def interval(values: NDArray[np.float64], clusters: Sequence[str], *, share: bool,
             seed: int) -> Interval:
    """The interval to print beside a mean.

    Independent shares get Wilson's; repeated clusters the bootstrap. When every cluster has the
    same mean the bootstrap would claim certainty; Wilson over clusters stands in for it.
    """
    count = len(set(clusters))
    if share and count == len(values):
        return wilson(float(values.mean()), len(values))
    if share and np.ptp(values) == 0:
        made = wilson(float(values.mean()), count)
        return Interval(made.low, made.high, "wilson over clusters")
    return bootstrap(values, clusters, seed=seed)
