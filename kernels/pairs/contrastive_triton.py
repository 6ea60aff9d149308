"""Symmetric InfoNCE in Triton: one product gives the statistics of both directions.

Legend: n image rows (this rank's), N text rows (all ranks'), row i belongs to column first + i;
M rows and C columns of a tile. Logits are kept in units of log2 (``exp2`` is one instruction):
logit = product * factor with factor = logit_scale * log2(e). A log-sum-exp is two numbers, the
shift (a maximum) and the log2 of the sum of ``exp2(logit - shift)``, and a row's positive is its
gap to the shift: the loss of a well-learnt row, 1e-4 beside logits of 100, would be lost in a
rounded difference. ``fma(product, factor, -shift)`` rounds once, forward and backward alike.
"""
# To pyright a call of a compiled function never returns.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from ..attention_triton.common import LN2
from .common_triton import halves, hidden, similarities, unit_factor

__all__ = ["loss_kernel", "merge_kernel", "statistics_kernel", "weights_kernel"]

NONE = tl.constexpr(-1e30)
"""The shift of an empty sum: finite, so that differences of two are numbers."""


@triton.jit
def _count_in(
    product,
    factor,
    shift,
    total,
    positive,
    row_id,
    column_ids,
    column_out,
    at,
    columns,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PIECE: tl.constexpr,
):
    """Return the statistics of a tile's rows, store those of its columns.

    PIECE columns at a time: registers do not hold the tile in every form at once.
    """
    if BLOCK_C > PIECE:
        HALF: tl.constexpr = BLOCK_C // 2
        left, right = halves(product, BLOCK_M, HALF)
        shift, total, positive = _count_in(
            left, factor, shift, total, positive, row_id, column_ids, column_out, at, columns,
            BLOCK_M, HALF, PIECE,
        )  # fmt: skip
        shift, total, positive = _count_in(
            right, factor, shift, total, positive, row_id, column_ids, column_out, at + HALF,
            columns, BLOCK_M, HALF, PIECE,
        )  # fmt: skip
    else:
        column = at + tl.arange(0, BLOCK_C)
        known = column < columns
        logits = product * factor
        column_shift = tl.max(logits, 0)
        higher = tl.maximum(shift, tl.max(logits, 1))
        row_terms = tl.exp2(tl.fma(product, factor, -higher[:, None]))
        total = total * tl.exp2(shift - higher) + tl.sum(row_terms, 1)
        shift = higher
        column_terms = tl.exp2(tl.fma(product, factor, -column_shift[None, :]))
        tl.store(column_out + column, column_shift, mask=known)
        tl.store(column_out + columns + column, tl.sum(column_terms, 0), mask=known)
        if column_ids is not None:
            same = row_id[:, None] == tl.load(column_ids + column, mask=known, other=-2)[None, :]
            positive += tl.sum(tl.where(same, product, 0.0), 1)
    return shift, total, positive


@triton.jit(do_not_specialize=["row_begin", "rows", "columns", "first"])
def statistics_kernel(
    image,
    text,
    scale,
    row_ids,
    column_ids,
    row_parts,
    column_parts,
    positives,
    row_begin,
    rows,
    columns,
    first,
    height,
    padded,
    stride_image,
    stride_text,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PIECE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of a stripe of ``height`` rows; grid (row blocks * column blocks,).

    ``row_parts`` [column blocks, 2 or 3, height]: shift, sum and, with ids, the sum of the
    positives' products. ``column_parts`` [row blocks, 2, N]: shift and sum over the M rows.
    ``positives`` [n]: without ids, the products of the pairs.
    """
    blocks = height // BLOCK_M
    block = tl.program_id(0) % blocks  # texts stay in the cache while all rows pass by
    part = tl.program_id(0) // blocks
    m = tl.arange(0, BLOCK_M)
    c = tl.arange(0, BLOCK_C)
    top, left = row_begin + block * BLOCK_M, part * BLOCK_C
    factor = unit_factor(scale)
    product = similarities(
        image + top.to(tl.int64) * stride_image, text + left.to(tl.int64) * stride_text,
        tl.minimum(m, rows - 1 - top), tl.minimum(c, columns - 1 - left), stride_image, stride_text,
        padded, BLOCK_M, BLOCK_C, BLOCK_K, PRECISION,
    )  # fmt: skip
    product = hidden(product, factor, top, rows, left, columns, BLOCK_M, BLOCK_C)
    row_id = m
    if row_ids is not None:
        row_id = tl.load(row_ids + top + m, mask=top + m < rows, other=-1)
        row_out = row_parts + part.to(tl.int64) * 3 * height + block * BLOCK_M
    else:
        row_out = row_parts + part.to(tl.int64) * 2 * height + block * BLOCK_M
        ahead = left - first - top  # of the tile's first row lies its own column
        if (ahead < BLOCK_M) & (ahead > -BLOCK_C):
            own = m[:, None] == (ahead + c)[None, :]
            found = tl.sum(tl.where(own, product, 0.0), 1)
            there = (m >= ahead) & (m < ahead + BLOCK_C) & (top + m < rows)
            tl.store(positives + top + m, found, mask=there)
    shift, total, positive = _count_in(
        product, factor, tl.full([BLOCK_M], NONE, tl.float32), tl.zeros([BLOCK_M], tl.float32),
        tl.zeros([BLOCK_M], tl.float32), row_id, column_ids,
        column_parts + block.to(tl.int64) * 2 * columns, left, columns, BLOCK_M, BLOCK_C, PIECE,
    )  # fmt: skip
    tl.store(row_out + m, shift)
    tl.store(row_out + height + m, total)
    if row_ids is not None:
        tl.store(row_out + 2 * height + m, positive)


@triton.jit
def _merge(parts, at, count, distance, offset, mask, shift, total, BLOCK: tl.constexpr):
    """Take ``count`` partial sums, ``distance`` apart, into one: shift and sum [BLOCK]."""
    for part in range(0, count):
        place = parts + tl.cast(part, tl.int64) * distance + at
        there = tl.load(place, mask=mask, other=NONE)
        terms = tl.load(place + offset, mask=mask, other=0.0)
        higher = tl.maximum(shift, there)
        total = total * tl.exp2(shift - higher) + terms * tl.exp2(there - higher)
        shift = higher
    return shift, total


@triton.jit(do_not_specialize=["row_begin", "rows", "columns", "row_programs", "parts", "blocks"])
def merge_kernel(
    row_parts,
    column_parts,
    positives,
    scale,
    shares,
    row_stats,
    column_stats,
    row_begin,
    rows,
    columns,
    height,
    row_programs,
    parts,
    blocks,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Merge a stripe's partial sums in fixed order; grid (``row_programs`` + column programs).

    ``parts`` of each row, ``blocks`` of each column.

    ``row_stats`` [3, n]: shift, log2 of the sum, gap of the (mean) positive to the shift.
    ``column_stats`` [2, N]: shift and, unless it is the LAST stripe, the sum so far; then its log2.
    """
    program = tl.program_id(0)
    if program < row_programs:
        at = program * BLOCK + tl.arange(0, BLOCK)
        row = row_begin + at
        known = (at < height) & (row < rows)
        shift = tl.full([BLOCK], NONE, tl.float32)
        total = tl.zeros([BLOCK], tl.float32)
        distance = 2 * height
        if shares is not None:
            distance = 3 * height
        shift, total = _merge(row_parts, at, parts, distance, height, known, shift, total, BLOCK)
        if shares is not None:
            positive = tl.zeros([BLOCK], tl.float32)
            for part in range(0, parts):
                place = row_parts + tl.cast(part, tl.int64) * distance + 2 * height + at
                positive += tl.load(place, mask=known, other=0.0)
            positive *= tl.load(shares + row, mask=known, other=0.0)
        else:
            positive = tl.load(positives + row, mask=known, other=0.0)
        out = row_stats + row
        tl.store(out, shift, mask=known)
        tl.store(out + rows, tl.log2(tl.where(known, total, 1.0)), mask=known)
        gap = -tl.fma(positive, unit_factor(scale), -shift)
        tl.store(out + 2 * rows.to(tl.int64), gap, mask=known)
    else:
        at = (program - row_programs) * BLOCK + tl.arange(0, BLOCK)
        known = at < columns
        out = column_stats + at
        if FIRST:
            shift = tl.full([BLOCK], NONE, tl.float32)
            total = tl.zeros([BLOCK], tl.float32)
        else:
            shift = tl.load(out, mask=known, other=NONE)
            total = tl.load(out + columns, mask=known, other=0.0)
        shift, total = _merge(
            column_parts, at, blocks, 2 * columns.to(tl.int64), columns, known, shift, total, BLOCK
        )
        if LAST:
            total = tl.log2(tl.where(known, total, 1.0))
        tl.store(out, shift, mask=known)
        tl.store(out + columns, total, mask=known)


@triton.jit(do_not_specialize=["rows", "columns", "first"])
def loss_kernel(row_stats, column_stats, loss, rows, columns, first, constant, BLOCK: tl.constexpr):
    """Add up both cross-entropies of all rows, times ``constant``; one program, fixed order."""
    found = tl.zeros([BLOCK], tl.float32)
    for at in range(0, rows, BLOCK):
        row = at + tl.arange(0, BLOCK)
        known = row < rows
        there = row_stats + row
        shift = tl.load(there, mask=known, other=0.0)
        gap = tl.load(there + 2 * rows.to(tl.int64), mask=known, other=0.0)
        there = column_stats + first + row
        column_gap = (tl.load(there, mask=known, other=0.0) - shift) + gap
        found += tl.load(row_stats + rows + row, mask=known, other=0.0) + gap
        found += tl.load(there + columns, mask=known, other=0.0) + column_gap
    tl.store(loss, tl.sum(found, 0) * (constant * LN2))


@triton.jit
def _weigh(
    product,
    factor,
    row_id,
    row_shift,
    row_log,
    row_share,
    column,
    column_stats,
    column_ids,
    row_weight,
    column_weights,
    weights,
    columns,
    over,
    BOOST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PIECE: tl.constexpr,
):
    """Store the weights of a tile, PIECE columns at a time; return the sums of weight * product."""
    if BLOCK_C > PIECE:
        HALF: tl.constexpr = BLOCK_C // 2
        left, right = halves(product, BLOCK_M, HALF)
        dscale = _weigh(
            left, factor, row_id, row_shift, row_log, row_share, column, column_stats, column_ids,
            row_weight, column_weights, weights, columns, over, BOOST, BLOCK_M, HALF, PIECE,
        )  # fmt: skip
        dscale += _weigh(
            right, factor, row_id, row_shift, row_log, row_share, column + HALF, column_stats,
            column_ids, row_weight, column_weights, weights, columns, over + HALF, BOOST, BLOCK_M,
            HALF, PIECE,
        )  # fmt: skip
    else:
        c = tl.arange(0, BLOCK_C)
        column_safe = tl.minimum(column + c, columns - 1)
        column_shift = tl.load(column_stats + column_safe)
        column_log = tl.load(column_stats + columns + column_safe)
        by_row = tl.exp2(tl.fma(product, factor, -row_shift[:, None]) - row_log[:, None])
        by_column = tl.exp2(tl.fma(product, factor, -column_shift[None, :]) - column_log[None, :])
        column_id = column + c
        if column_ids is not None:
            column_id = tl.load(column_ids + column + c, mask=column + c < columns, other=-2)
        by_row -= tl.where(row_id[:, None] == column_id[None, :], row_share[:, None], 0.0)
        if column_weights is not None:
            by_row *= tl.load(row_weight)
            by_column *= tl.load(column_weights + column_safe)[None, :]
        weight = by_row + by_column
        if weights is not None:
            place = weights[:, None] + (over + c)[None, :]
            tl.store(place, (weight * BOOST).to(place.dtype.element_ty))
        dscale = tl.sum(weight * product, 1)
    return dscale


@triton.jit(do_not_specialize=["row", "rows", "column", "columns", "first", "across", "tile"])
def weights_kernel(
    image,
    text,
    scale,
    row_ids,
    column_ids,
    shares,
    row_stats,
    column_stats,
    row_weight,
    column_weights,
    weights,
    dscale,
    row,
    rows,
    column,
    columns,
    first,
    across,
    tile,
    padded,
    stride_image,
    stride_text,
    span,
    BOOST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PIECE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of the weights of a block of pairs; grid (tiles down * tiles across,).

    A pair's weight is p_row + p_column - 2 target, times BOOST (half precision keeps more of it).
    ``row_stats`` [3, n], ``column_stats`` [2, N]: of `merge_kernel`; ``shares`` [n]: one over the
    positives of a row, None: it has one. ``row_weight`` [1] and ``column_weights`` [N]: upstream
    gradients where they differ, or None. ``weights`` [.., span]: where the block is written, or
    None; ``dscale``: one sum a tile, from ``tile`` on.
    """
    down = tl.program_id(0) // across * BLOCK_M
    over = tl.program_id(0) % across * BLOCK_C
    m = tl.arange(0, BLOCK_M)
    top, left = row + down, column + over
    factor = unit_factor(scale)
    product = similarities(
        image + top.to(tl.int64) * stride_image, text + left.to(tl.int64) * stride_text,
        tl.minimum(m, rows - 1 - top), tl.minimum(tl.arange(0, BLOCK_C), columns - 1 - left),
        stride_image, stride_text, padded, BLOCK_M, BLOCK_C, BLOCK_K, PRECISION,
    )  # fmt: skip
    product = hidden(product, factor, top, rows, left, columns, BLOCK_M, BLOCK_C)
    known = top + m < rows
    row_safe = tl.minimum(top + m, rows - 1)
    row_id = tl.where(known, first + top + m, -1)
    if row_ids is not None:
        row_id = tl.load(row_ids + top + m, mask=known, other=-1)
    row_share = tl.full([BLOCK_M], 2.0, tl.float32)
    if shares is not None:
        row_share *= tl.load(shares + row_safe)
    place = None
    if weights is not None:
        place = weights + (down + m) * span
    row_shift = tl.load(row_stats + row_safe)
    row_log = tl.load(row_stats + rows + row_safe)
    dscales = _weigh(
        product, factor, row_id, row_shift, row_log, row_share, left, column_stats, column_ids,
        row_weight, column_weights, place, columns, over, BOOST, BLOCK_M, BLOCK_C, PIECE,
    )  # fmt: skip
    tl.store(dscale + tile + tl.program_id(0), tl.sum(dscales, 0))
