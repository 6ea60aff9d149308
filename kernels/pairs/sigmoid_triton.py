"""The pairwise sigmoid loss in Triton: loss and weights of all pairs in one walk over the tiles.

Legend: n image rows (this rank's), N text rows (all ranks'), row i belongs to column first + i;
M rows and C columns of a tile. A pair knows nothing of the others, so its gradient is known with
its loss: one product a tile, and two more for the gradients.
"""
# To pyright a call of a compiled function never returns.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from ..attention_triton.common import LN2, LOG2E
from .common_triton import halves, hidden, similarities, unit_factor

__all__ = ["rescale_kernel", "sigmoid_kernel"]


@triton.jit
def _log1p(x):
    """``log(1 + x)`` for x in [0, 1], to 1.3e-7 of itself.

    ``log`` of a rounded ``1 + x`` would be off by a thousandth where x is 5e-5, as that of most
    pairs is; x times the polynomial that meets ``log1p(x) / x`` in ten Chebyshev points.
    """
    y = tl.fma(x, -0.0031760570127516985, 0.019542526453733444)
    y = tl.fma(x, y, -0.056373611092567444)
    y = tl.fma(x, y, 0.10543623566627502)
    y = tl.fma(x, y, -0.1526966691017151)
    y = tl.fma(x, y, 0.1966327428817749)
    y = tl.fma(x, y, -0.24951615929603577)
    y = tl.fma(x, y, 0.33329710364341736)
    y = tl.fma(x, y, -0.49999892711639404)
    return x * tl.fma(x, y, 1.0)


@triton.jit
def _pairs(
    product,
    factor,
    bias,
    row_id,
    column,
    column_ids,
    weights,
    columns,
    over,
    BOOST: tl.constexpr,
    GRADIENTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PIECE: tl.constexpr,
):
    """Store a tile's weights, PIECE columns at a time; return each row's loss, dscale and dbias."""
    if BLOCK_C > PIECE:
        HALF: tl.constexpr = BLOCK_C // 2
        left, right = halves(product, BLOCK_M, HALF)
        loss, dscale, dbias = _pairs(
            left, factor, bias, row_id, column, column_ids, weights, columns, over, BOOST,
            GRADIENTS, BLOCK_M, HALF, PIECE,
        )  # fmt: skip
        more_loss, more_dscale, more_dbias = _pairs(
            right, factor, bias, row_id, column + HALF, column_ids, weights, columns, over + HALF,
            BOOST, GRADIENTS, BLOCK_M, HALF, PIECE,
        )  # fmt: skip
        loss += more_loss
        dscale += more_dscale
        dbias += more_dbias
    else:
        c = tl.arange(0, BLOCK_C)
        column_id = column + c
        if column_ids is not None:
            column_id = tl.load(column_ids + column + c, mask=column + c < columns, other=-2)
        same = row_id[:, None] == column_id[None, :]
        # The logit, in units of log2, as seen from where 0 loss lies: down, for positives up.
        logit = tl.fma(product, factor, bias)
        logit = tl.where(same, -logit, logit)
        term = tl.exp2(-tl.abs(logit))
        loss = tl.sum(tl.maximum(logit, 0.0) * LN2 + _log1p(term), 1)
        dscale = loss
        dbias = loss
        if GRADIENTS:
            weight = tl.where(logit < 0.0, term, 1.0) / (1.0 + term)
            weight = tl.where(same, -weight, weight)
            dscale = tl.sum(weight * product, 1)
            dbias = tl.sum(weight, 1)
            if weights is not None:
                place = weights[:, None] + (over + c)[None, :]
                tl.store(place, (weight * BOOST).to(place.dtype.element_ty))
    return loss, dscale, dbias


@triton.jit(
    do_not_specialize=["row", "rows", "column", "columns", "first", "across", "tile", "tiles"]
)
def sigmoid_kernel(
    image,
    text,
    scale,
    logit_bias,
    row_ids,
    column_ids,
    weights,
    parts,
    row,
    rows,
    column,
    columns,
    first,
    across,
    tile,
    tiles,
    padded,
    stride_image,
    stride_text,
    span,
    BOOST: tl.constexpr,
    GRADIENTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PIECE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of a block of pairs; grid (tiles down * tiles across,).

    A pair's weight is sigmoid(logit) - target, times BOOST. ``parts`` [3, tiles]: sums of the loss
    and, with GRADIENTS, of weight * product and weight, one a tile, from ``tile`` on. ``weights``
    [.., span]: where the block is written, or None.
    """
    down = tl.program_id(0) // across * BLOCK_M
    over = tl.program_id(0) % across * BLOCK_C
    m = tl.arange(0, BLOCK_M)
    top, left = row + down, column + over
    factor = unit_factor(scale)
    bias = tl.load(logit_bias) * LOG2E
    product = similarities(
        image + top.to(tl.int64) * stride_image, text + left.to(tl.int64) * stride_text,
        tl.minimum(m, rows - 1 - top), tl.minimum(tl.arange(0, BLOCK_C), columns - 1 - left),
        stride_image, stride_text, padded, BLOCK_M, BLOCK_C, BLOCK_K, PRECISION,
    )  # fmt: skip
    product = hidden(product, factor, top, rows, left, columns, BLOCK_M, BLOCK_C)
    known = top + m < rows
    row_id = tl.where(known, first + top + m, -1)
    if row_ids is not None:
        row_id = tl.load(row_ids + top + m, mask=known, other=-1)
    place = None
    if weights is not None:
        place = weights + (down + m) * span
    losses, dscales, dbiases = _pairs(
        product, factor, bias, row_id, left, column_ids, place, columns, over, BOOST, GRADIENTS,
        BLOCK_M, BLOCK_C, PIECE,
    )  # fmt: skip
    parts += tile + tl.program_id(0)
    tl.store(parts, tl.sum(losses, 0))
    if GRADIENTS:
        tl.store(parts + tiles, tl.sum(dscales, 0))
        tl.store(parts + 2 * tiles, tl.sum(dbiases, 0))


@triton.jit(do_not_specialize=["programs"])
def rescale_kernel(
    one, other, upstream, one_size, other_size, programs, constant, BLOCK: tl.constexpr
):
    """Multiply two contiguous tensors in place by ``upstream * constant``.

    Grid (``programs`` for the first + those of the second).
    """
    factor = tl.load(upstream) * constant
    program = tl.program_id(0)
    if program < programs:
        at = program.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(one + at, mask=at < one_size).to(tl.float32) * factor
        tl.store(one + at, value.to(one.dtype.element_ty), mask=at < one_size)
    else:
        at = (program - programs).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(other + at, mask=at < other_size).to(tl.float32) * factor
        tl.store(other + at, value.to(other.dtype.element_ty), mask=at < other_size)
