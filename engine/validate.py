"""Validation loss: one pass over the validation split, the same at any number of ranks."""

from __future__ import annotations

from collections.abc import Callable

import torch

from engine.feed import Maker, Micro, produce
from engine.images import ImageStream
from engine.zero import World, Zero

Forward = Callable[[Zero, Micro, int], torch.Tensor]


@torch.no_grad()
def validation_loss(zero: Zero, forward: Forward, maker: Maker, images: ImageStream | None,
                    world: World) -> float:
    """Mean loss per target (token or pair) over the split, in evaluation mode."""
    zero.eval()
    total = torch.zeros((), dtype=torch.float64)
    count = 0
    for batch in produce(maker, images, 0, maker.plan.num_steps):
        for micro in batch.micros:
            loss = forward(zero, micro.to(world.device, zero.dtype), batch.num_targets)
            total += loss.detach().double().cpu() * batch.num_targets
        count += batch.num_targets
    zero.train()
    return float(world.sum(total.reshape(1))[0]) / max(1, count)
