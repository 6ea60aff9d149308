"""Metrics: pure functions of scores (higher is better), ties worth their expectation.

Published scorers put the right answer first and let argmax settle ties, so a model that always
says the same scores 100 %. Here a tie is worth what a fair coin would make of it.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from benchmarks_eval.options import Ties

Scores = NDArray[np.float64]
Metric = Callable[[Scores, int], float]

TIE = 1e-5
"""Scores closer than this, times their size where that is above 1, are equal.

Why not exact equality: candidates that are one and the same to a model (phrases whose words are all
unknown to it, pictures with equal bytes) are the only ties that happen by more than chance. The
engine scores equal texts of a picture once, but pictures with equal bytes may lie in two batches,
other models put equal texts into rows of their own, and float32 rounds one sum differently in rows
of other shapes. Measured (CPU, picture book, 4,029 records, batch sizes 1, 7 and auto): the
engine's log-likelihoods are the same bits, but every cosine and every sum of a LLaVA has some other
bit, by up to 9e-8 and 8e-6. Compared exactly, such a tie would be decided by the batches. The band
is the agreement that plans are held to: what another plan cannot tell apart is not told apart. Any
band has an edge at which unequal candidates flip; this one is narrow enough that few come near it.
"""

# Words that say nothing about what is in a picture.
_FUNCTION_WORDS = frozenset(
    "a an the this that these those it its it's he she they we you i me my your his her their our "
    "us them him is are was were be been am do does did have has had can could will would shall "
    "should may might must not no yes and or but so if then than as of in on at to from with by "
    "for about into over under up down out off there here what who where when why how which some "
    "any all one ones s re ve ll d t m n't 's 're look see oh hey hi wow well let lets let's "
    "please okay ok just too very also again now".split())


def choice(scores: Scores, gold: int) -> float:
    """1 when the gold candidate is the single best, 1/k when k are equally best, else 0."""
    flat = scores.ravel()
    best = flat >= flat.max() - band(flat.max())
    return float(best[gold]) / float(best.sum())


def band(score: float) -> float:
    """How far below ``score`` another one is still equal to it."""
    return TIE * max(1.0, abs(float(score)))


def worth(share: float, ties: Ties, *, choice: bool) -> float:
    """Credit of a trial under another rule for ties.

    Args:
        share: its credit when equal scores are worth their expectation: 0, 1, or between the two
            when a tie decides.
        ties: the rule.
        choice: one of several candidates is to be picked (argmax); else strict conditions on a
            square, which published scorers fail on a tie whatever comes first.
    """
    if ties == "share" or share in (0.0, 1.0):
        return share
    return 1.0 if ties == "first" and choice else 0.0


def gain(scores: Scores, gold: int) -> float:
    """Gold score minus the mean of the others (nats per token under ``normalise: mean``)."""
    flat = scores.ravel()
    return float(flat[gold] - np.delete(flat, gold).mean())


def _text(s: Scores) -> bool:
    return bool(s[0, 0] > s[0, 1] and s[1, 1] > s[1, 0])


def _image(s: Scores) -> bool:
    return bool(s[0, 0] > s[1, 0] and s[1, 1] > s[0, 1])


def _positive(s: Scores) -> bool:
    return bool(s[0, 0] > s[1, 0] and s[0, 0] > s[0, 1])


def _negative(s: Scores) -> bool:
    return bool(s[1, 1] > s[0, 1] and s[1, 1] > s[1, 0])


def _expected(condition: Callable[[Scores], bool]) -> Metric:
    """Credit of a strict condition on a 2 x 2 matrix when ties are broken at random.

    The mean over the 24 orders of four infinitesimal tie-breakers: exact, and 1/4, 1/4, 1/6, 1/3
    for a constant model, which is chance.
    """

    def credit(scores: Scores, gold: int) -> float:
        flat = scores.ravel()
        order = np.argsort(flat, kind="stable")
        steps = np.diff(flat[order]) > band(np.abs(flat).max())
        rank = np.empty(4)
        rank[order] = np.concatenate([[0], np.cumsum(steps)])
        if steps.all():
            return float(condition(rank.reshape(2, 2)))
        tosses = [condition((rank + 0.1 * np.array(p)).reshape(2, 2)) for p in _TOSSES]
        return float(np.mean(tosses))

    return credit


_TOSSES = list(itertools.permutations(range(4)))


def match(scores: Scores, gold: int) -> float:
    """s00 + s11 > s01 + s10: chance is exactly 1/2 whatever a picture or phrase is liked for
    itself, because any additive bias cancels (optimal assignment of the two phrases)."""
    difference = scores[0, 0] + scores[1, 1] - scores[0, 1] - scores[1, 0]
    if abs(difference) <= band(np.abs(scores).max()):
        return 0.5
    return float(difference > 0)


WINOGROUND: dict[str, tuple[Metric, float]] = {
    # Thrush et al. 2022; positive and negative context: BabyVLM (2504.09426).
    "text": (_expected(_text), 1 / 4),
    "image": (_expected(_image), 1 / 4),
    "group": (_expected(lambda s: _text(s) and _image(s)), 1 / 6),
    "positive_context": (_expected(_positive), 1 / 3),
    "negative_context": (_expected(_negative), 1 / 3),
    "match": (match, 1 / 2),
}
"""Name -> (metric on [2 images, 2 phrases], chance for independent scores)."""


@functools.lru_cache(maxsize=1 << 16)
def words(text: str) -> tuple[str, ...]:
    """Lower-case words of a text without punctuation."""
    return tuple(re.findall(r"[a-z0-9]+(?:'[a-z]+)?", text.lower()))


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word stands in texts."""
    return Counter(word for text in texts for word in words(text))


@functools.lru_cache(maxsize=1 << 16)
def content_words(text: str) -> frozenset[str]:
    """The words that name something; all words when nothing else is left."""
    found = words(text)
    content = frozenset(word for word in found if word not in _FUNCTION_WORDS)
    return content or frozenset(found)


def word_recall(reference: str, caption: str) -> float:
    """Share of the reference's content words that the caption says."""
    gold = content_words(reference)
    return len(gold.intersection(words(caption))) / len(gold) if gold else 0.0


def exact_match(reference: str, caption: str) -> float:
    """1 when both have the same words in the same order (case and punctuation aside)."""
    return float(words(reference) == words(caption))
