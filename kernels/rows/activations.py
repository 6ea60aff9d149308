"""The activations of a block's feed-forward half: bias + GELU + dropout, and SwiGLU.

The widest tensors of a block pass here. Fused, each is read once and written once in either
direction, and only the input is kept for the backward. Here: the public functions, the eager
implementations and the doors to the Triton ones.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import dispatch
from ..doors import is_traced, refuse_triton
from ..dropout import seed_tensor
from ..reference import bias_gelu_reference, swiglu_reference
from .common import check_dropout, check_floating, drop

__all__ = ["bias_gelu", "swiglu"]


def bias_gelu(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    approximate: Literal["tanh", "none"] = "tanh",
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
) -> Tensor:
    """Return ``dropout(gelu(x + bias))``. Hendrycks & Gimpel 2016.

    Where a linear layer precedes: on a GPU leave its bias to this function, which then gives the
    bias's gradient without reading anything again; on a CPU torch's own linear adds it for nothing.

    Args:
        x: ``[..., N]``, floating.
        bias: ``[N]``, in x's dtype or float32.
        approximate: ``tanh`` is GPT-2's form; ``none``: with the error function.
        dropout: probability of dropping an element of the result, in [0, 1).
        seed: an int of 64 bits or an int64 tensor of one element. The mask is then
            `kernels.dropout`'s, a function of seed, row and column; ``None`` draws from torch's
            global generator, differently in each implementation.

    Returns:
        ``[..., N]`` in x's dtype. Gradients reach x and bias.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    check_floating("x", x)
    if bias is not None:
        if bias.shape != x.shape[-1:] or bias.dtype not in (x.dtype, torch.float32):
            raise ValueError(
                f"bias: [{x.shape[-1]}] in {x.dtype} or torch.float32 expected, "
                f"got {bias.dtype} of shape {tuple(bias.shape)}"
            )
        if bias.device != x.device:
            raise ValueError(f"bias: lies on {bias.device}, x on {x.device}")
    if approximate not in ("tanh", "none"):
        raise ValueError(f"approximate: tanh or none expected, got {approximate!r}")
    check_dropout(dropout)
    run = dispatch.choose("bias_gelu", x)
    return run(x, bias, approximate=approximate, dropout=dropout, seed=seed if dropout else None)


def swiglu(gate: Tensor, up: Tensor | None = None) -> Tensor:
    """Return ``silu(gate) * up``. Shazeer 2020.

    Args:
        gate: ``[..., N]``, floating; without ``up`` ``[..., 2 N]``, gate first: the output of one
            projection, whose gradient then is made in one piece.
        up: like gate.

    Returns:
        ``[..., N]`` in gate's dtype. Gradients reach gate and up.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    check_floating("gate", gate)
    if up is None and gate.shape[-1] % 2:
        raise ValueError(f"gate: without up an even width expected, got {gate.shape[-1]}")
    if up is not None and (up.shape != gate.shape or up.dtype != gate.dtype):
        raise ValueError(
            f"up: gate's {gate.dtype} and shape {tuple(gate.shape)} expected, "
            f"got {up.dtype} of shape {tuple(up.shape)}"
        )
    if up is not None and up.device != gate.device:
        raise ValueError(f"up: lies on {up.device}, gate on {gate.device}")
    return dispatch.choose("swiglu", gate)(gate, up)


# Eager -------------------------------------------------------------------------------------------


def _bias_gelu_eager(
    x: Tensor,
    bias: Tensor | None,
    *,
    approximate: str,
    dropout: float,
    seed: int | Tensor | None,
) -> Tensor:
    given = None if seed is None else seed_tensor(seed, x.device)
    z = x if bias is None else (x + bias).to(x.dtype)
    return drop(F.gelu(z, approximate=approximate), dropout, given)


def _swiglu_eager(gate: Tensor, up: Tensor | None) -> Tensor:
    if up is None:
        gate, up = gate.chunk(2, dim=-1)
    return F.silu(gate) * up


def _bias_gelu_reference(x: Tensor, bias: Tensor | None, **options: Any) -> Tensor:
    seed = options.pop("seed")
    given = seed_tensor(seed, x.device) if options["dropout"] else None
    return bias_gelu_reference(x, bias, seed=given, **options)


# Triton: bias + GELU + dropout -------------------------------------------------------------------


@torch.library.custom_op("babyvlm::bias_gelu_forward", mutates_args=())
def bias_gelu_forward(
    x: Tensor, bias: Tensor | None, seed: Tensor | None, dropout: float, tanh: bool
) -> Tensor:
    """Return the activated rows, of x's shape; ``seed`` None: no dropout."""
    from . import activations_triton

    return activations_triton.gelu_forward(x, bias, seed, dropout, tanh)


@torch.library.custom_op("babyvlm::bias_gelu_backward", mutates_args=())
def bias_gelu_backward(
    dy: Tensor, x: Tensor, bias: Tensor | None, seed: Tensor | None, dropout: float, tanh: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and bias (no elements without)."""
    from . import activations_triton

    dx, dbias = activations_triton.gelu_backward(dy, x, bias, seed, dropout, tanh)
    return dx, x.new_empty(0) if dbias is None else dbias


@bias_gelu_forward.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@bias_gelu_backward.register_fake
def _(dy: Tensor, x: Tensor, bias: Tensor | None, *_: Any) -> tuple[Tensor, Tensor]:
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return dx, x.new_empty(0) if bias is None else torch.empty_like(bias)


def _gelu_save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.options = inputs[3:]


def _gelu_grads(ctx: Any, dy: Tensor, run: Any) -> tuple[Any, ...]:
    x, bias, seed = ctx.saved_tensors
    dx, dbias = run(dy, x, bias, seed, *ctx.options)
    return dx, None if bias is None else dbias, None, None, None


def _gelu_registered_backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    return _gelu_grads(ctx, dy, bias_gelu_backward)


bias_gelu_forward.register_autograd(_gelu_registered_backward, setup_context=_gelu_save)


class _EagerGelu(torch.autograd.Function):
    """The door of plain eager code: a third of the registered operator's host time."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        from . import activations_triton

        _gelu_save(ctx, inputs, inputs[0])
        return activations_triton.gelu_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        from . import activations_triton

        # With gradients of gradients in sight: the registered operator, which refuses them aloud.
        double = torch.is_grad_enabled()
        return _gelu_grads(
            ctx, dy, bias_gelu_backward if double else activations_triton.gelu_backward
        )


def _bias_gelu_triton(
    x: Tensor,
    bias: Tensor | None,
    *,
    approximate: str,
    dropout: float,
    seed: int | Tensor | None,
) -> Tensor:
    door = bias_gelu_forward if is_traced() else _EagerGelu.apply
    given = seed_tensor(seed, x.device) if dropout else None
    return door(x, bias, given, dropout, approximate == "tanh")


# Triton: SwiGLU ----------------------------------------------------------------------------------


@torch.library.custom_op("babyvlm::swiglu_forward", mutates_args=())
def swiglu_forward(gate: Tensor, up: Tensor | None) -> Tensor:
    """Return ``silu(gate) * up``; ``up`` None: ``gate`` holds both halves of its columns."""
    from . import activations_triton

    return activations_triton.swiglu_forward(gate, up)


@torch.library.custom_op("babyvlm::swiglu_backward", mutates_args=())
def swiglu_backward(dy: Tensor, gate: Tensor, up: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the gradients of gate and up (no elements where gate holds both)."""
    from . import activations_triton

    dgate, dup = activations_triton.swiglu_backward(dy, gate, up)
    return dgate, gate.new_empty(0) if dup is None else dup


@swiglu_forward.register_fake
def _(gate: Tensor, up: Tensor | None) -> Tensor:
    columns = gate.shape[-1] if up is not None else gate.shape[-1] // 2
    return torch.empty((*gate.shape[:-1], columns), dtype=gate.dtype, device=gate.device)


@swiglu_backward.register_fake
def _(dy: Tensor, gate: Tensor, up: Tensor | None) -> tuple[Tensor, Tensor]:
    dgate = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    return dgate, gate.new_empty(0) if up is None else torch.empty_like(dgate)


def _swiglu_save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _swiglu_grads(ctx: Any, dy: Tensor, run: Any) -> tuple[Any, ...]:
    gate, up = ctx.saved_tensors
    dgate, dup = run(dy, gate, up)
    return dgate, None if up is None else dup


def _swiglu_registered_backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    return _swiglu_grads(ctx, dy, swiglu_backward)


swiglu_forward.register_autograd(_swiglu_registered_backward, setup_context=_swiglu_save)


class _EagerSwiglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        from . import activations_triton

        ctx.save_for_backward(*inputs)
        return activations_triton.swiglu_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        from . import activations_triton

        double = torch.is_grad_enabled()
        return _swiglu_grads(
            ctx, dy, swiglu_backward if double else activations_triton.swiglu_backward
        )


def _swiglu_triton(gate: Tensor, up: Tensor | None) -> Tensor:
    door = swiglu_forward if is_traced() else _EagerSwiglu.apply
    return door(gate, up)


for _op, _triton, _eager, _reference in (
    ("bias_gelu", _bias_gelu_triton, _bias_gelu_eager, _bias_gelu_reference),
    ("swiglu", _swiglu_triton, _swiglu_eager, swiglu_reference),
):
    dispatch.register(_op, "triton", _triton, refuses=refuse_triton, devices=("cuda",))
    dispatch.register(_op, "eager", _eager)
    dispatch.register(_op, "reference", _reference, opt_in=True)
