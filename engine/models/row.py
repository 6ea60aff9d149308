"""One flat packed row: documents back to back, with everything a step needs to know about it.

A document is ``P`` picture tokens followed by text, or text alone. Nothing is padded.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from kernels import Intervals, intervals

PrefixAttention = Literal["causal", "bidirectional"]


@dataclass(eq=False)
class Row:
    """A packed row of T positions, D documents, N pictures of P tokens, L losses.

    ``cu_seqlens``, ``prefix_lens`` and ``branches`` stay on the host: masks are made from them
    there, so that no step has to read them back from a device.
    """

    tokens: Tensor
    """int64 ``[T]``; picture positions hold the padding id."""
    positions: Tensor
    """int32 ``[T]``: place in the document, from 0."""
    cu_seqlens: Tensor
    """int32 ``[D + 1]``, on the host."""
    prefix_lens: Tensor
    """int32 ``[D]``, on the host: picture tokens that head each document (0: text only)."""
    image_slots: Tensor
    """int64 ``[N * P]``: positions that picture features fill, in the order of the pictures."""
    loss_rows: Tensor
    """int64 ``[L]``: the position before each target; may repeat where branches share a prefix."""
    targets: Tensor
    """int64 ``[L]``: the token to predict there."""
    branches: Tensor | None = None
    """int32 ``[D]`` on the host: document that each document continues (-1: none), for scoring."""
    _intervals: dict[str, Intervals] = field(default_factory=dict, repr=False)

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.tokens.shape[0]

    @property
    def num_documents(self) -> int:
        """D."""
        return self.cu_seqlens.shape[0] - 1

    @property
    def num_targets(self) -> int:
        """L."""
        return self.targets.shape[0]

    def to(self, device: torch.device | str) -> Row:
        """Return the row with its device-side tensors on ``device``."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return replace(
            self,
            tokens=move(self.tokens),
            positions=move(self.positions),
            image_slots=move(self.image_slots),
            loss_rows=move(self.loss_rows),
            targets=move(self.targets),
            _intervals={name: made.to(device) for name, made in self._intervals.items()},
        )

    def intervals(self, prefix_attention: PrefixAttention = "causal") -> Intervals:
        """Return the attention mask of the row, made once."""
        if prefix_attention not in self._intervals:
            made = intervals(
                self.cu_seqlens,
                prefix_lens=self.prefix_lens if prefix_attention == "bidirectional" else None,
                branches=self.branches,
                total=self.num_tokens,
            )
            self._intervals[prefix_attention] = made.to(self.tokens.device)
        return self._intervals[prefix_attention]
