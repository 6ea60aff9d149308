"""Which implementation of an op runs: chosen here and nowhere else, and said once in the log.

Implementations register under the op's name, the preferred one first. `choose` takes the one that
`set_backend` named, else the first that serves the call among those meant for the first tensor's
device; those that are opt-in run only when named. In strict mode an op whose preferred
implementation refuses is an error instead of the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["choose", "describe", "register", "set_backend", "set_strict"]

log = logging.getLogger("babyvlm")


@dataclass(frozen=True)
class _Implementation:
    name: str
    run: Callable[..., Any]
    refuses: Callable[..., str | None]
    devices: tuple[str, ...] | None
    opt_in: bool

    def is_candidate(self, device: torch.device) -> bool:
        """Whether it is in the running on ``device`` when nobody named it."""
        return not self.opt_in and (self.devices is None or device.type in self.devices)


_registry: dict[str, list[_Implementation]] = {}
_forced: dict[str, str] = {}
_logged: set[tuple[str, str, str, torch.dtype]] = set()
_strict = False


def register(
    op: str,
    name: str,
    run: Callable[..., Any],
    *,
    refuses: Callable[..., str | None] = lambda *_, **__: None,
    devices: tuple[str, ...] | None = None,
    opt_in: bool = False,
    first: bool = False,
) -> None:
    """Add an implementation of ``op``.

    Args:
        op: the op's public name.
        name: the implementation's name, unique for the op.
        run: the function.
        refuses: given what `choose` is given, returns why this implementation cannot serve the
            call, or None when it can.
        devices: device types on which it is in the running (None: all). Elsewhere it runs only
            when `set_backend` names it, and passing it over is no falling back.
        opt_in: it is in the running nowhere, and runs only when named.
        first: put it before those that are there.
    """
    entries = _registry.setdefault(op, [])
    assert all(entry.name != name for entry in entries), f"{op}/{name} registered twice"
    entry = _Implementation(name, run, refuses, devices, opt_in)
    entries.insert(0 if first else len(entries), entry)


def set_backend(op: str, name: str | None) -> None:
    """Make ``op`` always run ``name``, opt-in or not (None: choose again by the call).

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


def choose(op: str, tensor: Tensor, *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """Return the implementation of ``op`` for a call.

    Args:
        op: the op's public name.
        tensor: the call's first argument, whose device and dtype are said in the log.
        args: the other ones, as far as an implementation may refuse them.
        kwargs: likewise.

    Raises:
        RuntimeError: none serves the call (in strict mode: the preferred one does not), with every
            reason.
    """
    forced = _forced.get(op)
    if forced is None:
        entries = [entry for entry in _registry[op] if entry.is_candidate(tensor.device)]
    else:
        entries = [entry for entry in _registry[op] if entry.name == forced]
    reasons: list[str] = []
    for entry in entries:
        why = entry.refuses(tensor, *args, **kwargs)
        if why is None:
            _say(op, entry.name, tensor, reasons)
            return entry.run
        reasons.append(f"{entry.name}: {why}")
        if _strict:
            break
    raise RuntimeError(f"{op} on {_where(tensor)}: {'; '.join(reasons) or 'no implementation'}")


def describe() -> dict[str, list[str]]:
    """Return the implementations of every op in order of preference.

    Those that run only when named follow, marked; one that was named comes alone.
    """

    def names(entries: list[_Implementation]) -> list[str]:
        ordered = sorted(entries, key=lambda entry: entry.opt_in)
        return [f"{entry.name} (on request)" if entry.opt_in else entry.name for entry in ordered]

    return {
        op: [_forced[op]] if op in _forced else names(entries)
        for op, entries in sorted(_registry.items())
    }


def _where(tensor: Tensor) -> str:
    return f"{tensor.device.type} {str(tensor.dtype).removeprefix('torch.')}"


def _say(op: str, name: str, tensor: Tensor, reasons: list[str]) -> None:
    if torch.compiler.is_compiling():  # Eager code logs; traced code must not.
        return
    key = (op, name, tensor.device.type, tensor.dtype)
    if key in _logged:
        return
    _logged.add(key)
    passed_over = f" ({'; '.join(reasons)})" if reasons else ""
    log.info("%s on %s: %s%s", op, _where(tensor), name, passed_over)
