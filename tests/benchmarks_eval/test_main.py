"""The command line: tables, files, model cards, one-line errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks_eval import __main__ as cli
from benchmarks_eval import models
from benchmarks_eval.models import Model, named_model

REPO = Path(__file__).parents[2]


@pytest.fixture
def handles(monkeypatch: pytest.MonkeyPatch, fake: Callable[..., Any]) -> dict[str, Any]:
    """Two fakes that ``--model words --model talk`` load."""
    made = {"words": fake("contrastive"), "talk": fake("generative")}

    def load(paths: list[str], device: str) -> list[Model]:
        return [named_model(made[path], path, path) for path in paths]

    monkeypatch.setattr(models, "load_models", load)
    return made


def test_run_prints_writes_and_refreshes_cards(book: Path, tmp_path: Path, handles: dict[str, Any],
                                               capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    code = cli.main(["run", "--model", "words", "--model", "talk", "--tasks",
                     str(book / "tasks.yaml"), "--out", str(out), "--seed", "2"])
    printed = capsys.readouterr().out
    assert code == 0
    assert "colours v3, seed 2" in printed and "talk says" in printed
    assert str(out / "report.html") in printed
    tree = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert {model["name"] for model in tree["models"]} == {"words", "talk"}
    assert {p.name for p in out.iterdir()} == {
        "plan.json", "results.json", "report.html", "words", "talk", "retrieval"}
    scores = handles["talk"].scores["colours"]
    assert scores["version"] == 3
    assert scores["figures"]["labels/image"]["value"] == 1.0
    assert scores["figures"]["labels/image"]["chance"] == 0.25


def test_limit_keeps_model_cards_as_they_are(book: Path, tmp_path: Path,
                                             handles: dict[str, Any]) -> None:
    assert cli.main(["run", "--model", "talk", "--tasks", str(book / "tasks.yaml"), "--only",
                     "phrases", "--limit", "5", "--out", str(tmp_path / "o")]) == 0
    assert handles["talk"].scores is None
    tree = json.loads((tmp_path / "o" / "results.json").read_text(encoding="utf-8"))
    assert [(f["task"], f["n"]) for f in tree["figures"]] == [("phrases", 5)]


def test_errors_are_one_line_and_exit_2(book: Path, tmp_path: Path, handles: dict[str, Any],
                                        capsys: pytest.CaptureFixture[str]) -> None:
    tasks = str(book / "tasks.yaml")
    out = str(tmp_path / "o")
    (book / "images" / "red1.png").unlink()
    for argv, said in (
        (["run", "--model", "talk", "--tasks", tasks, "--out", out], "red1.png does not exist"),
        (["run", "--model", "talk", "--tasks", tasks, "--only", "phrase"], "'phrases'"),
        (["run", "--model", "talk", "--tasks", tasks, "--root", str(tmp_path / "no")],
         "no such file"),
        (["run", "--model", "talk", "--tasks", str(book / "task.yaml")], "'tasks.yaml'"),
        (["list", str(tmp_path)], "no task files"),
    ):
        assert cli.main(argv) == 2
        shown = capsys.readouterr().err.strip()
        assert shown.startswith("error: ") and said in shown and "\n" not in shown
    assert not Path(out).exists()


def test_list_shows_shipped_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", str(REPO / "configs" / "tasks")]) == 0
    printed = capsys.readouterr().out
    assert "babyvlm v" in printed and "labeled_s" in printed and "picturebook" in printed
