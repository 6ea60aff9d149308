"""Who computes norms, activations and rotary positions: ours, torch, and libraries if installed.

Liger-Kernel and quack are imported when they are measured. Where a library does not fuse what the
case asks for, torch does the rest beside it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention_peers import forced
from .peers import Peer, Run, anywhere, installed, needs_gpu, needs_triton, register_peer
from .row_op_cases import OPS, RowInputs, call_of, grads_of_all, named

__all__ = ["plain"]

Make = Callable[[Any], Callable[..., Any]]
"""From a case's spec to a function of its leaves and fixed tensors."""


def _run(op: str, make: Make, inputs: RowInputs, **more: Any) -> Run:
    function, given = make(inputs.spec), (*inputs.leaves, *inputs.fixed)
    return Run(
        inputs, lambda: function(*given), grads_of_all(inputs), partial(named, inputs, op), **more
    )


def plain(op: str) -> Make:
    """Return torch's own operations, as a model would write them."""

    def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=-1)
        cos, sin = cos[:, None], sin[:, None]
        both = [left * cos - right * sin, right * cos + left * sin]
        return torch.cat(both, dim=-1).to(x.dtype)

    def norm(x: Tensor, weight: Tensor, *rest: Tensor, residual: bool) -> Any:
        bias = rest[0] if op == "layer_norm" else None
        summed = x + rest[-1] if residual else x
        if op == "layer_norm":
            y = F.layer_norm(summed, weight.shape, weight, bias)
        else:
            y = F.rms_norm(summed, weight.shape, weight, 1e-6)
        return (y, summed) if residual else y

    def gated(both: Tensor) -> Tensor:
        gate, up = both.chunk(2, dim=-1)
        return F.silu(gate) * up

    def make(spec: Any) -> Callable[..., Any]:
        if op == "rotary":
            return lambda q, k, cos, sin: (rotate(q, cos, sin), rotate(k, cos, sin))
        if op == "swiglu":
            return gated
        if op == "bias_gelu":
            return lambda x, bias: F.gelu(x + bias, approximate="tanh")
        return partial(norm, residual=spec.residual)

    return make


def _compiled(op: str, spec: Any) -> Callable[..., Any]:
    torch._dynamo.reset()
    return torch.compile(plain(op)(spec), dynamic=False)


def _liger(op: str, spec: Any) -> Callable[..., Any]:
    if op == "swiglu":
        silu = importlib.import_module("liger_kernel.ops.swiglu").LigerSiLUMulFunction.apply
        return lambda both: silu(*both.chunk(2, dim=-1))
    if op == "rms_norm":
        module = importlib.import_module("liger_kernel.ops.fused_add_rms_norm")
        fused = module.LigerFusedAddRMSNormFunction.apply
        return lambda x, weight, r: fused(x, r, weight, 1e-6, 0.0, "gemma", False)
    norm = importlib.import_module("liger_kernel.ops.layer_norm").LigerLayerNormFunction.apply
    if not spec.residual:
        return lambda x, weight, bias: norm(x, weight, bias, 1e-5)

    def added(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        summed = x + residual
        return norm(summed, weight, bias, 1e-5), summed

    return added


def _quack(spec: Any) -> Callable[..., Any]:
    norm = importlib.import_module("quack.rmsnorm").rmsnorm
    return lambda x, weight, r: norm(x, weight, residual=r, eps=1e-6, prenorm=True)


def _same_mask(spec: Any) -> str | None:
    dropout = getattr(spec, "dropout", 0.0)
    return "its dropout mask is another: no result to compare" if dropout else None


for _op in OPS:
    for _name, _doc, _where in (
        ("triton", "ours: Triton kernels", needs_triton),
        ("eager", "ours: torch's operations", anywhere),
    ):
        _make = partial(_run, _op, partial(call_of, _op), around=partial(forced, _op, _name))
        register_peer(Peer(_op, _name, _doc, _where, _make, ours=True))
    register_peer(
        Peer(_op, "torch", "torch's operations, one after another", anywhere,
             partial(_run, _op, plain(_op)), _same_mask)
    )  # fmt: skip
    register_peer(
        Peer(_op, "torch_compile", "the same, compiled", needs_gpu,
             partial(_run, _op, partial(_compiled, _op)), _same_mask, full_only=True)
    )  # fmt: skip
for _op, _package in (
    ("layer_norm", "liger_kernel.ops.layer_norm"),
    ("rms_norm", "liger_kernel.ops.fused_add_rms_norm"),
    ("swiglu", "liger_kernel.ops.swiglu"),
):
    register_peer(
        Peer(_op, "liger", "Liger-Kernel", partial(installed, _package),
             partial(_run, _op, partial(_liger, _op)), _same_mask)
    )  # fmt: skip
register_peer(
    Peer("rms_norm", "quack", "quack", partial(installed, "quack.rmsnorm"),
         partial(_run, "rms_norm", _quack))
)  # fmt: skip
