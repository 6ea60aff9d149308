"""Who is measured: the implementations of an op, ours and others', behind one small interface.

A peer says whether it is there (`available`), whether it can do a case (`supports`), and makes a
`Run`: two functions that do nothing but the work, so that the time is the work's.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .cases import Inputs, find_op

__all__ = [
    "Peer",
    "Run",
    "anywhere",
    "grads_of",
    "installed",
    "needs_gpu",
    "needs_triton",
    "peers",
    "register_peer",
    "select_peers",
]


@dataclass(eq=False)
class Run:
    """One peer ready to work on one problem.

    ``forward()`` returns what ``backward(that)`` turns into gradients. ``collect(out, grads)``
    names them, in the layout of the op's own inputs, for the correctness gate; it is never timed.
    ``inputs`` is the problem that this peer really solves, ``computes`` says so where it is not
    the one that was asked for. ``build`` makes what must exist before (a block mask).
    ``around()`` is entered before a launch and outside of its time.
    """

    inputs: Inputs
    forward: Callable[[], Any]
    backward: Callable[[Any], Any] | None
    collect: Callable[[Any, Any], dict[str, Tensor]]
    computes: str = ""
    note: str = ""
    build: Callable[[], Any] | None = None
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """An implementation of an op.

    ``available(device)`` and ``supports(spec)`` return None, or why not in a few words.
    ``ours``: one of this package's. Where several are, the first registered is the headline.
    ``full_only``: compiles anew for every shape, so that only the timed problem is made of it.
    """

    op: str
    name: str
    doc: str
    available: Callable[[torch.device], str | None]
    make: Callable[[Any], Run]
    supports: Callable[[Any], str | None] = lambda _: None
    ours: bool = False
    full_only: bool = False


_peers: dict[tuple[str, str], Peer] = {}


def register_peer(peer: Peer) -> Peer:
    """Add a peer; its name must be new for its op."""
    assert (peer.op, peer.name) not in _peers, f"{peer.op}/{peer.name} registered twice"
    _peers[peer.op, peer.name] = peer
    return peer


def peers(op: str) -> list[Peer]:
    """Return the peers of an op, ours first, as registered."""
    found = [peer for (owner, _), peer in _peers.items() if owner == find_op(op).name]
    return sorted(found, key=lambda peer: not peer.ours)


def select_peers(text: str, ops: Sequence[str]) -> dict[str, list[Peer]]:
    """Read ``--peers``: names with commas between; ``all``; ``ours``; ``-name`` leaves one out.

    Args:
        text: such as ``all``, ``triton,varlen`` or ``all,-flex``.
        ops: the ops that are measured; a name must be a peer of one of them.

    Returns:
        For each op the peers that were asked for, whether they are available or not.

    Raises:
        ValueError: a name that no op has.
    """
    everyone = {op: peers(op) for op in ops}
    known = list(dict.fromkeys(peer.name for found in everyone.values() for peer in found))
    chosen: list[str] = []
    for word in (word.strip() for word in text.split(",")):
        name = word.removeprefix("-")
        if word == "all":
            chosen += known
        elif word == "ours":
            chosen += [p.name for found in everyone.values() for p in found if p.ours]
        elif name not in known:
            raise ValueError(
                f"--peers: all, ours or some of {', '.join(known)} expected, got {word!r}"
            )
        elif word.startswith("-"):
            chosen = [other for other in (chosen or known) if other != name]
        else:
            chosen.append(name)
    return {op: [peer for peer in found if peer.name in chosen] for op, found in everyone.items()}


def grads_of(inputs: Inputs) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return a backward that takes the gradients of every leaf of ``inputs``."""
    leaves, upstream = inputs.leaves, inputs.upstream

    def backward(out: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(out, leaves, upstream)

    return backward


# Where a peer is available ------------------------------------------------------------------------


def anywhere(_: torch.device) -> str | None:
    """Say that a peer runs on every device."""
    return None


def needs_gpu(device: torch.device) -> str | None:
    """Say that a peer runs on NVIDIA GPUs only."""
    return None if device.type == "cuda" else "needs an NVIDIA GPU"


def needs_triton(device: torch.device) -> str | None:
    """Say why Triton kernels do not run there, or None."""
    return None if os.environ.get("TRITON_INTERPRET") == "1" else needs_gpu(device)


def installed(package: str, device: torch.device, *, gpu: bool = True) -> str | None:
    """Say why a library cannot be measured, or None; with ``gpu`` it is one for GPUs."""
    if gpu and device.type != "cuda":
        return needs_gpu(device)
    try:
        importlib.import_module(package)
    except ImportError:
        return f"{package} is not installed"
    except Exception as error:  # a broken install raises anything
        return f"{package} does not import: {type(error).__name__}"
    return None
