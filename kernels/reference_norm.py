"""Definition of LayerNorm and RMSNorm with the addition before them, step by step, fp64 included."""

from __future__ import annotations

import torch
from torch import Tensor

from .row_ops import drop

__all__ = ["norm_reference"]


def norm_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    center: bool,
    eps: float,
    dropout: float = 0.0,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return y and, with ``residual``, the sum; see `kernels.norm.layer_norm`."""
    summed = None
    if residual is not None:
        x = summed = drop(x, dropout, seed) + residual
    centred = x - x.mean(-1, keepdim=True) if center else x
    scale = torch.sqrt(centred.square().mean(-1, keepdim=True) + eps)
    y = centred / scale * weight
    return (y if bias is None else y + bias).to(x.dtype), summed
