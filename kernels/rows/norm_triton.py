"""LayerNorm and RMSNorm with the addition, and its dropout, before them: one pass each way.

Both are bound by memory, so what counts is that every tensor is touched once. Forward: x and the
residual in, their sum and the normalised rows out. Backward: a fixed number of programs walks over
all rows; the gradient of the sum that comes from elsewhere is added on the way, dweight and dbias
stay in registers until the end (`common_triton` adds up what the programs leave).

LayerNorm: Ba et al. 2016; RMSNorm: Zhang & Sennrich 2019. Legend: M rows, N columns, R rows of a
tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..attention_triton.common import kept, row_keys
from .common_triton import column_sums, launch, ready, row_start, stride_of, threshold

__all__ = ["MAX_COLUMNS", "MAX_RAGGED", "backward", "config", "forward"]

MAX_COLUMNS = 8192
MAX_RAGGED = 4096
"""Widest row that is no multiple of 8 columns: one at a time, its loads take many registers."""
PROGRAMS = 264
"""Programs of the backward: two on each multiprocessor of an H100 or H200. A constant, because the
order in which dweight is added up, and so its last bits, depends on it."""


@dataclass(frozen=True)
class Config:
    """How a kernel is compiled."""

    rows: int
    """Rows of a tile."""
    warps: int
    stages: int = 1
    """Tiles of the backward's loop that are read ahead, and the one in work."""
    registers: int | None = None
    """Most registers of a thread."""
    programs: int = 0
    """Programs of the backward."""


MEASURED: dict[tuple[str, int, int], Config] = {}
"""Exceptions to the rule: rows that were faster on a GPU, as ``python -m kernels.tune`` prints
them. Keys are the arguments of `config`."""


def config(kernel: Literal["fwd", "bwd"], columns: int, itemsize: int) -> Config:
    """Return the frozen configuration.

    Counted for sm_90 (``python -m kernels.offline --op norm``), to be measured: a thread holds 32
    bytes of each tensor, two loads of 16, so that a multiprocessor has some 96 KB in flight
    (forward: 8 to 12 programs; backward: two programs that read two tiles ahead, which 128
    registers allow). At most 16 warps: a row of 8,192 in float32 takes 64 bytes a thread and
    reads one tile ahead. Where rows are no multiple of 8 columns nothing can be read ahead, and the
    backward holds 4 elements a thread (8 at 4,096).
    """
    if (measured := MEASURED.get((kernel, columns, itemsize))) is not None:
        return measured
    wide = columns % 8 == 0
    row_bytes = padded(columns) * itemsize
    share = 32 if wide or kernel == "fwd" else 4 * itemsize  # bytes of a thread
    warps = min(max(4 if kernel == "fwd" else 8, row_bytes // share // 32), 16)
    rows = max(1, 32 * warps * share // row_bytes)
    if kernel == "fwd":
        return Config(rows, warps)
    programs = PROGRAMS * 8 // warps
    if not wide:
        return Config(rows, warps, programs=programs)
    return Config(rows, warps, 3 if row_bytes <= 16_384 else 2, 128, programs)


def padded(columns: int) -> int:
    """Columns as kernels see them: the next power of two, at least 8."""
    return max(8, 1 << (columns - 1).bit_length())


@triton.jit(do_not_specialize=["rows", "cut"])
def norm_fwd_kernel(
    x,
    residual,
    weight,
    bias,
    seed,
    y,
    summed,
    stats,
    rows,
    x_stride,
    residual_stride,
    eps,
    cut,
    keep_scale,
    N: tl.constexpr,
    N_PAD: tl.constexpr,
    ROWS: tl.constexpr,
    CENTER: tl.constexpr,
):
    """Grid (ceil(M / ROWS)). ``residual``, ``bias``, ``seed`` (no dropout) may be None.

    ``stats``: float32 ``[2 or 1, M]``, mean (if CENTER) and reciprocal standard deviation.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, N_PAD)
    real = row < rows
    if N == N_PAD:
        inside = real[:, None]
    else:
        inside = real[:, None] & (column < N)[None, :]
    place = row_start(row, x_stride, N)[:, None] + column[None, :]
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)  # [R, N]
    if residual is not None:
        place = row_start(row, residual_stride, N)[:, None] + column[None, :]
        other = tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(weight + column, mask=column < N, other=0.0)
    if bias is not None:
        shift = tl.load(bias + column, mask=column < N, other=0.0)
    place = (row * N)[:, None] + column[None, :]
    if residual is not None:
        if seed is not None:
            first, second = row_keys(tl.load(seed), row, row * 0)
            stays = kept(first[:, None], second[:, None], column[None, :], cut)
            value = tl.where(stays, value * keep_scale, 0.0)
        # Rounded once, here: what is normalised is exactly what the caller gets as the sum.
        rounded = (value + other).to(summed.dtype.element_ty)
        tl.store(summed + place, rounded, mask=inside)
        value = rounded.to(tl.float32)
    if CENTER:
        mean = tl.sum(value, 1) / N
        tl.store(stats + row, mean, mask=real)
        stats += rows
        value = tl.where(column[None, :] < N, value - mean[:, None], 0.0)
    inverse = tl.rsqrt(tl.sum(value * value, 1) / N + eps)
    tl.store(stats + row, inverse, mask=real)
    result = value * inverse[:, None] * scale.to(tl.float32)[None, :]
    if bias is not None:
        result += shift.to(tl.float32)[None, :]
    tl.store(y + place, result.to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows", "cut"])
def norm_bwd_kernel(
    dy,
    dsummed,
    summed,
    weight,
    stats,
    seed,
    dsum,
    dx,
    partials,
    rows,
    dy_stride,
    dsummed_stride,
    summed_stride,
    cut,
    keep_scale,
    N: tl.constexpr,
    N_PAD: tl.constexpr,
    ROWS: tl.constexpr,
    CENTER: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Grid (programs), each taking every programs-th tile of ROWS rows.

    ``dsum`` ``[M, N]``: the gradient of what was normalised; ``dx``: that after dropout, only with
    ``seed``. ``partials``: float32 ``[2 or 1, programs, N]``, of dweight and (HAS_BIAS) dbias.
    """
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    column = tl.arange(0, N_PAD)
    scale = tl.load(weight + column, mask=column < N, other=0.0).to(tl.float32)
    dweight = tl.zeros([ROWS, N_PAD], tl.float32)
    dbias = tl.zeros([ROWS, N_PAD], tl.float32)
    if seed is not None:
        number = tl.load(seed)
    for tile in tl.range(program, tl.cdiv(rows, ROWS), programs, num_stages=STAGES):
        row = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
        real = row < rows
        if N == N_PAD:
            inside = real[:, None]
        else:
            inside = real[:, None] & (column < N)[None, :]
        place = row_start(row, dy_stride, N)[:, None] + column[None, :]
        grad = tl.load(dy + place, mask=inside, other=0.0).to(tl.float32)  # [R, N]
        place = row_start(row, summed_stride, N)[:, None] + column[None, :]
        value = tl.load(summed + place, mask=inside, other=0.0).to(tl.float32)
        if CENTER:
            mean = tl.load(stats + row, mask=real, other=0.0)
            inverse = tl.load(stats + rows + row, mask=real, other=0.0)
            value = (value - mean[:, None]) * inverse[:, None]
        else:
            inverse = tl.load(stats + row, mask=real, other=0.0)
            value = value * inverse[:, None]
        # Outside grad is 0, and so is all that is added up.
        dweight += grad * value
        if HAS_BIAS:
            dbias += grad
        grad = grad * scale[None, :]
        result = grad - value * (tl.sum(grad * value, 1) / N)[:, None]
        if CENTER:
            result -= (tl.sum(grad, 1) / N)[:, None]
        result *= inverse[:, None]
        if dsummed is not None:  # read here: it lies ready, and takes no registers before
            place = row_start(row, dsummed_stride, N)[:, None] + column[None, :]
            result += tl.load(dsummed + place, mask=inside, other=0.0).to(tl.float32)
        place = (row * N)[:, None] + column[None, :]
        tl.store(dsum + place, result.to(dsum.dtype.element_ty), mask=inside)
        if seed is not None:
            first, second = row_keys(number, row, row * 0)
            stays = kept(first[:, None], second[:, None], column[None, :], cut)
            result = tl.where(stays, result * keep_scale, 0.0)
            tl.store(dx + place, result.to(dx.dtype.element_ty), mask=inside)
    place = partials + program.to(tl.int64) * N + column
    tl.store(place, tl.sum(dweight, 0), mask=column < N)
    if HAS_BIAS:
        tl.store(place + programs * N, tl.sum(dbias, 0), mask=column < N)


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    seed: Tensor | None,
    eps: float,
    dropout: float,
    center: bool,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return y, the sum (None without ``residual``) and the statistics, float32 ``[2 or 1, M]``.

    ``seed``: int64 of one element, None without dropout; ``center``: LayerNorm, else RMSNorm.
    """
    columns = x.shape[-1]
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    summed = None if residual is None else torch.empty_like(y)
    value, other = ready(x), None if residual is None else ready(residual)
    weight, bias = _row(weight), None if bias is None else _row(bias)
    rows = value.shape[0]
    stats = torch.empty((1 + center, rows), dtype=torch.float32, device=x.device)
    if rows == 0:
        return y, summed, stats
    c = config("fwd", columns, x.element_size())
    launch(
        norm_fwd_kernel, (-(-rows // c.rows),), x,
        value, other, weight, bias, seed, y, summed, stats, rows, stride_of(value),
        stride_of(other), eps, threshold(dropout), 1.0 / (1.0 - dropout), N=columns,
        N_PAD=padded(columns), ROWS=c.rows, CENTER=center, num_warps=c.warps,
    )  # fmt: skip
    return y, summed, stats


def backward(
    dy: Tensor,
    dsummed: Tensor | None,
    summed: Tensor,
    weight: Tensor,
    stats: Tensor,
    seed: Tensor | None,
    dropout: float,
    has_bias: bool,
    center: bool,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Return the gradients of the sum, of x (None without dropout: the same), weight and bias.

    ``summed``: what was normalised, x itself without a residual; ``dsummed``: its gradient from
    elsewhere.
    """
    columns = weight.shape[0]
    dsum = torch.empty(summed.shape, dtype=summed.dtype, device=summed.device)
    dx = None if seed is None else torch.empty_like(dsum)
    weight, grad, value = _row(weight), ready(dy), ready(summed)
    further = None if dsummed is None else ready(dsummed)
    rows = value.shape[0]
    c = config("bwd", columns, value.element_size())
    programs = min(c.programs, -(-rows // c.rows))
    sums = 1 + has_bias
    if rows == 0:
        dweight = torch.zeros((sums, columns), dtype=weight.dtype, device=weight.device)
        return dsum, dx, dweight[0], dweight[1].clone() if has_bias else None
    partials = torch.empty((sums, programs, columns), dtype=torch.float32, device=dsum.device)
    outs = [torch.empty_like(weight) for _ in range(sums)]
    limit: dict[str, Any] = {} if c.registers is None else {"maxnreg": c.registers}
    launch(
        norm_bwd_kernel, (programs,), dsum,
        grad, further, value, weight, stats, seed, dsum, dx, partials, rows, stride_of(grad),
        stride_of(further), stride_of(value), threshold(dropout), 1.0 / (1.0 - dropout), N=columns,
        N_PAD=padded(columns), ROWS=c.rows, CENTER=center, HAS_BIAS=has_bias, STAGES=c.stages,
        num_warps=c.warps, **limit,
    )  # fmt: skip
    column_sums(partials, *outs)
    return dsum, dx, outs[0], outs[1] if has_bias else None


def _row(x: Tensor) -> Tensor:
    """``x`` ``[N]`` itself if it lies in one piece, and a very wide one at a multiple of 16 bytes.

    One number at a time, a very wide row of weights takes registers that are not there.
    """
    x = x.contiguous()
    return x.clone() if x.shape[0] > MAX_RAGGED and x.data_ptr() % 16 else x
