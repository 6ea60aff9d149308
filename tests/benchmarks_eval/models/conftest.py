"""Pictures of noise, and small models of other libraries that are built once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.small_models import save_clip, save_llava


@pytest.fixture(scope="session")
def noise_pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five different pictures."""
    folder = tmp_path_factory.mktemp("noise")
    paths = [folder / f"{k}.png" for k in range(5)]
    for k, path in enumerate(paths):
        pixels = np.random.default_rng(k).integers(0, 255, (40 + k, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama-based LLaVA with a chat template."""
    return save_llava(tmp_path_factory.mktemp("models") / "llava")


@pytest.fixture(scope="session")
def window_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mistral-based one: sliding windows, two tower layers, no chat template."""
    return save_llava(tmp_path_factory.mktemp("models") / "window", text="mistral", chat=False,
                      strategy="full", layer=[-2, -1])


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP with its open_clip configuration."""
    return save_clip(tmp_path_factory.mktemp("models") / "clip")
