"""Windows of stored pictures at a new size, tile by tile; called by the kernels of the image op.

Shares of pixels in pixels are ratios of whole numbers, made once a row and once a column of a tile.
Legend: H x W output pixels, R rows and C columns of a tile.
"""
# A call of a compiled function looks to a type checker as if it never returned.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["interpolated"]


@triton.jit
def _first(i, extent, reach, OUT: tl.constexpr):
    """First source pixel with a share in output pixel ``i`` of OUT made of ``extent``, at least 0.

    Positions are counted in 1 / (2 OUT) source pixels: the centre of output i is (2 i + 1) extent,
    that of source j is (2 j + 1) OUT, and shares fall linearly to 0 over ``reach``.
    """
    behind = (2 * i + 1) * extent - reach - OUT
    return tl.where(behind < 0, 0, behind // (2 * OUT) + 1)


@triton.jit
def _share(i, j, extent, reach, OUT: tl.constexpr):
    """Share of source pixel ``j`` in output pixel ``i``, a whole number; 0 outside."""
    share = reach - tl.abs((2 * j + 1) * OUT - (2 * i + 1) * extent)
    return tl.where(j < extent, tl.maximum(share, 0), 0)


@triton.jit
def _within(j, start, extent, stored):
    """Place of the window's pixel ``j``, whatever that is, inside of the picture."""
    return tl.minimum(start + tl.minimum(j, extent - 1), stored - 1)


@triton.jit
def _tap(
    red, green, blue, line, rows, ox, first, k, inverse, w, reach, left, stored_w, W: tl.constexpr
):
    """Add the k-th column's share of one line a row: ``line`` its address, ``rows`` its weight."""
    j = first + k
    weight = rows[None, :] * (_share(ox, j, w, reach, W).to(tl.float32) * inverse)[:, None]
    place = line[None, :] + (_within(j, left, w, stored_w) * 3)[:, None]
    red += weight * tl.load(place).to(tl.float32)
    green += weight * tl.load(place + 1).to(tl.float32)
    blue += weight * tl.load(place + 2).to(tl.float32)
    return red, green, blue


@triton.jit
def interpolated(
    source,
    stride_y,
    window,
    oy,
    ox,
    stored_h,
    stored_w,
    H: tl.constexpr,
    W: tl.constexpr,
    ANTIALIAS: tl.constexpr,
    SHRINKS: tl.constexpr,
):
    """Interpolated pixels of a tile, three ``[C, R]`` in 0 to 255.

    Whatever the window says, only the picture is read. SHRINKS: a window may be larger than the
    result, and with ANTIALIAS more than two pixels a side then have a share.
    """
    top = tl.maximum(tl.load(window).to(tl.int32), 0)
    left = tl.maximum(tl.load(window + 1).to(tl.int32), 0)
    h = tl.minimum(tl.maximum(tl.load(window + 2).to(tl.int32), 1), stored_h)
    w = tl.minimum(tl.maximum(tl.load(window + 3).to(tl.int32), 1), stored_w)
    ox = tl.where(tl.load(window + 4) > 0, W - 1 - ox, ox)
    reach_y = 2 * H
    reach_x = 2 * W
    if ANTIALIAS:
        reach_y = tl.maximum(2 * h, reach_y)
        reach_x = tl.maximum(2 * w, reach_x)
    taps_y = tl.cdiv(reach_y, H)
    taps_x = tl.cdiv(reach_x, W)
    fy = _first(oy, h, reach_y, H)
    fx = _first(ox, w, reach_x, W)
    if ANTIALIAS and SHRINKS:
        total_y = oy * 0
        total_x = ox * 0
        for k in range(taps_y):
            total_y += _share(oy, fy + k, h, reach_y, H)
        for k in range(taps_x):
            total_x += _share(ox, fx + k, w, reach_x, W)
    else:
        total_y = _share(oy, fy, h, reach_y, H) + _share(oy, fy + 1, h, reach_y, H)
        total_x = _share(ox, fx, w, reach_x, W) + _share(ox, fx + 1, w, reach_x, W)
    # Outside of the result the total may be 0; nothing of it is used.
    inverse_y = tl.div_rn(1.0, tl.maximum(total_y, 1).to(tl.float32))
    inverse_x = tl.div_rn(1.0, tl.maximum(total_x, 1).to(tl.float32))
    red = tl.zeros([ox.shape[0], oy.shape[0]], tl.float32)
    green = red
    blue = red
    if ANTIALIAS and SHRINKS:
        for ky in range(taps_y):
            j = fy + ky
            rows = _share(oy, j, h, reach_y, H).to(tl.float32) * inverse_y
            line = source + _within(j, top, h, stored_h).to(tl.int64) * stride_y
            for kx in range(taps_x):
                red, green, blue = _tap(
                    red, green, blue, line, rows, ox, fx, kx, inverse_x, w, reach_x, left,
                    stored_w, W,
                )  # fmt: skip
    else:
        for ky in tl.static_range(2):
            j = fy + ky
            rows = _share(oy, j, h, reach_y, H).to(tl.float32) * inverse_y
            line = source + _within(j, top, h, stored_h).to(tl.int64) * stride_y
            for kx in tl.static_range(2):
                red, green, blue = _tap(
                    red, green, blue, line, rows, ox, fx, kx, inverse_x, w, reach_x, left,
                    stored_w, W,
                )  # fmt: skip
    return red, green, blue
