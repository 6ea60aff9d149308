"""What is done to each picture: drawn as a pure function of (seed, the picture's number).

Counter-based: the k-th draw of a picture is a hash of (seed, number, k), mixed as in
`kernels.dropout`, and no generator has a state. Batch size, ranks, workers and resuming therefore
change no picture. The law is that of torchvision's ``RandomResizedCrop``,
``RandomHorizontalFlip``, ``ColorJitter`` and ``RandomGrayscale``. All arithmetic is float64 and
uses only what IEEE 754 rounds in one way (sums, products, quotients, square roots; the exponential
is made of them), so that CPUs and GPUs give the same bits. Legend: N pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import dispatch
from ..doors import is_traced, refuse_device
from ..dropout import _mix, key_words, seed_tensor

__all__ = ["CHANGES", "COLUMNS", "Law", "Parameters", "sample_parameters"]

COLUMNS = (
    "top", "left", "height", "width", "flip", "brightness", "contrast", "saturation", "hue", "grey",
)  # fmt: skip
"""Of the table: the window in pixels of the stored picture, 1 to flip, three factors (1: as it is),
the turn of the hue (a share of the circle, -0.5 to 0.5; 0: as it is), 1 for a grey picture."""
NEUTRAL = (0.0, 1.0, 1.0, 1.0, 0.0, 0.0)
"""Flip to grey of a picture that stays as it is."""
CHANGES = ("brightness", "contrast", "saturation", "hue", "grey")
"""Changes of colours, in the order in which they are made."""

TRIES = 10
"""Windows that are tried before the centre is taken, as in torchvision."""
# One fixed place among the draws for each decision: switching one on or off leaves the others.
FLIP, BRIGHTNESS, CONTRAST, SATURATION, HUE, GREY = range(6)
CROP = 8  # four for each try: area, ratio, top, left
DRAWS = CROP + 4 * TRIES

EXP_HALVINGS = 4
EXP_TERMS = tuple(1 / math.factorial(k) for k in range(13))
"""``exp(t)`` is the Taylor polynomial at ``t / 2⁴``, squared four times: 1e-15 for |t| < 4."""


class Parameters(NamedTuple):
    """What is done to each of N pictures; from `sample_parameters`, or of one's own."""

    table: Tensor
    """float32 ``[N, 10]``, a column for each of `COLUMNS`. Windows lie inside of the pictures."""
    changes: tuple[str, ...] = CHANGES
    """Those of `CHANGES` that may differ from neutral in some row; others are not even read."""


class Law(NamedTuple):
    """What is drawn, as numbers; see `sample_parameters`."""

    area: tuple[float, float] | None
    ratio: tuple[float, float]
    flip: float
    widths: tuple[float, float, float]
    """Of brightness, contrast and saturation."""
    hue: float
    grey: float


def sample_parameters(
    index: Tensor,
    *,
    seed: int | Tensor,
    height: int,
    width: int,
    sizes: Tensor | None = None,
    scale: tuple[float, float] | None = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    grayscale: float = 0.0,
    train: bool = True,
) -> Parameters:
    """Draw what is done to each picture.

    Args:
        index: int64 ``[N]``, what the draws of each picture are keyed by: its number in the data
            set, for example, plus the epoch times the number of pictures.
        seed: an int of 64 bits or an int64 tensor of one element.
        height, width: of the stored pictures.
        sizes: integer ``[N, 2]``, height and width of the part of each that is filled, from its top
            left corner; None: all of it.
        scale: share of the area that the crop keeps, (least, most); None: no crop.
        ratio: width over height of the crop, (least, most), drawn log-uniformly.
        flip: probability of a left-right flip.
        brightness, contrast, saturation: x draws a factor between max(0, 1 - x) and 1 + x.
        hue: turns the hue by -hue to hue of the circle, at most 0.5.
        grayscale: probability of a grey picture.
        train: False: nothing is drawn, every picture is whole and stays as it is.

    Returns:
        The table, on ``index``'s device, and which colours may change. Pictures in which no window
        of `TRIES` fits give the largest centred one of an allowed ratio.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    _check(index, height, width, sizes)
    law = _law(scale, ratio, flip, (brightness, contrast, saturation), hue, grayscale)
    if not train:
        law = Law(None, law.ratio, 0.0, (0.0, 0.0, 0.0), 0.0, 0.0)
    amounts = dict(zip(CHANGES, (*law.widths, law.hue, law.grey), strict=True))
    changes = tuple(name for name, amount in amounts.items() if amount > 0)
    number = seed_tensor(seed, index.device)
    table = dispatch.choose("sample_parameters", index)(index, number, sizes, height, width, law)
    return Parameters(table, changes)


def _check(index: Tensor, height: int, width: int, sizes: Tensor | None) -> None:
    if index.dtype != torch.int64 or index.dim() != 1:
        raise ValueError(
            f"index: int64 [N] expected, got {index.dtype} of shape {tuple(index.shape)}"
        )
    for name, value in (("height", height), ("width", width)):
        if value < 1:
            raise ValueError(f"{name}: at least 1 expected, got {value}")
    if sizes is None:
        return
    if sizes.shape != (index.shape[0], 2) or sizes.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"sizes: int32 or int64 [{index.shape[0]}, 2] expected, got {sizes.dtype} of shape "
            f"{tuple(sizes.shape)}"
        )
    if sizes.device != index.device:
        raise ValueError(f"sizes: lies on {sizes.device}, index on {index.device}")


def _law(
    scale: tuple[float, float] | None,
    ratio: tuple[float, float],
    flip: float,
    widths: tuple[float, float, float],
    hue: float,
    grayscale: float,
) -> Law:
    if scale is not None and not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale: 0 < least <= most <= 1 expected, got {scale}")
    if not (0.02 <= ratio[0] <= ratio[1] <= 50):
        raise ValueError(f"ratio: 0.02 <= least <= most <= 50 expected, got {ratio}")
    for name, value in (("flip", flip), ("grayscale", grayscale)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: a probability expected, got {value}")
    for name, value in zip(CHANGES, widths, strict=False):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: at least 0 expected, got {value}")
    if not 0 <= hue <= 0.5:
        raise ValueError(f"hue: in [0, 0.5] expected, got {hue}")
    area = None if scale is None else (float(scale[0]), float(scale[1]))
    low, high = float(ratio[0]), float(ratio[1])
    return Law(area, (low, high), float(flip), widths, float(hue), float(grayscale))


# Eager -------------------------------------------------------------------------------------------


def uniforms(index: Tensor, seed: Tensor, draws: int) -> Tensor:
    """Return draws 0 to ``draws`` of each picture, uniform in [0, 1), float64 ``[N, draws]``.

    Args:
        index: int64 ``[N]``.
        seed: int64 of one element.
        draws: how many.
    """
    low, high = seed.view(torch.int32).unbind()  # little-endian words
    s0 = _mix(low.clone())
    s1 = _mix(high ^ s0)
    word, above = index.contiguous().view(torch.int32).view(-1, 2).unbind(1)
    first = _mix(_mix(word + s0) ^ (key_words(above) + s1))
    second = _mix(first + s1)
    number = key_words(torch.arange(draws, dtype=torch.int32, device=index.device))
    words = _mix(_mix(first[:, None] ^ number) + second[:, None])
    return (words.long() & 0xFFFF_FFFF).double() * 2.0**-32


def _exp(t: Tensor) -> Tensor:
    x = t * 0.5**EXP_HALVINGS
    value = torch.full_like(x, EXP_TERMS[-1])
    for term in reversed(EXP_TERMS[:-1]):
        value = value * x + term
    for _ in range(EXP_HALVINGS):
        value = value * value
    return value


def _windows(u: Tensor, high: Tensor, wide: Tensor, law: Law) -> list[Tensor]:
    """Top, left, height and width, float64 ``[N]`` each; ``high``, ``wide``: of the pictures."""
    if law.area is None:
        return [torch.zeros_like(high), torch.zeros_like(high), high, wide]
    u = u[:, CROP:].unflatten(1, (TRIES, 4))
    (least, most), (low, top) = law.area, (math.log(x) for x in law.ratio)
    area = (u[..., 0] * (most - least) + least) * (high * wide)[:, None]
    ratio = _exp(u[..., 1] * (top - low) + low)
    width = torch.floor(torch.sqrt(area * ratio) + 0.5)
    height = torch.floor(torch.sqrt(area / ratio) + 0.5)
    room_y, room_x = high[:, None] - height, wide[:, None] - width
    fits = (width >= 1) & (height >= 1) & (room_y >= 0) & (room_x >= 0)
    drawn = torch.stack(
        [
            torch.floor(u[..., 2] * (room_y + 1)),
            torch.floor(u[..., 3] * (room_x + 1)),
            height,
            width,
        ]
    )  # [4, N, tries]
    at = fits.to(torch.int8).argmax(1, keepdim=True)
    drawn = drawn.gather(2, at.expand(4, -1, -1)).squeeze(2)
    # None fits: the largest centred window of an allowed ratio.
    height = torch.minimum(high, torch.floor(wide / law.ratio[0] + 0.5))
    width = torch.minimum(wide, torch.floor(high * law.ratio[1] + 0.5))
    height, width = height.clamp(min=1), width.clamp(min=1)
    centre = [torch.floor((high - height) * 0.5), torch.floor((wide - width) * 0.5), height, width]
    found = fits.any(1)
    return [torch.where(found, a, b) for a, b in zip(drawn, centre, strict=True)]


def _eager(
    index: Tensor, seed: Tensor, sizes: Tensor | None, height: int, width: int, law: Law
) -> Tensor:
    u = uniforms(index, seed, DRAWS)
    filled = torch.full((2, 1), 0.0, dtype=torch.float64, device=index.device)
    filled[0], filled[1] = height, width
    high, wide = (filled.expand(2, index.shape[0]) if sizes is None else sizes.T.double()).unbind()
    columns = [*_windows(u, high, wide, law), (u[:, FLIP] < law.flip).double()]
    for place, amount in zip((BRIGHTNESS, CONTRAST, SATURATION), law.widths, strict=True):
        least = max(0.0, 1.0 - amount)
        columns.append(u[:, place] * (1.0 + amount - least) + least)
    columns.append((u[:, HUE] * 2.0 - 1.0) * law.hue)
    columns.append((u[:, GREY] < law.grey).double())
    return torch.stack(columns, 1).float()


# Kernel ------------------------------------------------------------------------------------------


@torch.library.custom_op("babyvlm::sample_parameters", mutates_args=())
def sample_table(
    index: Tensor,
    seed: Tensor,
    sizes: Tensor | None,
    height: int,
    width: int,
    area: Sequence[float],
    ratio: Sequence[float],
    flip: float,
    widths: Sequence[float],
    hue: float,
    grey: float,
) -> Tensor:
    """Return the table, float32 ``[N, 10]``; ``area``: two numbers, or none for no crop."""
    from . import sample_triton

    bounds = (area[0], area[1]) if area else None
    amounts = (widths[0], widths[1], widths[2])
    law = Law(bounds, (ratio[0], ratio[1]), flip, amounts, hue, grey)
    return sample_triton.sample(index, seed, sizes, height, width, law)


@sample_table.register_fake
def _(index: Tensor, *_: object) -> Tensor:
    return torch.empty(index.shape[0], len(COLUMNS), dtype=torch.float32, device=index.device)


def _triton(
    index: Tensor, seed: Tensor, sizes: Tensor | None, height: int, width: int, law: Law
) -> Tensor:
    if is_traced():
        return sample_table(index, seed, sizes, height, width, list(law.area or ()), *law[1:])
    from . import sample_triton

    return sample_triton.sample(index, seed, sizes, height, width, law)


dispatch.register("sample_parameters", "triton", _triton, refuses=refuse_device, devices=("cuda",))
dispatch.register("sample_parameters", "eager", _eager)
