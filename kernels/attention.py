"""Attention over a packed row under interval masks.

``attention`` is the public function; here is its portable implementation, one
`torch.nn.functional.scaled_dot_product_attention` a bucket of documents of similar length (exact
attention, Vaswani et al. 2017 §3.2.1; grouped queries, Ainslie et al. 2023; soft-capped scores,
Gemma 2 §2). Legend: T rows, H query heads, K key/value heads, D head dimension.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import dispatch
from .intervals import Intervals
from .layout import Bucket
from .reference import attention_reference

__all__ = ["attention"]

_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    intervals: Intervals,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    seed: int | None = None,
    deterministic: bool = True,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return softmax(q kᵀ · scale, over the keys each row's intervals name) v.

    Args:
        q: ``[T, H, D]``, floating; D a multiple of 8.
        k: ``[T, K, D]`` with K dividing H: query head h reads key head ``h // (H / K)``.
        v: ``[T, K, D]``.
        intervals: the mask, from `kernels.intervals` (drawings of each form there).
        scale: of the scores; ``None`` = ``D ** -0.5``.
        softcap: scores become ``softcap * tanh(scores / softcap)`` before the mask.
        dropout: probability of dropping an attention weight, in [0, 1).
        seed: the dropout mask is a pure function of it and of the packed row; ``None`` draws from
            torch's global generator.
        deterministic: ask for the same bits on every call with the same input. The portable path
            always gives them on a CPU; on a GPU torch's SDPA backward does so only under
            ``torch.use_deterministic_algorithms(True)``.
        return_lse: also return the log-sum-exp of each row's scores, float32 ``[T, H]``, which
            carries no gradient.

    Returns:
        ``[T, H, D]`` in q's dtype, with gradients for q, k and v.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    _check(q, k, v, intervals, softcap, dropout)
    run = dispatch.choose("attention", q)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out, lse = run(
        q,
        k,
        v,
        intervals,
        scale=scale,
        softcap=softcap,
        dropout=dropout,
        seed=seed,
        deterministic=deterministic,
        return_lse=return_lse,
    )
    return (out, lse) if return_lse else out


def _check(
    q: Tensor, k: Tensor, v: Tensor, intervals: Intervals, softcap: float | None, dropout: float
) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() != 3:
            raise ValueError(f"{name}: [T, heads, D] expected, got shape {tuple(x.shape)}")
        if x.dtype not in _DTYPES or x.dtype != q.dtype:
            raise ValueError(
                f"{name}: q, k and v must share one floating dtype, got {x.dtype} beside {q.dtype}"
            )
        if x.device != q.device:
            raise ValueError(f"{name}: lies on {x.device}, q on {q.device}")
        if x.shape[0] != q.shape[0] or x.shape[2] != q.shape[2]:
            raise ValueError(
                f"{name}: T and D must be q's {q.shape[0]} and {q.shape[2]}, "
                f"got shape {tuple(x.shape)}"
            )
    if k.shape[1] != v.shape[1] or k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(
            f"k: its heads must divide q's {q.shape[1]} and be v's {v.shape[1]}, got {k.shape[1]}"
        )
    if q.shape[2] == 0 or q.shape[2] % 8:
        raise ValueError(f"q: head dimension must be a multiple of 8, got {q.shape[2]}")
    if intervals.num_rows != q.shape[0]:
        raise ValueError(
            f"intervals: cu_seqlens must end at T = {q.shape[0]}, it ends at {intervals.num_rows}"
        )
    if softcap is not None and softcap <= 0:
        raise ValueError(f"softcap: more than 0 expected, got {softcap}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout: in [0, 1) expected, got {dropout}")


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


def attention_padded(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    intervals: Intervals,
    *,
    scale: float,
    softcap: float | None,
    dropout: float,
    seed: int | None,
    deterministic: bool,
    return_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    """Attention through the padded layout of `kernels.layout`: any device, any torch dtype."""
    heads, dim = q.shape[1], q.shape[2]
    layout = intervals.layout(q.device)
    queries = _Gather.apply(q, layout.query_index, layout.query_slot)
    keys = _Gather.apply(k, layout.key_index, layout.key_slot)
    values = _Gather.apply(v, layout.key_index, layout.key_slot)
    plain = softcap is None and dropout == 0.0 and not return_lse
    generator = None
    if dropout > 0.0 and seed is not None:
        generator = torch.Generator(device=q.device).manual_seed(seed)
    outs: list[Tensor] = []
    lses: list[Tensor] = []
    query_base = key_base = 0
    for bucket in layout.buckets:
        query_stop = query_base + bucket.n * bucket.lq
        key_stop = key_base + bucket.n * bucket.lk
        qb = queries[query_base:query_stop].view(bucket.n, bucket.lq, heads, dim)
        kb = keys[key_base:key_stop].view(bucket.n, bucket.lk, -1, dim)
        vb = values[key_base:key_stop].view(bucket.n, bucket.lk, -1, dim)
        if kb.shape[2] != heads:
            kb = kb.repeat_interleave(heads // kb.shape[2], dim=2)
            vb = vb.repeat_interleave(heads // vb.shape[2], dim=2)
        qb, kb, vb = qb.transpose(1, 2), kb.transpose(1, 2), vb.transpose(1, 2)  # [n, H, L, D]
        if plain:
            out = F.scaled_dot_product_attention(
                qb, kb, vb, bucket.additive(q.dtype), is_causal=bucket.mask is None, scale=scale
            )
        else:
            out, lse = _explicit(qb, kb, vb, bucket, scale, softcap, dropout, generator)
            lses.append(lse.transpose(1, 2).reshape(-1, heads))
        outs.append(out.transpose(1, 2).reshape(-1, heads, dim))
        query_base, key_base = query_stop, key_stop
    if not outs:
        # No rows. Still a function of q, k and v: their weights get a (zero) gradient, which ranks
        # with rows wait for.
        out = q + 0.0 * (k.sum() + v.sum())
        return out, q.new_zeros(q.shape[:2], dtype=torch.float32)
    out = _Scatter.apply(torch.cat(outs) if len(outs) > 1 else outs[0], layout.query_slot)
    if not return_lse:
        return out, None
    return out, torch.cat(lses).index_select(0, layout.query_slot).float().detach()


def _explicit(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bucket: Bucket,
    scale: float,
    softcap: float | None,
    dropout: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Return ``[n, H, Lq, D]`` and the log-sum-exp ``[n, H, Lq]``, with what SDPA cannot do."""
    wide = q.dtype if q.dtype == torch.float64 else torch.float32
    scores = (q @ k.transpose(-1, -2)).to(wide) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bucket.mask is None:
        seen = torch.ones(bucket.lq, bucket.lk, dtype=torch.bool, device=q.device).tril_()
        scores = scores.masked_fill(~seen, float("-inf"))
    else:
        scores = scores.masked_fill(~bucket.mask, float("-inf"))
    lse = torch.logsumexp(scores.detach(), dim=-1)
    weights = torch.softmax(scores, dim=-1)
    if dropout > 0.0:
        if generator is None:
            weights = F.dropout(weights, dropout)
        else:
            draw = torch.rand(weights.shape, generator=generator, device=q.device)
            weights = weights * (draw >= dropout) / (1.0 - dropout)
    return weights.to(v.dtype) @ v, lse


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
    return out, lse


dispatch.register("attention", "padded_sdpa", attention_padded)
dispatch.register("attention", "reference", attention_dense)
