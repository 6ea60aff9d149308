"""Our decoders: GPT-2-like and Llama-like transformers over one packed row.

Weight for weight those of Hugging Face's `GPT2LMHeadModel` and `LlamaForCausalLM` (see
transformers_weights.py), with query, key and value (and gate and up) in one matrix each: few
large parameters keep the optimizer and the launches cheap. Legend: T rows, H width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.schema import Section
from kernels import Intervals, attention, linear_cross_entropy

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


Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""``(layer, q [T, heads, D], k, v [T, kv_heads, D])`` to ``[T, heads, D]``."""


class Vocabulary(nn.Module):
    """Token embedding and output layer, one matrix when tied.

    Both uses go through `forward`, so that ZeRO-3 finds the weight gathered in either.
    """

    def __init__(self, vocab_size: int, width: int, *, tied: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, width))
        self.output = None if tied else nn.Parameter(torch.empty(vocab_size, width))

    @property
    def output_weight(self) -> Tensor:
        """``[V, H]``."""
        return self.weight if self.output is None else self.output

    def forward(self, tokens: Tensor | None = None, *, hidden: Tensor | None = None,
                targets: Tensor | None = None) -> Tensor:  # fmt: skip
        """Embed ``tokens`` ``[T]`` to ``[T, H]``, or sum the losses of ``hidden`` ``[L, H]``."""
        if tokens is not None:
            return F.embedding(tokens, self.weight)
        assert hidden is not None and targets is not None
        return linear_cross_entropy(
            hidden, self.output_weight, targets, ignore_index=None, reduction="sum"
        )


class SelfAttention(nn.Module):
    """Multi-head attention with fused query, key, value and optional rotary positions."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads or config.heads
        self.dim = config.width // config.heads
        bias = config.kind == "gpt2"
        self.qkv = nn.Linear(config.width, (self.heads + 2 * self.kv_heads) * self.dim, bias=bias)
        self.out = nn.Linear(config.width, config.width, bias=bias)

    def forward(self, x: Tensor, layer: int, rotary: Tensor | None, attend: Attend) -> Tensor:
        """``[T, H]`` to ``[T, H]``; ``rotary`` is cosine and sine, ``[2, T, 1, D / 2]``."""
        qkv = self.qkv(x).view(x.shape[0], self.heads + 2 * self.kv_heads, self.dim)
        if rotary is not None:
            turned = _rotate(qkv[:, : self.heads + self.kv_heads], rotary)
            q, k = turned.split([self.heads, self.kv_heads], dim=1)
            v = qkv[:, self.heads + self.kv_heads :]
        else:
            q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        return self.out(attend(layer, q, k, v).flatten(1))


class FeedForward(nn.Module):
    """GELU (tanh form, as GPT-2) or SwiGLU (Shazeer 2020) with gate and up fused."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gated = config.kind == "llama"
        self.up = nn.Linear(
            config.width, config.inner * (2 if self.gated else 1), bias=not self.gated
        )
        self.down = nn.Linear(config.inner, config.width, bias=not self.gated)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, H]`` to ``[T, H]``."""
        x = self.up(x)
        if self.gated:
            gate, x = x.chunk(2, dim=-1)
            return self.down(F.silu(gate) * x)
        return self.down(F.gelu(x, approximate="tanh"))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attention_norm, self.attention = _norm(config), SelfAttention(config)
        self.forward_norm, self.feed_forward = _norm(config), FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, layer: int, rotary: Tensor | None, attend: Attend) -> Tensor:
        """``[T, H]`` to ``[T, H]``."""
        x = x + self.dropout(self.attention(self.attention_norm(x), layer, rotary, attend))
        return x + self.dropout(self.feed_forward(self.forward_norm(x)))


class Decoder(nn.Module):
    """A language model over one packed row."""

    def __init__(self, config: DecoderConfig, vocab_size: int) -> None:
        """``vocab_size`` counts only where the configuration names none."""
        super().__init__()
        if config.vocab_size is not None and config.vocab_size < vocab_size:
            raise ValueError(
                f"decoder.vocab_size: {config.vocab_size} is less than the tokeniser's {vocab_size}"
            )
        self.config = config
        self.vocabulary = Vocabulary(
            config.vocab_size or vocab_size, config.width, tied=config.tie_embeddings
        )
        self.positions = None
        if config.kind == "gpt2":
            self.positions = nn.Embedding(config.positions, config.width)
        self.embed_dropout = nn.Dropout(config.embed_dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = _norm(config)
        self._initialise()

    def _initialise(self) -> None:
        """GPT-2's: normal 0.02, residual outputs smaller with depth, biases 0 (Radford 2019)."""
        residual = 0.02
        if self.config.kind == "gpt2":
            residual /= math.sqrt(2 * self.config.layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                last = name.endswith(("attention.out.weight", "feed_forward.down.weight"))
                nn.init.normal_(parameter, std=residual if last else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @property
    def output_weight(self) -> Tensor:
        """Weight of the output layer, ``[V, H]``."""
        return self.vocabulary.output_weight

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids ``[T]`` to embeddings ``[T, H]`` (positions are added in `forward`)."""
        return self.vocabulary(tokens)

    def forward(self, x: Tensor, positions: Tensor, intervals: Intervals) -> Tensor:
        """Return the hidden states after the last norm.

        Args:
            x: ``[T, H]`` token embeddings and picture features.
            positions: integer ``[T]``: place of each row in its document.
            intervals: the attention mask.
        """
        dropout = self.config.attention_dropout if self.training else 0.0

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out = attention(q, k, v, intervals, dropout=dropout)
            assert isinstance(out, Tensor)
            return out

        return self.run(x, positions, attend)

    def run(self, x: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """`forward` with any attention, which is how a key-value cache comes in."""
        rotary = None
        if self.positions is not None:
            x = x + self.positions(positions.long())
        else:
            dim = self.config.width // self.config.heads
            rotary = _rotary(positions, dim, self.config.rope_theta, x.dtype)
        x = self.embed_dropout(x)
        for layer, block in enumerate(self.blocks):
            if self.config.gradient_checkpointing and self.training:
                x = checkpoint(block, x, layer, rotary, attend, use_reentrant=False)  # type: ignore[assignment]
            else:
                x = block(x, layer, rotary, attend)
        return self.final_norm(x)


def _norm(config: DecoderConfig) -> nn.Module:
    kind = nn.LayerNorm if config.kind == "gpt2" else nn.RMSNorm
    return kind(config.width, eps=config.layer_norm_eps)


def _rotary(positions: Tensor, dim: int, theta: float, dtype: torch.dtype) -> Tensor:
    """Cosine and sine of the rotary angles (Su et al. 2021), ``[2, T, 1, D / 2]``."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    exponent = torch.arange(0, dim, 2, device=positions.device, dtype=wide) / dim
    angles = positions.to(wide)[:, None] / theta**exponent
    return torch.stack([angles.cos(), angles.sin()])[:, :, None].to(dtype)


def _rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Turn the halves of each head ``[T, heads, D]`` against each other (Llama's pairing)."""
    cosine, sine = rotary.unbind(0)
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cosine - right * sine, right * cosine + left * sine], dim=-1)
