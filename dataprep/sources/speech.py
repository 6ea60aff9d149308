"""From a transcript's line to clean sentences, one utterance each.

Published (CVCL's preprocessing, whose utterances BabyVLM uses): what stands between asterisks, in
square brackets or in parentheses is dropped, unless it says "inaudible", which becomes ``<unk>``;
spaCy (``en_core_web_sm``) parts sentences and tokens; tokens are joined by blanks, in lower case.

``spacy`` does exactly that and needs spaCy with that model. ``rules`` needs nothing: sentences end
at ``. ? !``, and tokens are parted as spaCy parts them in such speech (``do n't``, ``it 's``,
``okay .``). On 147 lines made of the 294 published captions the two part tokens alike in 145 and
sentences in 128 (spaCy 3.8); they differ where spaCy's parser ends a sentence without a mark.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Literal

__all__ = ["SPLITTERS", "Splitter", "clean", "sentences"]

Splitter = Literal["rules", "spacy"]
SPLITTERS = ("rules", "spacy")
UNKNOWN = "<unk>"
_INAUDIBLE = "INAUDIBLE"
_MODEL = "en_core_web_sm"
# As published, `[^)]*` included: a remark ends at its own mark or at a parenthesis.
_REMARKS = (r"\*[^)]*\*", r"\[[^)]*\]", r"\([^)]*\)", r"\binaudible\b")
_TOKEN = re.compile(
    r"\.{2,}|\u2026|--+"  # dots and dashes stay together
    r"|\w+(?=n['\u2019]t\b)|n['\u2019]t\b"  # do n't
    r"|['\u2019](?:s|re|m|ll|ve|d)\b"  # it 's
    r"|\w+(?:-\w+)*-*"  # pick-up; a word broken off keeps its dashes: the--
    r"|[^\w\s]",
    re.IGNORECASE,
)
_ENDS = {".", "?", "!"}
_CLOSES = {'"', "\u201d", ")"}


def clean(line: str) -> str:
    """The line without the transcriber's remarks; ``INAUDIBLE`` where one says so."""

    def replaced(match: re.Match[str]) -> str:
        return _INAUDIBLE if "inaudible" in match.group(0) else ""

    for remark in _REMARKS:
        line = re.sub(remark, replaced, line)
    return line.replace("*", "")


def sentences(line: str, splitter: Splitter = "rules", inaudible: str = UNKNOWN) -> list[str]:
    """The sentences of a transcript's line: lower-case tokens with blanks between them.

    `inaudible` stands for what could not be heard (published: ``<unk>``; empty: nothing does).
    A sentence without a letter or digit is dropped.

    >>> sentences("It's a ball! (laughs) Don't you see? [inaudible] okay")
    ["it 's a ball !", "do n't you see ?", '<unk> okay']

    Raises:
        ValueError: no such splitter, or spaCy or its model is not installed.
    """
    found = _splitter(splitter)(clean(line))
    words = (
        [inaudible if token == _INAUDIBLE else token.lower() for token in tokens]
        for tokens in found
    )
    joined = (" ".join(" ".join(tokens).split()) for tokens in words)
    return [text for text in joined if any(map(str.isalnum, text))]


@cache
def _splitter(name: str) -> Callable[[str], list[list[str]]]:
    if name == "rules":
        return _by_rules
    if name != "spacy":
        raise ValueError(f"splitter {name!r}: accepted are {', '.join(SPLITTERS)}")
    try:
        import spacy  # pyright: ignore[reportMissingImports]

        model = spacy.load(_MODEL)
    except (ImportError, OSError) as error:
        raise ValueError(
            f"splitter spacy needs spaCy and its model {_MODEL} "
            f"({str(error).splitlines()[0]}); accepted without them: rules"
        ) from None
    return lambda line: [[str(token) for token in sentence] for sentence in model(line).sents]


def _by_rules(line: str) -> list[list[str]]:
    found: list[list[str]] = [[]]
    ended = False
    for token in _TOKEN.findall(line):
        if ended and token not in _ENDS and token not in _CLOSES:
            found.append([])
            ended = False
        found[-1].append(token)
        ended = ended or token in _ENDS
    return found
