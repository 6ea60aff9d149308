"""Pictures and devices for the models of other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError


def rgb(picture: Any) -> Image.Image:
    """A path or a PIL image as an RGB image; see-through parts become white.

    Raises:
        ValueError: the file is missing or no picture.
    """
    image = picture
    if not isinstance(picture, Image.Image):
        try:
            with Image.open(Path(picture)) as image:
                image.load()
        except FileNotFoundError:
            raise ValueError(f"{picture}: no such picture") from None
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{picture}: not a readable picture ({error})") from None
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def pick_device(device: str) -> str:
    """``auto`` as the device it stands for: a GPU where there is one."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
