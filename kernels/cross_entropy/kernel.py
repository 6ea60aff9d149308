"""Cross-entropy over logits that are there: one launch gives a chunk's losses and its gradient.

A program takes whole rows. The first pass over a row keeps, in each thread, a running maximum and
sum of lanes of eight columns (the online normaliser of Milakov and Gimelshein 2018, arXiv
1805.02867), so that threads meet once a row; the second pass, backwards, finds the row in L2 and
overwrites it with the gradient of the loss by its logits. With s the smoothing, w the class
weights, W their sum, t the target, g what comes from above (1 in the forward pass) and p the
softmax,

    loss = (1 - s) w_t (lse - z_t) + s / V (W lse - sum_v w_v z_v) + z_loss lse²
    dz_v = g (A p_v - B [v = t] - s w_v / V),  A = (1 - s) w_t + s W / V + 2 z_loss lse,
                                               B = (1 - s) w_t

times the soft cap's derivative. Differences are taken before anything is scaled: an offset that
all logits of a row share costs no accuracy.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..attention_triton.common import LOG2E, tanh
from .chunks import Options
from .table import MULTIPROCESSORS, row_config

__all__ = ["ROW_MULTIPLE", "on_device", "row_step", "scaled"]

ROW_MULTIPLE = 16
"""Elements: what Triton must know of a row's stride to load 16 bytes at a time."""
SCALE_BLOCK = 4096
SCALE_WARPS = 8

# Below every logit, and finite: lanes past the row's end must not become -inf - -inf.
LOWEST = tl.constexpr(-1.0e38)


@triton.jit
def _load_logits(row, bias, column, inside, stride, softcap, HAS_SOFTCAP: tl.constexpr):
    """Logits of a block in fp32 (-inf past the end) and the derivative of their soft cap."""
    z = tl.load(row + column, mask=column < stride, other=0.0).to(tl.float32)
    if bias is not None:
        z += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    slope = z
    if HAS_SOFTCAP:
        bent = tanh(z / softcap)
        z = bent * softcap
        slope = 1.0 - bent * bent
    return tl.where(inside, z, float("-inf")), slope


@triton.jit(
    do_not_specialize=["rows", "ignored"],
    do_not_specialize_on_alignment=["targets", "losses", "upstream", "weight_sum"],
)
def cross_entropy_rows_kernel(
    logits,
    targets,
    bias,
    class_weight,
    weight_sum,
    upstream,
    losses,
    rows,
    vocab,
    stride,
    ignored,
    softcap,
    z_loss,
    smoothing,
    HAS_SOFTCAP: tl.constexpr,
    HAS_Z_LOSS: tl.constexpr,
    HAS_SMOOTHING: tl.constexpr,
    HAS_IGNORED: tl.constexpr,
    HAS_GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
    PER_LANE: tl.constexpr,
):
    """Grid (any,). ``logits`` [rows, vocab], overwritten if HAS_GRADIENT; ``stride`` columns each,
    of which those past ``vocab`` may hold anything (and are written too).

    ``targets`` int64 [rows], ``losses`` and ``upstream`` fp32 [rows] or None, ``bias`` [vocab] or
    None, ``class_weight`` fp32 [vocab] and its sum [1] or None. A target out of range gives NaN.
    """
    LANES: tl.constexpr = BLOCK // PER_LANE
    lane = tl.arange(0, LANES)[:, None] * PER_LANE + tl.arange(0, PER_LANE)[None, :]
    blocks = tl.cdiv(vocab, BLOCK)
    program = tl.program_id(0).to(tl.int64)
    programs = tl.num_programs(0)
    for turn in range(tl.cdiv(rows - program, programs)):
        index = program + turn * programs
        row = logits + index * stride
        target = tl.load(targets + index)
        live = True
        needed = blocks
        if HAS_IGNORED:
            live = target != ignored
            needed = tl.where(live, blocks, 0)
        known = (target >= 0) & (target < vocab)
        at_target = tl.load(row + target, mask=known, other=0.0).to(tl.float32)
        if bias is not None:
            at_target += tl.load(bias + target, mask=known, other=0.0).to(tl.float32)
        if HAS_SOFTCAP:
            at_target = tanh(at_target / softcap) * softcap
        largest = tl.full([LANES], LOWEST, tl.float32)
        total = tl.zeros([LANES], tl.float32)
        tilt = tl.zeros([LANES], tl.float32)
        for block in range(needed):
            column = block * BLOCK + lane
            inside = column < vocab
            z, _ = _load_logits(row, bias, column, inside, stride, softcap, HAS_SOFTCAP)
            new = tl.maximum(largest, tl.max(z, 1))
            shares = tl.exp2((z - new[:, None]) * LOG2E)
            total = total * tl.exp2((largest - new) * LOG2E) + tl.sum(shares, 1)
            largest = new
            if HAS_SMOOTHING:
                above = tl.where(inside, z - at_target, 0.0)
                if class_weight is not None:
                    above *= tl.load(class_weight + column, mask=inside, other=0.0)
                tilt += tl.sum(above, 1)
        top = tl.max(largest, 0)
        norm = tl.sum(total * tl.exp2((largest - top) * LOG2E), 0)
        log_norm = tl.log(norm)
        lse = top + log_norm
        gap = (top - at_target) + log_norm  # -log p of the target
        own = 1.0
        if class_weight is not None:
            own = tl.load(class_weight + target, mask=known, other=0.0)
        if HAS_SMOOTHING:
            every = vocab * 1.0
            share = smoothing / every
            if class_weight is not None:
                every = tl.load(weight_sum)
            own *= 1.0 - smoothing
        if losses is not None:
            loss = own * gap
            if HAS_SMOOTHING:
                loss += share * (every * gap - tl.sum(tilt, 0))
            if HAS_Z_LOSS:
                loss += z_loss * lse * lse
            loss = tl.where(known, loss, float("nan"))
            if HAS_IGNORED:
                loss = tl.where(live, loss, 0.0)
            tl.store(losses + index, loss)
        if HAS_GRADIENT:
            factor = own
            if HAS_SMOOTHING:
                factor += share * every
            if HAS_Z_LOSS:
                factor += 2.0 * z_loss * lse
            above = 1.0
            if upstream is not None:
                above = tl.load(upstream + index)
            factor *= above / norm
            own *= above
            for back in range(blocks):
                column = (blocks - 1 - back) * BLOCK + lane
                inside = column < vocab
                z, slope = _load_logits(row, bias, column, inside, stride, softcap, HAS_SOFTCAP)
                dz = factor * tl.exp2((z - top) * LOG2E)
                if HAS_SMOOTHING:
                    if class_weight is not None:
                        weight = tl.load(class_weight + column, mask=inside, other=0.0)
                        dz -= (above * share) * weight
                    else:
                        dz -= above * share
                dz = tl.where(column == target, dz - own, dz)
                if HAS_SOFTCAP:
                    dz *= slope
                if HAS_IGNORED:
                    dz = tl.where(live, dz, 0.0)
                tl.store(row + column, dz.to(logits.dtype.element_ty), mask=column < stride)


@triton.jit
def cross_entropy_scale_kernel(source, result, factor, count, BLOCK: tl.constexpr):
    """``result = source * factor[0]`` in fp32, rounded once; grid (ceil(count / BLOCK),)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    value = tl.load(source + at, mask=inside, other=0.0).to(tl.float32) * tl.load(factor)
    # Zero stays +0 under a negative factor, as in rows without loss, which are not computed.
    value = tl.where(value == 0.0, 0.0, value)
    tl.store(result + at, value.to(result.dtype.element_ty), mask=inside)


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which launches go to ``device``; entering costs only if they don't."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(device)


@lru_cache(maxsize=64)
def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return MULTIPROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count


def row_step(
    logits: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    class_weight: Tensor | None,
    weight_sum: Tensor | None,
    upstream: Tensor | None,
    losses: Tensor | None,
    options: Options,
    gradient: bool,
) -> None:
    """The `RowStep` of `kernels.cross_entropy.chunks` in one launch.

    ``logits`` [n, V] are the first columns of rows as long as V rounded up to ROW_MULTIPLE, all of
    which is written. float32 ``class_weight`` [V], its sum [1], ``upstream`` [n].
    """
    rows, vocab = logits.shape
    dressed = bias is not None or class_weight is not None
    dressed |= options.softcap > 0 or options.smoothing > 0
    config = row_config(vocab, dressed, logits.dtype.itemsize)
    programs = min(rows, config.per_sm * _multiprocessors(logits.device))
    launch: Any = cross_entropy_rows_kernel[(programs,)]
    with on_device(logits.device):
        launch(
            logits, targets, bias, class_weight, weight_sum, upstream, losses, rows, vocab,
            logits.stride(0), options.ignored or 0, options.softcap, options.z_loss,
            options.smoothing, HAS_SOFTCAP=options.softcap > 0, HAS_Z_LOSS=options.z_loss != 0,
            HAS_SMOOTHING=options.smoothing > 0, HAS_IGNORED=options.ignored is not None,
            HAS_GRADIENT=gradient, BLOCK=config.block, PER_LANE=config.lane,
            num_warps=config.warps, num_stages=1,
        )  # fmt: skip


def scaled(source: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``source * factor`` in ``dtype``, rounded once; ``factor`` float32, one element."""
    result = torch.empty(source.shape, dtype=dtype, device=source.device)
    count = source.numel()
    if count:
        launch: Any = cross_entropy_scale_kernel[(-(-count // SCALE_BLOCK),)]
        with on_device(source.device):
            launch(
                source, result, factor, count, BLOCK=SCALE_BLOCK, num_warps=SCALE_WARPS,
                num_stages=1,
            )  # fmt: skip
    return result
