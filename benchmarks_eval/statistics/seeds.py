"""Several runs of one recipe: the seed as a random effect beside the trials.

One run tells how good one model is; a recipe is judged by the models that it gives. Credits
[runs, trials] vary by run (seed), by trial and by both together; the mean's variance has all
three (two-way random effects, trials in clusters):

    V = V(runs) + V(clusters) - V(runs x clusters)

where each of the first two contains the third once (their expectations are s²/R + r²/(Rn) and
t²/n + r²/(Rn) for independent trials).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from benchmarks_eval.statistics.intervals import (
    Interval,
    Values,
    codes,
    effective_wilson,
    interval,
    units,
)


@dataclass(frozen=True)
class Runs:
    """A recipe's figure.

    ``between_sd`` is the standard deviation of the runs' figures as papers print it (None for one
    run); ``seed_sd`` is the part that the seed has on any set of trials, the noise of these trials
    taken out. The interval is for the recipe: new seeds and new trials of the same kind.
    """

    runs: int
    means: tuple[float, ...]
    mean: float
    between_sd: float | None
    seed_sd: float | None
    low: float
    high: float
    interval: str


@dataclass(frozen=True)
class SeedGap:
    """The difference of two recipes, each with its own runs, on the same trials."""

    before: Runs
    after: Runs
    difference: float
    low: float
    high: float
    interval: str
    p: float
    dof: float


@dataclass(frozen=True)
class _Variances:
    """Variances of a mean over runs and trials: of the runs, of the trials' clusters, of both."""

    runs: float
    clusters: float
    cells: float

    @property
    def total(self) -> float:
        return max(self.runs + self.clusters - self.cells, self.runs, self.clusters)


def over_seeds(credits_: Values, clusters: Sequence[str], *, share: bool, seed: int) -> Runs:
    """Summarises the runs of one recipe.

    Args:
        credits_: [runs, trials], all runs on the same trials in the same order.
        clusters: each trial's cluster.
        share: whether credits are 0 to 1 (else nats and the like).
        seed: of the bootstrap that a single run of a non-share gets.

    A single run gets the interval of its trials alone, and the method says that.
    """
    runs = len(credits_)
    means = credits_.mean(axis=1)
    mean = float(means.mean())
    if runs == 1:
        made = interval(credits_[0], clusters, share=share, seed=seed)
        return Runs(1, (mean,), mean, None, None, made.low, made.high,
                    f"{made.method}, one run")
    drawn = units(clusters)
    found = _variances(credits_, drawn)
    count = codes(drawn)[1]
    dof = _satterthwaite([(found.runs, runs - 1), (found.clusters, count - 1)])
    if share:
        made = effective_wilson(mean, found.total, most=float(credits_.size), fewest=count,
                                dof=dof, method="wilson, seeds and clusters")
    else:
        half = float(stdtrit(dof, 0.975)) * math.sqrt(found.total)
        made = Interval(mean - half, mean + half, "t, seeds and clusters")
    seed_sd = math.sqrt(max(0.0, runs * (found.runs - found.cells)))
    return Runs(runs, tuple(float(m) for m in means), mean, float(means.std(ddof=1)), seed_sd,
                made.low, made.high, made.method)


def seed_gap(before: Values, after: Values, clusters: Sequence[str], *, share: bool,
             seed: int) -> SeedGap:
    """Compares two recipes by their runs on the same trials.

    Args:
        before: credits [runs of the first recipe, trials].
        after: credits [runs of the second, trials].
        clusters: each trial's cluster.
        share: whether credits are 0 to 1.
        seed: as for ``over_seeds``.

    The interval and ``p`` (two-sided t with Satterthwaite's degrees of freedom) are for new seeds
    and new trials.

    Raises:
        ValueError: fewer than two runs on a side: nothing says how far seeds scatter.
    """
    if len(before) < 2 or len(after) < 2:
        raise ValueError(f"seeds need at least two runs on each side, here {len(before)} and "
                         f"{len(after)}")
    drawn = units(clusters)
    mine, theirs = _variances(before, drawn), _variances(after, drawn)
    count = codes(drawn)[1]
    gap = (after.mean(axis=0) - before.mean(axis=0))[None]
    joined = _Variances(mine.runs + theirs.runs, _cluster_part(gap, drawn),
                        mine.cells + theirs.cells)
    dof = _satterthwaite([(mine.runs, len(before) - 1), (theirs.runs, len(after) - 1),
                          (joined.clusters, count - 1)])
    difference = float(gap.mean())
    error = math.sqrt(joined.total)
    half = float(stdtrit(dof, 0.975)) * error
    if error == 0:
        p = 1.0 if difference == 0 else 0.0
    else:
        p = min(1.0, 2 * float(stdtr(dof, -abs(difference) / error)))
    return SeedGap(
        over_seeds(before, clusters, share=share, seed=seed),
        over_seeds(after, clusters, share=share, seed=seed),
        difference, difference - half, difference + half, "t, seeds and clusters", p, dof)


def _variances(credits_: Values, clusters: Sequence[str]) -> _Variances:
    runs, trials = credits_.shape
    index, count = codes(clusters)
    if count < 2:
        raise ValueError("one trial says nothing about others")
    centred = credits_ - credits_.mean(axis=1, keepdims=True)
    sums = np.stack([np.bincount(index, weights=row, minlength=count) for row in centred])
    rest = sums - sums.mean(axis=0)  # [runs, clusters]: what a run does to a cluster
    cells = count / (count - 1) / (runs - 1) / runs * float((rest**2).sum()) / trials**2
    return _Variances(float(credits_.mean(axis=1).var(ddof=1)) / runs,
                      _cluster_part(credits_, clusters), cells)


def _cluster_part(credits_: Values, clusters: Sequence[str]) -> float:
    index, count = codes(clusters)
    mean = credits_.mean(axis=0)
    sums = np.bincount(index, weights=mean - mean.mean(), minlength=count)
    return float(count / (count - 1) * (sums**2).sum() / credits_.shape[1] ** 2)


def _satterthwaite(parts: Sequence[tuple[float, int]]) -> float:
    """Degrees of freedom of a sum of independent variances, each with its own."""
    total = sum(variance for variance, _ in parts)
    if total <= 0:
        return float(min(dof for _, dof in parts))
    return total**2 / sum(variance**2 / dof for variance, dof in parts)
