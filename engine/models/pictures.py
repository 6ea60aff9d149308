"""Pictures of any size and form to what a tower takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

Picture = Any
"""A path, a PIL image, or a uint8 array ``[height, width, 3]`` (or ``[height, width]``, grey)."""


def read_picture(picture: Picture) -> Image.Image:
    """Return ``picture`` as an RGB image; see-through parts become white.

    Raises:
        ValueError: the file is missing or no picture, or the array has another form.
    """
    if isinstance(picture, str | Path):
        try:
            with Image.open(picture) as image:
                image.load()
        except FileNotFoundError:
            raise ValueError(f"{picture}: no such picture") from None
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{picture}: not a readable picture ({error})") from None
    elif isinstance(picture, Image.Image):
        image = picture
    else:
        array = np.asarray(picture)
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
            raise ValueError(
                "images: paths, PIL images or uint8 arrays [height, width, 3] expected, "
                f"got {array.dtype} of shape {array.shape}"
            )
        image = Image.fromarray(array)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def to_pixels(pictures: Sequence[Picture], size: int) -> Tensor:
    """Return uint8 ``[N, size, size, 3]``: the whole picture, stretched, nothing cropped.

    Shrinking averages areas, as the training loaders do; enlarging is bilinear. A uint8 tensor or
    array ``[N, size, size, 3]`` passes as it is.
    """
    if isinstance(pictures, np.ndarray | Tensor) and tuple(pictures.shape[1:]) == (size, size, 3):
        pixels = torch.as_tensor(pictures)
        if pixels.dtype == torch.uint8:
            return pixels
    out = np.empty((len(pictures), size, size, 3), dtype=np.uint8)
    for index, picture in enumerate(pictures):
        image = read_picture(picture)
        if image.size != (size, size):
            shrink = min(image.size) >= size
            way = Image.Resampling.BOX if shrink else Image.Resampling.BILINEAR
            image = image.resize((size, size), way)
        out[index] = np.asarray(image)
    return torch.from_numpy(out)
