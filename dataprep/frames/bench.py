"""How fast frames are taken from a video, against what is usually written: a seek for every stamp.

Each way is timed in processor seconds on one thread and must give the same pixels. The peer seeks
to the keyframe before a time stamp and decodes until the frame that is shown then, for one stamp
after the other. The video that is made moves everywhere, as a child's camera does.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataprep.frames.video import TOLERANCE_S, Work, frames_at

__all__ = ["bench", "film", "seek_per_stamp"]

FPS = 25
Pixels = NDArray[np.uint8]


def seek_per_stamp(path: Path, times_s: Sequence[float]) -> list[Pixels]:
    """The peer: for every time, seek to the keyframe before it and decode up to the frame."""
    import av

    found: list[Pixels] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None
        for time_s in times_s:
            tick = int((Fraction(time_s) + TOLERANCE_S) / stream.time_base)
            tick += stream.start_time or 0
            container.seek(tick, stream=stream)
            shown = None
            for frame in container.decode(stream):
                if frame.pts is not None and frame.pts > tick:
                    break
                shown = frame
            if shown is not None:
                found.append(np.asarray(shown.to_ndarray(format="rgb24"), np.uint8))
    return found


def decode_all(path: Path, times_s: Sequence[float]) -> list[Pixels]:
    """The other peer: decode every frame of the file and keep those that are wanted."""
    import av

    order = sorted(range(len(times_s)), key=times_s.__getitem__)
    found: dict[int, Pixels] = {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None
        start = stream.start_time or 0
        base = stream.time_base
        ticks = [start + int((Fraction(times_s[k]) + TOLERANCE_S) / base) for k in order]
        place, shown = 0, None
        for frame in container.decode(stream):
            while place < len(ticks) and frame.pts is not None and frame.pts > ticks[place]:
                if shown is not None:
                    found[order[place]] = np.asarray(shown.to_ndarray(format="rgb24"), np.uint8)
                place += 1
            shown = frame
        for left in order[place:]:
            if shown is not None:
                found[left] = np.asarray(shown.to_ndarray(format="rgb24"), np.uint8)
    return [found[k] for k in sorted(found)]


def film(path: Path, minutes: float, group: int, seed: int) -> None:
    """A video of 640 x 480, H.264, 25 frames a second, over which a camera sways and shakes."""
    import av

    rng = np.random.default_rng([seed, 3])
    coarse = rng.integers(0, 256, (90, 120, 3), np.uint8).repeat(10, 0).repeat(10, 1)
    scene = (coarse // 2 + rng.integers(0, 128, coarse.shape, np.uint8) // 4).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"preset": "veryfast", "crf": "23", "threads": "1"}
        )
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 640, 480, "yuv420p", group
        shake = rng.normal(0, 3, (math.ceil(minutes * 60 * FPS), 2))
        for k, (dx, dy) in enumerate(shake):
            x = round(280 + 200 * math.sin(k / 90) + dx)
            y = round(200 + 150 * math.sin(k / 70) + dy)
            view = np.ascontiguousarray(scene[y : y + 480, x : x + 640])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        container.mux(stream.encode())


def bench(
    video: Path | None = None,
    *,
    minutes: float = 3.0,
    group: int = 250,
    per_minute: Sequence[float] = (20.0,),
    repeats: int = 5,
    seed: int = 0,
) -> None:
    """Print the processor seconds a minute of video of every way, and their ratio to the peer's.

    Raises:
        ValueError: a number out of range, an unreadable video, or pixels that differ.
    """
    if not (0 < minutes <= 600 and group >= 1 and repeats >= 1 and min(per_minute) > 0):
        raise ValueError(
            f"--minutes {minutes}, --group {group}, --repeats {repeats}, --per-minute "
            f"{min(per_minute)}: accepted are up to 600, 1 and above, 1 and above, above 0"
        )
    with tempfile.TemporaryDirectory(prefix="bench-frames-") as scratch:
        if video is None:
            video = Path(scratch) / "made.mp4"
            film(video, minutes, group, seed)
        length_s = _length_s(video)
        print(f"{video.name}: {length_s / 60:.1f} minutes; processor seconds a minute of video")
        for rate in per_minute:
            _compare(video, length_s, rate, repeats, seed)


def _length_s(video: Path) -> float:
    import av

    with av.open(str(video)) as container:
        if not container.duration:
            raise ValueError(f"{video}: does not say how long it is")
        return container.duration / 1e6


def _compare(video: Path, length_s: float, rate: float, repeats: int, seed: int) -> None:
    rng = np.random.default_rng([seed, 5])
    count = max(round(rate * length_s / 60), 1)
    times_s = [float(t) for t in np.sort(rng.uniform(0, length_s - 0.5, count))]
    work = {way: Work() for way in ("auto", "sequential", "seek")}

    def ours(way: str) -> list[Pixels]:
        work[way] = Work()
        found = {f.stamp: f.pixels for f in frames_at(video, times_s, way, work[way])}  # pyright: ignore
        return [found[k] for k in sorted(found)]

    ways: dict[str, Callable[[], list[Pixels]]] = {
        "seek per stamp (peer)": lambda: seek_per_stamp(video, times_s),
        "decode everything (peer)": lambda: decode_all(video, times_s),
        **{f"ours, {way}": lambda way=way: ours(way) for way in work},
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    right: list[Pixels] | None = None
    for _ in range(repeats):  # in turn, so that a busy moment hits all of them
        for name, run in ways.items():
            began = time.process_time()
            found = run()
            spent[name].append(time.process_time() - began)
            right = found if right is None else right
            same = len(found) == len(right) == count and all(map(np.array_equal, found, right))
            if not same:
                raise ValueError(f"{video}: {name} gives other frames than seeking for every stamp")
    peer = statistics.median(spent["seek per stamp (peer)"])
    print(f"{rate:g} stamps a minute ({count} stamps), median of {repeats}:")
    for name in ways:
        middle = statistics.median(spent[name])
        note = ""
        if name.startswith("ours"):
            done = work[name.split()[-1]]
            note = f"  read {done.read}, decoded {done.decoded}, jumps {done.seeks}"
        print(f"  {name:<25} {middle / length_s * 60:7.3f} s  {peer / middle:5.2f}x{note}")
