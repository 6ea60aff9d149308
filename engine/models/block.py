"""What a decoder is made of: norms, attention, feed-forward, the block that joins them.

The residual stream waits for its next addend: each norm takes the branch before it, drops, adds and
normalises in one pass (`kernels.layer_norm`). Legend: T rows, H width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from engine.models.decoder_config import DecoderConfig
from kernels import bias_gelu, layer_norm, rms_norm, rotary, swiglu

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""``(layer, q [T, heads, D], k, v [T, kv_heads, D])`` to ``[T, heads, D]``."""

Angles = tuple[Tensor, Tensor]
"""Cosines and sines of rotary positions, ``[T, D / 2]`` each."""


class Norm(nn.Module):
    """LayerNorm or RMSNorm, together with the addition before it."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.eps, self.dropout = config.layer_norm_eps, config.dropout
        self.weight = nn.Parameter(torch.ones(config.width))
        self.bias = nn.Parameter(torch.zeros(config.width)) if config.kind == "gpt2" else None

    def forward(self, x: Tensor, branch: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the norm of ``x + dropout(branch)`` and that sum, both ``[T, H]``."""
        dropout = self.dropout if self.training else 0.0
        if self.bias is not None:
            if branch is None:
                return layer_norm(x, self.weight, self.bias, eps=self.eps), x
            return layer_norm(
                branch, self.weight, self.bias, residual=x, dropout=dropout, eps=self.eps
            )
        if branch is None:
            return rms_norm(x, self.weight, eps=self.eps), x
        return rms_norm(branch, self.weight, residual=x, dropout=dropout, eps=self.eps)


class LinearGelu(nn.Linear):
    """``gelu(x Wᵀ + b)`` (tanh form, as GPT-2); on a GPU the bias is added with the activation."""

    def forward(self, input: Tensor) -> Tensor:
        """``[T, H]`` to ``[T, inner]``."""
        if input.is_cuda:
            return bias_gelu(nn.functional.linear(input, self.weight), self.bias)
        return bias_gelu(super().forward(input))


class SelfAttention(nn.Module):
    """Multi-head attention with fused query, key, value and optional rotary positions."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads or config.heads
        self.dim = config.width // config.heads
        bias = config.kind == "gpt2"
        self.qkv = nn.Linear(config.width, (self.heads + 2 * self.kv_heads) * self.dim, bias=bias)
        self.out = nn.Linear(config.width, config.width, bias=bias)

    def forward(self, x: Tensor, layer: int, angles: Angles | None, attend: Attend) -> Tensor:
        """``[T, H]`` to ``[T, H]``."""
        qkv = self.qkv(x).view(x.shape[0], self.heads + 2 * self.kv_heads, self.dim)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        if angles is not None:
            turned = rotary(qkv[:, : self.heads + self.kv_heads], None, *angles)
            q, k = turned.split([self.heads, self.kv_heads], dim=1)
        return self.out(attend(layer, q, k, v).flatten(1))


class FeedForward(nn.Module):
    """GELU or SwiGLU (Shazeer 2020) with gate and up fused."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gated = config.kind == "llama"
        if self.gated:
            self.up: nn.Linear = nn.Linear(config.width, 2 * config.inner, bias=False)
        else:
            self.up = LinearGelu(config.width, config.inner)
        self.down = nn.Linear(config.inner, config.width, bias=not self.gated)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, H]`` to ``[T, H]``."""
        x = self.up(x)
        return self.down(swiglu(x) if self.gated else x)


class Block(nn.Module):
    """A pre-norm transformer block; the caller's next norm adds what it returns."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attention_norm, self.attention = Norm(config), SelfAttention(config)
        self.forward_norm, self.feed_forward = Norm(config), FeedForward(config)

    def forward(
        self, x: Tensor, branch: Tensor | None, layer: int, angles: Angles | None, attend: Attend
    ) -> tuple[Tensor, Tensor]:
        """Return the residual stream and what is still to be added to it, ``[T, H]`` each."""
        y, x = self.attention_norm(x, branch)
        y, x = self.forward_norm(x, self.attention(y, layer, angles, attend))
        return x, self.feed_forward(y)
