"""Which words decide a trial, and how people write them."""

from __future__ import annotations

from benchmarks_eval.metrics import content_words, words
from benchmarks_eval.outcomes import Outcome


def deciding_words(outcome: Outcome) -> frozenset[str]:
    """The words one has to know to find the right answer.

    Where texts are chosen from: the right text's words that some wrong one lacks ("read" in "read
    book" against "eat book"). Where pictures are: the text's words that name something. In a
    square: the words that only one of its two texts has.
    """
    if outcome.square:
        one, other = (frozenset(words(text)) for text in outcome.texts)
        return one ^ other or one | other
    right = outcome.right_texts[0]
    if len(outcome.texts) == 1:
        return content_words(right)
    own = frozenset(words(right))
    everywhere = frozenset.intersection(*(frozenset(words(t)) for t in outcome.wrong_texts))
    return own - everywhere or own
