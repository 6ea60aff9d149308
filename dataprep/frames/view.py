"""From a video's frame to the picture that is stored: resize, crop, turn.

The published values (Vong et al. 2024, "CVCL", whose frames BabyVLM reuses): the shorter side
becomes 256 pixels by bicubic interpolation, 224 x 224 are cut out, centred across and 16 pixels
above the centre, and the picture is turned by 180 degrees, because SAYCam's camera hangs upside
down on the child's head.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["View"]


@dataclass(frozen=True)
class View:
    """How a frame becomes a picture; the defaults are the published values.

    Attributes: ``shorter_side``, pixels of the frame's shorter side after resizing; ``crop``, side
    of the square that is cut out; ``raise_by``, how far above the centre it lies, in pixels;
    ``turn``, whether it is turned by 180 degrees; ``size``, side of the stored picture (the crop
    is resized when it differs); ``jpeg_quality``, 1 to 100 (OpenCV's default is 95).
    """

    shorter_side: int = 256
    crop: int = 224
    raise_by: int = 16
    turn: bool = True
    size: int = 224
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.shorter_side:
            raise ValueError(
                f"crop {self.crop}: accepted are 1 to the shorter side, {self.shorter_side}"
            )
        most = (self.shorter_side - self.crop) // 2
        if not -most <= self.raise_by <= most:
            raise ValueError(
                f"raise-by {self.raise_by}: the crop would leave the frame; accepted are "
                f"{-most} to {most}"
            )
        if self.size < 1 or not 1 <= self.jpeg_quality <= 100:
            raise ValueError(
                f"size {self.size}, JPEG quality {self.jpeg_quality}: accepted are 1 and above, "
                "1 to 100"
            )

    def pixels(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture of a frame: uint8 [H, W, 3] to uint8 [size, size, 3]."""
        import cv2

        height, width = frame.shape[:2]
        shorter = min(height, width)
        new = (width * self.shorter_side // shorter, height * self.shorter_side // shorter)
        if new != (width, height):
            frame = np.asarray(cv2.resize(frame, new, interpolation=cv2.INTER_CUBIC), np.uint8)
        left = new[0] // 2 - self.crop // 2
        top = new[1] // 2 - self.crop // 2 - self.raise_by
        picture = frame[top : top + self.crop, left : left + self.crop]
        if self.size != self.crop:
            how = cv2.INTER_AREA if self.size < self.crop else cv2.INTER_CUBIC
            picture = cv2.resize(picture, (self.size, self.size), interpolation=how)
        if self.turn:
            picture = picture[::-1, ::-1]
        return np.ascontiguousarray(picture, np.uint8)

    def jpeg(self, frame: NDArray[np.uint8]) -> bytes:
        """The picture of a frame as JPEG bytes (chroma at half resolution)."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels(frame)).save(
            buffer, "JPEG", quality=self.jpeg_quality, subsampling="4:2:0"
        )
        return buffer.getvalue()

    def facts(self) -> dict[str, Any]:
        """The values, for manifests and keys."""
        return asdict(self)
