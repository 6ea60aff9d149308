"""The four official CSV layouts, read strictly: every error names the file and the line."""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks_eval.tasks import Task, nearest

COLUMNS: dict[str, tuple[str, ...]] = {
    "labeled": ("trial_id", "target_category", "real_category", "image"),
    "two_word": ("image", "positive_phrase", "negative_phrase"),
    "winoground": ("instance_id", "positive_phrase", "negative_phrase", "image", "image_tag"),
    "caption": ("image", "text"),
}


@dataclass(frozen=True)
class Item:
    """One question as the CSV states it.

    ``images`` are keys: paths relative to the task file's root. Meaning by kind:
    labeled: K images, ``texts`` their K categories, the target at ``gold``;
    two_word: one image, positive then negative phrase; winoground: positive then negative image,
    positive then negative phrase; caption: one image, one caption.
    """

    id: str
    images: tuple[str, ...]
    texts: tuple[str, ...]
    gold: int
    cluster: str
    line: int


@dataclass(frozen=True)
class _Row:
    line: int
    values: dict[str, str]


def read_items(task: Task, root: Path) -> list[Item]:
    """All questions of a task, in file order.

    Raises:
        ValueError: file missing, column missing, malformed row (with its line number).
    """
    path = root / task.file
    rows = _read_rows(path, COLUMNS[task.kind])
    if task.cluster not in rows[0].values:
        raise ValueError(f"{path}: no column '{task.cluster}' to cluster by"
                         f"{nearest(task.cluster, rows[0].values)}")
    build = {"labeled": _labeled, "two_word": _two_word, "winoground": _winoground,
             "caption": _caption}[task.kind]
    return build(task, path, rows)


def missing_picture(task: Task, root: Path, items: Sequence[Item]) -> str | None:
    """One line about the pictures that are not on disk, or None when all are there."""
    absent = {image: item.line for item in reversed(items) for image in item.images
              if not (root / image).is_file()}
    if not absent:
        return None
    image, line = min(absent.items(), key=lambda pair: pair[1])
    more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
    return f"{root / task.file}, line {line}: picture {root / image} does not exist{more}"


def _read_rows(path: Path, required: Sequence[str]) -> list[_Row]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file (the task file's root or --root is its folder)")
    rows: list[_Row] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            for column in required:
                if column not in header:
                    raise ValueError(f"{path}, line 1: no column '{column}'; found "
                                     f"{', '.join(header) or 'nothing'}, "
                                     f"needed {', '.join(required)}")
            before = reader.line_num
            for fields in reader:
                line, before = before + 1, reader.line_num
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise ValueError(f"{path}, line {line}: {len(fields)} fields where the header "
                                     f"has {len(header)}")
                values = dict(zip(header, (field.strip() for field in fields), strict=True))
                for column in required:
                    if not values[column]:
                        raise ValueError(f"{path}, line {line}: column '{column}' is empty")
                rows.append(_Row(line, values))
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: not CSV: {error}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path}, after line {reader.line_num}: not UTF-8 text") from None
    if not rows:
        raise ValueError(f"{path}: no rows under the header")
    return rows


def _key(task: Task, image: str) -> str:
    return posixpath.normpath(posixpath.join(task.image_root, image))


def _cluster(task: Task, path: Path, row: _Row) -> str:
    value = row.values[task.cluster]
    if task.cluster_pattern is None:
        return value
    match = re.search(task.cluster_pattern, value)
    if match is None:
        raise ValueError(f"{path}, line {row.line}: '{value}' in column '{task.cluster}' does not "
                         f"match cluster_pattern {task.cluster_pattern}")
    return match.group(1)


def _grouped(rows: Sequence[_Row], column: str) -> dict[str, list[_Row]]:
    groups: dict[str, list[_Row]] = {}
    for row in rows:
        groups.setdefault(row.values[column], []).append(row)
    return groups


def _labeled(task: Task, path: Path, rows: list[_Row]) -> list[Item]:
    items: list[Item] = []
    for trial, members in _grouped(rows, "trial_id").items():
        first = members[0]
        target = first.values["target_category"]
        for row in members:
            if row.values["target_category"] != target:
                raise ValueError(f"{path}, line {row.line}: trial {trial} asks for "
                                 f"'{row.values['target_category']}' here and '{target}' in "
                                 f"line {first.line}")
        gold = [k for k, row in enumerate(members) if row.values["real_category"] == target]
        if len(gold) != 1 or len(members) < 2:
            raise ValueError(f"{path}, line {first.line}: trial {trial} needs one picture of "
                             f"'{target}' and at least one of something else, has {len(gold)} and "
                             f"{len(members) - len(gold)}")
        items.append(Item(
            id=trial,
            images=tuple(_key(task, row.values["image"]) for row in members),
            texts=tuple(row.values["real_category"] for row in members),
            gold=gold[0],
            cluster=_cluster(task, path, members[gold[0]]),
            line=first.line,
        ))
    return items


def _two_word(task: Task, path: Path, rows: list[_Row]) -> list[Item]:
    items: list[Item] = []
    for row in rows:
        phrases = (row.values["positive_phrase"], row.values["negative_phrase"])
        if phrases[0] == phrases[1]:
            raise ValueError(f"{path}, line {row.line}: both phrases are '{phrases[0]}'")
        items.append(Item(str(len(items)), (_key(task, row.values["image"]),), phrases, 0,
                          _cluster(task, path, row), row.line))
    return items


def _winoground(task: Task, path: Path, rows: list[_Row]) -> list[Item]:
    items: list[Item] = []
    for instance, members in _grouped(rows, "instance_id").items():
        tagged = {row.values["image_tag"]: row for row in members}
        if len(members) != 2 or set(tagged) != {"positive", "negative"}:
            tags = ", ".join(row.values["image_tag"] for row in members)
            raise ValueError(f"{path}, line {members[0].line}: instance {instance} needs two rows, "
                             f"image_tag positive and negative; has {tags}")
        positive, negative = tagged["positive"], tagged["negative"]
        phrases = [(r.values["positive_phrase"], r.values["negative_phrase"]) for r in members]
        if phrases[0] != phrases[1] or phrases[0][0] == phrases[0][1]:
            raise ValueError(f"{path}, line {members[1].line}: instance {instance} needs the same "
                             f"two different phrases in both rows")
        images = (_key(task, positive.values["image"]), _key(task, negative.values["image"]))
        items.append(Item(instance, images, phrases[0], 0, _cluster(task, path, positive),
                          members[0].line))
    return items


def _caption(task: Task, path: Path, rows: list[_Row]) -> list[Item]:
    return [Item(str(number), (_key(task, row.values["image"]),), (row.values["text"],), 0,
                 _cluster(task, path, row), row.line)
            for number, row in enumerate(rows)]
