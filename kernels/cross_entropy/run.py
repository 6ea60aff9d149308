"""Linear cross-entropy from tensors to loss and gradients, no autograd: both doors call this.

Which rows, which algorithm (see `kernels.cross_entropy.table`), and what the mean divides by.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import chunks
from .chunks import Gradients, Options, Problem, kept_rows

__all__ = ["Forward", "Scalars", "Wants", "backward", "forward", "logprobs", "scaled", "spread"]

Wants = tuple[bool, bool, bool]
"""Whether gradients of x, weight and bias are wanted."""


class Scalars(NamedTuple):
    """What of the loss is no tensor; 0 stands for none."""

    ignore_index: int | None = None
    softcap: float = 0.0
    z_loss: float = 0.0
    smoothing: float = 0.0
    reduction: str = "none"
    triton: bool = False
    """Whether our kernels work on the chunks, or torch operations."""


def _without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which products keep their operands' dtype; almost free where they do."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _problem(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    class_weight: Tensor | None,
    scalars: Scalars,
    kept: tuple[Tensor | None, int | None] | None = None,
) -> Problem:
    if class_weight is not None:
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        class_weight = class_weight.detach().to(wide).contiguous()
    if bias is not None:
        bias = bias.contiguous()
    rows, ignored = kept_rows(targets, scalars.ignore_index) if kept is None else kept
    options = Options(scalars.softcap, scalars.z_loss, scalars.smoothing, ignored)
    return Problem(x, weight, targets.contiguous(), rows, bias, class_weight, options)


def _run(problem: Problem, triton: bool, **what: Any) -> Gradients:
    if not triton:
        return chunks.in_chunks(problem, chunks.row_step, widen=not problem.x.is_cuda, **what)
    from . import kernel

    return chunks.in_chunks(problem, kernel.row_step, row_multiple=kernel.ROW_MULTIPLE, **what)


def _losses(problem: Problem, triton: bool, negative: bool = False) -> Tensor:
    """Return the losses of the kept rows, or their negatives."""
    if triton:
        from .fused import fused_losses, refuse_fused

        if refuse_fused(problem) is None:
            return fused_losses(problem, negative=negative)
    found = _run(problem, triton).losses
    assert found is not None
    return found.neg_() if negative else found


def _divisor(problem: Problem) -> Tensor | int:
    """Return what the mean divides by: the class weight of the targets with loss, or their number.

    Nothing to divide by counts as 1.
    """
    live = None
    if problem.options.ignored is not None:
        live = problem.targets != problem.options.ignored
    if problem.class_weight is None:
        return max(problem.rows, 1) if live is None else live.sum().clamp_(min=1)
    targets = problem.targets if problem.kept is None else problem.targets[problem.kept]
    own = problem.class_weight.index_select(0, targets if live is None else targets * live)
    total = (own if live is None else own * live).sum()
    return torch.where(total == 0, 1, total)


@dataclass(eq=False)
class Forward:
    """What a forward pass leaves."""

    loss: Tensor
    divisor: Tensor | int
    """Of the mean; 1 for a sum."""
    grads: Gradients | None
    """Of the sum of the kept rows' losses; None for ``reduction="none"`` or if not wanted."""
    kept: tuple[Tensor | None, int | None]
    """As `kept_rows` says."""


@torch.no_grad()
def forward(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    class_weight: Tensor | None,
    scalars: Scalars,
    wants: Wants,
) -> Forward:
    """Return the loss and, of mean and sum, the gradients of the rows' sum."""
    problem = _problem(x, weight, targets, bias, class_weight, scalars)
    grads = None
    with _without_autocast(x):
        if any(wants) and scalars.reduction != "none":
            grads = _run(problem, scalars.triton, wants=wants)
            losses = grads.losses
            assert losses is not None
        else:
            losses = _losses(problem, scalars.triton)
    kept = (problem.kept, problem.options.ignored)
    if scalars.reduction == "none":
        if problem.kept is not None:
            losses = losses.new_zeros(targets.shape).index_copy_(0, problem.kept, losses)
        return Forward(losses, 1, grads, kept)
    loss = losses.sum()
    divisor = _divisor(problem) if scalars.reduction == "mean" else 1
    if not isinstance(divisor, int) or divisor != 1:
        loss = loss / divisor
    return Forward(loss, divisor, grads, kept)


def spread(part: Tensor, kept: Tensor | None, rows: int) -> Tensor:
    """Return rows of a gradient where they belong, zeros elsewhere."""
    if kept is None:
        return part
    return part.new_zeros(rows, part.shape[1]).index_copy_(0, kept, part)


@torch.no_grad()
def backward(
    upstream: Tensor,
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    class_weight: Tensor | None,
    scalars: Scalars,
    wants: Wants,
    kept: tuple[Tensor | None, int | None] | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients under an upstream gradient a row, float32 ``[T]``."""
    problem = _problem(x, weight, targets, bias, class_weight, scalars, kept)
    if problem.kept is not None:
        upstream = upstream.index_select(0, problem.kept)
    upstream = upstream.contiguous()
    with _without_autocast(x):
        found = _run(problem, scalars.triton, upstream=upstream, losses=False, wants=wants)
    dx = None if found.x is None else spread(found.x, problem.kept, x.shape[0])
    dw = None if found.weight is None else found.weight.to(weight.dtype)
    db = None if found.bias is None or bias is None else found.bias.to(bias.dtype)
    return dx, dw, db


def scaled(source: Tensor, factor: Tensor, dtype: torch.dtype, triton: bool) -> Tensor:
    """Return ``source * factor`` (one element), rounded to ``dtype`` once; zeros become +0."""
    if triton:
        from . import kernel

        return kernel.scaled(source, factor, dtype)
    wide = source.to(factor.dtype)
    if wide.is_cuda:
        return wide.mul(factor).add_(0.0).to(dtype)
    # One pass: where nobody waits for it, the factor may be a number.
    return torch.add(wide.new_zeros(()), wide, alpha=float(factor)).to(dtype)


@torch.no_grad()
def logprobs(x: Tensor, weight: Tensor, targets: Tensor, triton: bool) -> Tensor:
    """Return log-probabilities of the targets, float32 ``[T]``."""
    problem = _problem(x, weight, targets, None, None, Scalars())
    with _without_autocast(x):
        return _losses(problem, triton, negative=True).float()
