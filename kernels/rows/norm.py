"""LayerNorm and RMSNorm, with the dropout and the addition that come before them in a block.

A pre-norm block adds what its halves compute to a residual stream and normalises the sum. Apart,
these are three passes forward (with dropout four) and as many back; together they are one each way.
Here: the public functions, the eager implementation and the doors to the Triton one.
"""

from __future__ import annotations

from functools import partial
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import dispatch
from ..doors import is_traced, refuse_triton
from ..dropout import seed_tensor
from ..reference import norm_reference
from .common import check_dropout, check_floating, drop

__all__ = ["layer_norm", "rms_norm"]

_MAX_COLUMNS = 8192
_MAX_RAGGED = 4096


@overload
def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, residual: None = None,
    eps: float = 1e-5,
) -> Tensor: ...  # fmt: skip


@overload
def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, residual: Tensor,
    dropout: float = 0.0, seed: int | Tensor | None = None, eps: float = 1e-5,
) -> tuple[Tensor, Tensor]: ...  # fmt: skip


@overload
def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, residual: Tensor | None = None,
    dropout: float = 0.0, seed: int | Tensor | None = None, eps: float = 1e-5,
) -> Tensor | tuple[Tensor, Tensor]: ...  # fmt: skip


def layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return ``(x - mean) / sqrt(var + eps) * weight + bias`` over the last dimension.

    With ``residual``: normalise ``dropout(x) + residual`` and return that sum too. Statistics are
    float32 (float64 for float64), of the sum as rounded to x's dtype. Ba et al. 2016.

    Args:
        x: ``[..., N]``, floating.
        weight: ``[N]``, in x's dtype or float32.
        bias: ``[N]``, in weight's dtype.
        residual: like x.
        dropout: probability of dropping an element of x before the addition, in [0, 1).
        seed: an int of 64 bits or an int64 tensor of one element. The mask is then
            `kernels.dropout`'s, a function of seed, row and column; ``None`` draws from torch's
            global generator, differently in each implementation.
        eps: added to the variance.

    Returns:
        ``[..., N]`` in x's dtype; with ``residual`` a pair, the second the sum. Gradients reach x,
        weight, bias and residual; that of the sum is added in the same pass.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    return _norm("layer_norm", x, weight, bias, residual, dropout, seed, eps)


@overload
def rms_norm(x: Tensor, weight: Tensor, *, residual: None = None, eps: float = 1e-6) -> Tensor: ...


@overload
def rms_norm(
    x: Tensor, weight: Tensor, *, residual: Tensor, dropout: float = 0.0,
    seed: int | Tensor | None = None, eps: float = 1e-6,
) -> tuple[Tensor, Tensor]: ...  # fmt: skip


@overload
def rms_norm(
    x: Tensor, weight: Tensor, *, residual: Tensor | None = None, dropout: float = 0.0,
    seed: int | Tensor | None = None, eps: float = 1e-6,
) -> Tensor | tuple[Tensor, Tensor]: ...  # fmt: skip


def rms_norm(
    x: Tensor,
    weight: Tensor,
    *,
    residual: Tensor | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return ``x / sqrt(mean(x²) + eps) * weight``; all else as `layer_norm`.

    Zhang & Sennrich 2019. The result is rounded once, after the product with ``weight``.
    """
    return _norm("rms_norm", x, weight, None, residual, dropout, seed, eps)


def _norm(
    op: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    dropout: float,
    seed: int | Tensor | None,
    eps: float,
) -> Tensor | tuple[Tensor, Tensor]:
    _check(x, weight, bias, residual, dropout, eps)
    run = dispatch.choose(op, x)
    y, summed = run(
        x, weight, bias, residual, dropout=dropout, seed=seed if dropout else None, eps=eps
    )
    return y if summed is None else (y, summed)


def _check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    dropout: float,
    eps: float,
) -> None:
    check_floating("x", x)
    if weight.shape != x.shape[-1:] or weight.dtype not in (x.dtype, torch.float32):
        raise ValueError(
            f"weight: [{x.shape[-1]}] in {x.dtype} or torch.float32 expected, "
            f"got {weight.dtype} of shape {tuple(weight.shape)}"
        )
    if bias is not None and (bias.shape != weight.shape or bias.dtype != weight.dtype):
        raise ValueError(
            f"bias: shape and dtype of weight expected, got {bias.dtype} of shape "
            f"{tuple(bias.shape)}"
        )
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        raise ValueError(
            f"residual: x's {x.dtype} and shape {tuple(x.shape)} expected, "
            f"got {residual.dtype} of shape {tuple(residual.shape)}"
        )
    for name, other in (("weight", weight), ("bias", bias), ("residual", residual)):
        if other is not None and other.device != x.device:
            raise ValueError(f"{name}: lies on {other.device}, x on {x.device}")
    check_dropout(dropout)
    if dropout and residual is None:
        raise ValueError(f"dropout: {dropout} needs a residual, that x is added to")
    if eps < 0:
        raise ValueError(f"eps: at least 0 expected, got {eps}")


# Eager -------------------------------------------------------------------------------------------


def _eager(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    *,
    dropout: float,
    seed: int | Tensor | None,
    eps: float,
    center: bool,
) -> tuple[Tensor, Tensor | None]:
    summed = None
    if residual is not None:
        given = None if seed is None else seed_tensor(seed, x.device)
        x = summed = drop(x, dropout, given) + residual
    # Torch has no mixed dtypes on a GPU.
    wide = x if weight.dtype == x.dtype else x.float()
    if center:
        y = F.layer_norm(wide, weight.shape, weight, bias, eps)
    else:
        y = F.rms_norm(wide, weight.shape, weight, eps)
    return y.to(x.dtype), summed


def _reference(*inputs: Any, seed: int | Tensor | None, **options: Any) -> Any:
    given = seed_tensor(seed, inputs[0].device) if options["dropout"] else None
    return norm_reference(*inputs, seed=given, **options)


# Triton ------------------------------------------------------------------------------------------


@torch.library.custom_op("babyvlm::norm_forward", mutates_args=())
def norm_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    seed: Tensor | None,
    eps: float,
    dropout: float,
    center: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, the sum (no elements without ``residual``) and the statistics ``[2 or 1, M]``."""
    from . import norm_triton

    y, summed, stats = norm_triton.forward(x, weight, bias, residual, seed, eps, dropout, center)
    return y, x.new_empty(0) if summed is None else summed, stats


@torch.library.custom_op("babyvlm::norm_backward", mutates_args=())
def norm_backward(
    dy: Tensor,
    dsummed: Tensor | None,
    summed: Tensor,
    weight: Tensor,
    stats: Tensor,
    seed: Tensor | None,
    dropout: float,
    has_bias: bool,
    center: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the sum, of x (with ``seed``), weight and bias, else no elements."""
    from . import norm_triton

    dsum, dx, dweight, dbias = norm_triton.backward(
        dy, dsummed, summed, weight, stats, seed, dropout, has_bias, center
    )
    none = (weight.new_empty(0), weight.new_empty(0))
    return dsum, none[0] if dx is None else dx, dweight, none[1] if dbias is None else dbias


@norm_forward.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, seed: Tensor | None,
    eps: float, dropout: float, center: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    summed = x.new_empty(0) if residual is None else torch.empty_like(y)
    rows = x.numel() // x.shape[-1]
    return y, summed, torch.empty((1 + center, rows), dtype=torch.float32, device=x.device)


@norm_backward.register_fake
def _(
    dy: Tensor, dsummed: Tensor | None, summed: Tensor, weight: Tensor, stats: Tensor,
    seed: Tensor | None, dropout: float, has_bias: bool, center: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    dsum = torch.empty(summed.shape, dtype=summed.dtype, device=summed.device)
    dx = weight.new_empty(0) if seed is None else torch.empty_like(dsum)
    dbias = torch.empty_like(weight) if has_bias else weight.new_empty(0)
    return dsum, dx, torch.empty_like(weight), dbias


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    x, weight, bias, residual, seed, _, dropout, center = inputs
    ctx.save_for_backward(x if residual is None else output[1], weight, output[2], seed)
    ctx.options = (dropout, bias is not None, center)
    ctx.has_residual = residual is not None
    further = output[2 if ctx.has_residual else 1 :]
    ctx.mark_non_differentiable(*(x for x in further if x is not None))
    ctx.set_materialize_grads(False)


def _grads(ctx: Any, dy: Tensor | None, dsummed: Tensor | None, run: Any) -> tuple[Any, ...]:
    summed, weight, stats, seed = ctx.saved_tensors
    if dy is None and dsummed is None:
        return (None,) * 8
    dy = torch.zeros_like(summed) if dy is None else dy
    dsummed = dsummed if ctx.has_residual else None
    dsum, dx, dweight, dbias = run(dy, dsummed, summed, weight, stats, seed, *ctx.options)
    return (
        dsum if seed is None else dx, dweight, dbias if ctx.options[1] else None,
        dsum if ctx.has_residual else None, None, None, None, None,
    )  # fmt: skip


def _registered_backward(
    ctx: Any, dy: Tensor | None, dsummed: Tensor | None, _: Any
) -> tuple[Any, ...]:
    return _grads(ctx, dy, dsummed, norm_backward)


norm_forward.register_autograd(_registered_backward, setup_context=_save)


class _EagerDoor(torch.autograd.Function):
    """The door of plain eager code: a third of the registered operator's host time."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Any, ...]:
        from . import norm_triton

        output = norm_triton.forward(*inputs)
        _save(ctx, inputs, output)
        return output

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, dy: Tensor | None, dsummed: Tensor | None, _: Any
    ) -> tuple[Any, ...]:
        from . import norm_triton

        # With gradients of gradients in sight: the registered operator, which refuses them aloud.
        double = torch.is_grad_enabled()
        return _grads(ctx, dy, dsummed, norm_backward if double else norm_triton.backward)


def _triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    *,
    dropout: float,
    seed: int | Tensor | None,
    eps: float,
    center: bool,
) -> tuple[Tensor, Tensor | None]:
    door = norm_forward if is_traced() else _EagerDoor.apply
    given = seed_tensor(seed, x.device) if dropout else None
    y, summed, _ = door(x, weight, bias, residual, given, eps, dropout, center)
    return y, None if residual is None else summed


def _refuse(x: Tensor, *_: Any, **__: Any) -> str | None:
    why, columns = refuse_triton(x), x.shape[-1]
    if why is not None:
        return why
    if columns > _MAX_COLUMNS:
        return f"at most {_MAX_COLUMNS:,} columns expected, got {columns:,}"
    if columns > _MAX_RAGGED and columns % 8:
        return f"beyond {_MAX_RAGGED:,} columns a multiple of 8 expected, got {columns:,}"
    return None


_IMPLEMENTATIONS = {"triton": _triton, "eager": _eager, "reference": _reference}
for _op, _center in (("layer_norm", True), ("rms_norm", False)):
    _runs = {name: partial(run, center=_center) for name, run in _IMPLEMENTATIONS.items()}
    dispatch.register(_op, "triton", _runs["triton"], refuses=_refuse, devices=("cuda",))
    dispatch.register(_op, "eager", _runs["eager"])
    dispatch.register(_op, "reference", _runs["reference"], opt_in=True)
