"""One figure in parts: the same trials grouped by something known about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks_eval.outcomes import Measured, Outcome
from benchmarks_eval.statistics import interval

SHUFFLES = 2000

KeyOf = Callable[[Outcome], str | None]
"""The group of a trial; None leaves it out (and is counted)."""


@dataclass(frozen=True)
class Group:
    """The trials with one key."""

    name: str
    n: int
    clusters: int
    value: float
    low: float
    high: float
    interval: str
    chance: float
    ties: int
    nonfinite: int


@dataclass(frozen=True)
class Breakdown:
    """A figure by groups.

    ``left_out`` trials have no key. ``p`` is for "the groups do not differ": group names shuffled
    among clusters; None where clusters have trials of several groups, where there is one group, or
    where every group is one cluster.
    """

    by: str
    task: str
    figure: str
    unit: str
    groups: tuple[Group, ...]
    left_out: int
    p: float | None


def by_key(measured: Measured, by: str, key_of: KeyOf, *, seed: int,
           order: Sequence[str] | None = None) -> Breakdown:
    """Groups the trials of a figure.

    Args:
        measured: the figure's trials.
        by: what the groups are made by, for headings.
        key_of: a trial's group.
        seed: of bootstraps and shuffles.
        order: names in the order to show; others follow alphabetically.
    """
    keys = [key_of(outcome) for outcome in measured.outcomes]
    kept = [k for k, key in enumerate(keys) if key is not None]
    names = [key for key in keys if key is not None]
    known = {name: rank for rank, name in enumerate(order or ())}
    groups: list[Group] = []
    for name in sorted(set(names), key=lambda n: (known.get(n, len(known)), n)):
        members = [measured.outcomes[k] for k, own in zip(kept, names, strict=True) if own == name]
        groups.append(_group(name, members, measured, seed))
    outcomes = [measured.outcomes[k] for k in kept]
    return Breakdown(by, measured.task, measured.figure, measured.unit, tuple(groups),
                     len(keys) - len(kept), shuffle_test(outcomes, names, seed=seed))


def by_tag(measured: Measured, tag: str, *, seed: int) -> Breakdown:
    """Groups by a tag that the data carry: ``difference``, ``category``, ``paradigm``, ..."""
    return by_key(measured, tag, lambda outcome: outcome.tags.get(tag), seed=seed)


def tags_of(measured: Measured) -> list[str]:
    """The tags that some trial of a figure has."""
    return list(dict.fromkeys(tag for outcome in measured.outcomes for tag in outcome.tags))


def shuffle_test(outcomes: Sequence[Outcome], names: Sequence[str], *, seed: int,
                 shuffles: int = SHUFFLES) -> float | None:
    """Do the groups differ? The sum of squares between them, group names shuffled among clusters.

    Whole clusters keep together, so that a hundred frames of one toy count once.
    """
    own: dict[str, str] = {}
    for outcome, name in zip(outcomes, names, strict=True):
        if own.setdefault(outcome.cluster, name) != name:
            return None
    labels = sorted(set(names))
    if len(labels) < 2 or len(own) == len(labels):
        return None  # one cluster a group: whatever the names, the same groups
    row = {cluster: k for k, cluster in enumerate(own)}
    index = np.array([row[outcome.cluster] for outcome in outcomes])
    credits_ = np.array([outcome.credit for outcome in outcomes])
    sums = np.bincount(index, weights=credits_ - credits_.mean(), minlength=len(own))
    sizes = np.bincount(index, minlength=len(own)).astype(np.float64)
    group = np.array([labels.index(own[cluster]) for cluster in own])

    def between(group: NDArray[np.int64]) -> float:
        totals = np.bincount(group, weights=sums, minlength=len(labels))
        return float((totals**2 / np.bincount(group, weights=sizes, minlength=len(labels))).sum())

    observed = between(group)
    rng = np.random.default_rng(seed)
    reached = sum(between(rng.permutation(group)) >= observed * (1 - 1e-9)
                  for _ in range(shuffles))
    return (reached + 1) / (shuffles + 1)


def _group(name: str, members: Sequence[Outcome], measured: Measured, seed: int) -> Group:
    credits_ = np.array([outcome.credit for outcome in members])
    clusters = [outcome.cluster for outcome in members]
    made = interval(credits_, clusters, share=measured.share, seed=seed)
    return Group(
        name, len(members), len(set(clusters)), float(credits_.mean()), made.low, made.high,
        made.method, chance_of(members, measured), sum(outcome.tie for outcome in members),
        sum(not np.isfinite(outcome.scores).all() for outcome in members))


def chance_of(members: Sequence[Outcome], measured: Measured) -> float:
    """Guessing on these trials: groups may have other numbers of candidates than the whole."""
    if not measured.share or any(outcome.square or not outcome.scores.size
                                 for outcome in members):
        return measured.chance
    return float(np.mean([1 / outcome.scores.size for outcome in members]))
