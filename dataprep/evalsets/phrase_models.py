"""Models that read only the phrases of a two-phrase trial, cross-validated.

Right phrases that a language model found in an utterance and wrong ones that it made up differ in
their words. A naive Bayes over those words then tells right from wrong without a picture: on the
set that BabyVLM published it is right on three trials of four. What it reaches is what a set gives
away for free.

Folds are grouped by phrase: the counts that judge a trial hold no occurrence of either of its
phrases. With folds of trials instead, a phrase that is as often right as wrong is more often wrong
than right in the rest, and the model falls below chance: a floor too low to believe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FOLDS = 10
REPEATS = 5
Z95 = 1.959963984540054

Pair = tuple[str, str]
"""The right phrase and the wrong one."""


def _words(phrase: str) -> list[str]:
    return phrase.split()


def _places(phrase: str) -> list[str]:
    return [f"{place}:{word}" for place, word in enumerate(phrase.split())]


def _letters(phrase: str) -> list[str]:
    text = f" {phrase} "
    return [text[start : start + 3] for start in range(len(text) - 2)]


FEATURES: dict[str, Callable[[str], list[str]]] = {
    "words": _words,
    "places": _places,
    "letters": _letters,
}
"""What a phrase is to each naive Bayes: its words, words with their places, letter triples."""
RIDGE = "ridge"
"""A linear classifier (least squares with weight decay) on all of these at once."""
MODELS = (*FEATURES, RIDGE)
DECAY = 4.0
RIDGE_FOLDS = 6
"""Fewer than for naive Bayes: every pair of folds is a system of equations to solve."""


@dataclass(frozen=True)
class Floor:
    """How often a phrase-only model is right, ties counting half."""

    model: str
    accuracy: float
    """Mean over repeats with other folds."""
    low: float
    high: float
    """95 % Wilson interval of the accuracy for this many trials."""
    chance_low: float
    chance_high: float
    """95 % interval around one half for this many trials."""

    @property
    def at_chance(self) -> bool:
        """Whether the accuracy lies within the interval around one half."""
        return self.chance_low <= self.accuracy <= self.chance_high


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % Wilson interval of a share among `count` trials; (0, 1) for none."""
    if count == 0:
        return 0.0, 1.0
    spread = Z95 * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    centre = share + Z95**2 / (2 * count)
    below = 1 + Z95**2 / count
    return (centre - spread) / below, (centre + spread) / below


def margins(
    pairs: Sequence[Pair], model: str = "words", *, seed: int = 0, folds: int | None = None
) -> NDArray[np.float64]:
    """Held-out log odds of the right phrase minus those of the wrong one, [n].

    Add-one smoothing over the features of all phrases. Positive: the model is right.

    Raises:
        ValueError: no such model.
    """
    if model not in MODELS:
        raise ValueError(f"phrase model {model!r}: accepted are {', '.join(MODELS)}")
    folds = folds or (RIDGE_FOLDS if model == RIDGE else FOLDS)
    phrases = sorted({phrase for pair in pairs for phrase in pair})
    order = np.random.default_rng([seed, 11]).permutation(len(phrases))
    fold_of = {phrases[k]: int(rank) % folds for rank, k in enumerate(order)}
    number: dict[str, int] = {}
    kinds = [FEATURES[model]] if model != RIDGE else list(FEATURES.values())
    found = {
        p: [
            number.setdefault(f"{kind}/{f}", len(number))
            for kind, features in enumerate(kinds)
            for f in features(p)
        ]
        for p in phrases
    }
    if model == RIDGE:
        return _ridge(pairs, fold_of, found, len(number))
    return _naive_bayes(pairs, fold_of, found, len(number), folds)


def _naive_bayes(
    pairs: Sequence[Pair],
    fold_of: dict[str, int],
    found: dict[str, list[int]],
    size: int,
    folds: int,
) -> NDArray[np.float64]:
    counts = np.zeros((folds, 2, size))  # of each fold: features of right, of wrong phrases
    for pair in pairs:
        for side, phrase in enumerate(pair):
            np.add.at(counts[fold_of[phrase], side], found[phrase], 1)
    total = counts.sum(0)
    odds: dict[tuple[int, ...], NDArray[np.float64]] = {}
    out = np.empty(len(pairs))
    for row, pair in enumerate(pairs):
        held_out = tuple(sorted({fold_of[phrase] for phrase in pair}))
        if held_out not in odds:
            seen = total - counts[list(held_out)].sum(0) + 1
            log = np.log(seen / seen.sum(1, keepdims=True))
            odds[held_out] = log[0] - log[1]
        right, wrong = (odds[held_out][found[phrase]].sum() for phrase in pair)
        out[row] = right - wrong
    return out


def _ridge(
    pairs: Sequence[Pair], fold_of: dict[str, int], found: dict[str, list[int]], size: int
) -> NDArray[np.float64]:
    """Held-out predictions of a classifier that is to give 1 for right minus wrong features."""
    x = np.zeros((len(pairs), size))
    for row, (right, wrong) in enumerate(pairs):
        np.add.at(x[row], found[right], 1)
        np.add.at(x[row], found[wrong], -1)
    folds = np.array([[fold_of[phrase] for phrase in pair] for pair in pairs]).reshape(-1, 2)
    folds.sort(axis=1)
    products = x @ x.T  # [n, n]
    out = np.zeros(len(pairs))
    for held_out in np.unique(folds, axis=0):
        test = (folds == held_out).all(1)
        train = ~np.isin(folds, held_out).any(1)
        if train.any():
            inner = products[np.ix_(train, train)] + DECAY * np.eye(int(train.sum()))
            weights = np.linalg.solve(inner, np.ones(len(inner)))
            out[test] = products[np.ix_(test, train)] @ weights
    return out


def mean_margins(
    pairs: Sequence[Pair], *, seed: int = 0, repeats: int = REPEATS
) -> NDArray[np.float64]:
    """The margins of all models together, [n].

    Each model's :func:`margins`, averaged over `repeats` ways of making the folds and divided by
    their root mean square (0 stays 0), summed.
    """
    out = np.zeros(len(pairs))
    for model in MODELS:
        each = [margins(pairs, model, seed=seed * 1000 + k) for k in range(repeats)]
        mean = np.mean(each, axis=0)
        size = float(np.sqrt(np.mean(mean**2))) if len(mean) else 0.0
        out += mean / size if size > 0 else mean
    return out


def right(margin: NDArray[np.float64]) -> float:
    """Share of positive margins, ties (to 1e-9) counting half; nan for none."""
    if not len(margin):
        return math.nan
    tie = np.abs(margin) < 1e-9
    return float(np.mean(np.where(tie, 0.5, margin > 0)))


def floor(
    pairs: Sequence[Pair], model: str = "words", *, seed: int = 0, repeats: int = REPEATS
) -> Floor:
    """How often a phrase-only model is right on these trials, on folds that no pruning used."""
    shares = [right(margins(pairs, model, seed=seed * 1000 + 500 + k)) for k in range(repeats)]
    accuracy = float(np.mean(shares)) if pairs else math.nan
    low, high = wilson(accuracy, len(pairs)) if pairs else (0.0, 1.0)
    chance_low, chance_high = wilson(0.5, len(pairs))
    return Floor(model, accuracy, low, high, chance_low, chance_high)


def floors(pairs: Sequence[Pair], *, seed: int = 0, repeats: int = REPEATS) -> list[Floor]:
    """:func:`floor` of every phrase-only model."""
    return [floor(pairs, model, seed=seed, repeats=repeats) for model in MODELS]
