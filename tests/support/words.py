"""Words as they come in text."""

from __future__ import annotations

import torch
from support.numerics import DEVICE
from torch import Tensor

__all__ = ["zipf"]


def zipf(rows: int, words: int, seed: int = 0) -> Tensor:
    """Words as in text: number n comes 1/n as often as the first."""
    weights = 1.0 / torch.arange(1, words + 1)
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(weights, rows, replacement=True, generator=generator).to(DEVICE)
