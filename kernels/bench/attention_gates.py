"""The targets of attention and of building its intervals, as data."""

from __future__ import annotations

from .gates import Target

__all__ = ["TARGETS"]


def _ratio(
    case: str, mode: str, peer: str, gate: float | None, stretch: float | None = None
) -> Target:
    who = {"best": "the best peer", "sdpa_cudnn": "cuDNN", "flash_attn_4": "flash-attn-4"}
    name = f"{case} {mode} against {who.get(peer, peer)}"
    return Target(name, "ratio", case, mode, gate, stretch, peer)


TARGETS: tuple[Target, ...] = (
    _ratio("P1", "fwd", "varlen", 1.5),
    _ratio("P1", "bwd", "varlen", 2.0),
    _ratio("P1", "fwd", "flex", 3.0),
    _ratio("P1", "bwd", "flex", 3.0),
    Target("P1 fwd, ms", "limit", "P1", "fwd", 0.16),
    Target("P1 bwd, ms", "limit", "P1", "bwd", 0.34),
    Target("P1 fwd, share of the copy rate", "copy share", "P1", "fwd", None, 0.75),
    Target("P1 bwd, share of the copy rate", "copy share", "P1", "bwd", None, 0.70),
    _ratio("BABY", "fwd+bwd", "best", 3.0, 6.0),
    _ratio("P2", "fwd+bwd", "varlen", 3.0, 5.0),
    Target("prefix-LM against causal, fwd", "per byte", "P1", "fwd", 1.10, 1.03, "P1-causal"),
    Target("prefix-LM against causal, bwd", "per byte", "P1", "bwd", 1.10, 1.03, "P1-causal"),
    _ratio("L64", "fwd", "sdpa_cudnn", 1.0),
    _ratio("L64", "bwd", "sdpa_cudnn", 0.7, 0.9),
    _ratio("L64", "fwd", "flash_attn_4", None, 0.95),
    Target("host cost of P1 fwd, µs", "limit", "P1", "fwd", 25.0, 12.0, metric="host"),
    Target("host cost of P1 bwd, µs", "limit", "P1", "bwd", 35.0, 12.0, metric="host"),
    Target("building the intervals of P1, ms", "limit", "P1", "build", 0.020, op="intervals"),
    Target("host cost of building them, µs", "limit", "P1", "build", 20.0, op="intervals",
           metric="host"),
)  # fmt: skip
