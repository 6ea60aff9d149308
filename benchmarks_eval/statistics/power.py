"""The smallest difference that a benchmark can show, before and after it is run."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import bdtrc, stdtrit

POWER = 0.8
ALPHA = 0.05


def detectable_share(n: float, chance: float, *, power: float = POWER,
                     alpha: float = ALPHA) -> float:
    """The accuracy above which a model is found to be better than chance.

    Args:
        n: independent trials (or the effective number; rounded down).
        chance: accuracy of guessing, between 0 and 1.
        power: how often such a model is found out.
        alpha: two-sided level of the exact binomial test.

    Returns:
        The smallest true accuracy with at least that power; 1 if even a perfect model would not
        do.

    Example: 967 pairs at chance .5 show an accuracy of about .545.
    """
    trials = int(n)
    if trials < 1 or not 0 < chance < 1:
        raise ValueError(f"{n} trials at chance {chance}: needs at least 1 trial and a chance "
                         f"between 0 and 1")
    # Fewest hits that guessing reaches with probability alpha / 2 at most.
    low, high = 0, trials + 1
    while low < high:
        middle = (low + high) // 2
        if bdtrc(middle - 1, trials, chance) <= alpha / 2:
            high = middle
        else:
            low = middle + 1
    if low > trials:
        return 1.0
    return _bisect(lambda share: float(bdtrc(low - 1, trials, share)) >= power, chance, 1.0)


def detectable_here(variance: float, clusters: int, *, power: float = POWER,
                    alpha: float = ALPHA) -> float | None:
    """The true difference that a comparison with this variance finds with this power.

    Args:
        variance: of the mean difference (``cluster_variance``).
        clusters: how many it was estimated from.
        power: how often the difference is found.
        alpha: two-sided level.

    Returns:
        The difference, in the unit of the figures; None where the variance is 0.
    """
    if variance <= 0 or clusters < 2:
        return None
    return float((stdtrit(clusters - 1, 1 - alpha / 2) + stdtrit(clusters - 1, power))
                 * math.sqrt(variance))


def _bisect(found: Callable[[float], bool], low: float, high: float) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high
