"""Who launched this rank, and its end when the launcher is gone: watched before torch is imported.

Importing torch and DeepSpeed takes many seconds on a slow machine. A launcher that dies meanwhile
must not leave ranks behind that start to train with nobody to stop them.
"""

from __future__ import annotations

import os
import sys
import threading

import psutil

POLL_S = 0.5
_NAMES = ("deepspeed", "torchrun", "torch.distributed")
_MARKS = ("CROSS_RANK", "TORCHELASTIC_RUN_ID")
"""Set by DeepSpeed's and torch's launchers alone: without one of them above us, it has died."""

_chain: list[psutil.Process] = []
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
    if "LOCAL_RANK" not in os.environ:
        return
    _chain[:] = _launchers()
    if _orphaned():
        leave("the launcher died during the start")
    threading.Thread(target=_run, name="launcher", daemon=True).start()


def hand_over() -> list[psutil.Process]:
    """The launchers found at the start, nearest first; whoever calls it watches them from now."""
    _handed_over.set()
    return list(_chain)


def _run() -> None:
    while not _handed_over.wait(POLL_S):
        if not all(alive(process) for process in _chain):
            leave("the launcher died during the start")


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
    # DeepSpeed's outer process starts an inner one, which starts the ranks. When the outer one
    # died, the inner one was handed to init.
    try:
        above = _chain[-1].parent()
        inner = "deepspeed.launcher.launch" in " ".join(_chain[-1].cmdline())
        return inner and above is not None and (above.pid == 1 or above.name() == "systemd")
    except psutil.Error:
        return True
