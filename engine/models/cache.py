"""Generation with a key-value cache: one pass over the prefix, then one token a step.

All documents of a batch have the same length (same number of picture tokens, same prompt), so the
cache is one rectangle a layer and nothing is padded.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.models.decoder import Decoder
from kernels import Intervals, attention


class KeyValueCache:
    """Keys and values of ``batch`` documents, ``[batch, kv_heads, capacity, D]`` a layer."""

    def __init__(self, decoder: Decoder, batch: int, capacity: int) -> None:
        config = decoder.config
        shape = (batch, config.kv_heads or config.heads, capacity, config.width // config.heads)
        weight = decoder.output_weight
        self.decoder, self.batch, self.capacity, self.length = decoder, batch, capacity, 0
        self._groups = config.heads // shape[1]
        self._keys = [weight.new_empty(shape) for _ in range(config.layers)]
        self._values = [weight.new_empty(shape) for _ in range(config.layers)]

    @torch.no_grad()
    def prefill(self, x: Tensor, positions: Tensor, intervals: Intervals) -> Tensor:
        """Run the packed prefixes ``[batch * length, H]``; return each one's last hidden state."""
        length = x.shape[0] // self.batch
        assert self.length == 0 and length * self.batch == x.shape[0] and length <= self.capacity

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            for store, new in ((self._keys, k), (self._values, v)):
                store[layer][:, :, :length] = new.unflatten(0, (self.batch, length)).transpose(1, 2)
            out = attention(q, k, v, intervals)
            assert isinstance(out, Tensor)
            return out

        hidden = self.decoder.run(x, positions, attend)
        self.length = length
        return hidden.unflatten(0, (self.batch, length))[:, -1]

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """Append one token a document, ``[batch]``; return the hidden states ``[batch, H]``."""
        assert self.length < self.capacity
        at = self.length

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self._keys[layer], self._values[layer]
            keys[:, :, at], values[:, :, at] = k, v
            seen_k = keys[:, :, : at + 1].repeat_interleave(self._groups, dim=1)
            seen_v = values[:, :, : at + 1].repeat_interleave(self._groups, dim=1)
            return F.scaled_dot_product_attention(q[:, :, None], seen_k, seen_v)[:, :, 0]

        positions = torch.full((self.batch,), at, device=tokens.device)
        hidden = self.decoder.run(self.decoder.embed(tokens), positions, attend)
        self.length += 1
        return hidden
