"""SugarCrepe (Hsieh et al., NeurIPS 2023): a caption and its hard negative for a COCO picture.

One JSON object a file: ``{"0": {"filename": ..., "caption": ..., "negative_caption": ...}, ...}``;
seven files (add_att, add_obj, replace_att, replace_obj, replace_rel, swap_att, swap_obj) over the
pictures of COCO val2017, which the task's ``image_root`` names.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks_eval.formats.item import Item
from benchmarks_eval.formats.pictures import picture_key
from benchmarks_eval.formats.tables import cluster_of, read_json_entries
from benchmarks_eval.tasks import Task

REQUIRED = ("filename", "caption", "negative_caption")


def read_sugarcrepe(task: Task, root: Path) -> list[Item]:
    """All entries in file order: the picture, the caption at ``gold``, its negative.

    Raises:
        ValueError: file missing or malformed (the entry is named), both captions alike.
    """
    items: list[Item] = []
    stem = Path(task.file).stem
    for key, row in read_json_entries(root / task.file, REQUIRED):
        name, caption, negative = (row.values[column] for column in REQUIRED)
        if caption == negative:
            raise ValueError(f"{row.place}: both captions are '{caption}'")
        items.append(
            Item(
                key,
                (picture_key(task, name),),
                (caption, negative),
                0,
                cluster_of(task, row, name),
                row.line,
                (("category", stem), ("change", stem.split("_")[0])),
            )
        )
    return items
