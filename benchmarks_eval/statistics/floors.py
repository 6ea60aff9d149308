"""What a figure is worth beyond its floor: floor-adjusted scores and grounding gaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks_eval.statistics.intervals import Interval, Values
from benchmarks_eval.statistics.paired import Paired, paired


def floor_adjusted(score: float, floor: float) -> float:
    """``(score - floor) / (1 - floor)``: 0 at the blind floor, 1 when perfect, negative below.

    Example: 0.625 on a set where a phrase-only classifier reaches 0.53 is worth 0.202.

    Raises:
        ValueError: the floor is 1: nothing is left to be won by looking.
    """
    if floor >= 1:
        raise ValueError(f"a blind floor of {floor:g} leaves nothing to adjust a score by")
    return (score - floor) / (1 - floor)


def floor_adjusted_interval(made: Interval, floor: float) -> Interval:
    """An interval on the floor-adjusted scale; the floor counts as known."""
    return Interval(floor_adjusted(made.low, floor), floor_adjusted(made.high, floor), made.method)


def grounding_gap(real: Values, blinded: Values, clusters: Sequence[str], *, seed: int) -> Paired:
    """Credits with the real pictures minus credits of the same model with wrong or no pictures.

    Args:
        real: credits [n] of the model as it is.
        blinded: credits [n] of the same trials, pictures shuffled, noise or absent.
        clusters: the trials' clusters.
        seed: of the resamples.

    A gap near zero says that the score comes from the text, however high it is.
    """
    return paired(np.asarray(blinded), np.asarray(real), clusters, seed=seed)
