"""The life of a run directory: lock, start or resume, phases in order, exports, a clean end."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from pathlib import Path

from engine import zero
from engine.assemble import Assembly, assemble, kind_of, model_dir
from engine.checkpoints import Checkpoints, Progress
from engine.config import RunConfig, differences, parse_config, to_yaml
from engine.files import recover_directory, write_atomically
from engine.flops import count_parameters
from engine.guard import RunLock, Watch
from engine.loop import PhaseRun, Stopped
from engine.memory import keep_freed_memory
from engine.metrics import Metrics
from engine.phases import PhaseConfig
from engine.plain_yaml import parse_yaml
from engine.stopping import Stop
from kernels.dispatch import set_backend, set_strict

log = logging.getLogger("babyvlm")


def run(config: RunConfig, *, only: str | None, resume: bool) -> int:
    """Run all phases of ``config`` (or ``only`` one); returns the exit code."""
    run_dir = Path(config.run_dir)
    world = zero.start(config.zero.timeout_s)
    if world.device.type == "cpu":
        keep_freed_memory()
    lock = None
    try:
        # Errors of the main rank reach all ranks, so that nobody waits for a rank that left.
        problem = ""
        if world.main:
            try:
                lock = RunLock(run_dir)
                _open_run(run_dir, config, resume)
            except (ValueError, OSError) as error:
                problem = str(error)
        problem = world.gather(problem)[0]
        if problem:
            raise ValueError(problem)
        stop = Stop(config.stop, run_dir)
        watch = Watch(world, stop)
        try:
            try:
                _phases(config, run_dir, world, stop, only)
            except Stopped as reason:
                log.info("stopped: %s. Saved; the same command with --resume auto goes on.", reason)
            # The main rank may still be deleting an old checkpoint: nobody leaves before it. A peer
            # that has passed the barrier may close its end before gloo reports ours as passed.
            with contextlib.suppress(RuntimeError):
                world.barrier()
            return 0
        except (ValueError, OSError) as error:
            # A peer may be waiting in a collective that this rank will never join.
            if world.size > 1:
                watch.close()
                # The same error on every rank is told once, by the main one.
                if world.main or watch.main_is_alive(after_s=1.5):
                    print(f"error: {error}", file=sys.stderr)
                    sys.stderr.flush()
                os._exit(2)
            raise
        finally:
            stop.forget_file()
            watch.close()
    finally:
        if lock is not None:
            lock.release()
        zero.stop()


def _open_run(run_dir: Path, config: RunConfig, resume: bool) -> None:
    """Write ``config.yaml``, or compare with the one that is there.

    A run that failed before it saved anything leaves nothing to lose, and is started anew.
    """
    path = run_dir / "config.yaml"
    saved = any((run_dir / "checkpoints").glob("step-*")) or (run_dir / "phases").exists()
    if path.exists() and saved:
        if not resume:
            raise ValueError(
                f"{run_dir}: holds a run already; accepted: --resume auto to go on, --overwrite "
                "to start anew, or another run_dir"
            )
        old = parse_config(parse_yaml(path.read_text()), where=str(path))
        changed = differences(old, config)
        if changed:
            raise ValueError(
                f"{run_dir}: the run was started with other settings of {', '.join(changed[:5])}"
                f"{' ...' if len(changed) > 5 else ''}; use the same ones, or another run_dir"
            )
    write_atomically(path, to_yaml(config))
    for kind in ("contrastive", "generative"):
        recover_directory(model_dir(run_dir, kind))


def _phases(config: RunConfig, run_dir: Path, world: zero.World, stop: Stop,
            only: str | None) -> None:
    began = time.monotonic()
    for op, name in config.kernels.items():
        set_backend(op, None if name == "auto" else name)
    set_strict(config.strict_kernels)
    assembly = assemble(config)
    checkpoints = Checkpoints(run_dir, config.checkpoints, world, assembly.digest)
    newest = checkpoints.newest()
    progress = newest[1] if newest else None
    log.info("run %s: %d rank(s) on %s, ZeRO stage %d, corpus %s", config.name, world.size,
             world.device.type, config.zero.stage, config.corpus)
    metrics = None
    if world.main:
        # A phase that ran out of patience ends without a checkpoint: its last steps stay.
        steps = [p.step for p in (progress, *(_done(run_dir, p) for p in config.phases)) if p]
        metrics = Metrics(run_dir, config.log, max(steps, default=0))
    try:
        for phase in config.phases:
            if only is not None and phase.name != only:
                continue
            done = _done(run_dir, phase)
            if done is not None:
                log.info("%s: done", phase.name)
                progress = _later(progress, done)
                continue
            if phase.skip_with_weights and config.model.vision.weights:
                log.info("%s: skipped, the tower comes from %s", phase.name,
                         config.model.vision.weights)
                continue
            progress = _one_phase(assembly, phase, run_dir, world, checkpoints, stop, progress,
                                  metrics)
            # Not another phase, whose start may take long, for a run that was asked to end.
            if phase is not config.phases[-1] and world.any(stop.wanted()):
                raise Stopped(stop.reason or "another rank was asked to stop")
    finally:
        if metrics is not None:
            metrics.close()
    log.info("run %s complete in %.0f s; models:", config.name, time.monotonic() - began)
    for kind in dict.fromkeys(kind_of(p) for p in config.phases):
        if model_dir(run_dir, kind).exists():
            log.info("  %s", model_dir(run_dir, kind))


def _one_phase(assembly: Assembly, phase: PhaseConfig, run_dir: Path, world: zero.World,
               checkpoints: Checkpoints, stop: Stop, before: Progress | None,
               metrics: Metrics | None) -> Progress:
    """Build, resume or start, train, export one phase."""
    resumed = None
    if before is not None and before.phase == phase.name:
        resumed, progress = checkpoints.path(before.step), before
        if progress.world_size != world.size:
            raise ValueError(
                f"{resumed}: written by {progress.world_size} rank(s), this launch has "
                f"{world.size}; resume with --num_gpus {progress.world_size}"
            )
    else:
        progress = Progress(
            phase.name, before.step if before else 0, 0, world.size, kind_of(phase),
            words_seen=before.words_seen if before else 0,
            pairs_seen=before.pairs_seen if before else 0,
            validation=dict(before.validation) if before else {},
        )
    current = PhaseRun(assembly, phase, run_dir, world, checkpoints, stop)
    counts = ", ".join(
        f"{name} {count_parameters(part):,}"
        f"{'' if name in phase.train else ' (frozen)'}"
        for name, part in current.parts.items()
        if phase.objective != "language" or name == "decoder"
    )
    log.info("%s: %d steps, %d epoch(s); parameters: %s", phase.name, current.plan.num_steps,
             phase.epochs, counts)
    if resumed is not None:
        log.info("%s: resumed at step %d of %d (%s)", phase.name, progress.phase_step,
                 current.plan.num_steps, resumed)
    try:
        progress = current.train(progress, resumed, metrics)
        current.finish(progress)
    finally:
        current.close()
    return progress


def _done(run_dir: Path, phase: PhaseConfig) -> Progress | None:
    path = run_dir / "phases" / f"{phase.name}.json"
    return Progress(**json.loads(path.read_text())) if path.exists() else None


def _later(a: Progress | None, b: Progress) -> Progress:
    return b if a is None or b.step >= a.step else a
