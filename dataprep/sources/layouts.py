"""The layouts in which general pictures and captions come, read row by row.

Every reader yields a `Row` for what can be used and a `Dead` for what cannot; only a file that is
not of its layout at all is an error. Nothing is held in memory but the row at hand.
"""

from __future__ import annotations

import csv
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from dataprep.sources.write import Dead

__all__ = ["Row", "read_csv", "read_llava", "read_tsv", "read_webdataset"]

_CHUNK = 1 << 20
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
csv.field_size_limit(1 << 24)


@dataclass(frozen=True)
class Row:
    """A picture and what is said of it.

    Attributes: ``file`` and ``where``, the row's place; ``image``, the picture's name; ``text``;
    ``data``, the picture's bytes where the layout holds them (a tar), else None.
    """

    file: str
    where: str
    image: str
    text: str
    data: bytes | None = None


def items(path: Path) -> Iterator[Any]:
    """The items of a JSON file whose top is a list, one by one, without reading it whole.

    Raises:
        ValueError: it is no list, or not JSON from some item on.
    """
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8-sig") as file:
        text, place, number, ended = "", 0, -1, False  # number -1: the list's bracket
        while True:
            while place < len(text) and text[place] in (" \t\r\n," if number >= 0 else " \t\r\n"):
                place += 1
            found = text[place : place + 1]
            if number < 0 and found:
                if found != "[":
                    begins = text[place : place + 20]
                    raise ValueError(f"{path}: not a JSON list (it begins with {begins!r})")
                number, place = 0, place + 1
                continue
            if found == "]":
                return
            item, after = None, len(text)
            if found:
                with suppress(ValueError):
                    item, after = decoder.raw_decode(text, place)
            if after < len(text):  # else it may go on in what was not read yet
                number, place = number + 1, after
                yield item
                continue
            more = "" if ended else _more(file, path, max(_CHUNK, len(text) - place))
            ended = not more
            if ended:
                raise ValueError(f"{path}: cut short or not JSON after item {max(number, 0)}")
            text, place = text[place:] + more, 0


def _more(file: TextIO, path: Path, count: int) -> str:
    try:
        return file.read(count)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None


def read_llava(path: Path) -> Iterator[Row | Dead]:
    """A LLaVA-style JSON: ``{"id", "image", "conversations": [{"from", "value"}, ...]}`` each.

    ``image`` is a name or a list of names; the words are the first answer (``from`` "gpt"), as
    in ``blip_laion_cc_sbu_558k.json``.
    """
    for number, item in enumerate(items(path)):
        where = f"item {number}"
        if not isinstance(item, dict):
            yield Dead(path.name, where, "", "item is not an object")
            continue
        key = str(item.get("id", ""))
        images = item.get("image")
        names = [images] if isinstance(images, str) else images
        if not isinstance(names, list) or not names or not all(
            isinstance(name, str) and name for name in names
        ):
            yield Dead(path.name, where, key, "no image (a name or a list of names)")
            continue
        text = _answer(item.get("conversations"))
        if text is None:
            yield Dead(path.name, where, key, "no answer in its conversations")
            continue
        for name in names:
            yield Row(path.name, where, name, text)


def _answer(turns: object) -> str | None:
    for turn in turns if isinstance(turns, list) else ():
        if isinstance(turn, dict) and turn.get("from") == "gpt":
            value = turn.get("value")
            return value if isinstance(value, str) else None
    return None


def read_csv(
    path: Path, image: str = "image", text: str = "text", *, tabs: bool = False
) -> Iterator[Row | Dead]:
    """A CSV with a header, of whose columns one names the picture and one holds the words.

    Raises:
        ValueError: a column is missing, or the file is no UTF-8 text.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, csv.excel_tab if tabs else csv.excel)
        header = [name.strip() for name in _next(reader, path) or []]
        missing = [name for name in (image, text) if name not in header]
        if missing:
            raise ValueError(
                f"{path}, line 1: no column {', '.join(map(repr, missing))}; found "
                f"{', '.join(header) or 'nothing'}; needed {image}, {text}"
            )
        yield from _fields(reader, path, header.index(image), header.index(text), len(header), 1)


def read_tsv(path: Path, order: Sequence[str] = ("text", "image")) -> Iterator[Row | Dead]:
    """Tab-separated words and local files, with a header that names ``image`` and ``text`` or,
    without one, in the given order (CC3M's: the caption first)."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline().rstrip("\r\n").split("\t")
        if {"image", "text"} <= {name.strip() for name in first}:
            yield from read_csv(path, tabs=True)
            return
        if len(first) < len(order):
            raise ValueError(
                f"{path}, line 1: {len(first)} columns; needed {len(order)}: "
                f"{', '.join(order)}, with tabs between them"
            )
        file.seek(0)
        reader = csv.reader(file, csv.excel_tab, quoting=csv.QUOTE_NONE)
        image, text = order.index("image"), order.index("text")
        yield from _fields(reader, path, image, text, len(first), 0)


def _next(reader: Any, path: Path) -> list[str] | None:
    try:
        return next(reader, None)
    except UnicodeDecodeError:
        raise ValueError(f"{path}, after line {reader.line_num}: not UTF-8 text") from None
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _fields(
    reader: Any, path: Path, image: int, text: int, columns: int, before: int
) -> Iterator[Row | Dead]:
    while (row := _next(reader, path)) is not None:
        where, before = f"line {before + 1}", reader.line_num
        if not any(row):
            continue
        if len(row) != columns:
            yield Dead(path.name, where, row[0][:80], f"wrong number of columns ({len(row)})")
        elif not row[image].strip():
            yield Dead(path.name, where, "", "no image named")
        elif "://" in row[image]:
            yield Dead(path.name, where, row[image][:200], "a URL; only local files are read")
        else:
            yield Row(path.name, where, row[image].strip(), row[text])


def read_webdataset(path: Path) -> Iterator[Row | Dead]:
    """A WebDataset shard: a tar in which ``KEY.jpg`` and ``KEY.txt`` (or ``KEY.json`` with a
    ``caption``) follow each other, as img2dataset writes them."""
    key: str | None = None
    parts: dict[str, bytes] = {}
    members = 0
    try:
        with tarfile.open(path, "r:*") as archive:
            while (member := archive.next()) is not None:
                members += 1
                if not member.isfile():
                    continue
                name, suffix = _key(member.name)
                if name != key:
                    if key is not None:
                        yield _sample(path, key, parts)
                    key, parts = name, {}
                content = archive.extractfile(member)
                assert content is not None  # it is a file
                data = content.read()
                if len(data) < member.size:
                    raise tarfile.ReadError("unexpected end of data")
                parts[suffix] = data
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        if not members:
            raise ValueError(f"{path}: not a tar archive ({said.rstrip(': ')})") from None
        yield Dead(path.name, f"after entry {members}", key or "", f"archive cut short ({said})")
        return
    if key is not None:
        yield _sample(path, key, parts)


def _key(name: str) -> tuple[str, str]:
    """Key and suffix: what is before and from the first dot of the last part of a name."""
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.partition(".")
    return f"{folder}{slash}{stem}", f"{dot}{suffix}".lower()


def _sample(path: Path, key: str, parts: Mapping[str, bytes]) -> Row | Dead:
    data = next((parts[suffix] for suffix in PICTURES if suffix in parts), None)
    if data is None:
        return Dead(path.name, key, key, "sample has no picture")
    suffix = next(suffix for suffix in PICTURES if suffix in parts)
    try:
        text = parts[".txt"].decode("utf-8") if ".txt" in parts else None
        if text is None and ".json" in parts:
            about = json.loads(parts[".json"])
            text = about.get("caption") if isinstance(about, dict) else None
    except ValueError:
        return Dead(path.name, key, key, "sample's text cannot be read")
    if not isinstance(text, str):
        return Dead(path.name, key, key, "sample has no text (.txt, or .json with a caption)")
    return Row(path.name, key, f"{key}{suffix}", text, data)
