"""Rotary positions: queries and keys turned in one launch; the backward turns them back.

Bound by memory: each element is read and written once, cosines and sines of a row are read by the
programs of neighbouring heads, which run side by side. Su et al. 2021, in Llama's pairing: the two
halves of a head. Legend: T rows, H heads, D head dimension; R rows and B heads of a tile.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..attention_triton.common import elements
from .common_triton import launch

__all__ = ["Config", "config", "turn"]

HALVES = 2048
"""Elements of each half in a tile: 16 a thread. Counted for sm_90, to be measured."""


@dataclass(frozen=True)
class Config:
    """How the kernel is compiled."""

    rows: int
    heads: int
    """Of a tile."""
    warps: int = 4


MEASURED: dict[tuple[int, int], Config] = {}
"""Exceptions to the rule: rows that were faster on a GPU, as ``python -m kernels.tune`` prints
them. Keys are the arguments of `config`."""


def config(heads: int, half: int) -> Config:
    """Return the frozen configuration; ``heads``: the fewest of q's and k's."""
    if (measured := MEASURED.get((heads, half))) is not None:
        return measured
    block = min(8, 1 << (heads - 1).bit_length())
    return Config(max(1, HALVES // (block * padded(half))), block)


def padded(half: int) -> int:
    """Half the head dimension as the kernel sees it: the next power of two."""
    return max(4, 1 << (half - 1).bit_length())


@triton.jit
def _turn(
    x,
    out,
    cos,
    sin,
    row,
    head,
    rows,
    stride_t,
    stride_h,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PAD: tl.constexpr,
):
    c = tl.arange(0, HALF_PAD)[None, None, :]
    inside = ((row < rows)[:, None] & (head < HEADS)[None, :])[:, :, None]
    if HALF != HALF_PAD:
        inside = inside & (c < HALF)
    if HALF % 4 == 0:
        place = (row * elements(stride_t))[:, None] + (head * elements(stride_h))[None, :]
    else:
        place = (row * stride_t)[:, None] + (head.to(tl.int64) * stride_h)[None, :]
    place = place[:, :, None] + c
    left = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)  # [R, B, D / 2]
    right = tl.load(x + place + HALF, mask=inside, other=0.0).to(tl.float32)
    place = (row * (HEADS * 2 * HALF))[:, None] + (head * (2 * HALF))[None, :]
    place = place[:, :, None] + c
    dtype = out.dtype.element_ty
    tl.store(out + place, (left * cos - right * sin).to(dtype), mask=inside)
    tl.store(out + place + HALF, (right * cos + left * sin).to(dtype), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def rotary_kernel(
    q,
    k,
    cos,
    sin,
    q_out,
    k_out,
    rows,
    q_stride_t,
    q_stride_h,
    k_stride_t,
    k_stride_h,
    cos_stride,
    sin_stride,
    Q_HEADS: tl.constexpr,
    K_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PAD: tl.constexpr,
    ROWS: tl.constexpr,
    HEADS: tl.constexpr,
    INVERSE: tl.constexpr,
):
    """Grid (row tiles x (head tiles of q, then those of k), the latter fastest); K_HEADS may be 0.

    ``q``, ``k``: ``[T, H, D]``, their strides in eights where D is a multiple of 8; outputs are
    contiguous; ``cos``, ``sin``: ``[T, D / 2]``.
    """
    Q_TILES: tl.constexpr = (Q_HEADS + HEADS - 1) // HEADS
    TILES: tl.constexpr = Q_TILES + (K_HEADS + HEADS - 1) // HEADS
    program = tl.program_id(0)
    tile = program % TILES
    row = (program // TILES).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, HALF_PAD)[None, None, :]
    known = (row < rows)[:, None, None] & (c < HALF)
    c_cos = tl.load(cos + (row * cos_stride)[:, None, None] + c, mask=known, other=0.0)
    c_sin = tl.load(sin + (row * sin_stride)[:, None, None] + c, mask=known, other=0.0)
    c_cos = c_cos.to(tl.float32)
    c_sin = c_sin.to(tl.float32)
    if INVERSE:
        c_sin = -c_sin
    if tile < Q_TILES:
        head = tile * HEADS + tl.arange(0, HEADS)
        _turn(
            q, q_out, c_cos, c_sin, row, head, rows, q_stride_t, q_stride_h,
            Q_HEADS, HALF, HALF_PAD,
        )  # fmt: skip
    else:
        if K_HEADS > 0:
            head = (tile - Q_TILES) * HEADS + tl.arange(0, HEADS)
            _turn(
                k, k_out, c_cos, c_sin, row, head, rows, k_stride_t, k_stride_h,
                K_HEADS, HALF, HALF_PAD,
            )  # fmt: skip


def turn(
    q: Tensor, k: Tensor | None, cos: Tensor, sin: Tensor, inverse: bool
) -> tuple[Tensor, Tensor | None]:
    """Return q ``[T, H, D]`` and k ``[T, K, D]`` turned by the angles of their rows, or back."""
    total, heads, dim = q.shape
    q_out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    k_out = None if k is None else torch.empty(k.shape, dtype=k.dtype, device=k.device)
    if total == 0:
        return q_out, k_out
    unit = 8 if dim % 8 == 0 else 1  # of strides
    q, cos, sin = _ready(q, unit), _ready(cos, 1), _ready(sin, 1)
    k = None if k is None else _ready(k, unit)
    kv = 0 if k is None else k.shape[1]
    c = config(min(heads, kv or heads), dim // 2)
    tiles = -(-heads // c.heads) - (-kv // c.heads)
    strides = [None if x is None else x.stride(at) // unit for x in (q, k) for at in (0, 1)]
    launch(
        rotary_kernel, (-(-total // c.rows) * tiles,), q,
        q, k, cos, sin, q_out, k_out, total, *strides, cos.stride(0), sin.stride(0),
        Q_HEADS=heads, K_HEADS=kv, HALF=dim // 2, HALF_PAD=padded(dim // 2), ROWS=c.rows,
        HEADS=c.heads, INVERSE=inverse, num_warps=c.warps,
    )  # fmt: skip
    return q_out, k_out


def _ready(x: Tensor, unit: int) -> Tensor:
    """``x`` itself if its last dimension is contiguous and it begins and steps by ``unit``."""
    steps = unit > 1 and (x.data_ptr() % 16 or any(step % unit for step in x.stride()[:-1]))
    return x.clone(memory_format=torch.contiguous_format) if x.stride(-1) != 1 or steps else x
