"""Frames of many videos, a file of pictures a video, several videos at a time, resumable.

A folder holds one ``NAME.frames.npz`` for every video that is done; it is written under another
name, flushed and renamed, so that one which is there is whole. Its key says from which file (name,
size, time of change), at which times and with which values it was made: a run with others makes
it anew, a run with the same ones goes on where the last one stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dataprep.files import sha256_file, whole_file
from dataprep.frames.video import VideoError, Way, frames_at
from dataprep.frames.view import View

__all__ = ["Job", "Pictures", "extract", "load_pictures"]

FORMAT = 1


@dataclass(frozen=True)
class Job:
    """A video and the times at which its frames are wanted (seconds from the first frame)."""

    name: str
    video: Path
    times_s: tuple[float, ...]


@dataclass(frozen=True)
class Pictures:
    """The pictures of a video.

    Attributes: ``sha256`` and ``size_bytes`` of the video file; ``stamps`` int64 [n], which of the
    job's times each picture belongs to, increasing; ``time_s`` float64 [n], when its frame begins.
    """

    sha256: str
    size_bytes: int
    stamps: NDArray[np.int64]
    time_s: NDArray[np.float64]
    _offsets: NDArray[np.int64]
    _data: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.stamps)

    def jpeg(self, k: int) -> bytes:
        """The JPEG bytes of the k-th picture."""
        return self._data[self._offsets[k] : self._offsets[k + 1]].tobytes()


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.frames.npz"


def _key(job: Job, view: View) -> str:
    """Hash of all that decides the pictures; the way of decoding does not."""
    import av

    status = job.video.stat()
    facts: dict[str, Any] = {
        "format": FORMAT, "av": av.__version__, "video": job.video.name,
        "size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns,
        "times_s": job.times_s, "view": view.facts(),
    }  # fmt: skip
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def load_pictures(folder: Path, job: Job, view: View) -> Pictures | None:
    """The pictures of a video that is done; None when it is not, or was done otherwise."""
    path = _file(folder, job.name)
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as held:
        about = json.loads(str(held["about"]))
        if about["key"] != _key(job, view):
            return None
        return Pictures(
            about["sha256"], about["size_bytes"],
            held["stamps"], held["time_s"], held["offsets"], held["data"],
        )  # fmt: skip


def _is_done(folder: Path, job: Job, view: View) -> bool:
    path = _file(folder, job.name)
    if not path.is_file():
        return False
    with np.load(path, allow_pickle=False) as held:  # reads `about` alone
        return json.loads(str(held["about"]))["key"] == _key(job, view)


def _do(folder: Path, job: Job, view: View, way: Way) -> str | None:
    """Make the pictures of one video; returns what was wrong with it, None when nothing was."""
    key = _key(job, view)
    sha256 = sha256_file(job.video)
    found: list[tuple[int, float, bytes]] = []
    try:
        shown, jpeg = -1.0, b""
        for frame in frames_at(job.video, job.times_s, way):
            if frame.time_s != shown or not found:
                shown, jpeg = frame.time_s, view.jpeg(frame.pixels)
            found.append((frame.stamp, frame.time_s, jpeg))
    except VideoError as error:
        return str(error)
    found.sort(key=lambda item: item[0])
    about = {"key": key, "sha256": sha256, "size_bytes": job.video.stat().st_size}
    jpegs = [item[2] for item in found]
    path = _file(folder, job.name)
    with whole_file(path, f"{path.name}.{os.getpid()}.partial") as file:
        np.savez(
            file,
            about=np.array(json.dumps(about)),
            stamps=np.array([item[0] for item in found], np.int64),
            time_s=np.array([item[1] for item in found], np.float64),
            offsets=np.cumsum([0, *map(len, jpegs)], dtype=np.int64),
            data=np.frombuffer(b"".join(jpegs), np.uint8),
        )
    return None


def _live_with(parent: int) -> None:
    """Make a worker end when the process that started it is gone, however that happened."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends its workers

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def extract(
    jobs: Sequence[Job],
    folder: Path,
    view: View,
    *,
    way: Way = "auto",
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, str]:
    """Make the pictures of every video that is not done yet.

    Args:
        jobs: the videos; names must differ.
        folder: where finished videos are kept.
        view: how a frame becomes a picture.
        way: how videos are read (the pictures are the same).
        workers: videos at a time, a process each; null: as many as there are processors.
        progress: show a bar: frames done, rate, time left.

    Returns:
        What was wrong with each video that cannot be read, by name. The others are all done.

    Raises:
        ValueError: two jobs of one name.
        OSError: a video cannot be opened, or the disk is full; what is done stays done.
    """
    names = [job.name for job in jobs]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"videos of the same name: {', '.join(twice[:3])}")
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.partial"):
        if not Path(f"/proc/{stale.name.split('.')[-2]}").exists():
            stale.unlink(missing_ok=True)
    todo = [job for job in jobs if not _is_done(folder, job, view)]
    total = sum(len(job.times_s) for job in jobs)
    left = sum(len(job.times_s) for job in todo)
    wrong: dict[str, str] = {}
    count = max(1, min(workers or len(os.sched_getaffinity(0)), len(todo)))
    with tqdm(
        total=total, initial=total - left, unit="frame", desc="frames", smoothing=0.05,
        disable=not progress or not todo,
    ) as bar:  # fmt: skip
        done = _inline(todo, folder, view, way) if count == 1 else _side_by_side(
            todo, folder, view, way, count
        )  # fmt: skip
        for job, said in done:
            if said is not None:
                wrong[job.name] = said
            bar.update(len(job.times_s))
    return wrong


def _inline(
    jobs: Iterable[Job], folder: Path, view: View, way: Way
) -> Iterator[tuple[Job, str | None]]:
    for job in jobs:
        yield job, _do(folder, job, view, way)


def _side_by_side(
    jobs: Sequence[Job], folder: Path, view: View, way: Way, workers: int
) -> Iterator[tuple[Job, str | None]]:
    """Longest first, so that no long one is left for the end."""
    pool = ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_live_with, initargs=(os.getpid(),)
    )
    try:
        ordered = sorted(jobs, key=lambda job: (-len(job.times_s), job.name))
        waiting: dict[Future[str | None], Job] = {
            pool.submit(_do, folder, job, view, way): job for job in ordered
        }
        while waiting:
            finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                yield waiting.pop(future), future.result()
    except BrokenProcessPool:
        raise OSError(
            f"{folder}: a process that decodes videos was killed (short of memory?); finished "
            "videos are kept; run again, with fewer --workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
