"""What a figure is worth beyond its blind floor."""

from __future__ import annotations


def floor_adjusted(score: float, floor: float) -> float:
    """``(score - floor) / (1 - floor)``: 0 at the blind floor, 1 when perfect, negative below.

    Example: 0.625 on a set where a phrase-only classifier reaches 0.53 is worth 0.202.

    Raises:
        ValueError: the floor is 1: nothing is left to be won by looking.
    """
    if floor >= 1:
        raise ValueError(f"a blind floor of {floor:g} leaves nothing to adjust a score by")
    return (score - floor) / (1 - floor)
