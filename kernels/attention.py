"""Attention over a packed row under interval masks.

``attention`` is the public function (exact attention, Vaswani et al. 2017 §3.2.1; grouped queries,
Ainslie et al. 2023; soft-capped scores, Gemma 2 §2). Legend: T rows, H query heads, K key/value
heads, D head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import attention_eager, attention_ops, attention_peers, dispatch  # noqa: F401 (they register)
from .dropout import seed_tensor
from .intervals import Intervals

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
    seed: int | Tensor | None = None,
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
        seed: of the dropout mask, a pure function of it, the head and the two rows
            (`kernels.dropout`): an int of 64 bits or an int64 tensor of one element; ``None``
            draws from torch's global generator.
        deterministic: ask for the same bits on every call with the same input. Our kernels always
            give them, the eager path does on a CPU; the libraries' backends, taken by name, do as
            far as they say so.
        return_lse: also return the log-sum-exp of each row's scores, float32 ``[T, H]``, which
            carries no gradient.

    Returns:
        ``[T, H, D]`` in q's dtype, with gradients for q, k and v (not for their gradients).
        A row's sum never takes in another document's numbers, with one exception: where several
        documents share a tile of the CUDA kernels, what is not finite in one (NaN, infinity)
        becomes NaN in its neighbours.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    _check(q, k, v, intervals, softcap, dropout)
    options = {
        "scale": q.shape[-1] ** -0.5 if scale is None else scale,
        "softcap": softcap,
        "dropout": dropout,
        "seed": seed_tensor(seed, q.device) if dropout > 0.0 else None,
        "deterministic": deterministic,
        "return_lse": return_lse,
    }
    run = dispatch.choose("attention", q, k, v, intervals, **options)
    out, lse = run(q, k, v, intervals, **options)
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
    if intervals.device != q.device:
        raise ValueError(f"intervals: lie on {intervals.device}, q on {q.device}")
    if intervals.num_rows != q.shape[0]:
        raise ValueError(
            f"intervals: cu_seqlens must end at T = {q.shape[0]}, it ends at {intervals.num_rows}"
        )
    if softcap is not None and softcap <= 0:
        raise ValueError(f"softcap: more than 0 expected, got {softcap}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout: in [0, 1) expected, got {dropout}")
