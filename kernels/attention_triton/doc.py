"""The whole-document path: one program owns a group of whole documents and one key/value head.

A group is a run of consecutive documents of at most TILE rows (`Intervals.groups`). Its keys and
values are read once and stay on the chip; queries stream past in blocks of BLOCK_Q rows. A row's
scores are complete when they are made, so the softmax needs no running maximum, the backward
needs no accumulator in memory, and each of dQ, dK, dV is written exactly once: deterministic
without atomics. Bytes moved are the floor: forward q, k, v, out; backward those, dout and three
gradients.

Algorithm: exact attention, Vaswani et al. 2017; recomputing the weights from the saved
log-sum-exp, Dao 2023 (FlashAttention-2) §3.1; five products a tile, nothing spilled to memory.
Legend: Q rows of the query block, C key rows of the tile, D head dimension (padded to D_PAD).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .common import LN2, LOG2E, dot, dot_add, elements, kept, row_keys, tanh


@triton.jit
def _load_keys(x, begin, end, stride_t, D: tl.constexpr, D_PAD: tl.constexpr, SPAN: tl.constexpr):
    """``[SPAN, D_PAD]``: rows from ``begin``, zeros from ``end`` on."""
    d = tl.arange(0, D_PAD)
    row = begin + tl.arange(0, SPAN)
    return tl.load(
        x + row.to(tl.int64)[:, None] * stride_t + d[None, :],
        mask=(row < end)[:, None] & (d < D)[None, :],
        other=0.0,
    )


@triton.jit
def _attend(
    result,
    norm,
    largest,
    queries,
    keys,
    values,
    key,
    first_key,
    last_key,
    one,
    two,
    scale_log2,
    softcap,
    threshold,
    ONLY: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Scores of a query block with a span of keys; ONLY: there is no other span to add to."""
    scores = dot(queries, tl.trans(keys), PRECISION)  # [Q, C]
    if HAS_SOFTCAP:
        scores = tanh(scores * (scale_log2 * LN2 / softcap)) * (softcap * LOG2E)
    else:
        scores = scores * scale_log2
    seen = (key[None, :] >= first_key[:, None]) & (key[None, :] < last_key[:, None])
    scores = tl.where(seen, scores, float("-inf"))
    new = tl.max(scores, 1)
    if not ONLY:
        new = tl.maximum(new, largest)
    # A row without keys (past the group, or none in this span) must not become -inf - -inf.
    safe = tl.where(new == float("-inf"), 0.0, new)
    weights = tl.exp2(scores - safe[:, None])
    total = tl.sum(weights, 1)
    if HAS_DROPOUT:
        weights = tl.where(kept(one[:, None], two[:, None], key[None, :], threshold), weights, 0.0)
    if ONLY:
        return dot(weights.to(values.dtype), values, PRECISION), total, new
    else:
        shrink = tl.exp2(largest - safe)
        result = dot_add(weights.to(values.dtype), values, result * shrink[:, None], PRECISION)
        return result, norm * shrink + total, new


@triton.jit
def doc_fwd_kernel(
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
    D_PAD: tl.constexpr,
    TILE: tl.constexpr,
    SPAN: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid (G * H,), heads of a group together. ``out`` [T, H, D] contiguous, ``lse`` [H, T]."""
    stride_qt = elements(stride_qt)
    stride_qh = elements(stride_qh)
    stride_kt = elements(stride_kt)
    stride_kh = elements(stride_kh)
    stride_vt = elements(stride_vt)
    stride_vh = elements(stride_vh)
    head = tl.program_id(0) % HEADS
    group = tl.program_id(0) // HEADS
    begin = tl.load(groups + group * 2)
    end = tl.load(groups + group * 2 + 1)
    if begin >= end:
        return
    k_head = k + (head // GROUP).to(tl.int64) * stride_kh
    v_head = v + (head // GROUP).to(tl.int64) * stride_vh
    middle = begin + SPAN
    keys = _load_keys(k_head, begin, end, stride_kt, D, D_PAD, SPAN)
    values = _load_keys(v_head, begin, end, stride_vt, D, D_PAD, SPAN)
    if SPAN < TILE:
        tl.static_assert(2 * SPAN == TILE)
        keys_b = _load_keys(k_head, middle, end, stride_kt, D, D_PAD, SPAN)
        values_b = _load_keys(v_head, middle, end, stride_vt, D, D_PAD, SPAN)
    d = tl.arange(0, D_PAD)
    for first in range(begin, end, BLOCK_Q):
        # Zero, but the compiler cannot know: else it keeps every column's number (and its part of
        # the dropout hash) in registers over the whole loop, and spills.
        zero = tl.minimum(first, 0)
        key = begin + zero + tl.arange(0, SPAN)
        row = first + tl.arange(0, BLOCK_Q)
        valid = row < end
        row_mask = valid[:, None] & (d < D)[None, :]
        row_64 = row.to(tl.int64)
        queries = tl.load(  # [Q, D]
            q + row_64[:, None] * stride_qt + head.to(tl.int64) * stride_qh + d[None, :],
            mask=row_mask,
            other=0.0,
        )
        first_key = tl.load(start + row, mask=valid, other=0)
        last_key = tl.load(stop + row, mask=valid, other=0)
        one = row.to(tl.uint32)
        two = one
        if HAS_DROPOUT:
            one, two = row_keys(tl.load(seed), row, head)
        result = tl.zeros([BLOCK_Q, D_PAD], tl.float32)
        norm = tl.zeros([BLOCK_Q], tl.float32)
        largest = tl.full([BLOCK_Q], float("-inf"), tl.float32)
        result, norm, largest = _attend(
            result, norm, largest, queries, keys, values, key, first_key, last_key, one, two,
            scale_log2, softcap, threshold, True, HAS_SOFTCAP, HAS_DROPOUT, PRECISION,
        )  # fmt: skip
        if SPAN < TILE:
            if tl.load(stop + tl.minimum(first + BLOCK_Q, end) - 1) > middle:
                result, norm, largest = _attend(
                    result, norm, largest, queries, keys_b, values_b, key + SPAN, first_key,
                    last_key, one, two, scale_log2, softcap, threshold, False, HAS_SOFTCAP,
                    HAS_DROPOUT, PRECISION,
                )  # fmt: skip
        largest = tl.where(norm == 0.0, 0.0, largest)
        norm = tl.where(norm == 0.0, 1.0, norm)
        if HAS_DROPOUT:
            result = result * (keep_scale / norm)[:, None]
        else:
            result = result / norm[:, None]
        tl.store(
            out + (row_64[:, None] * HEADS + head) * D + d[None, :],
            result.to(out.dtype.element_ty),
            mask=row_mask,
        )
        tl.store(lse + head.to(tl.int64) * total + row, (largest + tl.log2(norm)) * LN2, mask=valid)


@triton.jit
def doc_bwd_kernel(
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
    D_PAD: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid (G * K,). ``out``, ``dout``, ``dq`` [T, H, D], ``dk``, ``dv`` [T, K, D]."""
    stride_qt = elements(stride_qt)
    stride_qh = elements(stride_qh)
    stride_kt = elements(stride_kt)
    stride_kh = elements(stride_kh)
    stride_vt = elements(stride_vt)
    stride_vh = elements(stride_vh)
    kv_head = tl.program_id(0) % (HEADS // GROUP)
    group = tl.program_id(0) // (HEADS // GROUP)
    begin = tl.load(groups + group * 2)
    end = tl.load(groups + group * 2 + 1)
    if begin >= end:
        return
    begin_64 = begin.to(tl.int64)
    d = tl.arange(0, D_PAD)
    key = tl.arange(0, TILE)
    key_64 = begin_64 + key
    key_mask = (key < end - begin)[:, None] & (d < D)[None, :]
    keys = tl.load(  # [C, D]
        k + key_64[:, None] * stride_kt + kv_head.to(tl.int64) * stride_kh + d[None, :],
        mask=key_mask,
        other=0.0,
    )
    values = tl.load(  # [C, D]
        v + key_64[:, None] * stride_vt + kv_head.to(tl.int64) * stride_vh + d[None, :],
        mask=key_mask,
        other=0.0,
    )
    dkeys = tl.zeros([TILE, D_PAD], tl.float32)
    dvalues = tl.zeros([TILE, D_PAD], tl.float32)
    for member in range(GROUP):
        head = kv_head * GROUP + member
        for first in range(0, end - begin, BLOCK_Q):
            row = first + tl.arange(0, BLOCK_Q)
            at_key = key + tl.minimum(first, 0)  # ``key``, but not kept over the loop
            valid = row < end - begin
            row_mask = valid[:, None] & (d < D)[None, :]
            row_64 = begin_64 + row
            at = (row_64[:, None] * HEADS + head) * D + d[None, :]
            queries = tl.load(  # [Q, D]
                q + row_64[:, None] * stride_qt + head.to(tl.int64) * stride_qh + d[None, :],
                mask=row_mask,
                other=0.0,
            )
            douts = tl.load(dout + at, mask=row_mask, other=0.0)  # [Q, D]
            outs = tl.load(out + at, mask=row_mask, other=0.0)
            delta = tl.sum(outs.to(tl.float32) * douts.to(tl.float32), 1)
            lses = tl.load(lse + head.to(tl.int64) * total + row_64, mask=valid, other=0.0)
            first_key = tl.load(start + row_64, mask=valid, other=0) - begin
            last_key = tl.load(stop + row_64, mask=valid, other=0) - begin
            scores = dot(keys, tl.trans(queries), PRECISION)  # [C, Q]
            if HAS_SOFTCAP:
                bent = tanh(scores * (scale / softcap))
                scores = bent * (softcap * LOG2E)
            else:
                scores = scores * (scale * LOG2E)
            seen = (at_key[:, None] >= first_key[None, :]) & (at_key[:, None] < last_key[None, :])
            weights = tl.where(seen, tl.exp2(scores - lses[None, :] * LOG2E), 0.0)
            if HAS_DROPOUT:
                one, two = row_keys(tl.load(seed), begin + row, head)
                keep = kept(one[None, :], two[None, :], (begin + at_key)[:, None], threshold)
                # The mask rides on the sign until the end of the tile: no registers of its own.
                weights = tl.where(keep, weights, -weights)
                dropped = tl.maximum(weights, 0.0)
            else:
                dropped = weights
            dvalues = dot_add(dropped.to(douts.dtype), douts, dvalues, PRECISION)
            dweights = dot(values, tl.trans(douts), PRECISION)  # [C, Q]
            if HAS_DROPOUT:
                dweights = tl.where(weights > 0.0, dweights * keep_scale, 0.0)
                weights = tl.abs(weights)
            dscores = weights * (dweights - delta[None, :])
            if HAS_SOFTCAP:
                dscores = dscores * (1.0 - bent * bent)
            dscores = dscores.to(queries.dtype)
            dkeys = dot_add(dscores, queries, dkeys, PRECISION)
            if BLOCK_Q < 64:  # The tensor core's rows come in 64: transposed, D is the rows.
                dqueries = tl.trans(dot(tl.trans(keys), dscores, PRECISION))
            else:
                dqueries = dot(tl.trans(dscores), keys, PRECISION)
            tl.store(dq + at, (dqueries * scale).to(dq.dtype.element_ty), mask=row_mask)
    kv_at = (key_64[:, None] * (HEADS // GROUP) + kv_head) * D + d[None, :]
    tl.store(dk + kv_at, (dkeys * scale).to(dk.dtype.element_ty), mask=key_mask)
    tl.store(dv + kv_at, (dvalues * keep_scale).to(dv.dtype.element_ty), mask=key_mask)
