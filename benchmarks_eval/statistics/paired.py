"""Two models on the same trials: McNemar's test, sign flips of clusters, a paired bootstrap.

A difference of two figures on the same trials has a far smaller variance than two figures alone:
only the trials that one model wins and the other loses count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from benchmarks_eval.statistics.intervals import (
    Interval,
    Values,
    bootstrap,
    cluster_variance,
    codes,
    units,
)
from benchmarks_eval.statistics.power import detectable_here

FLIPS = 20_000
EQUAL = 1e-12
# Credits are 1/k for ties of k and 24ths for the squares; times these they are whole numbers.
_SCALES = (1, 2, 3, 4, 6, 12, 24, 60, 120, 840, 2520)
_EXACT_STEPS = 300_000_000


@dataclass(frozen=True)
class Paired:
    """What changed between two models on the same trials.

    ``fixed`` and ``broken`` count the trials whose credit rose and fell. ``p`` is two-sided, from
    sign flips of whole clusters; ``mcnemar_p`` is the exact McNemar (sign) test, which takes the
    trials to be independent: with one trial a cluster the two agree on hits and misses.
    ``detectable`` is the true difference that such a comparison finds in 8 cases of 10 (None where
    nothing changed: the data do not say).
    """

    n: int
    clusters: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    interval: str
    fixed: int
    broken: int
    p: float
    exact: bool
    mcnemar_p: float
    detectable: float | None


def paired(before: Values, after: Values, clusters: Sequence[str], *, seed: int) -> Paired:
    """Compares credits [n] of two models trial by trial.

    Args:
        before: credits of the first model.
        after: credits of the second, same trials in the same order.
        clusters: each trial's cluster.
        seed: of resamples and, where exact enumeration is impossible, of sign flips.
    """
    assert len(before) == len(after) == len(clusters) > 0
    difference = after - before
    drawn = units(clusters)
    count = len(set(drawn))
    fixed, broken = int((difference > EQUAL).sum()), int((difference < -EQUAL).sum())
    made = difference_interval(difference, clusters, seed=seed)
    p, exact = sign_flip(difference, drawn, seed=seed)
    variance = cluster_variance(difference, drawn) if count > 1 else 0.0
    return Paired(
        n=len(before), clusters=len(set(clusters)), before=float(before.mean()),
        after=float(after.mean()), difference=float(difference.mean()), low=made.low,
        high=made.high, interval=made.method, fixed=fixed, broken=broken, p=p, exact=exact,
        mcnemar_p=mcnemar(fixed, broken),
        detectable=detectable_here(variance, count))


def difference_interval(difference: Values, clusters: Sequence[str], *, seed: int) -> Interval:
    """Paired bootstrap: whole clusters are drawn, each with both models' answers."""
    made = bootstrap(difference, clusters, seed=seed)
    return Interval(made.low, made.high, f"paired {made.method}")


def mcnemar(fixed: int, broken: int) -> float:
    """Exact two-sided McNemar test: are fixed and broken trials equally likely?

    Twice the smaller tail of a fair coin tossed ``fixed + broken`` times, at most 1.

    Example: ``mcnemar(6, 0)`` is 0.03125, the fewest discordant trials that can matter at 5 %.
    """
    return min(1.0, 2 * float(bdtr(min(fixed, broken), fixed + broken, 0.5)))


def sign_flip(difference: Values, clusters: Sequence[str], *, seed: int,
              flips: int = FLIPS) -> tuple[float, bool]:
    """Two-sided permutation test of a paired difference, and whether it is exact.

    If the models were equal, each cluster's summed difference could as well have had the other
    sign. The law of the total over all signs is computed exactly by adding one cluster after the
    other where the sums are whole numbers (of 24ths, say), and from ``flips`` random draws, seeded,
    where they are not (nats, METEOR): then p is never below ``1 / (flips + 1)``.
    """
    index, count = codes(clusters)
    sums = np.bincount(index, weights=difference, minlength=count)
    sums = np.abs(sums[np.abs(sums) > EQUAL])
    observed = abs(float(difference.sum()))
    if not len(sums):
        return 1.0, True
    whole = _whole(sums)
    if whole is not None:
        return _exact(*whole, observed), True
    rng = np.random.default_rng(seed)
    reached = 0
    step = max(1, (1 << 22) // len(sums))
    for start in range(0, flips, step):
        signs = rng.integers(2, size=(min(step, flips - start), len(sums))) * 2 - 1
        reached += int((np.abs(signs @ sums) >= observed - EQUAL * len(sums)).sum())
    return (reached + 1) / (flips + 1), False


def _whole(sums: Values) -> tuple[NDArray[np.int64], float] | None:
    """The sums as coprime whole numbers and their unit, or None where that is not practical."""
    for scale in _SCALES:
        scaled = sums * scale
        rounded = np.rint(scaled)
        if np.abs(scaled - rounded).max() < 1e-6:
            numbers = rounded.astype(np.int64)
            divisor = int(np.gcd.reduce(numbers))
            numbers //= divisor
            if int(numbers.sum()) * len(numbers) > _EXACT_STEPS:
                return None
            return numbers, divisor / scale
    return None


def _exact(numbers: NDArray[np.int64], unit: float, observed: float) -> float:
    total = int(numbers.sum())
    # law[k]: the chance that the positive signs' numbers add up to k; the sum is then 2k - total.
    law = np.zeros(total + 1)
    law[0] = 1.0
    reach = 0
    for number in numbers:
        number = int(number)
        moved = law[:reach + 1] * 0.5
        law[:reach + 1] *= 0.5
        law[number:reach + number + 1] += moved
        reach += number
    sums = np.abs(2 * np.arange(total + 1) - total)
    return min(1.0, float(law[sums >= round(observed / unit)].sum()))
