"""Models that never look at a picture: what they reach, a benchmark gives away for free."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from benchmarks_eval.metrics import Scores, words
from benchmarks_eval.trials import Trial

FOLDS = 10
REPEATS = 5


class Scorer(Protocol):
    """Anything that fills a trial's score matrix [images, texts]."""

    def matrix(self, trial: Trial) -> Scores:
        """Scores, higher is better."""
        ...


class Constant:
    """Says the same about everything: every candidate ties."""

    def matrix(self, trial: Trial) -> Scores:
        """Zeros [I, J]."""
        return np.zeros((len(trial.images), len(trial.texts)))


class Random:
    """Uniform noise, fixed for each (seed, picture, text): a check on the metrics themselves."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def matrix(self, trial: Trial) -> Scores:
        """Noise [I, J] in [0, 1)."""
        return np.array([[self._draw(image, text) for text in trial.texts]
                         for image in trial.images])

    def _draw(self, image: str, text: str) -> float:
        digest = hashlib.blake2b(f"{self.seed}\0{image}\0{text}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2.0**64


class Unigram:
    """Prefers common words: mean add-one log frequency of a text's words."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.counts = Counter(word for text in texts for word in words(text))
        self._total = math.log(sum(self.counts.values()) + len(self.counts) + 1)

    def matrix(self, trial: Trial) -> Scores:
        """Mean log frequency of each text, the same for every picture."""
        row = [self._score(text) for text in trial.texts]
        return np.tile(np.array(row), (len(trial.images), 1))

    def _score(self, text: str) -> float:
        found = words(text)
        if not found:
            return -self._total
        return sum(math.log(self.counts[word] + 1) - self._total for word in found) / len(found)


class NaiveBayes:
    """Learns from other trials which words right answers have, cross-validated.

    Folds are grouped by phrase: the counts that judge a trial hold no occurrence of any phrase in
    a fold of that trial's phrases. With folds of trials instead, a phrase that is balanced (as
    often right as wrong) would be wrong more often than right in the rest, and the classifier
    would fall below chance: a floor too low to believe.
    """

    def __init__(self, trials: Sequence[Trial], seed: int, folds: int = FOLDS) -> None:
        phrases = sorted({text for trial in trials for text in trial.texts})
        order = np.random.default_rng(seed).permutation(len(phrases))
        self._fold = {phrases[k]: int(rank) % folds for rank, k in enumerate(order)}
        # [right, wrong] word counts of every fold and of all of them.
        self._folds = [(Counter[str](), Counter[str]()) for _ in range(folds)]
        self._all = (Counter[str](), Counter[str]())
        for trial in trials:
            for position, text in enumerate(trial.texts):
                wrong = int(position != trial.gold)
                for word in words(text):
                    self._folds[self._fold[text]][wrong][word] += 1
                    self._all[wrong][word] += 1
        self._sizes = [tuple(sum(c.values()) for c in pair) for pair in [*self._folds, self._all]]
        self._vocabulary = len(self._all[0] | self._all[1])

    def matrix(self, trial: Trial) -> Scores:
        """Log odds of being right, the same for every picture."""
        held_out = sorted({self._fold[text] for text in trial.texts})
        row = [self._log_odds(text, held_out) for text in trial.texts]
        return np.tile(np.array(row), (len(trial.images), 1))

    def _log_odds(self, text: str, held_out: Sequence[int]) -> float:
        odds = 0.0
        for word in words(text):
            for side, sign in ((0, 1.0), (1, -1.0)):
                seen = self._all[side][word] - sum(self._folds[f][side][word] for f in held_out)
                size = self._sizes[-1][side] - sum(self._sizes[f][side] for f in held_out)
                odds += sign * math.log((seen + 1) / (size + self._vocabulary + 1))
        return odds


def text_only(trials: Sequence[Trial], frequencies: Unigram | None,
              seed: int) -> dict[str, list[Scorer]]:
    """The text-only scorers for trials with several texts; floors average over each list."""
    unigram = frequencies or Unigram(text for trial in trials for text in trial.texts)
    return {
        "unigram": [unigram],
        "naive_bayes": [NaiveBayes(trials, seed + repeat) for repeat in range(REPEATS)],
    }
