"""The implementations of the image op: plain torch, the registered operator, the kernels' door.

Legend: N pictures, Hs x Ws as stored, H x W of the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import dispatch
from ..doors import is_traced, refuse_device
from ..reference import augment_reference
from .parameters import CHANGES, COLUMNS
from .resize import resized_by_products, resized_one_by_one

__all__ = ["arranged", "augment_eager", "augment_table"]

GREY = (0.2989, 0.587, 0.114)
"""Luma of ITU-R BT.601, with torchvision's digits."""
CHUNK = 16
"""Pictures at a time on a CPU: what is between the steps stays in its cache."""


def augment_eager(
    images: Tensor,
    table: Tensor,
    changes: int,
    height: int,
    width: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    layout: str,
    patch: int,
    antialias: bool,
) -> Tensor:
    """Return what `augment_table` does, by torch's operations in float32."""
    given = (changes, height, width, mean, std, dtype, layout, patch, antialias)
    if images.is_cuda or images.shape[0] <= CHUNK:
        return _eager(images, table, *given)
    pairs = zip(images.split(CHUNK), table.split(CHUNK), strict=True)
    return torch.cat([_eager(some, rows, *given) for some, rows in pairs])


def _eager(
    images: Tensor, table: Tensor, changes: int, height: int, width: int, mean: Sequence[float],
    std: Sequence[float], dtype: torch.dtype, layout: str, patch: int, antialias: bool,
) -> Tensor:  # fmt: skip
    columns = dict(zip(COLUMNS, table[:, :, None, None, None].unbind(1), strict=True))
    resized = resized_by_products if images.is_cuda else resized_one_by_one
    x = resized(images, table, height, width, antialias) * (1 / 255)  # [N, 3, H, W]
    for at, name in enumerate(CHANGES):
        if changes >> at & 1:
            x = _changed(x, name, columns[name])
    shift, scale = (x.new_tensor(v)[:, None, None] for v in (mean, std))
    return arranged(((x - shift) / scale).to(dtype), layout, patch)


def _grey(x: Tensor) -> Tensor:
    red, green, blue = x.split(1, 1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def _changed(x: Tensor, name: str, amount: Tensor) -> Tensor:
    if name == "brightness":
        return (x * amount).clamp_(0, 1)
    if name == "contrast":
        return (x * amount + (1 - amount) * _grey(x).mean((2, 3), keepdim=True)).clamp_(0, 1)
    if name == "saturation":
        return (x * amount + (1 - amount) * _grey(x)).clamp_(0, 1)
    if name == "grey":
        return torch.where(amount > 0, _grey(x), x)
    return torch.where(amount == 0, x, _turned(x, amount))


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """Hue, saturation, value and back; hues are sixths of the circle."""
    value, least = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    span = value - least
    some = torch.where(span == 0, 1.0, span)
    red, green, blue = x.split(1, 1)
    hue = torch.where(value == green, 2 + (blue - red) / some, 4 + (red - green) / some)
    hue = torch.where(value == red, (green - blue) / some, hue) + 6 * turn
    k = hue + torch.tensor([5.0, 3.0, 1.0], device=x.device)[:, None, None]
    k = k - torch.floor(k * (1 / 6)) * 6
    return value - span * torch.minimum(k, 4 - k).clamp(0, 1)


def arranged(x: Tensor, layout: str, patch: int) -> Tensor:
    """Return ``[N, 3, H, W]`` in the layout that was asked for."""
    if layout == "nchw":
        return x.contiguous()
    if layout == "nhwc":
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    n, _, height, width = x.shape
    high, wide = height // patch, width // patch
    x = x.reshape(n, 3, high, patch, wide, patch).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(n, high * wide, 3 * patch * patch).contiguous()


# Kernel ------------------------------------------------------------------------------------------


@torch.library.custom_op("babyvlm::augment_images", mutates_args=())
def augment_table(
    images: Tensor,
    table: Tensor,
    changes: int,
    height: int,
    width: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    layout: str,
    patch: int,
    antialias: bool,
) -> Tensor:
    """Return the pictures that ``table`` (float32 ``[N, 10]``) makes of ``images``.

    ``changes``: bit k is set if the k-th of `CHANGES` is read; the rest as in `augment_images`.
    """
    from . import augment_triton

    return augment_triton.augment(
        images, table, changes, height, width, list(mean), list(std), dtype, layout, patch,
        antialias,
    )  # fmt: skip


@augment_table.register_fake
def _(
    images: Tensor, table: Tensor, changes: int, height: int, width: int, mean: Sequence[float],
    std: Sequence[float], dtype: torch.dtype, layout: str, patch: int, antialias: bool,
) -> Tensor:  # fmt: skip
    n = images.shape[0]
    return arranged(images.new_empty((n, 3, height, width), dtype=dtype), layout, patch)


def _triton(images: Tensor, *given: object) -> Tensor:
    if is_traced():
        return augment_table(images, *given)
    from . import augment_triton

    return augment_triton.augment(images, *given)  # type: ignore[arg-type]


dispatch.register("augment_images", "triton", _triton, refuses=refuse_device, devices=("cuda",))
dispatch.register("augment_images", "eager", augment_eager)
dispatch.register("augment_images", "reference", augment_reference, opt_in=True)
