"""Task files: what is accepted, and that every mistake is named with its nearest right form."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks_eval.tasks import FORMATS, Task, load_tasks

REPO = Path(__file__).parents[2]


def _write(folder: Path, body: str) -> Path:
    path = folder / "t.yaml"
    path.write_text(body, encoding="utf-8")
    return path


TASKS = REPO / "configs" / "tasks"


@pytest.mark.parametrize("path", sorted(TASKS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_files_load(path: Path) -> None:
    suite = load_tasks(path)
    assert suite.name == path.stem.replace("_", "-") and suite.description
    # Data under a use agreement or mixed licences is never put on a page.
    assert suite.show_pictures == (path.stem in ("picturebook", "blimp", "babylm"))
    for task in suite.tasks:
        assert task.kind in FORMATS[task.format]


@pytest.mark.parametrize("name", ["picturebook", "babyvlm"])
def test_own_suites_ask_all_official_kinds(name: str) -> None:
    suite = load_tasks(TASKS / f"{name}.yaml")
    assert {task.kind for task in suite.tasks} == {"labeled", "two_word", "winoground", "caption"}


@pytest.mark.parametrize(("body", "said"), [
    ("name: a\nversion: 1\nroot: x\ntasks: [{name: a, knd: labeled, file: f}]",
     ["tasks[0].knd: unknown key", "did you mean 'kind'?"]),
    ("name: a\nversion: 1\nroot: x\ntasks: [{name: a, kind: two_word}]",
     ["tasks[0].file", "required"]),
    ("name: a\nversion: 1\nroot: x\ntasks: [{name: a, kind: labelled, file: f}]",
     ["tasks[0].kind", "'labelled'", "did you mean 'labeled'?", "winoground"]),
    ("name: a\nversion: 1\nroots: x\nroot: x\ntasks: [{name: a, kind: labeled, file: f}]",
     ["roots: unknown key", "did you mean 'root'?"]),
    ("name: a\nversion: 1\nroot: x\ntasks: [{name: a, kind: labeled, file: f, directon: [text]}]",
     ["tasks[0].directon: unknown key", "did you mean 'directions'?"]),
    ("name: a\nversion: 1\nroot: x\ntasks: [{name: a, kind: two_word, file: f, foils: 3}]",
     ["tasks[0]", "'foils' has no meaning for kind 'two_word'"]),
    ("name: a\nversion: 1\nroot: x\ntasks: [{name: a, kind: two_word, file: f, templates: [x]}]",
     ["{text}"]),
    ("name: a\nversion: 1\nroot: x\ntasks: [{name: a, kind: two_word, file: f, "
     "cluster_pattern: 'x'}]", ["one group"]),
    ("name: a\nversion: 1\nroot: x\ntasks: []", ["tasks"]),
    ("name: a\nversion: 1\nroot: x\ntasks: [{name: a, kind: two_word, file: f}, "
     "{name: a, kind: two_word, file: f}]", ["two tasks are named 'a'"]),
    ("name: a\nversion: 1\nroot: x\ntasks: [{name: a, kind: text_choice, file: f}]",
     ["kind 'text_choice' does not come in format 'babyvlm'", "devbench, blimp, sugarcrepe"]),
    ("name: a\nversion: 1\nroot: x\ntasks: [{name: a, kind: winoground, format: winogruond, "
     "file: f}]", ["tasks[0].format", "did you mean 'winoground'?"]),
    ("name: a\nversion: 1\nroot: x\ntasks: [{name: a, kind: two_word, file: f, alpha: 0.5}]",
     ["'alpha' has no meaning for normalise 'mean'"]),
    ("name: a\nversion: 1\nroot: x\ntasks: [{name: a, kind: labeled, file: f, candidates: all}]",
     ["'candidates: all' is for 'directions: [text]'"]),
    ("name: a\nversion: 1\nroot: x\ntasks: [{name: a, kind: two_word, file: f, rename: {a: b}}]",
     ["'rename' has no meaning for kind 'two_word'"]),
    ("- a\n- b", ["a mapping"]),
    ("a: [b", ["not YAML"]),
])
def test_mistakes_are_one_clear_line(tmp_path: Path, body: str, said: list[str]) -> None:
    path = _write(tmp_path, body)
    with pytest.raises(ValueError) as caught:
        load_tasks(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    for part in said:
        assert part in message


def test_missing_file_and_unknown_task_name_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'babyvlm.yaml'\?"):
        load_tasks(TASKS / "babyvml.yaml")
    suite = load_tasks(TASKS / "babyvlm.yaml")
    with pytest.raises(ValueError, match=r"unknown task 'vtvt', did you mean 'vtwt'\?"):
        suite.only(["vtvt"])
    assert [task.name for task in suite.only(["vtwt"]).tasks] == ["vtwt"]


def test_templates_surround_the_text() -> None:
    task = Task(name="a", kind="two_word", file="f", templates=("{text}", "see {a_text} !"))
    assert task.render("red apple") == ["red apple", "see a red apple !"]
    assert task.render("apple") == ["apple", "see an apple !"]
