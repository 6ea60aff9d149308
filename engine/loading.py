"""Loading an exported model, for evaluation, similarity and use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from engine import scoring
from engine.augment import normalise
from engine.card import replace_scores
from engine.export import CARD, CONFIG, SCORES, WEIGHTS, read_description
from engine.files import write_atomically
from engine.models.babyllava import BabyLLaVA, build_generative
from engine.models.config import ModelConfig
from engine.models.contrastive import ContrastiveModel, build_contrastive
from engine.models.pictures import Picture, to_pixels
from engine.models.vision import tower_hash
from engine.scoring import Record
from engine.tokens import Tokenizer

__all__ = ["ContrastiveModelHandle", "GenerativeModel", "Record", "load"]

IMAGE_BATCH = 64
"""Pictures per pass of the tower."""

M = TypeVar("M", BabyLLaVA, ContrastiveModel)


class _Loaded(Generic[M]):
    """What both kinds of loaded model have in common. Weights are float32, in evaluation mode."""

    kind: Literal["generative", "contrastive"]

    def __init__(
        self, path: Path, config: ModelConfig, model: M, tokenizer: Tokenizer, device: torch.device
    ) -> None:
        self.path, self.config, self.tokenizer, self.device = path, config, tokenizer, device
        self.model: M = model.to(device).eval()
        self.model.requires_grad_(False)

    @cached_property
    def tower_hash(self) -> str:
        """SHA-256 of the vision tower: features are reusable between models that share it."""
        return tower_hash(self.model.vision)

    @torch.no_grad()
    def image_features(self, images: Sequence[Picture]) -> Tensor:
        """Run the tower once per picture.

        A lone picture goes through beside a copy of itself: convolutions of one picture take other
        routines, whose rounding (4e-7 of a feature) moves log-likelihoods by up to 2e-5. This way
        features are the same however pictures are cut into batches.

        Args:
            images: paths, PIL images or uint8 arrays ``[height, width, 3]``, any sizes: each is
                stretched to the model's size.

        Returns:
            Float32 ``[N, P, C]`` on the model's device.

        Raises:
            ValueError: naming the picture that cannot be read.
        """
        tower = self.model.vision
        parts = [torch.empty(0, tower.num_tokens, tower.dim, device=self.device)]
        for first in range(0, len(images), IMAGE_BATCH):
            pixels = to_pixels(images[first : first + IMAGE_BATCH], self.config.image_size)
            count = len(pixels)
            parts.append(self._see(pixels.repeat(2, 1, 1, 1) if count == 1 else pixels)[:count])
        return torch.cat(parts)

    @torch.no_grad()
    def _see(self, pixels: Tensor) -> Tensor:
        """Features of uint8 ``[N, S, S, 3]``, just as they come."""
        tower = self.model.vision
        return tower(normalise(pixels.to(self.device), tower.mean, tower.std))

    def record_scores(self, scores: Mapping[str, Any]) -> None:
        """Add an evaluation's scores to ``scores.json`` and to the model card.

        Args:
            scores: suite to ``{"version": ..., "figures": {name: {"value": ..., ...}}}``; a suite
                that was recorded before is replaced, others stay.
        """
        file, card = self.path / SCORES, self.path / CARD
        known: dict[str, Any] = {}
        if file.is_file():
            try:
                known = json.loads(file.read_text("utf-8"))
            except ValueError as error:
                raise ValueError(f"{file}: not JSON ({error})") from None
        known |= scores
        write_atomically(file, json.dumps(known, indent=2) + "\n")
        text = card.read_text("utf-8") if card.is_file() else ""
        write_atomically(card, replace_scores(text, known))


class GenerativeModel(_Loaded[BabyLLaVA]):
    """A loaded BabyLLaVA."""

    kind = "generative"

    def score_candidates(
        self,
        features: Tensor | None,
        candidates: Sequence[Sequence[str]],
        *,
        prompt: str = "",
        score_eos: bool = False,
    ) -> list[list[Record]]:
        """Log-likelihood of each picture's candidates (`engine.scoring.score_candidates`).

        ``features`` ``[N, P, C]`` come from `image_features`; ``None`` gives the text-only prior,
        whose prefix is ``<sos>``.
        """
        return scoring.score_candidates(
            self.model,
            self.tokenizer,
            self._checked(features),
            candidates,
            prompt=prompt,
            score_eos=score_eos,
        )

    def score_pair(
        self, picture: Picture, text: str, *, prompt: str = "", score_eos: bool = False
    ) -> Record:
        """One picture and one text from the start, tower included (`engine.scoring.score_pair`):
        slow, and what the rest is compared with."""
        features = self._see(to_pixels([picture], self.config.image_size))
        return scoring.score_pair(
            self.model, self.tokenizer, features, text, prompt=prompt, score_eos=score_eos
        )

    def generate(
        self,
        features: Tensor | None,
        *,
        prompt: str = "",
        max_new_tokens: int = 25,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[str]:
        """One text per picture (`engine.scoring.generate`); greedy unless ``temperature`` > 0."""
        return scoring.generate(
            self.model,
            self.tokenizer,
            self._checked(features),
            prompt=prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        )

    def _checked(self, features: Tensor | None) -> Tensor | None:
        tower = self.model.vision
        if features is not None and features.shape[1:] != (tower.num_tokens, tower.dim):
            raise ValueError(
                f"features: [N, {tower.num_tokens}, {tower.dim}] expected (image_features gives "
                f"them), got shape {tuple(features.shape)}"
            )
        return features


class ContrastiveModelHandle(_Loaded[ContrastiveModel]):
    """A loaded contrastive model."""

    kind = "contrastive"

    @torch.no_grad()
    def embed_images(self, images: Sequence[Picture] | Tensor) -> Tensor:
        """Unit vectors ``[N, D]`` of pictures, or of their features ``[N, P, C]``."""
        features = images
        if not (isinstance(images, Tensor) and images.is_floating_point()):
            features = self.image_features(images)  # type: ignore[arg-type]
        assert isinstance(features, Tensor)
        return self.model.embed_features(features.to(self.device))

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors ``[N, D]`` of texts; a text without a single token gives zeros."""
        ids = [self.tokenizer.encode(text, eos=False) for text in texts]
        if self.config.contrastive.include_sos_eos:
            ids = [[self.tokenizer.sos_id, *own, self.tokenizer.eos_id] for own in ids]
        lengths = np.array([len(own) for own in ids], dtype=np.int64)
        tokens = torch.tensor([token for own in ids for token in own], dtype=torch.int64)
        offsets = torch.from_numpy(np.cumsum(lengths) - lengths)
        return self.model.embed_texts(tokens.to(self.device), offsets.to(self.device))


def load(
    path: str | Path, device: str | torch.device = "auto"
) -> GenerativeModel | ContrastiveModelHandle:
    """Load an exported model.

    Args:
        path: directory that `engine.export.export_model` wrote.
        device: ``auto`` takes a GPU where there is one.

    Raises:
        ValueError: no model there, or its files do not belong together; says which.
    """
    path = Path(path)
    description = read_description(path)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        config = ModelConfig.model_validate(description.get("model"))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path / CONFIG}: model.{key}: {first['msg']}") from None
    tokenizer = Tokenizer.load(path)
    if description.get("vocab_size") != tokenizer.vocab_size:
        raise ValueError(
            f"{path}: {CONFIG} names {description.get('vocab_size')} tokens, the tokeniser has "
            f"{tokenizer.vocab_size}"
        )
    # The tower's own weights are in the export; the file they once came from is not needed.
    vision = config.vision.model_copy(update={"weights": None})
    bare = config.model_copy(update={"vision": vision})
    target = torch.device(device)
    if description["kind"] == "generative":
        model = build_generative(bare, tokenizer.vocab_size)
        _fill(model, path)
        return GenerativeModel(path, config, model, tokenizer, target)
    model = build_contrastive(bare, tokenizer.vocab_size)
    _fill(model, path)
    return ContrastiveModelHandle(path, config, model, tokenizer, target)


def _fill(model: BabyLLaVA | ContrastiveModel, path: Path) -> None:
    file = path / WEIGHTS
    try:
        state = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file}: cannot be read ({error})") from None
    own = model.state_dict()
    odd = sorted(own.keys() ^ state.keys())
    odd += sorted(n for n in own.keys() & state.keys() if own[n].shape != state[n].shape)
    if odd:
        raise ValueError(f"{file}: {len(odd)} tensors do not fit {CONFIG}, the first is {odd[0]!r}")
    model.load_state_dict(state)
