"""Writing so that a kill or a full disk never leaves half a file under its real name."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path


def sha256_file(file: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Flush one file, or the entries of one directory, to the device."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(directory: Path) -> None:
    """Flush everything below ``directory``, and itself."""
    for path in [*directory.rglob("*"), directory]:
        fsync(path)


def write_atomically(file: Path, text: str) -> None:
    """Replace ``file``'s content in one step."""
    temporary = file.with_name(f".tmp-{file.name}-{os.getpid()}")
    try:
        temporary.write_text(text, "utf-8")
        fsync(temporary)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def replace_directory(work: Path, final: Path) -> None:
    """Give ``work`` (already flushed) the name ``final``; an older directory there goes.

    A directory cannot be renamed over another, so the old one steps aside for an instant;
    :func:`recover_directory` puts it back when the process was killed in that instant.
    """
    aside = _aside(final)
    try:
        if final.exists():
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(final, aside)
        os.rename(work, final)
        fsync(final.parent)
    finally:
        recover_directory(final)


def recover_directory(final: Path) -> None:
    """Undo what a failed or killed :func:`replace_directory` left undone."""
    aside = _aside(final)
    if aside.exists() and not final.exists():
        os.rename(aside, final)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(final: Path) -> Path:
    return final.with_name(f".old-{final.name}")
