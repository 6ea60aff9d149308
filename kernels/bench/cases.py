"""What is measured: ops, their cases, and what any implementation of a case has to do.

An `Op` says how a problem is built, how its truth is computed and how much work it is; a `Case`
is one problem of it. A later op registers itself, its cases and its peers in a module of its own,
which `kernels.bench.load_ops` names; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = [
    "MODES",
    "Case",
    "Inputs",
    "Op",
    "Part",
    "Scale",
    "Work",
    "cases",
    "find_op",
    "ops",
    "register_case",
    "register_op",
    "select_cases",
]

MODES = ("fwd", "bwd", "fwd+bwd", "build")
"""Forward alone, backward alone, both together; and what must be built before (mask, metadata)."""

Scale = Literal["full", "small", "smoke"]
"""``small``: the same kind of problem with a few documents, for gates and host cost. ``smoke``:
tiny, for a CPU."""


@dataclass(frozen=True)
class Work:
    """What no implementation can avoid: each tensor moved once, the useful operations done."""

    bytes: int
    flops: int


@dataclass(eq=False)
class Inputs:
    """One problem on one device; ops subclass it to add what is theirs.

    ``spec`` is the hashable description it was built from, ``tensors`` the leaves that require a
    gradient, ``upstream`` the gradient of the output (None where there is no backward).
    """

    spec: Any
    tensors: dict[str, Tensor]
    upstream: Tensor | None

    @property
    def leaves(self) -> list[Tensor]:
        """The tensors that gradients are taken of, in the order of their names."""
        return list(self.tensors.values())


@dataclass(frozen=True)
class Part:
    """A piece of a problem whose truth can be computed by itself, such as one document.

    ``truth(dtype)`` computes named outputs and gradients from the inputs cast to ``dtype``;
    ``pick(name, tensor)`` takes the same piece out of what an implementation returned.
    """

    name: str
    truth: Callable[[torch.dtype], dict[str, Tensor]]
    pick: Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class Op:
    """An op that is measured.

    ``build(spec, device, dtype, seed)`` makes the inputs from random-normal data.
    ``parts(inputs, everything)`` cuts the problem into pieces with a truth: all of it, or a spot
    check. ``work(spec, dtype)`` counts what each mode must do.
    """

    name: str
    doc: str
    modes: tuple[str, ...]
    build: Callable[[Any, torch.device, torch.dtype, int], Inputs]
    parts: Callable[[Any, bool], Sequence[Part]]
    work: Callable[[Any, torch.dtype], dict[str, Work]]


@dataclass(frozen=True)
class Case:
    """One problem of an op; ``spec(scale)`` describes it."""

    op: str
    name: str
    doc: str
    spec: Callable[[Scale], Any]

    def inputs(
        self, device: torch.device, dtype: torch.dtype, seed: int = 0, scale: Scale = "full"
    ) -> Inputs:
        """Build the problem on ``device``."""
        return find_op(self.op).build(self.spec(scale), device, dtype, seed)


_ops: dict[str, Op] = {}
_cases: dict[tuple[str, str], Case] = {}


def register_op(op: Op) -> Op:
    """Add an op; its name must be new."""
    assert op.name not in _ops, f"{op.name} registered twice"
    assert set(op.modes) <= set(MODES), op.modes
    _ops[op.name] = op
    return op


def register_case(case: Case) -> Case:
    """Add a case; its name must be new for its op."""
    assert (case.op, case.name) not in _cases, f"{case.op}/{case.name} registered twice"
    _cases[case.op, case.name] = case
    return case


def ops() -> list[Op]:
    """Return every op, as registered."""
    return list(_ops.values())


def find_op(name: str) -> Op:
    """Return an op by name.

    Raises:
        ValueError: no such op.
    """
    if name not in _ops:
        raise ValueError(f"--op: one of {', '.join(_ops)} expected, got {name!r}")
    return _ops[name]


def cases(op: str) -> list[Case]:
    """Return the cases of an op, in the order in which they are measured."""
    return [case for (owner, _), case in _cases.items() if owner == find_op(op).name]


def select_cases(ops: Sequence[str] | None, names: Sequence[str] | None) -> list[Case]:
    """Return the cases of the named ops (None: all) that have one of the names (None: any).

    Raises:
        ValueError: an op or case that does not exist.
    """
    found = [case for op in (ops or list(_ops)) for case in cases(op)]
    if names is None:
        return found
    known = list(dict.fromkeys(case.name for case in found))
    for name in names:
        if name not in known:
            raise ValueError(f"--case: one of {', '.join(known)} expected, got {name!r}")
    return [case for case in found if case.name in names]
