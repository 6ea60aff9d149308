"""What the fused operations over rows share on the host: shapes, views, the choice of a door."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

from ..dropout import keep, row_keys

__all__ = [
    "check_dropout",
    "check_floating",
    "drop",
    "is_traced",
    "refuse_device",
    "refuse_triton",
    "rows_of",
]

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


def rows_of(x: Tensor) -> Tensor:
    """Return ``[..., N]`` as ``[M, N]`` with columns side by side: a view, or a copy if it must."""
    width = x.shape[-1]
    if x.stride(-1) != 1 and width > 1:
        x = x.contiguous()
    return x if x.dim() == 2 else x.reshape(-1, width)


def drop(x: Tensor, p: float, seed: Tensor | None) -> Tensor:
    """Drop elements of ``[..., N]``: torch's own, or with a seed `kernels.dropout`'s mask.

    That mask is a function of (seed, row, column): the same in every implementation.
    """
    if p == 0.0:
        return x
    if seed is None:
        return torch.nn.functional.dropout(x, p)
    rows = x.numel() // max(x.shape[-1], 1)
    keys = row_keys(seed, torch.arange(rows, device=x.device), 1)
    stays = keep(keys, torch.arange(x.shape[-1], device=x.device), p)  # [M, 1, N]
    return torch.where(stays.view(x.shape), x * (1.0 / (1.0 - p)), 0.0)


def check_floating(name: str, x: Tensor) -> None:
    """Raise ValueError unless ``x`` is floating with at least one column."""
    if x.dim() == 0 or not x.is_floating_point() or x.shape[-1] == 0:
        raise ValueError(
            f"{name}: floating [..., N] with N > 0 expected, got {x.dtype} of shape "
            f"{tuple(x.shape)}"
        )


def check_dropout(dropout: float) -> None:
    """Raise ValueError unless it is a probability below 1."""
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout: in [0, 1) expected, got {dropout}")
