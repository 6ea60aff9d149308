"""Attention in blocks of scores that fit a cache, from torch operations alone.

A piece is a few documents of a bucket of `kernels.layout` and a few key heads; nothing of it
depends on another piece. Its query slots are worked through in blocks against the hull of the keys
that they see: product, softcap, mask, softmax, dropout mask and second product of one block follow
each other while its scores lie in the cache. Nothing of size T² is stored; the backward computes
the blocks again. Exact attention (Vaswani et al. 2017 §3.2.1), grouped queries share the keys of a
block (Ainslie et al. 2023), soft-capped scores are those of Gemma 2 §2. With the scores S, their
softmax P, the kept weights M (0 or 1 / (1 - p)), the output O and its gradient dO:

    O = (M P) V     dV = (M P)ᵀ dO     dS = softmax'(P, M (dO Vᵀ))     dQ = dS K     dK = dSᵀ Q

Half precision is widened to float32 on the way in and rounded on the way out.

Legend: T rows, H query heads, K key heads, G = H / K, D head dimension; n documents and h key heads
of a piece, B = n * h; of a block: R = G * queries, C keys.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from . import workers
from .dropout import draw_keep, key_words, row_keys
from .layout import Block, Bucket, PaddedLayout, Strip

__all__ = ["Options", "backward", "forward"]

SCORES = 1 << 18
"""Scores of a block on a CPU: less pays more for calls, more leaves the cache (2¹⁶ to 2¹⁹ were
measured). They do not depend on the number of threads, and so neither do the results."""
GPU_SCORES = 1 << 25
D_FIRST = 32
"""Below it results with a dimension of D lie in memory with D first: a matrix product of 8 columns
takes up to seven times as long as one of 8 rows, from 32 on they are equal."""


class Options(NamedTuple):
    """What changes the scores and weights."""

    scale: float
    softcap: float | None
    dropout: float


class _Scratch(threading.local):
    """CPU memory of a thread, kept between calls: fresh pages cost as much as the arithmetic."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def take(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Return uninitialised memory, valid until the same name is taken again."""
        if device.type != "cpu":  # whose allocator keeps memory itself
            return torch.empty(shape, dtype=dtype, device=device)
        size = math.prod(shape) * dtype.itemsize
        kept = self.kept.get(name)
        if kept is None or kept.numel() < size:
            kept = self.kept[name] = torch.empty(size, dtype=torch.uint8)
        return kept[:size].view(dtype).view(shape)


_scratch = _Scratch()


class _Pass:
    """What all pieces of one forward or backward share."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        seed: Tensor | None,
        layout: PaddedLayout,
        options: Options,
    ) -> None:
        self.q, self.k, self.v, self.options, self.layout = q, k, v, options, layout
        self.dim, self.key_heads = q.shape[2], k.shape[1]
        self.group = q.shape[1] // k.shape[1]
        self.wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        self.keys: tuple[Tensor, Tensor] | None = None
        if seed is not None:
            rows = torch.arange(q.shape[0], device=q.device)
            self.keys = row_keys(seed, rows, q.shape[1])

    def pieces(self) -> Iterator[_Piece]:
        budget = SCORES if self.q.device.type == "cpu" else GPU_SCORES
        for bucket in self.layout.buckets:
            largest = max((b.q1 - b.q0) * (b.k1 - b.k0) for b in bucket.blocks)
            pairs = max(1, budget // (largest * self.group))
            step = min(pairs, self.key_heads)
            for strip in bucket.strips(max(1, pairs // self.key_heads)):
                for head in range(0, self.key_heads, step):
                    heads = slice(head, min(head + step, self.key_heads))
                    yield _Piece(self, bucket, strip, heads)

    def each(self, work: Callable[[_Piece], None], *, ordered: bool = False) -> None:
        """Work on every piece; ``ordered``: they write to the same memory."""
        if self.q.device.type == "cpu":
            workers.run(work, list(self.pieces()), ordered=ordered)
        else:  # the device is shared already, and a thread has its own current stream
            for piece in self.pieces():
                work(piece)


class _Piece:
    """Some documents of a bucket and some key heads."""

    def __init__(self, run: _Pass, bucket: Bucket, strip: Strip, heads: slice) -> None:
        self.run, self.bucket, self.strip, self.heads = run, bucket, strip, heads
        self.n = strip.documents.stop - strip.documents.start
        self.h = heads.stop - heads.start

    def take(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return _scratch.take(name, shape, dtype or self.run.wide, self.run.q.device)

    def queries(self, x: Tensor) -> Tensor:
        """Return this piece's part of ``[T, H, ...]``, gathered: ``[n, lq, h, G, ...]``."""
        x = _rows(x.unflatten(1, (-1, self.run.group))[:, self.heads], self.strip.rows)
        return x.unflatten(0, (self.n, self.bucket.lq))

    def load_queries(self, name: str, x: Tensor) -> Tensor:
        """Return the same head-major, wide and in scratch memory: ``[n, h, G, lq, D]``."""
        x = self.queries(x).permute(0, 2, 3, 1, 4)
        return self.take(name, *x.shape).copy_(x)

    def load_keys(self, name: str, x: Tensor) -> Tensor:
        """Return this piece's part of ``[T, K, D]`` likewise: ``[n, h, lk, D]``."""
        x = _rows(x[:, self.heads], self.strip.key_rows)
        x = x.unflatten(0, (self.n, self.bucket.lk)).transpose(1, 2)
        return self.take(name, *x.shape).copy_(x)

    def load(self) -> None:
        """Gather what every block needs."""
        run, options = self.run, self.run.options
        self.q = self.load_queries("q", run.q).mul_(options.scale / (options.softcap or 1.0))
        self.k = self.load_keys("k", run.k)
        self.v = self.load_keys("v", run.v)
        if run.keys is not None:
            self.first, self.second = (
                self.queries(x).permute(0, 2, 3, 1)[..., None].contiguous() for x in run.keys
            )
            words = key_words(self.bucket.key_rows[self.strip.documents])
            self.words = words[:, None, None, None]  # [n, 1, 1, 1, lk]

    def store_queries(self, whole: Tensor, part: Tensor) -> None:
        """Write ``[n, lq, h, G, ...]`` to the rows of ``[T, H, ...]`` (no-op for a view of it)."""
        rows, real = self.strip.rows, self.strip.real
        if isinstance(rows, slice):
            return
        part = part.flatten(0, 1)
        if real is not None:
            part, rows = part.index_select(0, real[0]), real[1]
        whole = whole.unflatten(1, (-1, self.run.group))[:, self.heads]
        whole.index_copy_(0, rows, part)


class _Weights(NamedTuple):
    q: Tensor
    """``[B, R, D]``, scaled (and divided by the softcap)."""
    k: Tensor
    """``[B, C, D]``."""
    p: Tensor
    """``[B, R, C]``: softmax of the scores."""
    scores: Tensor
    """``[B, R, C]``: scratch memory of the same shape that holds the masked scores."""
    keep: Tensor | None
    """``[B, R, C]`` int32: 0 where dropped, else 1."""
    tanh: Tensor | None
    """``[B, R, C]``: the soft-capped scores, divided by the softcap."""


def _weights(piece: _Piece, block: Block) -> _Weights:
    run, options = piece.run, piece.run.options
    queries, keys = slice(block.q0, block.q1), slice(block.k0, block.k1)
    full = (piece.n, piece.h, run.group, block.q1 - block.q0, block.k1 - block.k0)
    shape = (piece.n * piece.h, run.group * full[3], full[4])
    q = piece.q[:, :, :, queries].reshape(shape[0], shape[1], run.dim)
    k = piece.k[:, :, keys].flatten(0, 1)
    keep = tanh = None
    if run.keys is not None:
        keep = draw_keep(
            piece.first[:, :, :, queries],
            piece.second[:, :, :, queries],
            piece.words[..., keys],
            options.dropout,
            piece.take("keep", *full, dtype=torch.int32),
            piece.take("scores", *full, dtype=torch.int32),
        ).view(shape)
    scores = torch.bmm(q, k.mT, out=piece.take("scores", *shape))
    if options.softcap is not None:
        tanh = torch.tanh(scores, out=piece.take("tanh", *shape))
        torch.mul(tanh, options.softcap, out=scores)
    if block.m1 > block.m0:
        mask = piece.bucket.block_mask(block, scores.dtype, scores.device)
        if mask.shape[0] > 1:
            mask = mask[piece.strip.documents]
        scores.view(full)[..., block.m0 - block.k0 : block.m1 - block.k0] += mask[:, :, None]
    p = torch.softmax(scores, -1, out=piece.take("p", *shape))
    return _Weights(q, k, p, scores, keep, tanh)


def _drop(x: Tensor, keep: Tensor | None) -> None:
    """Zero what is dropped, in place."""
    if keep is None:
        return
    if x.dtype == torch.float32:
        # The bits of a float times 0 or 1: no conversion, and a dropped infinity is 0 too.
        x.view(torch.int32).mul_(keep)
    else:
        x.masked_fill_(keep == 0, 0.0)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seed: Tensor | None,
    layout: PaddedLayout,
    options: Options,
    return_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return the output ``[T, H, D]`` and, if asked for, the log-sum-exp, float32 ``[T, H]``."""
    run = _Pass(q, k, v, seed, layout, options)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device) if return_lse else None

    def work(piece: _Piece) -> None:
        piece.load()
        out_part = piece.queries(out)  # a view where rows follow each other, else memory
        lse_part = None if lse is None else piece.queries(lse)
        for block in piece.bucket.blocks:
            rows, keys = slice(block.q0, block.q1), slice(block.k0, block.k1)
            q, _, p, scores, keep, _ = _weights(piece, block)
            if lse_part is not None:
                # The largest weight is exp(largest score - log-sum-exp).
                sums = scores.amax(-1) - p.amax(-1).log_()  # [B, R]
                sums = sums.view(piece.n, piece.h, run.group, -1)
                lse_part[:, rows] = sums.permute(0, 3, 1, 2)
            _drop(p, keep)
            out_block = _thin(piece, "product", q.shape[1])
            _product(p, piece.v[:, :, keys].flatten(0, 1), out_block)
            if keep is not None:
                out_block.mul_(1.0 / (1.0 - options.dropout))
            out_part[:, rows] = _queries_last(out_block, piece)
        piece.store_queries(out, out_part)
        if lse is not None and lse_part is not None:
            piece.store_queries(lse, lse_part)

    run.each(work)
    return out, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seed: Tensor | None,
    layout: PaddedLayout,
    options: Options,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v, given that of the output."""
    run = _Pass(q, k, v, seed, layout, options)
    dq = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    shared = layout.key_slot is None  # keys of several documents: their gradients add up
    make = torch.zeros if shared else torch.empty
    dk, dv = (make(x.shape, dtype=run.wide if shared else x.dtype, device=x.device) for x in (k, v))

    def work(piece: _Piece) -> None:
        piece.load()
        up = piece.load_queries("up", grad)
        if options.dropout:
            up.mul_(1.0 / (1.0 - options.dropout))
        if piece.strip.padding is not None:
            up.masked_fill_(piece.strip.padding[:, None, None, :, None], 0.0)
        pairs = piece.n * piece.h
        sum_k, sum_v = (_thin(piece, name, piece.bucket.lk).zero_() for name in ("dk", "dv"))
        dq_part = piece.queries(dq)
        for block in piece.bucket.blocks:
            rows, keys = slice(block.q0, block.q1), slice(block.k0, block.k1)
            q, k, p, scores, keep, tanh = _weights(piece, block)
            do = up[:, :, :, rows].reshape(pairs, -1, run.dim)
            torch.bmm(do, piece.v[:, :, keys].flatten(0, 1).mT, out=scores)
            _drop(scores, keep)
            ds = _softmax_backward(scores, p)
            _drop(p, keep)
            _add_product(sum_v[:, keys], p.mT, do)
            if tanh is not None:
                ds.mul_(tanh.square_().neg_().add_(1.0))
            _add_product(sum_k[:, keys], ds.mT, q)
            dq_block = _product(ds, k, _thin(piece, "product", q.shape[1])).mul_(options.scale)
            dq_part[:, rows] = _queries_last(dq_block, piece)
        piece.store_queries(dq, dq_part)
        if options.softcap is not None:
            sum_k.mul_(options.softcap)  # the queries were divided by it
        for whole, total in ((dk, sum_k), (dv, sum_v)):
            part = total.unflatten(0, (piece.n, piece.h)).transpose(1, 2).flatten(0, 1)
            _add_keys(whole[:, piece.heads], piece.strip, part, shared)

    run.each(work, ordered=shared)
    return dq, dk.to(k.dtype), dv.to(v.dtype)


def _softmax_backward(grad: Tensor, p: Tensor) -> Tensor:
    """Return ``p * (grad - sum(grad * p))``, in the memory of ``grad``."""
    return torch._softmax_backward_data(grad, p, -1, p.dtype, grad_input=grad)


def _add_keys(whole: Tensor, strip: Strip, part: Tensor, shared: bool) -> None:
    """Write (or, with shared keys, add) ``[n * lk, h, D]`` to the rows of ``[T, h, D]``."""
    rows = strip.key_rows
    if isinstance(rows, slice):
        if shared:
            whole[rows] += part
        else:
            whole[rows] = part
    elif shared and whole.device.type == "cpu":
        whole.index_add_(0, rows, part)  # in order; padding adds zeros
    elif shared:
        whole.index_put_((rows,), part, accumulate=True)  # sorts, where index_add_ races
    elif strip.real is None:
        whole.index_copy_(0, rows, part.to(whole.dtype))
    else:  # without shared keys the key slots are the query slots
        whole.index_copy_(0, strip.real[1], part.index_select(0, strip.real[0]).to(whole.dtype))


def _rows(x: Tensor, rows: slice | Tensor) -> Tensor:
    return x[rows] if isinstance(rows, slice) else x.index_select(0, rows)


def _queries_last(o: Tensor, piece: _Piece) -> Tensor:
    """Turn ``[B, R, D]`` into ``[n, queries, h, G, D]``."""
    split = o.unflatten(0, (piece.n, piece.h)).unflatten(2, (piece.run.group, -1))
    return split.permute(0, 3, 1, 2, 4)


def _thin(piece: _Piece, name: str, rows: int) -> Tensor:
    """Return scratch memory ``[B, rows, D]`` for a result of `_product`."""
    batch, dim = piece.n * piece.h, piece.run.dim
    if dim < D_FIRST:
        return piece.take(name, batch, dim, rows).mT
    return piece.take(name, batch, rows, dim)


def _product(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """Return ``a @ b`` in ``out`` from `_thin`."""
    if out.shape[2] < D_FIRST:
        torch.bmm(b.mT, a.mT, out=out.mT)
    else:
        torch.bmm(a, b, out=out)
    return out


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add ``a @ b`` to rows of memory from `_thin`."""
    if total.shape[2] < D_FIRST:
        total.mT.baddbmm_(b.mT, a.mT)
    else:
        total.baddbmm_(a, b)
