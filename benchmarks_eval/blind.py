"""Models that never look at a picture: what they reach, a benchmark gives away for free."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from benchmarks_eval.metrics import Scores, count_words, words
from benchmarks_eval.trials import Trial


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
        self.counts = count_words(texts)
        self._total = math.log(sum(self.counts.values()) + len(self.counts) + 1)

    def matrix(self, trial: Trial) -> Scores:
        """Mean log frequency of each text, the same for every picture."""
        row = [self.mean_log_frequency(text) for text in trial.texts]
        return np.tile(np.array(row), (len(trial.images), 1))

    def mean_log_frequency(self, text: str) -> float:
        """Nats a word; a text without words counts as one that was never seen."""
        found = words(text)
        if not found:
            return -self._total
        return sum(math.log(self.counts[word] + 1) - self._total for word in found) / len(found)


class NaiveBayes:
    """Learns from other trials which words right answers have, leaving phrases out.

    The counts that judge a trial hold no occurrence, in any trial, of any phrase it offers. Were
    each phrase judged without itself alone, its rival's place in this very trial would be counted
    against the words they share: with roles drawn by lot VTWT then gives 37 % for 50 %. Were it
    judged without itself and all its rivals anywhere, different counts would judge the two phrases
    of a trial, and which rivals are missing tells who is right: 52 % for 50 %.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._seen: dict[str, list[int]] = {}  # phrase -> times [right, wrong]
        for trial in trials:
            for position, text in enumerate(trial.texts):
                self._seen.setdefault(text, [0, 0])[int(position != trial.gold)] += 1
        self._counts = (Counter[str](), Counter[str]())
        for text, times in self._seen.items():
            for word in words(text):
                for side in (0, 1):
                    self._counts[side][word] += times[side]
        self._sizes = [sum(counts.values()) for counts in self._counts]
        self._vocabulary = len(self._counts[0] | self._counts[1])

    def matrix(self, trial: Trial) -> Scores:
        """Log odds of being right, the same for every picture."""
        row = self.log_odds(trial.texts, trial.texts)
        return np.tile(np.array(row), (len(trial.images), 1))

    def log_odds(self, texts: Sequence[str], held_out: Iterable[str]) -> list[float]:
        """Log odds of each text being right, by add-one counts without the phrases held out."""
        out = (Counter[str](), Counter[str]())
        for phrase in set(held_out):
            for word in words(phrase):
                for side in (0, 1):
                    out[side][word] += self._seen.get(phrase, (0, 0))[side]
        size = [self._sizes[side] - out[side].total() + self._vocabulary + 1 for side in (0, 1)]

        def odds(word: str) -> float:
            right, wrong = (self._counts[side][word] - out[side][word] + 1 for side in (0, 1))
            return math.log(right / size[0]) - math.log(wrong / size[1])

        return [sum(odds(word) for word in words(text)) for text in texts]


def text_only(trials: Sequence[Trial], frequencies: Unigram | None) -> dict[str, list[Scorer]]:
    """The text-only scorers for trials with several texts; floors average over each list."""
    unigram = frequencies or Unigram(text for trial in trials for text in trial.texts)
    return {
        "unigram": [unigram],
        "naive_bayes": [NaiveBayes(trials)],
    }
