"""Symmetric pruning: trials are dropped until no phrase-only model beats chance.

A model that reads only phrases gives every trial a held-out margin: how much more right the right
phrase looks than the wrong one. Trials whose margins mirror each other (+m and -m) cancel, so as
many are kept on the one side as on the other at every size of margin, and the rest is dropped.
(After the adversarial refinement of SugarCrepe, Hsieh et al. 2023, with cross-validated models in
place of fixed language models.)

One pass only. A model that is fitted anew to what is left learns the opposite of what was removed,
and a second pass undoes the first: iterating oscillates and eats the set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataprep.evalsets.phrase_models import Floor, Pair, floors, mean_margins

BINS = 10
"""Sizes of margin that are told apart: equal steps from 0 to the largest."""
SURPLUS = (0.0, 0.05)
"""Shares of the surplus side that are tried. A model that is fitted anew to exactly symmetric
margins learns the opposite of what was removed and falls below chance; a little of the surplus
makes up for that, and is that much less to drop."""
LOTS = 6
"""Ways of drawing what is kept, for each share; the one with which the models are nearest to
chance is taken."""


@dataclass(frozen=True)
class Pruning:
    """What was kept, and what it cost."""

    keep: NDArray[np.bool_]
    """[n]"""
    margin: NDArray[np.float64]
    """[n], held-out margins that decided."""
    before: list[Floor]
    after: list[Floor]

    def lines(self) -> list[str]:
        """What happened, for a person to read: the price and the floors."""
        kept, total = int(self.keep.sum()), len(self.keep)
        share = f" ({kept / total:.0%})" if total else ""
        out = [f"pruning: {total} trials shrink to {kept}{share}"]
        if kept == total:
            out = [f"pruning: no phrase-only model beats chance; all {total} trials are kept"]
        for name, found in (("before", self.before), ("after", self.after)):
            out += [
                f"  {name:6} {f.model:8} {f.accuracy:6.1%} right without a picture; chance "
                f"{f.chance_low:.1%} to {f.chance_high:.1%}"
                for f in found
            ]
        still = [f.model for f in self.after if f.accuracy > f.chance_high]
        if still:
            out.append(f"  {', '.join(still)}: still above chance; the set is too small or too odd")
        return out


def prune(pairs: Sequence[Pair], *, seed: int = 0, bins: int = BINS, lots: int = LOTS) -> Pruning:
    """Drop trials until margins lie symmetrically around 0.

    pairs: the right and the wrong phrase of every trial, [n]. In each bin of |margin| as many
    positive margins are kept as negative ones, drawn by lot, and a share of those that are left
    over; margins of 0 are kept. Of all shares and lots the drawing is taken whose worst model is
    nearest to one half; what is reported comes from folds that were used neither for the margins
    nor for this choice. Nothing is dropped where no model beats chance to begin with.
    """
    margin = mean_margins(pairs, seed=seed)
    before = floors(pairs, seed=seed)
    if not any(f.accuracy > f.chance_high for f in before):
        return Pruning(np.ones(len(pairs), bool), margin, before, before)
    best = np.ones(len(pairs), bool)
    least = np.inf
    for lot in range(lots * len(SURPLUS)):
        rng = np.random.default_rng([seed, 12, lot])
        keep = symmetric(margin, bins=bins, surplus=SURPLUS[lot % len(SURPLUS)], rng=rng)
        found = floors(_kept(pairs, keep), seed=seed + 1_000_003, repeats=2)
        worst = max(abs(f.accuracy - 0.5) for f in found) if keep.any() else np.inf
        if worst < least or lot == 0:
            best, least = keep, worst
    after = floors(_kept(pairs, best), seed=seed)
    return Pruning(best, margin, before, after)


def _kept(pairs: Sequence[Pair], keep: NDArray[np.bool_]) -> list[Pair]:
    return [pair for pair, k in zip(pairs, keep, strict=True) if k]


def symmetric(
    margin: NDArray[np.float64], *, bins: int, rng: np.random.Generator, surplus: float = 0.0
) -> NDArray[np.bool_]:
    """Which of these margins to keep so that every bin of |margin| has both signs equally often.

    surplus: share of the more frequent sign's excess that is kept all the same.
    """
    keep = np.abs(margin) < 1e-9
    if keep.all():
        return keep
    size = np.abs(margin) / np.abs(margin).max()
    bin_of = np.minimum((size * bins).astype(int), bins - 1)
    for number in range(bins):
        sides = [np.flatnonzero((bin_of == number) & (sign * margin >= 1e-9)) for sign in (1, -1)]
        count = min(map(len, sides))
        for side in sides:
            most = count + round(surplus * (len(side) - count))
            keep[rng.permutation(side)[:most]] = True
    return keep
