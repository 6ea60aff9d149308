"""What every op asks at its door: whether the call is traced, and whether kernels can serve it.

Nothing here imports triton.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

__all__ = ["is_traced", "refuse_device", "refuse_triton"]

_HAS_TRITON = importlib.util.find_spec("triton") is not None
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def is_traced() -> bool:
    """Whether the call must go through registered operators: something other than eager watches."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


def refuse_device(x: Tensor, *_: Any, **__: Any) -> str | None:
    """Say why kernels cannot run where ``x`` lies, or None."""
    if not _HAS_TRITON:
        return "triton is not installed"
    if not x.is_cuda and not _INTERPRETED:
        return "needs a CUDA device (or TRITON_INTERPRET=1, to test)"
    return None


def refuse_triton(x: Tensor, *_: Any, **__: Any) -> str | None:
    """Say why kernels cannot serve ``x``, or None."""
    if x.dtype not in _DTYPES:
        return refuse_device(x) or f"float32, float16 or bfloat16 expected, got {x.dtype}"
    return refuse_device(x)
