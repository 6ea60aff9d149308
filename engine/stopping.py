"""Four ways to end a run early, one answer: finish the step, save, say how to go on.

A signal, a time budget, a stop file, and the death of the launcher (a rank must never train on
as an orphan).
"""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path
from types import FrameType

from pydantic import Field

from engine.schema import Section

log = logging.getLogger("babyvlm")

AGAIN_S = 3.0
"""Signals within so many seconds of the first are copies of it."""


class StopConfig(Section):
    """When a run ends before its last step. It can always be resumed."""

    max_time_s: float | None = Field(default=None, gt=0)
    """Wall-clock budget of one launch; the run then saves and ends."""

    check_every: int = Field(default=1, ge=1)
    """Steps between looks at the stop flag (ranks agree on it over gloo)."""


class Stop:
    """The stop flag of one process.

    ``kill -TERM``, Ctrl-C, ``touch RUN_DIR/STOP`` or the end of ``max_time_s`` set it.
    A second signal, seconds after the first, ends the process at once.
    """

    def __init__(self, config: StopConfig, run_dir: Path) -> None:
        self.reason: str | None = None
        self.file = run_dir / "STOP"
        self._started = time.monotonic()
        self._limit = config.max_time_s
        self._signalled_at: float | None = None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signalled_at is None:
            self._signalled_at = now
        # Ctrl-C reaches this process twice: from the terminal, and from its launcher. The same
        # holds for a signal to the process group. Only a later one is another decision.
        elif now - self._signalled_at > AGAIN_S and number != signal.SIGUSR2:
            os._exit(128 + number)
        self.request(signal.Signals(number).name)

    def request(self, reason: str) -> None:
        """Ask for the end after the current step."""
        if self.reason is None:
            self.reason = reason

    def wanted(self) -> bool:
        """True when this process wants to end."""
        if self._limit is not None and time.monotonic() - self._started > self._limit:
            self.request(f"the time budget of {self._limit:g} s is spent")
        elif self.file.exists():
            self.request(f"{self.file} exists")
        return self.reason is not None

    def forget_file(self) -> None:
        """Remove the stop file, so that the next launch runs."""
        self.file.unlink(missing_ok=True)
