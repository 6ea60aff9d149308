"""Strict readers of CSV, JSON lines and JSON: every error names the file and the line or entry."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks_eval.tasks import Task, nearest

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A record of a file: its values by column, and where it stands."""

    place: str
    """For messages: ``/data/t.csv, line 4``."""
    line: int
    """From 1; 0 in a format without lines."""
    values: dict[str, str]


def present(path: Path) -> Path:
    """The path, when there is a file.

    Raises:
        ValueError: there is none.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file (the task file's root or --root is its folder)")
    return path


def read_csv(path: Path, required: Sequence[str]) -> list[Row]:
    """All rows of a CSV with a header; cells are stripped, and required ones not empty.

    Raises:
        ValueError: file missing, not CSV, a column missing, a malformed row, no rows.
    """
    rows: list[Row] = []
    with present(path).open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            for column in required:
                if column not in header:
                    raise ValueError(
                        f"{path}, line 1: no column '{column}'; found "
                        f"{', '.join(header) or 'nothing'}, "
                        f"needed {', '.join(required)}"
                    )
            before = reader.line_num
            for fields in reader:
                line, before = before + 1, reader.line_num
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise ValueError(
                        f"{path}, line {line}: {len(fields)} fields where the header "
                        f"has {len(header)}"
                    )
                values = dict(zip(header, (field.strip() for field in fields), strict=True))
                for column in required:
                    if not values[column]:
                        raise ValueError(f"{path}, line {line}: column '{column}' is empty")
                rows.append(Row(f"{path}, line {line}", line, values))
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: not CSV: {error}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path}, after line {reader.line_num}: not UTF-8 text") from None
    if not rows:
        raise ValueError(f"{path}: no rows under the header")
    return rows


def read_json_lines(path: Path, required: Sequence[str]) -> list[Row]:
    """All rows of a file with one JSON object a line.

    Raises:
        ValueError: file missing, a line that is no object or lacks a field, no rows.
    """
    rows: list[Row] = []
    with present(path).open("rb") as file:
        for number, raw in enumerate(file, start=1):
            place = f"{path}, line {number}"
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if not text.strip():
                    continue
                value = json.loads(text)
            except UnicodeDecodeError:
                raise ValueError(f"{place}: not UTF-8 text") from None
            except ValueError as error:
                raise ValueError(f"{place}: not JSON: {error}") from None
            rows.append(Row(place, number, fields(value, required, place)))
    if not rows:
        raise ValueError(f"{path}: no rows")
    return rows


def read_json_entries(path: Path, required: Sequence[str]) -> list[tuple[str, Row]]:
    """The entries (key, row) of a file that holds one JSON object of objects.

    Raises:
        ValueError: file missing, not such JSON, an entry twice or without a field, no entries.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
            raise ValueError(f"{path}: the key '{twice}' stands twice in one object")
        return found

    try:
        text = present(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    try:
        tree = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from None
    if not isinstance(tree, dict) or not tree:
        raise ValueError(f"{path}: needs a JSON object with one object an entry")
    rows: list[tuple[str, Row]] = []
    for key, value in tree.items():
        place = f"{path}, entry {key}"
        rows.append((key, Row(place, 0, fields(value, required, place))))
    return rows


def fields(value: Any, required: Sequence[str], place: str) -> dict[str, str]:
    """The plain fields of a JSON object as stripped strings; lists and objects are left out.

    Raises:
        ValueError: it is no object, or a required field is missing, empty or not text.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{place}: needs a JSON object, has {type(value).__name__}")
    found = {
        str(name): ("" if one is None else str(one).strip())
        for name, one in value.items()
        if not isinstance(one, dict | list)
    }
    for name in required:
        if name not in value:
            raise ValueError(f"{place}: no field '{name}'{nearest(name, value)}")
        if not found.get(name):
            raise ValueError(f"{place}: field '{name}' is empty or no text")
    return found


def cluster_of(task: Task, row: Row, default: str) -> str:
    """What makes a row depend on others: the task's ``cluster`` column, or the default value.

    Raises:
        ValueError: no such column, or the value does not match ``cluster_pattern``.
    """
    value = default
    if task.cluster is not None:
        if task.cluster not in row.values:
            raise ValueError(
                f"{row.place}: no column '{task.cluster}' to cluster by"
                f"{nearest(task.cluster, row.values)}"
            )
        value = row.values[task.cluster]
    if task.cluster_pattern is None:
        return value
    match = re.search(task.cluster_pattern, value)
    if match is None:
        raise ValueError(
            f"{row.place}: '{value}' in column '{task.cluster or 'image'}' does not "
            f"match cluster_pattern {task.cluster_pattern}"
        )
    return match.group(1)
