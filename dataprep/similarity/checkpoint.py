"""A contrastive model that the engine trained, as a scorer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataprep.files import sha256_file
from dataprep.similarity.scorers import Pixels, Vectors, hash_facts, pick_device
from engine import load

__all__ = ["CheckpointScorer"]

NOT_WEIGHTS = ("README.md", "scores.json")
"""Files of an exported model that change when it is evaluated."""


class CheckpointScorer:
    """CVCL, or any contrastive model of the engine's.

    Args:
        path: directory of the exported model.
        device: ``auto``, ``cpu``, ``cuda``.

    Raises:
        ValueError: no model there, or one of another kind.
    """

    def __init__(self, path: Path, *, device: str = "auto") -> None:
        model = load(path, pick_device(device))
        if model.kind != "contrastive":
            raise ValueError(
                f"{path}: a {model.kind} model; accepted: a contrastive one, which gives pictures "
                "and texts as vectors (RUN/contrastive/model)"
            )
        self.model: Any = model
        files = {
            file.name: sha256_file(file)
            for file in sorted(path.iterdir())
            if file.is_file() and file.name not in NOT_WEIGHTS
        }
        weights = files["model.safetensors"]
        self.dim: int = model.config.contrastive.dim
        self.name = f"checkpoint {path.resolve().parent.parent.name} ({weights[:12]})"
        self.facts: dict[str, Any] = {
            "kind": "checkpoint",
            "weights_sha256": weights,
            "files_sha256": files,
            "image_size": model.config.image_size,
        }
        self.hash = hash_facts(self.facts)

    def embed_images(self, images: Sequence[Pixels]) -> Vectors:
        """Uint8 ``[H, W, 3]`` each to unit rows ``[n, dim]``."""
        if not len(images):
            return np.empty((0, self.dim), np.float32)
        return self.model.embed_images(list(images)).float().cpu().numpy()

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Texts to unit rows ``[n, dim]``; zeros where a text has no token."""
        if not len(texts):
            return np.empty((0, self.dim), np.float32)
        return self.model.embed_texts(list(texts)).float().cpu().numpy()
