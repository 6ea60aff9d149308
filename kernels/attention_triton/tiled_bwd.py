"""The general path, backward: two kernels, each output written by one program, no atomics.

`tiled_dq_kernel` owns query rows: it forms delta = rowsum(out * dout) on the way, walks over the
keys like the forward and writes dQ. `tiled_dkv_kernel` owns key rows and walks over the query
rows that see them, by the transposed intervals. Seven products instead of five, in exchange for
the same bits on every run (Dao 2023 §3.1 has the five-product form with atomics).
Legend: Q query rows, C key rows, D head dimension (padded to D_PAD).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .common import LOG2E, dot, dot_add, elements, kept, row_keys, tanh
from .tiled import second_span, whole_tiles


@triton.jit
def _dq_tile(
    dqueries,
    queries,
    douts,
    lses,
    delta,
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
    scale,
    softcap,
    threshold,
    keep_scale,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    BLOCK_K: tl.constexpr,
    MASKED: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    d = tl.arange(0, D_PAD)
    key = at + tl.arange(0, BLOCK_K)
    key_64 = key.to(tl.int64)
    if MASKED or D != D_PAD:
        key_mask = (key < total)[:, None] & (d < D)[None, :]
        keys = tl.load(k_head + key_64[:, None] * stride_kt + d[None, :], mask=key_mask, other=0.0)
        values = tl.load(
            v_head + key_64[:, None] * stride_vt + d[None, :], mask=key_mask, other=0.0
        )
    else:
        keys = tl.load(k_head + key_64[:, None] * stride_kt + d[None, :])
        values = tl.load(v_head + key_64[:, None] * stride_vt + d[None, :])
    scores = dot(queries, tl.trans(keys), PRECISION)  # [Q, C]
    if HAS_SOFTCAP:
        bent = tanh(scores * (scale / softcap))
        scores = bent * (softcap * LOG2E)
    else:
        scores = scores * (scale * LOG2E)
    weights = tl.exp2(scores - lses[:, None])
    if MASKED:
        seen = (key[None, :] >= first_key[:, None]) & (key[None, :] < last_key[:, None])
        weights = tl.where(seen, weights, 0.0)
    dweights = dot(douts, tl.trans(values), PRECISION)  # [Q, C]
    if HAS_DROPOUT:
        keep = kept(row_one[:, None], row_two[:, None], key[None, :], threshold)
        dweights = tl.where(keep, dweights * keep_scale, 0.0)
    dscores = weights * (dweights - delta[:, None])
    if HAS_SOFTCAP:
        dscores = dscores * (1.0 - bent * bent)
    return dot_add(dscores.to(keys.dtype), keys, dqueries, PRECISION)


@triton.jit
def tiled_dq_kernel(
    q,
    k,
    v,
    out,
    dout,
    lse,
    delta,
    dq,
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
    scale,
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
    """Grid (ceil(T / BLOCK_Q) * H,). ``out``, ``dout``, ``dq`` [T, H, D]; ``delta`` [H, T]."""
    stride_qt = elements(stride_qt)
    stride_qh = elements(stride_qh)
    stride_kt = elements(stride_kt)
    stride_kh = elements(stride_kh)
    stride_vt = elements(stride_vt)
    stride_vh = elements(stride_vh)
    head = tl.program_id(0) % HEADS
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
    place = (row_64[:, None] * HEADS + head) * D + d[None, :]
    douts = tl.load(dout + place, mask=row_mask, other=0.0)
    outs = tl.load(out + place, mask=row_mask, other=0.0)
    row_delta = tl.sum(outs.to(tl.float32) * douts.to(tl.float32), 1)
    tl.store(delta + head_64 * total + row, row_delta, mask=valid)
    lses = tl.load(lse + head_64 * total + row, mask=valid, other=0.0) * LOG2E
    first_key = tl.load(start + row, mask=valid, other=0)
    last_key = tl.load(stop + row, mask=valid, other=0)
    k_head = k + (head // GROUP).to(tl.int64) * stride_kh
    v_head = v + (head // GROUP).to(tl.int64) * stride_vh
    row_one = row.to(tl.uint32)
    row_two = row_one
    if HAS_DROPOUT:
        row_one, row_two = row_keys(tl.load(seed), row, head)
    dqueries = tl.zeros([BLOCK_Q, D_PAD], tl.float32)
    low = tl.load(start + at)
    high = tl.load(stop + last)
    inner, outer = whole_tiles(low, tl.load(start + last), tl.load(stop + at), high, BLOCK_K)
    for tile in range(low, inner, BLOCK_K):
        dqueries = _dq_tile(
            dqueries, queries, douts, lses, row_delta, k_head, v_head, tile, total, first_key,
            last_key, row_one, row_two, stride_kt, stride_vt, scale, softcap, threshold, keep_scale,
            D, D_PAD, BLOCK_K, True, HAS_SOFTCAP, HAS_DROPOUT, PRECISION,
        )  # fmt: skip
    for tile in range(inner, outer, BLOCK_K):
        dqueries = _dq_tile(
            dqueries, queries, douts, lses, row_delta, k_head, v_head, tile, total, first_key,
            last_key, row_one, row_two, stride_kt, stride_vt, scale, softcap, threshold, keep_scale,
            D, D_PAD, BLOCK_K, False, HAS_SOFTCAP, HAS_DROPOUT, PRECISION,
        )  # fmt: skip
    for tile in range(outer, high, BLOCK_K):
        dqueries = _dq_tile(
            dqueries, queries, douts, lses, row_delta, k_head, v_head, tile, total, first_key,
            last_key, row_one, row_two, stride_kt, stride_vt, scale, softcap, threshold, keep_scale,
            D, D_PAD, BLOCK_K, True, HAS_SOFTCAP, HAS_DROPOUT, PRECISION,
        )  # fmt: skip
    if HAS_SECOND:
        first_key, last_key, low, high = second_span(start2, stop2, row, valid)
        for tile in range(low, high, BLOCK_K):
            touched = tl.max(
                ((first_key < tile + BLOCK_K) & (last_key > tile) & (first_key < last_key)).to(
                    tl.int32
                ),
                0,
            )
            if touched > 0:
                dqueries = _dq_tile(
                    dqueries, queries, douts, lses, row_delta, k_head, v_head, tile, total,
                    first_key, last_key, row_one, row_two, stride_kt, stride_vt, scale, softcap,
                    threshold, keep_scale, D, D_PAD, BLOCK_K, True, HAS_SOFTCAP, HAS_DROPOUT,
                    PRECISION,
                )  # fmt: skip
    tl.store(dq + place, (dqueries * scale).to(dq.dtype.element_ty), mask=row_mask)


@triton.jit
def _dkv_tile(
    dkeys,
    dvalues,
    keys,
    values,
    q_head,
    dout,
    lse_head,
    delta_head,
    seed,
    at,
    key,
    total,
    head,
    low_row,
    high_row,
    start2,
    stop2,
    stride_qt,
    scale,
    softcap,
    threshold,
    keep_scale,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    MASKED: tl.constexpr,
    SECOND: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    d = tl.arange(0, D_PAD)
    row = at + tl.arange(0, BLOCK_Q)
    row_64 = row.to(tl.int64)
    valid = row < total
    place = (row_64[:, None] * HEADS + head) * D + d[None, :]
    if MASKED or D != D_PAD:
        row_mask = valid[:, None] & (d < D)[None, :]
        queries = tl.load(
            q_head + row_64[:, None] * stride_qt + d[None, :], mask=row_mask, other=0.0
        )
        douts = tl.load(dout + place, mask=row_mask, other=0.0)
        lses = tl.load(lse_head + row, mask=valid, other=0.0) * LOG2E
        delta = tl.load(delta_head + row, mask=valid, other=0.0)
    else:
        queries = tl.load(q_head + row_64[:, None] * stride_qt + d[None, :])
        douts = tl.load(dout + place)
        lses = tl.load(lse_head + row) * LOG2E
        delta = tl.load(delta_head + row)
    scores = dot(keys, tl.trans(queries), PRECISION)  # [C, Q]
    if HAS_SOFTCAP:
        bent = tanh(scores * (scale / softcap))
        scores = bent * (softcap * LOG2E)
    else:
        scores = scores * (scale * LOG2E)
    weights = tl.exp2(scores - lses[None, :])
    if SECOND:
        one = tl.load(start2 + row, mask=valid, other=0)
        two = tl.load(stop2 + row, mask=valid, other=0)
        seen = (key[:, None] >= one[None, :]) & (key[:, None] < two[None, :])
        weights = tl.where(seen, weights, 0.0)
    elif MASKED:
        seen = (row[None, :] >= low_row[:, None]) & (row[None, :] < high_row[:, None])
        weights = tl.where(seen, weights, 0.0)
    if HAS_DROPOUT:
        row_one, row_two = row_keys(tl.load(seed), row, head)
        keep = kept(row_one[None, :], row_two[None, :], key[:, None], threshold)
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
    dkeys = dot_add(dscores.to(queries.dtype), queries, dkeys, PRECISION)
    return dkeys, dvalues


@triton.jit
def tiled_dkv_kernel(
    q,
    k,
    v,
    dout,
    lse,
    delta,
    dk,
    dv,
    q_start,
    q_stop,
    q_start2,
    q_stop2,
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
    scale,
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
    """Grid (ceil(T / BLOCK_K) * K,). ``dout`` [T, H, D]; ``dk``, ``dv`` [T, K, D]."""
    stride_qt = elements(stride_qt)
    stride_qh = elements(stride_qh)
    stride_kt = elements(stride_kt)
    stride_kh = elements(stride_kh)
    stride_vt = elements(stride_vt)
    stride_vh = elements(stride_vh)
    kv_head = tl.program_id(0) % (HEADS // GROUP)
    base = tl.program_id(0) // (HEADS // GROUP) * BLOCK_K
    last = tl.minimum(base + BLOCK_K, total) - 1
    d = tl.arange(0, D_PAD)
    key = base + tl.arange(0, BLOCK_K)
    key_64 = key.to(tl.int64)
    valid = key < total
    key_mask = valid[:, None] & (d < D)[None, :]
    kv_64 = kv_head.to(tl.int64)
    keys = tl.load(
        k + key_64[:, None] * stride_kt + kv_64 * stride_kh + d[None, :], mask=key_mask, other=0.0
    )
    values = tl.load(
        v + key_64[:, None] * stride_vt + kv_64 * stride_vh + d[None, :], mask=key_mask, other=0.0
    )
    low_row = tl.load(q_start + key, mask=valid, other=0)
    high_row = tl.load(q_stop + key, mask=valid, other=0)
    dkeys = tl.zeros([BLOCK_K, D_PAD], tl.float32)
    dvalues = tl.zeros([BLOCK_K, D_PAD], tl.float32)
    low = tl.load(q_start + base)
    high = tl.load(q_stop + last)
    inner, outer = whole_tiles(low, tl.load(q_start + last), tl.load(q_stop + base), high, BLOCK_Q)
    for member in range(GROUP):
        head = kv_head * GROUP + member
        head_64 = head.to(tl.int64)
        q_head = q + head_64 * stride_qh
        lse_head = lse + head_64 * total
        delta_head = delta + head_64 * total
        for tile in range(low, inner, BLOCK_Q):
            dkeys, dvalues = _dkv_tile(
                dkeys, dvalues, keys, values, q_head, dout, lse_head, delta_head, seed, tile,
                key, total, head, low_row, high_row, start2, stop2, stride_qt, scale, softcap,
                threshold, keep_scale, HEADS, D, D_PAD, BLOCK_Q, True, False, HAS_SOFTCAP,
                HAS_DROPOUT, PRECISION,
            )  # fmt: skip
        for tile in range(inner, outer, BLOCK_Q):
            dkeys, dvalues = _dkv_tile(
                dkeys, dvalues, keys, values, q_head, dout, lse_head, delta_head, seed, tile,
                key, total, head, low_row, high_row, start2, stop2, stride_qt, scale, softcap,
                threshold, keep_scale, HEADS, D, D_PAD, BLOCK_Q, False, False, HAS_SOFTCAP,
                HAS_DROPOUT, PRECISION,
            )  # fmt: skip
        for tile in range(outer, high, BLOCK_Q):
            dkeys, dvalues = _dkv_tile(
                dkeys, dvalues, keys, values, q_head, dout, lse_head, delta_head, seed, tile,
                key, total, head, low_row, high_row, start2, stop2, stride_qt, scale, softcap,
                threshold, keep_scale, HEADS, D, D_PAD, BLOCK_Q, True, False, HAS_SOFTCAP,
                HAS_DROPOUT, PRECISION,
            )  # fmt: skip
        if HAS_SECOND:
            _, _, low2, high2 = second_span(q_start2, q_stop2, key, valid)
            for tile in range(low2, high2, BLOCK_Q):
                row = tile + tl.arange(0, BLOCK_Q)
                one = tl.load(start2 + row, mask=row < total, other=0)
                two = tl.load(stop2 + row, mask=row < total, other=0)
                touched = tl.max(
                    ((one < base + BLOCK_K) & (two > base) & (one < two)).to(tl.int32), 0
                )
                if touched > 0:
                    dkeys, dvalues = _dkv_tile(
                        dkeys, dvalues, keys, values, q_head, dout, lse_head, delta_head, seed,
                        tile, key, total, head, low_row, high_row, start2, stop2, stride_qt, scale,
                        softcap, threshold, keep_scale, HEADS, D, D_PAD, BLOCK_Q, True, True,
                        HAS_SOFTCAP, HAS_DROPOUT, PRECISION,
                    )  # fmt: skip
    place = (key_64[:, None] * (HEADS // GROUP) + kv_head) * D + d[None, :]
    tl.store(dk + place, (dkeys * scale).to(dk.dtype.element_ty), mask=key_mask)
    tl.store(dv + place, (dvalues * keep_scale).to(dv.dtype.element_ty), mask=key_mask)
