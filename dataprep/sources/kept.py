"""Pictures that an interrupted run had made: kept beside the corpus until it is whole.

An append-only file a list of rows: what was made of each row in turn, with a checksum. A tail that
a kill cut short is dropped; what comes before it is not made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from dataprep.sources.pictures import Prepared

__all__ = ["Kept", "kept_folder", "kept_until_whole"]

SYNC_EVERY_S = 5.0
"""Seconds between two times that the file is forced to the disk: what a power cut may cost."""
_HEAD = struct.Struct("<cII32s")  # what it is, payload's bytes, their CRC-32, source's SHA-256
_NOTHING, _WRONG, _PICTURE, _KEY = b"n", b"w", b"p", b"k"


def kept_folder(out: Path) -> Path:
    """Where the pictures of a corpus that is not whole yet are kept."""
    return out.with_name(f"{out.name}.pictures")


@contextmanager
def kept_until_whole(folder: Path) -> Iterator[None]:
    """Remove the folder when the corpus is whole, or will never be from these files."""
    try:
        yield
    except ValueError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


class Kept:
    """What was made of rows, in their order: first what the file holds, then what is appended.

    Args:
        path: the file; its folder is made.
        facts: all that decides what is made of a row; a file of other facts is emptied.
    """

    def __init__(self, path: Path, facts: Any) -> None:
        self.path = path
        self._key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()
        self._file: BinaryIO | None = None
        self._synced = time.monotonic()

    def __enter__(self) -> Kept:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        self._file.seek(0)
        head = self._file.read(_HEAD.size)
        if head != _HEAD.pack(_KEY, 0, 0, self._key):
            self._file.truncate(0)
            self._file.write(_HEAD.pack(_KEY, 0, 0, self._key))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        assert self._file is not None
        self._file.close()

    def known(self) -> Iterator[Prepared | str | None]:
        """What the file holds; afterwards, and not before, `add` may be called."""
        file = self._file
        assert file is not None
        file.seek(at := _HEAD.size)
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            kind, size, crc, digest = _HEAD.unpack(head)
            payload = file.read(size)
            if len(payload) < size or zlib.crc32(payload) != crc:
                break
            at += _HEAD.size + size
            if kind == _PICTURE:
                yield Prepared(payload, digest.hex())
            else:
                yield payload.decode("utf-8") if kind == _WRONG else None
        file.truncate(at)
        file.seek(at)

    def add(self, made: Prepared | str | None) -> None:
        """Keep what was made of the next row."""
        file = self._file
        assert file is not None
        kind, payload, digest = _NOTHING, b"", b""
        if isinstance(made, str):
            kind, payload = _WRONG, made.encode("utf-8")
        elif made is not None:
            kind, payload, digest = _PICTURE, made.jpeg, bytes.fromhex(made.sha256)
        file.write(_HEAD.pack(kind, len(payload), zlib.crc32(payload), digest) + payload)
        if time.monotonic() - self._synced >= SYNC_EVERY_S:
            file.flush()
            os.fsync(file.fileno())
            self._synced = time.monotonic()
