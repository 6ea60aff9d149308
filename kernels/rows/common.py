"""What the fused operations over rows share on the host: shapes, views and dropout."""

from __future__ import annotations

import torch
from torch import Tensor

from ..dropout import keep, row_keys

__all__ = [
    "check_dropout",
    "check_floating",
    "drop",
    "rows_of",
]


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
