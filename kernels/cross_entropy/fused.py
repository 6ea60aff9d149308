"""Cross-entropy in one product whose logits are never stored, where no gradient is wanted.

A program owns a tile of rows and a part of the vocabulary. It multiplies tile after tile of the
vocabulary, keeping for each row a running maximum and sum of exponentials (Milakov and Gimelshein
2018, arXiv 1805.02867; for a linear layer: cut-cross-entropy, Wijmans et al. 2024,
arXiv 2411.09009 §4.2) and the target's logit; a second, tiny launch combines the parts, always in
the same order. The loop over vocabulary tiles and the loop over H are compiled as one, so that a
tile's copies are under way while the last one's exponentials are taken.

Neighbouring programs share: GROUP row tiles (6 MB of x at H = 768) meet the same vocabulary tiles
at about the same time, in L2.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..attention_triton.common import LOG2E, dot_add, tanh
from .chunks import Problem
from .kernel import LOWEST, on_device
from .table import fused_config, splits

__all__ = ["fused_losses", "refuse_fused"]

GROUP = 32
COMBINE_ROWS = 32
COMBINE_WARPS = 4


@triton.jit(
    do_not_specialize=["rows", "parts", "tiles_each"],
    do_not_specialize_on_alignment=["targets"],
)
def cross_entropy_fused_kernel(
    x,
    weight,
    targets,
    bias,
    class_weight,
    partial,
    rows,
    vocab,
    width,
    stride_x,
    stride_w,
    parts,
    tiles_each,
    softcap,
    HAS_SOFTCAP: tl.constexpr,
    HAS_SMOOTHING: tl.constexpr,
    WHOLE_DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Grid (row tiles * parts,). ``partial`` fp32 [4, parts, rows]: maximum, sum, target's, tilt.

    ``tilt`` is the (class-weighted) sum of logits, made under HAS_SMOOTHING alone.
    """
    program = tl.program_id(0)
    group = program // (GROUP * parts)
    members = tl.minimum(tl.cdiv(rows, BLOCK_T) - group * GROUP, GROUP)
    within = program % (GROUP * parts)
    part = within // members
    row = (group * GROUP + within % members) * BLOCK_T + tl.arange(0, BLOCK_T)
    # Past the end the last row or column again: no mask in the loop.
    safe_row = tl.minimum(row, rows - 1).to(tl.int64)
    h = tl.arange(0, BLOCK_H)
    x_at = x + safe_row[:, None] * stride_x + h[None, :]
    # In 32 bits: 64 would be compared element by element. Those out of range are seen to below.
    target = tl.load(targets + safe_row).to(tl.int32)
    largest = tl.full([BLOCK_T], LOWEST, tl.float32)
    total = tl.zeros([BLOCK_T], tl.float32)
    at_target = tl.zeros([BLOCK_T], tl.float32)
    tilt = tl.zeros([BLOCK_T], tl.float32)
    begin = part * tiles_each
    end = tl.minimum(begin + tiles_each, tl.cdiv(vocab, BLOCK_V))
    for tile in tl.range(begin, end, flatten=True):
        column = tile * BLOCK_V + tl.arange(0, BLOCK_V)
        safe_column = tl.minimum(column, vocab - 1).to(tl.int64)
        w_at = weight + safe_column[:, None] * stride_w + h[None, :]
        z = tl.zeros([BLOCK_T, BLOCK_V], tl.float32)
        for k in range(0, width, BLOCK_H):
            if WHOLE_DEPTH:
                a = tl.load(x_at + k)
                b = tl.load(w_at + k)
            else:
                a = tl.load(x_at + k, mask=(h < width - k)[None, :], other=0.0)
                b = tl.load(w_at + k, mask=(h < width - k)[None, :], other=0.0)
            z = dot_add(a, tl.trans(b), z, "ieee")  # [T, V]
        if bias is not None:
            z += tl.load(bias + safe_column).to(tl.float32)[None, :]
        if HAS_SOFTCAP:
            z = tanh(z / softcap) * softcap
        at_target += tl.sum(tl.where(column[None, :] == target[:, None], z, 0.0), 1)
        inside = column < vocab
        if HAS_SMOOTHING:
            if class_weight is not None:
                share = tl.load(class_weight + column, mask=inside, other=0.0)
            else:
                share = inside.to(tl.float32)
            tilt += tl.sum(z * share[None, :], 1)
        z = tl.where(inside[None, :], z, float("-inf"))
        new = tl.maximum(largest, tl.max(z, 1))
        shares = tl.exp2((z - new[:, None]) * LOG2E)
        total = total * tl.exp2((largest - new) * LOG2E) + tl.sum(shares, 1)
        largest = new
    valid = row < rows
    hop = parts.to(tl.int64) * rows
    at = partial + part.to(tl.int64) * rows + row
    tl.store(at, largest, mask=valid)
    tl.store(at + hop, total, mask=valid)
    tl.store(at + 2 * hop, at_target, mask=valid)
    if HAS_SMOOTHING:
        tl.store(at + 3 * hop, tilt, mask=valid)


@triton.jit(
    do_not_specialize=["rows", "parts", "ignored"],
    do_not_specialize_on_alignment=["targets", "losses", "weight_sum"],
)
def cross_entropy_combine_kernel(
    partial,
    targets,
    class_weight,
    weight_sum,
    losses,
    rows,
    vocab,
    parts,
    ignored,
    z_loss,
    smoothing,
    HAS_Z_LOSS: tl.constexpr,
    HAS_SMOOTHING: tl.constexpr,
    HAS_IGNORED: tl.constexpr,
    NEGATIVE: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """Grid (ceil(rows / BLOCK_T),). ``losses`` fp32 [rows], or their negatives: the log p."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    part = tl.arange(0, PARTS)
    valid = row < rows
    there = (part < parts)[:, None] & valid[None, :]
    hop = parts.to(tl.int64) * rows
    at = partial + part.to(tl.int64)[:, None] * rows + row[None, :]
    largest = tl.load(at, mask=there, other=LOWEST)  # [parts, T]
    total = tl.load(at + hop, mask=there, other=0.0)
    at_target = tl.sum(tl.load(at + 2 * hop, mask=there, other=0.0), 0)
    top = tl.max(largest, 0)
    norm = tl.sum(total * tl.exp2((largest - top[None, :]) * LOG2E), 0)
    log_norm = tl.log(tl.where(valid, norm, 1.0))
    gap = (top - at_target) + log_norm
    target = tl.load(targets + row, mask=valid, other=0)
    known = (target >= 0) & (target < vocab)
    loss = gap
    if class_weight is not None:
        loss *= tl.load(class_weight + target, mask=known & valid, other=0.0)
    if HAS_SMOOTHING:
        tilt = tl.sum(tl.load(at + 3 * hop, mask=there, other=0.0), 0)
        every = vocab * 1.0
        share = smoothing / every
        if class_weight is not None:
            every = tl.load(weight_sum)
        loss = loss * (1.0 - smoothing) + share * (every * (top + log_norm) - tilt)
    if HAS_Z_LOSS:
        loss += z_loss * (top + log_norm) * (top + log_norm)
    loss = tl.where(known, loss, float("nan"))
    if HAS_IGNORED:
        loss = tl.where(target != ignored, loss, 0.0)
    if NEGATIVE:
        loss = -loss
    tl.store(losses + row, loss, mask=valid)


def refuse_fused(problem: Problem) -> str | None:
    """Say why a problem is left to chunks, or None.

    float32 is multiplied exactly, which cuBLAS does faster; copies of 16 bytes want aligned rows.
    """
    operands = [problem.weight] if problem.kept is not None else [problem.weight, problem.x]
    if problem.x.dtype not in (torch.float16, torch.bfloat16):
        return f"float16 or bfloat16 expected, got {problem.x.dtype}"
    for operand in operands:  # kept rows are copied: aligned as far as H is
        if operand.shape[1] % 16 or operand.stride(0) % 16 or operand.data_ptr() % 16:
            return "rows must begin at multiples of 16 elements"
        if operand.stride(1) != 1:
            return "rows must be contiguous"
    return None


def fused_losses(problem: Problem, *, negative: bool = False) -> Tensor:
    """Return the losses of the n kept rows, float32 ``[n]``.

    Args:
        problem: one that `refuse_fused` does not refuse.
        negative: give their negatives: without options, log-probabilities.
    """
    x, targets = problem.rows_between(0, problem.rows)
    weight, bias, class_weight = problem.weight, problem.bias, problem.class_weight
    options = problem.options
    (rows, width), vocab = x.shape, weight.shape[0]
    losses = torch.empty(rows, dtype=torch.float32, device=x.device)
    if rows == 0:
        return losses
    smooth = options.smoothing > 0
    config = fused_config(smooth and class_weight is not None)
    parts, tiles_each = splits(rows, vocab, config)
    partial = torch.empty((4, parts, rows), dtype=torch.float32, device=x.device)
    weight_sum = None if class_weight is None else class_weight.sum().view(1)
    multiply: Any = cross_entropy_fused_kernel[(-(-rows // config.rows) * parts,)]
    combine: Any = cross_entropy_combine_kernel[(-(-rows // COMBINE_ROWS),)]
    with on_device(x.device):
        multiply(
            x, weight, targets, bias, class_weight if smooth else None, partial, rows, vocab,
            width, x.stride(0), weight.stride(0), parts, tiles_each, options.softcap,
            HAS_SOFTCAP=options.softcap > 0, HAS_SMOOTHING=smooth,
            WHOLE_DEPTH=width % config.depth == 0, GROUP=GROUP, BLOCK_T=config.rows,
            BLOCK_V=config.columns, BLOCK_H=config.depth, num_warps=config.warps,
            num_stages=config.stages,
        )  # fmt: skip
        combine(
            partial, targets, class_weight, weight_sum, losses, rows, vocab, parts,
            options.ignored or 0, options.z_loss, options.smoothing,
            HAS_Z_LOSS=options.z_loss != 0, HAS_SMOOTHING=smooth,
            HAS_IGNORED=options.ignored is not None, NEGATIVE=negative,
            PARTS=triton.next_power_of_2(parts), BLOCK_T=COMBINE_ROWS, num_warps=COMBINE_WARPS,
            num_stages=1,
        )  # fmt: skip
    return losses
