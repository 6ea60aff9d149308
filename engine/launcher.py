"""Who launched this rank, and its end when the launcher is gone: watched before torch is imported.

Importing torch and DeepSpeed takes many seconds on a slow machine. A launcher that dies meanwhile
must not leave ranks behind that start to train with nobody to stop them.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import psutil

POLL_S = 0.5
_NAMES = ("deepspeed", "torchrun", "torch.distributed")
_MARKS = ("CROSS_RANK", "TORCHELASTIC_RUN_ID")
"""Set by DeepSpeed's and torch's launchers alone: without one of them above us, it has died."""

_INNER = "deepspeed.launcher.launch"
"""DeepSpeed's outer process starts this one, which starts the ranks."""

_chain: list[psutil.Process] = []
_above: int | None = None
"""Who started the inner launcher, where that one ends the chain: an outer one that we could not
recognise any more (its command line is gone before it is), or a remote shell."""
_handed_over = threading.Event()


def alive(process: psutil.Process) -> bool:
    """True while ``process`` (not another one with its number) runs."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def leave(why: str) -> None:
    """End this process now, without clean-up that could wait for a dead peer."""
    print(f"stopped: {why}; this rank leaves, go on with --resume auto", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)


def watch_start() -> None:
    """Watch the launchers until :func:`hand_over`; a no-op for a process that has none."""
    global _above
    if "LOCAL_RANK" not in os.environ:
        return
    _chain[:] = _launchers()
    _above = _parent(_chain[-1]) if _chain and _is_inner(_chain[-1]) else None
    if _orphaned():
        leave("the launcher died during the start")
    threading.Thread(target=_run, name="launcher", daemon=True).start()


def hand_over() -> Callable[[], bool]:
    """Ends the watch of the start. Returns what tells whether the launchers found then still run;
    whoever calls this asks from now on."""
    _handed_over.set()
    return launched


def launched() -> bool:
    """True while every launcher above this rank runs; also for a rank that never had one."""
    if not all(alive(process) for process in _chain):
        return False
    return _above is None or _parent(_chain[-1]) == _above


def _run() -> None:
    while not _handed_over.wait(POLL_S):
        if not launched():
            leave("the launcher died during the start")


def _parent(process: psutil.Process) -> int | None:
    """Number of the parent; None when ``process`` is gone."""
    try:
        return process.ppid()
    except psutil.Error:
        return None


def _is_inner(process: psutil.Process) -> bool:
    try:
        return _INNER in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _launchers() -> list[psutil.Process]:
    """The chain of ``deepspeed`` (or torchrun) processes above this rank, nearest first."""
    chain: list[psutil.Process] = []
    for parent in psutil.Process().parents():
        try:
            command = " ".join(parent.cmdline())
        except psutil.Error:
            break
        if not any(name in command for name in _NAMES):
            break
        if "python" not in command and not command.startswith("deepspeed"):
            break  # A shell whose command line merely mentions the launcher.
        chain.append(parent)
    return chain


def _orphaned() -> bool:
    """True when a launcher had died before this process looked for it."""
    if not _chain:
        return any(mark in os.environ for mark in _MARKS)
    if _above is None:
        return False
    # When the outer launcher died, the inner one was handed to init.
    try:
        return _above == 1 or psutil.Process(_above).name() == "systemd"
    except psutil.Error:
        return True
