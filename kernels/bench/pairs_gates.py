"""The targets of the losses over all pairs, as data."""

from __future__ import annotations

import torch

from . import pairs_cases
from .cases import find_op, select_cases
from .counts import NOMINAL_MATMUL
from .gates import Target

__all__ = ["TARGETS"]

EXTRA_BYTES = 64e6
"""What a step may take beside its gradients."""


_WHO = {
    "clip_compile": "open_clip, compiled",
    "clip_chunked": "open_clip in chunks",
    "inf_cl": "Inf-CL",
}


def _ratio(op: str, case: str, peer: str, gate: float) -> Target:
    return Target(f"{case} against {_WHO[peer]}", "ratio", case, "fwd+bwd", gate, None, peer, op=op)


def _floor(op: str, case: str, gate_ms: float, times: float) -> Target:
    """At most ``gate_ms``; what is aimed for: so many ``times`` the floor's products."""
    (found,) = select_cases([op], [case])
    flops = find_op(op).work(found.spec("full"), torch.bfloat16)["fwd+bwd"].flops
    stretch = times * flops / NOMINAL_MATMUL * 1e3
    name = f"{case}, ms ({times:g} times the floor)"
    return Target(name, "limit", case, "fwd+bwd", gate_ms, stretch, op=op)


def _memory(op: str, case: str, extra: float) -> Target:
    """Bytes at the peak of a step: both gradients, which the caller keeps, and ``extra``."""
    (found,) = select_cases([op], [case])
    spec = found.spec("full")
    gradients = 2 * spec.rows * spec.width * torch.bfloat16.itemsize
    name = f"{case}, peak bytes ({extra / 1e6:,.0f} MB beside the gradients)"
    return Target(name, "limit", case, "fwd+bwd", gradients + extra, op=op, metric="memory")


_INFO, _SIG = pairs_cases.OPS

TARGETS: tuple[Target, ...] = (
    _ratio(_INFO, "InfoNCE-32k", "clip_compile", 2.0),
    _ratio(_INFO, "InfoNCE-32k", "inf_cl", 8.0),
    _floor(_INFO, "InfoNCE-32k", 9.0, 1.3),
    _memory(_INFO, "InfoNCE-32k", EXTRA_BYTES),
    _floor(_INFO, "InfoNCE-131k", 125.0, 1.2),
    _memory(_INFO, "InfoNCE-131k", 2**31),
    _ratio(_SIG, "SigLIP-32k", "clip_compile", 2.5),
    _ratio(_SIG, "SigLIP-32k", "clip_chunked", 2.5),
    _floor(_SIG, "SigLIP-32k", 6.7, 1.25),
    _memory(_SIG, "SigLIP-32k", EXTRA_BYTES),
)
