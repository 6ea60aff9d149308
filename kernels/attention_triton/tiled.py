"""The general path, forward: any document length, any interval mask, with or without branches.

One program computes BLOCK_Q query rows of one head and walks over the keys that any of them sees.
Interval ends never decrease along the row, so the first row's start and the last row's stop bound
that walk, and between the last row's start and the first row's stop nothing needs a mask: tiles
that no interval touches are never visited, and only edge tiles compare positions.

Algorithm: online softmax, Milakov & Gimelshein 2018; tiling, Dao 2023 (FlashAttention-2).
Legend: Q query rows, C key rows of a tile, D head dimension (padded to D_PAD).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .common import LN2, LOG2E, dot, dot_add, elements, kept, row_keys, tanh


@triton.jit
def whole_tiles(low, full_low, full_high, high, BLOCK: tl.constexpr):
    """Cut [low, high) into masked, unmasked (whole tiles) and masked: return the inner borders."""
    first = low + tl.cdiv(tl.maximum(full_low - low, 0), BLOCK) * BLOCK
    last = first + tl.maximum(full_high - first, 0) // BLOCK * BLOCK
    none = last <= first
    return tl.where(none, low, first), tl.where(none, low, last)


@triton.jit
def second_span(start2, stop2, rows, valid):
    """First and one past the last row that any of ``rows`` sees through its second interval."""
    one = tl.load(start2 + rows, mask=valid, other=0)
    two = tl.load(stop2 + rows, mask=valid, other=0)
    low = tl.min(tl.where(one < two, one, 0x7FFFFFFF), 0)
    return one, two, low, tl.max(tl.where(one < two, two, 0), 0)


@triton.jit
def _fwd_tile(
    result,
    norm,
    largest,
    queries,
    k_head,
    v_head,
    at,
    total,
    first_key,
    last_key,
    row_one,
    row_two,
    stride_kt,
    stride_vt,
    scale_log2,
    softcap,
    threshold,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    BLOCK_K: tl.constexpr,
    MASKED: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of keys from row ``at``: the online softmax's update."""
    d = tl.arange(0, D_PAD)
    key = at + tl.arange(0, BLOCK_K)
    key_64 = key.to(tl.int64)
    if MASKED:
        key_mask = (key < total)[:, None] & (d < D)[None, :]
    else:
        key_mask = (d < D)[None, :]
    if MASKED or D != D_PAD:
        keys = tl.load(k_head + key_64[:, None] * stride_kt + d[None, :], mask=key_mask, other=0.0)
        values = tl.load(
            v_head + key_64[:, None] * stride_vt + d[None, :], mask=key_mask, other=0.0
        )
    else:
        keys = tl.load(k_head + key_64[:, None] * stride_kt + d[None, :])
        values = tl.load(v_head + key_64[:, None] * stride_vt + d[None, :])
    scores = dot(queries, tl.trans(keys), PRECISION)  # [Q, C]
    if HAS_SOFTCAP:
        scores = tanh(scores * (scale_log2 * LN2 / softcap)) * (softcap * LOG2E)
    else:
        scores = scores * scale_log2
    if MASKED:
        seen = (key[None, :] >= first_key[:, None]) & (key[None, :] < last_key[:, None])
        scores = tl.where(seen, scores, float("-inf"))
    new = tl.maximum(largest, tl.max(scores, 1))
    if MASKED:
        safe = tl.where(new == float("-inf"), 0.0, new)
    else:
        safe = new
    weights = tl.exp2(scores - safe[:, None])
    shrink = tl.exp2(largest - safe)
    norm = norm * shrink + tl.sum(weights, 1)
    if HAS_DROPOUT:
        weights = tl.where(
            kept(row_one[:, None], row_two[:, None], key[None, :], threshold), weights, 0.0
        )
    result = dot_add(weights.to(values.dtype), values, result * shrink[:, None], PRECISION)
    return result, norm, new


@triton.jit
def tiled_fwd_kernel(
    q,
    k,
    v,
    out,
    lse,
    start,
    stop,
    start2,
    stop2,
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
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HAS_SECOND: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid (ceil(T / BLOCK_Q) * H,). ``out`` [T, H, D] contiguous, ``lse`` [H, T]."""
    stride_qt = elements(stride_qt)
    stride_qh = elements(stride_qh)
    stride_kt = elements(stride_kt)
    stride_kh = elements(stride_kh)
    stride_vt = elements(stride_vt)
    stride_vh = elements(stride_vh)
    head = tl.program_id(0) % HEADS
    # Last tiles first: under causality they are the longest.
    at = (tl.cdiv(total, BLOCK_Q) - 1 - tl.program_id(0) // HEADS) * BLOCK_Q
    last = tl.minimum(at + BLOCK_Q, total) - 1
    d = tl.arange(0, D_PAD)
    row = at + tl.arange(0, BLOCK_Q)
    row_64 = row.to(tl.int64)
    valid = row < total
    row_mask = valid[:, None] & (d < D)[None, :]
    head_64 = head.to(tl.int64)
    queries = tl.load(
        q + row_64[:, None] * stride_qt + head_64 * stride_qh + d[None, :], mask=row_mask, other=0.0
    )
    first_key = tl.load(start + row, mask=valid, other=0)
    last_key = tl.load(stop + row, mask=valid, other=0)
    k_head = k + (head // GROUP).to(tl.int64) * stride_kh
    v_head = v + (head // GROUP).to(tl.int64) * stride_vh
    row_one = row.to(tl.uint32)
    row_two = row_one
    if HAS_DROPOUT:
        row_one, row_two = row_keys(tl.load(seed), row, head)
    result = tl.zeros([BLOCK_Q, D_PAD], tl.float32)
    norm = tl.zeros([BLOCK_Q], tl.float32)
    largest = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    low = tl.load(start + at)
    high = tl.load(stop + last)
    inner, outer = whole_tiles(low, tl.load(start + last), tl.load(stop + at), high, BLOCK_K)
    for tile in range(low, inner, BLOCK_K):
        result, norm, largest = _fwd_tile(
            result, norm, largest, queries, k_head, v_head, tile, total, first_key, last_key,
            row_one, row_two, stride_kt, stride_vt, scale_log2, softcap, threshold,
            D, D_PAD, BLOCK_K, True, HAS_SOFTCAP, HAS_DROPOUT, PRECISION,
        )  # fmt: skip
    for tile in range(inner, outer, BLOCK_K):
        result, norm, largest = _fwd_tile(
            result, norm, largest, queries, k_head, v_head, tile, total, first_key, last_key,
            row_one, row_two, stride_kt, stride_vt, scale_log2, softcap, threshold,
            D, D_PAD, BLOCK_K, False, HAS_SOFTCAP, HAS_DROPOUT, PRECISION,
        )  # fmt: skip
    for tile in range(outer, high, BLOCK_K):
        result, norm, largest = _fwd_tile(
            result, norm, largest, queries, k_head, v_head, tile, total, first_key, last_key,
            row_one, row_two, stride_kt, stride_vt, scale_log2, softcap, threshold,
            D, D_PAD, BLOCK_K, True, HAS_SOFTCAP, HAS_DROPOUT, PRECISION,
        )  # fmt: skip
    if HAS_SECOND:
        first_key, last_key, low, high = second_span(start2, stop2, row, valid)
        for tile in range(low, high, BLOCK_K):
            # Parents need not be neighbours: what lies between them is stepped over.
            touched = tl.max(
                ((first_key < tile + BLOCK_K) & (last_key > tile) & (first_key < last_key)).to(
                    tl.int32
                ),
                0,
            )
            if touched > 0:
                result, norm, largest = _fwd_tile(
                    result, norm, largest, queries, k_head, v_head, tile, total, first_key,
                    last_key, row_one, row_two, stride_kt, stride_vt, scale_log2, softcap,
                    threshold, D, D_PAD, BLOCK_K, True, HAS_SOFTCAP, HAS_DROPOUT, PRECISION,
                )  # fmt: skip
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
    tl.store(lse + head_64 * total + row, (largest + tl.log2(norm)) * LN2, mask=valid)
