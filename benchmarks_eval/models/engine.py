"""Models that the training engine exported, contrastive and generative."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks_eval.models.hashing import hash_facts, hash_tensors
from benchmarks_eval.models.protocols import Likelihood


class EngineModel:
    """What `engine.load` gives, under the protocols of the evaluation. ``inner`` is that handle.

    Features may come back as NumPy arrays (from a store) or as tensors.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.kind: str = inner.kind

    @property
    def device(self) -> Any:
        """Where the model runs."""
        return self.inner.device

    @property
    def prefix_tokens(self) -> int:
        """Positions that a picture takes."""
        return int(self.inner.model.vision.num_tokens)

    @property
    def tower_hash(self) -> str:
        """The engine's: weights, sizes and normalisation of the vision tower."""
        return self.inner.tower_hash

    @cached_property
    def weights_hash(self) -> str:
        """Of every weight, the configuration and the tokeniser; not of the model card."""
        config = self.inner.config.model_dump(mode="json")
        return hash_facts(self.kind, config, self.inner.tokenizer.digest,
                          hash_tensors(self.inner.model.state_dict()))

    def image_features(self, images: Sequence[Any]) -> Any:
        """Float32 [N, P, C] on the model's device."""
        return self.inner.image_features(images)

    def embed_images(self, images: Any) -> Any:
        """Unit vectors [N, D] of pictures or of their features."""
        return self.inner.embed_images(_tensor(images) if hasattr(images, "shape") else images)

    def embed_texts(self, texts: list[str]) -> Any:
        """Unit vectors [N, D]."""
        return self.inner.embed_texts(texts)

    def score_candidates(self, features: Any, candidates: Sequence[Sequence[str]], *,
                         prompt: str = "", score_eos: bool = False
                         ) -> Sequence[Sequence[Likelihood]]:
        """Log-likelihoods; ``features`` None gives the text-only prior."""
        return self.inner.score_candidates(_tensor(features), candidates, prompt=prompt,
                                           score_eos=score_eos)

    def generate(self, features: Any, *, prompt: str = "", max_new_tokens: int = 25) -> list[str]:
        """One greedy caption per picture."""
        return self.inner.generate(_tensor(features), prompt=prompt,
                                   max_new_tokens=max_new_tokens)

    def record_scores(self, scores: dict[str, Any]) -> None:
        """Puts the figures into the model's ``scores.json`` and on its card."""
        self.inner.record_scores(scores)


def load_engine(folder: Path, device: str) -> EngineModel:
    """Loads an exported model.

    Raises:
        ValueError: no model there, or its files do not belong together.
    """
    from engine import load

    return EngineModel(load(folder, device=device))


def _tensor(features: Any) -> Any:
    if features is None:
        return None
    import torch

    return torch.as_tensor(features)
