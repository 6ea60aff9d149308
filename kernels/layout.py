"""A padded per-document layout of a packed row, for paths that want rectangular attention.

Documents are sorted by length into a few buckets so that little is padded; every bucket is one
``[n, H, Lq, D] x [n, H, Lk, D]`` attention. The keys of a document are its own rows, before them
those of the document that it branches from. The mask is membership in the row's intervals; where
all documents of a bucket agree it is stored once, and where it is plain causality not at all.
A bucket is worked through in blocks of query slots, each with the hull of the key slots that any of
them sees, so that what nobody sees is never computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["Block", "Bucket", "PaddedLayout", "Segments", "build_layout"]

QUERY_ROWS = 64
"""Query slots of a block, about: fewer visit less beside a causal diagonal, more make fewer calls
(32, 64 and 128 were measured)."""


@dataclass(eq=False)
class Segments:
    """What `Intervals` was built from, int64 on the host: ``[D + 1]``, ``[T]``, ``[T]``, [D]."""

    cu_seqlens: Tensor
    start: Tensor
    stop: Tensor
    branches: Tensor | None


@dataclass(frozen=True)
class Block:
    """Query slots ``q0:q1`` of a bucket and the hull ``k0:k1`` of the key slots that they see.

    Only the key slots ``m0:m1`` of the hull need a mask: the others all queries see.
    """

    q0: int
    q1: int
    k0: int
    k1: int
    m0: int
    m1: int


@dataclass(frozen=True)
class Strip:
    """Consecutive documents of a bucket, worked on together."""

    documents: slice
    rows: slice | Tensor
    """The row in each query slot: a slice where rows follow each other and nothing is padded."""
    key_rows: slice | Tensor
    """The row in each key slot, likewise."""
    padding: Tensor | None
    """bool ``[documents, lq]``: the query slots that are padding; None = none."""
    real: tuple[Tensor, Tensor] | None
    """The query slots that are not (int64) and their rows; None where nothing is padded."""


@dataclass(eq=False)
class Bucket:
    """Documents of similar length: ``n`` of them, padded to ``lq`` queries and ``lk`` keys."""

    n: int
    lq: int
    lk: int
    mask: Tensor | None
    """bool ``[n or 1, 1, lq, lk]``, True = seen; None where plain causality says the same."""
    blocks: tuple[Block, ...]
    """In order of their query slots."""
    rows: Tensor
    """int64 ``[n, lq]``: the row in each query slot (padding: the document's first)."""
    key_rows: Tensor
    """int64 ``[n, lk]``: the row in each key slot (padding likewise, masked)."""
    real: Tensor
    """bool ``[n, lq]``: the query slots that are not padding."""
    _additive: dict[torch.dtype, Tensor] = field(default_factory=dict)
    _block_masks: dict[tuple[Block, torch.dtype], Tensor] = field(default_factory=dict)
    _strips: dict[int, list[Strip]] = field(default_factory=dict)

    def additive(self, dtype: torch.dtype) -> Tensor | None:
        """Return the mask as 0 / -inf in ``dtype`` (what SDPA would convert to on every call)."""
        if self.mask is None:
            return None
        if dtype not in self._additive:
            zero = torch.zeros(self.mask.shape, dtype=dtype, device=self.mask.device)
            self._additive[dtype] = zero.masked_fill_(~self.mask, float("-inf"))
        return self._additive[dtype]

    def strips(self, documents: int) -> list[Strip]:
        """Cut the bucket into strips of at most so many documents."""
        if documents not in self._strips:
            self._strips[documents] = [
                self._strip(slice(at, min(at + documents, self.n)))
                for at in range(0, self.n, documents)
            ]
        return self._strips[documents]

    def _strip(self, documents: slice) -> Strip:
        rows, key_rows = self.rows[documents].flatten(), self.key_rows[documents].flatten()
        padding = real = None
        if not bool(self.real[documents].all()):
            padding = ~self.real[documents]
            slots = self.real[documents].flatten().nonzero()[:, 0]
            real = slots, rows[slots]
        return Strip(documents, _as_slice(rows), _as_slice(key_rows), padding, real)

    def block_mask(self, block: Block, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return ``[n or 1, 1, q1 - q0, m1 - m0]`` of 0 / -inf, to be added to a block's scores."""
        found = self._block_masks.get((block, dtype))
        if found is None:
            rows = slice(block.q0, block.q1)
            if self.mask is None:
                size = block.q1 - block.q0
                seen = torch.ones(1, 1, size, size, dtype=torch.bool, device=device).tril_()
            else:
                seen = self.mask[:, :, rows, block.m0 : block.m1]
            zero = torch.zeros(seen.shape, dtype=dtype, device=device)
            found = zero.masked_fill_(~seen, float("-inf"))
            self._block_masks[block, dtype] = found
        return found


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
                replace(
                    b,
                    mask=None if b.mask is None else move(b.mask),
                    rows=move(b.rows),
                    key_rows=move(b.key_rows),
                    real=move(b.real),
                    _additive={},
                    _block_masks={},
                    _strips={},
                )
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
        blocks = _blocks(mask, lq)
        buckets.append(Bucket(members.shape[0], lq, lk, mask, blocks, rows, key_rows, real_q))
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

    A document joins while it has at least 7/8 of the bucket's longest, less 8: below that the
    padded work costs more than the ~0.1 ms of another call (3/4, 7/8 and 11/12 were measured).
    """
    sizes = keys[order].tolist()
    buckets = []
    begin = 0
    for at, size in enumerate(sizes):
        if size < sizes[begin] * 0.875 - 8:
            buckets.append(order[begin:at])
            begin = at
    return [*buckets, order[begin:]] if sizes else []


def _as_slice(rows: Tensor) -> slice | Tensor:
    """Return rows that follow each other as a slice: it gives a view where an index copies."""
    if rows.device.type != "cpu":  # without asking the device
        return rows
    first = int(rows[0])
    last = first + rows.shape[0]
    return slice(first, last) if torch.equal(rows, torch.arange(first, last)) else rows


def _blocks(mask: Tensor | None, lq: int) -> tuple[Block, ...]:
    """Cut a bucket's query slots into blocks of even size."""
    count = max(1, round(lq / QUERY_ROWS))
    edges = [lq * at // count for at in range(count + 1)]
    if mask is None:
        return tuple(Block(a, b, 0, b, a, b) for a, b in pairwise(edges))
    some, every = mask.any(dim=0)[0], mask.all(dim=0)[0]  # [lq, lk], over the documents
    blocks = []
    for a, b in pairwise(edges):
        seen = some[a:b].any(dim=0).nonzero()[:, 0]
        k0, k1 = int(seen[0]), int(seen[-1]) + 1
        partly = (~every[a:b].all(dim=0)[k0:k1]).nonzero()[:, 0]
        m0, m1 = (k0 + int(partly[0]), k0 + int(partly[-1]) + 1) if len(partly) else (k0, k0)
        blocks.append(Block(a, b, k0, k1, m0, m1))
    return tuple(blocks)


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
