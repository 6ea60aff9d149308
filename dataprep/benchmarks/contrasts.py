"""Pairs of pictures and phrases that differ in the noun, in the colour, or in both.

Both the two-word task and winoground are made of these. A contrast has two pictures and two
phrases, and each phrase is right for one of the pictures and wrong for the other. Contrasts of
colour need the same thing in two colours; the second picture is the first with its hue turned,
kept only where the measured colour is the one that was meant.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from dataprep.benchmarks.items import Contrast, HeldOut, disjoint_pairs

NOUN_PARTNERS = 8
"""Most partners that a picture gets among pictures of its colour."""
BOTH_PARTNERS = 4
"""The same among pictures of other colours."""
NEW_COLOURS = 2
"""Most recoloured versions of a picture."""

Recolour = Callable[[HeldOut], Sequence[HeldOut]]
"""Recoloured versions of a picture that has a hue (may be empty)."""


def contrasts(items: Sequence[HeldOut], recolour: Recolour, seed: int) -> list[Contrast]:
    """Every contrast of a split, ordered by kind: noun, colour, both.

    items: held-out pictures; those without a two-word phrase are passed over.
    """
    rng = np.random.default_rng([seed, 3])
    named = [item for item in items if item.phrase is not None]
    out = []
    by_colour: dict[str, list[HeldOut]] = defaultdict(list)
    for item in named:
        by_colour[str(item.colour)].append(item)
    for colour in sorted(by_colour):
        pairs = disjoint_pairs(by_colour[colour], NOUN_PARTNERS, rng)
        out += [_contrast("noun", a, b) for a, b in pairs]
    for item in named:
        versions = recolour(item)
        chosen = [versions[i] for i in rng.permutation(len(versions))[:NEW_COLOURS]]
        out += [_contrast("colour", item, other) for other in chosen]
    for a, b in disjoint_pairs(named, BOTH_PARTNERS, rng):
        if a.colour != b.colour:
            out.append(_contrast("both", a, b))
    return out


def _contrast(kind: str, a: HeldOut, b: HeldOut) -> Contrast:
    assert a.phrase is not None and b.phrase is not None and a.phrase != b.phrase
    return Contrast(kind, (a.image, b.image), (a.phrase, b.phrase))
