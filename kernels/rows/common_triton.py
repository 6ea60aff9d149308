"""What kernels over rows share: addresses, and sums over all rows in a fixed order.

A gradient of one number a column (of a scale or a bias) is a sum over all rows. Some hundred
programs each walk over their share of the rows and add it up in registers; here the partial sums
of all programs are added in one more launch. Every number is added in an order that depends on
shapes alone, so the bits are the same on every call and every GPU; nothing is added atomically.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import dropout
from ..attention_triton.common import elements
from .common import rows_of

__all__ = ["column_sums", "launch", "ready", "row_start", "stride_of", "threshold"]

MOST_PARTIALS = 512
"""Partial sums a column that `column_sums` takes at once: all loads of a column wait together."""
COLUMNS = 16
"""Columns of a program: 64 bytes of a row, and enough programs at the smallest widths."""
NUM_WARPS = 8


@triton.jit
def row_start(row, stride, N: tl.constexpr):
    """Offset of each row in 64 bits; ``stride`` is what `stride_of` gave."""
    if stride is None:
        return row.to(tl.int64) * N
    elif N % 8 == 0:
        return row.to(tl.int64) * elements(stride)
    else:
        return row.to(tl.int64) * stride


@triton.jit(do_not_specialize=["programs"])
def column_sums_kernel(
    partials, out0, out1, programs, columns, BLOCK: tl.constexpr, MOST: tl.constexpr
):
    """Grid (ceil(columns / BLOCK), one or two sums): ``out[c] = sum of partials[:, c]``.

    ``partials``: float32 ``[sums, programs, columns]``; out0, out1: ``[columns]``, any dtype.
    """
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    part = tl.arange(0, MOST)
    inside = (part < programs)[:, None] & (column < columns)[None, :]
    first = tl.program_id(1).to(tl.int64) * programs
    place = partials + (first + part)[:, None] * columns + column[None, :]
    total = tl.sum(tl.load(place, mask=inside, other=0.0), 0)
    if tl.program_id(1) == 0:
        tl.store(out0 + column, total.to(out0.dtype.element_ty), mask=column < columns)
    else:
        if out1 is not None:
            tl.store(out1 + column, total.to(out1.dtype.element_ty), mask=column < columns)


def column_sums(partials: Tensor, *outs: Tensor) -> None:
    """Add up ``partials`` ``[len(outs), programs, columns]`` over programs into ``outs``."""
    sums, programs, columns = partials.shape
    assert sums == len(outs) and programs <= MOST_PARTIALS
    launch(
        column_sums_kernel, (-(-columns // COLUMNS), sums), partials,
        partials, outs[0], outs[1] if sums > 1 else None, programs, columns,
        BLOCK=COLUMNS, MOST=MOST_PARTIALS, num_warps=NUM_WARPS,
    )  # fmt: skip


def ready(x: Tensor) -> Tensor:
    """Return ``[..., N]`` as ``[M, N]`` for a kernel, a view or, if it must be, a copy.

    Columns lie side by side and, where N is a multiple of 8, rows begin at multiples of 16 bytes.
    """
    rows = rows_of(x)
    if rows.shape[1] % 8 == 0 and (rows.stride(0) % 8 or rows.data_ptr() % 16):
        return rows.clone(memory_format=torch.contiguous_format)
    return rows


def stride_of(x: Tensor | None) -> int | None:
    """Return how far apart the rows of `ready`'s ``[M, N]`` are.

    None where that is N, which kernels know when compiled; in eights where N is a multiple of 8.
    """
    if x is None or x.stride(0) == x.shape[1]:
        return None
    return x.stride(0) // 8 if x.shape[1] % 8 == 0 else x.stride(0)


def threshold(p: float) -> int:
    """Return `kernels.dropout.threshold` as the signed 32-bit number with the same bits."""
    bits = dropout.threshold(p)
    return bits - 2**32 if bits >= 2**31 else bits


def launch(kernel: Any, grid: tuple[int, ...], of: Tensor, *arguments: Any, **options: Any) -> None:
    """Launch on the device of ``of``; changing to it costs only if it is not the current one."""
    device = of.device
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        kernel[grid](*arguments, num_stages=1, **options)
    else:
        with torch.cuda.device(device):
            kernel[grid](*arguments, num_stages=1, **options)
