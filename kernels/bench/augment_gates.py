"""The targets of the image op, as data."""

from __future__ import annotations

import torch

from . import augment_cases
from .cases import find_op, select_cases
from .gates import Target

__all__ = ["TARGETS"]

OP = augment_cases.OP


def _rate(case: str, stretch: float) -> Target:
    """The windows in and the result out at ``stretch`` TB/s, in ms (in bfloat16)."""
    (found,) = select_cases([OP], [case])
    bytes_ = find_op(OP).work(found.spec("full"), torch.bfloat16)["fwd"].bytes
    name = f"{case} fwd, ms ({stretch:g} TB/s)"
    return Target(name, "limit", case, "fwd", None, bytes_ / (stretch * 1e9), op=OP)


def _ratio(case: str, peer: str, gate: float, stretch: float | None = None) -> Target:
    who = {"best": "the best peer", "torch_compile": "torch.compile"}.get(peer, peer)
    return Target(f"{case} fwd against {who}", "ratio", case, "fwd", gate, stretch, peer, op=OP)


TARGETS: tuple[Target, ...] = (
    _ratio("AUG", "torchvision", 4.0),
    _ratio("AUG-patches", "torchvision", 4.0),
    _ratio("AUG-colours", "torchvision", 4.0),
    _ratio("AUG", "best", 1.0, 2.0),
    _ratio("AUG-bilinear", "best", 1.0, 2.0),
    _rate("AUG", 3.2),
    _rate("AUG-patches", 3.2),
    Target("host cost of AUG-64 fwd, µs", "limit", "AUG-64", "fwd", 60.0, 30.0, op=OP,
           metric="host"),
)  # fmt: skip
"""Those against torchvision and the rates are the project's; the others follow from its peers."""
