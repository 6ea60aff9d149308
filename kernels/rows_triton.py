"""What kernels over rows share: addresses, and sums over all rows in a fixed order.

A gradient of one number a column (of a scale or a bias) is a sum over all rows. Some hundred
programs each walk over their share of the rows and add it up in registers; here the partial sums
of all programs are added in one more launch. Every number is added in an order that depends on
shapes alone, so the bits are the same on every call and every GPU; nothing is added atomically.
"""
# ruff: noqa: ANN001, ANN202, SIM108  a kernel's arguments have the types it is launched with

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["aligned", "column_sums", "on", "row_start", "stride_of", "threshold"]

MOST_PARTIALS = 512
"""Partial sums a column that `column_sums` takes at once: all loads of a column wait together."""
COLUMNS = 16
"""Columns of a program: 64 bytes of a row, and enough programs at the smallest widths."""
NUM_WARPS = 8


@triton.jit
def row_start(row, stride, N: tl.constexpr):
    """Offset of each row in 64 bits; ``stride`` None: rows of N follow each other."""
    if stride is None:
        return row.to(tl.int64) * N
    else:
        return row.to(tl.int64) * stride


@triton.jit
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
    column_sums_kernel[(-(-columns // COLUMNS), sums)](
        partials, outs[0], outs[1] if sums > 1 else None, programs, columns,
        BLOCK=COLUMNS, MOST=MOST_PARTIALS, num_warps=NUM_WARPS, num_stages=1,
    )  # fmt: skip


def stride_of(x: Tensor | None) -> int | None:
    """Return the row stride of ``[M, N]``; None where it is N, which kernels know when compiled."""
    return None if x is None or x.stride(0) == x.shape[1] else x.stride(0)


def aligned(*tensors: Tensor | None) -> bool:
    """Whether each row of each tensor begins at a multiple of 16 bytes, and kernels can tell."""
    for x in tensors:
        if x is None:
            continue
        stride = x.stride(0)
        known = stride % 16 == 0 or (stride == x.shape[1] and stride * x.element_size() % 16 == 0)
        if not known or x.data_ptr() % 16:
            return False
    return True


def threshold(p: float) -> int:
    """Return `kernels.dropout.threshold` as the signed 32-bit number with the same bits."""
    bits = min(round(p * 2**32), 2**32 - 1)
    return bits - 2**32 if bits >= 2**31 else bits


def on(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which launches go to ``device``; entering costs only if they don't."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(device)
