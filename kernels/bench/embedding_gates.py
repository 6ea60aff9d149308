"""The targets of the embedding gradient, as data."""

from __future__ import annotations

from .embedding_cases import OP
from .gates import Target

__all__ = ["TARGETS"]


def _ratio(case: str, peer: str, gate: float | None, stretch: float | None = None) -> Target:
    who = {"best": "the best peer"}.get(peer, peer)
    return Target(f"{case} bwd against {who}", "ratio", case, "bwd", gate, stretch, peer, op=OP)


TARGETS: tuple[Target, ...] = (
    _ratio("EMB-768", "torch", 2.0, 4.0),
    _ratio("EMB-768-one", "torch", 2.0, 4.0),
    _ratio("EMB-768-tied", "torch", 2.0, 4.0),
    _ratio("EMB-768", "best", None, 1.0),
    _ratio("EMB-768-one", "best", None, 1.0),
    _ratio("EMB-256", "torch", 2.0, 4.0),
)
"""Twice torch is the project's; against the best, which may add up atomically, a wish."""
