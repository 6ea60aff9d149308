"""Linear cross-entropy as PyTorch knows it: registered operators with fakes and gradients.

Two doors to the same code, as for attention (`kernels.attention_ops`): traced code goes through
opaque operators, ``torch.ops.babyvlm.linear_cross_entropy`` and the like, plain eager code through
an autograd function, which costs the host less. The results have the same bits. ``triton`` says
which implementation works on the chunks; nothing here imports it before the first launch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..doors import is_traced
from ..second import refuse_second
from . import run
from .chunks import Gradients
from .run import Scalars, Wants

__all__ = ["cross_entropy", "logprobs"]

# The door of traced code -------------------------------------------------------------------------


@torch.library.custom_op("babyvlm::linear_cross_entropy", mutates_args=())
def linear_cross_entropy_op(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    class_weight: Tensor | None,
    ignore_index: int | None,
    softcap: float,
    z_loss: float,
    smoothing: float,
    reduction: str,
    triton: bool,
    want_x: bool,
    want_weight: bool,
    want_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return loss, divisor, and of the rows' sum dx ``[T, H]``, dW ``[V, H]``, dbias ``[V]``.

    Gradients that are not wanted (by ``reduction="none"``: any) have no elements.
    """
    scalars = Scalars(ignore_index, softcap, z_loss, smoothing, reduction, triton)
    wants = (want_x, want_weight, want_bias)
    found = run.forward(x, weight, targets, bias, class_weight, scalars, wants)
    divisor = found.divisor
    if not isinstance(divisor, Tensor):
        divisor = torch.full((), divisor, dtype=found.loss.dtype, device=x.device)
    divisor = divisor.to(found.loss.dtype)
    grads = found.grads or Gradients(None, None, None, None)
    dx = None if grads.x is None else run.spread(grads.x, found.kept[0], x.shape[0])
    none = (x, divisor, divisor)
    dx, dw, db = (
        like.new_empty(0) if grad is None else grad
        for grad, like in zip((dx, grads.weight, grads.bias), none, strict=True)
    )
    return found.loss, divisor, dx, dw, db


@linear_cross_entropy_op.register_fake
def _(
    x: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    reduction, wants = rest[5], rest[7:10]
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    made = wants if reduction != "none" else (False, False, False)
    return (
        x.new_empty(targets.shape if reduction == "none" else (), dtype=wide),
        x.new_empty((), dtype=wide),
        x.new_empty(x.shape if made[0] else 0),
        x.new_empty(weight.shape if made[1] else 0, dtype=wide),
        x.new_empty(weight.shape[0] if made[2] else 0, dtype=wide),
    )


@torch.library.custom_op("babyvlm::linear_cross_entropy_backward", mutates_args=())
def linear_cross_entropy_backward_op(
    upstream: Tensor,
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    class_weight: Tensor | None,
    ignore_index: int | None,
    softcap: float,
    z_loss: float,
    smoothing: float,
    triton: bool,
    want_x: bool,
    want_weight: bool,
    want_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients under an upstream gradient a row; those not wanted have no elements."""
    scalars = Scalars(ignore_index, softcap, z_loss, smoothing, "none", triton)
    wants = (want_x, want_weight, want_bias)
    found = run.backward(upstream, x, weight, targets, bias, class_weight, scalars, wants)
    like = (x, weight, weight if bias is None else bias)
    dx, dw, db = (
        y.new_empty(0) if grad is None else grad for grad, y in zip(found, like, strict=True)
    )
    return dx, dw, db


@linear_cross_entropy_backward_op.register_fake
def _(
    upstream: Tensor, x: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    wants = rest[6:9]
    return (
        x.new_empty(x.shape if wants[0] else 0),
        weight.new_empty(weight.shape if wants[1] else 0),
        (weight if bias is None else bias).new_empty(weight.shape[0] if wants[2] else 0),
    )


@torch.library.custom_op("babyvlm::linear_cross_entropy_scaled", mutates_args=())
def linear_cross_entropy_scaled_op(
    source: Tensor, factor: Tensor, dtype: torch.dtype, triton: bool
) -> Tensor:
    """Return ``source * factor`` in ``dtype``."""
    return run.scaled(source, factor, dtype, triton)


@linear_cross_entropy_scaled_op.register_fake
def _(source: Tensor, factor: Tensor, dtype: torch.dtype, triton: bool) -> Tensor:
    return source.new_empty(source.shape, dtype=dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, targets, bias, class_weight = inputs[:5]
    ctx.scalars, ctx.wants = Scalars(*inputs[5:11]), inputs[11:14]
    ctx.dtypes = (x.dtype, weight.dtype, weight.dtype if bias is None else bias.dtype)
    if ctx.scalars.reduction == "none":
        ctx.save_for_backward(x, weight, targets, bias, class_weight)
    else:
        ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _registered_backward(ctx: Any, upstream: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if upstream is None or not any(ctx.wants):
        return (None,) * 14
    refuse_second("linear_cross_entropy")
    scalars = ctx.scalars
    if scalars.reduction == "none":
        made = linear_cross_entropy_backward_op(
            upstream, *ctx.saved_tensors, *scalars[:4], scalars.triton, *ctx.wants
        )
    else:
        divisor, *sums = ctx.saved_tensors
        factor = upstream / divisor
        made = [
            linear_cross_entropy_scaled_op(x, factor, dtype, scalars.triton) if want else None
            for x, dtype, want in zip(sums, ctx.dtypes, ctx.wants, strict=True)
        ]
    dx, dw, db = (x if want else None for x, want in zip(made, ctx.wants, strict=True))
    return dx, dw, None, db, *(None,) * 10


linear_cross_entropy_op.register_autograd(_registered_backward, setup_context=_save)


@torch.library.custom_op("babyvlm::linear_logprobs", mutates_args=())
def linear_logprobs_op(x: Tensor, weight: Tensor, targets: Tensor, triton: bool) -> Tensor:
    """Return float32 ``[T]``."""
    return run.logprobs(x, weight, targets, triton)


@linear_logprobs_op.register_fake
def _(x: Tensor, weight: Tensor, targets: Tensor, triton: bool) -> Tensor:
    return x.new_empty(targets.shape, dtype=torch.float32)


# The door of plain eager code --------------------------------------------------------------------


class _Eager(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        targets: Tensor,
        bias: Tensor | None,
        class_weight: Tensor | None,
        scalars: Scalars,
        wants: Wants,
    ) -> Tensor:
        found = run.forward(x, weight, targets, bias, class_weight, scalars, wants)
        ctx.scalars, ctx.wants, ctx.rows = scalars, wants, x.shape[0]
        ctx.dtypes = (x.dtype, weight.dtype, weight.dtype if bias is None else bias.dtype)
        kept, ctx.ignored = found.kept
        if found.grads is None:
            ctx.save_for_backward(x, weight, targets, bias, class_weight, kept)
        else:
            grads, divisor = found.grads, found.divisor
            ctx.divisor = None if isinstance(divisor, Tensor) else divisor
            saved = divisor if isinstance(divisor, Tensor) else None
            ctx.save_for_backward(grads.x, grads.weight, grads.bias, kept, saved)
        ctx.set_materialize_grads(False)
        return found.loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if upstream is None:
            return (None,) * 7
        refuse_second("linear_cross_entropy")
        if ctx.scalars.reduction == "none":
            x, weight, targets, bias, class_weight, kept = ctx.saved_tensors
            dx, dw, db = run.backward(
                upstream, x, weight, targets, bias, class_weight, ctx.scalars, ctx.wants,
                (kept, ctx.ignored),
            )  # fmt: skip
            return dx, dw, None, db, None, None, None
        *sums, kept, divisor = ctx.saved_tensors
        factor = upstream / (ctx.divisor if divisor is None else divisor)
        dx, dw, db = (
            None if x is None else run.scaled(x, factor, dtype, ctx.scalars.triton)
            for x, dtype in zip(sums, ctx.dtypes, strict=True)
        )
        if dx is not None:
            dx = run.spread(dx, kept, ctx.rows)
        return dx, dw, None, db, None, None, None


def cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None,
    class_weight: Tensor | None,
    ignore_index: int | None,
    softcap: float | None,
    z_loss: float,
    label_smoothing: float,
    reduction: str,
    triton: bool,
) -> Tensor:
    """`kernels.linear_cross_entropy` without its checks, by our kernels or by torch operations."""

    def wanted(y: Tensor | None) -> bool:
        return y is not None and y.requires_grad and torch.is_grad_enabled()

    wants = wanted(x), wanted(weight), wanted(bias)
    scalars = Scalars(
        ignore_index, softcap or 0.0, float(z_loss), float(label_smoothing), reduction, triton
    )
    if is_traced():
        return linear_cross_entropy_op(x, weight, targets, bias, class_weight, *scalars, *wants)[0]
    if not any(wants):
        return run.forward(x, weight, targets, bias, class_weight, scalars, wants).loss
    return _Eager.apply(x, weight, targets, bias, class_weight, scalars, wants)  # type: ignore[return-value]


def logprobs(x: Tensor, weight: Tensor, targets: Tensor, *, triton: bool) -> Tensor:
    """`kernels.linear_logprobs` without its checks."""
    if is_traced():
        with torch.no_grad():
            return linear_logprobs_op(x, weight, targets, triton)
    return run.logprobs(x, weight, targets, triton)
