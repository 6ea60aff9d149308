"""FFCV as the picture loader, with its traps closed.

FFCV gives the container's memory map, its JPEG decoder (libjpeg-turbo) and crop resize (OpenCV's
``INTER_AREA``), fused into machine code by its pipeline compiler. What is ours, and why:

- *Order.* FFCV's stages take whatever index array they are handed. Ours holds a row and a crop
  window for each picture, so any order, repetition and crop comes from the caller, and compiled
  code holds no random state. (numba freezes arrays that code closes over; arguments it reads.)
- *Threads.* A stage releases the GIL, so a pool of threads runs whole batches side by side; FFCV's
  own way, a numba parallel loop inside one batch, spins while it waits. Its epoch thread leaves
  the consumer blocked for ever after an exception and leaks when a loop ends early; a pool's
  futures carry exceptions and can be cancelled.
- *Return codes.* FFCV drops those of the JPEG decoder; ours are kept and raised as errors.
- *Compile once.* A ``Loader`` compiles its stages anew (seconds); the first one's stages serve
  every split and size of the process.
- *torch's threads.* Importing FFCV and making a ``Loader`` both call ``torch.set_num_threads``;
  the caller's number is put back.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.corpus_read import Corpus
from engine.images import DataConfig, ImageStream, pieces

_torch_threads = torch.get_num_threads()
try:
    from ffcv.fields.rgb_image import IMAGE_MODES, SimpleRGBImageDecoder
    from ffcv.libffcv import imdecode, resize_crop
    from ffcv.loader import Loader, OrderOption
    from ffcv.memory_managers import OSCacheManager
    from ffcv.pipeline.compiler import Compiler
    from ffcv.reader import Reader
finally:
    torch.set_num_threads(_torch_threads)


class WindowDecoder(SimpleRGBImageDecoder):
    """FFCV operation: decode a picture, cut a window and scale it to the size of its target.

    Its batch indices are int64 [b, 5]: row, y, x, h, w. Its memory is a tuple: target uint8
    [b, S, S, 3]; buffer uint8 [largest height x width x 3], one for all pictures of a batch so
    that it stays in the cache; status int32 [b], the decoder's return codes.
    """

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, None]:
        """Jitted, uint8; the caller brings the memory."""
        state = replace(previous_state, jit_mode=True, shape=(1, 1, 3), dtype=np.dtype("<u1"))
        return state, None

    def generate_code(self) -> Callable[..., Any]:
        """The function that FFCV compiles."""
        read = self.memory_read  # (address, storage) -> bytes, although FFCV annotates it otherwise
        decode_jpeg = Compiler.compile(imdecode)
        resize = Compiler.compile(resize_crop)
        jpeg = IMAGE_MODES["jpg"]

        def decode(windows, memory, metadata, storage):  # noqa: ANN001, ANN202 (numba types it)
            target, buffer, status = memory
            for i in range(len(windows)):
                row, y, x, h, w = windows[i]
                field = metadata[row]
                data = read(field["data_ptr"], storage)  # pyright: ignore[reportCallIssue]
                height, width = np.uint32(field["height"]), np.uint32(field["width"])
                if field["mode"] == jpeg:
                    whole = h == height and w == width
                    if whole and h == target.shape[1] and w == target.shape[2]:
                        status[i] = decode_jpeg(
                            data, target[i], height, width, height, width, 0, 0, 1, 1, False, False
                        )
                        continue
                    status[i] = decode_jpeg(
                        data, buffer, height, width, height, width, 0, 0, 1, 1, False, False
                    )
                    source = buffer[: 3 * height * width].reshape(height, width, 3)
                else:
                    status[i] = 0
                    source = data.reshape(height, width, 3)
                resize(source, y, y + h, x, x + w, target[i])
            return target

        return decode


def _compile(path: str) -> tuple[Callable[..., Any], int]:
    """FFCV's pipeline with :class:`WindowDecoder` as one function, and the decoder's node in it."""
    threads = torch.get_num_threads()
    pipelines = {"image": [WindowDecoder()], "image_id": None}
    try:
        loader = Loader(
            path,
            batch_size=1,
            num_workers=1,
            os_cache=True,
            order=OrderOption.SEQUENTIAL,
            drop_last=False,
            seed=0,
            pipelines=pipelines,  # pyright: ignore[reportArgumentType] (None leaves a field out)
        )
    finally:
        torch.set_num_threads(threads)
    assert loader.code is not None
    stages, (node,) = loader.code
    ((function, _),) = [stage for stage in stages if stage[1]]
    return function, node


class _Stages:
    """FFCV's view of one ``.beton`` and the compiled pipeline that every stream shares."""

    _compiled: tuple[Callable[..., Any], int] | None = None
    _lock = threading.Lock()

    def __init__(self, path: str) -> None:
        # One Loader a process also for another reason: each one changes numba's (shared) type of
        # uint8 arrays in place, after which anything compiled earlier cannot be looked up.
        with _Stages._lock:
            if _Stages._compiled is None:
                _Stages._compiled = _compile(path)
        self._function, self._node = _Stages._compiled
        reader = Reader(path)
        # A contiguous copy, so that the type is the same for a file of one picture.
        self._metadata = {"f0": np.ascontiguousarray(reader.metadata["f0"])}
        context = OSCacheManager(reader).schedule_epoch([])
        context.__enter__()
        self._storage = context.state

    def run(
        self,
        windows: NDArray[np.int64],
        target: NDArray[np.uint8],
        buffer: NDArray[np.uint8],
        status: NDArray[np.int32],
    ) -> None:
        """Decode ``windows`` into ``target``; see :class:`WindowDecoder`."""
        self._function(
            batch_indices=windows,
            metadata=self._metadata,
            storage_state=self._storage,
            **{f"memory_{self._node}": (target, buffer, status)},
            **{f"shared_memory_{self._node}": None},
        )


class FFCVStream(ImageStream):
    """Pictures decoded by FFCV in a pool of threads."""

    name = "ffcv"

    def __init__(self, corpus: Corpus, split: str, size: int, config: DataConfig) -> None:
        super().__init__(corpus, split, size, config)
        self._stages = _Stages(str(self._reader.path))
        self._pool = ThreadPoolExecutor(config.workers, thread_name_prefix=f"pictures-{split}")
        self._local = threading.local()
        sides = (self._reader.heights, self._reader.widths)
        self._buffer_bytes = 3 * int(np.prod([side.max(initial=1) for side in sides]))

    def _run(self, windows: NDArray[np.int64], target: NDArray[np.uint8]) -> None:
        """One job, in a thread of the pool."""
        if not len(windows):
            return
        self._checksums.check(self._reader, windows[:, 0])
        if not hasattr(self._local, "buffer"):
            self._local.buffer = np.empty(self._buffer_bytes, np.uint8)
            self._local.status = np.empty(self.config.batch, np.int32)
        status = self._local.status[: len(windows)]
        status.fill(-1)
        self._stages.run(windows, target, self._local.buffer, status)
        failed = np.flatnonzero(status)
        if len(failed):
            row = int(windows[failed[0], 0])
            raise ValueError(f"{self._checksums.describe(row)} is corrupt: FFCV cannot decode it")

    def _decode(
        self, windows: NDArray[np.int64], sizes: Sequence[int]
    ) -> Generator[torch.Tensor, None, None]:
        jobs = pieces(windows, sizes, self.config.batch)
        ahead: deque[tuple[Future[None], torch.Tensor | None]] = deque()
        chunk = torch.empty(0)

        def submit() -> None:
            nonlocal chunk
            while len(ahead) < 2 * self.config.workers + 1 and (job := next(jobs, None)):
                part, start, size = job
                if start == 0:
                    chunk = torch.empty(size, self.size, self.size, 3, dtype=torch.uint8)
                stop = start + len(part)
                future = self._pool.submit(self._run, part, chunk.numpy()[start:stop])
                ahead.append((future, chunk if stop == size else None))

        try:
            submit()
            while ahead:
                future, whole = ahead.popleft()
                try:
                    future.result(self.config.timeout_s)
                except FutureTimeoutError:
                    raise RuntimeError(
                        f"{self._reader.path}: FFCV gave no pictures for {self.config.timeout_s} s "
                        "(data.timeout_s)"
                    ) from None
                submit()
                if whole is not None:
                    yield whole
        finally:
            for future, _ in ahead:
                future.cancel()

    def close(self) -> None:
        """End the threads; jobs not begun are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)
