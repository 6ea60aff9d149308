"""``list``: the task files, their tasks, and whether the data of each is there."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks_eval.data import missing_pictures, pictures_of, read_items
from benchmarks_eval.tasks import Task, TaskFile, load_tasks

FOLDER = Path("configs/tasks")


def add(subparsers: Any) -> None:
    """Declares the command."""
    parser = subparsers.add_parser(
        "list", help="task files, their tasks and whether the data is there"
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=FOLDER,
        metavar="DIR|YAML",
        help=f"a folder of task files, or one file (default {FOLDER})",
    )
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="data folder, instead of the files' own"
    )


def run(args: argparse.Namespace) -> int:
    """Prints one block a task file."""
    print(list_tasks(args.folder, args.root))
    return 0


def list_tasks(folder: Path, root: Path | None = None) -> str:
    """One block a task file: its tasks, their kinds, questions and pictures.

    Raises:
        ValueError: the folder holds no task file, or one of them is malformed.
    """
    paths = sorted(folder.glob("*.yaml")) if folder.is_dir() else [folder]
    if not paths:
        raise ValueError(f"{folder}: no task files (*.yaml) here")
    blocks: list[str] = []
    for path in paths:
        suite = load_tasks(path)
        lines = [f"{path}  {suite.name} v{suite.version}  {suite.description}".rstrip()]
        width = max(len(task.name) for task in suite.tasks)
        for task in suite.tasks:
            lines.append(
                f"  {task.name:<{width}}  {task.kind:<14}  "
                f"{_state(suite, task, root or Path(suite.root))}"
            )
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _state(suite: TaskFile, task: Task, root: Path) -> str:
    if not (root / task.file).exists():
        return f"no data at {root / task.file}"
    try:
        items = read_items(task, root)
    except ValueError as error:
        return f"bad data: {error}"
    said = f"{len(items):,} questions"
    wanted = len(pictures_of(items))
    if not wanted:
        return f"{said}, no pictures"
    absent = len(missing_pictures(root, items))
    if absent:
        return f"{said}, {wanted - absent:,} of {wanted:,} pictures there"
    return f"{said}, {wanted:,} pictures"
