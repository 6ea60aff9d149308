"""Settings of the contrastive model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.schema import Section


class ContrastiveConfig(Section):
    """CVCL's head (Vong et al. 2024): picture projection, mean of word embeddings, InfoNCE."""

    dim: int = Field(default=512, ge=1)
    """Width of the shared space; published: 512."""

    temperature: float = Field(default=0.07, gt=0)
    """Similarities are divided by it; the starting value when it is learned. Published: 0.07."""

    learn_temperature: bool = False
    """Train the temperature (as CLIP does). Published: false."""

    loss: Literal["infonce", "sigmoid"] = "infonce"
    """``infonce``: each picture picks its text among the batch's, and the reverse (published);
    ``sigmoid``: each pair is a question of its own (SigLIP, Zhai et al. 2023), which starts well
    with ``temperature: 0.1``."""

    initial_bias: float = -10.0
    """Added to every logit of the sigmoid loss, and learned. SigLIP: -10."""

    word_std: float = Field(default=1.0, gt=0)
    """Standard deviation of fresh word embeddings. Published: 1; smaller ones turn faster."""

    include_sos_eos: bool = False
    """Average the embeddings of ``<sos>`` and ``<eos>`` in with the words. Published: true."""
