"""Thumbnails on a page, and what may not be shown."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, UnidentifiedImageError

THUMBNAIL_PX = 176


@dataclass
class Pictures:
    """Thumbnails as data URIs, made once each.

    Where ``shown`` is false no picture is even opened, so nothing of one can reach the page.
    """

    root: Path
    shown: bool
    _made: dict[str, str] = field(default_factory=dict)

    def uri(self, image: str) -> str | None:
        """A data URI; None for no picture, and where pictures are not shown.

        Raises:
            ValueError: the picture is missing or damaged.
        """
        if not self.shown or not image:
            return None
        if image not in self._made:
            self._made[image] = thumbnail(self.root / image)
        return self._made[image]


def thumbnail(path: Path) -> str:
    """A small WebP picture as a data URI, transparency on white."""
    try:
        with Image.open(path) as picture:
            small = picture.convert("RGBA")
    except (OSError, UnidentifiedImageError) as error:
        why = "no such picture" if not path.exists() else f"cannot be read ({error})"
        raise ValueError(f"{path}: {why}; name the data folder with --root, or leave pictures out "
                         f"with --no-pictures") from None
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    flat = Image.new("RGB", small.size, "white")
    flat.paste(small, mask=small.getchannel("A"))
    buffer = io.BytesIO()
    flat.save(buffer, "WEBP", quality=82)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
