"""The Triton losses over all pairs as PyTorch knows them: registered operators with gradients.

Two doors to the same launches, as in `kernels.attention_ops`: traced code goes through registered
operators, plain eager code through an autograd function, at a third of the host time.
Nothing here imports triton before the first launch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..doors import is_traced
from ..second import refuse_second
from .common import Positives, ids_of, positives_of, scalar

__all__ = ["contrastive_triton", "sigmoid_triton"]


def _operator(name: str, function: Callable[..., Any]) -> torch.library.CustomOpDef:
    return torch.library.custom_op(f"babyvlm::{name}", function, mutates_args=())


# Contrastive -------------------------------------------------------------------------------------


def _positives(ids: Tensor | None, shares: Tensor | None) -> Positives | None:
    return None if ids is None or shares is None else Positives(ids, ids, shares)


def _contrastive_forward(
    image: Tensor, text: Tensor, scale: Tensor, ids: Tensor | None, shares: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss and the statistics of rows ``[3, N]`` and columns ``[2, N]``, float32."""
    from . import contrastive_launch as launch

    rows, columns = launch.statistics(image, text, scale, _positives(ids, shares), 0)
    return launch.loss(rows, columns, 0, image.shape[0]), rows, columns


def _contrastive_backward(
    upstream: Tensor,
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    ids: Tensor | None,
    shares: Tensor | None,
    rows: Tensor,
    columns: Tensor,
    want_image: bool,
    want_text: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of image and text (``[0, D]`` if not wanted) and of scale, ``[1]``."""
    from . import contrastive_launch as launch

    return launch.gradients(
        upstream, image, text, scale, _positives(ids, shares), rows, columns, 0, image.shape[0],
        want_image, want_text,
    )  # fmt: skip


contrastive_forward = _operator("contrastive_forward", _contrastive_forward)
contrastive_backward = _operator("contrastive_backward", _contrastive_backward)


@contrastive_forward.register_fake
def _(image: Tensor, text: Tensor, scale: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    count = image.shape[0]
    return scale.new_empty(()), scale.new_empty((3, count)), scale.new_empty((2, count))


@contrastive_backward.register_fake
def _(
    upstream: Tensor, image: Tensor, text: Tensor, scale: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    count, width = image.shape
    return (
        image.new_empty((count if rest[-2] else 0, width)),
        image.new_empty((count if rest[-1] else 0, width)),
        scale.new_empty(1),
    )


def _contrastive_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _contrastive_grads(
    ctx: Any, dloss: Tensor | None, backward: Callable[..., tuple[Tensor, ...]]
) -> tuple[Tensor | None, ...]:
    if dloss is None:
        return (None,) * 5
    wants = ctx.needs_input_grad[:2]
    found = backward(dloss.reshape(1), *ctx.saved_tensors, *wants)
    return *(x if want else None for x, want in zip(found, (*wants, True), strict=True)), None, None


def _contrastive_registered(ctx: Any, dloss: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    return _contrastive_grads(ctx, dloss, contrastive_backward)


contrastive_forward.register_autograd(_contrastive_registered, setup_context=_contrastive_save)


class _Contrastive(torch.autograd.Function):
    """The door of plain eager code."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        output = _contrastive_forward(*inputs)
        _contrastive_save(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx: Any, dloss: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        refuse_second("contrastive_loss")
        return _contrastive_grads(ctx, dloss, _contrastive_backward)


def contrastive_triton(
    image: Tensor, text: Tensor, logit_scale: Tensor | float, labels: Tensor | None
) -> Tensor:
    """Symmetric InfoNCE of this process's rows, by our kernels."""
    scale, known = scalar(logit_scale, image.device), positives_of(labels)
    ids, shares = (None, None) if known is None else (known.rows, known.shares)
    door = contrastive_forward if is_traced() else _Contrastive.apply
    return door(image, text, scale, ids, shares)[0]


# Sigmoid -----------------------------------------------------------------------------------------


def _sigmoid_forward(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    bias: Tensor,
    ids: Tensor | None,
    gradients: bool,
    want_image: bool,
    want_text: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the loss; for an upstream gradient of 1, dimage and dtext times `held`, scalars."""
    from . import sigmoid_launch as launch

    return launch.forward(
        image, text, scale, bias, ids, ids, 0, image.shape[0], gradients, want_image, want_text
    )


sigmoid_forward = _operator("sigmoid_forward", _sigmoid_forward)


@sigmoid_forward.register_fake
def _(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    bias: Tensor,
    ids: Tensor | None,
    gradients: bool,
    want_image: bool,
    want_text: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count, width = image.shape
    return (
        scale.new_empty(()),
        image.new_empty((count if want_image else 0, width)),
        image.new_empty((count if want_text else 0, width)),
        scale.new_empty(2 if gradients else 0),
    )


def _sigmoid_backward(
    upstream: Tensor, dimage: Tensor, dtext: Tensor, scalars: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `_sigmoid_forward` made, times ``upstream`` ``[1]``."""
    from .sigmoid_launch import rescale

    found = dimage.clone(), dtext.clone()
    rescale(*found, upstream, dimage.dtype)
    return *found, scalars * upstream


sigmoid_backward = _operator("sigmoid_backward", _sigmoid_backward)


@sigmoid_backward.register_fake
def _(upstream: Tensor, *made: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x) for x in made)


def _sigmoid_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _sigmoid_grads(made: tuple[Tensor, ...], wants: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    dimage, dtext, scalars = made
    grads = dimage, dtext, scalars[:1], scalars[1:]
    return *(x if want else None for x, want in zip(grads, wants, strict=True)), *(None,) * 4


def _sigmoid_registered(ctx: Any, dloss: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    refuse_second("sigmoid_loss")
    if dloss is None:
        return (None,) * 8
    made = sigmoid_backward(dloss.reshape(1), *ctx.saved_tensors)
    return _sigmoid_grads(made, ctx.needs_input_grad[:4])


sigmoid_forward.register_autograd(_sigmoid_registered, setup_context=_sigmoid_save)


class _Sigmoid(torch.autograd.Function):
    """The door of plain eager code: the gradients made with the loss become the results in place.

    They are made again where a graph is walked twice.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        loss, *ctx.made = _sigmoid_forward(*inputs)
        ctx.save_for_backward(*inputs[:5])
        ctx.set_materialize_grads(False)
        return loss

    @staticmethod
    def backward(ctx: Any, dloss: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        refuse_second("sigmoid_loss")
        if dloss is None:
            return (None,) * 8
        from .sigmoid_launch import rescale

        wants = ctx.needs_input_grad[:4]
        made, ctx.made = ctx.made, None
        if made is None:
            image, text, scale, bias, ids = ctx.saved_tensors
            made = _sigmoid_forward(image, text, scale, bias, ids, True, *wants[:2])[1:]
        dimage, dtext, scalars = made
        upstream = dloss.reshape(1)
        rescale(dimage, dtext, upstream, dimage.dtype)
        return _sigmoid_grads((dimage, dtext, scalars * upstream), wants)


def sigmoid_triton(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    labels: Tensor | None,
) -> Tensor:
    """The pairwise sigmoid loss of this process's rows, by our kernels."""
    scale, bias = scalar(logit_scale, image.device), scalar(logit_bias, image.device)
    wants = [x.requires_grad and torch.is_grad_enabled() for x in (image, text, scale, bias)]
    ids = None if labels is None else ids_of(labels)[0]
    door: Any = sigmoid_forward if is_traced() else _Sigmoid.apply
    found = door(image, text, scale, bias, ids, any(wants), *wants[:2])
    return found[0] if isinstance(found, tuple) else found
