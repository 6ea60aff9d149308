"""BLiMP (Warstadt et al., TACL 2020) and the sets in its format: minimal pairs of sentences.

One JSON object a line with ``sentence_good`` and ``sentence_bad``; also, where given: field,
linguistics_term, UID (the paradigm), pairID. BLiMP's ``data/`` has 67 files of 1,000 pairs; the
BabyLM challenge filters and supplements them in the same form. No picture is shown.
The pairs of a paradigm come from one template, so they are one cluster; in a set of a single
paradigm each pair is one.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks_eval.formats.item import Item
from benchmarks_eval.formats.tables import cluster_of, read_json_lines
from benchmarks_eval.tasks import Task

REQUIRED = ("sentence_good", "sentence_bad")


def blimp_files(task: Task, root: Path) -> list[Path]:
    """The file, or all ``*.jsonl`` of the folder by name.

    Raises:
        ValueError: the folder holds none.
    """
    path = root / task.file
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.jsonl"))
    if not found:
        raise ValueError(f"{path}: no JSON lines files (*.jsonl) here")
    return found


def read_blimp(task: Task, root: Path) -> list[Item]:
    """All pairs: no picture (""), the good sentence at ``gold``.

    Raises:
        ValueError: file missing, a line malformed, both sentences alike.
    """
    items: list[Item] = []
    found = [
        (path, row) for path in blimp_files(task, root) for row in read_json_lines(path, REQUIRED)
    ]
    names = [row.values.get("UID") or path.stem for path, row in found]
    several = len(set(names)) > 1
    for number, ((path, row), paradigm) in enumerate(zip(found, names, strict=True)):
        good, bad = (row.values[name] for name in REQUIRED)
        if good == bad:
            raise ValueError(f"{row.place}: both sentences are '{good}'")
        tags = [("paradigm", paradigm)]
        for tag, name in (("phenomenon", "linguistics_term"), ("field", "field")):
            if row.values.get(name):
                tags.append((tag, row.values[name]))
        items.append(
            Item(
                f"{path.stem}/{row.line}",
                ("",),
                (good, bad),
                0,
                cluster_of(task, row, paradigm if several else str(number)),
                row.line,
                tuple(tags),
                path.relative_to(root).as_posix(),
            )
        )
    return items
