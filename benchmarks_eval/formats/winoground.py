"""Winoground (Thrush et al., CVPR 2022) as its owners publish it: JSON lines or parquet.

``examples.jsonl``: id, image_0, image_1 (stems such as ``ex_0_img_0``; the pictures are
``images/<stem>.png`` from images.zip), caption_0, caption_1, tag, secondary_tag, num_main_preds,
collapsed_tag. The parquet holds the same fields with the pictures inside (``{bytes, path}``); they
are named ``ex_<id>_img_<0 or 1>.png`` and must be taken out once, by ``validate --extract``.
Caption k belongs to picture k. The data is gated and for research only: none of it comes with us.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from benchmarks_eval.formats.item import Item
from benchmarks_eval.formats.pictures import picture_key
from benchmarks_eval.formats.tables import Row, cluster_of, fields, present, read_json_lines
from benchmarks_eval.tasks import Task

TEXT_FIELDS = ("id", "caption_0", "caption_1")
IMAGE_FIELDS = ("image_0", "image_1")
TAGS = ("tag", "secondary_tag", "collapsed_tag", "num_main_preds")


def read_winoground(task: Task, root: Path) -> list[Item]:
    """All examples in file order: pictures 0 and 1, captions 0 and 1.

    Raises:
        ValueError: file missing or no such file, a field missing, captions or pictures alike.
    """
    path = root / task.file
    if path.suffix == ".parquet":
        rows = _parquet_rows(path)
    else:
        rows = read_json_lines(path, (*TEXT_FIELDS, *IMAGE_FIELDS))
    items: list[Item] = []
    for row in rows:
        captions = row.values["caption_0"], row.values["caption_1"]
        names = tuple(_file_name(row.values[field]) for field in IMAGE_FIELDS)
        if captions[0] == captions[1] or names[0] == names[1]:
            raise ValueError(f"{row.place}: needs two different captions and two pictures")
        tags = tuple((name, row.values[name]) for name in TAGS if row.values.get(name))
        items.append(
            Item(
                row.values["id"],
                tuple(picture_key(task, name) for name in names),
                captions,
                0,
                cluster_of(task, row, row.values["id"]),
                row.line,
                tags,
            )
        )
    return items


def extract_pictures(task: Task, root: Path) -> tuple[int, int]:
    """Takes the pictures out of a parquet into the task's image folder.

    Those that are there stay as they are; each new one appears whole or not at all.

    Returns:
        Pictures in the file, and pictures written now.

    Raises:
        ValueError: the file is no parquet with pictures inside.
    """
    path = root / task.file
    if path.suffix != ".parquet":
        raise ValueError(f"{path}: no parquet, so there are no pictures inside to take out")
    found = written = 0
    for number, example, inside in _pictures(path):
        for field, content in inside.items():
            found += 1
            target = root / picture_key(task, _inner_name(example, field))
            if target.is_file():
                continue
            if not content:
                raise ValueError(f"{path}, row {number}: no picture in column '{field}'")
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(target.name + ".part")
            try:
                with part.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(part, target)
            finally:
                part.unlink(missing_ok=True)
            written += 1
    return found, written


def _file_name(name: str) -> str:
    return name if PurePosixPath(name).suffix else f"{name}.png"


def _inner_name(example: str, field: str) -> str:
    return f"ex_{example}_img_{field.removeprefix('image_')}.png"


def _open(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(present(path))
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: not parquet: {' '.join(str(error).split())}") from None
    for name in (*TEXT_FIELDS, *IMAGE_FIELDS):
        if name not in file.schema_arrow.names:
            raise ValueError(
                f"{path}: no column '{name}'; found {', '.join(file.schema_arrow.names)}"
            )
    return file


def _parquet_rows(path: Path) -> list[Row]:
    file = _open(path)
    columns = [name for name in (*TEXT_FIELDS, *TAGS) if name in file.schema_arrow.names]
    rows: list[Row] = []
    for number, value in enumerate(file.read(columns=columns).to_pylist(), start=1):
        place = f"{path}, row {number}"
        values = fields(value, TEXT_FIELDS, place)
        values |= {field: _inner_name(values["id"], field) for field in IMAGE_FIELDS}
        rows.append(Row(place, number, values))
    if not rows:
        raise ValueError(f"{path}: no rows")
    return rows


def _pictures(path: Path) -> Iterator[tuple[int, str, dict[str, bytes]]]:
    """(row number, example, {field: bytes}); a few rows at a time, pictures are large."""
    number = 0
    for batch in _open(path).iter_batches(batch_size=8, columns=["id", *IMAGE_FIELDS]):
        for value in batch.to_pylist():
            number += 1
            inside: dict[str, bytes] = {}
            for field in IMAGE_FIELDS:
                picture = value[field]
                if not isinstance(picture, dict) or "bytes" not in picture:
                    raise ValueError(
                        f"{path}, row {number}: column '{field}' holds no picture "
                        f"(needs a struct with bytes)"
                    )
                inside[field] = picture["bytes"] or b""
            yield number, str(value["id"]), inside
