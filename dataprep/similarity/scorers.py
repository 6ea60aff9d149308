"""What measures likeness: one protocol, and scorers by a one-line specification.

clip:ViT-B-32:/weights.pt          an open_clip model by name, with local weights
clip:/folder                       a downloaded open_clip repository (config and weights)
checkpoint:runs/x/contrastive/model  a contrastive model that the engine trained
standin                            ImageNet tower and MiniLM, from installed packages
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scorer", "checked_vectors", "hash_facts", "open_scorer"]

Vectors = NDArray[np.float32]
Pixels = NDArray[np.uint8]

ACCEPTED = (
    "clip:NAME:WEIGHTS (an open_clip model and a local file), clip:FOLDER (with "
    "open_clip_config.json), checkpoint:RUN/contrastive/model, standin"
)


class Scorer(Protocol):
    """Pictures and texts as vectors whose inner product is their similarity."""

    name: str
    """What a person calls it, without paths."""
    hash: str
    """SHA-256 of everything that decides a vector: weights, activation, pre-processing."""
    dim: int
    facts: dict[str, Any]
    """What ``hash`` was made of, to stand beside every threshold; ``weights_sha256`` is there."""

    def embed_images(self, images: Sequence[Pixels]) -> Vectors:
        """Uint8 ``[H, W, 3]`` each, any sizes, to unit rows ``[n, dim]``."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Texts to unit rows ``[n, dim]``; a text without one known token may give zeros."""
        ...


def open_scorer(spec: str, device: str = "auto") -> Scorer:
    """Return the scorer that ``spec`` names (forms: see the module).

    Args:
        spec: kind and where its weights lie.
        device: ``cpu``, ``cuda``, or ``auto``: a GPU where there is one.

    Raises:
        ValueError: another kind, a missing file, or weights that do not belong to the name.
    """
    kind, _, rest = spec.partition(":")
    if kind == "clip" and rest:
        from dataprep.similarity.clip import ClipScorer

        name, colon, weights = rest.partition(":")
        if colon and (not name or not weights):
            raise ValueError(f"scorer {spec!r}: accepted: {ACCEPTED}")
        return ClipScorer(name, Path(weights) if colon else None, device=device)
    if kind == "checkpoint" and rest:
        from dataprep.similarity.checkpoint import CheckpointScorer

        return CheckpointScorer(Path(rest), device=device)
    if spec == "standin":
        from dataprep.similarity.standin import StandInScorer

        return StandInScorer(device=device)
    raise ValueError(f"scorer {spec!r}: accepted: {ACCEPTED}")


def hash_facts(facts: Mapping[str, Any]) -> str:
    """SHA-256 of facts as canonical JSON."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def checked_vectors(scorer: Scorer, vectors: NDArray[Any], count: int) -> Vectors:
    """Return ``vectors`` as float32 ``[count, dim]``, sure to be finite and of length 1 (or 0).

    Raises:
        ValueError: naming the row that is not.
    """
    if vectors.shape != (count, scorer.dim):
        raise ValueError(
            f"{scorer.name}: vectors of shape {vectors.shape}; ({count}, {scorer.dim}) expected"
        )
    wide = np.asarray(vectors, np.float32)
    length = np.sqrt(np.einsum("nd,nd->n", wide, wide, dtype=np.float64))
    wrong = np.flatnonzero(~((np.abs(length - 1) < 1e-3) | (length == 0)))
    if len(wrong):
        raise ValueError(
            f"{scorer.name}: vector {wrong[0]} of a batch of {count} has length "
            f"{length[wrong[0]]:.4g}; accepted: 1"
        )
    return wide


def pick_device(device: str) -> str:
    """Return ``device``, or what ``auto`` stands for here."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda") and not device.startswith("cuda:"):
        raise ValueError(f"device {device!r}: accepted: auto, cpu, cuda, cuda:N")
    if device != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r}: no GPU here; accepted: auto, cpu")
    return device
