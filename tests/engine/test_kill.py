"""Killed at random moments, also inside a save: survivors leave, resuming is bit for bit."""

from __future__ import annotations

import functools
import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest
from support.launch import launch, metrics, start, weights
from support.shapes import tiny_config, write_config, write_shapes

MOMENTS = int(os.environ.get("KILL_MOMENTS", "3"))
"""Random moments per test; ``make test-kill`` takes ten."""
GONE_S = float(os.environ.get("KILL_GONE_S", "30"))
"""Survivors are gone after so many seconds: 10 on a machine of one's own (``make test-kill``), more
where other tests run at the same time."""


def longer(run_dir, corpus):
    """Enough steps for a kill to hit one, and a save every other step."""
    tree = tiny_config(run_dir, corpus)
    for phase, epochs in zip(tree["phases"], (8, 10, 10, 14), strict=True):
        phase["epochs"] = epochs
    tree["checkpoints"] = {"every": 2, "keep_last": 2}
    return tree


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("corpus") / "shapes")


@pytest.fixture(scope="module")
def uninterrupted(corpus, tmp_path_factory):
    """Number of ranks to the directory of a run that nobody interrupted, each made once."""
    @functools.cache
    def run_dir(ranks: int) -> Path:
        root = tmp_path_factory.mktemp("reference")
        launch(write_config(root / "run.yaml", longer(root / "run", corpus)), ranks=ranks)
        return root / "run"
    return run_dir


@pytest.fixture(params=[1, 2], ids=["one rank", "two ranks"])
def reference(request, uninterrupted):
    """An uninterrupted run and its number of ranks."""
    return uninterrupted(request.param), request.param


def family(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def words(process: psutil.Process) -> list[str]:
    """The command line, empty when the process ends while it is asked."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # A zombie is one too.
        return []


def ranks_of(processes: list[psutil.Process]) -> list[psutil.Process]:
    """The training processes, without the launcher above and the loader's workers below them."""
    training = [p for p in processes if "--config" in words(p) and is_rank(p)]
    return [p for p in training if p.parent() not in training]


def is_rank(process: psutil.Process) -> bool:
    return not any("deepspeed" in word for word in words(process))


def newest_step(run_dir: Path) -> int:
    steps = [int(p.name[5:]) for p in (run_dir / "checkpoints").glob("step-*")]
    return max(steps, default=0)


def wait_for_save(run_dir, deadline):
    """Return when a checkpoint is being written."""
    while time.monotonic() < deadline:
        if list((run_dir / "checkpoints").glob(".tmp-*")):
            return
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_runs_resume_bit_for_bit(reference, corpus, tmp_path):
    done_dir, ranks = reference
    draw = random.Random(ranks)
    config = write_config(tmp_path / "run.yaml", longer(tmp_path / "run", corpus))
    run_dir = tmp_path / "run"
    total = max(metrics(done_dir))
    kills = 0
    for moment in range(MOMENTS):
        process = start(config, "--resume", "auto", ranks=ranks, log=tmp_path / "log")
        # Somewhere in the moment's share of the run; every other kill hits inside a save.
        target = int(total * (moment + draw.uniform(0.1, 0.8)) / MOMENTS)
        while newest_step(run_dir) < target and process.poll() is None:
            time.sleep(0.005)
        if moment % 2 == 0:
            wait_for_save(run_dir, time.monotonic() + 5)
        else:
            time.sleep(draw.uniform(0, 0.2))
        processes = family(process.pid) if process.poll() is None else []
        if not processes:
            break
        kills += 1
        if moment % 3 == 0:
            os.killpg(process.pid, signal.SIGKILL)
        victim = draw.choice(processes)
        if moment % 3 != 0 and victim.is_running():
            victim.kill()
        process.poll()
        killed = time.monotonic()
        while alive(processes[1:]) or process.poll() is None:
            assert time.monotonic() - killed < GONE_S, [words(p) for p in alive(processes)]
            time.sleep(0.05)
    assert kills >= MOMENTS - 1
    launch(config, "--resume", "auto", ranks=ranks)
    assert weights(run_dir) == weights(done_dir)
    assert metrics(run_dir) == metrics(done_dir)
    assert metrics(run_dir, "validation_loss") == metrics(done_dir, "validation_loss")
    assert not list(run_dir.rglob("*tmp*"))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["runner", "rank"])
def test_sigterm_saves_ends_and_leaves_no_orphan(reference, corpus, tmp_path, target):
    done_dir, ranks = reference
    config = write_config(tmp_path / "run.yaml", longer(tmp_path / "run", corpus))
    process = start(config, ranks=ranks, log=tmp_path / "log")
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    wait_for_save(tmp_path / "run", deadline)
    processes = family(process.pid)
    chosen = processes[0] if target == "runner" else ranks_of(processes)[-1]
    chosen.terminate()
    killed = time.monotonic()
    while alive(processes[1:]) or process.poll() is None:
        assert time.monotonic() - killed < GONE_S, (tmp_path / "log").read_text()[-2000:]
        time.sleep(0.05)
    launch(config, "--resume", "auto", ranks=ranks)
    assert weights(tmp_path / "run") == weights(done_dir)


@pytest.mark.slow
def test_a_time_budget_and_a_stop_file_end_a_run_that_can_go_on(uninterrupted, corpus, tmp_path):
    config = write_config(tmp_path / "run.yaml", longer(tmp_path / "run", corpus))
    first = launch(config, "--set", "stop.max_time_s=0.5")
    assert "the time budget of 0.5 s is spent" in first.stdout
    (tmp_path / "run" / "STOP").touch()
    second = launch(config, "--resume", "auto")
    assert "STOP exists" in second.stdout and not (tmp_path / "run" / "STOP").exists()
    launch(config, "--resume", "auto")
    assert weights(tmp_path / "run") == weights(uninterrupted(1))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["runner", "launcher"])
def test_ranks_whose_launcher_dies_while_they_start_leave(corpus, tmp_path, target):
    config = write_config(tmp_path / "run.yaml", longer(tmp_path / "run", corpus))
    process = start(config, ranks=2, log=tmp_path / "log")
    deadline = time.monotonic() + 60
    while len(ranks_of(processes := family(process.pid))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    inner = next(p for p in processes[1:] if not is_rank(p))
    (processes[0] if target == "runner" else inner).kill()
    killed = time.monotonic()
    while process.poll() is None or alive(processes[1:]):
        assert time.monotonic() - killed < GONE_S, [words(p) for p in alive(processes)]
        time.sleep(0.05)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
