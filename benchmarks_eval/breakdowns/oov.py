"""Known and unknown words: what a figure is where every word is in the model's vocabulary."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks_eval.breakdowns.groups import Breakdown, by_key
from benchmarks_eval.outcomes import Measured, Outcome

KNOWN, UNKNOWN_RIGHT, UNKNOWN_WRONG, ALIKE = (
    "all words known", "unknown word in the right text", "unknown word in a wrong text",
    "candidates read the same")
ORDER = (KNOWN, UNKNOWN_RIGHT, UNKNOWN_WRONG, ALIKE)


class Vocabulary(Protocol):
    """A tokeniser as far as breakdowns need it."""

    def tokens(self, text: str) -> Sequence[int]:
        """Token ids; texts with equal ids are one text to the model."""
        ...

    def unknown_words(self, text: str) -> Sequence[str]:
        """The words of a text that become the unknown token."""
        ...


@dataclass(frozen=True)
class WordList:
    """A vocabulary of whole words, as CVCL and BabyLLaVA have it (``vocab.json``).

    Words are what white space separates, in lower case, without punctuation that the list does
    not hold.
    """

    ids: dict[str, int]

    @classmethod
    def of(cls, known: Iterable[str]) -> WordList:
        """From words alone."""
        return cls({word: k + 1 for k, word in enumerate(dict.fromkeys(known))})

    def tokens(self, text: str) -> list[int]:
        """Ids of the words; 0 for each unknown one."""
        return [self.ids.get(word, 0) for word in self._words(text)]

    def unknown_words(self, text: str) -> list[str]:
        """The words that are not in the list."""
        return [word for word in self._words(text) if word not in self.ids]

    def _words(self, text: str) -> list[str]:
        found = (word if word in self.ids else word.strip(string.punctuation)
                 for word in text.lower().split())
        return [word for word in found if word]


def read_words(path: str | Path) -> WordList:
    """A vocabulary file: JSON (word to id, or a list of words) or text with a word a line.

    Raises:
        ValueError: no such file, or nothing of these.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such vocabulary file")
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        listed = [line.strip().lower() for line in text.splitlines() if line.strip()]
        if not listed:
            raise ValueError(f"{path}: no words in it")
        return WordList.of(listed)
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if isinstance(tree, dict) and tree and all(isinstance(v, int) for v in tree.values()):
        return WordList({str(word): number + 1 for word, number in tree.items()})
    if isinstance(tree, list) and tree and all(isinstance(word, str) for word in tree):
        return WordList.of(tree)
    raise ValueError(f"{path}: a vocabulary is a mapping of words to ids or a list of words")


def by_vocabulary(measured: Measured, vocabulary: Vocabulary, *, seed: int) -> Breakdown:
    """Groups trials by whether the model can read their texts.

    ``candidates read the same`` goes first: with unknown words two candidates may become the same
    tokens, and no model can tell them apart.
    """

    def key(outcome: Outcome) -> str | None:
        if not outcome.texts:
            return None
        codes = [tuple(vocabulary.tokens(text)) for text in outcome.texts]
        if len(set(codes)) < len(codes):
            return ALIKE
        if any(vocabulary.unknown_words(text) for text in outcome.right_texts):
            return UNKNOWN_RIGHT
        if any(vocabulary.unknown_words(text) for text in outcome.wrong_texts):
            return UNKNOWN_WRONG
        return KNOWN

    return by_key(measured, "vocabulary", key, seed=seed, order=ORDER)
