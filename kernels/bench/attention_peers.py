"""Who computes attention: ours, torch's, and the flash-attention packages where installed.

A library without prefix-LM is measured with a causal mask on the same documents, and labelled so:
less work than was asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kernels import attention, attention_peers, dispatch, intervals

from .attention_cases import AttentionInputs
from .peers import Peer, Run, anywhere, grads_of, needs_gpu, needs_triton, register_peer

__all__ = ["CAUSAL_INSTEAD", "forced", "named", "ours_run"]

CAUSAL_INSTEAD = "causal on the same documents"


def named(out: Tensor, grads: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Name what attention and its backward return."""
    return {"out": out, **dict(zip(("dq", "dk", "dv"), grads, strict=True))}


# Ours --------------------------------------------------------------------------------------------


@contextmanager
def forced(op: str, name: str) -> Iterator[None]:
    """Let `kernels.dispatch` run nothing but ``name`` for a while."""
    dispatch.set_backend(op, name)
    try:
        yield
    finally:
        dispatch.set_backend(op, None)


def ours_run(name: str, inputs: AttentionInputs) -> Run:
    """Run our public function with one implementation; ``build`` makes what its mask needs."""
    q, k, v = inputs.leaves
    spec, mask = inputs.spec, inputs.intervals

    def forward() -> Tensor:
        out = attention(q, k, v, mask)
        assert isinstance(out, Tensor)
        return out

    def build() -> Any:
        made = intervals(
            mask.cu_seqlens,
            prefix_lens=mask.prefix_lens,
            window=spec.window,
            total=spec.total,
            max_len=spec.longest,
        )
        return made.layout() if name == "padded_sdpa" else made

    return Run(
        inputs,
        forward,
        grads_of(inputs),
        named,
        build=build,
        around=partial(forced, "attention", name),
    )


def _registered(name: str) -> str | None:
    try:
        with forced("attention", name):
            return None
    except ValueError:
        return "not part of this build"


def _triton(device: torch.device) -> str | None:
    return needs_triton(device) or _registered("triton")


# The libraries that `kernels.dispatch` knows ------------------------------------------------------


def _dispatched(name: str, inputs: AttentionInputs) -> Run:
    """Run a library without prefix-LM through its adapter."""
    computes = ""
    if inputs.spec.prefix is not None:
        inputs, computes = inputs.with_spec(inputs.spec.causal()), CAUSAL_INSTEAD
    return Run(
        inputs, _adapter(name, inputs, inputs.spec.dim), grads_of(inputs), named, computes=computes
    )


def _adapter(name: str, inputs: AttentionInputs, dim: int) -> Callable[[], Tensor]:
    """Return the adapter's call, without the checks of our public function."""
    q, k, v = inputs.leaves
    mask = inputs.intervals
    options: dict[str, Any] = {
        "scale": dim**-0.5,
        "softcap": None,
        "dropout": 0.0,
        "seed": None,
        "deterministic": False,
        "return_lse": False,
    }
    with forced("attention", name):
        run = dispatch.choose("attention", q, k, v, mask, **options)
    return lambda: run(q, k, v, mask, **options)[0]


_FLEX_DIM = 16


def _flex(inputs: AttentionInputs) -> Run:
    """flex_attention on exactly the case; heads narrower than it takes are padded with zeros."""
    # One compilation a problem, for its own shapes: those before must not make them dynamic.
    torch._dynamo.reset()
    mask, dim = inputs.intervals, inputs.spec.dim
    extra = max(_FLEX_DIM - dim, 0)
    wide = inputs
    if extra:

        def widen(x: Tensor) -> Tensor:
            return torch.nn.functional.pad(x.detach(), (0, extra))

        tensors = {
            name: widen(x).requires_grad_(x.requires_grad) for name, x in inputs.tensors.items()
        }
        wide = AttentionInputs(inputs.spec, tensors, widen(inputs.upstream), mask)

    def collect(out: Tensor, grads: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return {name: x[..., :dim] for name, x in named(out, grads).items()}

    return Run(
        inputs,
        _adapter("flex", wide, dim),
        grads_of(wide),
        collect,
        note=f"head dimension padded to {_FLEX_DIM}" if extra else "",
        # Not the public function: that keeps what it made.
        build=lambda: attention_peers._make_block_mask(mask),
    )


def _library(name: str, module: str, device: torch.device) -> str | None:
    why = needs_gpu(device) or _registered(name)
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

    return Run(inputs, forward, grads_of(inputs), named, computes=computes)


def _has_flash_attn_4(device: torch.device) -> str | None:
    why = needs_gpu(device)
    if why is None and not _importable("flash_attn.cute"):
        why = "flash-attn-4 is not installed"
    return why


# Registration ------------------------------------------------------------------------------------


def _peer(
    name: str,
    doc: str,
    available: Callable[[torch.device], str | None],
    make: Callable[[AttentionInputs], Run],
    *,
    ours: bool = False,
    full_only: bool = False,
) -> None:
    register_peer(Peer("attention", name, doc, available, make, ours=ours, full_only=full_only))


_peer(
    "triton", "ours: Triton kernels over intervals", _triton, partial(ours_run, "triton"), ours=True
)
_peer(
    "padded_sdpa",
    "ours: eager path, SDPA on padded buckets, copies included",
    anywhere,
    partial(ours_run, "padded_sdpa"),
    ours=True,
)
_peer(
    "varlen",
    "torch.nn.attention.varlen.varlen_attn (FlashAttention-2)",
    partial(_library, "varlen", "torch.nn.attention.varlen"),
    partial(_dispatched, "varlen"),
)
_peer(
    "flex",
    "torch flex_attention, compiled; build: its block mask, from our intervals",
    partial(_library, "flex", "torch.nn.attention.flex_attention"),
    _flex,
    full_only=True,
)
_peer(
    "flash_attn",
    "flash-attn package, varlen",
    partial(_library, "flash_attn", "flash_attn.flash_attn_interface"),
    partial(_dispatched, "flash_attn"),
)
_peer(
    "flash_attn_4",
    "flash-attn-4 (flash_attn.cute), varlen",
    _has_flash_attn_4,
    _flash_attn_4,
)
