"""Other people's attention behind our signature, to be chosen by name and to be measured against.

``dispatch.set_backend("attention", "varlen" | "flex" | "flash_attn")``: nothing here runs unasked.
What a library cannot do it refuses, and a call that it refuses is an error, never another path.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from . import dispatch
from .intervals import Intervals

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

__all__ = ["block_mask", "flash_attn", "flex", "varlen"]

_HALF = (torch.float16, torch.bfloat16)


def _refuse_dropout(dropout: float) -> str | None:
    return f"has no dropout of our mask, got dropout={dropout}" if dropout > 0.0 else None


def _refuse_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


# FlashAttention kernels: torch's copy and the package ---------------------------------------------


def _refuse_flash(q: Tensor, intervals: Intervals, dropout: float) -> str | None:
    """Say what FlashAttention-2 over ``cu_seqlens`` cannot do, whoever wraps it."""
    if q.device.type != "cuda":
        return f"needs a CUDA device, got {q.device.type}"
    if q.dtype not in _HALF:
        return f"float16 or bfloat16 expected, got {q.dtype}"
    if q.shape[2] > 256:
        return f"head dimension at most 256 expected, got {q.shape[2]}"
    if q.shape[0] == 0:
        return "at least one row expected, got none"
    if intervals.prefix_lens is not None:
        return "has no prefix-LM mask, got prefix_lens"
    if intervals.branches is not None:
        return "has no second interval a row, got branches"
    if intervals.max_len is None:
        return "needs intervals made with max_len"
    return _refuse_dropout(dropout)


def _reach(intervals: Intervals) -> tuple[int, int]:
    """Return how far a row sees back and forth, -1 = as far as its document goes."""
    if not intervals.causal:
        return -1, -1
    return (-1 if intervals.window is None else intervals.window - 1), 0


def _aligned(x: Tensor) -> Tensor:
    """Return ``[T, heads, D]`` as vector loads of 16 bytes need it, copied only where it is not."""
    starts = (x.data_ptr(), *(step * x.element_size() for step in x.stride()[:2]))
    if x.stride(2) == 1 and all(start % 16 == 0 for start in starts):
        return x
    return x.clone(memory_format=torch.contiguous_format)


def _refuse_varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    intervals: Intervals,
    *,
    softcap: float | None,
    dropout: float,
    deterministic: bool,
    **_: Any,
) -> str | None:
    if softcap is not None:
        return f"has no softcap, got {softcap}"
    if (
        deterministic
        and _refuse_gradient(q, k, v)
        and not torch.are_deterministic_algorithms_enabled()
    ):
        return (
            "its gradient is deterministic only under torch.use_deterministic_algorithms(True): "
            "that or deterministic=False expected"
        )
    return _refuse_flash(q, intervals, dropout)


def varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    intervals: Intervals,
    *,
    scale: float,
    return_lse: bool,
    **_: Any,
) -> tuple[Tensor, Tensor | None]:
    """`torch.nn.attention.varlen.varlen_attn` (torch >= 2.10): causal, full and window masks."""
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    ends, longest = intervals.cu_seqlens, intervals.max_len
    assert longest is not None
    out, lse = varlen_attn(
        _aligned(q),
        _aligned(k),
        _aligned(v),
        ends,
        ends,
        longest,
        longest,
        return_aux=AuxRequest(lse=True),
        scale=scale,
        window_size=_reach(intervals),
    )
    return out, lse.T if return_lse else None  # lse: [H, T]


@cache
def _flash_attn_varlen() -> Callable[..., Any] | None:
    """Return the package's function, or None where it is not installed."""
    try:
        # flash-attn-4 installs a package of the same name without this module.
        module = importlib.import_module("flash_attn.flash_attn_interface")
    except ImportError:
        return None
    return module.flash_attn_varlen_func


def _refuse_flash_attn(
    q: Tensor, k: Tensor, v: Tensor, intervals: Intervals, *, dropout: float, **_: Any
) -> str | None:
    if _flash_attn_varlen() is None:
        return "the package flash-attn is not installed"
    return _refuse_flash(q, intervals, dropout)


def flash_attn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    intervals: Intervals,
    *,
    scale: float,
    softcap: float | None,
    deterministic: bool,
    return_lse: bool,
    **_: Any,
) -> tuple[Tensor, Tensor | None]:
    """``flash_attn_varlen_func`` of the package flash-attn 2: causal, full and window masks."""
    function, longest = _flash_attn_varlen(), intervals.max_len
    assert function is not None and longest is not None
    found = function(
        _aligned(q),
        _aligned(k),
        _aligned(v),
        cu_seqlens_q=intervals.cu_seqlens,
        cu_seqlens_k=intervals.cu_seqlens,
        max_seqlen_q=longest,
        max_seqlen_k=longest,
        dropout_p=0.0,
        softmax_scale=scale,
        causal=intervals.causal,
        window_size=_reach(intervals),
        softcap=softcap or 0.0,
        deterministic=deterministic,
        return_attn_probs=return_lse,
    )
    if not return_lse:
        return found, None
    out, lse, _probabilities = found
    return out, lse.T  # [H, T]


# FlexAttention ------------------------------------------------------------------------------------

_BLOCK = 128
_block_masks: WeakKeyDictionary[Intervals, BlockMask] = WeakKeyDictionary()


def block_mask(intervals: Intervals) -> BlockMask:
    """Return flex_attention's mask of the intervals, made once, without asking the device.

    Which 128 x 128 blocks are seen wholly, partly or not at all follows from the intervals of a
    block's first and last row; `create_block_mask` would evaluate all T² entries.
    """
    found = _block_masks.get(intervals)
    if found is None:
        found = _block_masks[intervals] = _make_block_mask(intervals)
    return found


def _make_block_mask(intervals: Intervals) -> BlockMask:
    from torch.nn.attention.flex_attention import BlockMask

    total, device = intervals.num_rows, intervals.device
    edge = torch.arange(0, total, _BLOCK, device=device)  # of query blocks and of key blocks
    last = (edge + _BLOCK).clamp(max=total) - 1
    start, stop = intervals.start, intervals.stop
    # Both do not decrease along the row.
    touched, full = _blocks(edge, start[edge], stop[last], start[last], stop[edge])
    start2, stop2 = intervals.start2, intervals.stop2
    if start2 is not None and stop2 is not None:
        row_block = torch.arange(total, device=device) // _BLOCK

        def of_blocks(x: Tensor, reduce: str) -> Tensor:
            return x.new_zeros(len(edge)).scatter_reduce_(
                0, row_block, x, reduce, include_self=False
            )

        first2 = of_blocks(torch.where(stop2 > start2, start2, total), "amin")
        touched2, full2 = _blocks(
            edge, first2, of_blocks(stop2, "amax"), of_blocks(start2, "amax"),
            of_blocks(stop2, "amin"),
        )  # fmt: skip
        touched, full = touched | touched2, full | full2

    def listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
        order = blocks.int().argsort(dim=1, descending=True, stable=True)
        return blocks.sum(1).int()[None, None], order.int()[None, None]

    def seen(batch: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        mask = (key >= start[row]) & (key < stop[row])
        if start2 is not None and stop2 is not None:
            mask = mask | ((key >= start2[row]) & (key < stop2[row]))
        return mask

    return BlockMask.from_kv_blocks(
        *listed(touched & ~full),
        *listed(full),
        BLOCK_SIZE=_BLOCK,
        mask_mod=seen,
        seq_lengths=(total, total),
    )


def _blocks(
    edge: Tensor, low: Tensor, high: Tensor, low_all: Tensor, high_all: Tensor
) -> tuple[Tensor, Tensor]:
    """Return bool ``[query blocks, key blocks]``: some row sees some of it; all rows see it all.

    ``low`` to ``high`` is the hull of what a query block's rows see, ``low_all`` to ``high_all``
    what they all see.
    """
    touched = (edge < high[:, None]) & (edge + _BLOCK > low[:, None])
    full = (edge >= low_all[:, None]) & (edge + _BLOCK <= high_all[:, None])
    return touched, full


@cache
def _flex_attention(compiled: bool) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if compiled else flex_attention


def _refuse_flex(
    q: Tensor, k: Tensor, v: Tensor, intervals: Intervals, *, dropout: float, **_: Any
) -> str | None:
    if q.shape[0] == 0:
        return "at least one row expected, got none"
    if q.device.type == "cpu" and _refuse_gradient(q, k, v):
        return "has no gradient on a CPU"
    if q.device.type != "cpu" and q.shape[2] < 16:
        return f"head dimension at least 16 expected, got {q.shape[2]}"
    if q.device.type != "cpu" and q.dtype == torch.float64:
        return "float32, float16 or bfloat16 expected, got torch.float64"
    return _refuse_dropout(dropout)


def flex(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    intervals: Intervals,
    *,
    scale: float,
    softcap: float | None,
    return_lse: bool,
    **_: Any,
) -> tuple[Tensor, Tensor | None]:
    """`torch.nn.attention.flex_attention`: every mask form; compiled unless on a CPU."""
    from torch.nn.attention.flex_attention import AuxRequest

    cap = softcap or 1.0

    def capped(score: Tensor, batch: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    run = _flex_attention(q.device.type != "cpu")
    out, aux = run(
        *(x.transpose(0, 1)[None] for x in (q, k, v)),  # [1, heads, T, D]
        score_mod=None if softcap is None else capped,
        block_mask=block_mask(intervals),
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
        return_aux=AuxRequest(lse=return_lse),
    )
    return out[0].transpose(0, 1), aux.lse[0].T if return_lse else None


for _name, _run, _refuses in (
    ("varlen", varlen, _refuse_varlen),
    ("flex", flex, _refuse_flex),
    ("flash_attn", flash_attn, _refuse_flash_attn),
):
    dispatch.register("attention", _name, _run, refuses=_refuses, opt_in=True)
