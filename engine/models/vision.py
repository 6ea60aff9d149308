"""Vision towers from timm: pictures to a sequence of features."""

from __future__ import annotations

import difflib
import hashlib
import json
from typing import Any, Literal

import timm
import torch
from pydantic import Field, model_validator
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from engine.models.batchnorm import share_batchnorm
from engine.models.tower_weights import load_tower_weights
from engine.schema import Section

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ResNetConfig(Section):
    """A ResNet of any size (timm's `ResNet`), for small pictures and short runs."""

    block: Literal["basic", "bottleneck"] = "basic"
    """``basic``: two 3x3 convolutions; ``bottleneck``: 1x1, 3x3, 1x1 (4 times as many outputs)."""

    layers: tuple[int, int, int, int] = (1, 1, 1, 1)
    """Blocks in each of the four stages."""

    channels: tuple[int, int, int, int] = (64, 128, 256, 512)
    """Channels of each stage."""

    stem_type: Literal["", "deep", "deep_tiered"] = ""
    """``""``: one 7x7 convolution to 64 channels; ``deep``: three 3x3 ones."""

    stem_width: int = Field(default=32, ge=1)
    """Channels inside a deep stem; it ends with twice as many."""

    stem_pool: bool = True
    """Max-pool after the stem. Without it the map is twice as fine at four times the work."""

    cardinality: int = Field(default=1, ge=1)
    """Groups of the 3x3 convolutions (bottleneck only; ResNeXt-50: 32)."""

    base_width: int = Field(default=64, ge=1)
    """Channels a group, in 64ths of the stage's (bottleneck only; ResNeXt-50: 4)."""

    avg_down: bool = False
    """Average-pool before the 1x1 convolution of a shortcut (ResNet-D)."""

    output_stride: Literal[8, 16, 32] = 32
    """Pixels a cell of the map (half as many without ``stem_pool``); below 32 by dilation."""


class VisionConfig(Section):
    """Which tower sees the pictures, and what it starts from."""

    name: str = "resnext50_32x4d"
    """A timm model (published: ``resnext50_32x4d``; large variant: ``vit_large_patch16_224``), or
    ``resnet`` for one that ``args`` describes."""

    args: ResNetConfig | None = None
    """Shape of the tower when ``name`` is ``resnet``."""

    weights: str | None = None
    """File of pretrained weights (DINO's ``.pth``, or ``.safetensors``); null = from scratch."""

    weights_key: str | None = "teacher"
    """Key of the state dict inside the file (DINO: ``teacher``); null = the file is one."""

    batchnorm_eval: bool = True
    """A frozen tower stays in evaluation mode. Published: false, so that BatchNorm of the
    "frozen" tower used batch statistics and its running ones drifted."""

    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Stochastic depth while the tower trains."""

    drop_prefix_tokens: bool = False
    """Leave out a ViT's class and register tokens. Published: false (197 tokens of ViT-L/16)."""

    pool: int = Field(default=1, ge=1)
    """Average the map over squares of so many cells: fewer picture tokens for the decoder, and a
    smaller feature store. Published: 1 (49 tokens)."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean of each channel, of pixels in [0, 1]."""

    std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation of each channel, of pixels in [0, 1]."""

    @model_validator(mode="after")
    def _args_are_for_resnet(self) -> VisionConfig:
        if self.args is not None and self.name != "resnet":
            raise ValueError(f"args: only for name=resnet, the tower is {self.name}")
        return self


class VisionTower(nn.Module):
    """``[N, 3, S, S]`` normalised pictures to ``[N, P, C]`` features.

    A convolutional tower's map is read row by row: P = (S / 32)² for ResNeXt-50 (49 at 224).
    """

    def __init__(self, config: VisionConfig, image_size: int) -> None:
        super().__init__()
        self.config, self.image_size = config, image_size
        self.mean, self.std = config.mean, config.std
        self.frozen = False
        self.body = _build_body(config, image_size)
        share_batchnorm(self.body)
        if config.weights is not None:
            load_tower_weights(self.body, config.weights, config.weights_key)
        self.num_tokens, self.dim = self._probe()

    @torch.no_grad()
    def _probe(self) -> tuple[int, int]:
        self.eval()
        try:
            features = self(torch.zeros(1, 3, self.image_size, self.image_size))
        except RuntimeError as error:
            raise ValueError(
                f"vision: {self.config.name} with pool={self.config.pool} cannot take pictures of "
                f"{self.image_size} px: {error}"
            ) from None
        self.train()
        return features.shape[1], features.shape[2]

    def forward(self, images: Tensor) -> Tensor:
        """Return the features; without gradient when the tower is frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.body.forward_features(images)  # type: ignore[operator]
        if features.dim() == 4:
            if self.config.pool > 1:
                features = F.avg_pool2d(features, self.config.pool)
            return features.flatten(2).transpose(1, 2)
        prefix = getattr(self.body, "num_prefix_tokens", 0)
        return features[:, prefix:] if self.config.drop_prefix_tokens else features

    def freeze(self, frozen: bool = True) -> None:
        """Stop (or resume) training the tower; a frozen one stays in eval mode as configured."""
        self.frozen = frozen
        self.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> VisionTower:
        """Set the mode; a frozen tower stays in evaluation mode when ``batchnorm_eval``."""
        super().train(mode and not (self.frozen and self.config.batchnorm_eval))
        return self

    @property
    def uses_batchnorm(self) -> bool:
        """Whether the tower has running statistics."""
        return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.modules())


def _build_body(config: VisionConfig, image_size: int) -> nn.Module:
    if config.name == "resnet":
        args = config.args or ResNetConfig()
        body = ResNet(
            BasicBlock if args.block == "basic" else Bottleneck,  # type: ignore[arg-type]
            args.layers,
            num_classes=0,
            global_pool="",
            channels=args.channels,
            stem_type=args.stem_type,
            stem_width=args.stem_width,
            cardinality=args.cardinality,
            base_width=args.base_width,
            avg_down=args.avg_down,
            output_stride=args.output_stride,
            drop_path_rate=config.drop_path,
        )
        if not args.stem_pool:
            body.maxpool = nn.Identity()
        return body
    if not timm.is_model(config.name):
        near = difflib.get_close_matches(config.name, timm.list_models(), n=3, cutoff=0.4)
        raise ValueError(
            f"vision.name: {config.name!r} is no timm model; near: {', '.join(near) or 'none'}"
        )
    options: dict[str, Any] = {}
    pretrained = timm.models.get_pretrained_cfg(config.name)
    if pretrained is not None and pretrained.fixed_input_size:
        options["img_size"] = image_size
    if config.drop_path:
        options["drop_path_rate"] = config.drop_path
    try:
        return timm.create_model(
            config.name, pretrained=False, num_classes=0, global_pool="", **options
        )
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(
            f"vision.name: {config.name} cannot be built for pictures of {image_size} px: {error}"
        ) from None


def tower_hash(tower: VisionTower) -> str:
    """Return the sha256 of what decides the features: shape, normalisation and weights."""
    config = tower.config.model_dump(
        mode="json", include={"name", "args", "drop_prefix_tokens", "pool", "mean", "std"}
    )
    config["image_size"] = tower.image_size
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()
