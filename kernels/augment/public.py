"""Stored uint8 pictures to augmented, normalised input of a vision tower, in one pass.

What is done to a picture is a row of a table, drawn by `sample_parameters` from (seed, number of
the picture) or made by the caller; the table is then carried out. Apart, crop, resize, flip, three
changes of colour, normalisation and the cast are a dozen passes over the picture; here it is read
once (with contrast, which needs the mean of the picture first, twice) and written once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .. import dispatch
from . import ops
from .parameters import CHANGES, COLUMNS, Parameters, sample_parameters

__all__ = ["Parameters", "augment_images", "sample_parameters"]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_LAYOUTS = ("nhwc", "nchw", "patches")
_LONGEST = 16_384

assert ops  # registers the implementations


def augment_images(
    images: Tensor,
    *,
    size: int | tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    parameters: Parameters | None = None,
    seed: int | Tensor | None = None,
    index: Tensor | None = None,
    sizes: Tensor | None = None,
    scale: tuple[float, float] | None = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    grayscale: float = 0.0,
    antialias: bool = True,
    dtype: torch.dtype = torch.bfloat16,
    layout: Literal["nhwc", "nchw", "patches"] = "nhwc",
    patch: int = 16,
    train: bool = True,
) -> Tensor:
    """Return pictures that are cropped, resized, flipped, recoloured and normalised.

    In this order: random resized crop (bilinear within the window), left-right flip, brightness,
    contrast (about the mean grey of the picture so far), saturation, hue, grey, normalisation. Each
    change of colour is torchvision's (``transforms.v2.functional``) on pictures in [0, 1], clamped
    after each; torchvision shuffles them, here the order is fixed. A blur is no part of it: it
    reads neighbours of what this op computes, so it would be a second pass, and may as well follow
    it (it and the normalisation can change places). Nothing carries a gradient.

    Args:
        images: uint8 ``[N, Hs, Ws, 3]``, sides at most 16,384. Rows and pictures may lie apart.
        size: height and width of the result, or both in one.
        mean, std: of each channel, in units where white is 1.
        parameters: what is done to each picture. In place of seed, index, sizes and the options
            from ``scale`` to ``grayscale``, which are those of `sample_parameters`.
        seed: an int of 64 bits or an int64 tensor of one element.
        index: int64 ``[N]``, number of each picture, which its draws depend on; None: its place in
            the batch.
        sizes: integer ``[N, 2]``, height and width of the part of each picture that is filled.
        antialias: average over all pixels that an output pixel covers where the window is larger
            than the result, as torchvision does; False: always between the nearest two.
        dtype: of the result: bfloat16, float16 or float32, in which all is computed.
        layout: ``nchw``: ``[N, 3, H, W]``. ``nhwc``: the same shape in ``channels_last`` memory.
            ``patches``: ``[N, H/p * W/p, 3 * p * p]``, as ``unfold`` lays patches out, so that a
            patch embedding is one product with ``conv.weight.flatten(1).T``.
        patch: p, for ``patches``; it must divide both sides.
        train: False: the whole picture, resized and normalised; nothing is drawn.

    Raises:
        ValueError: naming the argument that is wrong. What the table holds cannot be checked
            without waiting for the GPU; windows beyond the picture repeat its last pixels.
    """
    height, width = (size, size) if isinstance(size, int) else size
    _check(images, height, width, mean, std, dtype, layout, patch)
    if parameters is not None:
        if seed is not None or index is not None or sizes is not None:
            raise ValueError("parameters: expected in place of seed, index and sizes, got both")
        _check_parameters(parameters, images)
    else:
        if train and seed is None:
            raise ValueError("seed: an integer of 64 bits expected to train, got None")
        if index is None:
            index = torch.arange(images.shape[0], device=images.device)
        if index.shape != images.shape[:1] or index.device != images.device:
            raise ValueError(
                f"index: int64 [{images.shape[0]}] on {images.device} expected, got {index.dtype} "
                f"of shape {tuple(index.shape)} on {index.device}"
            )
        parameters = sample_parameters(
            index, seed=0 if seed is None else seed, height=images.shape[1], width=images.shape[2],
            sizes=sizes, scale=scale, ratio=ratio, flip=flip, brightness=brightness,
            contrast=contrast, saturation=saturation, hue=hue, grayscale=grayscale, train=train,
        )  # fmt: skip
    table, names = parameters
    changes = sum(1 << at for at, name in enumerate(CHANGES) if name in names)
    return dispatch.choose("augment_images", images)(
        images, table, changes, height, width, [float(x) for x in mean], [float(x) for x in std],
        dtype, layout, patch, antialias,
    )  # fmt: skip


def _check(
    images: Tensor, height: int, width: int, mean: Sequence[float], std: Sequence[float],
    dtype: torch.dtype, layout: str, patch: int,
) -> None:  # fmt: skip
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[3] != 3:
        raise ValueError(
            f"images: uint8 [N, Hs, Ws, 3] expected, got {images.dtype} of shape "
            f"{tuple(images.shape)}"
        )
    if not all(0 < side <= _LONGEST for side in images.shape[1:3]):
        raise ValueError(
            f"images: sides of 1 to {_LONGEST} expected, got {tuple(images.shape[1:3])}"
        )
    if not all(0 < side <= _LONGEST for side in (height, width)):
        raise ValueError(f"size: sides of 1 to {_LONGEST} expected, got {(height, width)}")
    if len(mean) != 3:
        raise ValueError(f"mean: three numbers expected, got {mean}")
    if len(std) != 3 or not all(x > 0 for x in std):
        raise ValueError(f"std: three positive numbers expected, got {std}")
    if dtype not in _DTYPES:
        raise ValueError(f"dtype: float32, float16 or bfloat16 expected, got {dtype}")
    if layout not in _LAYOUTS:
        raise ValueError(f"layout: one of {', '.join(_LAYOUTS)} expected, got {layout!r}")
    if layout == "patches" and (patch < 1 or height % patch or width % patch):
        raise ValueError(f"patch: a divisor of {height} and {width} expected, got {patch}")


def _check_parameters(parameters: Parameters, images: Tensor) -> None:
    table, names = parameters
    if table.shape != (images.shape[0], len(COLUMNS)) or table.dtype != torch.float32:
        raise ValueError(
            f"parameters: a table of float32 [{images.shape[0]}, {len(COLUMNS)}] expected, got "
            f"{table.dtype} of shape {tuple(table.shape)}"
        )
    if table.device != images.device:
        raise ValueError(f"parameters: table lies on {table.device}, images on {images.device}")
    for name in names:
        if name not in CHANGES:
            raise ValueError(f"parameters: changes of {', '.join(CHANGES)} expected, got {name!r}")
