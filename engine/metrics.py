"""Where a run's numbers go: one line a window, ``metrics.jsonl``, TensorBoard, a progress bar."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from pydantic import Field
from tqdm import tqdm

from engine.files import write_atomically
from engine.schema import Section

log = logging.getLogger("babyvlm")


class LogConfig(Section):
    """What is reported, and how often."""

    every: int = Field(default=20, ge=1)
    """Steps in one log window; the device is read once per window."""

    tensorboard: bool = True
    """Also write TensorBoard events under ``run_dir/tensorboard``."""


class _ThroughTqdm(logging.Handler):
    """Log lines that do not tear the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stdout)
            sys.stdout.flush()
        except OSError:
            self.handleError(record)  # A closed pipe or a full disk must not end the training.


def set_up_logging(main: bool) -> None:
    """Print the engine's log on the main rank; other ranks only warn."""
    handler = _ThroughTqdm()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO if main else logging.WARNING)
    log.propagate = False


class Metrics:
    """Writer of one run's metrics (main rank only).

    Args:
        run_dir: the run's directory.
        resumed_step: lines beyond this step were written by a launch that was cut off after its
            last checkpoint; they are removed, since these steps will run again.
    """

    def __init__(self, run_dir: Path, config: LogConfig, resumed_step: int) -> None:
        self.path = run_dir / "metrics.jsonl"
        self._cut_back(resumed_step)
        self._file = self.path.open("a", buffering=1)
        self._board: Any = None
        if config.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=resumed_step + 1)

    def _cut_back(self, resumed_step: int) -> None:
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= resumed_step:
                    kept.append(line + "\n")
            except (json.JSONDecodeError, KeyError):
                continue  # The torn last line of a killed launch.
        write_atomically(self.path, "".join(kept))

    def write(self, step: int, phase: str, values: dict[str, Any]) -> None:
        """Record ``values`` of ``step`` in both files."""
        self._file.write(json.dumps({"step": step, "phase": phase, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{phase}/{name}", value, step)

    def close(self) -> None:
        """Flush everything."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def progress_bar(total: int, start: int, phase: str, main: bool) -> tqdm:
    """A bar with rate and ETA on a terminal; silent in files, where the log lines carry both."""
    return tqdm(
        total=total, initial=start, desc=phase, unit="step", dynamic_ncols=True,
        disable=not main or not sys.stdout.isatty(), file=sys.stdout, leave=False,
    )


def window_line(phase: str, step: int, total: int, values: dict[str, Any]) -> str:
    """One log line: what a person watches, in fixed order and width."""
    parts = [
        f"{phase:<10} {step:>6}/{total}", f"loss {values['loss']:.4f}", f"lr {values['lr']:.2e}",
        f"grad {values['grad_norm']:.2f}",
    ]
    if "images_per_s" in values:
        parts.append(f"{values['images_per_s']:,.0f} img/s")
    if "tokens_per_s" in values:
        parts.append(f"{values['tokens_per_s']:,.0f} tok/s")
    parts.append(f"wait {values['data_wait']:.0%}")
    if "mfu" in values:
        parts.append(f"mfu {values['mfu']:.1%}")
    parts.append(f"eta {_clock(values['eta_s'])}")
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
