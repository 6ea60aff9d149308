"""Fixed rules that answer this package's templates: no language model, for tests and tours.

They take two neighbouring words of the sentence (a colour or another quality with the word after
it, a verb with the thing it is done to), or "see" and the last thing named, and change one of the
two for another word of its list, chosen by a hash. What they propose has the form that the filters
expect and says nothing about what a model would propose.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from dataprep.evalsets.words import phrase_words

QUALITIES = (
    ("red", "blue", "green", "yellow", "orange", "purple", "pink", "brown", "black", "white"),
    ("big", "little"), ("happy", "sad"), ("hot", "cold"), ("wet", "dry"), ("new", "old"),
    ("clean", "dirty"), ("full", "empty"), ("fast", "slow"), ("open", "closed"),
)  # fmt: skip
VERBS = ("eat", "throw", "read", "hold", "push", "pull", "kick", "open", "wash", "draw")
THINGS = (
    "ball", "dog", "cat", "car", "book", "cup", "hat", "shoe", "chair", "table", "tree", "flower",
    "bird", "fish", "apple", "banana", "bed", "door", "bus", "train", "star", "sun", "moon",
    "house",
)  # fmt: skip
SMALL = frozenset(
    "a an the this that these those it its is are was be do does did you your we i he she they "
    "my me here there look see and or of in on at to for with some more one two what where can "
    "let let's oh yes no not very so who has have got like want s say".split()
)


def _pick(words: tuple[str, ...], name: str, not_these: frozenset[str]) -> str:
    """A word of the list, always the same for the same name."""
    left = [word for word in words if word not in not_these]
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return left[number % len(left)]


def propose(utterance: str) -> list[dict[str, str]]:
    """Up to four pairs for a sentence, in the form of the template's answer."""
    words = phrase_words(utterance)
    said = frozenset(words)
    out: list[dict[str, str]] = []

    def add(one: str, two: str, other: str, other_two: str, first: str, second: str) -> None:
        out.append(
            {
                "positive": f"{one} {two}", "negative": f"{other} {other_two}", "first": first,
                "second": second,
            }
        )  # fmt: skip

    for one, two in pairwise(words):
        if two in SMALL:
            continue
        for family in QUALITIES:
            if one in family:
                name = f"{one} {two}"
                other = _pick(family, name, said) if set(family) - said else ""
                if other:
                    add(one, two, other, two, "adjective", "same")
                add(one, two, one, _pick(THINGS, name, said), "same", "noun")
        if one in VERBS:
            add(one, two, _pick(VERBS, f"{one} {two}", said), two, "verb", "same")
    things = [word for word in words if word not in SMALL]
    if things and not out:
        add("see", things[-1], "see", _pick(THINGS, things[-1], said), "same", "noun")
    return out[:4]


def _user(body: Mapping[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else str(content[0]["text"])


def _two_word(body: Mapping[str, Any]) -> Mapping[str, Any]:
    found = re.match(r"Sentence: (.*)\n", _user(body))
    return {"pairs": propose(found.group(1) if found else "")}


def _winoground(body: Mapping[str, Any]) -> Mapping[str, Any]:
    positive, negative = re.findall(r"`([^`]*)`", _user(body))[:2]
    return {
        "positive_prompt": f"a photograph of {positive} in a living room",
        "negative_prompt": f"a photograph of {negative} in a living room",
        "region": {"left": 0.2, "top": 0.2, "right": 0.8, "bottom": 0.8},
    }


RULES: dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    "two-word-1": _two_word,
    "winoground-1": _winoground,
}
"""Template -> the rule that answers it."""
