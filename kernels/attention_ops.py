"""Triton attention as PyTorch knows it: registered operators with fakes and gradients.

Two doors to the same launches. Traced code (`torch.compile`, `torch.export`, fake tensors, any
dispatch mode) goes through ``torch.ops.babyvlm.attention_forward`` and ``..._backward``, opaque
operators with shapes and autograd registered; plain eager code goes through an autograd function,
because the registered door costs about three times the host time a call.
Nothing here imports triton before the first launch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import dispatch, doors
from .doors import is_traced
from .intervals import Intervals

__all__ = ["attention_triton", "refuse_triton"]

# The most that a frozen row of D > 64 takes (A100, H100 and newer data-centre GPUs have it); those
# of D <= 64 fit the 99 KiB of consumer GPUs.
_WIDE_SHARED_BYTES = 131072


@torch.library.custom_op("babyvlm::attention_forward", mutates_args=())
def attention_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    start: Tensor,
    stop: Tensor,
    start2: Tensor | None,
    stop2: Tensor | None,
    q_start: Tensor,
    q_stop: Tensor,
    q_start2: Tensor | None,
    q_stop2: Tensor | None,
    groups: Tensor | None,
    groups_backward: Tensor | None,
    seed: Tensor | None,
    scale: float,
    softcap: float,
    dropout: float,
    tile: int,
    tile_backward: int,
) -> tuple[Tensor, Tensor]:
    """Return ``out`` ``[T, H, D]`` and the log-sum-exp, float32 ``[H, T]``.

    ``groups``, ``tile``: the whole-document path's (None, 0: the tiled path); ``softcap``,
    ``dropout`` 0: none.
    """
    from .attention_triton import launch

    return launch.forward(
        q, k, v, start, stop, start2, stop2, groups, seed, scale, softcap, dropout, tile
    )


@torch.library.custom_op("babyvlm::attention_backward", mutates_args=())
def attention_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    start: Tensor,
    stop: Tensor,
    start2: Tensor | None,
    stop2: Tensor | None,
    q_start: Tensor,
    q_stop: Tensor,
    q_start2: Tensor | None,
    q_stop2: Tensor | None,
    groups: Tensor | None,
    seed: Tensor | None,
    scale: float,
    softcap: float,
    dropout: float,
    tile: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q ``[T, H, D]``, k and v ``[T, K, D]``."""
    from .attention_triton import launch

    return launch.backward(
        dout, q, k, v, out, lse, start, stop, start2, stop2, q_start, q_stop, q_start2, q_stop2,
        groups, seed, scale, softcap, dropout, tile,
    )  # fmt: skip


@attention_forward.register_fake
def _(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    total, heads, _dim = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    return out, torch.empty((heads, total), dtype=torch.float32, device=q.device)


@attention_backward.register_fake
def _(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    made = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v)]
    return made[0], made[1], made[2]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    mask, groups_backward, seed = inputs[3:11], inputs[12], inputs[13]
    ctx.save_for_backward(*inputs[:3], *output, *mask, groups_backward, seed)
    ctx.options = (*inputs[14:17], inputs[18])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _grads(ctx: Any, dout: Tensor | None, backward: Any) -> tuple[Tensor | None, ...]:
    if dout is None:
        return (None,) * 19
    return (*backward(dout, *ctx.saved_tensors, *ctx.options), *(None,) * 16)


def _registered_backward(ctx: Any, dout: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    return _grads(ctx, dout, attention_backward)


attention_forward.register_autograd(_registered_backward, setup_context=_save)


class _Eager(torch.autograd.Function):
    """The door of plain eager code."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        from .attention_triton import launch

        q, k, v, start, stop, start2, stop2 = inputs[:7]
        groups, (seed, scale, softcap, dropout, tile) = inputs[11], inputs[13:18]
        output = launch.forward(
            q, k, v, start, stop, start2, stop2, groups, seed, scale, softcap, dropout, tile
        )
        _save(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx: Any, dout: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        from .attention_triton import launch

        # With gradients of gradients in sight: the registered operator, which refuses them aloud.
        double = torch.is_grad_enabled()
        return _grads(ctx, dout, attention_backward if double else launch.backward)


def attention_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    intervals: Intervals,
    *,
    scale: float,
    softcap: float | None,
    dropout: float,
    seed: Tensor | None,
    deterministic: bool,
    return_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    """Attention by our kernels, the same bits on every call whatever ``deterministic`` says."""
    from .attention_triton.table import document_tile

    tiles = [0, 0]
    groups: list[Tensor | None] = [None, None]
    if intervals.branches is None and intervals.max_len is not None:
        for at, direction in enumerate(("fwd", "bwd")):
            tiles[at] = document_tile(
                direction, q.shape[2], q.dtype, intervals.max_len, softcap is not None
            )
            groups[at] = intervals.groups[tiles[at]] if tiles[at] else None
    door = attention_forward if is_traced() else _Eager.apply
    out, lse = door(
        q, k, v, intervals.start, intervals.stop, intervals.start2, intervals.stop2,
        intervals.q_start, intervals.q_stop, intervals.q_start2, intervals.q_stop2,
        groups[0], groups[1], seed, scale, softcap or 0.0, dropout, tiles[0], tiles[1],
    )  # fmt: skip
    return out, lse.T if return_lse else None


def refuse_triton(q: Tensor, *_: Any, **__: Any) -> str | None:
    """Say why the kernels cannot serve ``q``, or None."""
    why = doors.refuse_triton(q)
    if why is not None:
        return why
    if q.shape[-1] > 128:
        return f"head dimension at most 128 expected, got {q.shape[-1]}"
    if q.device.type == "cuda":
        device = torch.cuda.get_device_properties(q.device)
        if device.major < 8:
            return f"compute capability 8.0 or newer expected, got {device.major}.{device.minor}"
        if q.shape[-1] > 64 and device.shared_memory_per_block_optin < _WIDE_SHARED_BYTES:
            return (
                f"head dimensions over 64 need {_WIDE_SHARED_BYTES} bytes of shared memory a "
                f"program, this GPU has {device.shared_memory_per_block_optin}"
            )
    return None


dispatch.register(
    "attention", "triton", attention_triton, refuses=refuse_triton, devices=("cuda",), first=True
)
