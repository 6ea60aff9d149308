"""Picture keys, and whether the pictures behind them are there."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from pathlib import Path

from benchmarks_eval.formats.item import Item
from benchmarks_eval.tasks import Task


def picture_key(task: Task, image: str) -> str:
    """A picture's path relative to the task file's root, in one spelling."""
    return posixpath.normpath(posixpath.join(task.image_root, image))


def pictures_of(items: Sequence[Item]) -> dict[str, Item]:
    """Every distinct picture key and the first question that shows it ("" is no picture)."""
    found: dict[str, Item] = {}
    for item in items:
        for image in item.images:
            if image:
                found.setdefault(image, item)
    return found


def missing_pictures(root: Path, items: Sequence[Item]) -> dict[str, Item]:
    """The pictures that are not on disk, in file order."""
    return {
        image: item for image, item in pictures_of(items).items() if not (root / image).is_file()
    }


def missing_picture(task: Task, root: Path, items: Sequence[Item]) -> str | None:
    """One line about the pictures that are not on disk, or None when all are there."""
    absent = missing_pictures(root, items)
    if not absent:
        return None
    image, item = next(iter(absent.items()))
    more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
    inside = (
        "; validate --extract takes the pictures out of the parquet"
        if task.file.endswith(".parquet")
        else ""
    )
    return f"{item.place(root, task.file)}: picture {root / image} does not exist{more}{inside}"
