"""Similarity in tiles: never the n x m matrix as a whole, never a result that threads decide.

A thread owns some rows and goes through the columns in order, with a product on one core: the
numbers, and so the lists, are the same with any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

__all__ = ["Tiles", "one_core_products"]

Rows = NDArray[np.int32]
Report = Callable[[int], None]
"""Called with the number of similarities done since the last call."""

COLUMNS = 4096
"""Columns of a tile: with 1,024 rows 16 MB, which stay in the cache between product and scan."""
ROWS = 1024


@contextmanager
def one_core_products() -> Iterator[None]:
    """Keep the products of a thread on that thread's core."""
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        yield


class Tiles:
    """Makes lists of the best columns for given rows, on a CPU's cores or on one GPU."""

    def __init__(
        self, core: Any, rows: NDArray[np.float32], columns: NDArray[np.float32], *,
        threads: int, memory_bytes: int, device: str,
    ) -> None:  # fmt: skip
        self.core, self.rows, self.columns = core, rows, columns
        self.threads, self.device = threads, device
        # A tile of each thread, within an eighth of the memory that may be used.
        room = memory_bytes // 8 // max(threads, 1) // (4 * COLUMNS)
        self.block = max(64, min(ROWS, room))
        self._on_device: Any = None  # torch.Tensor [m, d]; torch is imported for a GPU alone

    def refresh(self, asked: Rows, keep: int, report: Report) -> None:
        """Give each of ``asked`` a new list of ``keep`` columns at the present prices."""
        self.core.begin(asked, keep)
        starts = range(0, len(asked), self.block)
        if self.device != "cpu":
            for first in starts:
                self._on_gpu(asked, first, keep, report)
            return
        with one_core_products(), ThreadPoolExecutor(self.threads) as pool:
            jobs = [pool.submit(self._on_cpu, asked, first, report) for first in starts]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                for job in jobs:
                    job.cancel()
                raise

    def _on_cpu(self, asked: Rows, first: int, report: Report) -> None:
        part = np.ascontiguousarray(self.rows[asked[first : first + self.block]])
        tile = np.empty((len(part), COLUMNS), np.float32)
        for column in range(0, len(self.columns), COLUMNS):
            some = self.columns[column : column + COLUMNS]
            if len(some) < COLUMNS:
                tile = np.empty((len(part), len(some)), np.float32)
            np.matmul(part, some.T, out=tile)
            self.core.collect(first, tile, column, len(some))
            report(len(part) * len(some))
        self.core.finish(first, len(part))

    def _on_gpu(self, asked: Rows, first: int, keep: int, report: Report) -> None:
        import torch

        if self._on_device is None:
            torch.backends.cuda.matmul.allow_tf32 = False  # the proof counts on float32 products
            self._on_device = torch.from_numpy(self.columns).to(self.device)
        part = torch.from_numpy(self.rows[asked[first : first + self.block]]).to(self.device)
        prices = torch.from_numpy(self.core.prices()).clamp(max=1e30).to(self.device)
        prices = prices.float()
        wide = max(COLUMNS, (1 << 28) // max(len(part), 1))
        for column in range(0, len(self.columns), wide):
            worth = part @ self._on_device[column : column + wide].T
            worth -= prices[column : column + wide]
            top = worth.topk(min(keep, worth.shape[1]), dim=1)
            self.core.collect_listed(
                first, top.values.cpu().numpy(), (top.indices + column).cpu().numpy()
            )
            report(worth.numel())
        self.core.finish(first, len(part))
