"""The contrastive model: CVCL (Vong et al., Science 2024).

A picture is the mean of its features, projected; a text is the mean of its word embeddings; both
have unit length, and InfoNCE (or the pairwise sigmoid loss) pulls pairs together.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.models.config import ModelConfig
from engine.models.contrastive_config import ContrastiveConfig
from engine.models.vision import VisionTower
from kernels import contrastive_loss, sigmoid_loss
from kernels.collectives import Group

MAX_LOGIT_SCALE = 100.0
"""A learned temperature stays above 1 / this (CLIP, Radford et al. 2021 §2.5)."""


class Temperature(nn.Module):
    """The factor on similarities, 1 / temperature, fixed or learned."""

    log_scale: Tensor

    def __init__(self, config: ContrastiveConfig) -> None:
        super().__init__()
        start = torch.tensor(-math.log(config.temperature))
        if config.learn_temperature:
            self.log_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_scale", start)

    def forward(self) -> Tensor:
        """Return the factor, a scalar."""
        return self.log_scale.float().exp().clamp(max=MAX_LOGIT_SCALE)


class Bias(nn.Module):
    """The number added to every logit of the sigmoid loss."""

    def __init__(self, config: ContrastiveConfig) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(config.initial_bias))

    def forward(self) -> Tensor:
        """Return it, a scalar."""
        return self.value.float()


class Projection(nn.Module):
    """Mean over a picture's tokens, then linear: ``[N, P, C]`` to ``[N, dim]``."""

    def __init__(self, config: ContrastiveConfig, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, config.dim)
        self.temperature = Temperature(config)
        self.bias = Bias(config) if config.loss == "sigmoid" else None

    def forward(self, features: Tensor) -> Tensor:
        """Project; not yet of unit length."""
        return self.linear(features.to(self.linear.weight.dtype).mean(dim=1))


class ContrastiveModel(nn.Module):
    """Pictures and texts in one space of unit vectors."""

    def __init__(self, tower: VisionTower, projection: Projection, words: nn.EmbeddingBag) -> None:
        super().__init__()
        self.vision, self.projection, self.words = tower, projection, words

    def parts(self) -> dict[str, nn.Module]:
        """The parts that phases name. Temperature and bias belong to the projection."""
        return {"vision": self.vision, "projection": self.projection, "words": self.words}

    def embed_images(self, images: Tensor) -> Tensor:
        """Normalised pictures ``[N, 3, S, S]`` to unit vectors ``[N, dim]``."""
        return self.embed_features(self.vision(images))

    def embed_features(self, features: Tensor) -> Tensor:
        """Tower features ``[N, P, C]`` to unit vectors ``[N, dim]``."""
        return F.normalize(self.projection(features).float(), dim=-1)

    def embed_texts(self, tokens: Tensor, offsets: Tensor) -> Tensor:
        """Ragged token ids to unit vectors ``[N, dim]``.

        Args:
            tokens: int64 ``[sum of lengths]``.
            offsets: int64 ``[N]``: start of each text in ``tokens``. An empty text gives zeros.
        """
        return F.normalize(self.words(tokens, offsets).float(), dim=-1)

    def forward(
        self,
        tokens: Tensor,
        offsets: Tensor,
        *,
        images: Tensor | None = None,
        features: Tensor | None = None,
        labels: Tensor | None = None,
        group: Group | str | None = None,
    ) -> Tensor:
        """Return this rank's share of the loss (`kernels.contrastive_loss`, `sigmoid_loss`).

        Args:
            tokens: int64, the texts' ids back to back.
            offsets: int64 ``[N]``: where each text starts.
            images: normalised pictures ``[N, 3, S, S]``, or
            features: what the tower made of them, ``[N, P, C]``.
            labels: int64 ``[N]``: pairs of one label are positives of each other.
            group: ranks whose pairs are contrasted with each other (``"world"``: all).
        """
        if (images is None) == (features is None):
            raise ValueError("images: give either images or features")
        picture = self.embed_images(images) if images is not None else None
        if picture is None:
            assert features is not None
            picture = self.embed_features(features)
        text = self.embed_texts(tokens, offsets)
        scale, bias = self.projection.temperature(), self.projection.bias
        if bias is not None:
            return sigmoid_loss(picture, text, scale, bias(), labels=labels, group=group)
        return contrastive_loss(picture, text, scale, labels=labels, group=group)


def build_contrastive(config: ModelConfig, vocab_size: int) -> ContrastiveModel:
    """Return a freshly initialised model (torch's global generator decides the weights)."""
    tower = VisionTower(config.vision, config.image_size)
    words = nn.EmbeddingBag(vocab_size, config.contrastive.dim, mode="mean")
    nn.init.normal_(words.weight, std=config.contrastive.word_std)
    return ContrastiveModel(tower, Projection(config.contrastive, tower.dim), words)
