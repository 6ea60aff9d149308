"""The connector: picture features to the decoder's width."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from engine.schema import Section


class ConnectorConfig(Section):
    """How picture features become decoder inputs."""

    kind: Literal["mlp2x_gelu", "linear"] = "mlp2x_gelu"
    """``mlp2x_gelu``: Linear, GELU, Linear (LLaVA-1.5; published: 590,336 parameters)."""

    norm: Literal["none", "layer"] = "none"
    """``layer``: each token's features are brought to mean 0 and variance 1 first (LayerNorm
    without weights). Published: ``none`` (ours, off by default)."""

    positions: bool = False
    """Add a learned embedding of each patch's place. Published: false (ours, off by default)."""


class Connector(nn.Module):
    """``[N, P, C]`` features to ``[N, P, H]`` decoder inputs."""

    def __init__(self, config: ConnectorConfig, *, dim: int, width: int, num_tokens: int) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.Identity()
        if config.norm == "layer":
            self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        layers: list[nn.Module] = [nn.Linear(dim, width)]
        if config.kind == "mlp2x_gelu":
            layers += [nn.GELU(), nn.Linear(width, width)]
        self.layers = nn.Sequential(*layers)
        self.positions = None
        if config.positions:
            self.positions = nn.Parameter(torch.zeros(num_tokens, width))

    def forward(self, features: Tensor) -> Tensor:
        """Project; the result has the weights' dtype."""
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        out = self.layers(self.norm(features.to(first.weight.dtype)))
        return out if self.positions is None else out + self.positions
