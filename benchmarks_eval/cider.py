"""CIDEr-D (Vedantam, Zitnick and Parikh 2015), the variant that everybody reports as "CIDEr".

Our own, because no library that computes it is both light and kept up: ``pycocoevalcap`` carries
100 MB of jars, has no licence and is still since 2020; ``aac-metrics`` needs sentence-transformers
and loads torch. It equals both (tested with values of theirs): n-grams of 1 to 4 words weighted by
tf-idf over the references, clipped cosine, a Gaussian penalty on lengths, times 10.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

ORDERS = 4
SIGMA = 6.0
SCALE = 10.0

Tokens = tuple[str, ...]


class _Vector(NamedTuple):
    weights: tuple[dict[Tokens, float], ...]  # one table for each order of n-grams
    norms: tuple[float, ...]
    length: int  # in pairs of words, as the reference implementation counts


@functools.lru_cache(maxsize=1 << 16)
def _ngrams(tokens: Tokens) -> Counter[Tokens]:
    return Counter(tokens[k:k + n] for n in range(1, ORDERS + 1)
                   for k in range(len(tokens) - n + 1))


class CiderD:
    """Scores texts by what makes a picture's references special among those of all pictures."""

    def __init__(self, references: Sequence[Sequence[Tokens]]) -> None:
        """Counts in how many pictures' references each n-gram stands.

        Args:
            references: tokens of the references of each picture, one entry a picture.
        """
        self._pictures: Counter[Tokens] = Counter()
        for texts in references:
            self._pictures.update({ngram for tokens in texts for ngram in _ngrams(tokens)})
        self._log_count = math.log(len(references))
        self._vectors: dict[Tokens, _Vector] = {}

    def score(self, references: Sequence[Tokens], tokens: Tokens) -> float:
        """Mean over the references, in [0, 10]; 0 for an empty text."""
        said = self._vector(tokens)
        total = sum(self._similarity(said, self._vector(reference)) for reference in references)
        return SCALE * total / len(references)

    def _vector(self, tokens: Tokens) -> _Vector:
        made = self._vectors.get(tokens)
        if made is None:
            weights: tuple[dict[Tokens, float], ...] = tuple({} for _ in range(ORDERS))
            for ngram, count in _ngrams(tokens).items():
                rarity = self._log_count - math.log(max(1, self._pictures[ngram]))
                weights[len(ngram) - 1][ngram] = count * rarity
            norms = tuple(math.sqrt(sum(w * w for w in table.values())) for table in weights)
            made = self._vectors[tokens] = _Vector(weights, norms, max(len(tokens) - 1, 0))
        return made

    @staticmethod
    def _similarity(said: _Vector, wanted: _Vector) -> float:
        penalty = math.exp(-((said.length - wanted.length) ** 2) / (2 * SIGMA**2))
        total = 0.0
        for mine, theirs, my_norm, their_norm in zip(said.weights, wanted.weights, said.norms,
                                                     wanted.norms, strict=True):
            dot = sum(min(w, theirs[ngram]) * theirs[ngram]
                      for ngram, w in mine.items() if ngram in theirs)
            if my_norm and their_norm:
                total += dot / (my_norm * their_norm)
        return penalty * total / ORDERS
