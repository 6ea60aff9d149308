"""A padded per-document layout of a packed row, for paths that want rectangular attention.

Documents are sorted by length into a few buckets so that little is padded; every bucket is one
``[n, H, Lq, D] x [n, H, Lk, D]`` attention. The keys of a document are its own rows, before them
those of the document that it branches from. The mask is membership in the row's intervals; where
all documents of a bucket agree it is stored once, and where it is plain causality not at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Bucket", "PaddedLayout", "Segments", "build_layout"]


@dataclass(eq=False)
class Segments:
    """What `Intervals` was built from, int64 on the host: ``[D + 1]``, ``[T]``, ``[T]``, [D]."""

    cu_seqlens: Tensor
    start: Tensor
    stop: Tensor
    branches: Tensor | None


@dataclass(eq=False)
class Bucket:
    """Documents of similar length: ``n`` of them, padded to ``lq`` queries and ``lk`` keys."""

    n: int
    lq: int
    lk: int
    mask: Tensor | None
    """bool ``[n or 1, 1, lq, lk]``, True = seen; None where plain causality says the same."""
    _additive: dict[torch.dtype, Tensor]

    def additive(self, dtype: torch.dtype) -> Tensor | None:
        """Return the mask as 0 / -inf in ``dtype`` (what SDPA would convert to on every call)."""
        if self.mask is None:
            return None
        if dtype not in self._additive:
            zero = torch.zeros(self.mask.shape, dtype=dtype, device=self.mask.device)
            self._additive[dtype] = zero.masked_fill_(~self.mask, float("-inf"))
        return self._additive[dtype]


@dataclass(eq=False)
class PaddedLayout:
    """Where each of T rows lies in the concatenated buckets, and the other way round."""

    buckets: list[Bucket]
    query_index: Tensor
    """int64 ``[sum n * lq]``: the row in each query slot (padding: a row of the same document)."""
    key_index: Tensor
    """int64 ``[sum n * lk]``: the row in each key slot (padding likewise, masked)."""
    query_slot: Tensor
    """int64 ``[T]``: the query slot of each row."""
    key_slot: Tensor | None
    """int64 ``[T]``: the one key slot of each row; None when branches repeat keys."""

    def to(self, device: torch.device) -> PaddedLayout:
        """Return the layout on ``device``."""
        if self.query_index.device == device:
            return self

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return PaddedLayout(
            [
                Bucket(b.n, b.lq, b.lk, None if b.mask is None else move(b.mask), {})
                for b in self.buckets
            ],
            move(self.query_index),
            move(self.key_index),
            move(self.query_slot),
            None if self.key_slot is None else move(self.key_slot),
        )


def build_layout(segments: Segments) -> PaddedLayout:
    """Build the layout of one packed row, on the host."""
    cu = segments.cu_seqlens
    first, own = cu[:-1], cu.diff()
    if segments.branches is None:
        parent_first = parent_len = torch.zeros_like(own)
    else:
        has = segments.branches >= 0
        parent = segments.branches.clamp(min=0)
        parent_first = torch.where(has, first[parent], 0)
        parent_len = torch.where(has, own[parent], 0)
    keys = own + parent_len
    order = torch.argsort(keys, descending=True, stable=True)
    order = order[own[order] > 0]
    total = int(cu[-1])
    query_slot = torch.empty(total, dtype=torch.int64)
    key_slot = torch.empty(total, dtype=torch.int64)
    buckets: list[Bucket] = []
    query_index: list[Tensor] = []
    key_index: list[Tensor] = []
    query_base = key_base = 0
    for members in _split(order, keys):
        begin, length, shared_len = first[members, None], own[members, None], parent_len[members]
        lq, lk = int(length.max()), int(keys[members].max())
        offset = torch.arange(lq)
        # Padding slots repeat the document's first row: finite numbers, and nothing of another
        # document can leak in, not even its NaN.
        real_q = offset < length  # [n, lq]
        rows = begin + torch.where(real_q, offset, 0)
        query_slot[rows[real_q]] = query_base + real_q.flatten().nonzero()[:, 0]
        position = torch.arange(lk) - shared_len[:, None]  # [n, lk], in the document itself
        shared, real_k = position < 0, position < length
        own_key = begin + torch.where(real_k, position, 0)
        key_rows = torch.where(shared, parent_first[members, None] + torch.arange(lk), own_key)
        owned = real_k & ~shared
        key_slot[key_rows[owned]] = key_base + owned.flatten().nonzero()[:, 0]
        mask = None
        if shared_len.any():
            mask = _own_mask(segments, rows, key_rows, real_k, shared)
        elif not _is_causal(segments, rows, real_q, begin):
            mask = _common_mask(segments, rows, real_q, begin, lk)
            if mask is None:
                mask = _own_mask(segments, rows, key_rows, real_k, shared)
        buckets.append(Bucket(members.shape[0], lq, lk, mask, {}))
        query_index.append(rows.flatten())
        key_index.append(key_rows.flatten())
        query_base += rows.numel()
        key_base += key_rows.numel()
    empty = torch.empty(0, dtype=torch.int64)
    return PaddedLayout(
        buckets,
        torch.cat([empty, *query_index]),
        torch.cat([empty, *key_index]),
        query_slot,
        key_slot if segments.branches is None else None,
    )


def _split(order: Tensor, keys: Tensor) -> list[Tensor]:
    """Cut documents (longest first) into buckets.

    A document joins while it has at least 3/4 of the bucket's longest, less 8: below that the
    padded work costs more than the ~0.1 ms of another call.
    """
    sizes = keys[order].tolist()
    buckets = []
    begin = 0
    for at, size in enumerate(sizes):
        if size < sizes[begin] * 0.75 - 8:
            buckets.append(order[begin:at])
            begin = at
    return [*buckets, order[begin:]] if sizes else []


def _is_causal(segments: Segments, rows: Tensor, real_q: Tensor, begin: Tensor) -> bool:
    """Whether every real query sees its document up to itself: then no mask is needed."""
    same = (segments.start[rows] == begin) & (segments.stop[rows] == rows + 1)
    return bool((same | ~real_q).all())


def _common_mask(
    segments: Segments, rows: Tensor, real_q: Tensor, begin: Tensor, lk: int
) -> Tensor | None:
    """Return bool ``[1, 1, lq, lk]`` if all documents of the bucket agree, else None.

    Relative to their documents, rows are compared with the longest one's; those past a document's
    end are free. No real row reaches past its document, so padded keys need no further mask.
    """
    start, stop = segments.start[rows] - begin, segments.stop[rows] - begin  # [n, lq]
    longest = int(real_q.sum(dim=1).argmax())
    agree = (start == start[longest]) & (stop == stop[longest])
    if not bool((agree | ~real_q).all()):
        return None
    position = torch.arange(lk)
    return ((position >= start[longest, :, None]) & (position < stop[longest, :, None]))[None, None]


def _own_mask(
    segments: Segments, rows: Tensor, key_rows: Tensor, real_k: Tensor, shared: Tensor
) -> Tensor:
    """Return bool ``[n, 1, lq, lk]``: membership in each row's intervals."""
    start, stop = segments.start[rows][:, :, None], segments.stop[rows][:, :, None]
    key = key_rows[:, None, :]
    seen = (key >= start) & (key < stop) & real_k[:, None, :]
    # The second interval is the whole parent, and those are exactly the shared slots.
    return (seen | shared[:, None, :])[:, None]
