"""The vectors and groups of `kernels.intervals`, defined in torch and plain Python."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["GROUP_TILES", "SEGMENT", "RowVectors", "branch_hulls", "pack", "row_vectors"]

GROUP_TILES = (64, 128, 256)
"""Tile sizes that groups of whole documents are made for; each twice the one before."""
SEGMENT = 2048
"""Rows whose documents are grouped together, in a fixed range of slots: no count is needed first,
so segments are independent of each other and the sizes of all tensors follow from T."""


class RowVectors(NamedTuple):
    """The int32 ``[T]`` vectors of `Intervals`; the last four are None without branches."""

    start: Tensor
    stop: Tensor
    q_start: Tensor
    q_stop: Tensor
    start2: Tensor | None = None
    stop2: Tensor | None = None
    q_start2: Tensor | None = None
    q_stop2: Tensor | None = None


def row_vectors(
    cu: Tensor,
    total: int,
    prefix_lens: Tensor | None,
    causal: bool,
    window: int | None,
    branches: Tensor | None,
) -> RowVectors:
    """Make the vectors with torch; arguments as in `intervals`, int32 on one device."""
    document = torch.repeat_interleave(cu.diff().long(), output_size=total)

    def per_row(values: Tensor) -> Tensor:  # [D] -> [T]
        return values.index_select(0, document)

    row = torch.arange(total, dtype=torch.int32, device=cu.device)
    start, q_stop = per_row(cu[:-1]), per_row(cu[1:])
    stop, q_start = (row + 1, row) if causal else (q_stop, start)
    if prefix_lens is not None:
        shared = per_row(cu[:-1] + torch.minimum(prefix_lens, cu.diff()))
        q_start = torch.where(row < shared, start, q_start)
        stop = torch.maximum(stop, shared)
    if window is not None:
        start = torch.maximum(start, stop - window)
        q_stop = row + (q_stop - row).clamp(max=window)
    if branches is None:
        return RowVectors(start, stop, q_start, q_stop)
    parent = branches.long().clamp(min=0)
    none = (branches < 0) | (cu[parent] == cu[parent + 1])
    first, end = cu[parent].masked_fill(none, 0), cu[parent + 1].masked_fill(none, 0)
    hulls = branch_hulls(cu, branches)
    second = (per_row(first), per_row(end), per_row(hulls[0]), per_row(hulls[1]))
    return RowVectors(start, stop, q_start, q_stop, *second)


def branch_hulls(cu: Tensor, branches: Tensor) -> Tensor:
    """Return int32 ``[2, D]``: first row and one past the last of each document's branches.

    Minimum and maximum do not depend on order, so this is deterministic on every device.
    """
    first, end = cu[:-1], cu[1:]
    parent = branches.long().clamp(min=0, max=max(first.shape[0] - 1, 0))
    none = (branches < 0) | (first == end)
    last = 2**31 - 1
    low = torch.full_like(first, last)
    low = low.scatter_reduce(0, parent, first.masked_fill(none, last), "amin")
    high = torch.zeros_like(first).scatter_reduce(0, parent, end.masked_fill(none, 0), "amax")
    return torch.stack((low.masked_fill(high == 0, 0), high))


def pack(ends: list[int], tile: int) -> Tensor:
    """Return `Intervals.groups` of one tile size from ``cu_seqlens``, on the host."""
    documents, slots = len(ends) - 1, 2 * (2 * SEGMENT // tile + 1)
    found: list[int] = []
    d = 0
    for segment, limit in enumerate(range(SEGMENT, ends[-1] + SEGMENT, SEGMENT)):
        last = bisect_left(ends, limit, d, documents)  # documents d to last - 1 begin here
        while d < last:
            begin = ends[d]
            d = bisect_right(ends, begin + tile, d, last + 1) - 1
            if ends[d] > begin:
                found += (begin, ends[d])
            else:  # not one fits: document d is longer than a tile
                d += 1
        found += [0] * ((segment + 1) * slots - len(found))
    return torch.tensor(found, dtype=torch.int32).view(len(found) // 2, 2)
