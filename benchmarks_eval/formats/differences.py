"""Which word two phrases differ in, and what part of speech that word is: a small, fixed rule.

The published figures of VTWT are broken down into noun, verb and adjective differences, but its
CSV does not carry those labels. Here the differing words stand in the same place of both phrases,
so the class is the one that both can have and that is likeliest for the two together; how often a
word is a noun, verb, adjective or adverb is counted in WordNet 3.0's sense-tagged texts
(``word_classes.txt.gz``, built by scripts/build_word_classes.py; WordNet's licence lies beside it).
"""

from __future__ import annotations

import functools
import gzip
import math
from collections.abc import Mapping
from pathlib import Path

TABLE = Path(__file__).with_name("word_classes.txt.gz")
NAMES = {"n": "noun", "v": "verb", "a": "adjective", "r": "adverb"}
UNSEEN = 1.0
"""Added to every class that a word can have: it may just not have been met in those texts."""
FORMS = {"n": 2, "v": 4, "a": 3, "r": 1}
"""Forms of a word; WordNet counts words, so an inflected form gets its share of the count."""

# WordNet's rules of detachment (morphy(7WN)); irregular forms stand in the table themselves.
_ENDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "n": (("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
          ("men", "man"), ("ies", "y")),
    "v": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"),
          ("ing", "")),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "r": (),
}  # fmt: skip


@functools.cache
def word_table() -> Mapping[str, Mapping[str, int]]:
    """Word -> class letter (n, v, a, r) -> how often it was counted (0: listed, never counted)."""
    table: dict[str, dict[str, int]] = {}
    with gzip.open(TABLE, "rt", encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                word, *classes = line.split()
                table[word] = {one[0]: int(one[1:] or 0) for one in classes}
    return table


@functools.lru_cache(maxsize=1 << 14)
def class_weights(word: str) -> Mapping[str, float]:
    """How often a word, or the words that it is a regular form of, has each class."""
    table = word_table()
    weights: dict[str, float] = {}
    for letter, endings in _ENDINGS.items():
        # Bases have three letters or more: "bed" is no past tense of "be".
        bases = {
            base
            for ending, instead in endings
            if word.endswith(ending)
            if len(base := word.removesuffix(ending) + instead) > 2
        } - {word}
        found = [
            table[base][letter] / FORMS[letter] for base in bases if letter in table.get(base, {})
        ]
        if letter in table.get(word, {}):
            found.append(table[word][letter])
        if found:
            weights[letter] = sum(found) + UNSEEN
    return weights


def common_class(one: str, other: str) -> str:
    """The likeliest class that both words can have; "unknown" without one."""
    first, second = class_weights(one.lower()), class_weights(other.lower())
    shared = [letter for letter in NAMES if letter in first and letter in second]
    if not shared:
        return "unknown"

    def evidence(letter: str) -> float:
        return math.log(first[letter] / sum(first.values())) + math.log(
            second[letter] / sum(second.values())
        )

    return NAMES[max(shared, key=evidence)]


def difference_tags(
    positive: str, negative: str, stated: str | None = None
) -> tuple[tuple[str, str], ...]:
    """What the difference between two phrases is, as tags.

    ``difference``: what the file states, else the class of the one place that differs (noun, verb,
    adjective, adverb, unknown), ``both`` when two or more places differ, ``order`` when only the
    order does, ``length`` for phrases of different lengths; ``classes``: the classes of all
    differing places (``noun+verb``); ``shared_word``: which words both have in the same place
    (first, second, ...), or none.
    """
    right, wrong = positive.lower().split(), negative.lower().split()
    if len(right) != len(wrong):
        return (("difference", stated or "length"),)
    places = [k for k in range(len(right)) if right[k] != wrong[k]]
    same = [_ORDINALS.get(k, str(k + 1)) for k in range(len(right)) if k not in places]
    classes = "+".join(sorted({common_class(right[k], wrong[k]) for k in places})) or "none"
    kind = "order" if sorted(right) == sorted(wrong) else "both"
    if len(places) == 1:
        kind = classes
    return (
        ("difference", stated or kind),
        ("classes", classes),
        ("shared_word", "+".join(same) or "none"),
    )


_ORDINALS = {0: "first", 1: "second", 2: "third"}
