"""How the C library hands out memory while a model trains on the CPU."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep freed blocks in the process instead of returning them to the system.

    glibc maps every tensor above 128 kB afresh and unmaps it when it dies, so that each step
    faults all its activations in again: 12 to 20 % of the time of a small tower on a CPU
    (docs/log.md). True where the C library understood.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return False
    values = ((_M_MMAP_THRESHOLD, _LARGEST), (_M_TRIM_THRESHOLD, _LARGEST), (_M_TOP_PAD, 2**28))
    return all(libc.mallopt(name, value) == 1 for name, value in values)
