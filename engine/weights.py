"""Weights between phases and runs: exported models are the only way from one to the next."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import nn

from engine.assemble import Assembly, kind_of, model_dir
from engine.checkpoints import Progress
from engine.export import WEIGHTS, export_model
from engine.phases import PARTS, PhaseConfig
from engine.tokens import Tokenizer

if TYPE_CHECKING:
    from engine.loop import PhaseRun

log = logging.getLogger("babyvlm")


def read_part(directory: Path, part: str) -> dict[str, torch.Tensor]:
    """The tensors of one part of an exported model; empty when it has no such part.

    Models hold their parts under the names that phases use: ``vision.body...``.
    """
    file, prefix = directory / WEIGHTS, f"{part}."
    if not file.is_file():
        raise ValueError(f"{directory}: no exported model ({WEIGHTS} is missing)")
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in load_file(file).items() if name.startswith(prefix)
    }


def load_part(part: nn.Module, tensors: dict[str, torch.Tensor], where: str) -> None:
    """Load tensors into ``part``; ``ValueError`` names the first one that does not fit."""
    own = part.state_dict()
    for name, value in own.items():
        if name not in tensors:
            raise ValueError(f"{where}: holds no '{name}', so it is from another model")
        if tensors[name].shape != value.shape:
            raise ValueError(
                f"{where}: '{name}' has shape {list(tensors[name].shape)}, this configuration "
                f"needs {list(value.shape)}: it is from another model"
            )
    part.load_state_dict({name: tensors[name] for name in own})


def load_earlier(parts: dict[str, nn.Module], assembly: Assembly, phase: PhaseConfig,
                 run_dir: Path) -> None:
    """Fill ``parts`` with what the phases before ``phase`` (or ``init_from``) trained.

    A part that an earlier phase of the configuration trains must be there; one that nothing
    trained keeps its fresh weights, which is logged when it stays frozen. A language phase computes
    with the decoder alone: it takes along what else has been trained, so that its exports hold the
    same tower as those before and after it, but does without.
    """
    config = assembly.config
    before = config.phases[: [p.name for p in config.phases].index(phase.name)]
    before = [p for p in before if not (p.skip_with_weights and config.model.vision.weights)]
    for name, part in parts.items():
        needed = phase.objective != "language" or name == "decoder"
        trainers = [p for p in before if name in p.train and name in PARTS[p.objective]]
        last = trainers[-1] if trainers else None
        done = last is not None and (run_dir / "phases" / f"{last.name}.json").exists()
        if last is not None and (done or needed):
            directory = model_dir(run_dir, kind_of(last))
            if not done:
                raise ValueError(
                    f"phase {phase.name}: its part '{name}' comes from phase '{last.name}', which "
                    f"{run_dir} has not completed; run that phase first"
                )
            load_part(part, read_part(directory, name), str(directory))
            log.info("%s: %s from %s", phase.name, name, directory)
        elif config.init_from and (tensors := read_part(Path(config.init_from), name)):
            if name in ("decoder", "words"):
                _same_words(assembly, Path(config.init_from))
            load_part(part, tensors, config.init_from)
            log.info("%s: %s from %s", phase.name, name, config.init_from)
        elif (needed and name not in phase.train
              and not (name == "vision" and config.model.vision.weights)):
            log.warning("%s: '%s' is frozen with random weights: nothing trained it", phase.name,
                        name)


def _same_words(assembly: Assembly, directory: Path) -> None:
    """Embeddings mean nothing under another vocabulary, even one of the same size."""
    if Tokenizer.load(directory).digest != assembly.tokenizer.digest:
        raise ValueError(
            f"{directory}: was trained with another tokeniser than this run's corpus and "
            "tokenizer settings give; its words cannot be taken over"
        )


def export_phase(run: PhaseRun, directory: Path, progress: Progress) -> None:
    """Export the model as it stands in ``run`` (collective; the main rank writes)."""
    states = {
        name: run.frozen_states[name] if name in run.frozen_states else run.zero.state(part)
        for name, part in run.parts.items()
    }
    if run.world.main:
        model: Any = run.assembly.build(run.kind)
        for name, part in model.parts().items():
            part.load_state_dict(states[name])
        export_model(
            directory, model, kind=run.kind, config=run.config.model,
            tokenizer=run.assembly.tokenizer, card=model_card(run, progress),
        )
    run.world.barrier()


def model_card(run: PhaseRun, progress: Progress) -> dict[str, Any]:
    """Facts for the model card: where the weights come from."""
    config, corpus = run.config, run.assembly.corpus
    phases = []
    for phase in config.phases:
        done = run.run_dir / "phases" / f"{phase.name}.json"
        facts = json.loads(done.read_text()) if done.exists() else None
        if phase.name == run.phase.name:
            facts = {"phase_step": progress.phase_step,
                     "validation": progress.validation}
        if facts is None:
            continue
        phases.append({
            "name": phase.name, "objective": phase.objective, "train": phase.train,
            "epochs": phase.epochs, "steps": facts["phase_step"], "lr": phase.optim.lr,
            "validation_loss": facts["validation"].get(phase.name),
        })
    return {
        "name": config.name, "seed": config.seed, "corpus": corpus.info, "phases": phases,
        "step": progress.step, "words_seen": progress.words_seen,
        "pairs_seen": progress.pairs_seen, "validation": progress.validation,
    }
