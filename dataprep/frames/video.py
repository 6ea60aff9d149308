"""The frame that a video shows at each of many times, through PyAV (FFmpeg).

A video is a chain of groups of pictures: each begins with a keyframe and is decoded from there.
Two ways lead to the same frames:

- *sequential*: read the file from front to back; groups in which nothing is wanted are read but
  not decoded.
- *seek*: jump ahead whenever the next time lies more than one group past what was read. It reads
  less and pays for every jump.

``auto`` reads sequentially where there is at least one time a group of pictures, and seeks where
there are fewer. Either way no group is decoded twice, decoding stops at the last frame that is
wanted in it, and H.264 frames that nothing refers to are decoded only when they are wanted.

The frame at time t is the last one that begins at or before t (plus half a millisecond, since
stamps are rounded decimals). Times count from the first frame. The packets of one group of
pictures are held in memory.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame

__all__ = ["Frame", "VideoError", "Way", "Work", "frames_at"]

Way = Literal["auto", "sequential", "seek"]
WAYS = ("auto", "sequential", "seek")
TOLERANCE_S = Fraction(1, 2000)
"""How far past a time a frame may begin and still be the one that is meant."""
GROUP_S = 10
"""Assumed length of a group of pictures where the file has no table of its keyframes."""
MOST_REORDERED = 16
"""How many frames a codec may show before one that it decodes earlier (H.264's limit)."""
_CAN_SKIP = {"h264"}
"""Codecs whose stream says exactly which frames nothing refers to."""


class VideoError(ValueError):
    """A video that cannot be read; the message is one line that names it."""


@dataclass(frozen=True)
class Frame:
    """What a video shows at one of the wanted times.

    Attributes: ``stamp``, index of the wanted time; ``time_s``, when the frame begins, in seconds
    from the first frame; ``pixels``, uint8 [H, W, 3], RGB.
    """

    stamp: int
    time_s: float
    pixels: NDArray[np.uint8]


@dataclass
class Work:
    """What reading a video took: packets read and decoded, groups decoded, jumps made."""

    read: int = 0
    decoded: int = 0
    groups: int = 0
    seeks: int = 0


@dataclass(frozen=True)
class _Group:
    """A group of pictures, in ticks of the stream.

    ``packets`` in decoding order, from a keyframe up to whatever is needed to show every frame
    before the next keyframe; ``shown``, when its frames begin, sorted; ``until``, when the next
    keyframe begins (None: the file ends), ``end`` when its last frame does.
    """

    packets: list[Packet]
    shown: list[int]
    until: int | None
    end: int


def frames_at(
    path: Path, times_s: Sequence[float], way: Way = "auto", work: Work | None = None
) -> Iterator[Frame]:
    """Yield the frame shown at each time, group of pictures by group of pictures.

    Args:
        path: the video file.
        times_s: wanted times in seconds from the first frame, in any order, repeats allowed.
        way: ``sequential``, ``seek`` or ``auto``.
        work: is told what it took.

    Nothing is yielded for times past the end, nor for a frame that the decoder finds damaged or
    that follows such a one in its group of pictures. (Streams have no checksums: damage that
    still decodes to something is not found.)

    Raises:
        VideoError: the file is no video that can be read, or its packets have no time stamps.
        ValueError: a time is negative or not finite, or `way` is none of the three.
    """
    if way not in WAYS:
        raise ValueError(f"way {way!r}: accepted are {', '.join(WAYS)}")
    for time_s in times_s:
        if not 0 <= time_s < float("inf"):
            raise ValueError(f"{path}: time {time_s} s; accepted are 0 and above")
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise VideoError(f"{path}: has no video stream")
            yield from _Reader(path, container, work or Work()).frames(times_s, way)
    except FFmpegError as error:
        said = (error.strerror or str(error)).lower()
        raise VideoError(f"{path}: cannot be read as a video ({said})") from None


class _Reader:
    """One pass over one open video."""

    def __init__(self, path: Path, container: InputContainer, work: Work) -> None:
        self.path, self.container, self.work = path, container, work
        self.stream = container.streams.video[0]
        if not self.stream.time_base:
            raise VideoError(f"{path}: its video stream has no time base")
        self.base: Fraction = self.stream.time_base
        self.start = self.stream.start_time or 0
        self.context = self.stream.codec_context
        self.context.thread_count = 1  # many files run side by side instead
        self.may_skip = self.context.name in _CAN_SKIP
        self.group_ticks = self._group_ticks()
        self.packets = container.demux(self.stream)
        self.ahead: deque[Packet] = deque()
        self.timed = False
        self.after_loss: set[int] = set()

    def _group_ticks(self) -> int:
        """How long a group of pictures is: the median by the file's own table of packets."""
        keys = [entry.timestamp for entry in self.stream.index_entries if entry.is_keyframe]
        if len(keys) < 2:
            return int(GROUP_S / self.base)
        return max(int(np.median(np.diff(keys))), 1)

    def frames(self, times_s: Sequence[float], way: Way) -> Iterator[Frame]:
        order = sorted(range(len(times_s)), key=times_s.__getitem__)
        targets = deque(
            (self.start + int((Fraction(times_s[k]) + TOLERANCE_S) / self.base), k) for k in order
        )
        seeking = way == "seek" or (way == "auto" and self._sparse([t for t, _ in targets]))
        position = self.start
        while targets:
            if seeking and targets[0][0] - position > self.group_ticks:
                self._seek(targets[0][0])
            group = self._read_group()
            if group is None:
                return
            position = group.end if group.until is None else group.until
            wanted: dict[int, list[int]] = {}
            while targets and targets[0][0] < position:
                tick, stamp = targets.popleft()
                if group.shown:
                    place = max(bisect.bisect_right(group.shown, tick) - 1, 0)
                    wanted.setdefault(group.shown[place], []).append(stamp)
            if wanted:
                yield from self._decode(group, wanted)
            if group.until is None:
                return  # what is left lies past the end

    def _sparse(self, ticks: Sequence[int]) -> bool:
        """Whether there are fewer times than groups of pictures between the first and the last."""
        return (ticks[-1] - ticks[0]) / self.group_ticks > len(ticks) if ticks else False

    def _seek(self, tick: int) -> None:
        """Go to the last keyframe that is shown at or before `tick`."""
        back = 0
        while True:
            self.work.seeks += 1
            self.container.seek(max(tick - back, self.start), stream=self.stream)
            self.packets = self.container.demux(self.stream)
            self.ahead.clear()
            first = self._next()
            while first is not None and not first.is_keyframe:
                first = self._next()
            if first is not None:
                self.ahead.appendleft(first)
            at_start = tick - back <= self.start
            if at_start or (first is not None and _pts(first) <= tick):
                return
            back = max(2 * back, self.group_ticks)

    def _next(self) -> Packet | None:
        """The next packet in decoding order, None at the end of the file."""
        if self.ahead:
            return self.ahead.popleft()
        lost = False
        while (packet := next(self.packets, None)) is not None and packet.size:
            self.work.read += 1
            if packet.pts is not None:
                self.timed = True
                if lost:
                    self.after_loss.add(packet.pts)
                return packet
            if not self.timed:
                raise VideoError(
                    f"{self.path}: its packets have no time stamps; write it anew, for example "
                    "with `ffmpeg -fflags +genpts -i IN -c copy OUT.mp4`"
                )
            lost = True  # a torn packet: what follows it in its group leans on it
        return None

    def _read_group(self) -> _Group | None:
        """The packets from the next keyframe to the one after it; None at the end of the file."""
        first = self._next()
        while first is not None and not first.is_keyframe:
            first = self._next()
        if first is None:
            return None
        packets, until = [first], None
        while (packet := self._next()) is not None:
            if packet.is_keyframe and _pts(packet) > _pts(first):
                until = _pts(packet)
                packets += self._leading(packet, until)
                break
            packets.append(packet)
        shown = sorted(
            _pts(p) for p in packets
            if _pts(first) <= _pts(p) and (until is None or _pts(p) < until) and not p.is_discard
        )  # fmt: skip
        length = packets[-1].duration or self._frame_ticks()
        return _Group(packets, shown, until, (shown[-1] if shown else _pts(first)) + length)

    def _leading(self, key: Packet, until: int) -> list[Packet]:
        """Packets from the next keyframe on that are shown before it (open groups have such).

        They lean on both groups. All stay in `ahead`, where the next group begins.
        """
        tail = [key]
        while (packet := self._next()) is not None:
            tail.append(packet)
            shown_later = packet.dts is not None and packet.dts >= until  # as are all that follow
            if shown_later or len(tail) > MOST_REORDERED:
                break
        self.ahead.extendleft(reversed(tail))
        early = [place for place, packet in enumerate(tail) if _pts(packet) < until]
        return tail[: early[-1] + 1] if early else []

    def _frame_ticks(self) -> int:
        rate = self.stream.average_rate
        return max(int(1 / (rate * self.base)), 1) if rate else 1

    def _decode(self, group: _Group, wanted: dict[int, list[int]]) -> Iterator[Frame]:
        """Decode a group up to the last frame that is wanted, from a fresh decoder.

        Frames come out in the order of presentation, so one that leans on a damaged frame may
        come before it: each is held until no such frame can follow.
        """
        self.work.groups += 1
        self.context.flush_buffers()
        rank = {_pts(packet): k for k, packet in enumerate(group.packets)}
        last = max(rank[pts] for pts in wanted)
        torn = [place for pts, place in rank.items() if pts in self.after_loss]
        damaged = min(torn, default=len(rank))  # rank of the first packet that cannot be trusted
        held: deque[VideoFrame] = deque()
        for frame in self._decoded(group.packets[: last + 1], wanted):
            if isinstance(frame, int):
                damaged = min(damaged, frame)
                continue
            if frame.pts is None or frame.pts < _pts(group.packets[0]) or frame.pts not in rank:
                continue  # leans on the group before: wanted there, not here
            if frame.is_corrupt:
                damaged = min(damaged, rank[frame.pts])
            held.append(frame)
            if len(held) > MOST_REORDERED:
                yield from self._given(held.popleft(), wanted, rank, damaged)
        for frame in held:
            yield from self._given(frame, wanted, rank, damaged)

    def _decoded(
        self, packets: Sequence[Packet], wanted: dict[int, list[int]]
    ) -> Iterator[VideoFrame | int]:
        """Frames as the decoder gives them; the rank of a packet that it refuses."""
        from av.error import FFmpegError

        for place, packet in enumerate((*packets, None)):
            if packet is not None:
                self.work.decoded += 1
                if self.may_skip:
                    skip = "DEFAULT" if packet.pts in wanted else "NONREF"
                    if self.context.skip_frame != skip:
                        self.context.skip_frame = skip
            try:
                yield from self.context.decode(packet)
            except FFmpegError:
                yield place

    def _given(
        self, frame: VideoFrame, wanted: dict[int, list[int]], rank: dict[int, int], damaged: int
    ) -> Iterator[Frame]:
        assert frame.pts is not None  # `_decode` saw to it
        stamps = wanted.pop(frame.pts, ())
        if not stamps or rank[frame.pts] >= damaged:
            return
        pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
        for stamp in stamps:
            yield Frame(stamp, float((frame.pts - self.start) * self.base), pixels)


def _pts(packet: Packet) -> int:
    assert packet.pts is not None  # `_next` saw to it
    return packet.pts
