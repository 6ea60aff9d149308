"""Labelled trials: one word, four pictures, which one shows it?

Official layout: ``trial_id,target_category,real_category,image``, four rows a trial, the target
first (whoever evaluates shuffles). Pictures are taken four at a time, and each of the four is the
target of one trial: within such a set every picture is target once and foil three times, so a
model that likes some pictures better than others, whatever the word, scores exactly chance (.25).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataprep.benchmarks.items import HeldOut

HEADER = ("trial_id", "target_category", "real_category", "image")
CHOICES = 4


@dataclass(frozen=True)
class Trial:
    """A target and its three foils, of four different groups."""

    target: HeldOut
    foils: tuple[HeldOut, HeldOut, HeldOut]


def labeled_trials(items: Sequence[HeldOut], draws: int, seed: int) -> list[Trial]:
    """At least `draws` trials for every item, in sets of four mirrored trials.

    Raises ValueError when the items have fewer than four groups.
    """
    groups = {item.group for item in items}
    if len(groups) < CHOICES:
        raise ValueError(f"labelled trials need pictures of {CHOICES} groups; found {len(groups)}")
    rng = np.random.default_rng([seed, 2])
    trials = []
    for _ in range(draws):
        waiting = [items[i] for i in rng.permutation(len(items))]
        while waiting:
            chosen: list[HeldOut] = []
            # the rest of a round, where it does not make a set, is filled from all items
            spare = [items[i] for i in rng.permutation(len(items))]
            for source in (list(waiting), spare):
                for item in source:
                    if len(chosen) < CHOICES and item.group not in {c.group for c in chosen}:
                        chosen.append(item)
            waiting = [item for item in waiting if item not in chosen]
            for target in chosen:
                first, second, third = (c for c in chosen if c is not target)
                trials.append(Trial(target, (first, second, third)))
    return trials


def labeled_rows(trials: Sequence[Trial]) -> list[tuple[int, str, str, str]]:
    """The rows of the CSV, the target first in every trial."""
    return [
        (number, trial.target.noun, shown.noun, shown.image)
        for number, trial in enumerate(trials)
        for shown in (trial.target, *trial.foils)
    ]
