"""SugarCrepe's JSON: a caption and its negative for a picture, entries named in errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks_eval.data import missing_picture, read_items
from benchmarks_eval.tasks import Task

TASK = Task(name="s", kind="text_choice", format="sugarcrepe", file="swap_att.json",
            image_root="val2017")
ENTRY = {"filename": "000000000001.jpg", "caption": "a red cup on a blue mat ",
         "negative_caption": "a blue cup on a red mat"}


def _write(root: Path, tree: object) -> None:
    (root / "swap_att.json").write_text(tree if isinstance(tree, str) else json.dumps(tree))


def test_entries_become_text_choices(tmp_path: Path) -> None:
    _write(tmp_path, {"0": ENTRY, "5": ENTRY | {"caption": "two cups"}})
    first, second = read_items(TASK, tmp_path)
    assert first.images == ("val2017/000000000001.jpg",) and first.gold == 0
    assert first.texts == ("a red cup on a blue mat", "a blue cup on a red mat")
    assert dict(first.tags) == {"category": "swap_att", "change": "swap"}
    assert second.id == "5" and first.cluster == second.cluster == "000000000001.jpg"
    said = missing_picture(TASK, tmp_path, [second])
    assert said is not None and "swap_att.json, entry 5: picture" in said


@pytest.mark.parametrize(("tree", "said"), [
    ({"0": ENTRY, "1": {"filename": "a.jpg", "caption": "x"}},
     "entry 1: no field 'negative_caption'"),
    ({"0": ENTRY | {"negative_caption": ["x"]}}, "entry 0: field 'negative_caption' is empty or"),
    ({"0": ENTRY | {"negative_caption": "a red cup on a blue mat"}}, "entry 0: both captions are"),
    ({}, "needs a JSON object with one object an entry"),
    ([ENTRY], "needs a JSON object with one object an entry"),
    ('{"0": {}, "0": {}}', "the key '0' stands twice"),
    ('{"0": {},\n "1" {}}', "line 2: not JSON"),
])
def test_malformed_files_are_named(tmp_path: Path, tree: object, said: str) -> None:
    _write(tmp_path, tree)
    with pytest.raises(ValueError) as caught:
        read_items(TASK, tmp_path)
    assert "swap_att.json" in str(caught.value) and said in str(caught.value)
