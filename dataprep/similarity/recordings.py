"""Which recording each picture of a split is from, and when in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine import Corpus

__all__ = ["Frames", "frames_of"]


@dataclass(frozen=True, eq=False)
class Frames:
    """The pictures of one split, by row of its ``.beton``."""

    split: str
    image: NDArray[np.int64]
    """``[n]``: ids in the corpus."""
    view: NDArray[np.object_]
    group: NDArray[np.object_]
    """``[n]``: group of the picture's first pair: the recording, for frames of videos. A picture
    without a pair is alone in a group of its own."""
    time_s: NDArray[np.float64]
    """``[n]``: time of its first pair, NaN where unknown."""

    def __len__(self) -> int:
        return len(self.image)

    def in_time(self) -> NDArray[np.int64]:
        """Return the rows by recording, then time; those without a time in their order."""
        _, number = np.unique(self.group.astype(str), return_inverse=True)
        time = np.where(np.isnan(self.time_s), np.inf, self.time_s)
        return np.lexsort((np.arange(len(self)), time, number))


def frames_of(corpus: Corpus, split: str) -> Frames:
    """Read recording and time of every picture from its pairs."""
    entries, table, pairs = corpus.image_rows(split), corpus.image_table, corpus.pairs(split)
    image = table["image"][entries]
    group = np.array([f"image {number}" for number in image], object)
    time_s = np.full(len(entries), np.nan)
    rows, first = np.unique(pairs.row, return_index=True)
    group[rows] = pairs.group[first]
    time_s[rows] = pairs.time_s[first]
    return Frames(split, image, table["view"][entries], group, time_s)
