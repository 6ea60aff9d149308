"""Captions: one reference utterance a picture, none of which training has said or shown.

The published set (294) is "a de-duplicated subset of the test split"; by what criterion is not
published. Here a caption is left out when training says the same words (case and punctuation
apart), when it shares at least a given share of its words with one of training's, when training
shows the same bytes or another frame of the same view, and when an earlier caption is the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from dataprep.benchmarks.caption import HEADER
from dataprep.evalsets.evalset import EvalSet, Finished, Record
from dataprep.evalsets.frames import Frame, Pictures
from dataprep.evalsets.labeled import relative
from dataprep.evalsets.two_word import origin
from dataprep.evalsets.words import phrase_words
from dataprep.provenance.version import code_version
from engine import Corpus

FILE = "caption.csv"
COUNT = 294
"""Captions of the published set."""


def normal(text: str) -> str:
    """The words of a text in lower case with single spaces, punctuation left out."""
    return " ".join(phrase_words(text))


@dataclass
class Near:
    """Finds a text that shares at least a share of its words (Jaccard) with a given one."""

    least: float
    _sets: list[frozenset[str]] = field(default_factory=list)
    _texts: dict[str, int] = field(default_factory=dict)
    _by_word: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, text: str) -> None:
        """Take in a text."""
        plain = normal(text)
        if plain in self._texts:
            return
        self._texts[plain] = len(self._sets)
        words = frozenset(plain.split())
        for word in words:
            self._by_word[word].append(len(self._sets))
        self._sets.append(words)

    def same(self, text: str) -> bool:
        """Whether a text with the same words in the same order was taken in."""
        return normal(text) in self._texts

    def near(self, text: str) -> float:
        """The largest share of common words with any text taken in, if at least `least`, else 0."""
        words = frozenset(phrase_words(text))
        if not words or self.least > 1:
            return 0.0
        # A set that shares enough contains one of any len - ceil(least * len) + 1 of the words:
        # the rarest are looked up.
        few = len(words) - int(np.ceil(self.least * len(words) - 1e-9)) + 1
        rare = sorted(words, key=lambda word: (len(self._by_word.get(word, ())), word))[:few]
        best = 0.0
        for number in {n for word in rare for n in self._by_word.get(word, ())}:
            other = self._sets[number]
            best = max(best, len(words & other) / len(words | other))
        return best if best >= self.least else 0.0


def caption_records(
    frames: Sequence[Frame],
    corpus: Corpus,
    train: Iterable[str],
    pictures: Pictures,
    *,
    near: float = 1.0,
    least_words: int = 2,
    count: int | None = COUNT,
) -> list[Record]:
    """The frames as records, in order, those left out with the reason.

    Args:
        frames: chosen frames of the held-out split, in the order in which they are taken.
        corpus: their corpus.
        train: its training splits.
        pictures: where the pictures go.
        near: share of common words from which a caption repeats one of training's (2: never;
            1: the same set of words).
        least_words: shorter captions are left out.
        count: how many are wanted; the rest is not looked at. None: all.
    """
    texts, views, bytes_seen = Near(near), set[str](), set[tuple[int, int]]()
    table = corpus.image_table
    for split in train:
        pairs = corpus.pairs(split)
        for text in dict.fromkeys(pairs.utterance):
            texts.add(text)
        views |= set(pairs.view)
        rows = corpus.image_rows(split)
        crcs, sizes = table["crc32"][rows], table["size_bytes"][rows]
        bytes_seen |= set(zip(crcs.tolist(), sizes.tolist(), strict=True))
    records, kept = [], 0
    earlier = Near(2.0)
    for frame in frames:
        if count is not None and kept >= count:
            break
        reason = ""
        mark = (int(table["crc32"][frame.image]), int(table["size_bytes"][frame.image]))
        if len(phrase_words(frame.utterance)) < least_words:
            reason = f"short: fewer than {least_words} words"
        elif earlier.same(frame.utterance):
            reason = "repeated: an earlier caption says the same"
        elif texts.same(frame.utterance):
            reason = "train text: training says the same"
        elif (share := texts.near(frame.utterance)) > 0:
            reason = f"train text: training says nearly the same ({share:.2f})"
        elif frame.view in views:
            reason = "train view: training shows the same drawing or frame"
        elif mark in bytes_seen:
            reason = "train picture: training shows the same bytes"
        if not reason:
            kept += 1
            earlier.add(frame.utterance)
        image, image_hash = pictures.place(frame) if not reason else ("", "")
        records.append(
            Record(
                id=f"{frame.pair:07d}",
                images={"image": image} if image else {},
                fields={"text": frame.utterance} if not reason else {},
                facts={},
                provenance={
                    **origin(frame),
                    **({"image_sha256": image_hash} if image_hash else {}),
                    "code_version": code_version(),
                },
                dropped=reason,
            )
        )
    return records


def finish(evalset: EvalSet) -> Finished:
    """The official table."""
    info = evalset.info
    root = info["image_root"]
    kept = evalset.kept()
    rows = [(relative(r.images["image"], root), r.fields["text"]) for r in kept]
    task = {"name": info["name"], "kind": "caption", "file": FILE, "image_root": root}
    return Finished({FILE: (HEADER, list(rows))}, [task] if rows else [], {"captions": len(rows)})
