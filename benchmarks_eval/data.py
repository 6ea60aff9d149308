"""Data files in their published formats, read strictly into questions.

Every format has one module and one reader; what comes out is the same for all (``Item``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks_eval.formats.blimp import blimp_files, read_blimp
from benchmarks_eval.formats.devbench import read_devbench
from benchmarks_eval.formats.item import Item
from benchmarks_eval.formats.official import COLUMNS, read_official
from benchmarks_eval.formats.pictures import missing_picture, missing_pictures, pictures_of
from benchmarks_eval.formats.sugarcrepe import read_sugarcrepe
from benchmarks_eval.formats.winoground import read_winoground
from benchmarks_eval.tasks import Task

__all__ = [
    "COLUMNS",
    "Item",
    "data_files",
    "missing_picture",
    "missing_pictures",
    "pictures_of",
    "read_items",
]

_READERS: dict[str, Callable[[Task, Path], list[Item]]] = {
    "babyvlm": read_official,
    "winoground": read_winoground,
    "devbench": read_devbench,
    "blimp": read_blimp,
    "sugarcrepe": read_sugarcrepe,
}


def read_items(task: Task, root: Path) -> list[Item]:
    """All questions of a task, in file order; ids are unique within it.

    Raises:
        ValueError: file missing, column missing, malformed row (file and line), an id twice.
    """
    items = _READERS[task.format](task, root)
    seen: dict[str, Item] = {}
    for item in items:
        other = seen.setdefault(item.id, item)
        if other is not item:
            raise ValueError(
                f"{item.place(root, task.file)}: the id {item.id} stands before in "
                f"{other.place(root, task.file)}"
            )
    return items


def data_files(task: Task, root: Path) -> list[Path]:
    """The files whose bytes make the questions (pictures aside), sorted: what a plan digests."""
    return blimp_files(task, root) if task.format == "blimp" else [root / task.file]
