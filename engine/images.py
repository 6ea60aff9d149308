"""Pictures of a split as uint8 batches in any order: one interface over two loaders.

FFCV's decoder is the one to use; torch's ``DataLoader`` with PIL is the measured yardstick and
serves where FFCV cannot be built. Both only decode (and crop, when windows are given); what is
random or floating point happens later, in :mod:`engine.augment`. The order comes from the caller,
who computes it from (seed, epoch, step): a loader has no state to save.

Shapes: N pictures, S = ``size`` pixels a side.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from types import TracebackType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from engine.beton import BetonReader
from engine.corpus_read import Corpus
from engine.schema import Section

log = logging.getLogger("babyvlm")

INSTALL = (
    "install it with `pip install -e '.[ffcv]'` (needs a C++ compiler, pkg-config and the headers "
    "of OpenCV and libturbojpeg)"
)


class DataConfig(Section):
    """How pictures are read."""

    loader: Literal["auto", "ffcv", "torch"] = "auto"
    """``ffcv``: FFCV's decoder in threads; ``torch``: DataLoader and PIL in worker processes;
    ``auto``: FFCV where it is installed."""
    workers: int = Field(default=1, ge=1)
    """Threads (FFCV) or processes (torch) that decode, per rank."""
    batch: int = Field(default=64, ge=1)
    """Pictures that one worker decodes at a time."""
    ram_cache_bytes: int = Field(default=1 << 30, ge=0)
    """Decoded pictures of a split are kept in memory, per rank, when they fit this many bytes;
    0 switches it off. Streams with crop windows always decode."""
    timeout_s: int = Field(default=300, ge=1)
    """A batch that takes longer than this ends the run with an error instead of a silent wait."""


class Checksums:
    """Compares each picture's stored bytes with ``images.parquet`` when it is first read.

    Decoders turn damaged bytes into garbage more often than into errors.
    """

    def __init__(self, corpus: Corpus, split: str) -> None:
        entries = corpus.image_rows(split)
        table = corpus.image_table
        self.path = corpus.path / f"{split}.beton"
        self._ids, self._keys = table["image"][entries], table["key"][entries]
        self._expected = table["crc32"][entries]
        self._seen = np.zeros(len(entries), bool)

    def describe(self, row: int) -> str:
        """``<file>: image <id> (row <row>, key <key>)``."""
        return f"{self.path}: image {self._ids[row]} (row {row}, key {str(self._keys[row])!r})"

    def check(self, reader: BetonReader, rows: NDArray[np.int64]) -> None:
        """Raise ``ValueError`` naming the first picture of ``rows`` with other bytes."""
        for row in rows[~self._seen[rows]]:
            if reader.crc32(row) != self._expected[row]:
                raise ValueError(
                    f"{self.describe(row)} is corrupt or cut short: its bytes are not those that "
                    "images.parquet lists"
                )
            self._seen[row] = True


class ImageStream(ABC):
    """The pictures of one split at one size; made by :func:`open_images`, a context manager."""

    name: str
    """``ffcv`` or ``torch``."""

    def __init__(self, corpus: Corpus, split: str, size: int, config: DataConfig) -> None:
        self.size = size
        self.config = config
        self._split = split
        self._reader = corpus.images(split)
        self._checksums = Checksums(corpus, split)
        num = len(self._reader)
        cache_bytes = num * size * size * 3
        self._cache: torch.Tensor | None = None
        if 0 < cache_bytes <= config.ram_cache_bytes:
            self._cache = torch.empty(num, size, size, 3, dtype=torch.uint8)
            self._cached = np.zeros(num, bool)
            log.info(
                "pictures: %s: each of %d is decoded once and kept in memory (%.0f MB at %d px)",
                split, num, cache_bytes / 1e6, size,
            )  # fmt: skip

    def stream(
        self,
        rows: NDArray[np.int64],
        sizes: Sequence[int],
        crops: NDArray[np.int32] | None = None,
    ) -> Generator[torch.Tensor, None, None]:
        """Pictures ``rows`` of the split in that order, in chunks of ``sizes``.

        Args:
            rows: rows of the split's ``.beton``, int64 [N]; any order, any number of times.
            sizes: pictures of each chunk; their sum is N.
            crops: window (y, x, h, w) in stored pixels of each picture, int32 [N, 4], scaled to
                S x S; None takes the largest centred square.

        Yields:
            uint8 [sizes[k], S, S, 3]; each chunk is the caller's to keep.

        Raises ``ValueError`` for rows or windows outside, and, when it comes to a corrupt picture,
        naming its file, image id, row and key. Closing the generator early ends the reading ahead.
        """
        rows = np.asarray(rows, np.int64)
        if sum(sizes) != len(rows):
            raise ValueError(f"sizes add up to {sum(sizes)}, but {len(rows)} rows are given")
        outside = rows[(rows < 0) | (rows >= len(self._reader))]
        if len(outside):
            raise ValueError(
                f"{self._reader.path}: row {outside[0]} of {len(self._reader)} pictures"
            )
        if crops is None and self._cache is not None:
            return self._from_cache(self._cache, rows, sizes)
        return self._decode(self._windows(rows, crops), sizes)

    def _windows(
        self, rows: NDArray[np.int64], crops: NDArray[np.int32] | None
    ) -> NDArray[np.int64]:
        """(row, y, x, h, w) of each picture, int64 [N, 5]."""
        heights, widths = self._reader.heights[rows], self._reader.widths[rows]
        if crops is None:
            side = np.minimum(heights, widths)
            return np.stack([rows, (heights - side) // 2, (widths - side) // 2, side, side], axis=1)
        windows = np.concatenate([rows[:, None], np.asarray(crops, np.int64)], axis=1)
        _, y, x, h, w = windows.T
        outside = (y < 0) | (x < 0) | (h < 1) | (w < 1) | (y + h > heights) | (x + w > widths)
        if outside.any():
            first = int(outside.argmax())
            raise ValueError(
                f"crops: window {crops[first].tolist()} (y, x, h, w) leaves the "
                f"{heights[first]}x{widths[first]} picture in row {rows[first]}"
            )
        return windows

    def _from_cache(
        self, cache: torch.Tensor, rows: NDArray[np.int64], sizes: Sequence[int]
    ) -> Generator[torch.Tensor, None, None]:
        """Chunks gathered from memory; pictures not there yet are decoded just in time."""
        new = rows[~self._cached[rows]]
        new = new[np.sort(np.unique(new, return_index=True)[1])]  # in order of first use
        parts = self._chunk_sizes(len(new))
        filled, start = 0, 0
        with closing(self._decode(self._windows(new, None), parts)) as decoded:
            for size in sizes:
                chunk = rows[start : start + size]
                while not self._cached[chunk].all():
                    pictures = next(decoded)
                    places = new[filled : filled + len(pictures)]
                    cache[torch.from_numpy(places)] = pictures
                    self._cached[places] = True
                    filled += len(pictures)
                yield cache[torch.from_numpy(chunk)]
                start += size

    def _chunk_sizes(self, num: int) -> list[int]:
        """``num`` pictures in chunks of ``config.batch``."""
        batch = self.config.batch
        return [min(batch, num - first) for first in range(0, num, batch)]

    @abstractmethod
    def _decode(
        self, windows: NDArray[np.int64], sizes: Sequence[int]
    ) -> Generator[torch.Tensor, None, None]:
        """Decode ``windows`` (int64 [N, 5]: row, y, x, h, w) in chunks of ``sizes``."""

    @abstractmethod
    def close(self) -> None:
        """End the workers. No stream may be in use; none can be begun afterwards."""

    def __enter__(self) -> ImageStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def pieces(
    windows: NDArray[np.int64], sizes: Sequence[int], batch: int
) -> Iterator[tuple[NDArray[np.int64], int, int]]:
    """Cut chunks into jobs of at most ``batch``: (windows of the job, its start, chunk size).

    A chunk of no pictures is one job of none, so that it comes out in its place.
    """
    first = 0
    for size in sizes:
        for start in range(0, max(size, 1), batch):
            stop = min(start + batch, size)
            yield windows[first + start : first + stop], start, size
        first += size


def open_images(corpus: Corpus, split: str, *, size: int, config: DataConfig) -> ImageStream:
    """The pictures of a split, scaled to ``size`` pixels a side, by the loader of ``config``.

    Raises ``ValueError`` for an unknown split, or when FFCV is asked for and not installed.
    """
    if config.loader != "torch":
        try:
            from engine.images_ffcv import FFCVStream
        except (ImportError, OSError) as error:  # OSError: its native library lacks another
            if config.loader == "ffcv":
                raise ValueError(
                    f"data.loader=ffcv: FFCV cannot be imported ({error}); {INSTALL}, "
                    "or accept data.loader=auto"
                ) from None
            _say_once(f"pictures: read by torch's DataLoader, FFCV is missing ({error}); {INSTALL}")
        else:
            _say_once("pictures: read by FFCV")
            return FFCVStream(corpus, split, size, config)
    else:
        _say_once("pictures: read by torch's DataLoader, as data.loader=torch asks")
    from engine.images_torch import TorchStream

    return TorchStream(corpus, split, size, config)


_said: set[str] = set()


def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        log.info(message)
