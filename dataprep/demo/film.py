"""Films of photographs: known pictures at known times, as a camera on a child's head sees them.

Each photograph stays some whole seconds, on a plain ground, while the camera sways: every frame is
another one, and `frame` says exactly what the frame of an index shows before it was encoded. Films
are turned by 180 degrees, as SAYCam's are. H.264 in yuv420p by one thread: the same scenes, the
same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataprep.files import whole_file
from dataprep.picturebook.drawings import Rendered

__all__ = ["FPS", "HEIGHT", "SIDE", "WIDTH", "Scene", "frame", "length_s", "shoot"]

WIDTH, HEIGHT, FPS = 384, 288, 8
"""Size of a frame in pixels; frames a second."""
SIDE = 224
"""Side at which photographs are drawn, in pixels."""
GROUP = 24
"""Frames from one keyframe to the next."""
_ROOM = 48
"""Ground beyond the frame on every side, for the camera to sway over, in pixels."""
_LOWER = 16
"""How far below the centre things lie, in pixels: the published crop leaves out the upper edge of
what is seen (it lies above the centre before the picture is turned)."""


@dataclass(frozen=True)
class Scene:
    """One photograph and when it is shown: from ``begin_s`` to before ``end_s``, in seconds."""

    rendered: Rendered
    begin_s: int
    end_s: int


def length_s(scenes: Sequence[Scene]) -> int:
    """How long a film is, in seconds."""
    return scenes[-1].end_s


def _ground(number: int, seed: int) -> NDArray[np.float32]:
    """A plain ground in two soft colours, [H, W, 3], brighter where the light falls."""
    rng = np.random.default_rng([seed, 43, number])
    height, width = HEIGHT + 2 * _ROOM, WIDTH + 2 * _ROOM
    light, dark = 214 + rng.uniform(0, 24, 3), 176 + rng.uniform(0, 30, 3)
    share = np.linspace(0, 1, height)[:, None, None] * np.ones((1, width, 1))
    across = 1 - 0.06 * np.abs(np.linspace(-1, 1, width))[None, :, None]
    return np.asarray((light * (1 - share) + dark * share) * across, np.float32)


def _stage(scene: Scene, number: int, seed: int) -> NDArray[np.uint8]:
    """The photograph on its ground, larger than the frame by the room on every side."""
    import cv2

    ground = _ground(number, seed)
    alpha = scene.rendered.alpha
    side = len(alpha)
    top = _ROOM + HEIGHT // 2 + _LOWER - side // 2
    left = _ROOM + WIDTH // 2 - side // 2
    shadow = cv2.GaussianBlur(alpha, (0, 0), 7).astype(np.float32)[..., None] / 255
    place = ground[top + 6 : top + 6 + side, left : left + side]
    place *= 1 - 0.22 * shadow
    weight = alpha.astype(np.float32)[..., None] / 255
    # the picture lies on white already: take that white away again where it shines through
    ink = scene.rendered.picture.astype(np.float32) - 255 * (1 - weight)
    place = ground[top : top + side, left : left + side]
    place[...] = place * (1 - weight) + ink
    return np.clip(np.rint(ground), 0, 255).astype(np.uint8)


def _sway(scene: Scene, number: int, index: int, seed: int) -> tuple[float, float, float]:
    """Zoom and shift (across, down; in pixels) of the camera at a frame of a scene."""
    rng = np.random.default_rng([seed, 47, number])
    phases = rng.uniform(0, 2 * math.pi, 3)
    speeds = rng.uniform(0.7, 1.3, 3)
    time_s = index / FPS - scene.begin_s
    waves = [math.sin(p + s * time_s) for p, s in zip(phases, speeds, strict=True)]
    return 1 + 0.07 * waves[0], 13 * waves[1], 9 * waves[2]


def _view(stage: NDArray[np.uint8], sway: tuple[float, float, float]) -> NDArray[np.uint8]:
    import cv2

    zoom, across, down = sway
    centre = (_ROOM + WIDTH / 2, _ROOM + HEIGHT / 2)
    matrix = np.array(
        [
            [zoom, 0, WIDTH / 2 - zoom * (centre[0] + across)],
            [0, zoom, HEIGHT / 2 - zoom * (centre[1] + down)],
        ]
    )
    seen = cv2.warpAffine(
        stage, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(seen, np.uint8)


def frame(scenes: Sequence[Scene], index: int, seed: int = 0) -> NDArray[np.uint8]:
    """What frame `index` of a film shows, upright: uint8 [HEIGHT, WIDTH, 3].

    Raises:
        ValueError: the film has no such frame.
    """
    for number, scene in enumerate(scenes):
        if scene.begin_s * FPS <= index < scene.end_s * FPS:
            return _view(_stage(scene, number, seed), _sway(scene, number, index, seed))
    raise ValueError(f"frame {index}: the film has {length_s(scenes) * FPS}")


def shoot(path: Path, scenes: Sequence[Scene], seed: int = 0, *, turned: bool = True) -> None:
    """Write a film; a file of that name is whole.

    Args:
        path: the ``.mp4`` to write.
        scenes: what is shown, each from the end of the one before; the first from 0.
        seed: of grounds and camera.
        turned: by 180 degrees, as SAYCam's camera hangs.

    Raises:
        ValueError: scenes that do not follow each other.
    """
    import av

    edges = [0, *(scene.end_s for scene in scenes)]
    if [scene.begin_s for scene in scenes] != edges[:-1] or sorted(set(edges)) != edges:
        raise ValueError(f"{path}: scenes must follow each other from 0 s; they end at {edges[1:]}")
    options = {"preset": "veryfast", "crf": "20", "x264-params": "threads=1"}
    # bitexact: neither the time of writing nor the library's version goes into the file
    exact = {"fflags": "+bitexact"}
    with whole_file(path) as file, av.open(file, "w", format="mp4", options=exact) as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.gop_size = GROUP
        stream.thread_count = 1
        for number, scene in enumerate(scenes):
            stage = _stage(scene, number, seed)
            for index in range(scene.begin_s * FPS, scene.end_s * FPS):
                pixels = _view(stage, _sway(scene, number, index, seed))
                if turned:
                    pixels = pixels[::-1, ::-1]
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                container.mux(stream.encode(picture))
        container.mux(stream.encode())
