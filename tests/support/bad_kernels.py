"""Kernels that the offline gate must refuse, as an op of its own."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit
def product_kernel(a, b, out, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    rows, columns, inner = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    left = tl.load(a + rows[:, None] * K + inner[None, :])
    right = tl.load(b + inner[:, None] * N + columns[None, :])
    found = tl.dot(left, right, input_precision="ieee")
    tl.store(out + rows[:, None] * N + columns[None, :], found)


@triton.jit
def broken_kernel(a):
    tl.store(a, tl.load(a) + tl.arange(0, 3))  # 3 is no power of two


def _case(name: str, fn: Any, expect: str, kind: str = "", **constexprs: int) -> dict[str, Any]:
    types = {"a": f"*{kind or 'fp32'}", "b": f"*{kind}", "out": "*fp32"}
    signature = {arg: types.get(arg, "constexpr") for arg in fn.arg_names}
    return {
        "name": name,
        "fn": fn,
        "signature": signature,
        "constexprs": constexprs,
        "attrs": {(i,): [["tt.divisibility", 16]] for i in range(3) if kind},
        "num_warps": 4,
        "num_stages": 1,
        "expect": expect,
    }


def offline_cases() -> list[dict[str, Any]]:
    good = {"M": 64, "N": 64, "K": 64}
    return [
        _case("good", product_kernel, "wgmma", "bf16", **good),
        _case("huge", product_kernel, "wgmma", "bf16", M=128, N=256, K=16),
        _case("fp32", product_kernel, "wgmma", "fp32", M=16, N=16, K=16),
        _case("tensor", product_kernel, "fma", "bf16", **good),
        _case("wide", product_kernel, "wgmma", "bf16", M=64, N=256, K=512),
        _case("broken", broken_kernel, "none"),
    ]
