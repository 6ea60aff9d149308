"""Which words a tokeniser does not know: out-of-vocabulary counts.

Two kinds of file: a word vocabulary (JSON, word to id, as CVCL's ``vocab.json``), under which
words are parted twice, at blanks (as CVCL's training does) and at every change between letters and
marks (as the published first model's tokeniser does, so that ``n't`` is never found); and a
``tokenizer.json`` of the ``tokenizers`` library, which parts words itself.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["OutOfVocabulary", "Tokeniser", "count_unknown", "open_tokenisers"]

UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Tokeniser:
    """A tokeniser by name: ``part`` gives the pieces of a text, ``knows`` whether it has one."""

    name: str
    part: Callable[[str], list[str]]
    knows: Callable[[str], bool]


@dataclass(frozen=True)
class OutOfVocabulary:
    """How much of some texts a tokeniser does not know.

    Attributes: ``tokens`` and ``types``, how many pieces there are and how many different ones;
    ``unknown_tokens``, ``unknown_types``; ``texts``, ``unknown_texts``, how many texts, and with
    at least one unknown piece; ``most``, the commonest unknown pieces.
    """

    tokens: int
    unknown_tokens: int
    types: int
    unknown_types: int
    texts: int
    unknown_texts: int
    most: list[tuple[str, int]]


def open_tokenisers(path: Path) -> list[Tokeniser]:
    """The tokenisers of a file: two ways of parting for a word vocabulary, else the file's own.

    Raises:
        ValueError: no such file, or neither of the two kinds.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such vocabulary")
    try:
        tree: Any = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if isinstance(tree, dict) and isinstance(tree.get("model"), dict):
        return [_own(path)]
    is_list = isinstance(tree, list) and all(isinstance(word, str) for word in tree)
    is_table = isinstance(tree, dict) and all(isinstance(k, int) for k in tree.values())
    if not tree or not (is_list or is_table):
        raise ValueError(
            f"{path}: accepted are a vocabulary (word to id, or a list of words) and a "
            "tokenizer.json"
        )
    words = set(tree)
    from tokenizers.pre_tokenizers import Whitespace

    parted = Whitespace()
    return [
        Tokeniser(f"{path.name}, at blanks", lambda text: text.lower().split(), words.__contains__),
        Tokeniser(
            f"{path.name}, at marks",
            lambda text: [piece for piece, _ in parted.pre_tokenize_str(text.lower())],
            words.__contains__,
        ),
    ]


def _own(path: Path) -> Tokeniser:
    from tokenizers import Tokenizer

    try:
        inner = Tokenizer.from_file(str(path))
    except Exception as error:  # the library's own errors are bare exceptions
        raise ValueError(f"{path}: not a tokenizer.json ({error})") from None
    return Tokeniser(
        path.name,
        lambda text: inner.encode(text, add_special_tokens=False).tokens,
        lambda piece: piece != UNKNOWN,
    )


def count_unknown(texts: Sequence[str], tokeniser: Tokeniser) -> OutOfVocabulary:
    """Count what a tokeniser does not know in some texts."""
    pieces: Counter[str] = Counter()
    unknown_texts = 0
    known: dict[str, bool] = {}
    for text in texts:
        found = tokeniser.part(text)
        pieces.update(found)
        for piece in found:
            if piece not in known:
                known[piece] = tokeniser.knows(piece)
        unknown_texts += not all(known[piece] for piece in found)
    unknown = [(piece, count) for piece, count in pieces.items() if not known[piece]]
    unknown.sort(key=lambda item: (-item[1], item[0]))
    return OutOfVocabulary(
        tokens=pieces.total(), unknown_tokens=sum(count for _, count in unknown),
        types=len(pieces), unknown_types=len(unknown),
        texts=len(texts), unknown_texts=unknown_texts, most=unknown[:8],
    )  # fmt: skip


def unknown_table(texts: Sequence[str], tokenisers: Iterable[Tokeniser]) -> list[tuple[str, ...]]:
    """Rows of a table, its header first."""
    rows = [("tokeniser", "tokens", "unknown", "types", "unknown", "texts with one", "most often")]
    for tokeniser in tokenisers:
        found = count_unknown(texts, tokeniser)
        share = found.unknown_tokens / max(found.tokens, 1)
        rows.append(
            (
                tokeniser.name, f"{found.tokens:,}", f"{found.unknown_tokens:,} ({share:.1%})",
                f"{found.types:,}", f"{found.unknown_types:,}",
                f"{found.unknown_texts:,} of {found.texts:,}",
                " ".join(piece for piece, _ in found.most),
            )
        )  # fmt: skip
    return rows
