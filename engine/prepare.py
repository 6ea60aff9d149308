"""Decoded pictures to what a tower reads: normalised, and augmented while it trains.

On a CPU the feeding thread does it, ahead of the step. For a GPU the bytes travel as they are, a
quarter of the floats, and the GPU does it when the step begins (`Pending`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from engine.augment import AugmentConfig, augment, blur, fused_parameters, normalise
from kernels import Parameters, augment_images

__all__ = ["Pending", "prepare"]


def prepare(
    pictures: torch.Tensor,
    ids: NDArray[np.int64],
    *,
    config: AugmentConfig | None,
    seed: int,
    epoch: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return ``[N, 3, S, S]`` in ``dtype``, channels last, on the pictures' device.

    Args:
        pictures: uint8 ``[N, S, S, 3]``.
        ids: int64 ``[N]``, what each picture's draws are keyed by.
        config: what is drawn; None: nothing.
        seed, epoch: the other two keys of the draws.
        mean, std: per channel, in units where white is 1.
        dtype: of the result; float32 or bfloat16.
    """
    if config is None or not config.enabled:
        return normalise(pictures, mean, std).to(dtype)
    if not config.fused:
        return augment(
            pictures, ids, config=config, seed=seed, epoch=epoch, mean=mean, std=std
        ).to(dtype)
    side = pictures.shape[1]
    table, changes = fused_parameters(ids, config, side, seed=seed, epoch=epoch)
    out = augment_images(
        pictures, size=side, mean=mean, std=std, dtype=torch.float32 if config.blur else dtype,
        parameters=Parameters(table.to(pictures.device), changes), layout="nhwc",
    )  # fmt: skip
    if config.blur:  # it and the normalisation can change places
        out = blur(out, ids, config, seed, epoch).to(dtype)
    return out.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, eq=False)
class Pending:
    """Pictures still as bytes; `to` moves them and does the rest there."""

    pictures: torch.Tensor
    ids: NDArray[np.int64]
    config: AugmentConfig | None
    seed: int
    epoch: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def to(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """Return the prepared pictures on ``device``."""
        pictures = self.pictures.to(device, non_blocking=True)
        return prepare(
            pictures, self.ids, config=self.config, seed=self.seed, epoch=self.epoch,
            mean=self.mean, std=self.std, dtype=dtype,
        )  # fmt: skip
