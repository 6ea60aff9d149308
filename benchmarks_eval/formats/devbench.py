"""DevBench manifests (Tan et al., NeurIPS 2024): looking-while-listening, vocabulary, TROG, ...

Layout: ``assets/<task>/manifest.csv`` with the columns text1, text2, ... and image1, image2, ...,
one row a trial, pictures relative to the manifest's folder (or to the task's ``image_root``), the
right answer always first:
``lex-lwl`` one text and two pictures; ``lex-viz_vocab`` and ``gram-trog`` one text and four;
``gram-winoground`` two texts and two pictures that belong together by number. A set of one's own
in this layout may also have one picture (or none) and several texts, the right one first.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from benchmarks_eval.formats.item import Item
from benchmarks_eval.formats.pictures import picture_key
from benchmarks_eval.formats.tables import Row, cluster_of, read_csv
from benchmarks_eval.tasks import Task

_NEEDS = {
    "picture_choice": "one text column and at least two image columns",
    "text_choice": "at least two text columns and at most one image column",
    "winoground": "two text columns and two image columns",
}


def read_devbench(task: Task, root: Path) -> list[Item]:
    """All trials of a manifest, in file order; ids are the trial numbers of DevBench (from 1).

    Raises:
        ValueError: file missing, columns that do not fit the kind, empty or repeated cells.
    """
    path = root / task.file
    rows = read_csv(path, ("text1",))
    texts, images = (_numbered(rows[0], what) for what in ("text", "image"))
    fits = {
        "picture_choice": len(texts) == 1 and len(images) >= 2,
        "text_choice": len(texts) >= 2 and len(images) <= 1,
        "winoground": len(texts) == 2 and len(images) == 2,
    }
    if not fits[task.kind]:
        raise ValueError(
            f"{path}, line 1: kind '{task.kind}' needs {_NEEDS[task.kind]}, found "
            f"{', '.join(rows[0].values)}"
        )
    folder = posixpath.dirname(task.file)
    return [
        _item(task, folder, number, row, texts, images) for number, row in enumerate(rows, start=1)
    ]


def _numbered(row: Row, what: str) -> list[str]:
    found = [name for name in row.values if re.fullmatch(rf"{what}[1-9]\d*", name)]
    return sorted(found, key=lambda name: int(name.removeprefix(what)))


def _item(
    task: Task,
    folder: str,
    number: int,
    row: Row,
    text_columns: list[str],
    image_columns: list[str],
) -> Item:
    for column in (*text_columns, *image_columns):
        if not row.values[column]:
            raise ValueError(f"{row.place}: column '{column}' is empty")
    texts = tuple(row.values[column] for column in text_columns)
    names = tuple(row.values[column] for column in image_columns)
    inside = "" if "image_root" in task.model_fields_set else folder
    images = tuple(picture_key(task, posixpath.join(inside, name)) for name in names) or ("",)
    source = posixpath.dirname(names[0]) if names else ""
    return Item(
        str(number),
        images,
        texts,
        0,
        cluster_of(task, row, " + ".join(sorted(names or texts))),
        row.line,
        (("folder", source),) if source else (),
    )
