"""Launches: from tensors to kernels, no host synchronisation, no choice made at run time.

Legend: T rows, H query heads, K key/value heads, D head dimension.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .doc import doc_bwd_kernel, doc_fwd_kernel
from .heads import heads_bwd_kernel, heads_fwd_kernel
from .table import Config, config, is_many_heads, padded_dim
from .tiled import tiled_fwd_kernel
from .tiled_bwd import tiled_dkv_kernel, tiled_dq_kernel

__all__ = ["backward", "forward"]

LOG2E = 1.4426950408889634


def threshold(p: float) -> int:
    """``round(p * 2**32)`` as the signed 32-bit number with the same bits."""
    bits = min(round(p * 2**32), 2**32 - 1)
    return bits - 2**32 if bits >= 2**31 else bits


def aligned(x: Tensor) -> Tensor:
    """``x`` ``[T, heads, D]`` itself if every head's row is whole 16-byte words, else a copy."""
    if x.stride(2) == 1 and not (x.stride(0) % 8 or x.stride(1) % 8 or x.data_ptr() % 16):
        return x
    return x.clone(memory_format=torch.contiguous_format)


def _launch(
    kernel: Any, grid: int, row: Config, q: Tensor, *rest: object, **constants: object
) -> None:
    # Triton launches on the current device, which need not be the tensors'.
    if q.is_cuda and q.device.index != torch.cuda.current_device():
        with torch.cuda.device(q.device):
            return _launch(kernel, grid, row, q, *rest, **constants)
    kernel[(grid,)](q, *rest, num_warps=row.warps, num_stages=row.stages, **constants)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    start: Tensor,
    stop: Tensor,
    start2: Tensor | None,
    stop2: Tensor | None,
    groups: Tensor | None,
    seed: Tensor | None,
    scale: float,
    softcap: float,
    dropout: float,
    tile: int,
) -> tuple[Tensor, Tensor]:
    """Return ``out`` ``[T, H, D]`` and the log-sum-exp, float32 ``[H, T]``.

    ``groups`` are those of ``tile``; both are None and 0 for the tiled path.
    """
    total, heads, dim = q.shape
    out = torch.empty((total, heads, dim), dtype=q.dtype, device=q.device)
    lse = torch.empty((heads, total), dtype=torch.float32, device=q.device)
    if out.numel() == 0:
        return out, lse
    q, k, v = aligned(q), aligned(k), aligned(v)
    strides = [stride // 8 for x in (q, k, v) for stride in x.stride()[:2]]
    scalars = (total, scale * LOG2E, softcap, threshold(dropout), 1.0 / (1.0 - dropout))
    options = {
        "HEADS": heads,
        "GROUP": heads // k.shape[1],
        "D": dim,
        "HAS_SOFTCAP": softcap > 0.0,
        "HAS_DROPOUT": dropout > 0.0,
        "PRECISION": "ieee",
    }
    document = (q, k, v, out, lse, start, stop, groups, seed, *strides, *scalars)
    if groups is None:
        c = config("tiled_fwd", dim, q.dtype, heavy=softcap > 0.0 or start2 is not None)
        _launch(
            tiled_fwd_kernel, -(-total // c.block_q) * heads, c,
            q, k, v, out, lse, start, stop, start2, stop2, seed, *strides, *scalars,
            D_PAD=padded_dim(dim), BLOCK_Q=c.block_q, BLOCK_K=c.block_k,
            HAS_SECOND=start2 is not None, **options,
        )  # fmt: skip
    elif is_many_heads(dim):
        c = config("heads_fwd", dim, q.dtype, tile)
        _launch(
            heads_fwd_kernel, groups.shape[0] * -(-heads // c.heads), c, *document,
            HB=c.heads, TILE=tile, BLOCK_Q=c.block_q, **options,
        )  # fmt: skip
    else:
        c = config("doc_fwd", dim, q.dtype, tile)
        _launch(
            doc_fwd_kernel, groups.shape[0] * heads, c, *document,
            D_PAD=padded_dim(dim), TILE=tile, SPAN=c.block_k, BLOCK_Q=c.block_q, **options,
        )  # fmt: skip
    return out, lse


def backward(
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
    total, heads, dim = q.shape
    kv_heads = k.shape[1]
    dq = torch.empty((total, heads, dim), dtype=q.dtype, device=q.device)
    dk = torch.empty((total, kv_heads, dim), dtype=q.dtype, device=q.device)
    dv = torch.empty_like(dk)
    if dq.numel() == 0:
        return dq, dk, dv
    q, k, v, dout = aligned(q), aligned(k), aligned(v), dout.contiguous()
    strides = [stride // 8 for x in (q, k, v) for stride in x.stride()[:2]]
    scalars = (total, scale, softcap, threshold(dropout), 1.0 / (1.0 - dropout))
    options = {
        "HEADS": heads,
        "GROUP": heads // kv_heads,
        "D": dim,
        "HAS_SOFTCAP": softcap > 0.0,
        "HAS_DROPOUT": dropout > 0.0,
        "PRECISION": "ieee",
    }
    document = (
        q, k, v, out, dout, lse, dq, dk, dv, start, stop, groups, seed, *strides, *scalars
    )  # fmt: skip
    if groups is None:
        options |= {"D_PAD": padded_dim(dim), "HAS_SECOND": start2 is not None}
        delta = torch.empty_like(lse)
        heavy = softcap > 0.0 or start2 is not None
        c = config("tiled_dq", dim, q.dtype, heavy=heavy)
        _launch(
            tiled_dq_kernel, -(-total // c.block_q) * heads, c,
            q, k, v, out, dout, lse, delta, dq, start, stop, start2, stop2, seed, *strides,
            *scalars, BLOCK_Q=c.block_q, BLOCK_K=c.block_k, **options,
        )  # fmt: skip
        c = config("tiled_dkv", dim, q.dtype, heavy=heavy or kv_heads < heads)
        _launch(
            tiled_dkv_kernel, -(-total // c.block_k) * kv_heads, c,
            q, k, v, dout, lse, delta, dk, dv, q_start, q_stop, q_start2, q_stop2, start2, stop2,
            seed, *strides, *scalars, BLOCK_Q=c.block_q, BLOCK_K=c.block_k, **options,
        )  # fmt: skip
    elif is_many_heads(dim):
        c = config("heads_bwd", dim, q.dtype, tile)
        _launch(
            heads_bwd_kernel, groups.shape[0] * -(-kv_heads // c.heads), c, *document,
            HB=c.heads, TILE=tile, BLOCK_Q=c.block_q, **options,
        )  # fmt: skip
    else:
        c = config("doc_bwd", dim, q.dtype, tile)
        _launch(
            doc_bwd_kernel, groups.shape[0] * kv_heads, c, *document,
            D_PAD=padded_dim(dim), TILE=tile, BLOCK_Q=c.block_q, **options,
        )  # fmt: skip
    return dq, dk, dv
