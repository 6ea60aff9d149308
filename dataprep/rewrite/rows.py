"""The captions of a corpus, row by row, and the requests that they ask."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dataprep.llm.request import Request
from dataprep.rewrite.template import Template
from engine import Corpus


@dataclass(frozen=True)
class Row:
    """One pair of the general corpus: where it stands, what it says."""

    split: str
    pair: int
    image: int
    caption: str
    source: str
    group: str
    time_s: float | None
    provenance: str

    @property
    def sha256(self) -> str:
        """Of the caption's UTF-8."""
        return hashlib.sha256(self.caption.encode("utf-8", "surrogatepass")).hexdigest()


class Rows:
    """The pairs of some splits in the order of the corpus; iterable again and again.

    Args:
        corpus: general pictures with captions.
        splits: names; all of the corpus when empty.
        limit: only the first so many rows.

    Raises ``ValueError`` when a split is not there or nothing is left.
    """

    def __init__(
        self, corpus: Corpus, splits: Sequence[str] = (), limit: int | None = None
    ) -> None:
        self.corpus, self.splits = corpus, tuple(splits) or corpus.splits
        if limit is not None and limit < 1:
            raise ValueError(f"--limit {limit}: accepted: 1 or more rows")
        total = sum(len(corpus.pairs(split)) for split in self.splits)
        self.count = total if limit is None else min(limit, total)
        if self.count == 0:
            raise ValueError(f"{corpus.path}: no pairs in split {', '.join(self.splits)}")

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Row]:
        left = self.count
        for split in self.splits:
            pairs = self.corpus.pairs(split)
            for n in range(min(left, len(pairs))):
                time_s = float(pairs.time_s[n])
                yield Row(
                    split, int(pairs.id[n]), int(pairs.image[n]), pairs.utterance[n],
                    str(pairs.source[n]), str(pairs.group[n]),
                    None if np.isnan(time_s) else time_s, str(pairs.provenance[n]),
                )  # fmt: skip
            left -= min(left, len(pairs))


class Requests:
    """One request for each different caption, in order of first appearance; made when iterated."""

    def __init__(self, rows: Rows, template: Template, model: str, seed: int | None) -> None:
        self._rows, self._template, self._model, self._seed = rows, template, model, seed

    def of(self, row: Row) -> Request:
        """The request of one row."""
        return self._template.request(row.caption, self._model, self._seed)

    def __iter__(self) -> Iterator[Request]:
        seen: set[str] = set()
        for row in self._rows:
            if row.caption not in seen:
                seen.add(row.caption)
                yield self.of(row)
