"""Part files: what each rank has recorded so far, batch by batch, and how a run picks up there.

A part holds the rows of a batch, then a line ``{"batch": n, "rows": k}``, then the next batch. Each
batch is synced to disk when its end line is. Killed anywhere, a part ends in a tail without such a
line; the tail is cut off and its batch done again, by whatever ranks there are then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

from benchmarks_eval.records import json_line

FOLDER = "parts"


class Row(NamedTuple):
    """A line of one of a model's files."""

    model: int
    """Place of the model in the plan."""
    file: str
    """``scores`` or ``captions``."""
    row: dict[str, Any]


def part_path(out: Path, rank: int) -> Path:
    """Where a rank records."""
    return out / FOLDER / f"rank-{rank:04d}.jsonl"


def read_parts(out: Path) -> dict[int, list[Row]]:
    """Every finished batch of every part, whatever ranks wrote them."""
    done: dict[int, list[Row]] = {}
    for path in sorted((out / FOLDER).glob("rank-*.jsonl")):
        for batch, rows in _read(path)[0].items():
            done.setdefault(batch, rows)
    return done


def _read(path: Path) -> tuple[dict[int, list[Row]], int]:
    """Finished batches and the length in bytes up to the last end line."""
    done: dict[int, list[Row]] = {}
    rows: list[Row] = []
    whole = at = 0
    with path.open("rb") as file:
        for line in file:
            at += len(line)
            try:
                made = json.loads(line)
                if not line.endswith(b"\n"):
                    break
                if "batch" in made:
                    if made["rows"] != len(rows):
                        break
                    done[made["batch"]] = rows
                    rows, whole = [], at
                else:
                    rows.append(Row(made["model"], made["file"], made["row"]))
            except (ValueError, KeyError, TypeError):
                break  # what a crash of the machine may leave: nothing from here on counts
    return done, whole


class Part:
    """A rank's own part, open for more batches."""

    def __init__(self, out: Path, rank: int) -> None:
        self.path = part_path(out, rank)
        self._file: BinaryIO | None = None

    def __enter__(self) -> Part:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            whole = _read(self.path)[1]
            os.truncate(self.path, whole)
        self._file = self.path.open("ab")
        return self

    def append(self, batch: int, rows: Sequence[Row]) -> None:
        """Adds a batch; when this returns it is on the disk."""
        assert self._file is not None
        lines = [json_line({"model": r.model, "file": r.file, "row": r.row}) for r in rows]
        lines.append(json_line({"batch": batch, "rows": len(rows)}))
        self._file.write("".join(lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        assert self._file is not None
        self._file.close()


def remove_parts(out: Path) -> None:
    """Removes the parts; their folder only when nothing else lies in it."""
    folder = out / FOLDER
    for path in folder.glob("rank-*.jsonl"):
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
