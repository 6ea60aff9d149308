"""What a run would do, without doing it: shapes, parameters, memory, steps."""

from __future__ import annotations

import os
from typing import Any

import torch

from engine.assemble import assemble, kind_of
from engine.config import RunConfig
from engine.features import store_bytes
from engine.guard import gigabytes
from engine.phases import PhaseConfig
from engine.zero import resolve_precision


def dry_run(config: RunConfig) -> str:
    """A report of several lines; raises the same ``ValueError`` as the run would.

    Memory is an estimate: weights, gradients and optimizer states exactly (ZeRO shards them over
    ``WORLD_SIZE`` ranks), activations as 34 bytes x tokens x width x layers for bf16 blocks
    (Korthikanti et al. 2022, without the attention matrix, which is never stored).
    """
    assembly = assemble(config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = resolve_precision(config.zero, device)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    pairs = len(assembly.corpus.pairs("train").id)
    lines = [
        f"run {config.name}: corpus {config.corpus} ({pairs:,} training pairs), "
        f"vocabulary {assembly.tokenizer.vocab_size:,}, {str(dtype).removeprefix('torch.')} on "
        f"{device.type}, ZeRO stage {config.zero.stage}, {ranks} rank(s)",
    ]
    total_steps = 0
    models: dict[str, Any] = {}
    for phase in config.phases:
        kind = kind_of(phase)
        model = models.setdefault(kind, assembly.build(kind))
        skipped = phase.skip_with_weights and config.model.vision.weights
        if skipped:
            lines.append(f"{phase.name}: skipped (model.vision.weights is given)")
            continue
        lines += _phase_lines(assembly, phase, model, dtype, ranks)
        total_steps += assembly.plan(phase, model.parts()["vision"]).num_steps
    lines.append(f"total: {total_steps:,} steps")
    return "\n".join(lines)


def _phase_lines(assembly: Any, phase: PhaseConfig, model: Any, dtype: torch.dtype,
                 ranks: int) -> list[str]:
    parts = model.parts()
    tower = parts["vision"]
    plan = assembly.plan(phase, tower)
    trained = sum(p.numel() for n in phase.train for p in parts[n].parameters())
    used = [n for n in parts if phase.objective != "language" or n == "decoder"]
    counts = ", ".join(
        f"{n} {sum(p.numel() for p in parts[n].parameters()):,}{'' if n in phase.train else '*'}"
        for n in used
    )
    config = assembly.config
    weights = sum(p.numel() for n in used for p in parts[n].parameters()) * dtype.itemsize
    grads = trained * 4 // (ranks if config.zero.stage >= 2 else 1)
    masters = 4 if dtype != torch.float32 else 0
    states = trained * (8 + masters) // (ranks if config.zero.stage >= 1 else 1)
    lines = [
        f"{phase.name}: {phase.objective}, {phase.epochs} epoch(s), {plan.num_steps:,} steps",
        f"    parameters ({trained:,} train, * frozen): {counts}",
    ]
    if phase.objective == "contrastive":
        side = config.model.image_size
        lines.append(f"    step: {plan.budget} pairs of pictures [3, {side}, {side}] -> "
                     f"[{tower.num_tokens}, {tower.dim}], utterances -> "
                     f"[{config.model.contrastive.dim}]")
        activations = None
    else:
        decoder = config.model.decoder
        tokens = min(phase.tokens_per_step, int(plan.lengths.sum()))
        row = tokens // (ranks * phase.accumulate)
        lines.append(f"    step: {tokens:,} tokens in {ranks * phase.accumulate} row(s) of about "
                     f"{row:,}; documents of {int(plan.lengths.min())} to "
                     f"{int(plan.lengths.max())} tokens, width {decoder.width}")
        per_token = 34 * decoder.width * decoder.layers * dtype.itemsize // 2
        activations = row * per_token
    memory = f"    memory per rank: weights {gigabytes(weights)}, gradients {gigabytes(grads)}, " \
             f"optimizer {gigabytes(states)}"
    if activations is not None:
        memory += f", activations about {gigabytes(activations)}"
    lines.append(memory)
    views = config.features.views if phase.augment.enabled else 1
    stored = config.features.store != "off" and (views > 1 or not phase.augment.enabled)
    if phase.objective != "language" and "vision" not in phase.train and stored \
            and config.model.vision.batchnorm_eval:
        size = sum(
            store_bytes(len(assembly.corpus.images(s)) * (views if s == "train" else 1),
                        tower.num_tokens, tower.dim, config.features.dtype)
            for s in assembly.splits
        )
        lines.append(f"    feature store: {gigabytes(size)} in {config.features.location}")
    return lines
