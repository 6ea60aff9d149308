"""Rows of a table by number: the public functions, the eager implementation, the doors to Triton.

The forward is a plain gather. The backward is a sum over the rows of each word; libraries add these
up atomically, in another order each time, or word by word, slowly where one word has most rows.
Here: sorted segments in bounded parts (`embedding_triton`), and on request added to a gradient that
is there already, so that a weight tied to the output layer needs no second one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import dispatch
from ..doors import is_traced, refuse_triton
from ..reference import embedding_reference

__all__ = ["add_embedding_grad", "embedding"]

_DENSE_BACKWARD = torch.ops.aten.embedding_dense_backward


def embedding(ids: Tensor, weight: Tensor, *, padding_idx: int | None = None) -> Tensor:
    """Return ``weight[ids]``, whose gradient has the same bits on every call.

    The rows of a word are added up in float32 in the order in which they come, and rounded once
    (on a CPU by `torch.nn.functional.embedding`, whose gradient is deterministic there).

    Args:
        ids: int64 or int32 of any shape, each in ``[0, V)``. On a CPU others are a ValueError; on
            a GPU the forward stops the process with a device-side assertion, as torch's own does.
        weight: ``[V, N]``, float32, float16 or bfloat16.
        padding_idx: a word that gets no gradient, in ``[-V, V)``, counted from the end if negative.

    Returns:
        ``[*ids.shape, N]`` in weight's dtype.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    if weight.dim() != 2 or not weight.is_floating_point():
        raise ValueError(
            f"weight: floating [V, N] expected, got {weight.dtype} of shape {tuple(weight.shape)}"
        )
    _check_ids(ids, weight.device)
    padding = _padding(padding_idx, weight.shape[0])
    run = dispatch.choose("embedding", weight)
    if ids.is_cuda or is_traced():
        return run(ids, weight, padding)
    try:
        return run(ids, weight, padding)
    except IndexError as error:
        raise ValueError(_range(ids, weight.shape[0])) from error


def add_embedding_grad(
    grad_output: Tensor, ids: Tensor, into: Tensor, *, padding_idx: int | None = None
) -> Tensor:
    """Add the gradient of `embedding` to ``into`` in place: no second ``[V, N]`` is allocated.

    For a weight that is tied to the output layer, whose gradient is there by the time that the
    embedding's comes::

        x = embedding(ids, weight.detach()).requires_grad_()
        loss = linear_cross_entropy(decoder(x), weight, targets)
        loss.backward()
        add_embedding_grad(x.grad, ids, weight.grad)

    Autograd records nothing of it.

    Args:
        grad_output: ``[*ids.shape, N]``, float32, float16 or bfloat16.
        ids: int64 or int32 of any shape, each in ``[0, V)``; others are a ValueError on a CPU and
            not looked for on a GPU.
        into: ``[V, N]``, in the dtype of ``grad_output`` or float32. What was there and the sum
            (float32) are added and rounded once.
        padding_idx: a word that gets no gradient, in ``[-V, V)``.

    Returns:
        ``into``.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    if into.dim() != 2 or not into.is_floating_point():
        raise ValueError(
            f"into: floating [V, N] expected, got {into.dtype} of shape {tuple(into.shape)}"
        )
    _check_ids(ids, into.device)
    if grad_output.shape != (*ids.shape, into.shape[1]):
        raise ValueError(
            f"grad_output: shape {(*ids.shape, into.shape[1])} expected, "
            f"got {tuple(grad_output.shape)}"
        )
    if grad_output.dtype != into.dtype and into.dtype != torch.float32:
        raise ValueError(
            f"into: {grad_output.dtype} (grad_output's) or torch.float32 expected, got {into.dtype}"
        )
    if grad_output.device != into.device:
        raise ValueError(f"grad_output: lies on {grad_output.device}, into on {into.device}")
    padding = _padding(padding_idx, into.shape[0])
    run = dispatch.choose("add_embedding_grad", grad_output)
    with torch.no_grad():
        if ids.is_cuda or is_traced():
            run(grad_output, ids, into, padding)
            return into
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= into.shape[0]):
            raise ValueError(_range(ids, into.shape[0]))  # before anything is added
        run(grad_output, ids, into, padding)
    return into


def _check_ids(ids: Tensor, device: torch.device) -> None:
    if ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"ids: torch.int64 or torch.int32 expected, got {ids.dtype}")
    if ids.device != device:
        raise ValueError(f"ids: lie on {ids.device}, the table on {device}")


def _padding(padding_idx: int | None, words: int) -> int:
    """Return it counted from the start, -1 for none."""
    if padding_idx is None:
        return -1
    if not -words <= padding_idx < words:
        raise ValueError(f"padding_idx: in [-{words}, {words}) expected, got {padding_idx}")
    return padding_idx % words


def _range(ids: Tensor, words: int) -> str:
    return f"ids: in [0, {words}) expected, got {int(ids.min())} to {int(ids.max())}"


# Eager -------------------------------------------------------------------------------------------


def _eager(ids: Tensor, weight: Tensor, padding: int) -> Tensor:
    return F.embedding(ids, weight, None if padding < 0 else padding)


def _eager_add(grad: Tensor, ids: Tensor, into: Tensor, padding: int) -> None:
    if into.is_cuda:  # index_add_ is atomic there
        into.add_(_DENSE_BACKWARD(grad, ids, into.shape[0], padding, False))
        return
    kept = None if padding < 0 else into[padding].clone()
    rows = grad.reshape(-1, grad.shape[-1]).to(into.dtype)
    into.index_add_(0, ids.reshape(-1), rows)
    if kept is not None:
        into[padding] = kept


def _reference(ids: Tensor, weight: Tensor, padding: int) -> Tensor:
    return embedding_reference(ids, weight, None if padding < 0 else padding)


# Triton ------------------------------------------------------------------------------------------


@torch.library.custom_op("babyvlm::embedding_backward", mutates_args=())
def embedding_backward(grad: Tensor, ids: Tensor, words: int, padding: int) -> Tensor:
    """Return the gradient ``[words, N]`` of the table; ``padding``: -1 for none."""
    from . import embedding_triton

    return embedding_triton.backward(grad, ids, words, padding)


@embedding_backward.register_fake
def _(grad: Tensor, ids: Tensor, words: int, padding: int) -> Tensor:
    return torch.empty((words, grad.shape[-1]), dtype=grad.dtype, device=grad.device)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.padding = inputs[3]


def _gather(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    """The sum is linear in its rows: its gradient is a gather again."""
    (ids,) = ctx.saved_tensors
    rows = F.embedding(ids, grad)
    if ctx.padding >= 0:
        rows = rows.masked_fill((ids == ctx.padding)[..., None], 0.0)
    return rows, None, None, None


embedding_backward.register_autograd(_gather, setup_context=_save)


@torch.library.custom_op("babyvlm::add_embedding_grad", mutates_args=("into",))
def add_into(grad: Tensor, ids: Tensor, into: Tensor, padding: int) -> None:
    """See `add_embedding_grad`."""
    from . import embedding_triton

    embedding_triton.add(grad, ids, into, padding)


class _Rows(torch.autograd.Function):
    """A gather that compilers see and fuse, and our backward."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.words, ctx.padding = weight.shape[0], padding
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        (ids,) = ctx.saved_tensors
        if is_traced() or torch.is_grad_enabled():
            return None, embedding_backward(grad, ids, ctx.words, ctx.padding), None
        from . import embedding_triton

        return None, embedding_triton.backward(grad, ids, ctx.words, ctx.padding), None


def _triton(ids: Tensor, weight: Tensor, padding: int) -> Tensor:
    return _Rows.apply(ids, weight, padding)


def _triton_add(grad: Tensor, ids: Tensor, into: Tensor, padding: int) -> None:
    if is_traced():
        add_into(grad, ids, into, padding)
        return
    from . import embedding_triton

    embedding_triton.add(grad, ids, into, padding)


dispatch.register("embedding", "triton", _triton, refuses=refuse_triton, devices=("cuda",))
dispatch.register("embedding", "eager", _eager)
dispatch.register("embedding", "reference", _reference, opt_in=True)
dispatch.register(
    "add_embedding_grad", "triton", _triton_add, refuses=refuse_triton, devices=("cuda",)
)
dispatch.register("add_embedding_grad", "eager", _eager_add)
