"""Norms, activations and rotary positions: cases, truth and work.

All are bound by memory: a floor is each tensor moved once. Legend: M rows, N columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..rows.activations import bias_gelu, swiglu
from ..rows.norm import layer_norm, rms_norm
from ..rows.rotary import rotary, rotary_angles
from .attention_peers import forced
from .cases import Case, Inputs, Op, Part, Scale, Work, register_case, register_op

__all__ = ["OPS", "ROWS", "Heads", "RowInputs", "Rows", "grads_of_all", "named"]

ROWS = 65_536
SEED = 1
OPS = ("layer_norm", "rms_norm", "bias_gelu", "swiglu", "rotary")
_PIECE = 1024
"""Rows at either end that a spot check looks at, where rows do not depend on each other."""


@dataclass(frozen=True)
class Rows:
    """A matrix ``[M, N]``; ``residual`` and ``dropout``: what is fused with the operation."""

    rows: int
    columns: int
    residual: bool = False
    dropout: float = 0.0

    def __str__(self) -> str:
        """Describe it in one line."""
        more = ", residual" * self.residual + f", dropout {self.dropout}" * bool(self.dropout)
        return f"{self.rows:,} rows × {self.columns:,}{more}"


@dataclass(frozen=True)
class Heads:
    """Queries ``[T, H, D]`` and keys ``[T, K, D]``."""

    rows: int
    heads: int
    kv: int
    dim: int

    def __str__(self) -> str:
        """Describe it in one line."""
        return f"{self.rows:,} tokens, {self.heads}/{self.kv} heads × {self.dim}"


@dataclass(eq=False)
class RowInputs(Inputs):
    """Leaves, the gradients of all outputs, and what carries no gradient."""

    upstreams: tuple[Tensor, ...] = ()
    fixed: tuple[Tensor, ...] = ()


# What is computed --------------------------------------------------------------------------------


def call_of(op: str, spec: Any) -> Callable[..., Any]:
    """Return our public function with the options of a case, taking leaves and fixed tensors."""
    if op == "rotary":
        return rotary
    if op == "swiglu":
        return swiglu
    seed = SEED if spec.dropout else None
    if op == "bias_gelu":
        return lambda x, bias: bias_gelu(x, bias, dropout=spec.dropout, seed=seed)
    if op == "rms_norm":
        return lambda x, weight, r=None: rms_norm(
            x, weight, residual=r, dropout=spec.dropout, seed=seed
        )
    return lambda x, weight, bias, r=None: layer_norm(
        x, weight, bias, residual=r, dropout=spec.dropout, seed=seed
    )


def _shapes(op: str, spec: Any) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Return the shapes of the leaves, in the order of the call, and of the outputs."""
    if op == "rotary":
        both = {"q": (spec.rows, spec.heads, spec.dim), "k": (spec.rows, spec.kv, spec.dim)}
        return both, {"q_out": both["q"], "k_out": both["k"]}
    matrix, row = (spec.rows, spec.columns), (spec.columns,)
    if op == "swiglu":
        return {"gate_up": (spec.rows, 2 * spec.columns)}, {"y": matrix}
    leaves = {"x": matrix} | ({} if op == "bias_gelu" else {"weight": row})
    leaves |= {} if op == "rms_norm" else {"bias": row}
    leaves |= {"residual": matrix} if spec.residual else {}
    return leaves, {"y": matrix} | ({"summed": matrix} if spec.residual else {})


def named(inputs: RowInputs, op: str, outs: Any, grads: Any) -> dict[str, Tensor]:
    """Name outputs and gradients as the truth does."""
    outs = outs if isinstance(outs, tuple) else (outs,)
    found = dict(zip(_shapes(op, inputs.spec)[1], outs, strict=True))
    return found | {f"d{name}": x for name, x in zip(inputs.tensors, grads, strict=True)}


def grads_of_all(inputs: RowInputs) -> Callable[[Any], tuple[Tensor, ...]]:
    """Return a backward from all outputs to all leaves."""
    leaves, ups = inputs.leaves, inputs.upstreams

    def backward(outs: Any) -> tuple[Tensor, ...]:
        return torch.autograd.grad(outs if isinstance(outs, tuple) else (outs,), leaves, ups)

    return backward


def _builder(op: str) -> Callable[[Any, torch.device, torch.dtype, int], RowInputs]:
    def build(spec: Any, device: torch.device, dtype: torch.dtype, seed: int) -> RowInputs:
        generator = torch.Generator(device=device).manual_seed(seed)

        def draw(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, generator=generator, device=device).to(dtype)

        leaves, outs = _shapes(op, spec)
        tensors = {name: draw(shape).requires_grad_() for name, shape in leaves.items()}
        ups = tuple(draw(shape) for shape in outs.values())
        fixed = ()
        if op == "rotary":
            positions = torch.arange(spec.rows, device=device).remainder_(230)
            fixed = rotary_angles(positions, spec.dim)
        return RowInputs(spec, tensors, ups[0], ups, fixed)

    return build


# Truth and work ----------------------------------------------------------------------------------


def _parter(op: str) -> Callable[[Any, bool], Sequence[Part]]:
    def parts(inputs: RowInputs, everything: bool) -> Sequence[Part]:
        # Gradients of weights and biases are sums over all rows.
        if everything or op in ("layer_norm", "rms_norm", "bias_gelu"):
            return [_part(op, inputs, slice(None))]
        return [_part(op, inputs, slice(_PIECE)), _part(op, inputs, slice(-_PIECE, None))]

    return parts


def _part(op: str, inputs: RowInputs, rows: slice) -> Part:
    def pick(_: str, x: Tensor) -> Tensor:
        return x[rows]

    def truth(dtype: torch.dtype) -> dict[str, Tensor]:
        leaves = [x.detach()[rows].to(dtype).requires_grad_() for x in inputs.leaves]
        fixed = [x[rows].to(dtype) if dtype == torch.float64 else x[rows] for x in inputs.fixed]
        with forced(op, "eager"):  # torch's own operations
            outs = call_of(op, inputs.spec)(*leaves, *fixed)
        outs = outs if isinstance(outs, tuple) else (outs,)
        ups = [up[rows].to(dtype) for up in inputs.upstreams]
        grads = torch.autograd.grad(outs, leaves, ups)
        return named(inputs, op, tuple(x.detach() for x in outs), grads)

    return Part("all rows" if rows == slice(None) else f"rows {rows}", truth, pick)


def _worker(op: str) -> Callable[[Any, torch.dtype], dict[str, Work]]:
    """Count bytes: passes over the matrices, statistics (float32) and weights."""

    def work(spec: Any, dtype: torch.dtype) -> dict[str, Work]:
        if op == "rotary":
            size = spec.rows * (spec.heads + spec.kv) * spec.dim * dtype.itemsize
            angles = 2 * spec.rows * (spec.dim // 2) * 4
            passes, more = (2, 2), (angles, angles)
        else:
            size, row = spec.rows * spec.columns * dtype.itemsize, spec.columns * dtype.itemsize
            if op == "swiglu":
                passes, more = (3, 5), (0, 0)
            elif op == "bias_gelu":
                passes, more = (2, 3), (row, 2 * row)
            else:
                columns = 2 if op == "layer_norm" else 1  # means, weights and biases, or not
                kept = 4 * spec.rows * columns
                # Forward x (and residual) in, y (and the sum) out. Backward dy, what was
                # normalised (and the sum's gradient) in; one gradient out, with dropout two.
                passes = (4, 4 + bool(spec.dropout)) if spec.residual else (2, 3)
                more = (kept + columns * row, kept + (1 + columns) * row)
        fwd, bwd = (Work(n * size + m, 0) for n, m in zip(passes, more, strict=True))
        return {"fwd": fwd, "bwd": bwd, "fwd+bwd": Work(fwd.bytes + bwd.bytes, 0)}

    return work


# Cases -------------------------------------------------------------------------------------------


def _case(op: str, name: str, doc: str, spec: Any) -> None:
    def described(scale: Scale) -> Any:
        if scale == "full":
            return spec
        if scale == "small":
            return replace(spec, rows=300)
        if isinstance(spec, Heads):
            return replace(spec, rows=24, heads=min(spec.heads, 4), kv=min(spec.kv, 2))
        return replace(spec, rows=24, columns=min(spec.columns, 128))

    register_case(Case(op, name, doc, described))


_DOCS = {
    "layer_norm": "LayerNorm, with the addition before it",
    "rms_norm": "RMSNorm, with the addition before it",
    "bias_gelu": "bias and GELU",
    "swiglu": "SwiGLU of one projection",
    "rotary": "rotary positions of queries and keys",
}
for _op in OPS:
    register_op(
        Op(_op, _DOCS[_op], ("fwd", "bwd", "fwd+bwd"), _builder(_op), _parter(_op), _worker(_op))
    )
for _columns in (256, 384, 512, 768, 1024):
    _case("layer_norm", f"LN-{_columns}", "residual and norm", Rows(ROWS, _columns, True))
_case("layer_norm", "LN-768-alone", "norm without a residual", Rows(ROWS, 768))
_case("layer_norm", "LN-768-dropout", "dropout, residual and norm", Rows(ROWS, 768, True, 0.15))
_case("layer_norm", "LN-4096x1024", "few rows: the host counts", Rows(4096, 1024, True))
for _columns in (1024, 2048, 4096):
    _case("rms_norm", f"RMS-{_columns}", "residual and norm", Rows(ROWS, _columns, True))
for _columns in (1024, 3072):
    _case("bias_gelu", f"GELU-{_columns}", "bias and GELU", Rows(ROWS, _columns))
_case("bias_gelu", "GELU-3072-dropout", "and dropout", Rows(ROWS, 3072, False, 0.15))
_case("swiglu", "SwiGLU-5632", "gate and up side by side", Rows(ROWS // 4, 5632))
_case("rotary", "ROPE-32/4", "grouped queries", Heads(ROWS, 32, 4, 64))
_case("rotary", "ROPE-12/12", "as many keys", Heads(ROWS, 12, 12, 64))
