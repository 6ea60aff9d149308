"""From a vector or pixel file to a square picture on white, cropped to what is drawn."""

from __future__ import annotations

import ctypes
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image
from tqdm import tqdm

from dataprep.picturebook.colours import dominant_colour
from dataprep.picturebook.drawings import Drawing, Rendered

MARGIN = 0.04
"""White border as a share of the side: the drawing nearly fills the square."""


@dataclass(frozen=True)
class RenderResult:
    """What could be drawn, in the order asked for, and a line for each file that could not."""

    rendered: list[Rendered]
    problems: list[str]


def read_rgba(path: Path, side: int) -> Image.Image:
    """Read a PNG or draw an SVG about `side` pixels large. Raises ValueError naming the file."""
    try:
        if path.suffix == ".svg":
            text = path.read_text(encoding="utf-8", errors="replace")
            # dpi: resvg's default of 0 makes every size in pt or mm zero. Fonts: the drawings need
            # none, and the machine's own would make the pictures differ between machines.
            png = resvg_py.svg_to_bytes(
                svg_string=text, width=side, dpi=96, skip_system_fonts=True
            )
            image = Image.open(io.BytesIO(png))
        else:
            image = Image.open(path)
        return image.convert("RGBA")
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: cannot be drawn ({error})") from error


def crop_to_content(image: Image.Image) -> Image.Image:
    """Cut away what is transparent, or for opaque pictures what is white."""
    pixels = np.asarray(image)
    ink = pixels[..., 3] > 8
    if ink.all():
        ink = pixels[..., :3].min(-1) < 248
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not len(rows):
        raise ValueError("nothing is drawn")
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return image.crop(box)


def square(image: Image.Image, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale (either way, aspect kept) into a white square: uint8 [S, S, 3] and alpha [S, S]."""
    room = side - 2 * round(side * MARGIN)
    scale = room / max(image.size)
    size = tuple(max(1, round(x * scale)) for x in image.size)
    # colours are premultiplied while scaling, or transparent pixels bleed into the edges
    small = image.convert("RGBa").resize((size[0], size[1]), Image.Resampling.LANCZOS)
    small = small.convert("RGBA")
    canvas = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    canvas.paste(small, ((side - size[0]) // 2, (side - size[1]) // 2))
    pixels = np.asarray(canvas)
    alpha = pixels[..., 3]
    weight = alpha[..., None].astype(np.float32) / 255
    rgb = pixels[..., :3].astype(np.float32) * weight + 255 * (1 - weight)
    return np.rint(rgb).astype(np.uint8), alpha


def draw(path: Path, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The finished picture uint8 [S, S, 3] and its alpha uint8 [S, S]."""
    image = read_rgba(path, side + side // 2)  # larger: what is drawn seldom fills the file
    try:
        picture, alpha = square(crop_to_content(image), side)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if picture.std() < 4:
        raise ValueError(f"{path}: white on white")
    return picture, alpha


def render(job: tuple[Drawing, int]) -> tuple[Rendered | None, list[str]]:
    """Draw a drawing at a side in pixels from the first of its files that works.

    Returns it (None if no file works) and one line for every file that did not.
    """
    drawing, side = job
    problems = []
    for file in drawing.files:
        try:
            picture, alpha = draw(Path(file), side)
        except ValueError as error:
            problems.append(str(error))
            continue
        return Rendered(drawing, picture, alpha, dominant_colour(picture, alpha), file), problems
    return None, problems


def render_all(drawings: Sequence[Drawing], side: int, workers: int) -> RenderResult:
    """Draw everything in `workers` processes with a progress bar; order is kept."""
    context = multiprocessing.get_context("spawn")
    done: list[Rendered] = []
    problems: list[str] = []
    jobs = [(d, side) for d in drawings]
    bar = tqdm(total=len(jobs), desc="drawing", unit="picture", smoothing=0.1)
    with bar, context.Pool(workers, initializer=_die_with_parent, initargs=(os.getpid(),)) as pool:
        for rendered, lines in pool.imap(render, jobs, chunksize=16):
            problems += lines
            if rendered is not None:
                done.append(rendered)
            bar.update()
    return RenderResult(done, problems)


def _die_with_parent(parent: int) -> None:
    """Ask Linux to end this worker when its parent is killed; else it would wait for ever."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
