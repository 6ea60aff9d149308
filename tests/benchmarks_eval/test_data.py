"""Official CSV layouts: what is read, and that errors name file and line."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
import tokenizers

from benchmarks_eval.checks import task_pairs
from benchmarks_eval.data import data_files, missing_picture, read_items
from benchmarks_eval.tasks import Task, load_tasks
from benchmarks_eval.trials import question_trials
from benchmarks_eval.vocabulary import Vocabulary, coverage

OFFICIAL = Path(os.environ.get("BABYVLM_CSVS",
                               Path(__file__).parents[3] / "shared" / "data" / "babyvlm"))
TASKS = Path(__file__).parents[2] / "configs" / "tasks"
HEADERS = {
    "labeled": "trial_id,target_category,real_category,image",
    "two_word": "image,positive_phrase,negative_phrase",
    "winoground": "instance_id,positive_phrase,negative_phrase,image,image_tag",
    "caption": "image,text",
}


def words_of(path: Path) -> Vocabulary:
    """CVCL's vocabulary as a tokeniser: lower-case words between spaces."""
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(
        json.loads(path.read_text(encoding="utf-8")), unk_token="<unk>"))
    inner.normalizer = tokenizers.normalizers.Lowercase()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return Vocabulary("cvcl", inner, inner.token_to_id("<unk>"))


def _task(folder: Path, kind: str, body: str, **fields: object) -> Task:
    (folder / "t.csv").write_text(HEADERS[kind] + "\n" + body, encoding="utf-8")
    return Task.model_validate({"name": "t", "kind": kind, "file": "t.csv", **fields})


def test_labeled_rows_become_trials_wherever_the_target_stands(tmp_path: Path) -> None:
    task = _task(tmp_path, "labeled", "7,cat,dog,d.png\n7,cat,cat,c.png\n8,cup,cup,u.png\n"
                 "8,cup,cat,c.png\n", image_root="pics")
    first, second = read_items(task, tmp_path)
    assert (first.images, first.texts, first.gold) == (
        ("pics/d.png", "pics/c.png"), ("dog", "cat"), 1)
    assert first.cluster == "c.png" and second.line == 4


def test_quoted_newlines_keep_the_line_numbers(tmp_path: Path) -> None:
    task = _task(tmp_path, "caption", 'a.png,"two\nlines, one row"\nb.png\n')
    with pytest.raises(ValueError, match=r"t\.csv, line 4: 1 fields where the header has 2"):
        read_items(task, tmp_path)


@pytest.mark.parametrize(("kind", "body", "said"), [
    ("labeled", "0,cat,dog,d.png\n0,cat,cup,c.png\n", "line 2: trial 0 needs one picture of 'cat'"),
    ("labeled", "0,cat,cat,d.png\n0,cup,cup,c.png\n", "line 3: trial 0 asks for 'cup'"),
    ("labeled", "0,cat,cat,\n", "line 2: column 'image' is empty"),
    ("two_word", "a.png,red cup,red cup\n", "line 2: both phrases are 'red cup'"),
    ("winoground", "0,a b,c d,x.png,positive\n0,a b,c d,y.png,positive\n",
     "line 2: instance 0 needs two rows"),
    ("winoground", "0,a b,c d,x.png,positive\n0,a b,c e,y.png,negative\n",
     "line 3: instance 0 needs the same two"),
    ("caption", "", "no rows"),
])
def test_bad_rows_name_file_and_line(tmp_path: Path, kind: str, body: str, said: str) -> None:
    task = _task(tmp_path, kind, body)
    with pytest.raises(ValueError) as caught:
        read_items(task, tmp_path)
    assert "t.csv" in str(caught.value) and said in str(caught.value)


def test_missing_file_column_and_cluster(tmp_path: Path) -> None:
    task = _task(tmp_path, "two_word", "a.png,red cup,blue cup\n")
    with pytest.raises(ValueError, match=r"line 2: no column 'utterance' to"):
        read_items(task.model_copy(update={"cluster": "utterance"}), tmp_path)
    with pytest.raises(ValueError, match=r"line 2: 'a.png' .* does not match"):
        read_items(task.model_copy(update={"cluster_pattern": r"(\d)"}), tmp_path)
    with pytest.raises(ValueError, match=r"line 1: no column 'text'; found image"):
        read_items(task.model_copy(update={"kind": "caption"}), tmp_path)
    with pytest.raises(ValueError, match="no such file"):
        read_items(task.model_copy(update={"file": "other.csv"}), tmp_path)


def test_missing_picture_is_named_with_its_line(tmp_path: Path) -> None:
    task = _task(tmp_path, "caption", "a.png,one\nb.png,two\nc.png,three\n")
    (tmp_path / "a.png").touch()
    said = missing_picture(task, tmp_path, read_items(task, tmp_path))
    assert said is not None
    assert "t.csv, line 3: picture" in said and "b.png" in said and "(and 1 more)" in said
    (tmp_path / "b.png").touch()
    (tmp_path / "c.png").touch()
    assert missing_picture(task, tmp_path, read_items(task, tmp_path)) is None


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the official BabyVLM CSVs are not here")
def test_official_files_have_the_published_sizes() -> None:
    suite = load_tasks(TASKS / "babyvlm.yaml")
    items = {task.name: read_items(task, OFFICIAL) for task in suite.tasks}
    assert {name: len(rows) for name, rows in items.items()} == {
        "labeled_s": 2200, "vtwt": 967, "baby_winoground": 365, "saycam_caption": 294}
    assert all(item.gold == 0 for item in items["labeled_s"])  # published order, before shuffling
    assert len({item.cluster for item in items["labeled_s"]}) == 22
    assert len({item.cluster for item in items["vtwt"]}) == 745
    pairs, total = set(), 0
    for task in suite.tasks[:3]:
        # The first figure: for Labeled-S the picture for a word, as published.
        first = next(iter(question_trials(task, items[task.name], 0).values()))
        pairs |= task_pairs(task, first)
        total += sum(trial.choices for trial in first)
    assert total == 12_194
    assert len(pairs) == 11_229
    # Every question of Baby Winoground's real pictures stands in VTWT already.
    assert {item.images[0] for item in items["baby_winoground"]} <= {
        item.images[0] for item in items["vtwt"]}
    words = load_tasks(TASKS / "babyvlm_words.yaml").tasks[0]
    full = question_trials(words, read_items(words, OFFICIAL), 0)["text"]
    assert len(full) == 2046 and {len(trial.texts) for trial in full} == {22}


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the official BabyVLM CSVs are not here")
def test_official_phrases_differ_as_the_paper_says() -> None:
    vtwt = load_tasks(TASKS / "babyvlm.yaml").tasks[1]
    tags = [dict(item.tags) for item in read_items(vtwt, OFFICIAL)]
    assert Counter(tag["shared_word"] for tag in tags) == {"second": 500, "none": 383, "first": 84}
    kinds = Counter(tag["difference"] for tag in tags)
    assert kinds["both"] == 383 and kinds["unknown"] < 10
    assert min(kinds[kind] for kind in ("noun", "verb", "adjective")) > 100


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the official BabyVLM CSVs are not here")
def test_official_phrases_in_the_vocabulary_of_cvcl() -> None:
    suite = load_tasks(TASKS / "babyvlm.yaml")
    vocabulary = words_of(OFFICIAL / "saycam_vocab.json")
    found = {}
    for task in suite.tasks[1:3]:
        trials = next(iter(question_trials(task, read_items(task, OFFICIAL), 0).values()))
        found[task.name] = coverage(vocabulary, task, trials)
    assert (found["vtwt"].unknown, found["vtwt"].alike) == (174, 4)
    assert found["baby_winoground"].alike == 3


def test_the_files_of_a_task_are_named(tmp_path: Path) -> None:
    task = _task(tmp_path, "caption", "a.png,one\n")
    assert data_files(task, tmp_path) == [tmp_path / "t.csv"]


def test_a_stated_difference_goes_before_the_rule(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,positive_phrase,negative_phrase,difference\n"
                                    "a.png,red cup,blue cup,colour\nb.png,big dog,big cat,\n")
    items = read_items(Task(name="t", kind="two_word", file="t.csv"), tmp_path)
    assert [dict(item.tags)["difference"] for item in items] == ["colour", "noun"]


def test_labels_can_be_said_otherwise(tmp_path: Path) -> None:
    task = _task(tmp_path, "labeled", "7,cat,dog,d.png\n7,cat,cat,c.png\n",
                 rename={"cat": "kitty"}, directions=["text"])
    item = read_items(task, tmp_path)[0]
    assert item.texts == ("dog", "cat") and dict(item.tags) == {"category": "cat"}
    trial = question_trials(task, [item], 0)["text"][0]
    assert {shown for *_, shown, _, _ in task_pairs(task, [trial])} == {"dog", "kitty"}
