"""torch's ``DataLoader`` with PIL as the picture loader: the yardstick, and for want of FFCV."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from engine.beton import BetonReader
from engine.corpus_read import Corpus
from engine.images import Checksums, DataConfig, ImageStream, pieces


class _Jobs:
    """The batch sampler: yields the jobs of whatever stream is running."""

    def __init__(self) -> None:
        self.windows: list[NDArray[np.int64]] = []

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return iter(self.windows)

    def __len__(self) -> int:
        return len(self.windows)


class _Decoder(Dataset[torch.Tensor]):
    """Decodes whole jobs; a corrupt picture comes back as its one-line message.

    (An exception raised here would reach the consumer wrapped in a traceback of many lines.)
    """

    def __init__(self, reader: BetonReader, checksums: Checksums, size: int) -> None:
        self._reader, self._checksums, self._size = reader, checksums, size

    def __getitems__(self, windows: NDArray[np.int64]) -> torch.Tensor | str:
        size = self._size
        out = torch.empty(len(windows), size, size, 3, dtype=torch.uint8)
        pixels = out.numpy()
        try:
            self._checksums.check(self._reader, windows[:, 0])
            for i, (row, y, x, h, w) in enumerate(windows.tolist()):
                try:
                    picture = self._reader.picture(row)
                except ValueError:
                    raise ValueError(
                        f"{self._checksums.describe(row)} is corrupt: PIL cannot decode it"
                    ) from None
                if picture.size != (size, size) or (h, w) != (size, size):
                    picture = picture.resize(
                        (size, size), Image.Resampling.BILINEAR, box=(x, y, x + w, y + h)
                    )
                pixels[i] = np.asarray(picture)
        except ValueError as error:
            return str(error)
        return out


def _as_it_is(batch: Any) -> torch.Tensor | str:
    return batch


def _protect_worker(worker: int) -> None:
    """Ctrl-C and SIGTERM are the parent's to handle; a worker ends when its parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class TorchStream(ImageStream):
    """Pictures decoded by PIL in worker processes, which live as long as the stream."""

    name = "torch"

    def __init__(self, corpus: Corpus, split: str, size: int, config: DataConfig) -> None:
        super().__init__(corpus, split, size, config)
        self._jobs = _Jobs()
        self._busy = False
        self._loader = DataLoader(
            _Decoder(self._reader, self._checksums, size),
            batch_sampler=self._jobs,  # pyright: ignore[reportArgumentType] (indices are windows)
            num_workers=config.workers,
            collate_fn=_as_it_is,
            worker_init_fn=_protect_worker,
            timeout=config.timeout_s,
            persistent_workers=True,
            multiprocessing_context="fork",
        )

    def _decode(
        self, windows: NDArray[np.int64], sizes: Sequence[int]
    ) -> Generator[torch.Tensor, None, None]:
        if not len(windows):
            for _ in sizes:
                yield torch.empty(0, self.size, self.size, 3, dtype=torch.uint8)
            return
        assert not self._busy, "the workers serve one stream at a time: close the other first"
        self._busy = True
        try:
            jobs = list(pieces(windows, sizes, self.config.batch))
            self._jobs.windows = [part for part, _, _ in jobs]
            parts: list[torch.Tensor] = []
            for (part, start, size), batch in zip(jobs, self._loader, strict=True):
                if isinstance(batch, str):
                    raise ValueError(batch)
                parts.append(batch)
                if start + len(part) == size:
                    yield parts[0] if len(parts) == 1 else torch.cat(parts)
                    parts = []
        finally:
            self._busy = False

    def close(self) -> None:
        """End the worker processes."""
        iterator = self._loader._iterator
        if iterator is not None:
            iterator._shutdown_workers()  # pyright: ignore[reportAttributeAccessIssue]
            self._loader._iterator = None
