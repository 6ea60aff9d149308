"""Part files: cut at any byte, they hold whole batches and can be gone on with."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks_eval.parts import Part, Row, part_path, read_parts, remove_parts


def rows(batch: int) -> list[Row]:
    return [Row(0, "scores", {"image": f"{batch}.png", "text": f"ein Bär {k}", "cosine": 0.1 * k})
            for k in range(batch)]


def test_a_part_cut_at_any_byte_keeps_its_whole_batches(tmp_path: Path) -> None:
    with Part(tmp_path, 0) as part:
        ends = [0]
        for batch in range(4):
            part.append(batch, rows(batch))
            ends.append(part.path.stat().st_size)
    whole = part_path(tmp_path, 0).read_bytes()
    for length in range(len(whole) + 1):
        out = tmp_path / "cut"
        out.mkdir(exist_ok=True)
        path = part_path(out, 0)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(whole[:length])
        expected = sum(end <= length for end in ends[1:])
        assert read_parts(out) == {batch: rows(batch) for batch in range(expected)}, length
        with Part(out, 0) as part:
            for batch in range(expected, 4):
                part.append(batch, rows(batch))
        assert path.read_bytes() == whole, length


def test_parts_of_several_ranks_are_read_together(tmp_path: Path) -> None:
    for rank, batches in ((0, (0, 2)), (5, (1, 3))):
        with Part(tmp_path, rank) as part:
            for batch in batches:
                part.append(batch, rows(batch))
    assert sorted(read_parts(tmp_path)) == [0, 1, 2, 3]
    remove_parts(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_a_crash_of_the_machine_leaves_does_not_count(tmp_path: Path) -> None:
    with Part(tmp_path, 0) as part:
        for batch in range(3):
            part.append(batch, rows(batch))
    path = part_path(tmp_path, 0)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + b"\0" * 40 + b"".join(lines[2:]))
    assert sorted(read_parts(tmp_path)) == [0]
    os.truncate(path, 0)
    assert read_parts(tmp_path) == {}
