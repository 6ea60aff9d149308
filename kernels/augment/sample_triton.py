"""The draws of `kernels.augment.parameters` in one small launch, the same bits as on the host."""
# A call of a compiled function looks to a type checker as if it never returned.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..attention_triton.common import GOLDEN, mix, row_keys
from ..rows.common_triton import launch
from . import parameters as p
from .parameters import Law

__all__ = ["sample"]

BLOCK = 128
"""Pictures of a program, one a thread: all is arithmetic in float64."""
NUM_WARPS = 4
TRIES = tl.constexpr(p.TRIES)
CROP = tl.constexpr(p.CROP)
COLUMNS = tl.constexpr(len(p.COLUMNS))
HALVINGS = tl.constexpr(p.EXP_HALVINGS)
TERMS = tl.constexpr(p.EXP_TERMS)


@triton.jit
def _uniform(first, second, number):
    """Draw ``number`` of each picture: see `kernels.augment.parameters.uniforms`."""
    word = mix(mix(first ^ (tl.full([], number, tl.uint32) * GOLDEN)) + second)
    return word.to(tl.float64) * 2.3283064365386963e-10


@triton.jit
def _exp(t):
    x = t * (0.5**HALVINGS)
    value = x * 0.0 + TERMS[12]
    for at in tl.static_range(12):
        value = value * x + TERMS[11 - at]
    for _ in tl.static_range(HALVINGS):
        value = value * value
    return value


@triton.jit(do_not_specialize=["pictures", "height", "width"])
def sample_kernel(
    index,
    seed,
    sizes,
    table,
    pictures,
    height,
    width,
    AREA: tl.constexpr,
    SPAN: tl.constexpr,
    RATIO: tl.constexpr,
    LOG_RATIO: tl.constexpr,
    FLIP: tl.constexpr,
    FACTORS: tl.constexpr,
    HUE: tl.constexpr,
    GREY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Grid (ceil(N / BLOCK)). ``sizes`` may be None, AREA None without a crop.

    AREA, RATIO: (least, most); SPAN: the difference of AREA's; LOG_RATIO: (log least, difference of
    logs); FACTORS: least and difference of the three factors.
    """
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real = n < pictures
    number = tl.load(index + n, mask=real, other=0)
    first, second = row_keys(tl.load(seed), number, number >> 32)
    if sizes is None:
        high = tl.zeros([BLOCK], tl.float64) + height.to(tl.float64)
        wide = tl.zeros([BLOCK], tl.float64) + width.to(tl.float64)
    else:
        high = tl.load(sizes + 2 * n, mask=real, other=1).to(tl.float64)
        wide = tl.load(sizes + 2 * n + 1, mask=real, other=1).to(tl.float64)
    if AREA is None:
        top = high * 0.0
        left = high * 0.0
        tall = high
        broad = wide
    else:
        # None fits: the largest centred window of an allowed ratio.
        tall = tl.maximum(tl.minimum(high, tl.floor(wide / RATIO[0] + 0.5)), 1.0)
        broad = tl.maximum(tl.minimum(wide, tl.floor(high * RATIO[1] + 0.5)), 1.0)
        top = tl.floor((high - tall) * 0.5)
        left = tl.floor((wide - broad) * 0.5)
        for at in tl.static_range(TRIES):  # the last first, so that the first that fits stays
            place = CROP + 4 * (TRIES - 1 - at)
            area = (_uniform(first, second, place) * SPAN + AREA[0]) * (high * wide)
            ratio = _exp(_uniform(first, second, place + 1) * LOG_RATIO[1] + LOG_RATIO[0])
            w = tl.floor(tl.sqrt(area * ratio) + 0.5)
            h = tl.floor(tl.sqrt(area / ratio) + 0.5)
            fits = (w >= 1) & (h >= 1) & (h <= high) & (w <= wide)
            y = tl.floor(_uniform(first, second, place + 2) * (high - h + 1.0))
            x = tl.floor(_uniform(first, second, place + 3) * (wide - w + 1.0))
            top = tl.where(fits, y, top)
            left = tl.where(fits, x, left)
            tall = tl.where(fits, h, tall)
            broad = tl.where(fits, w, broad)
    place = table + n * COLUMNS
    tl.store(place, top.to(tl.float32), mask=real)
    tl.store(place + 1, left.to(tl.float32), mask=real)
    tl.store(place + 2, tall.to(tl.float32), mask=real)
    tl.store(place + 3, broad.to(tl.float32), mask=real)
    tl.store(place + 4, (_uniform(first, second, 0) < FLIP).to(tl.float32), mask=real)
    for at in tl.static_range(3):
        factor = _uniform(first, second, 1 + at) * FACTORS[2 * at + 1] + FACTORS[2 * at]
        tl.store(place + 5 + at, factor.to(tl.float32), mask=real)
    turn = (_uniform(first, second, 4) * 2.0 - 1.0) * HUE
    tl.store(place + 8, turn.to(tl.float32), mask=real)
    tl.store(place + 9, (_uniform(first, second, 5) < GREY).to(tl.float32), mask=real)


def sample(
    index: Tensor, seed: Tensor, sizes: Tensor | None, height: int, width: int, law: Law
) -> Tensor:
    """Return the table, float32 ``[N, 10]``; see `kernels.augment.parameters.sample_parameters`."""
    pictures = index.shape[0]
    table = torch.empty(pictures, COLUMNS.value, dtype=torch.float32, device=index.device)
    if pictures == 0:
        return table
    logs = [math.log(x) for x in law.ratio]
    factors = [max(0.0, 1.0 - x) for x in law.widths]
    spans = [1.0 + x - low for x, low in zip(law.widths, factors, strict=True)]
    launch(
        sample_kernel, (-(-pictures // BLOCK),), index,
        index.contiguous(), seed, None if sizes is None else sizes.contiguous(), table, pictures,
        height, width, AREA=law.area, SPAN=None if law.area is None else law.area[1] - law.area[0],
        RATIO=law.ratio, LOG_RATIO=(logs[0], logs[1] - logs[0]), FLIP=law.flip,
        FACTORS=tuple(x for pair in zip(factors, spans, strict=True) for x in pair), HUE=law.hue,
        GREY=law.grey, BLOCK=BLOCK, num_warps=NUM_WARPS,
        # A product and a sum are rounded one after the other, as the host does.
        enable_fp_fusion=False,
    )  # fmt: skip
    return table
