"""A padded per-document layout of a packed row, for paths that want rectangular attention.

Documents are sorted by length into a few buckets so that little is padded; every bucket is one
``[n, H, Lq, D] x [n, H, Lk, D]`` attention. The keys of a document are its own rows, before them
those of the document that it branches from. The mask is membership in the row's intervals; where
all documents of a bucket agree it is stored once, and where it is plain causality not at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Bucket", "PaddedLayout", "Segments", "build_layout"]


@dataclass(eq=False)
class Segments:
    """Host copy of what `Intervals` was built from: int arrays ``[D+1]``, ``[T]``, ``[T]``, [D]."""

    cu_seqlens: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    branches: np.ndarray | None


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
    """Build the layout of one packed row (numpy, on the host)."""
    cu = segments.cu_seqlens.astype(np.int64)
    own = np.diff(cu)
    if segments.branches is None:
        parent_start = np.zeros_like(own)
        parent_len = np.zeros_like(own)
    else:
        parent = segments.branches.astype(np.int64)
        has = parent >= 0
        parent_start = np.where(has, cu[:-1][parent], 0)
        parent_len = np.where(has, own[parent], 0)
    keys = own + parent_len
    order = np.argsort(-keys, kind="stable")
    order = order[own[order] > 0]
    total = int(cu[-1])
    query_slot = np.empty(total, dtype=np.int64)
    key_slot = np.empty(total, dtype=np.int64)
    buckets: list[Bucket] = []
    query_index: list[np.ndarray] = []
    key_index: list[np.ndarray] = []
    query_base = key_base = 0
    for members in _split(order, keys):
        lq, lk = int(own[members].max()), int(keys[members].max())
        offset = np.arange(lq)
        # Padding slots repeat the document's first row: finite numbers, and nothing of another
        # document can leak in, not even its NaN.
        real_q = offset[None, :] < own[members, None]
        rows = np.where(real_q, cu[members, None] + offset, cu[members, None])
        query_slot[rows[real_q]] = query_base + np.flatnonzero(real_q)
        key_offset = np.arange(lk)
        shared = key_offset[None, :] < parent_len[members, None]
        position = key_offset[None, :] - parent_len[members, None]
        real_k = position < own[members, None]
        own_key = np.where(real_k, cu[members, None] + position, cu[members, None])
        key_rows = np.where(shared, parent_start[members, None] + key_offset, own_key)
        owned = real_k & ~shared
        key_slot[key_rows[owned]] = key_base + np.flatnonzero(owned)
        mask = _mask(segments, members, rows, real_q, key_rows, real_k, shared, cu, own, parent_len)
        buckets.append(
            Bucket(len(members), lq, lk, None if mask is None else torch.from_numpy(mask), {})
        )
        query_index.append(rows.ravel())
        key_index.append(key_rows.ravel())
        query_base += rows.size
        key_base += key_rows.size
    return PaddedLayout(
        buckets,
        _cat(query_index),
        _cat(key_index),
        torch.from_numpy(query_slot),
        torch.from_numpy(key_slot) if segments.branches is None else None,
    )


def _cat(parts: list[np.ndarray]) -> Tensor:
    joined = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    return torch.from_numpy(joined.astype(np.int64, copy=False))


def _split(order: np.ndarray, keys: np.ndarray) -> list[np.ndarray]:
    """Cut documents (longest first) into buckets.

    A document joins while it has at least 3/4 of the bucket's longest, less 8: below that the
    padded work costs more than the ~0.1 ms of another call.
    """
    buckets = []
    begin = 0
    while begin < len(order):
        longest = keys[order[begin]]
        fits = keys[order[begin:]] >= longest * 0.75 - 8
        count = len(fits) if fits.all() else int(np.argmin(fits))
        buckets.append(order[begin : begin + count])
        begin += count
    return buckets


def _mask(
    segments: Segments,
    members: np.ndarray,
    rows: np.ndarray,
    real_q: np.ndarray,
    key_rows: np.ndarray,
    real_k: np.ndarray,
    shared: np.ndarray,
    cu: np.ndarray,
    own: np.ndarray,
    parent_len: np.ndarray,
) -> np.ndarray | None:
    """Return bool ``[n or 1, 1, lq, lk]``, or None where plain causality says the same."""
    start = segments.start[rows].astype(np.int64)  # [n, lq]
    stop = segments.stop[rows].astype(np.int64)
    lq, lk = rows.shape[1], key_rows.shape[1]
    if not parent_len[members].any():
        # Relative to its document every row may say the same as the longest document's: then
        # one mask serves the bucket. Rows past a document's end are free.
        relative_start = start - cu[members, None]
        relative_stop = stop - cu[members, None]
        longest = int(np.argmax(own[members]))
        template_start, template_stop = relative_start[longest], relative_stop[longest]
        agree = (relative_start == template_start) & (relative_stop == template_stop)
        if (agree | ~real_q).all():
            position = np.arange(lk)
            if (template_start == 0).all() and (template_stop == np.arange(lq) + 1).all():
                return None
            seen = (position >= template_start[:, None]) & (position < template_stop[:, None])
            return seen[None, None]
    key = key_rows[:, None, :]
    seen = (key >= start[:, :, None]) & (key < stop[:, :, None]) & real_k[:, None, :]
    # The second interval is the whole parent, and those are exactly the shared slots.
    seen = np.where(shared[:, None, :], True, seen)
    return seen[:, None]
