"""Attention over a packed row with torch operations alone: what runs on a CPU, also in training.

Documents of similar length are padded to one rectangle (`kernels.layout`) and worked through in
blocks (`kernels.attention_blocks`): any device, dtype, mask form and option. Plain attention on a
GPU takes `torch.nn.functional.scaled_dot_product_attention`, a call a bucket; on a CPU the blocks
were as fast or faster in float32 and, unlike it, give the same bits on any number of threads.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from . import attention_blocks, dispatch
from .attention_blocks import Options
from .doors import is_traced
from .intervals import Intervals
from .layout import PaddedLayout, Segments, build_layout
from .reference import attention_reference
from .second import refuse_second

__all__ = ["attention_dense", "attention_padded"]


def attention_padded(
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
    """Attention through the padded layout of `kernels.layout`: ``[T, H, D]``, lse ``[T, H]``.

    The same bits on every call, but for what SDPA does on a GPU (see the module).
    """
    if q.shape[0] == 0:
        # Still a function of q, k and v: their weights get a (zero) gradient, which ranks with
        # rows wait for.
        out = q + 0.0 * (k.sum() + v.sum())
        return out, q.new_zeros(q.shape[:2], dtype=torch.float32)
    if is_traced():
        mask = intervals
        out, lse = attention_forward(
            q, k, v, mask.cu_seqlens, mask.start, mask.stop, mask.branches, seed,
            scale, softcap or 0.0, dropout, return_lse,
        )  # fmt: skip
        return out, lse if return_lse else None
    layout = intervals.layout(q.device)
    if q.is_cuda and softcap is None and dropout == 0.0 and not return_lse:
        return _sdpa(q, k, v, layout, scale), None
    options = Options(scale, softcap, dropout)
    return _Blocks.apply(q, k, v, seed, layout, options, return_lse)  # type: ignore[return-value]


class _Blocks(torch.autograd.Function):
    """The blocks with their hand-written gradient; only the inputs are saved for it."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        seed: Tensor | None,
        layout: PaddedLayout,
        options: Options,
        return_lse: bool,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.save_for_backward(q, k, v, seed)
        ctx.layout, ctx.options = layout, options
        out, lse = attention_blocks.forward(q, k, v, seed, layout, options, return_lse)
        if lse is not None:
            ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        refuse_second("attention")
        q, k, v, seed = ctx.saved_tensors
        grads = attention_blocks.backward(grad, q, k, v, seed, ctx.layout, ctx.options)
        return (*grads, None, None, None, None)


# Traced code (torch.compile, fake tensors) sees one opaque operator -------------------------------

_layouts = WeakTensorKeyDictionary()


def _layout(cu: Tensor, start: Tensor, stop: Tensor, branches: Tensor | None) -> PaddedLayout:
    """Return the layout of these vectors; traced code passes tensors on, not their owner."""
    found = _layouts.get(stop)
    if found is None:
        host = [None if x is None else x.cpu().long() for x in (cu, start, stop, branches)]
        found = build_layout(Segments(*host)).to(stop.device)  # type: ignore[arg-type]
        _layouts[stop] = found
    return found


@torch.library.custom_op("babyvlm::attention_padded_forward", mutates_args=())
def attention_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    start: Tensor,
    stop: Tensor,
    branches: Tensor | None,
    seed: Tensor | None,
    scale: float,
    softcap: float,
    dropout: float,
    return_lse: bool,
) -> tuple[Tensor, Tensor]:
    """Return ``out`` ``[T, H, D]`` and the log-sum-exp ``[T, H]`` (``[0]`` if not asked for).

    ``softcap``, ``dropout`` 0: none. The vectors are those of `Intervals`.
    """
    layout = _layout(cu_seqlens, start, stop, branches)
    options = Options(scale, softcap or None, dropout)
    out, lse = attention_blocks.forward(q, k, v, seed, layout, options, return_lse)
    return out, q.new_empty(0, dtype=torch.float32) if lse is None else lse


@torch.library.custom_op("babyvlm::attention_padded_backward", mutates_args=())
def attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    start: Tensor,
    stop: Tensor,
    branches: Tensor | None,
    seed: Tensor | None,
    scale: float,
    softcap: float,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q ``[T, H, D]``, k and v ``[T, K, D]``."""
    layout = _layout(cu_seqlens, start, stop, branches)
    options = Options(scale, softcap or None, dropout)
    return attention_blocks.backward(grad, q, k, v, seed, layout, options)


@attention_forward.register_fake
def _(q: Tensor, *inputs: Any) -> tuple[Tensor, Tensor]:
    return_lse = inputs[-1]
    lse = q.new_empty(q.shape[:2] if return_lse else 0, dtype=torch.float32)
    return torch.empty(q.shape, dtype=q.dtype, device=q.device), lse


@attention_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    return dq, dk, dv


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:8])
    ctx.options = inputs[8:11]
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 12
    return (*attention_backward(grad, *ctx.saved_tensors, *ctx.options), *(None,) * 9)


attention_forward.register_autograd(_backward, setup_context=_save)

# torch SDPA, a call a bucket ----------------------------------------------------------------------


class _Gather(torch.autograd.Function):
    """``x[index]`` where row r also lies at ``slot[r]``: its gradient is a gather too.

    Index_select's own gradient is a scatter-add, slower and, on a GPU, of changing order. With
    ``slot`` None rows repeat (the keys of a shared prefix) and gradients are really added.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, slot: Tensor | None) -> Tensor:
        ctx.save_for_backward(index, slot)
        ctx.rows = x.shape[0]
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        index, slot = ctx.saved_tensors
        if slot is not None:
            return grad.index_select(0, slot), None, None
        out = grad.new_zeros((ctx.rows, *grad.shape[1:]))
        return out.index_put_((index,), grad, accumulate=True), None, None


class _Scatter(torch.autograd.Function):
    """The way back, ``padded[slot]``: padding slots get no gradient."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, slot: Tensor) -> Tensor:
        ctx.save_for_backward(slot)
        ctx.slots = padded.shape[0]
        return padded.index_select(0, slot)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (slot,) = ctx.saved_tensors
        out = grad.new_zeros((ctx.slots, *grad.shape[1:]))
        return out.index_copy_(0, slot, grad), None


def _sdpa(q: Tensor, k: Tensor, v: Tensor, layout: PaddedLayout, scale: float) -> Tensor:
    queries = _Gather.apply(q, layout.query_index, layout.query_slot)
    keys = _Gather.apply(k, layout.key_index, layout.key_slot)
    values = _Gather.apply(v, layout.key_index, layout.key_slot)
    group = q.shape[1] // k.shape[1]
    outs: list[Tensor] = []
    query_base = key_base = 0
    for bucket in layout.buckets:
        query_stop = query_base + bucket.n * bucket.lq
        key_stop = key_base + bucket.n * bucket.lk
        qb = queries[query_base:query_stop].unflatten(0, (bucket.n, bucket.lq))
        kb = keys[key_base:key_stop].unflatten(0, (bucket.n, bucket.lk))
        vb = values[key_base:key_stop].unflatten(0, (bucket.n, bucket.lk))
        if group > 1:
            kb, vb = kb.repeat_interleave(group, dim=2), vb.repeat_interleave(group, dim=2)
        qb, kb, vb = qb.transpose(1, 2), kb.transpose(1, 2), vb.transpose(1, 2)  # [n, H, L, D]
        out = F.scaled_dot_product_attention(
            qb, kb, vb, bucket.additive(q.dtype), is_causal=bucket.mask is None, scale=scale
        )
        outs.append(out.transpose(1, 2).flatten(0, 1))
        query_base, key_base = query_stop, key_stop
    return _Scatter.apply(torch.cat(outs), layout.query_slot)  # type: ignore[return-value]


def attention_dense(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    intervals: Intervals,
    *,
    deterministic: bool,
    return_lse: bool,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """The O(T²) reference behind the implementations' signature, to be chosen by name."""
    out, lse = attention_reference(q, k, v, intervals, **options, return_lse=True)
    return out, lse if return_lse else None


dispatch.register("attention", "padded_sdpa", attention_padded)
dispatch.register("attention", "reference", attention_dense, opt_in=True)
