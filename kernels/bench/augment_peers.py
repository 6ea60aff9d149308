"""Who augments: ours, torchvision one picture at a time, batched torch operations.

All are given the same draws: others as numbers on the host or tables on the device, for free.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..augment.ops import arranged
from ..augment.public import augment_images
from .attention_peers import forced
from .augment_cases import MEAN, OP, STD, AugmentInputs, drawn, options
from .peers import Peer, Run, anywhere, installed, needs_gpu, needs_triton, register_peer

__all__: list[str] = []


def _run(forward: Callable[[], Tensor], inputs: AugmentInputs, **more: Any) -> Run:
    return Run(inputs, forward, None, lambda out, _: {"out": out}, **more)


def _ours(name: str, inputs: AugmentInputs) -> Run:
    given = options(inputs)
    call = partial(augment_images, inputs.images, **given)
    return _run(call, inputs, around=partial(forced, OP, name))


def _compiled(inputs: AugmentInputs) -> Run:
    torch._dynamo.reset()
    given = options(inputs)
    index = given.pop("index")
    compiled = torch.compile(
        lambda images, index: augment_images(images, index=index, **given), dynamic=False
    )
    around = partial(forced, OP, "eager")
    return _run(lambda: compiled(inputs.images, index), inputs, around=around)


def _finish(x: Tensor, inputs: AugmentInputs) -> Tensor:
    """Normalise ``[N, 3, H, W]`` in [0, 1] and lay it out."""
    mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (MEAN, STD))
    return arranged(((x - mean) / std).to(inputs.dtype), inputs.spec.layout, inputs.spec.patch)


def _torchvision(inputs: AugmentInputs) -> Run:
    from torchvision.transforms.v2 import functional as tv

    spec, size = inputs.spec, [inputs.spec.size] * 2
    table, changes = drawn(spec)
    rows = [(tuple(map(int, row[:5])), row[5:]) for row in table.tolist()]

    def one(image: Tensor, window: tuple[int, ...], colours: list[float]) -> Tensor:
        top, left, height, width, flip = window
        x = tv.to_dtype(tv.crop(image, top, left, height, width), torch.float32, scale=True)
        x = tv.resize(x, size, antialias=spec.antialias)
        x = tv.horizontal_flip(x) if flip else x
        if changes:
            brightness, contrast, saturation, hue, grey = colours
            x = tv.adjust_saturation(
                tv.adjust_contrast(tv.adjust_brightness(x, brightness), contrast), saturation
            )
            x = tv.adjust_hue(x, hue)
            x = tv.rgb_to_grayscale(x, num_output_channels=3) if grey else x
        return x

    def forward() -> Tensor:
        images = inputs.images.permute(0, 3, 1, 2)
        made = [one(image, *row) for image, row in zip(images, rows, strict=True)]
        return _finish(torch.stack(made), inputs)

    return _run(forward, inputs)


def _grid_sample(inputs: AugmentInputs, *, compiled: bool = False) -> Run:
    """One affine map a picture, as libraries of batched augmentation do it."""
    spec = inputs.spec
    table = drawn(spec).table.to(inputs.images.device)

    def forward(images: Tensor, table: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2).float() * (1 / 255)
        start, extent = table[:, None, :2], table[:, None, 2:4]
        at = (torch.arange(spec.size, device=x.device) + 0.5).expand(spec.n, -1) / spec.size
        at = torch.stack([at, torch.where(table[:, 4:5] > 0, 1 - at, at)], 2)  # [N, size, 2]
        at = start + (at * extent).clamp(min=0.5).minimum(extent - 0.5)  # in pixels
        y, x_at = (at * (2 / spec.stored) - 1).unbind(2)
        shape = (spec.n, spec.size, spec.size)
        grid = torch.stack([x_at[:, None].expand(shape), y[:, :, None].expand(shape)], 3)
        return _finish(F.grid_sample(x, grid, align_corners=False), inputs)

    if compiled:
        torch._dynamo.reset()
        forward = torch.compile(forward, dynamic=False)
    return _run(lambda: forward(inputs.images, table), inputs)


def _nearest_two_only(spec: Any) -> str | None:
    if spec.antialias:
        return "knows no antialias"
    return "crop and flip only" if spec.colours else None


for _name, _doc, _where in (
    ("triton", "ours: Triton kernels", needs_triton),
    ("eager", "ours: torch's operations", anywhere),
):
    register_peer(Peer(OP, _name, _doc, _where, partial(_ours, _name), ours=True))
register_peer(
    Peer(OP, "torchvision", "torchvision v2, one picture after another",
         partial(installed, "torchvision.transforms.v2", gpu=False), _torchvision)
)  # fmt: skip
register_peer(
    Peer(OP, "torch_compile", "our eager path, compiled", needs_gpu, _compiled, full_only=True)
)
register_peer(
    Peer(OP, "grid_sample", "batched torch operations", anywhere, _grid_sample,
         _nearest_two_only)
)  # fmt: skip
register_peer(
    Peer(OP, "grid_compile", "the same, compiled", needs_gpu,
         partial(_grid_sample, compiled=True), _nearest_two_only, full_only=True)
)  # fmt: skip
