"""What the attention kernels share: the interpreter's gap, score transforms, the dropout mask.

Legend of the kernels: R query rows of a tile, C keys of a tile, D head dimension as padded.
Scores are kept in units of log2 (``exp2`` is one instruction), the saved log-sum-exp is natural.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

# Triton's interpreter gets bf16 products silently wrong; there both operands are widened first.
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
GOLDEN = tl.constexpr(0x9E3779B1)


@triton.jit
def elements(stride):
    """A stride in elements, int64, from one in eights: the compiler sees whole 16-byte words."""
    return tl.full([], 8, tl.int64) * stride


@triton.jit
def dot(a, b, PRECISION: tl.constexpr):
    """``a @ b`` in fp32; the operands keep their dtype except in the interpreter."""
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:
        return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def dot_add(a, b, acc, PRECISION: tl.constexpr):
    """``acc + a @ b``, accumulated in place."""
    if INTERPRETED:
        return acc + tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:
        return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def tanh(x):
    """Hyperbolic tangent without libdevice: a series where the exponential form cancels."""
    square = x * x
    series = 1.0 + square * (
        -0.3333333333333333
        + square * (0.13333333333333333 + square * (-0.05396825396825397 + square * 0.0218694885))
    )
    far = 1.0 - 2.0 / (1.0 + tl.exp2(x * (2.0 * LOG2E)))
    return tl.where(tl.abs(x) < 0.25, x * series, far)


@triton.jit
def mix(x):
    """The 32-bit finaliser "lowbias32" (C. Wellons, hash prospector, 2018)."""
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    x ^= x >> 16
    return x


@triton.jit
def row_keys(seed, rows, head):
    """Two 32-bit keys a query row: the dropout mask's counter state, see `kernels.dropout`."""
    low = (seed & 0xFFFFFFFF).to(tl.uint32)
    high = ((seed >> 32) & 0xFFFFFFFF).to(tl.uint32)
    s0 = mix(low)
    s1 = mix(high ^ s0)
    first = mix(mix(s0 + rows.to(tl.uint32)) ^ (s1 + head.to(tl.uint32) * GOLDEN))
    return first, mix(first + s1)


@triton.jit
def kept(first, second, keys, threshold):
    """Whether each (row, key) survives dropout; operands broadcast against each other."""
    x = (keys.to(tl.uint32) * GOLDEN) ^ first
    x ^= x >> 16
    x *= 0x7FEB352D
    x += second
    x ^= x >> 15
    x *= 0x846CA68B
    x ^= x >> 16
    return x >= threshold
