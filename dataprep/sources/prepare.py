"""Pictures of many rows, read, hashed and made square by several threads, in the rows' order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from dataprep.sources.pictures import Fit, PictureError, made_square, sha256

__all__ = ["Prepared", "prepare", "prepared_in_order"]

R = TypeVar("R")


@dataclass(frozen=True)
class Prepared:
    """A picture as JPEG bytes of the corpus's size, and its source's SHA-256."""

    jpeg: bytes
    sha256: str


def prepare(read: Callable[[], bytes], size: int, fit: Fit, quality: int) -> Prepared | str:
    """Read and prepare one picture; what was wrong with it where it cannot be used."""
    try:
        data = read()
        return Prepared(made_square(data, size, fit, quality), sha256(data))
    except PictureError as error:
        return str(error)


def prepared_in_order(
    rows: Iterable[R], work: Callable[[R], Prepared | str | None], workers: int | None
) -> Iterator[tuple[R, Prepared | str | None]]:
    """Yield every row with what `work` makes of it; a few rows a thread are in flight at once."""
    count = max(1, workers or len(os.sched_getaffinity(0)))
    waiting: deque[tuple[R, Future[Prepared | str | None]]] = deque()
    pool = ThreadPoolExecutor(count)
    try:
        for row in rows:
            waiting.append((row, pool.submit(work, row)))
            if len(waiting) > 4 * count:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
