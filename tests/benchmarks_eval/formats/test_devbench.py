"""DevBench manifests: pictures for a text, squares, texts for a picture; the right one first."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks_eval.data import read_items
from benchmarks_eval.tasks import Task

BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"


def _task(root: Path, kind: str, text: str, **fields: object) -> Task:
    path = root / "assets" / "t" / "manifest.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return Task.model_validate({"name": "t", "kind": kind, "format": "devbench",
                                "file": "assets/t/manifest.csv", **fields})


LWL = "text1,image1,image2\ndog,images_a/dog.png,images_a/cat.png\ncat,images_a/cat.png," \
      "images_a/dog.png\nball,images_b/ball.png,images_b/shoe.png\n"


def test_the_picture_for_a_word(tmp_path: Path) -> None:
    items = read_items(_task(tmp_path, "picture_choice", BOM + LWL), tmp_path)
    assert [item.id for item in items] == ["1", "2", "3"]
    assert items[0].images == ("assets/t/images_a/dog.png", "assets/t/images_a/cat.png")
    assert items[0].texts == ("dog",) and items[0].gold == 0 and items[0].line == 2
    assert dict(items[2].tags) == {"folder": "images_b"}
    # The two trials that share both pictures depend on each other.
    assert items[0].cluster == items[1].cluster != items[2].cluster


def test_more_columns_keep_their_number_order(tmp_path: Path) -> None:
    task = _task(tmp_path, "picture_choice",
                 "note,image2,text1,image1,image10,image3\nx,b.png,dog,a.png,d.png,c.png\n",
                 image_root="elsewhere", cluster="note")
    item = read_items(task, tmp_path)[0]
    assert item.images == tuple(f"elsewhere/{name}.png" for name in "abcd")
    assert item.cluster == "x" and item.tags == ()


def test_squares_and_texts_for_a_picture(tmp_path: Path) -> None:
    task = _task(tmp_path, "winoground", "image1,image2,text1,text2\na.png,b.png,one,two\n")
    item = read_items(task, tmp_path)[0]
    assert item.images == ("assets/t/a.png", "assets/t/b.png") and item.texts == ("one", "two")
    task = _task(tmp_path, "text_choice", "image1,text1,text2,text3\na.png,one,two,three\n")
    item = read_items(task, tmp_path)[0]
    assert item.images == ("assets/t/a.png",) and item.texts == ("one", "two", "three")
    task = _task(tmp_path, "text_choice", "text1,text2\nyes it is,it yes is\n")
    assert read_items(task, tmp_path)[0].images == ("",)


@pytest.mark.parametrize(("kind", "body", "said"), [
    ("picture_choice", "text1,image1\na,b.png\n", "line 1: kind 'picture_choice' needs one text"),
    ("picture_choice", "text1,text2,image1,image2\na,b,c,d\n", "found text1, text2, image1"),
    ("winoground", LWL, "needs two text columns and two image columns"),
    ("text_choice", LWL, "needs at least two text columns"),
    ("picture_choice", "text1,image1,image2\na,b.png,\n", "line 2: column 'image2' is empty"),
    ("picture_choice", "text1,image1,image2\na,b.png\n", "line 2: 2 fields where the header has 3"),
    ("picture_choice", "word,image1,image2\na,b.png,c.png\n", "line 1: no column 'text1'"),
])
def test_what_does_not_fit_is_named(tmp_path: Path, kind: str, body: str, said: str) -> None:
    task = _task(tmp_path, kind, body)
    with pytest.raises(ValueError) as caught:
        read_items(task, tmp_path)
    assert "manifest.csv" in str(caught.value) and said in str(caught.value)
