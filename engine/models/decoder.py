"""Our decoders: GPT-2-like and Llama-like transformers over one packed row.

Weight for weight those of Hugging Face's `GPT2LMHeadModel` and `LlamaForCausalLM` (see
transformers_weights.py), with query, key and value (and gate and up) in one matrix each: few
large parameters keep the optimizer and the launches cheap. Legend: T rows, H width, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.models.block import Attend, Block, Norm
from engine.models.decoder_config import DecoderConfig
from kernels import Intervals, attention, embedding, linear_cross_entropy, rotary_angles


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
            return embedding(tokens, self.weight)
        assert hidden is not None and targets is not None
        return linear_cross_entropy(
            hidden, self.output_weight, targets, ignore_index=None, reduction="sum"
        )


class Positions(nn.Module):
    """A learned vector for each place in a document."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, width))

    def forward(self, positions: Tensor) -> Tensor:
        """Integer ``[T]`` to ``[T, H]``."""
        return embedding(positions.long(), self.weight)


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
            self.positions = Positions(config.positions, config.width)
        self.embed_dropout = nn.Dropout(config.embed_dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = Norm(config)
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
        angles = None
        if self.positions is not None:
            x = x + self.positions(positions)
        else:
            dim = self.config.width // self.config.heads
            wide = torch.float64 if x.dtype == torch.float64 else torch.float32
            angles = rotary_angles(positions, dim, base=self.config.rope_theta, dtype=wide)
        x, branch = self.embed_dropout(x), None
        again = self.config.gradient_checkpointing and self.training
        for layer, block in enumerate(self.blocks):
            given = (x, branch, layer, angles, attend)
            x, branch = checkpoint(block, *given, use_reentrant=False) if again else block(*given)  # type: ignore[misc]
        return self.final_norm(x, branch)[0]
