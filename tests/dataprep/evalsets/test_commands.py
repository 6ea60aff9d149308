"""The commands from the command line, and that what they write runs in the harness's format."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import pytest

from benchmarks_eval.data import missing_picture, read_items
from benchmarks_eval.tasks import load_tasks
from dataprep.evalsets import cli
from dataprep.evalsets.tiny import SIDE, save_tiny_sd3
from dataprep.provenance import cli as provenance
from engine import Corpus


def run(*words: str | Path) -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    cli.add_commands(commands)
    provenance.add_commands(commands)
    arguments = parser.parse_args([str(word) for word in words])
    arguments.run(arguments)


def test_from_a_corpus_to_reviewed_and_documented_sets(
    tmp_path: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, scorer: object,
) -> None:
    two_word, captions, out = (tmp_path / name for name in ("two-word", "captions", "wino"))
    run("build", "two-word", "--corpus", corpus.path, "--out", two_word, "--backend", "stand-in",
        "--any-word", "--limit", "6", "--no-prune")
    assert "trials" in capsys.readouterr().out and (tmp_path / "two-word.requests").is_dir()
    run("build", "captions", "--corpus", corpus.path, "--out", captions, "--count", "3")
    assert f"{captions}: 3 captions" in capsys.readouterr().out
    monkeypatch.setattr("dataprep.similarity.scorers.open_scorer", lambda spec: scorer)
    run("build", "winoground", "--two-word", two_word, "--out", out, "--backend", "stand-in",
        "--weights", save_tiny_sd3(tmp_path / "sd3"), "--scorer", "hashes", "--attempts", "2",
        "--size", str(SIDE), "--steps", "1", "--min-margin", "-2", "--limit", "2",
        "--device", "cpu")
    assert f"{out}: 2 instances" in capsys.readouterr().out
    items = 0
    for folder in (two_word, captions, out):
        suite = load_tasks(folder / "tasks.yaml")
        for task in suite.tasks:
            found = read_items(task, Path(suite.root))
            assert missing_picture(task, Path(suite.root), found) is None
            items += len(found)
        run("review", "--set", folder)
        run("document", "--set", folder)
        assert "(valid)" in capsys.readouterr().out and (folder / "review.html").is_file()
    assert items >= 6 + 3 + 2 * 2  # winoground and its control


def test_prune_prints_its_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "t.csv"
    rows = [(f"{k}.jpg", f"see dog{k % 9}", f"odd king{k % 7}") for k in range(60)]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "positive_phrase", "negative_phrase"), *rows])
    run("prune", "--csv", table, "--out", tmp_path / "less.csv")
    assert "60 trials shrink to " in capsys.readouterr().out
    assert len((tmp_path / "less.csv").read_text().splitlines()) < 30
    table.write_text("image,text\n")
    with pytest.raises(ValueError, match="line 1: no column 'positive_phrase'"):
        run("prune", "--csv", table)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["two-word", "--split", "dev", "--backend", "stand-in"], "no split 'dev'"),
        (["two-word", "--backend", "nowhere"], "--backend 'nowhere'; accepted"),
        (["two-word", "--min-margin", "0.1"], "--min-margin needs --scorer"),
        (["two-word", "--limit", "0", "--backend", "stand-in"], "--limit 0: accepted are 1"),
        (["captions", "--split", "train"], "is also a training split"),
    ],
)
def test_bad_input(tmp_path: Path, corpus: Corpus, words: list[str], message: str) -> None:
    kind, *rest = words
    with pytest.raises(ValueError, match=message):
        run("build", kind, "--corpus", corpus.path, "--out", tmp_path / "set", *rest)
    assert not (tmp_path / "set" / "evalset.json").exists()
