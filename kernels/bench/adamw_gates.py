"""The targets of AdamW, as data."""

from __future__ import annotations

from .adamw_cases import OP
from .gates import Target

__all__ = ["TARGETS"]


def _limit(case: str, gate: float, stretch: float | None = None) -> Target:
    return Target(f"{case}, ms", "limit", case, "fwd", gate, stretch, op=OP)


def _ratio(case: str, peer: str, gate: float | None, stretch: float | None = None) -> Target:
    who = {"best": "the best peer"}.get(peer, peer)
    return Target(f"{case} against {who}", "ratio", case, "fwd", gate, stretch, peer, op=OP)


TARGETS: tuple[Target, ...] = (
    _limit("ADAMW-124M", 1.0, 0.87),
    _limit("ADAMW-124M-clip", 1.15, 1.0),
    _ratio("ADAMW-124M", "torch_fused", 1.0),
    _ratio("ADAMW-124M-clip", "best", 1.0),
    _ratio("ADAMW-124M-bf16", "best", 1.0),
    _ratio("ADAMW-124M-bf16-clip", "best", 1.0),
    Target("host cost of a step, µs", "limit", "ADAMW-124M", "fwd", 50.0, 25.0, op=OP,
           metric="host"),
)  # fmt: skip
"""Times and the host's are the project's; the rest says that nobody is faster."""
