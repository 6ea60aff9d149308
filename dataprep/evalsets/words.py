"""What may stand in a phrase: words that a model knows, and no two that mean the same."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dataprep.evalsets.files import sha256

SYNONYMS = Path(__file__).with_name("synonyms.txt")
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
MIN_COUNT = 3
"""How often a word must be said in training to be known (CVCL's vocabulary: 3)."""


def phrase_words(text: str) -> list[str]:
    """The words of a text in lower case, punctuation left out."""
    return WORD.findall(text.lower())


def plain(word: str) -> str:
    """A word without its common endings, so that "balls" and "ball", "sits" and "sit" are one."""
    for ending, instead, least in (
        ("ies", "y", 5), ("sses", "ss", 5), ("xes", "x", 4), ("shes", "sh", 5), ("ches", "ch", 5),
        ("s", "", 4), ("ing", "", 6), ("ed", "", 5),
    ):  # fmt: skip
        if word.endswith(ending) and len(word) >= least and not word.endswith(("ss", "us", "is")):
            stem = word.removesuffix(ending) + instead
            if ending in ("ing", "ed") and len(stem) > 2 and stem[-1] == stem[-2] != "l":
                stem = stem[:-1]
            return stem
    return word


@dataclass(frozen=True)
class Synonyms:
    """Which words can be true of the same thing."""

    groups: dict[str, frozenset[int]]
    """Plain word -> the groups it belongs to."""
    kinds: dict[str, frozenset[str]]
    """Plain word of a kind -> the plain words that it names."""
    hash: str

    def alike(self, one: str, other: str) -> bool:
        """Whether both are one word, mean the same, or one is a kind of the other."""
        a, b = plain(one), plain(other)
        nothing: frozenset[int] = frozenset()
        return (
            a == b
            or bool(self.groups.get(a, nothing) & self.groups.get(b, nothing))
            or b in self.kinds.get(a, ())
            or a in self.kinds.get(b, ())
        )


def read_synonyms(extra: Path | None = None) -> Synonyms:
    """The table that comes with this package, and a file of the same form beside it.

    Raises:
        ValueError: a line of the file has fewer than two words.
    """
    groups: dict[str, set[int]] = {}
    kinds: dict[str, set[str]] = {}
    texts = []
    number = 0
    for path in (SYNONYMS, *([extra] if extra is not None else [])):
        if not path.is_file():
            raise ValueError(f"{path}: no such file of synonyms")
        texts.append(path.read_text("utf-8"))
        for line, text in enumerate(texts[-1].splitlines(), 1):
            content = text.split("#", 1)[0].strip().lower()
            if not content:
                continue
            words = [plain(word) for word in content.removeprefix("kind:").split()]
            if len(words) < 2:
                raise ValueError(f"{path}, line {line}: {text!r} has one word; accepted: a group")
            if content.startswith("kind:"):
                kinds.setdefault(words[0], set()).update(words[1:])
                continue
            number += 1
            for word in words:
                groups.setdefault(word, set()).add(number)
    return Synonyms(
        {word: frozenset(found) for word, found in groups.items()},
        {word: frozenset(found) for word, found in kinds.items()},
        sha256("\0".join(texts)),
    )


def vocabulary_of(utterances: Iterable[str], min_count: int = MIN_COUNT) -> frozenset[str]:
    """Words that are said at least `min_count` times."""
    counts = Counter(word for text in utterances for word in phrase_words(text))
    return frozenset(word for word, count in counts.items() if count >= min_count)


def read_vocabulary(path: Path) -> frozenset[str]:
    """Words of a ``vocab.json`` (word -> id, or a list) or of a text file with one word a line.

    Raises:
        ValueError: the file is missing, not such a file, or empty.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such vocabulary")
    text = path.read_text("utf-8")
    if path.suffix == ".json":
        try:
            value = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error})") from None
        if not isinstance(value, dict | list):
            raise ValueError(f"{path}: a vocabulary is a mapping of words to ids, or a list")
        words = [str(word).lower() for word in value]
    else:
        words = text.lower().split()
    found = frozenset(word for word in words if WORD.fullmatch(word))
    if not found:
        raise ValueError(f"{path}: holds no words")
    return found
