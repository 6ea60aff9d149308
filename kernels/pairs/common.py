"""What the losses over all pairs share on the host: scalars, labels, and who is doing the work."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Positives", "ids_of", "positives_of", "scalar"]


@dataclass(frozen=True)
class Positives:
    """Which pairs belong together, where labels say so: equal ids do."""

    rows: Tensor
    """int32 ``[n]``, not negative."""
    columns: Tensor
    """int32 ``[N]``."""
    shares: Tensor
    """``[n]``: one over the positives of each row; float32 for the kernels."""


def scalar(
    value: Tensor | float, device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return a number as ``[1]`` on ``device``; gradients reach a tensor."""
    if isinstance(value, Tensor):
        return value.to(device=device, dtype=dtype).reshape(1)
    return torch.full((1,), value, dtype=dtype, device=device)


def ids_of(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return an int32 id and the number of its like, for each of int64 ``labels`` ``[N]``.

    The id is the place of the first of them in sorted order: nothing is read back, no atomics.
    """
    ordered = labels.sort().values
    ids = torch.searchsorted(ordered, labels, out_int32=True)
    return ids, torch.searchsorted(ordered, labels, right=True, out_int32=True) - ids


def positives_of(
    labels: Tensor | None, own: slice = slice(None), dtype: torch.dtype = torch.float32
) -> Positives | None:
    """Return the positives of the rows ``own`` among those of ``labels`` ``[N]``."""
    if labels is None:
        return None
    ids, counts = ids_of(labels)
    return Positives(ids[own], ids, counts.to(dtype).reciprocal()[own])
