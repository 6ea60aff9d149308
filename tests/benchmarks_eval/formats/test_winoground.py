"""Winoground's JSON lines and parquet give the same questions; pictures come out of the parquet."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks_eval.data import missing_picture, read_items
from benchmarks_eval.formats.winoground import extract_pictures
from benchmarks_eval.tasks import Task

ROWS = [
    {"id": 0, "image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "a cup on a hat",
     "caption_1": "a hat on a cup", "tag": "Noun", "secondary_tag": "", "num_main_preds": 1,
     "collapsed_tag": "Object"},
    {"id": 7, "image_0": "ex_7_img_0", "image_1": "ex_7_img_1", "caption_0": "it ran and sat",
     "caption_1": "it sat and ran", "tag": "Verb-Intransitive", "secondary_tag": "Series",
     "num_main_preds": 2, "collapsed_tag": "Relation"},
]
LINES = Task(name="w", kind="winoground", format="winoground", file="examples.jsonl",
             image_root="images")
PARQUET = LINES.model_copy(update={"file": "test.parquet"})


def _png(colour: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (colour, 0, 0)).save(out, "PNG")
    return out.getvalue()


def _write_lines(root: Path, rows: list[dict[str, Any]]) -> None:
    (root / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_parquet(root: Path, rows: list[dict[str, Any]]) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]
                               if not name.startswith("image")}
    for k in (0, 1):
        columns[f"image_{k}"] = pa.array(
            [{"bytes": _png(20 * row["id"] + k), "path": None} for row in rows], kind)
    pq.write_table(pa.table(columns), root / "test.parquet")


def test_both_forms_give_the_same_questions(tmp_path: Path) -> None:
    _write_lines(tmp_path, ROWS)
    _write_parquet(tmp_path, ROWS)
    lines, parquet = (read_items(task, tmp_path) for task in (LINES, PARQUET))
    first = lines[0]
    assert (first.id, first.images, first.texts, first.gold, first.line) == (
        "0", ("images/ex_0_img_0.png", "images/ex_0_img_1.png"),
        ("a cup on a hat", "a hat on a cup"), 0, 1)
    assert dict(first.tags) == {"tag": "Noun", "collapsed_tag": "Object", "num_main_preds": "1"}
    assert dict(lines[1].tags)["secondary_tag"] == "Series"
    assert [item.cluster for item in lines] == ["0", "7"]
    assert parquet == lines


def test_pictures_come_out_of_the_parquet_once(tmp_path: Path) -> None:
    _write_parquet(tmp_path, ROWS)
    said = missing_picture(PARQUET, tmp_path, read_items(PARQUET, tmp_path))
    assert said is not None and "validate --extract" in said
    assert extract_pictures(PARQUET, tmp_path) == (4, 4)
    assert missing_picture(PARQUET, tmp_path, read_items(PARQUET, tmp_path)) is None
    with Image.open(tmp_path / "images" / "ex_7_img_1.png") as picture:
        assert picture.getpixel((0, 0)) == (141, 0, 0)
    (tmp_path / "images" / "ex_0_img_0.png").unlink()
    assert extract_pictures(PARQUET, tmp_path) == (4, 1)
    assert sorted(path.suffix for path in (tmp_path / "images").iterdir()) == [".png"] * 4


def test_malformed_lines_are_named(tmp_path: Path) -> None:
    for rows, said in (
        ([ROWS[0], {k: v for k, v in ROWS[1].items() if k != "caption_1"}],
         "examples.jsonl, line 2: no field 'caption_1', did you mean 'caption_0'?"),
        ([ROWS[0] | {"caption_1": ""}], "line 1: field 'caption_1' is empty"),
        ([ROWS[0] | {"caption_1": ROWS[0]["caption_0"]}], "line 1: needs two different captions"),
        ([ROWS[0], ROWS[0]], "line 2: the id 0 stands before in"),
    ):
        _write_lines(tmp_path, rows)
        with pytest.raises(ValueError) as caught:
            read_items(LINES, tmp_path)
        assert said in str(caught.value)
    (tmp_path / "examples.jsonl").write_text('{"id": 0}\n{"id": \n')
    with pytest.raises(ValueError, match="line 1: no field 'caption_0'"):
        read_items(LINES, tmp_path)
    (tmp_path / "examples.jsonl").write_text("{\n")
    with pytest.raises(ValueError, match=r"examples\.jsonl, line 1: not JSON"):
        read_items(LINES, tmp_path)


def test_a_parquet_without_pictures_or_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=r"test\.parquet: not parquet"):
        read_items(PARQUET, tmp_path)
    pq.write_table(pa.table({"id": [1], "caption_0": ["a"]}), tmp_path / "test.parquet")
    with pytest.raises(ValueError, match="no column 'caption_1'"):
        read_items(PARQUET, tmp_path)
    pq.write_table(pa.table({"id": [1], "caption_0": ["a"], "caption_1": ["b"],
                             "image_0": ["x"], "image_1": ["y"]}), tmp_path / "test.parquet")
    with pytest.raises(ValueError, match="row 1: column 'image_0' holds no picture"):
        extract_pictures(PARQUET, tmp_path)
    with pytest.raises(ValueError, match="no parquet, so there are no pictures inside"):
        extract_pictures(LINES, tmp_path)
