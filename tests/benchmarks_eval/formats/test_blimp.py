"""BLiMP's minimal pairs: no picture, the good sentence right, paradigms as clusters and tags."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks_eval.data import data_files, missing_picture, read_items
from benchmarks_eval.tasks import Task

TASK = Task(name="b", kind="text_choice", format="blimp", file="data")


def _row(number: int, paradigm: str, **more: object) -> str:
    return json.dumps({
        "sentence_good": f"The dogs {number} run.", "sentence_bad": f"The dogs {number} runs.",
        "field": "morphology", "linguistics_term": "agreement", "UID": paradigm,
        "simple_LM_method": True, "one_prefix_method": False, "lexically_identical": False,
        "pairID": str(number), **more})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("plural", "anaphor"):
        (data / f"{name}.jsonl").write_text("".join(_row(k, name) + "\n" for k in range(3)))
    (data / "notes.txt").write_text("no pairs")
    return tmp_path


def test_a_folder_is_read_file_by_file(folder: Path) -> None:
    items = read_items(TASK, folder)
    assert [item.id for item in items[:4]] == ["anaphor/1", "anaphor/2", "anaphor/3", "plural/1"]
    assert items[0].images == ("",) and items[0].texts == ("The dogs 0 run.", "The dogs 0 runs.")
    assert items[0].gold == 0 and items[0].cluster == "anaphor" and items[3].cluster == "plural"
    assert dict(items[3].tags) == {"paradigm": "plural", "phenomenon": "agreement",
                                   "field": "morphology"}
    assert missing_picture(TASK, folder, items) is None
    assert [path.name for path in data_files(TASK, folder)] == ["anaphor.jsonl", "plural.jsonl"]


def test_one_file_with_the_two_sentences_alone_is_enough(tmp_path: Path) -> None:
    (tmp_path / "turns.jsonl").write_text(
        '{"sentence_good": "Who? She did.", "sentence_bad": "Who? Red."}\n\n')
    item = read_items(TASK.model_copy(update={"file": "turns.jsonl"}), tmp_path)[0]
    assert item.tags == (("paradigm", "turns"),)


def test_a_single_paradigm_is_no_single_cluster(folder: Path) -> None:
    items = read_items(TASK.model_copy(update={"file": "data/plural.jsonl"}), folder)
    assert len({item.cluster for item in items}) == 3
    by = TASK.model_copy(update={"file": "data/plural.jsonl", "cluster": "linguistics_term"})
    assert {item.cluster for item in read_items(by, folder)} == {"agreement"}


@pytest.mark.parametrize(("line", "said"), [
    (_row(4, "plural", sentence_bad="The dogs 4 run."), "line 4: both sentences are 'The dogs 4"),
    (_row(4, "plural", sentence_good=None), "line 4: field 'sentence_good' is empty"),
    ('{"sentence_goods": "a", "sentence_bad": "b"}',
     "line 4: no field 'sentence_good', did you mean 'sentence_goods'?"),
    ("[1, 2]", "line 4: needs a JSON object, has list"),
    ('{"sentence_good": ', "line 4: not JSON"),
])
def test_bad_lines_name_their_file(folder: Path, line: str, said: str) -> None:
    with (folder / "data" / "plural.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError) as caught:
        read_items(TASK, folder)
    assert "plural.jsonl" in str(caught.value) and said in str(caught.value)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data: no such file"):
        read_items(TASK, tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match=r"data: no JSON lines files \(\*\.jsonl\) here"):
        read_items(TASK, tmp_path)
    (tmp_path / "data" / "a.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1: not UTF-8"):
        read_items(TASK, tmp_path)
