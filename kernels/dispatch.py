"""Which implementation of an op runs: chosen here and nowhere else, and said once in the log.

Implementations register under the op's name, the preferred one first. `choose` takes the one that
`set_backend` named, else the first that supports the tensor. In strict mode an op whose preferred
implementation refuses is an error instead of the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["choose", "describe", "register", "set_backend", "set_strict"]

log = logging.getLogger("babyvlm")


@dataclass(frozen=True)
class _Implementation:
    name: str
    run: Callable[..., Any]
    refuses: Callable[[Tensor], str | None]


_registry: dict[str, list[_Implementation]] = {}
_forced: dict[str, str] = {}
_logged: set[tuple[str, str, str]] = set()
_strict = False


def register(
    op: str,
    name: str,
    run: Callable[..., Any],
    *,
    refuses: Callable[[Tensor], str | None] = lambda _: None,
    first: bool = False,
) -> None:
    """Add an implementation of ``op``.

    Args:
        op: the op's public name.
        name: the implementation's name, unique for the op.
        run: the function.
        refuses: given the op's first tensor, returns why this implementation cannot serve it, or
            None when it can.
        first: put it before those that are there.
    """
    entries = _registry.setdefault(op, [])
    assert all(entry.name != name for entry in entries), f"{op}/{name} registered twice"
    entries.insert(0 if first else len(entries), _Implementation(name, run, refuses))


def set_backend(op: str, name: str | None) -> None:
    """Make ``op`` always run ``name`` (None: choose again by device and dtype).

    Raises:
        ValueError: no such op or implementation.
    """
    if op not in _registry:
        raise ValueError(f"op: one of {', '.join(sorted(_registry))} expected, got {op!r}")
    names = [entry.name for entry in _registry[op]]
    if name is None:
        _forced.pop(op, None)
    elif name not in names:
        raise ValueError(f"{op}: implementation must be one of {', '.join(names)}, got {name!r}")
    else:
        _forced[op] = name


def set_strict(strict: bool) -> None:
    """Refuse (RuntimeError) instead of falling back when the preferred one cannot serve."""
    global _strict
    _strict = strict


def choose(op: str, tensor: Tensor) -> Callable[..., Any]:
    """Return the implementation of ``op`` for ``tensor``'s device, dtype and shape."""
    reasons: list[str] = []
    entries = _registry[op]
    forced = _forced.get(op)
    if forced is not None:
        entries = [entry for entry in entries if entry.name == forced]
    for entry in entries:
        why = entry.refuses(tensor)
        if why is None:
            _say(op, entry.name, tensor, reasons)
            return entry.run
        reasons.append(f"{entry.name}: {why}")
        if _strict or forced is not None:
            break
    raise RuntimeError(f"{op} on {tensor.device.type} {tensor.dtype}: {'; '.join(reasons)}")


def describe() -> dict[str, list[str]]:
    """Return the implementations of every op in order of preference; a forced one comes alone."""
    return {
        op: [_forced[op]] if op in _forced else [entry.name for entry in entries]
        for op, entries in sorted(_registry.items())
    }


def _say(op: str, name: str, tensor: Tensor, reasons: list[str]) -> None:
    where = f"{tensor.device.type} {str(tensor.dtype).removeprefix('torch.')}"
    if (op, name, where) in _logged:
        return
    _logged.add((op, name, where))
    log.info("%s on %s: %s%s", op, where, name, f" ({'; '.join(reasons)})" if reasons else "")
