"""Some steps of ``configs/quickstart.yaml`` on the mixed corpus: that it trains is to be seen."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

__all__ = ["losses", "train", "training_words"]

ROOT = Path(__file__).resolve().parents[2]
STEPS = {"vision": 160, "language": 120, "connector": 30, "joint": 150}
"""Steps of each phase of the quickstart."""


def training_words(corpus: Path, run_dir: Path) -> list[str]:
    """The command line."""
    words = [
        "deepspeed", "--log_level", "error", "--num_gpus", "1", "engine/train.py", "--config",
        "configs/quickstart.yaml", "--resume", "auto", "--set", "name=demo", "--set",
        f"corpus={corpus}", "--set", f"run_dir={run_dir}", "--set", "log.every=5",
        # recordings are groups here: what shares a group need not be the same thing
        "--set", "phases.vision.positives=pair",
    ]  # fmt: skip
    for phase, steps in STEPS.items():
        words += ["--set", f"phases.{phase}.max_steps={steps}"]
    return words


def train(corpus: Path, run_dir: Path) -> None:
    """Train; a run that is complete does nothing, one that was killed goes on.

    Raises:
        ValueError: it failed, or the project's own folder is not here.
    """
    if not (ROOT / "configs" / "quickstart.yaml").is_file():
        raise ValueError(f"{ROOT}: no configs/quickstart.yaml; --train needs the repository")
    words = training_words(corpus.resolve(), run_dir.resolve())
    print(f"\ntraining: the mixed corpus, some steps\n$ {shlex.join(words)}", flush=True)
    launcher = Path(sys.executable).with_name("deepspeed")
    if not launcher.is_file():
        raise ValueError(f"{launcher}: no such program; is deepspeed installed?")
    ended = subprocess.run([str(launcher), *words[1:]], cwd=ROOT, env=dict(os.environ), check=False)
    if ended.returncode:
        raise ValueError(f"{run_dir}: training failed (exit status {ended.returncode})")


def losses(run_dir: Path, corpus: Path) -> dict[str, list[tuple[int, float]]]:
    """Phase -> (step, training loss) of every window of a run's log.

    Empty without a run, or where the run trained on another corpus than this folder.
    """
    file, settings = run_dir / "metrics.jsonl", run_dir / "config.yaml"
    if not settings.is_file():
        return {}
    theirs = yaml.safe_load(settings.read_text("utf-8"))["corpus"]
    if (ROOT / theirs).resolve() != corpus.resolve():
        return {}
    found: dict[str, list[tuple[int, float]]] = {}
    for line in file.read_text("utf-8").splitlines() if file.is_file() else ():
        row: dict[str, Any] = json.loads(line)
        if "loss" in row and "phase" in row:
            found.setdefault(str(row["phase"]), []).append((int(row["step"]), float(row["loss"])))
    return found
