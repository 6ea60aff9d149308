"""Rotary positions: the two halves of each head turned against each other by the row's position.

Here: the public functions, the eager implementation and the doors to the Triton one. Legend: T rows
(packed), H query heads, K key heads, D head dimension.
"""

from __future__ import annotations

from typing import Any, overload

import torch
from torch import Tensor

from .. import dispatch
from ..doors import is_traced, refuse_triton
from ..reference import rotary_reference

__all__ = ["rotary", "rotary_angles"]


def rotary_angles(
    positions: Tensor, dim: int, *, base: float = 10_000.0, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of ``positions / base ** (2 c / dim)``, ``[T, dim / 2]`` each.

    Args:
        positions: integer ``[T]``: place of each row in its document.
        dim: D, even.
        base: of the frequencies (Su et al. 2021: 10,000).
        dtype: of the result; None: float32. float64 is also computed in.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    if positions.dim() != 1 or positions.is_floating_point():
        raise ValueError(
            f"positions: integer [T] expected, got {positions.dtype} of shape "
            f"{tuple(positions.shape)}"
        )
    if dim <= 0 or dim % 2:
        raise ValueError(f"dim: even and positive expected, got {dim}")
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    exponent = torch.arange(0, dim, 2, device=positions.device, dtype=wide) / dim
    angles = positions.to(wide)[:, None] / base**exponent
    return angles.cos().to(dtype or wide), angles.sin().to(dtype or wide)


@overload
def rotary(q: Tensor, k: None, cos: Tensor, sin: Tensor) -> Tensor: ...


@overload
def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]: ...


def rotary(q: Tensor, k: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """Return q and k turned: ``[left cos - right sin, right cos + left sin]`` of each head.

    ``left`` and ``right`` are the halves of a head, as in Llama (Su et al. 2021 pair neighbours).

    Args:
        q: ``[T, H, D]``, floating, D even; any strides.
        k: ``[T, K, D]``, same dtype; ``None`` where queries and keys lie side by side in ``q``.
        cos, sin: ``[T, D / 2]``, in q's dtype or float32, from `rotary_angles`; no gradient.

    Returns:
        The turned q, or with ``k`` both, contiguous, in q's dtype; products are float32 (float64
        for float64). Gradients reach q and k.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    if q.dim() != 3 or not q.is_floating_point() or q.shape[2] % 2 or 0 in q.shape[1:]:
        raise ValueError(
            f"q: floating [T, H, D] with D even expected, got {q.dtype} of shape {tuple(q.shape)}"
        )
    if k is not None and (
        k.dim() != 3 or k.dtype != q.dtype or k.shape[::2] != q.shape[::2] or k.shape[1] == 0
    ):
        raise ValueError(
            f"k: [{q.shape[0]}, K, {q.shape[2]}] in {q.dtype} expected, "
            f"got {k.dtype} of shape {tuple(k.shape)}"
        )
    for name, x in (("cos", cos), ("sin", sin)):
        if x.shape != (q.shape[0], q.shape[2] // 2) or x.dtype not in (q.dtype, torch.float32):
            raise ValueError(
                f"{name}: [{q.shape[0]}, {q.shape[2] // 2}] in {q.dtype} or torch.float32 "
                f"expected, got {x.dtype} of shape {tuple(x.shape)}"
            )
    for name, x in (("k", k), ("cos", cos), ("sin", sin)):
        if x is not None and x.device != q.device:
            raise ValueError(f"{name}: lies on {x.device}, q on {q.device}")
    out, other = dispatch.choose("rotary", q)(q, k, cos, sin)
    return out if other is None else (out, other)


def _eager(q: Tensor, k: Tensor | None, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor | None]:
    cosine, sine = cos[:, None], sin[:, None]

    def turned(x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=-1)
        both = [left * cosine - right * sine, right * cosine + left * sine]
        return torch.cat(both, dim=-1).to(x.dtype)

    return turned(q), None if k is None else turned(k)


@torch.library.custom_op("babyvlm::rotary", mutates_args=())
def rotary_turn(
    q: Tensor, k: Tensor | None, cos: Tensor, sin: Tensor, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Return q and k (no elements without) turned by the angles, or back by them."""
    from . import rotary_triton

    out, other = rotary_triton.turn(q, k, cos, sin, inverse)
    return out, q.new_empty(0) if other is None else other


@rotary_turn.register_fake
def _(q: Tensor, k: Tensor | None, *_: Any) -> tuple[Tensor, Tensor]:
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if k is None:
        return out, q.new_empty(0)
    return out, torch.empty(k.shape, dtype=k.dtype, device=k.device)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, k, cos, sin, inverse = inputs
    ctx.save_for_backward(cos, sin)
    ctx.has_k, ctx.inverse = k is not None, inverse


def _registered_backward(ctx: Any, dq: Tensor, dk: Tensor | None) -> tuple[Any, ...]:
    grad, other = rotary_turn(dq, dk if ctx.has_k else None, *ctx.saved_tensors, not ctx.inverse)
    return grad, other if ctx.has_k else None, None, None, None


rotary_turn.register_autograd(_registered_backward, setup_context=_save)


class _EagerDoor(torch.autograd.Function):
    """The door of plain eager code: a third of the registered operator's host time."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor | None]:
        from . import rotary_triton

        _save(ctx, inputs, None)
        return rotary_triton.turn(*inputs)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, dq: Tensor, dk: Tensor | None
    ) -> tuple[Any, ...]:
        from . import rotary_triton

        if torch.is_grad_enabled():  # the registered operator has gradients of gradients
            return _registered_backward(ctx, dq, dk)
        cos, sin = ctx.saved_tensors
        found = rotary_triton.turn(dq, dk if ctx.has_k else None, cos, sin, True)
        return (*found, None, None, None)


def _triton(q: Tensor, k: Tensor | None, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor | None]:
    door = rotary_turn if is_traced() else _EagerDoor.apply
    out, other = door(q, k, cos, sin, False)
    return out, None if k is None else other


dispatch.register("rotary", "triton", _triton, refuses=refuse_triton, devices=("cuda",))
dispatch.register("rotary", "eager", _eager)
dispatch.register("rotary", "reference", rotary_reference, opt_in=True)
