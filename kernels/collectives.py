"""Collectives that autograd sees through, on every backend (gloo has no reduce_scatter)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gather_rows", "resolve_group"]

Group = dist.ProcessGroup


def resolve_group(group: Group | str | None) -> Group | None:
    """Return the process group to talk to, or None when this process is alone.

    ``"world"`` is the default group; before `init_process_group` a process is a world of one.

    Raises:
        ValueError: ``group`` is a string other than ``world``.
    """
    if isinstance(group, str):
        if group != "world":
            raise ValueError(f"group: a process group, 'world' or None expected, got {group!r}")
        group = dist.group.WORLD if dist.is_available() and dist.is_initialized() else None
    if group is None or dist.get_world_size(group) == 1:
        return None
    return group


class _GatherRows(torch.autograd.Function):
    """Forward: rows of all ranks; backward: this rank's part of the gradients' sum over ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int], group: Group) -> Tensor:
        ctx.sizes, ctx.group = sizes, group
        longest = max(sizes)
        padded = x.new_zeros((longest, *x.shape[1:]))
        padded[: x.shape[0]] = x
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        grad = grad.contiguous().clone()
        dist.all_reduce(grad, group=ctx.group)
        rank = dist.get_rank(ctx.group)
        begin = sum(ctx.sizes[:rank])
        return grad[begin : begin + ctx.sizes[rank]], None, None


def gather_rows(x: Tensor, group: Group, *, sizes: list[int] | None = None) -> Tensor:
    """Concatenate ``x`` ``[n_r, ...]`` of all ranks in rank order: ``[sum n_r, ...]``.

    The gradient that reaches a rank's rows is the sum over ranks of what each computed for them,
    so a loss may be split over ranks in any way that adds up. Every rank must call it in the same
    order. ``sizes`` (all n_r) spares the exchange of lengths.
    """
    if sizes is None:
        count = torch.tensor([x.shape[0]], device=x.device)
        counts = [torch.empty_like(count) for _ in range(dist.get_world_size(group))]
        dist.all_gather(counts, count, group=group)
        sizes = torch.cat(counts).tolist()
    return _GatherRows.apply(x, sizes, group)  # type: ignore[return-value]
