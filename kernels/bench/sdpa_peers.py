"""torch's `scaled_dot_product_attention` on a packed row: a batch padded ahead of time.

Neither padding nor unpadding is timed; padded rows are worked on like any others.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .attention_cases import AttentionInputs, Packed
from .attention_peers import CAUSAL_INSTEAD, named
from .peers import Peer, Run, anywhere, grads_of, needs_gpu, register_peer

__all__ = ["batch_mask", "sdpa_run"]


class _PaddedBatch:
    """The documents of a packed row as a batch ``[documents, longest, heads, D]``."""

    def __init__(self, spec: Packed, device: torch.device) -> None:
        lengths = torch.tensor(spec.lengths, device=device)
        position = torch.arange(spec.longest, device=device)
        self.real = position < lengths[:, None]  # [documents, longest]
        self._shape = (len(spec.lengths), spec.longest)

    def pad(self, x: Tensor) -> Tensor:
        """``[T, heads, D]`` to ``[documents, heads, longest, D]``, a transposed view of rows."""
        batch = x.new_zeros((*self._shape, *x.shape[1:]))
        batch[self.real] = x.detach()
        return batch.transpose(1, 2)

    def unpad(self, x: Tensor) -> Tensor:
        """The way back."""
        return x.transpose(1, 2)[self.real]


def batch_mask(spec: Packed, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """0 / -inf ``[documents or 1, 1, longest, longest]`` of the prefix-LM; None for causal.

    Padding comes last, so no real row sees any of it; padded rows see something, never nothing.
    Rows of the mask are aligned to 16 elements, which saves the libraries a copy a call.
    """
    prefix_lens = spec.prefix_lens()
    if prefix_lens is None:
        return None
    if bool((prefix_lens == prefix_lens[0]).all()):
        prefix_lens = prefix_lens[:1]
    position = torch.arange(spec.longest, device=device)
    seen = position[None, :] <= position[:, None]  # [longest, longest]
    seen = seen | (position < prefix_lens.to(device)[:, None, None])
    aligned = -(-spec.longest // 16) * 16
    mask = torch.zeros((seen.shape[0], 1, spec.longest, aligned), dtype=dtype, device=device)
    mask = mask[..., : spec.longest]
    return mask.masked_fill_(~seen[:, None], float("-inf"))


def sdpa_run(backend: SDPBackend, masks: bool, inputs: AttentionInputs) -> Run:
    """Run SDPA with one backend; one that takes no masks computes causal instead."""
    computes = ""
    if inputs.spec.prefix is not None and not masks:
        inputs, computes = inputs.with_spec(inputs.spec.causal()), CAUSAL_INSTEAD
    spec, device = inputs.spec, inputs.upstream.device
    batch = _PaddedBatch(spec, device)
    mask = batch_mask(spec, inputs.upstream.dtype, device)
    tensors = {name: batch.pad(x).requires_grad_() for name, x in inputs.tensors.items()}
    q, k, v = tensors.values()
    padded = AttentionInputs(spec, tensors, batch.pad(inputs.upstream), inputs.intervals)
    grouped = spec.kv != spec.heads

    def forward() -> Tensor:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped
        )

    def collect(out: Tensor, grads: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return {name: batch.unpad(x) for name, x in named(out, grads).items()}

    share = spec.total / (len(spec.lengths) * spec.longest)
    return Run(
        inputs,
        forward,
        grads_of(padded),
        collect,
        computes=computes,
        note="" if share == 1 else "padded ahead of time",
        config={"real_share": share},
        around=_only(backend),
    )


def _only(backend: SDPBackend) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: sdpa_kernel(backend)


def _no_window(spec: Packed) -> str | None:
    return None if spec.window is None else "no sliding window without a mask of S x S numbers"


for _name, _backend, _masks, _words, _available in (
    ("sdpa_flash", SDPBackend.FLASH_ATTENTION, False, "flash", anywhere),
    ("sdpa_cudnn", SDPBackend.CUDNN_ATTENTION, True, "cuDNN", needs_gpu),
    ("sdpa_efficient", SDPBackend.EFFICIENT_ATTENTION, True, "memory-efficient", needs_gpu),
):
    register_peer(
        Peer(
            "attention",
            _name,
            f"torch SDPA, {_words} backend, padded batch",
            _available,
            partial(sdpa_run, _backend, _masks),
            _no_window,
        )
    )
