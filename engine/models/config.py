"""The model section of a configuration: every part's own section, and what joins them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.models.connector import ConnectorConfig
from engine.models.contrastive_config import ContrastiveConfig
from engine.models.decoder_config import DecoderConfig
from engine.models.vision import VisionConfig
from engine.schema import Section


class ModelConfig(Section):
    """What the networks look like. One section serves both kinds, generative and contrastive."""

    image_size: int = Field(default=224, ge=16)
    """Side of the square pictures in pixels; published: 224."""

    vision: VisionConfig = VisionConfig()
    connector: ConnectorConfig = ConnectorConfig()
    decoder: DecoderConfig = DecoderConfig()
    contrastive: ContrastiveConfig = ContrastiveConfig()

    prefix_attention: Literal["causal", "bidirectional"] = "causal"
    """How picture tokens see each other: ``causal`` like text (published) or ``bidirectional``,
    each all of them. Text is causal either way."""
