"""An append-only journal in JSON lines, cut into segments; a torn last line is found and dropped.

Every line is a JSON object whose first member ``crc`` is the CRC-32 of the rest, so that a line
that was only half written, or that a disk returned as zeros, is told from a whole one.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

SEGMENT_BYTES = 64 * 2**20
_HEAD = len('{"crc":"00000000",')


class Place(NamedTuple):
    """Where a line lies: number of its segment, first byte, length with the line end."""

    segment: int
    start: int
    length: int


def encode(record: Mapping[str, Any]) -> bytes:
    """One line; ``record`` must have a member."""
    body = json.dumps(record, separators=(",", ":"), ensure_ascii=False)[1:]
    data = body.encode("utf-8", "surrogatepass")
    return b'{"crc":"%08x",%s\n' % (zlib.crc32(data), data)


def decode(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None when it is not whole."""
    if not line.endswith(b"}\n") or not line.startswith(b'{"crc":"') or len(line) <= _HEAD:
        return None
    if line[8:16] != b"%08x" % zlib.crc32(line[_HEAD:-1]):
        return None
    record = json.loads(line.decode("utf-8", "surrogatepass"))
    del record["crc"]
    return record


class Segments:
    """The journal in ``folder``: ``000001.jsonl``, ``000002.jsonl``, ... One writer at a time.

    Attributes: ``dropped_bytes``, length of the torn line that opening found and cut off.
    """

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        self._limit = segment_bytes
        self.dropped_bytes = 0
        folder.mkdir(parents=True, exist_ok=True)
        numbers = self.numbers()
        self._current = numbers[-1] if numbers else 1
        self._file = os.open(self.path(self._current), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._size = self._cut_torn_line()
            _fsync_folder(folder)
        except BaseException:
            os.close(self._file)
            raise

    def path(self, number: int) -> Path:
        """File of a segment."""
        return self.folder / f"{number:06d}.jsonl"

    def numbers(self) -> list[int]:
        """Numbers of the segments there are, ascending."""
        found = sorted(int(p.stem) for p in self.folder.glob("*.jsonl") if p.stem.isdigit())
        if found != list(range(1, len(found) + 1)):
            raise ValueError(
                f"{self.folder}: segments {found} are not 1, 2, 3, ...: one is missing"
            )
        return found

    def sizes(self) -> dict[int, int]:
        """Size in bytes of each segment."""
        return {number: self.path(number).stat().st_size for number in self.numbers()}

    def _cut_torn_line(self) -> int:
        """Cut what a kill left after the last whole line; returns the size."""
        size = os.fstat(self._file).st_size
        good, tail = size, b""
        while good > 0:  # the last line lies within the last few blocks
            step = min(good, 1 << 20)
            tail = os.pread(self._file, step, good - step) + tail
            good -= step
            start = tail.rfind(b"\n", 0, -1) + 1
            if start or good == 0:
                break
        last = tail[tail.rfind(b"\n", 0, -1) + 1 :]
        if not last or decode(last) is not None:
            return size
        self.dropped_bytes = len(last)
        os.ftruncate(self._file, size - len(last))
        os.fsync(self._file)
        return size - len(last)

    def append(self, records: Iterable[Mapping[str, Any]], *, sync: bool = True) -> list[Place]:
        """Write records, flush them to the device (``sync``), say where they lie.

        All of them are there afterwards or, after ``OSError``, none: what a full disk took of
        them is cut off again.
        """
        if self._size >= self._limit:
            self._rotate()
        lines = [encode(record) for record in records]
        places, start = [], self._size
        for line in lines:
            places.append(Place(self._current, start, len(line)))
            start += len(line)
        data = memoryview(b"".join(lines))
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(self._file, data[done:], self._size + done)
            if sync:
                os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._size)
            path = self.path(self._current)
            raise OSError(
                f"{path}: cannot be written ({error.strerror}); what it held before is kept"
            ) from error
        self._size = start
        return places

    def _rotate(self) -> None:
        os.fsync(self._file)
        new = os.open(self.path(self._current + 1), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        os.close(self._file)
        self._file, self._current, self._size = new, self._current + 1, 0
        _fsync_folder(self.folder)

    def read(self, place: Place) -> dict[str, Any]:
        """The record at a place; ``ValueError`` when none is there."""
        path = self.path(place.segment)
        if place.segment == self._current:
            line = os.pread(self._file, place.length, place.start)
        else:
            with path.open("rb") as file:
                file.seek(place.start)
                line = file.read(place.length)
        record = decode(line)
        if record is None:
            raise ValueError(f"{path}: the line at byte {place.start} is damaged")
        return record

    def scan(self, number: int, start: int = 0) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Every record of a segment from byte ``start`` on.

        Raises ``ValueError`` naming the line's first byte when one is damaged: only a torn *last*
        line is a kill's doing.
        """
        path = self.path(number)
        with path.open("rb") as file:
            file.seek(start)
            for line in file:
                record = decode(line)
                if record is None:
                    raise ValueError(
                        f"{path}: the line at byte {start} is damaged (its checksum does not fit); "
                        "restore the file, or delete that line to ask its request again"
                    )
                yield Place(number, start, len(line)), record
                start += len(line)

    def close(self) -> None:
        """Flush and close."""
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
