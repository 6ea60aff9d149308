"""Videos whose every frame says its number, made with PyAV for the tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, FPS, BITS = 160, 120, 25, 12


def drawn(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A frame [H, W, 3] whose upper half writes `number` in twelve black and white bars.

    The lower half is noise that moves, so that no two frames are alike anywhere.
    """
    picture = np.zeros((height, width, 3), np.uint8)
    bar = width // BITS
    for bit in range(BITS):
        picture[: height // 2, bit * bar : (bit + 1) * bar] = 235 if number >> bit & 1 else 20
    rng = np.random.default_rng(number)
    coarse = rng.integers(40, 216, (height // 16 + 1, width // 8, 3), np.uint8)
    picture[height // 2 :] = coarse.repeat(8, 0).repeat(8, 1)[: height - height // 2, :width]
    return picture


def number_of(picture: np.ndarray) -> int:
    """The number that a frame says."""
    bar = picture.shape[1] // BITS
    level = picture[: picture.shape[0] // 2 - 4, : bar * BITS].mean(axis=(0, 2))
    level = level.reshape(BITS, bar)[:, bar // 4 : -bar // 4 or None].mean(axis=1)
    return sum(1 << bit for bit in range(BITS) if level[bit] > 128)


def film(path: Path, frames: int, *, codec: str = "libx264", fps: int = FPS, group: int = 50,
         pixels: str = "yuv420p", options: dict[str, str] | None = None,
         ticks: list[int] | None = None, first: int = 0) -> Path:
    """Write `frames` numbered frames; `ticks` are their times in 1/1000 s where not regular."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.gop_size = group
        if ticks is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for k in range(frames):
            frame = av.VideoFrame.from_ndarray(drawn(first + k), format="rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = ticks[k], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
