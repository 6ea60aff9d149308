"""The targets of norms, activations and rotary positions, as data."""

from __future__ import annotations

import torch

from . import row_op_cases  # noqa: F401  (registers the cases)
from .cases import find_op, select_cases
from .gates import Target

__all__ = ["TARGETS"]


def _rate(
    op: str, case: str, mode: str, gate: float | None, stretch: float | None = None
) -> Target:
    """Bytes that the case must move at ``gate`` TB/s, in ms (in bfloat16)."""
    (found,) = select_cases([op], [case])
    bytes_ = find_op(op).work(found.spec("full"), torch.bfloat16)[mode].bytes
    gate_ms, stretch_ms = (None if x is None else bytes_ / (x * 1e9) for x in (gate, stretch))
    words = " to ".join(f"{x:g}" for x in (gate, stretch) if x is not None)
    name = f"{case} {mode}, ms ({words} TB/s)"
    return Target(name, "limit", case, mode, gate_ms, stretch_ms, op=op)


def _ratio(
    op: str, case: str, mode: str, peer: str, gate: float, stretch: float | None = None
) -> Target:
    who = {"best": "the best peer", "torch_compile": "torch.compile"}.get(peer, peer)
    return Target(f"{case} {mode} against {who}", "ratio", case, mode, gate, stretch, peer, op=op)


_NORMS = [f"LN-{columns}" for columns in (256, 384, 512, 768, 1024)]

TARGETS: tuple[Target, ...] = (
    *(_rate("layer_norm", case, "fwd", 3.5, 3.9) for case in _NORMS),
    *(_rate("layer_norm", case, "bwd", 2.8, 3.5) for case in _NORMS),
    *(_ratio("layer_norm", case, "bwd", "torch_compile", 1.5) for case in _NORMS),
    *(_ratio("layer_norm", case, "fwd", "best", 1.0) for case in _NORMS),
    _rate("layer_norm", "LN-768-dropout", "fwd", 3.2, 3.8),
    _rate("layer_norm", "LN-768-dropout", "bwd", 2.6, 3.4),
    _ratio("layer_norm", "LN-4096x1024", "fwd+bwd", "torch", 1.0),
    Target("host cost of LN-768 fwd, µs", "limit", "LN-768", "fwd", 25.0, 12.0, op="layer_norm",
           metric="host"),
    Target("host cost of LN-768 bwd, µs", "limit", "LN-768", "bwd", 35.0, 12.0, op="layer_norm",
           metric="host"),
    _rate("rms_norm", "RMS-2048", "fwd", 3.5, 3.9),
    _rate("rms_norm", "RMS-2048", "bwd", 2.8, 3.5),
    _ratio("rms_norm", "RMS-2048", "bwd", "torch_compile", 1.5),
    _ratio("bias_gelu", "GELU-3072", "bwd", "torch_compile", 1.0, 1.3),
    _ratio("swiglu", "SwiGLU-5632", "fwd+bwd", "torch_compile", 1.0, 1.1),
    _ratio("rotary", "ROPE-32/4", "fwd+bwd", "torch_compile", 1.0, 1.3),
)  # fmt: skip
"""Those of LN-* are the project's; the others follow from the same rates and peers."""
