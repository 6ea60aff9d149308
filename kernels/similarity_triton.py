"""What the losses over all pairs share: tiles of similarities, and the gradients they lead to.

Legend: n image rows, N text rows, D width; M image rows of a tile, C text rows of a tile. A loss
gives each pair a weight w (the derivative by its logit); the gradients are ``w @ text`` and
``wᵀ @ image``. Weights exist for one block of pairs at a time, as wide as fits the work space and
the L2 cache: written once, multiplied twice, overwritten by the next block. Computing the weights
anew for each of the two products would cost a third of all operations more (five products of
N x N x D instead of four), and one program could not hold sums of 512 columns beside its scores.

Sums that go over several blocks are kept as two numbers, the gradient in its own dtype and, in
bf16, what that rounded away: 16 bits together, half the memory of fp32, nothing left to convert.
"""
# ruff: noqa: ANN001, ANN202, SIM108  a kernel's arguments have the compiler's types

from __future__ import annotations

import triton
import triton.language as tl

from .attention_triton.common import dot_add

__all__ = ["products_kernel", "similarities", "total_kernel"]


@triton.jit
def similarities(
    image_rows,
    text_rows,
    width,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Inner products in fp32 [M, C] of rows that the pointers [M] and [C] begin."""
    d = tl.arange(0, BLOCK_K)
    image_at = image_rows[:, None] + d[None, :]
    text_at = text_rows[:, None] + d[None, :]
    found = tl.zeros([BLOCK_M, BLOCK_C], tl.float32)
    for _ in range(0, width, BLOCK_K):
        found = dot_add(tl.load(image_at), tl.trans(tl.load(text_at)), found, PRECISION)
        image_at += BLOCK_K
        text_at += BLOCK_K
    return found


@triton.jit
def _add(
    value,
    sums,
    low,
    row,
    low_row,
    row_stop,
    at,
    width,
    first,
    last,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PIECE: tl.constexpr,
):
    """Add a tile [M, BLOCK_N], PIECE columns at a time: registers do not hold it twice."""
    if BLOCK_N > PIECE:
        HALF: tl.constexpr = BLOCK_N // 2
        halves = tl.permute(tl.reshape(value, [BLOCK_M, 2, HALF]), [0, 2, 1])
        left, right = tl.split(halves)
        _add(left, sums, low, row, low_row, row_stop, at, width, first, last, BLOCK_M, HALF, PIECE)
        _add(
            right, sums, low, row, low_row, row_stop, at + HALF, width, first, last, BLOCK_M, HALF, PIECE
        )
    else:
        m = tl.arange(0, BLOCK_M)
        d = at + tl.arange(0, BLOCK_N)
        inside = (row + m < row_stop)[:, None] & (d < width)[None, :]
        place = sums + (row + m).to(tl.int64)[:, None] * width + d[None, :]
        before = inside & (first == 0)
        value += tl.load(place, mask=before, other=0.0).to(tl.float32)
        if low is not None:
            low_place = low + (low_row + m).to(tl.int64)[:, None] * width + d[None, :]
            value += tl.load(low_place, mask=before, other=0.0).to(tl.float32)
        high = value.to(sums.dtype.element_ty)
        tl.store(place, high, mask=inside)
        if low is not None:
            rest = (value - high.to(tl.float32)).to(low.dtype.element_ty)
            tl.store(low_place, rest, mask=inside & (last == 0))


@triton.jit
def _product(
    weights,
    other,
    sums,
    sums_low,
    own,
    own_row,
    own_low,
    own_stop,
    at,
    row,
    row_stop,
    steps,
    span,
    stride,
    width,
    first,
    last,
    factor,
    TRANSPOSED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PIECE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add a tile [M, BLOCK_N] of weights times rows [row, row_stop) of ``other`` to the sums.

    ``steps`` rows are walked over, a multiple of BLOCK_K; weights beyond ``row_stop`` are zero.
    """
    k = tl.arange(0, BLOCK_K)
    m = own + tl.arange(0, BLOCK_M)
    d = at + tl.arange(0, BLOCK_N)
    if TRANSPOSED:
        weight_at = weights + k[:, None] * span + m[None, :]
    else:
        weight_at = weights + m[:, None] * span + k[None, :]
    found = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for step in range(0, steps, BLOCK_K):
        there = tl.minimum(row + step + k, row_stop - 1).to(tl.int64)
        rows = tl.load(other + there[:, None] * stride + d[None, :])
        weight = tl.load(weight_at)
        if TRANSPOSED:
            found = dot_add(tl.trans(weight), rows, found, PRECISION)
            weight_at += BLOCK_K * span
        else:
            found = dot_add(weight, rows, found, PRECISION)
            weight_at += BLOCK_K
    found *= factor
    _add(
        found, sums, sums_low, own_row, own_low, own_stop, at, width, first, last, BLOCK_M, BLOCK_N, PIECE
    )


@triton.jit(do_not_specialize=["image_tiles", "row", "row_stop", "column", "column_stop", "first_column","last_column","first_row","last_row"])
def products_kernel(
    weights,
    image,
    text,
    dimage,
    dimage_low,
    dtext,
    dtext_low,
    scale,
    upstream,
    image_tiles,
    row,
    row_stop,
    column,
    column_stop,
    height,
    span,
    width,
    padded,
    stride_image,
    stride_text,
    constant,
    first_column,
    last_column,
    first_row,
    last_row,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PIECE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add one block's part to both gradients; grid (tiles of dimage + tiles of dtext).

    ``weights`` [height, span] of the pairs [row, row_stop) x [column, column_stop), zero beyond.
    """
    program = tl.program_id(0)
    parts = tl.cdiv(padded, BLOCK_N)
    factor = constant
    if scale is not None:
        factor *= tl.load(scale)
    if upstream is not None:
        factor *= tl.load(upstream)
    if program < image_tiles:
        own = program // parts * BLOCK_M
        at = program % parts * BLOCK_N
        _product(
            weights, text, dimage, dimage_low, own, row + own, own, row_stop, at, column,
            column_stop, span, span, stride_text, width, first_column, last_column, factor,
            False, BLOCK_M, BLOCK_N, BLOCK_K, PIECE, PRECISION,
        )  # fmt: skip
    else:
        own = (program - image_tiles) // parts * BLOCK_M
        at = (program - image_tiles) % parts * BLOCK_N
        _product(
            weights, image, dtext, dtext_low, own, column + own, column + own, column_stop, at, row,
            row_stop, height, span, stride_image, width, first_row, last_row, factor,
            True, BLOCK_M, BLOCK_N, BLOCK_K, PIECE, PRECISION,
        )  # fmt: skip
