"""Hashes, JSON lines and tables; every error in reading one names file and line."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dataprep.files import sha256_file


def sha256(data: bytes | str) -> str:
    """SHA-256, hexadecimal; of a text's UTF-8 bytes."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def sha256_tree(folder: Path) -> str:
    """SHA-256 over the names and hashes of a folder's files (or of the file, if it is one)."""
    if folder.is_file():
        return sha256_file(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sha256("".join(f"{p.relative_to(folder).as_posix()}\0{sha256_file(p)}\n" for p in files))


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values, equal text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def json_lines(values: Iterable[Mapping[str, Any]]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; ValueError naming file and line."""
    out = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(value, dict):
            raise ValueError(f"{path}, line {number}: not a JSON object")
        out.append(value)
    return out


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV with unix line ends."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a CSV that has at least these columns.

    Raises:
        ValueError: no such file, a column is missing, or a row has another number of fields.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = next(reader, [])
        for column in columns:
            if column not in header:
                raise ValueError(
                    f"{path}, line 1: no column '{column}'; found {', '.join(header) or 'nothing'}"
                )
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(fields)} fields where the header has "
                    f"{len(header)}"
                )
            yield reader.line_num, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _text(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start})") from None
