"""Arithmetic of a training step, and the peak rate of known accelerators.

Definition (printed with the number): matrix-product FLOPs only, dense bf16 peak, real tokens
only. A part that trains counts forward and backward (3x forward), a frozen part that passes
gradients on 2x, a frozen part whose features are computed in the step 1x, stored features 0.
Attention counts the whole document square (no causal discount), as torchtitan and nanochat do.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from engine.models.decoder import Decoder
from engine.models.vision import VisionTower

PEAK_BF16: dict[str, float] = {
    "H200": 989e12, "H100": 989e12, "GH200": 989e12, "A100": 312e12, "L40S": 362e12,
    "RTX 4090": 165e12, "RTX 3090": 71e12, "A10G": 70e12,
}
"""Dense bf16 FLOP/s by a part of the device's name (vendors' data sheets)."""


def count_parameters(module: nn.Module) -> int:
    """Parameters of ``module``, also those that ZeRO-3 has spread (their own size is then 0)."""
    return sum(getattr(p, "ds_numel", p.numel()) for p in module.parameters())


def peak_flops(device: torch.device) -> float | None:
    """Peak of ``device``, or None when it is not in the table (MFU is then not reported)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    matches = [rate for part, rate in PEAK_BF16.items() if part in name]
    return max(matches) if matches else None


def tower_flops(tower: VisionTower, image_size: int) -> float:
    """Forward FLOPs of one picture, counted op by op on a weightless copy."""
    ghost = copy.deepcopy(tower).to("meta")
    picture = torch.empty(1, 3, image_size, image_size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        ghost.eval()(picture)
    return float(counter.get_total_flops())


def decoder_flops(decoder: Decoder, tokens: int, squares: int, losses: int) -> float:
    """Forward FLOPs of a packed row.

    Args:
        tokens: row positions.
        squares: sum over documents of the squared length (attention).
        losses: rows that reach the output layer.
    """
    config = decoder.config
    # Biases and norms are a thousandth of a block, and not told apart once ZeRO-3 flattened it.
    blocks = count_parameters(decoder.blocks)
    weight = decoder.output_weight
    head = getattr(weight, "ds_numel", weight.numel())
    attention = 4.0 * config.layers * config.width * squares
    return 2.0 * blocks * tokens + attention + 2.0 * head * losses
