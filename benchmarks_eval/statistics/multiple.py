"""Many tests at once: Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order: reject where they are at most alpha.

    The chance of one or more false rejections among all tests stays at most alpha, however the
    tests depend on each other (Holm 1979).

    Example: ``holm([0.01, 0.04, 0.03])`` is ``[0.03, 0.06, 0.06]``.
    """
    order = np.argsort(np.asarray(pvalues, dtype=np.float64), kind="stable")
    adjusted = [0.0] * len(order)
    largest = 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * float(pvalues[k])))
        adjusted[int(k)] = largest
    return adjusted
