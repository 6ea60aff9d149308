"""Files that are whole or not there, and the hash of one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["sha256_file", "whole_file", "write_whole"]


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_file(path: Path, temporary: str | None = None) -> Iterator[IO[bytes]]:
    """Open a file to write that gets its name once it is written, flushed to the device.

    An error leaves what was there before, and nothing else.

    Args:
        path: its name; folders on the way are made.
        temporary: the name it has in the same folder till then. None: ``.NAME.tmp-PROCESS``, so
            that several processes may write it at once; with a fixed one, what a killed process
            left is overwritten by the next.

    Raises:
        OSError: the disk does not take it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(temporary or f".{path.name}.tmp-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes | str, temporary: str | None = None) -> None:
    """Write bytes, or a text as UTF-8, as `whole_file` does."""
    with whole_file(path, temporary) as file:
        file.write(data.encode() if isinstance(data, str) else data)
