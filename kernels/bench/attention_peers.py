"""Who computes attention: ours, torch's, and the flash-attention packages where installed.

A library without prefix-LM is measured with a causal mask on the same documents, and labelled so:
less work than was asked for. Those that need rectangles get a batch padded ahead of time, and
neither padding nor unpadding is timed.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kernels import attention, dispatch

from .attention_cases import AttentionInputs, Packed
from .peers import Peer, Run, grads_of, register_peer

__all__ = ["CAUSAL_INSTEAD"]

CAUSAL_INSTEAD = "causal on the same documents"


def _named(out: Tensor, grads: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return {"out": out, **dict(zip(("dq", "dk", "dv"), grads, strict=True))}


def _needs_gpu(device: torch.device) -> str | None:
    return None if device.type == "cuda" else "needs an NVIDIA GPU"


# Ours --------------------------------------------------------------------------------------------


@contextmanager
def forced(op: str, name: str) -> Iterator[None]:
    """Let `kernels.dispatch` run nothing but ``name`` for a while."""
    dispatch.set_backend(op, name)
    try:
        yield
    finally:
        dispatch.set_backend(op, None)


def _ours(name: str, inputs: AttentionInputs) -> Run:
    q, k, v = inputs.leaves

    def forward() -> Tensor:
        out = attention(q, k, v, inputs.intervals)
        assert isinstance(out, Tensor)
        return out

    return Run(inputs, forward, grads_of(inputs), _named, around=partial(forced, "attention", name))


def _registered(name: str, device: torch.device) -> str | None:
    try:
        with forced("attention", name):
            return None
    except ValueError:
        return "not part of this build"


def _triton(device: torch.device) -> str | None:
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return "needs an NVIDIA GPU"
    return _registered("triton", device)


# The libraries that `kernels.dispatch` knows ------------------------------------------------------


def _dispatched(name: str, inputs: AttentionInputs, *, prefix: bool) -> Run:
    """Run a library through its adapter, without the checks of our public function."""
    computes = ""
    if inputs.spec.prefix is not None and not prefix:
        inputs, computes = inputs.with_spec(inputs.spec.causal()), CAUSAL_INSTEAD
    q, k, v = inputs.leaves
    options: dict[str, Any] = {
        "scale": inputs.spec.dim**-0.5,
        "softcap": None,
        "dropout": 0.0,
        "seed": None,
        "deterministic": False,
        "return_lse": False,
    }
    with forced("attention", name):
        run = dispatch.choose("attention", q, k, v, inputs.intervals, **options)

    def forward() -> Tensor:
        return run(q, k, v, inputs.intervals, **options)[0]

    return Run(inputs, forward, grads_of(inputs), _named, computes=computes)


def _library(name: str, module: str, device: torch.device) -> str | None:
    why = _needs_gpu(device) or _registered(name, device)
    if why is None and not _importable(module):
        why = f"{module} is not installed"
    return why


def _importable(module: str) -> bool:
    try:
        importlib.import_module(module)
    except Exception:  # a broken install raises anything
        return False
    return True


# flash-attn-4 ------------------------------------------------------------------------------------


def _flash_attn_4(inputs: AttentionInputs) -> Run:
    varlen = importlib.import_module("flash_attn.cute").flash_attn_varlen_func
    computes = ""
    if inputs.spec.prefix is not None:
        inputs, computes = inputs.with_spec(inputs.spec.causal()), CAUSAL_INSTEAD
    q, k, v = inputs.leaves
    spec = inputs.spec
    ends = inputs.intervals.cu_seqlens
    window = (None, None) if spec.window is None else (spec.window - 1, 0)

    def forward() -> Tensor:
        found = varlen(
            q,
            k,
            v,
            cu_seqlens_q=ends,
            cu_seqlens_k=ends,
            max_seqlen_q=spec.longest,
            max_seqlen_k=spec.longest,
            causal=True,
            window_size=window,
        )
        return found[0] if isinstance(found, tuple) else found

    return Run(inputs, forward, grads_of(inputs), _named, computes=computes)


def _has_flash_attn_4(device: torch.device) -> str | None:
    why = _needs_gpu(device)
    if why is None and not _importable("flash_attn.cute"):
        why = "flash-attn-4 is not installed"
    return why


# torch SDPA on a padded batch --------------------------------------------------------------------


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


def _batch_mask(spec: Packed, dtype: torch.dtype, device: torch.device) -> Tensor | None:
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


def _sdpa(backend: SDPBackend, masks: bool, inputs: AttentionInputs) -> Run:
    computes = ""
    if inputs.spec.prefix is not None and not masks:
        inputs, computes = inputs.with_spec(inputs.spec.causal()), CAUSAL_INSTEAD
    spec, device = inputs.spec, inputs.upstream.device
    batch = _PaddedBatch(spec, device)
    mask = _batch_mask(spec, inputs.upstream.dtype, device)
    tensors = {name: batch.pad(x).requires_grad_() for name, x in inputs.tensors.items()}
    q, k, v = tensors.values()
    padded = AttentionInputs(spec, tensors, batch.pad(inputs.upstream), inputs.intervals)
    grouped = spec.kv != spec.heads

    def forward() -> Tensor:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped
        )

    def collect(out: Tensor, grads: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return {name: batch.unpad(x) for name, x in _named(out, grads).items()}

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


# Registration ------------------------------------------------------------------------------------


def _peer(
    name: str,
    doc: str,
    available: Callable[[torch.device], str | None],
    make: Callable[[AttentionInputs], Run],
    supports: Callable[[Packed], str | None] = lambda _: None,
    ours: bool = False,
) -> None:
    register_peer(Peer("attention", name, doc, available, make, supports, ours))


_peer("triton", "ours: Triton kernels over intervals", _triton, partial(_ours, "triton"), ours=True)
_peer(
    "padded_sdpa",
    "ours: eager path, SDPA on padded buckets, copies included",
    lambda _: None,
    partial(_ours, "padded_sdpa"),
    ours=True,
)
_peer(
    "varlen",
    "torch.nn.attention.varlen.varlen_attn (FlashAttention-2)",
    partial(_library, "varlen", "torch.nn.attention.varlen"),
    partial(_dispatched, "varlen", prefix=False),
)
_peer(
    "flex",
    "torch flex_attention, compiled, block mask built ahead of time",
    partial(_library, "flex", "torch.nn.attention.flex_attention"),
    partial(_dispatched, "flex", prefix=True),
)
_peer(
    "sdpa_flash",
    "torch SDPA, flash backend, padded batch",
    lambda _: None,
    partial(_sdpa, SDPBackend.FLASH_ATTENTION, False),
    _no_window,
)
_peer(
    "sdpa_cudnn",
    "torch SDPA, cuDNN backend, padded batch",
    _needs_gpu,
    partial(_sdpa, SDPBackend.CUDNN_ATTENTION, True),
    _no_window,
)
_peer(
    "sdpa_efficient",
    "torch SDPA, memory-efficient backend, padded batch",
    _needs_gpu,
    partial(_sdpa, SDPBackend.EFFICIENT_ATTENTION, True),
    _no_window,
)
_peer(
    "flash_attn",
    "flash-attn package, varlen",
    partial(_library, "flash_attn", "flash_attn.flash_attn_interface"),
    partial(_dispatched, "flash_attn", prefix=False),
)
_peer(
    "flash_attn_4",
    "flash-attn-4 (flash_attn.cute), varlen",
    _has_flash_attn_4,
    _flash_attn_4,
)
