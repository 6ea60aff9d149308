"""The sums behind one log line: loss, counts and time since the last one."""

from __future__ import annotations

import time
from typing import Any

import torch

from engine.checkpoints import Progress
from engine.feed import StepBatch
from engine.zero import World


class Window:
    """Sums over one log window. They travel in checkpoints, so that a resumed run reports what
    an uninterrupted one would have."""

    COUNTS: tuple[str, ...] = ("steps", "images", "tokens", "words", "targets", "squares")

    def __init__(self, progress: Progress, world: World) -> None:
        self.world = world
        self._base = dict(progress.window)
        self._loss = torch.zeros((), device=world.device, dtype=torch.float64)
        self._counts = dict.fromkeys(self.COUNTS, 0)
        self._began, self._waited = time.perf_counter(), 0.0
        self._timed_steps = 0

    def add(self, loss: torch.Tensor, batch: StepBatch) -> None:
        """Count one step; ``loss`` stays on the device."""
        self._loss += loss
        for name, value in zip(self.COUNTS, (
            1, batch.num_images, batch.num_tokens, batch.num_words, batch.num_targets,
            batch.squares,
        ), strict=True):
            self._counts[name] += value
        self._timed_steps += 1

    def sums(self) -> dict[str, float]:
        """The open window, over all ranks."""
        loss = float(self.world.sum(self._loss.reshape(1))[0])
        sums: dict[str, float] = {"loss": self._base.get("loss", 0.0) + loss}
        for name, value in self._counts.items():
            sums[name] = self._base.get(name, 0) + value
        return sums if sums["steps"] else {}

    def close(self, waited_s: float) -> dict[str, Any]:
        """The window's averages and rates; a new window opens."""
        sums = self.sums()
        seconds = time.perf_counter() - self._began
        values: dict[str, Any] = {"loss": sums["loss"] / sums["steps"]}
        values["data_wait"] = min(1.0, (waited_s - self._waited) / seconds)
        values["step_s"] = seconds / max(1, self._timed_steps)
        values["seconds"] = seconds
        for name, unit in (("images", "images_per_s"), ("tokens", "tokens_per_s")):
            if self._counts[name]:
                values[unit] = self._counts[name] / seconds
        values |= {name: int(self._counts[name]) for name in self.COUNTS}
        self._base = {}
        self._loss.zero_()
        self._counts = dict.fromkeys(self.COUNTS, 0)
        self._began, self._waited, self._timed_steps = time.perf_counter(), waited_s, 0
        return values
