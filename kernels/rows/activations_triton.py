"""Bias, GELU and dropout in one pass each way, and SwiGLU: nothing kept but the inputs.

The backward computes the activation's slope from its input again. The bias's gradient, a sum over
all rows, is added up on the way: a fixed number of programs for each block of columns walks over
the rows and keeps its sum in registers (`common_triton` adds up what the programs leave).

GELU: Hendrycks & Gimpel 2016; SwiGLU: Shazeer 2020. Legend: M rows, N columns, R rows and C columns
of a tile.
"""
# To pyright a call of a compiled function never returns.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..attention_triton.common import LOG2E, kept, row_keys
from .common import rows_of
from .common_triton import (
    MOST_PARTIALS,
    column_sums,
    launch,
    ready,
    row_start,
    stride_of,
    threshold,
)

__all__ = [
    "config",
    "gelu_backward",
    "gelu_forward",
    "swiglu_backward",
    "swiglu_forward",
]

PROGRAMS = 264
"""Programs of the GELU's backward, over all columns: two on each multiprocessor of an H100 or H200.
A constant, because the order in which dbias is added up depends on it."""

ROOT_HALF = tl.constexpr(0.7071067811865476)
DENSITY = tl.constexpr(0.3989422804014327)  # 1 / sqrt(2 pi)
TANH_SCALE = tl.constexpr(0.7978845608028654)  # sqrt(2 / pi)
TANH_CUBE = tl.constexpr(0.044715)


@dataclass(frozen=True)
class Config:
    """How a kernel is compiled."""

    rows: int
    columns: int
    """Of a tile."""
    warps: int
    stages: int = 1
    """Tiles of a loop that are read ahead, and the one in work."""
    registers: int | None = None
    """Most registers of a thread."""


MEASURED: dict[tuple[str, int, int], Config] = {}
"""Exceptions to the rule: rows that were faster on a GPU, as ``python -m kernels.tune`` prints
them. Keys are the arguments of `config`."""


def config(kernel: Literal["fwd", "bwd"], columns: int, itemsize: int) -> Config:
    """Return the frozen configuration.

    Counted for sm_90 (``python -m kernels.offline --op activations``), to be measured: blocks of
    columns are powers of two that leave no rest where that can be; a thread holds 32 bytes of each
    tensor. The GELU's backward (``bwd``) walks: it reads two tiles ahead, which 128 registers
    allow in two programs of 8 warps, but not where rows are no multiple of 8 columns.
    """
    if (measured := MEASURED.get((kernel, columns, itemsize))) is not None:
        return measured
    wide = columns % 8 == 0
    block = 512
    while columns % block and block > 128:
        block //= 2
    block = min(block, max(8, 1 << (columns - 1).bit_length()))
    warps = 4 if kernel == "fwd" else 8
    share = 32 if wide else 8 * itemsize  # bytes of a thread
    rows = max(1, 32 * warps * share // (block * itemsize))
    if kernel == "fwd" or not wide:
        return Config(rows, block, warps)
    return Config(rows, block, warps, 3, 128)


@triton.jit
def _tile(rows, N: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Rows (64 bits) and columns of this program's tile, and which of its elements there are."""
    BLOCKS: tl.constexpr = (N + COLUMNS - 1) // COLUMNS
    program = tl.program_id(0)
    row = (program // BLOCKS).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = program % BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    if N % COLUMNS == 0:
        inside = (row < rows)[:, None]
    else:
        inside = (row < rows)[:, None] & (column < N)[None, :]
    return row, column, inside


@triton.jit
def _sigmoid_parts(x):
    """``sigmoid(x)`` and ``1 - sigmoid(x)``, neither with cancellation nor overflow."""
    e = tl.exp2(-LOG2E * tl.abs(x))
    large = 1.0 / (1.0 + e)
    small = e * large
    return tl.where(x < 0.0, small, large), tl.where(x < 0.0, large, small)


@triton.jit
def _gelu(x, TANH: tl.constexpr):
    if TANH:  # 0.5 (1 + tanh z) = sigmoid(2 z)
        s, _ = _sigmoid_parts((2.0 * TANH_SCALE) * x * (1.0 + TANH_CUBE * x * x))
        return x * s
    else:
        return x * (0.5 + 0.5 * tl.erf(x * ROOT_HALF))


@triton.jit
def _gelu_slope(x, TANH: tl.constexpr):
    square = x * x
    if TANH:
        s, rest = _sigmoid_parts((2.0 * TANH_SCALE) * x * (1.0 + TANH_CUBE * square))
        return s + x * s * rest * ((2.0 * TANH_SCALE) * (1.0 + 3.0 * TANH_CUBE * square))
    else:
        bell = DENSITY * tl.exp2(square * (-0.5 * LOG2E))
        return 0.5 + 0.5 * tl.erf(x * ROOT_HALF) + x * bell


@triton.jit(do_not_specialize=["rows", "cut"])
def gelu_fwd_kernel(
    x,
    bias,
    seed,
    y,
    rows,
    x_stride,
    cut,
    keep_scale,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TANH: tl.constexpr,
):
    """Grid (row tiles x column tiles, the latter fastest); ``bias``, ``seed`` may be None."""
    row, column, inside = _tile(rows, N, ROWS, COLUMNS)
    place = row_start(row, x_stride, N)[:, None] + column[None, :]
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)  # [R, C]
    if bias is not None:
        value += tl.load(bias + column, mask=column < N, other=0.0).to(tl.float32)[None, :]
    value = _gelu(value, TANH)
    if seed is not None:
        first, second = row_keys(tl.load(seed), row, row * 0)
        stays = kept(first[:, None], second[:, None], column[None, :], cut)
        value = tl.where(stays, value * keep_scale, 0.0)
    place = (row * N)[:, None] + column[None, :]
    tl.store(y + place, value.to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows", "cut", "programs"])
def gelu_bwd_kernel(
    dy,
    x,
    bias,
    seed,
    dx,
    partials,
    rows,
    programs,
    dy_stride,
    x_stride,
    cut,
    keep_scale,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TANH: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Grid (programs x column tiles, the latter fastest), each taking every programs-th row tile.

    ``partials``: float32 ``[programs, N]``, of dbias; unused without ``bias``.
    """
    BLOCKS: tl.constexpr = (N + COLUMNS - 1) // COLUMNS
    program = tl.program_id(0) // BLOCKS
    column = tl.program_id(0) % BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    if bias is not None:
        shift = tl.load(bias + column, mask=column < N, other=0.0).to(tl.float32)
        dbias = tl.zeros([ROWS, COLUMNS], tl.float32)
    if seed is not None:
        number = tl.load(seed)
    for tile in tl.range(program, tl.cdiv(rows, ROWS), programs, num_stages=STAGES):
        row = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
        if N % COLUMNS == 0:
            inside = (row < rows)[:, None]
        else:
            inside = (row < rows)[:, None] & (column < N)[None, :]
        place = row_start(row, dy_stride, N)[:, None] + column[None, :]
        grad = tl.load(dy + place, mask=inside, other=0.0).to(tl.float32)  # [R, C]
        place = row_start(row, x_stride, N)[:, None] + column[None, :]
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        if bias is not None:
            value += shift[None, :]
        grad *= _gelu_slope(value, TANH)
        if seed is not None:
            first, second = row_keys(number, row, row * 0)
            stays = kept(first[:, None], second[:, None], column[None, :], cut)
            grad = tl.where(stays, grad * keep_scale, 0.0)
        place = (row * N)[:, None] + column[None, :]
        tl.store(dx + place, grad.to(dx.dtype.element_ty), mask=inside)
        if bias is not None:
            dbias += grad
    if bias is not None:
        place = partials + program.to(tl.int64) * N + column
        tl.store(place, tl.sum(dbias, 0), mask=column < N)


@triton.jit(do_not_specialize=["rows"])
def swiglu_fwd_kernel(
    gate,
    up,
    y,
    rows,
    gate_stride,
    up_stride,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Grid (row tiles x column tiles, the latter fastest)."""
    row, column, inside = _tile(rows, N, ROWS, COLUMNS)
    place = row_start(row, gate_stride, N)[:, None] + column[None, :]
    door = tl.load(gate + place, mask=inside, other=0.0).to(tl.float32)  # [R, C]
    place = row_start(row, up_stride, N)[:, None] + column[None, :]
    value = tl.load(up + place, mask=inside, other=0.0).to(tl.float32)
    s, _ = _sigmoid_parts(door)
    place = (row * N)[:, None] + column[None, :]
    tl.store(y + place, (door * s * value).to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def swiglu_bwd_kernel(
    dy,
    gate,
    up,
    dgate,
    dup,
    rows,
    dy_stride,
    gate_stride,
    up_stride,
    grad_stride,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Grid as forward; ``grad_stride``: of the rows of both gradients."""
    row, column, inside = _tile(rows, N, ROWS, COLUMNS)
    place = row_start(row, dy_stride, N)[:, None] + column[None, :]
    grad = tl.load(dy + place, mask=inside, other=0.0).to(tl.float32)  # [R, C]
    place = row_start(row, gate_stride, N)[:, None] + column[None, :]
    door = tl.load(gate + place, mask=inside, other=0.0).to(tl.float32)
    place = row_start(row, up_stride, N)[:, None] + column[None, :]
    value = tl.load(up + place, mask=inside, other=0.0).to(tl.float32)
    s, rest = _sigmoid_parts(door)
    grad *= s
    place = row_start(row, grad_stride, N)[:, None] + column[None, :]
    of_door = grad * value * (1.0 + door * rest)
    tl.store(dgate + place, of_door.to(dgate.dtype.element_ty), mask=inside)
    tl.store(dup + place, (grad * door).to(dup.dtype.element_ty), mask=inside)


def gelu_forward(
    x: Tensor, bias: Tensor | None, seed: Tensor | None, dropout: float, tanh: bool
) -> Tensor:
    """Return the activated rows, of x's shape; ``seed``: int64 of one element, or no dropout."""
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    value, bias = ready(x), None if bias is None else bias.contiguous()
    rows, columns = value.shape
    if rows == 0:
        return y
    c = config("fwd", columns, x.element_size())
    launch(
        gelu_fwd_kernel, (_tiles(rows, columns, c),), x,
        value, bias, seed, y, rows, stride_of(value), threshold(dropout),
        1.0 / (1.0 - dropout), N=columns, ROWS=c.rows, COLUMNS=c.columns, TANH=tanh,
        num_warps=c.warps,
    )  # fmt: skip
    return y


def gelu_backward(
    dy: Tensor,
    x: Tensor,
    bias: Tensor | None,
    seed: Tensor | None,
    dropout: float,
    tanh: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of x and bias (None without)."""
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    grad, value, bias = ready(dy), ready(x), None if bias is None else bias.contiguous()
    rows, columns = value.shape
    if rows == 0:
        return dx, None if bias is None else torch.zeros_like(bias)
    c = config("bwd", columns, x.element_size())
    blocks = -(-columns // c.columns)
    programs = min(max(1, PROGRAMS // blocks), -(-rows // c.rows), MOST_PARTIALS)
    partials = dbias = None
    if bias is not None:
        partials = torch.empty((1, programs, columns), dtype=torch.float32, device=x.device)
        dbias = torch.empty_like(bias)
    limit: dict[str, Any] = {} if c.registers is None else {"maxnreg": c.registers}
    launch(
        gelu_bwd_kernel, (programs * blocks,), x,
        grad, value, bias, seed, dx, partials, rows, programs, stride_of(grad),
        stride_of(value), threshold(dropout), 1.0 / (1.0 - dropout), N=columns, ROWS=c.rows,
        COLUMNS=c.columns, TANH=tanh, STAGES=c.stages, num_warps=c.warps,
        **limit,
    )  # fmt: skip
    if partials is not None and dbias is not None:
        column_sums(partials, dbias)
    return dx, dbias


def swiglu_forward(gate: Tensor, up: Tensor | None) -> Tensor:
    """Return ``silu(gate) * up``; ``up`` None: ``gate`` holds both halves of its columns."""
    door, value = _halves(gate, up)
    rows, columns = door.shape
    y = torch.empty((*gate.shape[:-1], columns), dtype=gate.dtype, device=gate.device)
    if rows == 0:
        return y
    c = config("fwd", columns, gate.element_size())
    launch(
        swiglu_fwd_kernel, (_tiles(rows, columns, c),), gate,
        door, value, y, rows, stride_of(door), stride_of(value), N=columns, ROWS=c.rows,
        COLUMNS=c.columns, num_warps=c.warps,
    )  # fmt: skip
    return y


def swiglu_backward(dy: Tensor, gate: Tensor, up: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of gate (both halves where it holds both) and up (else None)."""
    door, value = _halves(gate, up)
    grad = ready(dy)
    rows, columns = door.shape
    dgate = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    dup = None if up is None else torch.empty(up.shape, dtype=up.dtype, device=up.device)
    if rows == 0:
        return dgate, dup
    to_gate, to_up = _halves(dgate, dup)
    c = config("fwd", columns, gate.element_size())
    launch(
        swiglu_bwd_kernel, (_tiles(rows, columns, c),), gate,
        grad, door, value, to_gate, to_up, rows, stride_of(grad), stride_of(door),
        stride_of(value), stride_of(to_gate), N=columns, ROWS=c.rows, COLUMNS=c.columns,
        num_warps=c.warps,
    )  # fmt: skip
    return dgate, dup


def _tiles(rows: int, columns: int, c: Config) -> int:
    return -(-rows // c.rows) * -(-columns // c.columns)


def _halves(gate: Tensor, up: Tensor | None) -> tuple[Tensor, Tensor]:
    if up is not None:
        return ready(gate), ready(up)
    both = rows_of(gate)
    half = both.shape[1] // 2
    return ready(both[:, :half]), ready(both[:, half:])
