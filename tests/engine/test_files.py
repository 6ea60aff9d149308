"""A name always means a whole file or directory, also when a kill hits between two renames."""

from __future__ import annotations

import os

import pytest

from engine import files


def tree(path, text):
    path.mkdir(parents=True)
    (path / "file").write_text(text)
    return path


def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch):
    target = tmp_path / "a"
    files.write_atomically(target, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(target, "new")
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_directory_is_replaced(tmp_path):
    final = tree(tmp_path / "model", "old")
    files.replace_directory(tree(tmp_path / "work", "new"), final)
    assert (final / "file").read_text() == "new" and list(tmp_path.iterdir()) == [final]


def test_a_kill_between_the_two_renames_is_undone(tmp_path):
    final = tree(tmp_path / "model", "old")
    os.rename(final, files._aside(final))  # What a kill in that instant leaves.
    for _ in range(2):
        files.recover_directory(final)
        assert (final / "file").read_text() == "old" and list(tmp_path.iterdir()) == [final]


def test_a_replacement_that_fails_keeps_the_old_one(tmp_path):
    final = tree(tmp_path / "model", "old")
    with pytest.raises(FileNotFoundError):
        files.replace_directory(tmp_path / "nowhere", final)
    assert (final / "file").read_text() == "old" and list(tmp_path.iterdir()) == [final]


def test_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert files.sha256_file(tmp_path / "x").startswith("ba7816bf")
