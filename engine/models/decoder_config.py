"""Settings of the language model, and the published shapes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from engine.schema import Section

PRESETS: dict[str, dict[str, Any]] = {
    "babygpt2": {
        "kind": "gpt2", "layers": 8, "width": 256, "heads": 32, "inner": 1024, "positions": 1024,
        "dropout": 0.15, "attention_dropout": 0.15, "embed_dropout": 0.15,
    },
    "tinyllama-1.1b": {
        "kind": "llama", "layers": 22, "width": 2048, "heads": 32, "kv_heads": 4, "inner": 5632,
        "positions": 2048, "dropout": 0.0, "attention_dropout": 0.0, "embed_dropout": 0.0,
        "tie_embeddings": False,
    },
}  # fmt: skip
"""``babygpt2``: 7,182,336 parameters with a vocabulary of 2,350 (the published language model);
``tinyllama-1.1b``: the shape of the published large variant (Zhang et al. 2024)."""


class DecoderConfig(Section):
    """Shape of the language model. Defaults: babygpt2."""

    preset: Literal["babygpt2", "tinyllama-1.1b"] | None = None
    """Start from a published shape; keys given beside it win."""

    kind: Literal["gpt2", "llama"] = "gpt2"
    """``gpt2``: LayerNorm, learned positions, GELU; ``llama``: RMSNorm, rotary, SwiGLU."""

    layers: int = Field(default=8, ge=1)
    """Transformer blocks."""

    width: int = Field(default=256, ge=8)
    """Width H of the residual stream."""

    heads: int = Field(default=32, ge=1)
    """Query heads; ``width / heads`` must be a multiple of 8."""

    kv_heads: int | None = Field(default=None, ge=1)
    """Key and value heads, a divisor of ``heads``; null = as many."""

    inner: int = Field(default=1024, ge=1)
    """Width of the feed-forward layer."""

    positions: int = Field(default=1024, ge=1)
    """Longest document, in tokens."""

    dropout: float = Field(default=0.15, ge=0, lt=1)
    """Dropout on what each half-block adds to the residual stream. Published: 0.15."""

    attention_dropout: float = Field(default=0.15, ge=0, lt=1)
    """Dropout on attention weights. Published: 0.15."""

    embed_dropout: float = Field(default=0.15, ge=0, lt=1)
    """Dropout on the decoder's input. Published: 0.15."""

    tie_embeddings: bool = True
    """The output layer is the token embedding."""

    vocab_size: int | None = Field(default=None, ge=5)
    """Entries of the embedding; null = the tokeniser's."""

    layer_norm_eps: float = Field(default=1e-5, gt=0)
    """Added to variances."""

    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary frequencies (``llama``)."""

    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, about a third more time."""

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") in PRESETS:
            return {**PRESETS[values["preset"]], **values}
        return values

    @model_validator(mode="after")
    def _heads_fit(self) -> DecoderConfig:
        if self.width % self.heads or (self.width // self.heads) % 8:
            raise ValueError(
                f"heads: width / heads must be a multiple of 8, got {self.width} / {self.heads}"
            )
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"kv_heads: must divide heads = {self.heads}, got {self.kv_heads}")
        return self
