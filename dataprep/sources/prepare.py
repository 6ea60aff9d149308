"""Pictures of many rows, read, hashed and made square by several threads, in the rows' order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from dataprep.sources.kept import Kept
from dataprep.sources.pictures import Fit, PictureError, Prepared, made_square, sha256

__all__ = ["Prepared", "prepare", "prepared_in_order"]

R = TypeVar("R")


def prepare(read: Callable[[], bytes], size: int, fit: Fit, quality: int) -> Prepared | str:
    """Read and prepare one picture; what was wrong with it where it cannot be used."""
    try:
        data = read()
        return Prepared(made_square(data, size, fit, quality), sha256(data))
    except PictureError as error:
        return str(error)


def prepared_in_order(
    rows: Iterable[R], work: Callable[[R], Prepared | str | None], workers: int | None, kept: Kept
) -> Iterator[tuple[R, Prepared | str | None]]:
    """Yield every row with what `work` makes of it; a few rows a thread are in flight at once.

    Rows that `kept` holds are not made again, and what is made is kept.
    """
    left = iter(rows)
    for made, row in zip(kept.known(), left, strict=False):
        yield row, made
    count = max(1, workers or len(os.sched_getaffinity(0)))
    waiting: deque[tuple[R, Future[Prepared | str | None]]] = deque()
    pool = ThreadPoolExecutor(count)

    def next_done() -> tuple[R, Prepared | str | None]:
        row, future = waiting.popleft()
        made = future.result()
        kept.add(made)
        return row, made

    try:
        for row in left:
            waiting.append((row, pool.submit(work, row)))
            if len(waiting) > 4 * count:
                yield next_done()
        while waiting:
            yield next_done()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
