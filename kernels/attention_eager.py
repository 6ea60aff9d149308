"""Attention over a packed row with torch operations alone: what runs on a CPU, also in training.

Documents of similar length are padded to one rectangle (`kernels.layout`) and worked through block
by block: scores of a few heads and documents, `QUERY_ROWS` queries against the hull of the keys
they see, small enough to stay in the cache from the product to the softmax, the dropout mask and
the second product. Nothing of T² size is stored; the backward computes the blocks again (exact
attention, Vaswani et al. 2017 §3.2.1; the recomputation is that of Chen et al. 2016 and, for
attention, Dao et al. 2022). Grouped queries share the keys of a block (Ainslie et al. 2023), so no
key is repeated. Half precision is widened to float32 on the way in.

Legend: T rows, H query heads, K key/value heads, G = H / K, D head dimension; n documents of a
bucket; of a block: B pairs of a document and a key head, R = G * queries, C keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import dispatch
from .dropout import draw_keep, key_words, row_keys
from .layout import Block, Bucket, PaddedLayout

__all__ = ["attention_padded"]

CPU_SCORES = 1 << 18
"""Scores of a block, for each thread."""
GPU_SCORES = 1 << 25


class _Options(NamedTuple):
    scale: float
    softcap: float | None
    dropout: float


def attention_padded(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    intervals: Any,
    *,
    scale: float,
    softcap: float | None,
    dropout: float,
    seed: Tensor | None,
    deterministic: bool,
    return_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    layout: PaddedLayout = intervals.layout(q.device)
    if not layout.buckets:
        out = q + 0.0 * (k.sum() + v.sum())
        return out, q.new_zeros(q.shape[:2], dtype=torch.float32)
    out, lse = _Blocks.apply(q, k, v, seed, layout, _Options(scale, softcap, dropout), return_lse)
    return out, lse


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q, k, v, seed, layout, options, return_lse):
        ctx.save_for_backward(q, k, v, seed)
        ctx.layout, ctx.options = layout, options
        out, lse = _forward(q, k, v, seed, layout, options, return_lse)
        if lse is not None:
            ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: None):
        q, k, v, seed = ctx.saved_tensors
        dq, dk, dv = _backward(grad, q, k, v, seed, ctx.layout, ctx.options)
        return dq, dk, dv, None, None, None, None


def _wide(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


class _Scratch:
    def __init__(self, device, dtype):
        self.flat = {}
        self.device, self.dtype = device, dtype

    def take(self, name, shape, dtype=None):
        n = 1
        for s in shape: n *= s
        flat = self.flat.get(name)
        if flat is None or flat.numel() < n:
            flat = self.flat[name] = torch.empty(n, dtype=self.dtype, device=self.device)
        if dtype is not None and dtype != flat.dtype:
            flat = flat.view(dtype)
        return flat[:n].view(shape)


def _take_rows(x, rows):
    return x[rows] if isinstance(rows, slice) else x.index_select(0, rows)


class _Walk:
    def __init__(self, q, k, v, seed, layout, options):
        self.q, self.k, self.v, self.layout, self.options = q, k, v, layout, options
        self.heads = k.shape[1]
        self.group = q.shape[1] // k.shape[1]
        self.wide = _wide(q.dtype)
        self.scratch = _Scratch(q.device, self.wide)
        self.keys = None
        if options.dropout > 0:
            rows = torch.arange(q.shape[0], device=q.device)
            self.keys = row_keys(seed, rows, q.shape[1])
        self.budget = CPU_SCORES * torch.get_num_threads() if not q.is_cuda else GPU_SCORES
        self.factor = self.options.scale / (self.options.softcap or 1.0)

    def strips(self):
        for bucket in self.layout.buckets:
            largest = self.group * max((b.q1 - b.q0) * (b.k1 - b.k0) for b in bucket.blocks)
            pairs = max(1, self.budget // largest)
            heads, docs = min(pairs, self.heads), max(1, pairs // self.heads)
            for strip in bucket.strips(docs):
                yield _Strip(self, bucket, strip, heads)

    def queries(self, name, x, strip, bucket, dtype=None):
        x = _take_rows(x, strip.queries)
        x = x.view(-1, bucket.lq, self.heads, self.group, x.shape[-1]).permute(0, 2, 3, 1, 4)
        return self.scratch.take(name, x.shape, dtype).copy_(x)

    def keys_of(self, name, x, strip, bucket):
        x = _take_rows(x, strip.keys)
        x = x.view(-1, bucket.lk, self.heads, x.shape[-1]).transpose(1, 2)
        return self.scratch.take(name, x.shape).copy_(x)


class _Strip:
    def __init__(self, walk, bucket, strip, heads):
        self.walk, self.bucket, self.strip = walk, bucket, strip
        self.step = heads
        self.n = strip.documents.stop - strip.documents.start
        self.q = walk.queries('q', walk.q, strip, bucket).mul_(walk.factor)
        self.k = walk.keys_of('k', walk.k, strip, bucket)
        self.v = walk.keys_of('v', walk.v, strip, bucket)
        self.first = self.second = self.words = None
        if walk.keys is not None:
            self.first, self.second = (walk.queries(n, x[..., None], strip, bucket, torch.int32) for n, x in zip(('first', 'second'), walk.keys))
            self.words = key_words(bucket.key_rows[strip.documents]).view(self.n, 1, 1, 1, bucket.lk)

    def heads(self):
        for h in range(0, self.walk.heads, self.step):
            yield slice(h, min(h + self.step, self.walk.heads))

    def weights(self, hs, block):
        """P [B,R,C], keep [B,R,C] int32 or None, scores/tanh"""
        scratch, options = self.walk.scratch, self.walk.options
        rows = block.q1 - block.q0
        cols = block.k1 - block.k0
        g = self.walk.group
        full = (self.n, hs.stop - hs.start, g, rows, cols)
        shape = (full[0] * full[1], g * rows, cols)
        q = self.q[:, hs, :, block.q0:block.q1].reshape(shape[0], g * rows, -1)
        k = self.k[:, hs, block.k0:block.k1].flatten(0, 1)
        keep = None
        if self.first is not None:
            keep = scratch.take('keep', full, torch.int32)
            draw_keep(self.first[:, hs, :, block.q0:block.q1], self.second[:, hs, :, block.q0:block.q1],
                      self.words[..., block.k0:block.k1], options.dropout, keep, scratch.take('s', full, torch.int32))
            keep = keep.view(shape)
        s = scratch.take('s', shape)
        torch.bmm(q, k.mT, out=s)
        tanh = None
        if options.softcap is not None:
            tanh = scratch.take('tanh', shape)
            torch.tanh(s, out=tanh)
            torch.mul(tanh, options.softcap, out=s)
        if block.m1 > block.m0:
            part = s.view(full)[..., block.m0 - block.k0:block.m1 - block.k0]
            m = self.bucket.block_mask(block, s.dtype, s.device)
            part += (m if m.shape[0] == 1 else m[self.strip.documents])[:, :, None]
        p = scratch.take('p', shape)
        torch.softmax(s, -1, out=p)
        return q, k, s, p, keep, tanh


def _drop(p, keep):
    if keep is not None:
        if p.dtype == torch.float32:
            p.view(torch.int32).mul_(keep)
        else:
            p.mul_(keep)


def _forward(q, k, v, seed, layout, options, return_lse):
    walk = _Walk(q, k, v, seed, layout, options)
    T, H, D = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(T, H, dtype=torch.float32, device=q.device) if return_lse else None
    for w in walk.strips():
        g, lq = walk.group, w.bucket.lq
        rows, real = w.strip.queries, w.strip.real
        direct = isinstance(rows, slice)
        part = out[rows] if direct else out.new_empty(w.n * lq, H, D)
        target = part.view(w.n, lq, walk.heads, g, D)
        if lse is not None:
            lpart = lse.new_empty(w.n * lq, H)
            ltarget = lpart.view(w.n, lq, walk.heads, g)
        for hs in w.heads():
            h = hs.stop - hs.start
            for block in w.bucket.blocks:
                qb, kb, s, p, keep, _ = w.weights(hs, block)
                if lse is not None:
                    l = s.amax(-1) - p.amax(-1).log()
                    ltarget[:, block.q0:block.q1, hs] = l.view(w.n, h, g, -1).permute(0, 3, 1, 2)
                _drop(p, keep)
                o = torch.bmm(w.v[:, hs, block.k0:block.k1].flatten(0, 1).mT, p.mT)
                if options.dropout: o.mul_(1 / (1 - options.dropout))
                target[:, block.q0:block.q1, hs] = o.view(w.n, h, D, g, -1).permute(0, 4, 1, 3, 2)
        for whole, pt in ((out, None if direct else part), (lse, None if lse is None else lpart)):
            if pt is None: continue
            if direct: whole[rows] = pt
            elif real is None: whole.index_copy_(0, rows, pt)
            else: whole.index_copy_(0, rows[real], pt[real])
    return out, lse


def _backward(grad, q, k, v, seed, layout, options):
    walk = _Walk(q, k, v, seed, layout, options)
    T, H, D = q.shape
    scratch = walk.scratch
    dq = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    own = layout.key_slot is not None
    make = torch.empty if all(isinstance(s.keys, slice) for b in layout.buckets for s in b.strips(1)[:0]) else torch.zeros
    dk, dv = (torch.zeros(x.shape, dtype=x.dtype if own else walk.wide, device=x.device) for x in (k, v))
    for w in walk.strips():
        bucket = w.bucket
        g, lq, lk = walk.group, w.bucket.lq, bucket.lk
        rows, real, keys = w.strip.queries, w.strip.real, w.strip.keys
        direct = isinstance(rows, slice)
        up = walk.queries('up', grad, w.strip, bucket)
        if options.dropout: up.mul_(1 / (1 - options.dropout))
        if real is not None:
            up.masked_fill_(~bucket.real[w.strip.documents][:, None, None, :, None], 0.0)
        part = dq[rows] if direct else dq.new_empty(w.n * lq, H, D)
        target = part.view(w.n, lq, walk.heads, g, D)
        if isinstance(keys, slice):
            kparts = [x[keys].view(w.n, lk, walk.heads, D) for x in (dk, dv)]
        else:
            kparts = [x.new_empty(w.n, lk, walk.heads, D) for x in (dk, dv)]
        for hs in w.heads():
            h = hs.stop - hs.start
            dkT = scratch.take('dk', (w.n * h, D, lk)).zero_()
            dvT = scratch.take('dv', (w.n * h, D, lk)).zero_()
            for block in bucket.blocks:
                ks = slice(block.k0, block.k1)
                qb, kb, s, p, keep, tanh = w.weights(hs, block)
                do = up[:, hs, :, block.q0:block.q1].reshape(w.n * h, -1, D)
                vb = w.v[:, hs, ks].flatten(0, 1)
                dp = torch.bmm(do, vb.mT, out=s)
                _drop(dp, keep)
                ds = scratch.take('ds', p.shape) if not INPLACE else dp
                torch._softmax_backward_data(dp, p, -1, p.dtype, grad_input=ds)
                _drop(p, keep)
                dvT[:, :, ks].baddbmm_(do.mT, p)
                if tanh is not None:
                    ds.mul_(tanh.square_().neg_().add_(1))
                dkT[:, :, ks].baddbmm_(qb.mT, ds)
                o = torch.bmm(kb.mT, ds.mT).mul_(options.scale)
                target[:, block.q0:block.q1, hs] = o.view(w.n, h, D, g, -1).permute(0, 4, 1, 3, 2)
            if options.softcap: dkT.mul_(options.softcap)
            for to, x in zip(kparts, (dkT, dvT)):
                to[:, :, hs] = x.view(w.n, h, D, -1).permute(0, 3, 1, 2)
        if not direct:
            if real is None: dq.index_copy_(0, rows, part)
            else: dq.index_copy_(0, rows[real], part[real])
        if not isinstance(keys, slice):
            for x, y in zip((dk, dv), kparts): x.index_add_(0, keys, y.flatten(0, 1))
    return dq, dk.to(k.dtype), dv.to(v.dtype)
INPLACE = 0
