"""Files are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dataprep.files import sha256_file, whole_file, write_whole


def test_bytes_and_texts(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x"
    write_whole(path, "abc")
    # NIST's test vector for "abc".
    assert sha256_file(path).startswith("ba7816bf8f01cfea414140de5dae2223")
    write_whole(path, b"\xff", "fixed.partial")
    assert path.read_bytes() == b"\xff"
    assert [entry.name for entry in path.parent.iterdir()] == ["x"]


@pytest.mark.parametrize("temporary", [None, "fixed.partial"])
def test_an_error_leaves_what_was_there_before(tmp_path: Path, temporary: str | None) -> None:
    path = tmp_path / "x"
    write_whole(path, "before", temporary)
    with pytest.raises(OSError, match="full"), whole_file(path, temporary) as file:
        file.write(b"half")
        assert path.read_text() == "before"
        raise OSError("the disk is full")
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["x"]


def test_it_is_on_the_device_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flushed = tmp_path / "x", []

    def fsync(handle: int) -> None:
        status = os.fstat(handle)
        assert stat.S_ISREG(status.st_mode) and not path.exists()
        flushed.append(status.st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(path, "12345")
    assert flushed == [5] and path.exists()


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x.partial").write_text("left by a killed run, longer")
    write_whole(tmp_path / "x", "new", "x.partial")
    assert (tmp_path / "x").read_text() == "new" and os.listdir(tmp_path) == ["x"]
