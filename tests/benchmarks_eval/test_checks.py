"""What `validate` finds: each kind of fault in an otherwise sound suite, and none in that one."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from PIL import Image

from benchmarks_eval import checks
from benchmarks_eval.checks import SuiteCheck, check_suite
from benchmarks_eval.tasks import Task, TaskFile, load_tasks
from benchmarks_eval.trials import Trial
from benchmarks_eval.vocabulary import Vocabulary, coverage


def _check(book: Path, **options: object) -> SuiteCheck:
    return check_suite(load_tasks(book / "tasks.yaml"), book, **options)  # type: ignore[arg-type]


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def _write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def test_a_sound_suite_passes_and_is_counted(book: Path) -> None:
    found = _check(book)
    labels, phrases, wino, captions = found.tasks
    assert found.errors == 0
    tree = labels.to_json()
    assert (tree["questions"], tree["pictures"]) == (24, 12)
    assert tree["pairs"] == {"image": 96, "text": 96} and tree["gold_in_file"] == {"0": 24}
    assert sum(tree["gold_shuffled"]["image"].values()) == 24
    assert phrases.to_json()["pairs"] == {"phrase": 24}
    assert wino.to_json()["gold_shuffled"] == {} and captions.to_json()["pairs"] == {"picture": 48}
    every, distinct = found.pairs()
    assert every == 96 + 96 + 24 + 24 + 48
    # phrases and wino share their prompt, and all of wino's 24 pairs but some stand in phrases.
    texts = {(trial.images[0], text) for trial in phrases.trials["phrase"] for text in trial.texts}
    squares = {(image, text) for trial in wino.trials["group"]
               for image in trial.images for text in trial.texts}
    assert len(checks.task_pairs(wino.task, wino.trials["group"])) == len(squares)
    both = found.tasks[1:3]
    assert SuiteCheck(both).pairs() == (48, len(texts | squares))
    assert distinct < every


def _truncate(book: Path) -> str:
    path = book / "images" / "red0.png"
    path.write_bytes(path.read_bytes()[:-30])
    return "picture " + str(path) + " cannot be read"


def _truncate_jpeg(book: Path) -> str:
    path = book / "images" / "red0.png"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-900])  # the name says nothing, the content does
    return "picture " + str(path) + " cannot be read: image file is truncated"


def _no_picture(book: Path) -> str:
    (book / "images" / "red0.png").write_text("not a picture")
    return "cannot be read: no picture"


def _remove(book: Path) -> str:
    (book / "images" / "red0.png").unlink()
    return "1 of 12 pictures do not exist: first " + str(book / "images" / "red0.png")


def _malformed(book: Path) -> str:
    with (book / "labeled.csv").open("a") as file:
        file.write("24,red,red\n")
    return "labeled.csv, line 98: 3 fields where the header has 4"


def _twice(book: Path) -> str:
    rows = _rows(book / "labeled.csv")
    rows[2][3] = rows[1][3]  # a foil shows the target's own picture
    _write(book / "labeled.csv", rows)
    return "labeled.csv, line 2: the right picture 'images/red0.png' stands twice"


def _lonely(book: Path) -> str:
    rows = _rows(book / "caption.csv")
    _write(book / "caption.csv", [rows[0], *([row[0], "the same"] for row in rows[1:])])
    return "the caption 'the same' needs a picture with another caption"


FAULTS = [_truncate, _truncate_jpeg, _no_picture, _remove, _malformed, _twice, _lonely]


@pytest.mark.parametrize("spoil", FAULTS, ids=lambda spoil: spoil.__name__.strip("_"))
def test_each_fault_is_an_error_with_its_place(book: Path, spoil: Callable[[Path], str]) -> None:
    said = spoil(book)
    found = _check(book)
    assert any(said in error for task in found.tasks for error in task.errors), [
        task.errors for task in found.tasks]
    # The other tasks are checked all the same.
    assert sum(bool(task.items) for task in found.tasks) >= 3


def test_pictures_are_read_only_when_asked(book: Path) -> None:
    _no_picture(book)
    assert _check(book, decode=False).errors == 0
    assert _check(book).errors > 0


def test_repeats_and_copies_are_warnings(book: Path) -> None:
    rows = _rows(book / "two_word.csv")
    flipped = [rows[1][0], rows[1][2], rows[1][1]]
    _write(book / "two_word.csv", [*rows, rows[3], flipped])
    shutil.copy(book / "images" / "red0.png", book / "images" / "green0.png")
    found = _check(book)
    warnings = {task.task.name: task.warnings for task in found.tasks}
    assert found.errors == 0
    assert [line.split(":")[0] for line in warnings["phrases"]] == [
        "1 questions repeat an earlier one",
        "1 questions call right what an earlier one calls wrong for the same picture"]
    assert f"first {book / 'two_word.csv'}, line 14, as {book / 'two_word.csv'}, line 4" in (
        warnings["phrases"][0])
    assert any("byte for byte the same" in line for line in warnings["labels"])


def test_an_uneven_order_is_an_error(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unshuffled(task: Task, items: list, seed: int) -> dict[str, list[Trial]]:
        return {"phrase": [Trial(item.id, item.images, item.texts, 0, "") for item in items]}

    rows = _rows(book / "two_word.csv")
    _write(book / "two_word.csv", [rows[0], *rows[1:] * 10])
    suite = load_tasks(book / "tasks.yaml").only(["phrases"])
    assert check_suite(suite, book).errors == 0
    monkeypatch.setattr(checks, "question_trials", unshuffled)
    assert any("asked 120 times in place 1, 60 would be even" in error
               for error in check_suite(suite, book).tasks[0].errors)


def _vocabulary(words: list[str]) -> Vocabulary:
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(
        {"<unk>": 0, **{word: k for k, word in enumerate(words, 1)}}, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return Vocabulary("m", inner, 0)


def test_unknown_words_and_like_tokens_are_counted(book: Path) -> None:
    found = _check(book, vocabularies=[_vocabulary(["thing", "red", "green", "look"])])
    phrases = found.tasks[1].coverage["m"]
    assert phrases.questions == 12 and 0 < phrases.alike < phrases.unknown < 12
    assert set(phrases.words) == {"blue", "yellow", "pink", "brown"}
    assert phrases.line("m").startswith(f"m: {phrases.unknown} of 12 questions hold an unknown")
    assert "become the same tokens" in phrases.line("m")


def test_templates_count_in_coverage() -> None:
    task = Task(name="t", kind="two_word", file="f", templates=("see {a_text}",))
    trial = Trial("0", ("i",), ("red", "old"), 0, "c")
    found = coverage(_vocabulary(["a", "red", "old", "see"]), task, [trial])
    assert dict(found.words) == {"an": 1} and found.unknown == 1 and found.alike == 0


def test_text_alone_needs_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"sentence_good": "she runs", "sentence_bad": "she run"}\n'
                                      '{"sentence_good": "he runs", "sentence_bad": "he run"}\n')
    suite = TaskFile.model_validate({"name": "g", "version": 1, "root": "x", "tasks": [
        {"name": "g", "kind": "text_choice", "format": "blimp", "file": "a.jsonl"}]})
    found = check_suite(suite, tmp_path)
    assert found.errors == found.warnings == 0 and found.pairs() == (4, 4)
