"""Augmentation that any run can repeat: draws depend on (seed, epoch, picture) and nothing else.

Worker counts, batch sizes, ranks and resuming therefore change no picture. All geometry (crop,
flip, rotation, translation, zoom) is one affine map and one bilinear ``grid_sample``; brightness,
contrast, saturation and grey are one linear map of the colours.

Shapes: N pictures, S pixels a side.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, model_validator

from engine.schema import Section

CROP_TRIES = 10
"""As torchvision's ``RandomResizedCrop``: so many windows are tried, then the centre is taken."""

GREY = (0.299, 0.587, 0.114)
"""Luma of ITU-R BT.601, as torchvision's and PIL's conversion to grey."""

# One fixed place among the draws of a picture for each decision: switching one on or off leaves
# all others as they were.
_FLIP, _ANGLE, _SHIFT_X, _SHIFT_Y, _ZOOM = 0, 1, 2, 3, 4
_BRIGHTNESS, _CONTRAST, _SATURATION, _GREY, _BLUR, _SIGMA = 5, 6, 7, 8, 9, 10
_CROP = 16  # four for each try


class AugmentConfig(Section):
    """Random changes of a picture while its tower trains; everything is off by default."""

    crop_scale: tuple[float, float] | None = None
    """Random resized crop: share of the area that is kept, (least, most); null: no crop.
    CVCL: (0.2, 1)."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of the crop, (least, most), drawn log-uniformly."""
    flip: float = Field(default=0.0, ge=0, le=1)
    """Probability of a left-right flip. CVCL: 0.5."""
    rotate: float = Field(default=0.0, ge=0, le=180)
    """Greatest rotation to either side, in degrees."""
    translate: float = Field(default=0.0, ge=0, le=1)
    """Greatest shift in each direction, as a share of the side."""
    zoom: tuple[float, float] | None = None
    """Factor of magnification, (least, most), drawn log-uniformly; null: none."""
    brightness: float = Field(default=0.0, ge=0, le=1)
    """Colours are multiplied by 1 - x to 1 + x."""
    contrast: float = Field(default=0.0, ge=0, le=1)
    """Distance from the picture's mean grey is multiplied by 1 - x to 1 + x."""
    saturation: float = Field(default=0.0, ge=0, le=1)
    """Distance from each pixel's grey is multiplied by 1 - x to 1 + x."""
    grey: float = Field(default=0.0, ge=0, le=1)
    """Probability of a grey picture."""
    blur: float = Field(default=0.0, ge=0, le=1)
    """Probability of a Gaussian blur. CVCL: 0.5."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Standard deviation of the blur in pixels, (least, most). CVCL: (0.1, 2)."""

    fused: bool = False
    """Crop, flip and colours in one pass (`kernels.augment_images`): the same draws, but
    torchvision's definitions, which average over all pixels where a crop shrinks and clamp after
    each change of colour. Made for GPUs; not with ``rotate``, ``translate`` or ``zoom``."""

    @model_validator(mode="after")
    def _ranges(self) -> AugmentConfig:
        if self.fused and (self.rotate or self.translate or self.zoom is not None):
            raise ValueError("fused: true does not rotate, translate or zoom; accepted: false")
        for name in ("crop_scale", "crop_ratio", "zoom", "blur_sigma"):
            bounds = getattr(self, name)
            if bounds is not None and not 0 < bounds[0] <= bounds[1]:
                raise ValueError(f"{name}: {list(bounds)}; accepted: 0 < least <= most")
        if self.crop_scale is not None and self.crop_scale[1] > 1:
            raise ValueError(f"crop_scale: {list(self.crop_scale)}; at most all (1) can be kept")
        return self

    @property
    def enabled(self) -> bool:
        """Whether any picture can change."""
        return self._geometry or self._colour or self.blur > 0 or self.crop_scale is not None

    @property
    def _geometry(self) -> bool:
        return bool(self.flip or self.rotate or self.translate) or self.zoom is not None

    @property
    def _colour(self) -> bool:
        return bool(self.brightness or self.contrast or self.saturation or self.grey)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection that mixes 64 bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniforms(
    ids: NDArray[np.int64], seed: int, epoch: int, first: int, count: int
) -> NDArray[np.float64]:
    """Draws ``first`` to ``first + count`` of each picture, uniform in [0, 1), float64 [N, count].

    SplitMix64 run as a counter-based generator: the stream of a picture starts at a hash of
    (seed, epoch, id), and its k-th draw is computed without the ones before.
    """
    text = f"augment/{seed}/{epoch}".encode()
    key = np.uint64(int.from_bytes(hashlib.sha256(text).digest()[:8], "little"))
    gamma = np.uint64(0x9E3779B97F4A7C15)
    start = _mix(_mix(ids.astype(np.uint64) * gamma + gamma) ^ key)
    steps = np.arange(first + 1, first + count + 1, dtype=np.uint64) * gamma
    bits = _mix(start[:, None] + steps) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def _between(draws: NDArray[np.float64], bounds: tuple[float, float]) -> NDArray[np.float64]:
    return bounds[0] + draws * (bounds[1] - bounds[0])


def _between_log(draws: NDArray[np.float64], bounds: tuple[float, float]) -> NDArray[np.float64]:
    return np.exp(_between(draws, (math.log(bounds[0]), math.log(bounds[1]))))


def _as_ids(ids: NDArray[np.int64] | torch.Tensor) -> NDArray[np.int64]:
    return ids.cpu().numpy() if isinstance(ids, torch.Tensor) else np.asarray(ids)


def random_crops(
    ids: NDArray[np.int64] | torch.Tensor,
    *,
    seed: int,
    epoch: int,
    config: AugmentConfig,
    height: int,
    width: int,
) -> NDArray[np.int32]:
    """Windows (y, x, h, w) of the random resized crop, int32 [N, 4], in pixels of the source.

    The law is that of torchvision's ``RandomResizedCrop``. With ``crop_scale`` null the window is
    the whole picture. Give them to ``ImageStream.stream(crops=...)`` to crop while decoding, and
    call :func:`augment` with ``crop=False`` then.
    """
    ids = _as_ids(ids)
    windows = np.empty((len(ids), 4), np.int32)
    windows[:] = (0, 0, height, width)
    if config.crop_scale is None:
        return windows
    draws = uniforms(ids, seed, epoch, _CROP, 4 * CROP_TRIES).reshape(len(ids), CROP_TRIES, 4)
    area = height * width * _between(draws[..., 0], config.crop_scale)
    ratio = _between_log(draws[..., 1], config.crop_ratio)
    w, h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = np.asarray((w > 0) & (w <= width) & (h > 0) & (h <= height))
    at = (np.arange(len(ids)), fits.argmax(axis=1))
    y, x = np.floor(draws[..., 2] * (height - h + 1)), np.floor(draws[..., 3] * (width - w + 1))
    found = np.stack([y[at], x[at], h[at], w[at]], axis=1).astype(np.int32)

    low, high = config.crop_ratio  # none fits: the largest centred window of an allowed ratio
    wide, tall = min(width, round(height * high)), min(height, round(width / low))
    centre = ((height - tall) // 2, (width - wide) // 2, tall, wide)
    windows[:] = np.where(fits.any(axis=1, keepdims=True), found, np.array(centre, np.int32))
    return windows


def _affine(
    ids: NDArray[np.int64], config: AugmentConfig, seed: int, epoch: int, side: int, crop: bool
) -> torch.Tensor:
    """Maps from output to source coordinates (both -1 to 1), float32 [N, 2, 3]."""
    draws = uniforms(ids, seed, epoch, 0, _ZOOM + 1)
    angle = np.deg2rad(_between(draws[:, _ANGLE], (-config.rotate, config.rotate)))
    zoom = np.ones(len(ids)) if config.zoom is None else _between_log(draws[:, _ZOOM], config.zoom)
    mirror = np.where(draws[:, _FLIP] < config.flip, -1.0, 1.0)
    # A shift by a share t of the side is 2t in these coordinates.
    limit = (-2 * config.translate, 2 * config.translate)
    shift = _between(draws[:, [_SHIFT_X, _SHIFT_Y]], limit)
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    maps = np.empty((len(ids), 2, 3))
    maps[:, 0] = np.stack([mirror * cos, -sin, shift[:, 0]], axis=1)
    maps[:, 1] = np.stack([mirror * sin, cos, shift[:, 1]], axis=1)
    if crop and config.crop_scale is not None:
        windows = random_crops(
            ids, seed=seed, epoch=epoch, config=config, height=side, width=side
        ).astype(np.float64)
        start, extent = windows[:, [1, 0]], windows[:, [3, 2]]  # x before y, as grid_sample's
        maps *= (extent / side)[:, :, None]
        maps[:, :, 2] += (2 * start + extent) / side - 1
    return torch.from_numpy(maps.astype(np.float32))


def blur(
    images: torch.Tensor, ids: NDArray[np.int64], config: AugmentConfig, seed: int, epoch: int
) -> torch.Tensor:
    """Gaussian blur of the drawn pictures of ``images`` (float [N, 3, S, S]), in two passes."""
    draws = uniforms(ids, seed, epoch, _BLUR, 2)
    chosen = np.flatnonzero(draws[:, 0] < config.blur)
    if not len(chosen):
        return images
    sigma = torch.from_numpy(_between(draws[chosen, 1], config.blur_sigma)).float()
    radius = max(1, math.ceil(3 * config.blur_sigma[1]))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernels = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).to(images.device)  # [M, 2 radius + 1]
    kernels = kernels.repeat_interleave(3, 0)[:, None]  # [3 M, 1, 2 radius + 1]
    index = torch.from_numpy(chosen).to(images.device)
    planes = images[index].flatten(0, 1)[None]  # [1, 3 M, S, S]
    planes = F.pad(planes, (radius, radius, 0, 0), mode="replicate")
    planes = F.conv2d(planes, kernels[:, :, None, :], groups=planes.shape[1])
    planes = F.pad(planes, (0, 0, radius, radius), mode="replicate")
    planes = F.conv2d(planes, kernels[:, :, :, None], groups=planes.shape[1])
    return images.index_copy(0, index, planes[0].unflatten(0, (-1, 3)))


def _recolour(
    images: torch.Tensor, ids: NDArray[np.int64], config: AugmentConfig, seed: int, epoch: int
) -> torch.Tensor:
    """Brightness b, then contrast c, then saturation s, clamped once at the end.

    With g the grey of a pixel and m its mean over the picture the three together are
    ``s c b x + (1 - s) c b g + (1 - c) b m``; a grey picture has s = 0.
    """
    draws = uniforms(ids, seed, epoch, _BRIGHTNESS, 4)
    widths = np.array([config.brightness, config.contrast, config.saturation])
    factors = 1 + widths * (2 * draws[:, :3] - 1)
    factors[:, 2] = np.where(draws[:, 3] < config.grey, 0.0, factors[:, 2])
    table = torch.from_numpy(factors.astype(np.float32)).to(images.device)
    b, c, s = (table[:, k].view(-1, 1, 1, 1) for k in range(3))
    red, green, blue = images.unbind(1)
    grey = (GREY[0] * red + GREY[1] * green + GREY[2] * blue)[:, None]  # [N, 1, S, S]
    constant = (1 - c) * b * grey.mean((2, 3), keepdim=True)
    changed = images * (s * c * b)
    changed += grey * ((1 - s) * c * b)
    return (changed + constant).clamp_(0, 1)


def fused_parameters(
    ids: NDArray[np.int64], config: AugmentConfig, side: int, *, seed: int, epoch: int
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Return the table of `kernels.augment_images`, of the draws that `augment` makes."""
    windows = random_crops(ids, seed=seed, epoch=epoch, config=config, height=side, width=side)
    draws = uniforms(ids, seed, epoch, 0, _GREY + 1)
    widths = {name: getattr(config, name) for name in ("brightness", "contrast", "saturation")}
    table = np.zeros((len(ids), 10), np.float32)
    table[:, :4] = windows
    table[:, 4] = draws[:, _FLIP] < config.flip
    first = _BRIGHTNESS
    table[:, 5:8] = 1 + np.array(list(widths.values())) * (2 * draws[:, first : first + 3] - 1)
    table[:, 9] = draws[:, _GREY] < config.grey
    changes = [name for name, width in widths.items() if width] + ["grey"] * (config.grey > 0)
    return torch.from_numpy(table), tuple(changes)


def normalise(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """``(x / 255 - mean) / std`` of uint8 [N, S, S, 3] as float32 [N, 3, S, S], channels last."""
    num, height, width, channels = images.shape
    scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
    shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
    # Whole rows at once: a broadcast over the last three numbers alone is several times slower.
    scale_row = scale.float().repeat(width).to(images.device)
    shift_row = shift.float().repeat(width).to(images.device)
    flat = images.reshape(num, height, width * channels)
    out = torch.empty(flat.shape, device=images.device)
    # On a CPU a few pictures at a time, which stay in the cache for the three passes.
    step = num if images.is_cuda else max(1, (1 << 19) // max(1, flat[0:1].numel()))
    for first in range(0, num, max(1, step)):
        part = out[first : first + step]
        part.copy_(flat[first : first + step]).mul_(scale_row).add_(shift_row)
    return out.view(num, height, width, channels).permute(0, 3, 1, 2)


def augment(
    images: torch.Tensor,
    ids: NDArray[np.int64] | torch.Tensor,
    *,
    config: AugmentConfig,
    seed: int,
    epoch: int,
    mean: Sequence[float],
    std: Sequence[float],
    crop: bool = True,
) -> torch.Tensor:
    """Augmented and normalised pictures, float32 [N, 3, S, S], channels last, on their device.

    Args:
        images: uint8 [N, S, S, 3].
        ids: what each picture's draws are keyed by, int64 [N].
        config: what is drawn.
        seed, epoch: the other two keys of the draws.
        mean, std: per channel, in units where white is 1.
        crop: False when the loader has already cut the windows of :func:`random_crops`.
    """
    num, height, width, _ = images.shape
    if height != width or len(ids) != num:
        raise ValueError(
            f"augment: pictures {tuple(images.shape)} with {len(ids)} ids; "
            "accepted: [N, S, S, 3] with N ids"
        )
    keys = _as_ids(ids)
    out = images.permute(0, 3, 1, 2).contiguous().float().mul_(1 / 255)
    if config._geometry or (crop and config.crop_scale is not None):
        maps = _affine(keys, config, seed, epoch, height, crop).to(images.device)
        grid = F.affine_grid(maps, list(out.shape), align_corners=False)
        out = F.grid_sample(out, grid, padding_mode="border", align_corners=False)
    if config._colour:
        out = _recolour(out, keys, config, seed, epoch)
    if config.blur:
        out = blur(out, keys, config, seed, epoch)
    shape = (1, 3, 1, 1)
    mean_t = torch.tensor(mean, dtype=torch.float32, device=images.device).view(shape)
    std_t = torch.tensor(std, dtype=torch.float32, device=images.device).view(shape)
    # Channels last: convolutions of a small tower run 1.4 times as fast on a CPU.
    return out.sub_(mean_t).div_(std_t).contiguous(memory_format=torch.channels_last)
