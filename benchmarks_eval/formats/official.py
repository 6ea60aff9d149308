"""The four CSV layouts of BabyVLM (arXiv 2504.09426): Labeled-S, VTWT, Baby Winoground, captions.

``labeled``: trial_id, target_category, real_category, image (one row a picture of a trial);
``two_word``: image, positive_phrase, negative_phrase; ``winoground``: instance_id,
positive_phrase, negative_phrase, image, image_tag (two rows an instance); ``caption``: image, text.
A column ``difference``, where a file has one, names the kind of difference between the phrases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks_eval.formats.differences import difference_tags
from benchmarks_eval.formats.item import Item
from benchmarks_eval.formats.pictures import picture_key
from benchmarks_eval.formats.tables import Row, cluster_of, read_csv
from benchmarks_eval.tasks import Task

COLUMNS: dict[str, tuple[str, ...]] = {
    "labeled": ("trial_id", "target_category", "real_category", "image"),
    "two_word": ("image", "positive_phrase", "negative_phrase"),
    "winoground": ("instance_id", "positive_phrase", "negative_phrase", "image", "image_tag"),
    "caption": ("image", "text"),
}


def read_official(task: Task, root: Path) -> list[Item]:
    """All questions of an official CSV, in file order.

    Raises:
        ValueError: file or column missing, malformed row (file and line).
    """
    build: dict[str, Callable[[Task, list[Row]], list[Item]]] = {
        "labeled": _labeled, "two_word": _two_word, "winoground": _winoground,
        "caption": _caption}  # fmt: skip
    return build[task.kind](task, read_csv(root / task.file, COLUMNS[task.kind]))


def _grouped(rows: Sequence[Row], column: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.values[column], []).append(row)
    return groups


def _cluster(task: Task, row: Row) -> str:
    return cluster_of(task, row, row.values["image"])


def _labeled(task: Task, rows: list[Row]) -> list[Item]:
    items: list[Item] = []
    for trial, members in _grouped(rows, "trial_id").items():
        first = members[0]
        target = first.values["target_category"]
        for row in members:
            if row.values["target_category"] != target:
                raise ValueError(
                    f"{row.place}: trial {trial} asks for '{row.values['target_category']}' here "
                    f"and '{target}' in line {first.line}"
                )
        gold = [k for k, row in enumerate(members) if row.values["real_category"] == target]
        if len(gold) != 1 or len(members) < 2:
            raise ValueError(
                f"{first.place}: trial {trial} needs one picture of '{target}' and at least one "
                f"of something else, has {len(gold)} and {len(members) - len(gold)}"
            )
        items.append(
            Item(
                id=trial,
                images=tuple(picture_key(task, row.values["image"]) for row in members),
                texts=tuple(row.values["real_category"] for row in members),
                gold=gold[0],
                cluster=_cluster(task, members[gold[0]]),
                line=first.line,
                tags=(("category", target),),
            )
        )
    return items


def _two_word(task: Task, rows: list[Row]) -> list[Item]:
    items: list[Item] = []
    for row in rows:
        phrases = (row.values["positive_phrase"], row.values["negative_phrase"])
        if phrases[0] == phrases[1]:
            raise ValueError(f"{row.place}: both phrases are '{phrases[0]}'")
        items.append(
            Item(
                str(len(items)),
                (picture_key(task, row.values["image"]),),
                phrases,
                0,
                _cluster(task, row),
                row.line,
                difference_tags(*phrases, row.values.get("difference")),
            )
        )
    return items


def _winoground(task: Task, rows: list[Row]) -> list[Item]:
    items: list[Item] = []
    for instance, members in _grouped(rows, "instance_id").items():
        tagged = {row.values["image_tag"]: row for row in members}
        if len(members) != 2 or set(tagged) != {"positive", "negative"}:
            tags = ", ".join(row.values["image_tag"] for row in members)
            raise ValueError(
                f"{members[0].place}: instance {instance} needs two rows, "
                f"image_tag positive and negative; has {tags}"
            )
        positive, negative = tagged["positive"], tagged["negative"]
        phrases = [(r.values["positive_phrase"], r.values["negative_phrase"]) for r in members]
        if phrases[0] != phrases[1] or phrases[0][0] == phrases[0][1]:
            raise ValueError(
                f"{members[1].place}: instance {instance} needs the same two "
                f"different phrases in both rows"
            )
        images = tuple(picture_key(task, row.values["image"]) for row in (positive, negative))
        items.append(
            Item(
                instance,
                images,
                phrases[0],
                0,
                _cluster(task, positive),
                members[0].line,
                difference_tags(*phrases[0], positive.values.get("difference")),
            )
        )
    return items


def _caption(task: Task, rows: list[Row]) -> list[Item]:
    return [
        Item(
            str(number),
            (picture_key(task, row.values["image"]),),
            (row.values["text"],),
            0,
            _cluster(task, row),
            row.line,
        )
        for number, row in enumerate(rows)
    ]
