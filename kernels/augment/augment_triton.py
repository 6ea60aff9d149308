"""Augmentation in one launch: each output element is computed from the stored bytes it needs.

Bound by memory: the window's bytes in (what neighbouring programs share comes from caches), the
result out; nothing in between is stored. Contrast is the one change that looks at the whole
picture: a first launch then adds up the grey of what the second will compute, one number a tile,
in a fixed order.

Legend: N pictures, H x W output pixels, R rows and C columns of a tile. Tiles are ``[C, R]``: of
two dimensions whose addresses look alike, the compiler lays a warp's lanes along the first, and
pixels side by side share lines of the cache.
"""
# A call of a compiled function looks to a type checker as if it never returned.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..rows.common_triton import launch
from .parameters import CHANGES, COLUMNS
from .resize_triton import interpolated

__all__ = ["Config", "augment", "config"]

BRIGHTNESS, CONTRAST, SATURATION, HUE, GREY = (tl.constexpr(1 << at) for at in range(len(CHANGES)))
WIDTH = tl.constexpr(len(COLUMNS))
RED, GREEN, BLUE = tl.constexpr(0.2989), tl.constexpr(0.587), tl.constexpr(0.114)
NCHW, NHWC, PATCHES = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
LAYOUTS = {"nchw": NCHW, "nhwc": NHWC, "patches": PATCHES}

MOST_PARTS = 1024
"""Sums of grey of a picture that a program adds up itself: those of a result of 700 x 700."""


@dataclass(frozen=True)
class Config:
    """How a kernel is compiled."""

    rows: int
    columns: int
    warps: int


MEASURED: dict[tuple[int, int], Config] = {}
"""Exceptions to the rule: rows that were faster on a GPU, as ``python -m kernels.tune`` prints
them. Keys are the arguments of `config`."""


def config(height: int, width: int) -> Config:
    """Return the frozen configuration for pictures of ``height`` x ``width``.

    Counted for sm_90 (``python -m kernels.offline --op augment``), to be measured: a warp's lanes
    are 32 pixels side by side, whose bytes lie in one or two lines of the cache, and a thread has
    four rows, which share the weights of its column. 224 = 7 x 32.
    """
    if (measured := MEASURED.get((height, width))) is not None:
        return measured
    columns = min(32, max(4, 1 << (width - 1).bit_length()))
    rows = min(16, max(4, 1 << (height - 1).bit_length()))
    return Config(rows, columns, max(1, min(4, rows * columns // 128)))


@triton.jit
def _clamped(x):
    return tl.minimum(tl.maximum(x, 0.0), 1.0)


@triton.jit
def _grey(red, green, blue):
    return RED * red + GREEN * green + BLUE * blue


@triton.jit
def _turned(offset, value, span, hue):
    """One channel of a colour with its hue in sixths of the circle."""
    k = hue + offset
    k = k - tl.floor(k * 0.16666666666666666) * 6.0
    return value - span * _clamped(tl.minimum(k, 4.0 - k))


@triton.jit
def _turn_hue(red, green, blue, turn):
    """Hue, saturation, value and back, as torchvision's ``adjust_hue``."""
    value = tl.maximum(red, tl.maximum(green, blue))
    span = value - tl.minimum(red, tl.minimum(green, blue))
    some = tl.where(span == 0, 1.0, span)
    hue = tl.where(value == green, 2.0 + (blue - red) / some, 4.0 + (red - green) / some)
    hue = tl.where(value == red, (green - blue) / some, hue) + 6.0 * turn
    red = _turned(5.0, value, span, hue)
    green = _turned(3.0, value, span, hue)
    blue = _turned(1.0, value, span, hue)
    return red, green, blue


@triton.jit
def _place(TILES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, W: tl.constexpr):
    """Picture, rows and columns of this program's tile."""
    TILES_X: tl.constexpr = (W + COLUMNS - 1) // COLUMNS
    program = tl.program_id(0)
    n = program // TILES
    tile = program % TILES
    y = (tile // TILES_X) * ROWS + tl.arange(0, ROWS)
    x = (tile % TILES_X) * COLUMNS + tl.arange(0, COLUMNS)
    return n, y, x


@triton.jit(do_not_specialize=["stride_n", "stride_y", "stored_h", "stored_w"])
def grey_kernel(
    images,
    table,
    partials,
    stride_n,
    stride_y,
    stored_h,
    stored_w,
    H: tl.constexpr,
    W: tl.constexpr,
    CHANGES: tl.constexpr,
    ANTIALIAS: tl.constexpr,
    SHRINKS: tl.constexpr,
    TILES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Grid (N x TILES). ``partials``: float32 ``[N, TILES]``, sums of grey after the brightness."""
    n, y, x = _place(TILES, ROWS, COLUMNS, W)
    picture = table + n * WIDTH
    red, green, blue = interpolated(
        images + n.to(tl.int64) * stride_n, stride_y, picture, y, x, stored_h, stored_w,
        H, W, ANTIALIAS, SHRINKS,
    )  # fmt: skip
    factor = 1.0
    if BRIGHTNESS & CHANGES:
        factor = tl.load(picture + 5)
    red = _clamped(red * (1.0 / 255) * factor)
    green = _clamped(green * (1.0 / 255) * factor)
    blue = _clamped(blue * (1.0 / 255) * factor)
    inside = (x < W)[:, None] & (y < H)[None, :]
    grey = tl.where(inside, _grey(red, green, blue), 0.0)
    tl.store(partials + tl.program_id(0), tl.sum(tl.sum(grey, 1), 0))


@triton.jit(do_not_specialize=["stride_n", "stride_y", "stored_h", "stored_w"])
def augment_kernel(
    images,
    table,
    partials,
    out,
    stride_n,
    stride_y,
    stored_h,
    stored_w,
    red_mean,
    green_mean,
    blue_mean,
    red_scale,
    green_scale,
    blue_scale,
    H: tl.constexpr,
    W: tl.constexpr,
    CHANGES: tl.constexpr,
    ANTIALIAS: tl.constexpr,
    SHRINKS: tl.constexpr,
    LAYOUT: tl.constexpr,
    PATCH: tl.constexpr,
    TILES: tl.constexpr,
    PARTS: tl.constexpr,
    PARTS_PAD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Grid (N x TILES). ``images``: uint8 ``[N, stored_h, stored_w, 3]``, ``table``: ``[N, 10]``.

    ``partials``: ``[N, PARTS]``, what `grey_kernel` left, None without contrast. ``out``: LAYOUT
    says how it lies.
    """
    n, y, x = _place(TILES, ROWS, COLUMNS, W)
    picture = table + n * WIDTH
    red, green, blue = interpolated(
        images + n.to(tl.int64) * stride_n, stride_y, picture, y, x, stored_h, stored_w,
        H, W, ANTIALIAS, SHRINKS,
    )  # fmt: skip
    red *= 1.0 / 255
    green *= 1.0 / 255
    blue *= 1.0 / 255
    if BRIGHTNESS & CHANGES:
        factor = tl.load(picture + 5)
        red = _clamped(red * factor)
        green = _clamped(green * factor)
        blue = _clamped(blue * factor)
    if CONTRAST & CHANGES:
        factor = tl.load(picture + 6)
        at = tl.arange(0, PARTS_PAD)
        total = tl.sum(tl.load(partials + n.to(tl.int64) * PARTS + at, mask=at < PARTS, other=0.0))
        rest = (1.0 - factor) * (total / (H * W))
        red = _clamped(red * factor + rest)
        green = _clamped(green * factor + rest)
        blue = _clamped(blue * factor + rest)
    if SATURATION & CHANGES:
        factor = tl.load(picture + 7)
        rest = (1.0 - factor) * _grey(red, green, blue)
        red = _clamped(red * factor + rest)
        green = _clamped(green * factor + rest)
        blue = _clamped(blue * factor + rest)
    if HUE & CHANGES:
        turn = tl.load(picture + 8)
        if turn != 0:
            red, green, blue = _turn_hue(red, green, blue, turn)
    if GREY & CHANGES:
        if tl.load(picture + 9) > 0:
            red = _grey(red, green, blue)
            green = red
            blue = red
    dtype = out.dtype.element_ty
    red = ((red - red_mean) * red_scale).to(dtype)
    green = ((green - green_mean) * green_scale).to(dtype)
    blue = ((blue - blue_mean) * blue_scale).to(dtype)
    out += n.to(tl.int64) * (H * W * 3)
    inside = (x < W)[:, None] & (y < H)[None, :]
    if LAYOUT == NHWC:
        # The channels of a pixel side by side: whole sectors are written, not thirds of three.
        pixel = tl.join(tl.join(red, blue), tl.join(green, green))
        pixel = tl.reshape(pixel, [COLUMNS, ROWS, 4])  # red, green, blue, and one that stays here
        c = tl.arange(0, 4)[None, None, :]
        place = ((x * 3)[:, None] + (y * (W * 3))[None, :])[:, :, None] + c
        tl.store(out + place, pixel, mask=inside[:, :, None] & (c < 3))
    else:
        if LAYOUT == PATCHES:
            AREA: tl.constexpr = PATCH * PATCH
            down = (y // PATCH) * (W // PATCH * 3 * AREA) + (y % PATCH) * PATCH
            across = (x // PATCH) * (3 * AREA) + x % PATCH
        else:
            AREA: tl.constexpr = H * W
            down = y * W
            across = x
        # Said to be scattered: else each lane would take several pixels side by side, for wider
        # stores, and every load of a warp would touch four times as many lines of the cache.
        place = tl.max_contiguous(across[:, None] + down[None, :], [1, 1])
        tl.store(out + place, red, mask=inside)
        tl.store(out + AREA + place, green, mask=inside)
        tl.store(out + 2 * AREA + place, blue, mask=inside)


def augment(
    images: Tensor,
    table: Tensor,
    changes: int,
    height: int,
    width: int,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    layout: str,
    patch: int,
    antialias: bool,
) -> Tensor:
    """Return augmented pictures; see `kernels.augment.ops.augment_table`."""
    pictures, stored_h, stored_w, _ = images.shape
    out = allocate(pictures, height, width, dtype, layout, patch, images.device)
    if pictures == 0:
        return out
    if images.stride()[2:] != (3, 1):
        images = images.contiguous()
    table = table.contiguous()
    c = config(height, width)
    tiles = -(-height // c.rows) * -(-width // c.columns)
    strides = (images.stride(0), images.stride(1), stored_h, stored_w)
    shared = {
        "H": height, "W": width, "CHANGES": changes, "ANTIALIAS": antialias,
        "SHRINKS": stored_h > height or stored_w > width, "TILES": tiles, "ROWS": c.rows,
        "COLUMNS": c.columns, "num_warps": c.warps,
    }  # fmt: skip
    partials, parts = None, 1
    if changes & CONTRAST.value:
        partials = torch.empty(pictures, tiles, dtype=torch.float32, device=images.device)
        early = {**shared, "CHANGES": changes & BRIGHTNESS.value}
        launch(grey_kernel, (pictures * tiles,), images, images, table, partials, *strides, **early)
        if tiles > MOST_PARTS:
            partials = partials.sum(1)
        parts = partials.numel() // pictures
    launch(
        augment_kernel, (pictures * tiles,), images,
        images, table, partials, out, *strides, *mean, *(1.0 / x for x in std),
        LAYOUT=LAYOUTS[layout].value, PATCH=patch if layout == "patches" else 1,
        PARTS=parts, PARTS_PAD=1 << (parts - 1).bit_length(), **shared,
    )  # fmt: skip
    return out


def allocate(
    pictures: int, height: int, width: int, dtype: torch.dtype, layout: str, patch: int,
    device: torch.device,
) -> Tensor:  # fmt: skip
    """Return memory for the result in ``layout``."""
    if layout == "patches":
        count = (height // patch) * (width // patch)
        return torch.empty(pictures, count, 3 * patch * patch, dtype=dtype, device=device)
    if layout == "nchw":
        return torch.empty(pictures, 3, height, width, dtype=dtype, device=device)
    return torch.empty(pictures, height, width, 3, dtype=dtype, device=device).permute(0, 3, 1, 2)
