"""Porter's stemmer in the variant that NLTK calls NLTK_EXTENSIONS, which its METEOR uses.

M. Porter, "An algorithm for suffix stripping", Program 14(3), 1980. NLTK's variant adds a table of
irregular forms, keeps the y after a vowel ("enjoy") and the e of short words ("dies": "die").
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

_IRREGULAR = {
    "sky": "sky", "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "news": "news",
    "innings": "inning", "inning": "inning", "outings": "outing", "outing": "outing",
    "cannings": "canning", "canning": "canning", "howe": "howe", "proceed": "proceed",
    "exceed": "exceed", "succeed": "succeed",
}

_Rule = tuple[str, str, Callable[[str], bool]]


def _consonants(word: str) -> list[bool]:
    """Whether each letter is a consonant; y is one at the start and after a vowel."""
    flags: list[bool] = []
    for letter in word:
        if letter in "aeiou":
            flags.append(False)
        elif letter == "y":
            flags.append(not flags[-1] if flags else True)
        else:
            flags.append(True)
    return flags


@functools.lru_cache(maxsize=1 << 16)
def _measure(stem: str) -> int:
    """Porter's m: how often a vowel is followed by a consonant."""
    flags = _consonants(stem)
    return sum(after and not before for before, after in itertools.pairwise(flags))


def _always(stem: str) -> bool:
    return True


def _positive(stem: str) -> bool:
    return _measure(stem) > 0


def _above_one(stem: str) -> bool:
    return _measure(stem) > 1


def _ends_cvc(word: str) -> bool:
    """Porter's *o (consonant, vowel, consonant but w, x, y); NLTK: or two letters, vowel first."""
    flags = _consonants(word)
    if len(word) == 2:
        return flags == [False, True]
    return flags[-3:] == [True, False, True] and word[-1] not in "wxy"


def _first(word: str, rules: Sequence[_Rule]) -> str:
    """Applies the first rule whose suffix fits; when its condition fails no other is tried."""
    for suffix, replacement, condition in rules:
        if word.endswith(suffix):
            stem = word[: -len(suffix)]
            return stem + replacement if condition(stem) else word
    return word


def _all(condition: Callable[[str], bool], *suffixes: str) -> tuple[_Rule, ...]:
    """Rules with one condition, each written "suffix replacement" or "suffix" (to be dropped)."""
    return tuple((suffix, replacement, condition)
                 for suffix, _, replacement in (rule.partition(" ") for rule in suffixes))


_STEP_1A = _all(_always, "sses ss", "ies i", "ss ss", "s")
_STEP_2 = (
    *_all(_positive, "ational ate", "tional tion", "enci ence", "anci ance", "izer ize", "bli ble",
          "alli al", "entli ent", "eli e", "ousli ous", "ization ize", "ation ate", "ator ate",
          "alism al", "iveness ive", "fulness ful", "ousness ous", "aliti al", "iviti ive",
          "biliti ble", "fulli ful"),
    # The l belongs to the stem, so that "geology" is cut like "archaeology".
    ("logi", "log", lambda stem: _positive(stem + "l")),
)
_STEP_3 = _all(_positive, "icate ic", "ative", "alize al", "iciti ic", "ical ic", "ful", "ness")
_STEP_4 = (
    *_all(_above_one, "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment",
          "ent"),
    ("ion", "", lambda stem: _above_one(stem) and stem[-1] in "st"),
    *_all(_above_one, "ou", "ism", "ate", "iti", "ous", "ive", "ize"),
)


def _step_1b(word: str) -> str:
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        stem = word.removesuffix(suffix)
        if stem != word and not all(_consonants(stem)):
            break
    else:
        return word
    if stem.endswith(("at", "bl", "iz")):
        return stem + "e"
    if len(stem) > 1 and stem[-1] == stem[-2] and _consonants(stem)[-1]:
        return stem if stem[-1] in "lsz" else stem[:-1]
    return stem + "e" if _measure(stem) == 1 and _ends_cvc(stem) else stem


def _step_1c(word: str) -> str:
    if word.endswith("y") and len(word) > 2 and _consonants(word[:-1])[-1]:
        return word[:-1] + "i"
    return word


def _step_2(word: str) -> str:
    if word.endswith("alli") and _measure(word[:-4]) > 0:
        return _step_2(word[:-2])
    return _first(word, _STEP_2)


def _step_5(word: str) -> str:
    if word.endswith("e"):
        stem = word[:-1]
        if _measure(stem) > 1 or (_measure(stem) == 1 and not _ends_cvc(stem)):
            word = stem
    if word.endswith("ll") and _measure(word[:-1]) > 1:
        word = word[:-1]
    return word


@functools.lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """The stem of a lower-case word.

    Example: ``stem("happily") == "happili"``, ``stem("running") == "run"``.
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 2:
        return word
    singular = word[:-1] if word.endswith("ies") and len(word) == 4 else _first(word, _STEP_1A)
    long = _step_2(_step_1c(_step_1b(singular)))
    return _step_5(_first(_first(long, _STEP_3), _STEP_4))
