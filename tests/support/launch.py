"""Run the training command as a user does, in its own processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def command(config: Path, *args: str, ranks: int = 0) -> list[str]:
    """The command line: plain python for ``ranks`` 0, else the ``deepspeed`` launcher."""
    script = [str(ROOT / "engine" / "train.py"), "--config", str(config), *args]
    if ranks == 0:
        return [sys.executable, *script]
    launcher = Path(sys.executable).with_name("deepspeed")
    return [sys.executable, str(launcher), "--num_gpus", str(ranks), "--master_port",
            str(free_port()), *script]


def environment() -> dict[str, str]:
    """One thread per rank, and the virtual environment's programs first."""
    env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONUNBUFFERED="1")
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        env.pop(name, None)
    return env


def launch(config: Path, *args: str, ranks: int = 0, timeout: float = 240,
           ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Run to the end; with ``ok``, a non-zero exit fails the test with the run's output."""
    done = subprocess.run(
        command(config, *args, ranks=ranks), env=environment(), cwd=ROOT, timeout=timeout,
        capture_output=True, text=True,
    )
    if ok:
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def start(config: Path, *args: str, ranks: int = 0, log: Path) -> subprocess.Popen[bytes]:
    """Start in a process group of its own, output to ``log``."""
    stream = log.open("ab")
    return subprocess.Popen(
        command(config, *args, ranks=ranks), env=environment(), cwd=ROOT, stdout=stream,
        stderr=subprocess.STDOUT, start_new_session=True,
    )


def metrics(run_dir: Path, key: str = "loss") -> dict[int, float]:
    """``key`` by step from a run's metrics.jsonl."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


def weights(run_dir: Path) -> dict[str, bytes]:
    """The exported weight files of a run, by kind."""
    return {p.parts[-3]: p.read_bytes() for p in run_dir.glob("*/model/model.safetensors")}


def error_line(done: subprocess.CompletedProcess[Any]) -> str:
    """The one line that the user is told; fails unless there is exactly one and no traceback."""
    lines = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert len(lines) == 1, done.stderr[-3000:]
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    assert done.returncode != 0
    return lines[0]
