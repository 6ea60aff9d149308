"""Which words share a sense: WordNet 3.0 from a table of half a megabyte (no 30 MB corpus).

``scripts/build_wordnet_table.py`` makes the table and describes it; the WordNet licence stands in
its first lines and in ``WORDNET-LICENSE.txt``. Inflected words are led back to their base forms by
"morphy" as NLTK has it, which is where NLTK's versions differ.
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

Morphy = Literal["nltk310", "nltk38"]
"""``nltk310`` applies one rule of inflection (NLTK 3.10 and the releases just before it);
``nltk38`` goes on applying rules until it meets a known word (NLTK 3.8)."""

# WordNet's rules of detachment (morphy(7WN)), with those that NLTK adds.
_RULES: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"),
        ("shes", "sh"), ("men", "man"), ("ies", "y"),
    ),
    "verb": (
        ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"),
        ("ing", ""),
    ),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}


@dataclass(frozen=True)
class _Part:
    """One part of speech: every known form with the sets of synonyms it leads to."""

    groups: dict[str, tuple[tuple[str, ...], ...]]
    exceptions: dict[str, list[str]]
    rules: tuple[tuple[str, str], ...]

    def bases(self, form: str, morphy: Morphy) -> list[str]:
        """Known base forms of a word, itself among them; empty when it has none."""
        exceptions = self.exceptions.get(form)
        made = self._apply([form]) if exceptions is None else exceptions
        found = [base for base in (form, *made) if base in self.groups]
        if morphy == "nltk38" and exceptions is None:
            while made and not found:
                made = self._apply(made)
                found = [base for base in made if base in self.groups]
        return found

    def _apply(self, forms: Sequence[str]) -> list[str]:
        return [form[: -len(old)] + new for form in forms for old, new in self.rules
                if form.endswith(old)]


@functools.cache
def _parts() -> tuple[_Part, ...]:
    """Reads the table: about 0.1 s, once."""
    packed = files("benchmarks_eval.meteor").joinpath("wordnet30.txt.gz").read_bytes()
    _, *sections = gzip.decompress(packed).decode().split("\n=")
    return tuple(_read(section) for section in sections)


def _read(section: str) -> _Part:
    synonyms, exceptions = section.split("\n~\n")
    name, *rows, last = synonyms.split("\n")
    groups: dict[str, tuple[tuple[str, ...], ...]] = {}
    for row in rows:
        names, _, forms = row.partition(" | ")
        group = tuple(names.split(" "))
        for form in (*group, *forms.split()):
            groups[form] = (*groups.get(form, ()), group)
    alone, _, empty = last.partition(" | ")
    for word in alone.split()[1:]:
        groups[word] = (*groups.get(word, ()), (word,))
    groups.update((form, ()) for form in empty.split())
    irregular = (row.split(" ") for row in exceptions.splitlines())
    return _Part(groups, {form: bases for form, *bases in irregular}, _RULES[name])


@functools.lru_cache(maxsize=1 << 16)
def synonyms(word: str, morphy: Morphy = "nltk310") -> frozenset[str]:
    """Single words that share a sense with a lower-case word, in any part of speech.

    Example: ``"sofa" in synonyms("couch")``. A word that WordNet does not know has none.
    """
    return frozenset(_related(word, morphy))


def _related(word: str, morphy: Morphy) -> Iterator[str]:
    for part in _parts():
        for base in part.bases(word, morphy):
            for group in part.groups[base]:
                yield from group
