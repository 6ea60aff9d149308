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
# To pyright a call of a compiled function never returns.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from ..attention_triton.common import LOG2E, dot_add

__all__ = [
    "halves",
    "hidden",
    "products_kernel",
    "similarities",
    "total_kernel",
    "unit_factor",
]


@triton.jit
def unit_factor(scale):
    """What turns a product into a logit in units of log2; never 0, so that `hidden` is hidden."""
    factor = tl.load(scale) * LOG2E
    return tl.where(tl.abs(factor) < 1e-30, tl.where(factor < 0.0, -1e-30, 1e-30), factor)


@triton.jit
def hidden(product, factor, top, rows, left, columns, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr):
    """Give pairs beyond the last row or column of all a logit of -3e38, whose exponential is 0.

    Only tiles at the edge take the branch: inside it costs nothing, and what follows needs no mask.
    """
    if (left + BLOCK_C > columns) | (top + BLOCK_M > rows):
        known = (top + tl.arange(0, BLOCK_M) < rows)[:, None] & (
            left + tl.arange(0, BLOCK_C) < columns
        )[None, :]
        least = 3e38 / tl.maximum(tl.abs(factor), 1.0)
        product = tl.where(known, product, tl.where(factor < 0.0, least, -least))
    return product


@triton.jit
def halves(tile, BLOCK_M: tl.constexpr, HALF: tl.constexpr):
    """Cut a tile [M, 2 HALF] into its left and right columns; no data moves."""
    return tl.split(tl.permute(tl.reshape(tile, [BLOCK_M, 2, HALF]), [0, 2, 1]))


@triton.jit
def similarities(
    image,
    text,
    m,
    c,
    stride_image,
    stride_text,
    padded,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Inner products in fp32 [M, C]: rows m of ``image``, rows c of ``text``.

    Both pointers stand on the tile's first row (64-bit), the rows within it fit 32 bits: a tensor
    of 64-bit pointers would take twice the registers.
    """
    d = tl.arange(0, BLOCK_K)
    image_at = m[:, None] * stride_image + d[None, :]
    text_at = c[:, None] * stride_text + d[None, :]
    found = tl.zeros([BLOCK_M, BLOCK_C], tl.float32)
    for _ in range(0, padded, BLOCK_K):
        found = dot_add(
            tl.load(image + image_at), tl.trans(tl.load(text + text_at)), found, PRECISION
        )
        image += BLOCK_K
        text += BLOCK_K
    return found


@triton.jit
def _add(
    value,
    sums,
    low,
    row,
    row_stop,
    low_row,
    at,
    padded,
    first,
    last,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PIECE: tl.constexpr,
):
    """Add a tile [M, BLOCK_N], PIECE columns at a time: registers do not hold it twice."""
    if BLOCK_N > PIECE:
        HALF: tl.constexpr = BLOCK_N // 2
        left, right = halves(value, BLOCK_M, HALF)
        _add(
            left, sums, low, row, row_stop, low_row, at, padded, first, last, BLOCK_M, HALF, PIECE
        )  # fmt: skip
        _add(
            right, sums, low, row, row_stop, low_row, at + HALF, padded, first, last, BLOCK_M, HALF,
            PIECE,
        )  # fmt: skip
    else:
        m = tl.arange(0, BLOCK_M)
        d = at + tl.arange(0, BLOCK_N)
        inside = (row + m < row_stop)[:, None]
        place = sums + (row + m).to(tl.int64)[:, None] * padded + d[None, :]
        before = inside & (first == 0)
        value += tl.load(place, mask=before, other=0.0).to(tl.float32)
        low_place = None
        if low is not None:
            low_place = low + (low_row + m).to(tl.int64)[:, None] * padded + d[None, :]
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
    known,
    steps,
    span,
    stride,
    TRANSPOSED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A tile [M, BLOCK_N] of weights times rows of ``other``, in fp32.

    ``steps`` rows are walked over, a multiple of BLOCK_K; beyond ``known`` of them weights are zero
    and the last row is read again.
    """
    k = tl.arange(0, BLOCK_K)
    m = tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_N)
    found = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for step in range(0, steps, BLOCK_K):
        rows = tl.load(other + tl.minimum(k, known - 1 - step)[:, None] * stride + d[None, :])
        other += tl.cast(stride, tl.int64) * BLOCK_K
        if TRANSPOSED:
            weight = tl.load(weights + k[:, None] * span + m[None, :])
            weights += BLOCK_K * span
            found = dot_add(tl.trans(weight), rows, found, PRECISION)
        else:
            weight = tl.load(weights + m[:, None] * span + k[None, :])
            weights += BLOCK_K
            found = dot_add(weight, rows, found, PRECISION)
    return found


@triton.jit(
    do_not_specialize=[
        "image_tiles", "row", "row_stop", "column", "column_stop", "first_column", "last_column",
        "first_row", "last_row",
    ]
)  # fmt: skip
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
    first_column,
    last_column,
    first_row,
    last_row,
    height,
    span,
    padded,
    stride_image,
    stride_text,
    constant,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PIECE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add one block's part to both gradients; grid (tiles of dimage + tiles of dtext).

    ``weights`` [height, span] of the pairs [row, row_stop) x [column, column_stop), zero beyond.
    ``dimage`` [n, padded], ``dtext`` [N, padded] and what they rounded away: ``dimage_low``
    [height, padded] of these rows, ``dtext_low`` [N, padded], or None. Every part is multiplied by
    ``scale * upstream * constant``, either tensor may be None.
    """
    program = tl.program_id(0)
    across = padded // BLOCK_N
    factor = constant
    if scale is not None:
        factor *= tl.load(scale)
    if upstream is not None:
        factor *= tl.load(upstream)
    if program < image_tiles:
        own = program // across * BLOCK_M
        at = program % across * BLOCK_N
        value = _product(
            weights + own * span, text + column.to(tl.int64) * stride_text + at,
            column_stop - column, span, span, stride_text, False, BLOCK_M, BLOCK_N, BLOCK_K,
            PRECISION,
        )  # fmt: skip
        _add(
            value * factor, dimage, dimage_low, row + own, row_stop, own, at, padded, first_column,
            last_column, BLOCK_M, BLOCK_N, PIECE,
        )  # fmt: skip
    else:
        own = (program - image_tiles) // across * BLOCK_M
        at = (program - image_tiles) % across * BLOCK_N
        value = _product(
            weights + own, image + row.to(tl.int64) * stride_image + at, row_stop - row, height,
            span, stride_image, True, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION,
        )  # fmt: skip
        _add(
            value * factor, dtext, dtext_low, column + own, column_stop, column + own, at, padded,
            first_row, last_row, BLOCK_M, BLOCK_N, PIECE,
        )  # fmt: skip


@triton.jit(do_not_specialize=["count"])
def total_kernel(parts, upstream, out, rest, count, constant, BLOCK: tl.constexpr):
    """Sum each row of ``parts`` [k, count] and multiply; one program a row, fixed order.

    The first sum goes to ``out``, the others to ``rest`` [k - 1].
    """
    program = tl.program_id(0)
    parts += program.to(tl.int64) * count
    found = tl.zeros([BLOCK], tl.float32)
    for at in range(0, count, BLOCK):
        place = at + tl.arange(0, BLOCK)
        found += tl.load(parts + place, mask=place < count, other=0.0)
    total = tl.sum(found, 0) * constant
    if upstream is not None:
        total *= tl.load(upstream)
    if program == 0:
        tl.store(out, total)
    else:
        tl.store(rest + program - 1, total)
