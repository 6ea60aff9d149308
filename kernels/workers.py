"""Independent pieces of CPU work on as many threads as torch uses, each piece on one of them.

Where torch splits an operation over threads, all of them meet at its end. With thousands of short
operations those meetings cost more than the second thread brings as soon as anything else runs on
the machine. Pieces that stay on one thread meet once, and what they compute does not depend on the
number of threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["run"]

P = TypeVar("P")
_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_size = 0


def run(work: Callable[[P], None], pieces: Sequence[P], *, ordered: bool = False) -> None:
    """Call ``work`` with every piece, on ``torch.get_num_threads()`` threads, without gradients.

    Returns when all are done; the first exception of a piece is raised. Pieces must not write to
    the same memory, unless they are ``ordered``: one after the other, on one thread.
    """
    size = torch.get_num_threads()
    if size == 1:
        with torch.no_grad():
            for piece in pieces:
                work(piece)
        return
    inference = torch.is_inference_mode_enabled()
    left = iter(pieces)

    def drain() -> None:
        # Both modes belong to a thread, so that of the caller must be entered here too.
        with torch.inference_mode(inference), torch.no_grad():
            while True:
                with _lock:
                    piece = next(left, None)
                if piece is None:
                    return
                work(piece)

    pool = _workers(size)
    for done in [pool.submit(drain) for _ in range(1 if ordered else min(size, len(pieces)))]:
        done.result()


def _workers(size: int) -> ThreadPoolExecutor:
    """Return the pool of ``size`` threads on which torch does not use further threads."""
    global _pool, _size
    with _lock:
        if _pool is None or _size != size:
            started = threading.Barrier(size + 1)

            def start() -> None:
                torch.get_num_threads()  # a thread's first call sets its number to the default
                torch.set_num_threads(1)
                started.wait()

            pool = ThreadPoolExecutor(size, "kernels", initializer=start)
            for _ in range(size):
                pool.submit(int)
            started.wait()
            # Set for this thread alone above, but also remembered as the default of new ones.
            torch.set_num_threads(size)
            _pool, _size = pool, size
        return _pool


def _forget() -> None:
    """In a forked child the pool's threads do not exist."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
