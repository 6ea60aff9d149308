"""Preparing pictures: now or on the device, step by step or in one pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from engine.augment import AugmentConfig, augment, normalise
from engine.feed import Micro
from engine.prepare import Pending, prepare

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
CPU = torch.device("cpu")


def _pictures(num: int = 6, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(num, 3, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(small, side, mode="bilinear")
    return smooth.mul(255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _prepare(config: AugmentConfig | None, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return prepare(
        _pictures(), np.arange(6), config=config, seed=3, epoch=2, mean=MEAN, std=STD, dtype=dtype
    )


@pytest.mark.parametrize("config", [None, AugmentConfig()])
def test_nothing_drawn(config: AugmentConfig | None) -> None:
    assert torch.equal(_prepare(config), normalise(_pictures(), MEAN, STD))


def test_step_by_step_unless_fused() -> None:
    config = AugmentConfig(flip=0.5, crop_scale=(0.2, 1.0), brightness=0.3)
    wanted = augment(
        _pictures(), np.arange(6), config=config, seed=3, epoch=2, mean=MEAN, std=STD
    )
    assert torch.equal(_prepare(config), wanted)


@pytest.mark.parametrize(
    ("options", "within"),
    [
        ({"flip": 0.5}, 1e-5),
        ({"grey": 0.5}, 0.01),  # luma 0.2989 against 0.299
        ({"brightness": 0.1, "flip": 0.5}, 0.5),  # clamped after each change, not once
        ({"crop_scale": (0.9, 1.0), "flip": 0.5}, 0.35),  # a window's last pixels
        ({"flip": 0.5, "blur": 0.5}, 1e-4),
    ],
)
def test_fused_makes_the_same_draws(options: dict, within: float) -> None:
    plain = _prepare(AugmentConfig(**options))
    fused = _prepare(AugmentConfig(**options, fused=True))
    assert fused.shape == plain.shape
    assert fused.is_contiguous(memory_format=torch.channels_last)
    assert (fused - plain).abs().max() <= within
    other = prepare(
        _pictures(), np.arange(6), config=AugmentConfig(**options, fused=True), seed=4, epoch=2,
        mean=MEAN, std=STD,
    )  # fmt: skip
    assert (fused - other).abs().max() > 4 * within  # other draws are told apart


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pending_pictures_are_prepared_where_they_arrive(fused: bool, dtype: torch.dtype) -> None:
    config = AugmentConfig(flip=0.5, contrast=0.3, fused=fused)
    pending = Pending(_pictures(), np.arange(6), config, 3, 2, MEAN, STD)
    moved = Micro(images=pending).to(CPU, dtype)
    assert isinstance(moved.images, torch.Tensor) and moved.images.dtype == dtype
    assert torch.equal(moved.images, _prepare(config, dtype))


@pytest.mark.parametrize("other", [{"rotate": 5}, {"translate": 0.1}, {"zoom": (0.9, 1.1)}])
def test_fused_does_not_turn_pictures(other: dict) -> None:
    with pytest.raises(ValidationError, match="fused: true does not rotate, translate or zoom"):
        AugmentConfig(fused=True, **other)
