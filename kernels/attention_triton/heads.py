"""The many-heads path: whole documents again, several small heads side by side in one program.

A head of 8 or 16 dimensions is 16 or 32 bytes of each row: read alone it wastes memory sectors,
and the tensor core's 64-row tiles waste arithmetic. Here one program reads a [TILE, HB * D] slab,
full lines of memory, and takes it apart into HB heads on the chip. Each head is one slice of a
batched product of 16 x 8 x 16 instructions (``mma.sync``: ``wgmma`` has no batched form and
starts at 64 rows a warp group), so D = 8 pays for 16 in one of the two products and nothing
more. One warp works on one head: the softmax never leaves it.

Same algorithm and same guarantees as `doc`. Legend: B heads of the program, Q query rows,
C key rows, D head dimension; the inner dimension of products is zero-padded to 16.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .common import LN2, LOG2E, dot, dot_add, elements, kept, row_keys, tanh


@triton.jit
def _split(slab, ROWS: tl.constexpr, HB: tl.constexpr, D: tl.constexpr):
    """``[R, B * D]`` to ``[B, R, D]``."""
    return tl.permute(tl.reshape(slab, [ROWS, HB, D]), [1, 0, 2])


@triton.jit
def _merge(heads, ROWS: tl.constexpr, HB: tl.constexpr, D: tl.constexpr):
    """``[B, R, D]`` to ``[R, B * D]``."""
    return tl.reshape(tl.permute(heads, [1, 0, 2]), [ROWS, HB * D])


@triton.jit
def _widen(heads, HB: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr):
    """``[B, R, 8]`` to ``[B, R, 16]`` with zeros between: an inner dimension may be permuted."""
    if D == 8:
        return tl.reshape(tl.join(heads, tl.zeros_like(heads)), [HB, ROWS, 16])
    else:
        return heads


@triton.jit
def heads_fwd_kernel(
    q,
    k,
    v,
    out,
    lse,
    start,
    stop,
    groups,
    seed,
    stride_qt,
    stride_qh,
    stride_kt,
    stride_kh,
    stride_vt,
    stride_vh,
    total,
    scale_log2,
    softcap,
    threshold,
    keep_scale,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    HB: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid (G * ceil(H / HB),). ``out`` [T, H, D] contiguous, ``lse`` [H, T]."""
    stride_qt = elements(stride_qt)
    stride_qh = elements(stride_qh)
    stride_kt = elements(stride_kt)
    stride_kh = elements(stride_kh)
    stride_vt = elements(stride_vt)
    stride_vh = elements(stride_vh)
    SLABS: tl.constexpr = (HEADS + HB - 1) // HB
    group = tl.program_id(0) // SLABS
    base = tl.program_id(0) % SLABS * HB
    begin = tl.load(groups + group * 2)
    end = tl.load(groups + group * 2 + 1)
    if begin >= end:
        return
    begin_64 = begin.to(tl.int64)
    column = tl.arange(0, HB * D)
    head = base + column // D
    column_mask = head < HEADS
    d = column % D
    key = tl.arange(0, TILE)
    key_mask = (key < end - begin)[:, None] & column_mask[None, :]
    key_64 = begin_64 + key
    kv_head = (head // GROUP).to(tl.int64)
    slab = tl.load(
        k + key_64[:, None] * stride_kt + (kv_head * stride_kh + d)[None, :],
        mask=key_mask,
        other=0.0,
    )
    keys = _widen(_split(slab, TILE, HB, D), HB, TILE, D)  # [B, C, D]
    keys = tl.permute(keys, [0, 2, 1])
    slab = tl.load(
        v + key_64[:, None] * stride_vt + (kv_head * stride_vh + d)[None, :],
        mask=key_mask,
        other=0.0,
    )
    values = _split(slab, TILE, HB, D)
    heads = base + tl.arange(0, HB)
    for first in range(0, end - begin, BLOCK_Q):
        row = first + tl.arange(0, BLOCK_Q)
        at_key = key + tl.minimum(first, 0)  # ``key``, but not kept over the loop
        valid = row < end - begin
        row_64 = begin_64 + row
        row_mask = valid[:, None] & column_mask[None, :]
        block = tl.load(
            q + row_64[:, None] * stride_qt + (head.to(tl.int64) * stride_qh + d)[None, :],
            mask=row_mask,
            other=0.0,
        )
        queries = _widen(_split(block, BLOCK_Q, HB, D), HB, BLOCK_Q, D)
        first_key = tl.load(start + row_64, mask=valid, other=0) - begin
        last_key = tl.load(stop + row_64, mask=valid, other=0) - begin
        scores = dot(queries, keys, PRECISION)  # [B, Q, C]
        if HAS_SOFTCAP:
            scores = tanh(scores * (scale_log2 * LN2 / softcap)) * (softcap * LOG2E)
        else:
            scores = scores * scale_log2
        seen = (at_key[None, :] >= first_key[:, None]) & (at_key[None, :] < last_key[:, None])
        scores = tl.where(seen[None, :, :], scores, float("-inf"))
        largest = tl.max(scores, 2)
        largest = tl.where(largest == float("-inf"), 0.0, largest)
        weights = tl.exp2(scores - largest[:, :, None])
        norm = tl.sum(weights, 2)
        norm = tl.where(norm == 0.0, 1.0, norm)
        if HAS_DROPOUT:
            one, two = row_keys(tl.load(seed), (begin + row)[None, :], heads[:, None])
            keep = kept(
                one[:, :, None], two[:, :, None], (begin + at_key)[None, None, :], threshold
            )
            weights = tl.where(keep, weights, 0.0)
            norm_out = norm / keep_scale
        else:
            norm_out = norm
        result = dot(weights.to(values.dtype), values, PRECISION) / norm_out[:, :, None]
        tl.store(
            out + row_64[:, None] * (HEADS * D) + (head * D + d)[None, :],
            _merge(result.to(out.dtype.element_ty), BLOCK_Q, HB, D),
            mask=row_mask,
        )
        tl.store(
            lse + heads.to(tl.int64)[:, None] * total + row_64[None, :],
            (largest + tl.log2(norm)) * LN2,
            mask=valid[None, :] & (heads < HEADS)[:, None],
        )


@triton.jit
def heads_bwd_kernel(
    q,
    k,
    v,
    out,
    dout,
    lse,
    dq,
    dk,
    dv,
    start,
    stop,
    groups,
    seed,
    stride_qt,
    stride_qh,
    stride_kt,
    stride_kh,
    stride_vt,
    stride_vh,
    total,
    scale,
    softcap,
    threshold,
    keep_scale,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    HB: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid (G * ceil(K / HB),). ``out``, ``dout``, ``dq`` [T, H, D], ``dk``, ``dv`` [T, K, D]."""
    stride_qt = elements(stride_qt)
    stride_qh = elements(stride_qh)
    stride_kt = elements(stride_kt)
    stride_kh = elements(stride_kh)
    stride_vt = elements(stride_vt)
    stride_vh = elements(stride_vh)
    SLABS: tl.constexpr = (HEADS // GROUP + HB - 1) // HB
    group = tl.program_id(0) // SLABS
    base = tl.program_id(0) % SLABS * HB
    begin = tl.load(groups + group * 2)
    end = tl.load(groups + group * 2 + 1)
    if begin >= end:
        return
    begin_64 = begin.to(tl.int64)
    column = tl.arange(0, HB * D)
    kv_head = base + column // D
    kv_heads = base + tl.arange(0, HB)
    column_mask = kv_head < HEADS // GROUP
    d = column % D
    key = tl.arange(0, TILE)
    key_mask = (key < end - begin)[:, None] & column_mask[None, :]
    key_64 = begin_64 + key
    slab = tl.load(
        k + key_64[:, None] * stride_kt + (kv_head.to(tl.int64) * stride_kh + d)[None, :],
        mask=key_mask,
        other=0.0,
    )
    narrow_keys = _split(slab, TILE, HB, D)
    keys = _widen(narrow_keys, HB, TILE, D)  # [B, C, D]
    slab = tl.load(
        v + key_64[:, None] * stride_vt + (kv_head.to(tl.int64) * stride_vh + d)[None, :],
        mask=key_mask,
        other=0.0,
    )
    values = _widen(_split(slab, TILE, HB, D), HB, TILE, D)
    dkeys = tl.zeros([HB, TILE, D], tl.float32)
    dvalues = tl.zeros([HB, TILE, D], tl.float32)
    for member in range(GROUP):
        head = kv_head * GROUP + member
        heads = kv_heads * GROUP + member
        for first in range(0, end - begin, BLOCK_Q):
            row = first + tl.arange(0, BLOCK_Q)
            at_key = key + tl.minimum(first, 0)  # ``key``, but not kept over the loop
            valid = row < end - begin
            row_mask = valid[:, None] & column_mask[None, :]
            row_64 = begin_64 + row
            at = row_64[:, None] * (HEADS * D) + (head * D + d)[None, :]
            block = tl.load(
                q + row_64[:, None] * stride_qt + (head.to(tl.int64) * stride_qh + d)[None, :],
                mask=row_mask,
                other=0.0,
            )
            queries = _split(block, BLOCK_Q, HB, D)  # [B, Q, D]
            block = tl.load(dout + at, mask=row_mask, other=0.0)
            douts = _split(block, BLOCK_Q, HB, D)
            product = block.to(tl.float32) * tl.load(out + at, mask=row_mask, other=0.0).to(
                tl.float32
            )
            delta = tl.trans(tl.sum(tl.reshape(product, [BLOCK_Q, HB, D]), 2))  # [B, Q]
            inside = valid[None, :] & (kv_heads < HEADS // GROUP)[:, None]
            lses = tl.load(
                lse + heads.to(tl.int64)[:, None] * total + row_64[None, :], mask=inside, other=0.0
            )
            first_key = tl.load(start + row_64, mask=valid, other=0) - begin
            last_key = tl.load(stop + row_64, mask=valid, other=0) - begin
            wide = tl.permute(_widen(queries, HB, BLOCK_Q, D), [0, 2, 1])
            scores = dot(keys, wide, PRECISION)  # [B, C, Q]
            if HAS_SOFTCAP:
                bent = tanh(scores * (scale / softcap))
                scores = bent * (softcap * LOG2E)
            else:
                scores = scores * (scale * LOG2E)
            seen = (at_key[:, None] >= first_key[None, :]) & (at_key[:, None] < last_key[None, :])
            weights = tl.exp2(scores - lses[:, None, :] * LOG2E)
            weights = tl.where(seen[None, :, :], weights, 0.0)
            wide = tl.permute(_widen(douts, HB, BLOCK_Q, D), [0, 2, 1])
            if HAS_DROPOUT:
                one, two = row_keys(tl.load(seed), (begin + row)[None, :], heads[:, None])
                keep = kept(
                    one[:, None, :], two[:, None, :], (begin + at_key)[None, :, None], threshold
                )
                # The mask rides on the sign until the end of the tile: no registers of its own.
                weights = tl.where(keep, weights, -weights)
                dropped = tl.maximum(weights, 0.0)
            else:
                dropped = weights
            dvalues = dot_add(dropped.to(douts.dtype), douts, dvalues, PRECISION)
            dweights = dot(values, wide, PRECISION)  # [B, C, Q]
            if HAS_DROPOUT:
                dweights = tl.where(weights > 0.0, dweights * keep_scale, 0.0)
                weights = tl.abs(weights)
            dscores = weights * (dweights - delta[:, None, :])
            if HAS_SOFTCAP:
                dscores = dscores * (1.0 - bent * bent)
            dscores = dscores.to(queries.dtype)
            dkeys = dot_add(dscores, queries, dkeys, PRECISION)
            dqueries = dot(tl.permute(dscores, [0, 2, 1]), narrow_keys, PRECISION) * scale
            tl.store(
                dq + at, _merge(dqueries.to(dq.dtype.element_ty), BLOCK_Q, HB, D), mask=row_mask
            )
    kv_at = key_64[:, None] * (HEADS // GROUP * D) + (kv_head * D + d)[None, :]
    dkeys = (dkeys * scale).to(dk.dtype.element_ty)
    tl.store(dk + kv_at, _merge(dkeys, TILE, HB, D), mask=key_mask)
    tl.store(
        dv + kv_at,
        _merge((dvalues * keep_scale).to(dv.dtype.element_ty), TILE, HB, D),
        mask=key_mask,
    )
