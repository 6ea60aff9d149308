"""Optimizer settings, parameter groups and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field
from torch import nn

from engine.schema import Section


class OptimConfig(Section):
    """AdamW with warm-up and decay. Defaults are the paper's for the connector phases."""

    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""

    lr_scale: dict[str, float] = {}
    """Factor on ``lr`` per part, for example ``{decoder: 0.1}``; 1 where nothing is said."""

    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of AdamW's moments."""

    eps: float = Field(default=1e-8, gt=0)
    """AdamW's denominator term."""

    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay on matrices and kernels; biases, norms and scalars have none."""

    clip: float = Field(default=1.0, ge=0)
    """Global gradient-norm limit; 0 = off. DeepSpeed clips when this is left out of its own
    configuration, so it is always written there."""

    implementation: Literal["torch", "kernels"] = "torch"
    """``kernels``: `kernels.AdamW`, one launch for all of a rank's parameters (ZeRO stages 0 to 2);
    ``torch``: PyTorch's fused one. Clipping is DeepSpeed's with both."""

    schedule: Literal["cosine", "linear", "constant", "plateau"] = "cosine"
    """Shape after warm-up. ``plateau`` multiplies by ``plateau_factor`` whenever the validation
    loss has not improved for ``plateau_patience`` validations (CVCL)."""

    warmup: float = Field(default=0.03, ge=0, le=1)
    """Share of the phase's steps spent on linear warm-up (paper: 0.03)."""

    final: float = Field(default=0.0, ge=0, le=1)
    """Learning rate at the end, as a share of the peak (cosine, linear)."""

    plateau_patience: int = Field(default=20, ge=1)
    """Validations without improvement before the rate falls (CVCL: 20)."""

    plateau_factor: float = Field(default=0.1, gt=0, lt=1)
    """Factor at each plateau (CVCL: 0.1)."""


def learning_rate(config: OptimConfig, step: int, num_steps: int, falls: int = 0) -> float:
    """Rate for ``step`` (0-based) of ``num_steps``; ``falls`` counts plateaus so far.

    >>> learning_rate(OptimConfig(lr=1.0, warmup=0.1), 0, 100)
    0.1
    """
    warmup = round(config.warmup * num_steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "plateau":
        return config.lr * config.plateau_factor**falls
    if config.schedule == "constant":
        return config.lr
    # The last step still has a rate above zero: the phase ends after it, not on it.
    done = (step - warmup) / max(1, num_steps - warmup)
    shape = 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1 - done
    return config.lr * (config.final + (1 - config.final) * shape)


def parameter_groups(
    parts: dict[str, nn.Module], train: Iterable[str], config: OptimConfig
) -> list[dict[str, Any]]:
    """Groups for AdamW: one per trained part and kind (decayed or not).

    Each group carries ``lr_scale``, which the loop multiplies into the scheduled rate.
    A parameter that two parts share belongs to the first.
    """
    groups: list[dict[str, Any]] = []
    seen: set[int] = set()
    for name in train:
        decayed: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for parameter in parts[name].parameters():
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            (decayed if parameter.ndim >= 2 else plain).append(parameter)
        scale = config.lr_scale.get(name, 1.0)
        for params, decay in ((decayed, config.weight_decay), (plain, 0.0)):
            if params:
                groups.append({
                    "params": params, "weight_decay": decay, "lr_scale": scale,
                    "lr": config.lr * scale, "part": name,
                })
    return groups
