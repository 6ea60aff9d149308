"""fused"""
from __future__ import annotations
import triton
import triton.language as tl
from .attention_triton.common import LOG2E, dot_add, tanh
from .cross_entropy_triton import LOWEST


@triton.jit
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
    splits,
    tiles_each,
    softcap,
    HAS_SOFTCAP: tl.constexpr,
    HAS_SMOOTHING: tl.constexpr,
    EVEN: tl.constexpr,
    FLAT: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Grid (row tiles x splits,)."""
    program = tl.program_id(0)
    row_tiles = tl.cdiv(rows, BLOCK_T)
    group = program // (GROUP * splits)
    first_tile = group * GROUP
    members = tl.minimum(row_tiles - first_tile, GROUP)
    within = program % (GROUP * splits)
    row_tile = first_tile + within % members
    split = within // members
    row = row_tile * BLOCK_T + tl.arange(0, BLOCK_T)
    safe_row = tl.minimum(row, rows - 1).to(tl.int64)
    h = tl.arange(0, BLOCK_H)
    x_at = x + safe_row[:, None] * stride_x + h[None, :]
    target = tl.load(targets + safe_row).to(tl.int32)
    largest = tl.full([BLOCK_T], LOWEST, tl.float32)
    total = tl.zeros([BLOCK_T], tl.float32)
    at_target = tl.zeros([BLOCK_T], tl.float32)
    tilt = tl.zeros([BLOCK_T], tl.float32)
    begin = split * tiles_each
    end = tl.minimum(begin + tiles_each, tl.cdiv(vocab, BLOCK_V))
    for tile in tl.range(begin, end, flatten=FLAT):
        column = tile * BLOCK_V + tl.arange(0, BLOCK_V)
        safe_column = tl.minimum(column, vocab - 1).to(tl.int64)
        w_at = weight + safe_column[:, None] * stride_w + h[None, :]
        z = tl.zeros([BLOCK_T, BLOCK_V], tl.float32)
        for k in range(0, width, BLOCK_H):
            if EVEN:
                a = tl.load(x_at + k)
                b = tl.load(w_at + k)
            else:
                a = tl.load(x_at + k, mask=(h < width - k)[None, :], other=0.0)
                b = tl.load(w_at + k, mask=(h < width - k)[None, :], other=0.0)
            z = dot_add(a, tl.trans(b), z, "ieee")
        inside = column < vocab
        if bias is not None:
            z += tl.load(bias + safe_column).to(tl.float32)[None, :]
        if HAS_SOFTCAP:
            z = tanh(z / softcap) * softcap
        at_target += tl.sum(tl.where(column[None, :] == target[:, None], z, 0.0), 1)
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
    hop = splits.to(tl.int64) * rows
    at = partial + split.to(tl.int64) * rows + row
    tl.store(at, largest, mask=valid)
    tl.store(at + hop, total, mask=valid)
    tl.store(at + 2 * hop, at_target, mask=valid)
    if HAS_SMOOTHING:
        tl.store(at + 3 * hop, tilt, mask=valid)
