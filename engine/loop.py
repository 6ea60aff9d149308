"""A run, top to bottom: phases in order, each a plain loop of forward, backward, step, report."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from engine import flops
from engine.assemble import TRAIN, VAL, Assembly, Kind, kind_of, model_dir
from engine.checkpoints import Checkpoints, Progress
from engine.features import Views, open_stores
from engine.feed import Feed, Micro, StepBatch, step_seed
from engine.files import write_atomically
from engine.guard import require_space
from engine.images import ImageStream, open_images
from engine.metrics import Metrics, progress_bar, window_line
from engine.optim import learning_rate, parameter_groups
from engine.phases import PhaseConfig
from engine.stopping import Stop
from engine.validate import validation_loss
from engine.weights import export_phase, load_earlier
from engine.window import Window
from engine.zero import World, Zero, resolve_precision

log = logging.getLogger("babyvlm")


class Stopped(Exception):
    """The run was asked to end and has saved."""


def forward(zero: Zero, micro: Micro, num_targets: int) -> torch.Tensor:
    """This rank's part of the step's mean loss; the parts of all ranks add up to it."""
    if micro.row is not None:
        return zero(micro.row, images=micro.images, features=micro.features,
                    scale=1.0 / max(1, num_targets))
    group = "world" if zero.world.size > 1 else None
    return zero(micro.tokens, micro.offsets, images=micro.images, features=micro.features,
                labels=micro.labels, group=group)


class PhaseRun:
    """One phase of a run on this rank."""

    def __init__(self, assembly: Assembly, phase: PhaseConfig, run_dir: Path, world: World,
                 checkpoints: Checkpoints, stop: Stop) -> None:
        self.assembly, self.phase, self.run_dir = assembly, phase, run_dir
        self.world, self.checkpoints, self.stop = world, checkpoints, stop
        self.config = assembly.config
        self.kind: Kind = kind_of(phase)
        self._streams: dict[str, ImageStream] = {}

        self.model: Any = assembly.build(self.kind)
        self.parts: dict[str, Any] = self.model.parts()
        load_earlier(self.parts, assembly, phase, run_dir)
        self._freeze()
        self.tower = self.parts["vision"]
        dtype = self._precision()
        self.frozen_states = self._frozen_states() if dtype != torch.float32 else {}
        self.model.to(world.device, dtype)
        self.plan = assembly.plan(phase, self.tower)
        stores = self._features()
        self.maker = self._maker(TRAIN, self.plan, stores)
        self.val_maker = None
        wants_val = phase.keep == "best" or phase.patience or phase.optim.schedule == "plateau"
        if wants_val and VAL not in assembly.splits:
            raise ValueError(
                f"phases.{phase.name}: keep=best, patience and schedule=plateau need a validation "
                f"loss, but {assembly.corpus.path} has no split '{VAL}'"
            )
        if VAL in assembly.splits and len(assembly.corpus.pairs(VAL).id) >= 2:
            self.val_maker = self._maker(VAL, assembly.plan(phase, self.tower, VAL), stores)
        self._peak = flops.peak_flops(world.device) if dtype == torch.bfloat16 else None
        self._image_flops = 0.0
        if self._peak is not None and self._streams:
            # Before ZeRO-3 takes the weights apart.
            self._image_flops = flops.tower_flops(self.tower, self.config.model.image_size)
        self.zero = Zero(
            self.model, parameter_groups(self.parts, phase.train, phase.optim),
            config=self.config.zero, optim=phase.optim, accumulate=phase.accumulate,
            world=world, dtype=dtype,
        )

    def _freeze(self) -> None:
        for name, part in self.parts.items():
            trained = name in self.phase.train
            part.requires_grad_(trained)
            if name == "vision" and not trained:
                part.freeze()

    def _precision(self) -> torch.dtype:
        """Dtype of the weights in this phase."""
        dtype = resolve_precision(self.config.zero, self.world.device)
        moving = "vision" in self.phase.train or not self.config.model.vision.batchnorm_eval
        if dtype != torch.float32 and moving and self.tower.uses_batchnorm:
            # A running mean in bf16 stands still: a tenth of a small change is rounded away.
            log.info("%s: fp32, since BatchNorm's running statistics move", self.phase.name)
            return torch.float32
        return dtype

    def _frozen_states(self) -> dict[str, dict[str, torch.Tensor]]:
        """The fp32 weights of parts that only compute in bf16; exports hand these on."""
        return {
            name: {key: value.clone() for key, value in part.state_dict().items()}
            for name, part in self.parts.items() if name not in self.phase.train
        }

    def _reads_pictures(self) -> bool:
        return self.phase.objective != "language"

    def _features(self) -> dict[str, Any]:
        """The feature stores of this phase; empty when its tower has to run in every step."""
        settings, augment = self.config.features, self.phase.augment
        several = augment.enabled and settings.views > 1
        fixed = "vision" not in self.phase.train and (several or not augment.enabled)
        # Batch statistics (a published quirk) give a picture other features in every step.
        fixed = fixed and self.config.model.vision.batchnorm_eval
        if not self._reads_pictures() or not fixed or settings.store == "off":
            return {}
        splits = dict.fromkeys(self.assembly.splits, Views())
        if several:
            # One seed for all phases: the connector and joint phases share their views.
            splits[TRAIN] = Views(settings.views, augment, self.config.seed)
        directory = Path(settings.path) if settings.path else self.run_dir / "features"
        return open_stores(
            self.assembly.corpus, splits, self.tower, config=settings,
            data=self.config.data, image_size=self.config.model.image_size,
            directory=directory, world=self.world,
        )

    def _maker(self, split: str, plan: Any, stores: dict[str, Any]) -> Any:
        if self._reads_pictures() and not stores:
            self._streams[split] = open_images(
                self.assembly.corpus, split, size=self.config.model.image_size,
                config=self.config.data,
            )
        return self.assembly.maker(
            self.phase, split, plan, self.tower, stores.get(split),
            rank=self.world.rank, size=self.world.size,
            pending=self.world.device.type == "cuda",
        )

    def stream(self, split: str) -> ImageStream | None:
        """The picture stream of a split, where this phase decodes pictures."""
        return self._streams.get(split)

    def train(self, progress: Progress, resumed: Path | None, metrics: Metrics | None) -> Progress:
        """Run from ``progress`` to the end of the phase; raises :class:`Stopped` when asked to."""
        if resumed is not None:
            self.zero.load(resumed)
        total = self.plan.num_steps
        feed = Feed(self.maker, self.stream(TRAIN), progress.phase_step, total)
        window = Window(progress, self.world)
        bar = progress_bar(total, progress.phase_step, self.phase.name, self.world.main)
        self.zero.train()
        try:
            # Resumed at the step that spent the patience: nothing is left to do.
            for batch in () if self._out_of_patience(progress) else feed:
                lr = learning_rate(self.phase.optim, batch.step, total, progress.falls)
                window.add(self.step(batch, lr), batch)
                progress.step += 1
                progress.phase_step += 1
                progress.words_seen += batch.num_words
                progress.pairs_seen += batch.num_images
                bar.update(1)
                self._after_step(progress, batch, lr, window, feed, metrics)
                if self._out_of_patience(progress):
                    break
        finally:
            feed.close()
            bar.close()
        return progress

    def step(self, batch: StepBatch, lr: float) -> torch.Tensor:
        """One optimizer step; returns this rank's part of the loss, still on the device."""
        torch.manual_seed(
            step_seed(self.config.seed, self.phase.name, batch.step, self.world.rank)
        )
        total = torch.zeros((), device=self.world.device)
        for micro in batch.micros:
            loss = forward(self.zero, micro.to(self.world.device, self.zero.dtype),
                           batch.num_targets)
            self.zero.backward(loss)
            self.zero.step(lr)
            total += loss.detach().float()
        return total

    def _after_step(self, progress: Progress, batch: StepBatch, lr: float, window: Window,
                    feed: Feed, metrics: Metrics | None) -> None:
        last = progress.phase_step == self.plan.num_steps
        if last or progress.phase_step % self.config.log.every == 0:
            self._report(progress, lr, window, feed, metrics)
        improved = self._validate_if_due(progress, batch, metrics)
        every = self.config.checkpoints.every
        due = every > 0 and progress.step % every == 0
        stopping = False
        if progress.step % self.config.stop.check_every == 0:
            stopping = self.world.any(self.stop.wanted())
        if improved or last or due or stopping or self.checkpoints.kept_for_good(progress.step):
            self._save(progress, window)
        if stopping and not last:
            raise Stopped(self.stop.reason or "another rank was asked to stop")

    def _report(self, progress: Progress, lr: float, window: Window, feed: Feed,
                metrics: Metrics | None) -> None:
        values = window.close(feed.waited_s)
        values |= {"lr": lr, "grad_norm": self.zero.grad_norm()}
        remaining = self.plan.num_steps - progress.phase_step
        values["eta_s"] = remaining * values["step_s"]
        if self._peak is not None:
            rate = self._flops(values) / values["seconds"]
            values["mfu"] = rate / (self._peak * self.world.size)
        if not math.isfinite(values["loss"]):
            raise ValueError(
                f"phase {self.phase.name}: the loss is {values['loss']} in the "
                f"{self.config.log.every} steps before step {progress.step}; lower "
                f"phases.{self.phase.name}.optim.lr (the last checkpoint is from before)"
            )
        if metrics is not None:
            log.info(window_line(self.phase.name, progress.phase_step, self.plan.num_steps, values))
            metrics.write(progress.step, self.phase.name, values)

    def _flops(self, values: dict[str, Any]) -> float:
        """FLOPs of the window that ``values`` describe, by the definition in flops.py."""
        trained = set(self.phase.train)
        total = 0.0
        total += values["images"] * self._image_flops * (3 if "vision" in trained else 1)
        if self.kind == "generative":
            once = flops.decoder_flops(
                self.model.decoder, values["tokens"], values["squares"], values["targets"]
            )
            total += once * (3 if "decoder" in trained else 2)
        return total

    def _validate_if_due(self, progress: Progress, batch: StepBatch,
                         metrics: Metrics | None) -> bool:
        """Validate when it is time; True when the loss is the phase's best so far."""
        every = self.phase.validate_every
        place = self.plan.locate(batch.step)
        last = progress.phase_step == self.plan.num_steps
        due = place.last_of_epoch if every == 0 else progress.phase_step % every == 0
        if self.val_maker is None or not (due or last):
            return False
        loss = validation_loss(self.zero, forward, self.val_maker, self.stream(VAL),
                               self.world)
        progress.validation[self.phase.name] = loss
        improved = progress.best is None or loss < progress.best
        if improved:
            progress.best, progress.best_step, progress.bad = loss, progress.step, 0
        else:
            progress.bad += 1
            # As torch's ReduceLROnPlateau: so many are tolerated, the next one lowers the rate.
            patience = self.phase.optim.plateau_patience + 1
            if self.phase.optim.schedule == "plateau" and progress.bad % patience == 0:
                progress.falls += 1
        if metrics is not None:
            log.info("%-10s %6d/%d  validation loss %.4f%s", self.phase.name, progress.phase_step,
                     self.plan.num_steps, loss, "  (best so far)" if improved else "")
            metrics.write(progress.step, self.phase.name, {"validation_loss": loss})
        return improved

    def _out_of_patience(self, progress: Progress) -> bool:
        if not 0 < self.phase.patience <= progress.bad:
            return False
        log.info("%s: no better validation loss for %d validations; the phase ends at step %d",
                 self.phase.name, progress.bad, progress.phase_step)
        return True

    def _save(self, progress: Progress, window: Window) -> None:
        progress.window = window.sums()
        keep = self.checkpoints.kept_for_good(progress.step)
        if not math.isfinite(progress.window.get("loss", 0.0)):
            raise ValueError(
                f"phase {self.phase.name}: the loss is not finite before step {progress.step}, "
                f"which is not saved; lower phases.{self.phase.name}.optim.lr"
            )
        trained = sum(flops.count_parameters(self.parts[name]) for name in self.phase.train)
        everything = flops.count_parameters(self.model)
        # fp32 weights and two moments of what trains, the weights of a kept model, and slack.
        estimate = 16 * trained + (4 * everything if keep else 0) + 1_000_000
        self.checkpoints.save(
            self.zero, progress, estimate=estimate,
            export=self._exporter(progress) if keep else None,
        )

    def _exporter(self, progress: Progress) -> Any:
        return lambda directory: export_phase(self, directory, progress)

    def finish(self, progress: Progress) -> None:
        """Export the phase's model and mark the phase as done."""
        if self.phase.keep == "best" and progress.best_step not in (None, progress.step):
            best = self.checkpoints.path(int(progress.best_step or 0))
            self.zero.load(best)
            assert progress.best is not None
            progress.validation[self.phase.name] = progress.best
            log.info("%s: keeping step %s (validation loss %.4f)", self.phase.name,
                     progress.best_step, progress.best)
        size = 4 * sum(flops.count_parameters(part) for part in self.parts.values())
        reserve = self.config.checkpoints.reserve_bytes
        require_space(self.run_dir, size + reserve, f"the model of phase {self.phase.name}")
        export_phase(self, model_dir(self.run_dir, self.kind), progress)
        if self.world.main:
            done = self.run_dir / "phases" / f"{self.phase.name}.json"
            done.parent.mkdir(exist_ok=True)
            write_atomically(done, json.dumps(asdict(progress)) + "\n")
        self.world.barrier()

    def close(self) -> None:
        """Release the loaders and DeepSpeed's buffers."""
        for stream in self._streams.values():
            stream.close()
        self.zero.close()
