"""METEOR exactly as NLTK computes it: the formula of 2007, which BabyVLM reports as "METEOR".

A. Lavie and A. Agarwal, "METEOR: An Automatic Metric for MT Evaluation with High Levels of
Correlation with Human Judgments", 2007. It is not METEOR 1.5 (``jar.py``), whose figures are about
half as high. NLTK's ways are kept, odd ones included: words are matched from the right, stems and
synonyms in turn, and synonyms are looked up by what the stemmer left of a word.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks_eval.meteor import porter
from benchmarks_eval.meteor.tokens import Version, word_tokenize
from benchmarks_eval.meteor.wordnet import Morphy, synonyms

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5

_MORPHY: dict[Version, Morphy] = {"3.10": "nltk310", "3.8": "nltk38"}


class _Word(NamedTuple):
    place: int
    form: str


def _match(hypothesis: list[_Word], reference: list[_Word],
           morphy: Morphy | None) -> list[tuple[int, int]]:
    """Matches words from the right and takes them out of both lists.

    With ``morphy`` a hypothesis word matches its synonyms and itself, else only itself.
    """
    places: defaultdict[str, list[int]] = defaultdict(list)
    for index, word in enumerate(reference):
        places[word.form].append(index)
    taken: set[int] = set()
    matched: list[tuple[int, int]] = []
    for index in range(len(hypothesis) - 1, -1, -1):
        form = hypothesis[index].form
        forms = {form} if morphy is None else {form, *synonyms(form, morphy)}
        best, chosen = -1, ""
        for candidate in forms:  # the rightmost free place of any of them
            free = places.get(candidate)
            if free and free[-1] > best:
                best, chosen = free[-1], candidate
        if best >= 0:
            places[chosen].pop()
            taken.add(best)
            matched.append((hypothesis[index].place, reference[best].place))
            del hypothesis[index]
    reference[:] = [word for index, word in enumerate(reference) if index not in taken]
    return matched


def align(hypothesis: Sequence[str], reference: Sequence[str],
          version: Version = "3.10") -> list[tuple[int, int]]:
    """Matched places (hypothesis, reference) of two token lists, in the hypothesis' order."""
    left = [_Word(place, token.lower()) for place, token in enumerate(hypothesis)]
    right = [_Word(place, token.lower()) for place, token in enumerate(reference)]
    matches = _match(left, right, None)
    left = [_Word(place, porter.stem(form)) for place, form in left]
    right = [_Word(place, porter.stem(form)) for place, form in right]
    matches += _match(left, right, None)
    matches += _match(left, right, _MORPHY[version])
    return sorted(matches)


def score_tokens(reference: Sequence[str], hypothesis: Sequence[str],
                 version: Version = "3.10") -> float:
    """METEOR of one pair of token lists, in [0, 1)."""
    matches = align(hypothesis, reference, version)
    if not matches:
        return 0.0
    precision, recall = len(matches) / len(hypothesis), len(matches) / len(reference)
    mean = (precision * recall) / (ALPHA * precision + (1 - ALPHA) * recall)
    chunks = 1 + sum(after != (before[0] + 1, before[1] + 1)
                     for before, after in itertools.pairwise(matches))
    return (1 - GAMMA * (float(chunks) / len(matches)) ** BETA) * mean


def score(references: Sequence[str], hypothesis: str, version: Version = "3.10") -> float:
    """METEOR of a text against its best reference, both split by ``word_tokenize``.

    Example: ``score(["a red couch"], "a red sofa")`` is about 0.98: a match of all n words is
    worth 1 - 0.5 / n^3.
    """
    said = word_tokenize(hypothesis, version)
    return max(score_tokens(word_tokenize(text, version), said, version) for text in references)
