"""What keeps a run directory whole: one run at a time, no orphaned rank, no full disk."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import threading
import time
from pathlib import Path
from typing import IO

import psutil

from engine.launcher import POLL_S, alive, hand_over, leave
from engine.stopping import Stop
from engine.zero import World

log = logging.getLogger("babyvlm")

LOCK = ".lock"
"""Name of the lock file in a run directory."""

GRACE_S = 7.0
"""After the launcher died: time to finish the step and save; then the process leaves."""


class RunLock:
    """An advisory lock on ``run_dir``; the kernel drops it when the process ends, however."""

    def __init__(self, run_dir: Path, wait_s: float = 12.0) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = (run_dir / LOCK).open("a+")
        # Ranks of a killed launch may need seconds to notice; a live run never lets go.
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self._file.seek(0)
                    owner = self._file.read().strip() or "unknown"
                    raise ValueError(
                        f"{run_dir}: another run (process {owner}) is writing here; "
                        "stop it or choose another run_dir"
                    ) from None
                time.sleep(0.25)
        self._file.seek(0)
        self._file.truncate()
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Let the next run in."""
        self._file.close()


class Watch:
    """A thread that ends this rank when its launcher or a peer on this machine is gone.

    DeepSpeed leaves ranks running when its outer process is terminated, and a rank whose peer
    was killed waits for it until a time-out of many minutes.
    """

    def __init__(self, world: World, stop: Stop) -> None:
        self._stop = stop
        self._launched = hand_over()
        host = os.uname().nodename
        peers = world.gather((host, os.getpid()))
        self._peers: list[tuple[int, psutil.Process]] = []
        for rank, (name, pid) in enumerate(peers):
            if name == host and rank != world.rank:
                try:
                    self._peers.append((rank, psutil.Process(pid)))
                except psutil.Error:
                    leave(f"rank {rank} ended during the start")
        self._done = threading.Event()
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def close(self) -> None:
        """Stop watching: peers may end from now on."""
        self._done.set()

    def main_is_alive(self, after_s: float) -> bool:
        """Whether the main rank still runs ``after_s`` seconds from now (on another machine:
        taken for granted)."""
        time.sleep(after_s)
        return all(alive(process) for rank, process in self._peers if rank == 0)

    def _run(self) -> None:
        orphaned_at: float | None = None
        while not self._done.wait(POLL_S):
            for rank, process in self._peers:
                # A peer that ends in order has told everybody first (close() after a barrier).
                if not alive(process) and not self._done.wait(POLL_S):
                    leave(f"rank {rank} (process {process.pid}) died")
            if orphaned_at is None and not self._launched():
                orphaned_at = time.monotonic()
                self._stop.request("the launcher died")
            if orphaned_at is not None and time.monotonic() - orphaned_at > GRACE_S:
                leave("the launcher died and the step did not end in time")


def require_space(directory: Path, needed: int, what: str) -> None:
    """Raise ``ValueError`` unless ``needed`` bytes are free where ``directory`` will be."""
    existing = directory
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise ValueError(
            f"{directory}: no space left for {what}: {gigabytes(needed)} needed, "
            f"{gigabytes(free)} free"
        )


def gigabytes(num_bytes: float) -> str:
    """``13.4 GB``, ``2.1 MB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes:.0f} B"
