"""METEOR 1.5: the authors' program where METEOR_JAR names it; what goes wrong, with a stand-in."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from benchmarks_eval.meteor import Meteor15

JAR = os.environ.get("METEOR_JAR", "")
GUIDE = ("It is a guide to action which ensures that the military always obeys the commands of "
         "the party")


@pytest.mark.slow
@pytest.mark.skipif(not JAR, reason="METEOR_JAR does not name meteor-1.5.jar")
def test_reference_values() -> None:
    scores, corpus = Meteor15(JAR).score(
        [["It is a guide to action that ensures that the military will forever heed Party "
          "commands"],
         ["There is a place in the city centre, Alimentum, that is not family-friendly."],
         ["the cat sat on the mat"], ["ball"], ["kitty is on the\ncouch", "x"], ["a"]],
        [GUIDE, "Alimentum is located in the city centre. It is not family-friendly.",
         "the cat was sat on the mat", "ball", "kitty is on the couch", ""])
    # Issues 2759 of datasets, 2655 of NLTK, 105 of nlg-eval; then identities and silence.
    assert scores[0] == pytest.approx(0.4474, abs=5e-5)
    assert scores[1] == pytest.approx(0.4249, abs=5e-5)
    assert scores[2] == pytest.approx(0.5119556177223324, abs=1e-12)
    assert scores[3:].tolist() == [1.0, 1.0, 0.0]
    assert 0.4 < corpus < 0.7 and corpus != pytest.approx(scores.mean(), abs=1e-3)


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    path = tmp_path / "meteor-1.5.jar"
    path.write_bytes(b"")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "paraphrase-en.gz").write_bytes(b"")
    return path


def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_what_is_missing_is_said(jar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"no such file; METEOR 1\.5 needs the path"):
        Meteor15(jar.with_name("none.jar"))
    monkeypatch.setenv("PATH", str(jar.parent / "empty"))
    with pytest.raises(ValueError, match="needs Java: no program 'java'"):
        Meteor15(jar)
    (jar.parent / "data" / "paraphrase-en.gz").unlink()
    with pytest.raises(ValueError, match=r"paraphrase table data/paraphrase-en\.gz is not beside"):
        Meteor15(jar)


def test_a_failing_program_is_quoted(jar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java(jar.parent, monkeypatch, "echo 'Error: could not reserve heap' >&2; exit 3")
    with pytest.raises(ValueError, match="exit code 3: Error: could not reserve heap"):
        Meteor15(jar).score([["a"]], ["b"])


def test_too_few_scores_are_no_scores(jar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java(jar.parent, monkeypatch, "echo 'Segment 1 score:\t0.5'; echo 'Final score:\t0.5'")
    assert Meteor15(jar).score([["a"]], ["b"])[0].tolist() == [0.5]
    with pytest.raises(ValueError, match="exit code 0"):
        Meteor15(jar).score([["a"], ["c"]], ["b", "d"])


def test_texts_are_one_line_each_and_references_padded(
        jar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java(jar.parent, monkeypatch,
         f'while [ "$1" != -jar ]; do shift; done; cp "$3" {jar.parent}/said; '
         f'cp "$4" {jar.parent}/wanted; echo "$@" > {jar.parent}/arguments\n'
         "printf 'Segment 1 score:\t0.5\nSegment 2 score:\t0.25\nFinal score:\t0.4\n'")
    scores, corpus = Meteor15(jar).score([["a\nb", "c"], ["d"]], ["é  e", ""])
    assert (scores.tolist(), corpus) == ([0.5, 0.25], 0.4)
    assert (jar.parent / "said").read_text("utf-8") == "é e\n\n"
    assert (jar.parent / "wanted").read_text("utf-8") == "a b\nc\nd\nd\n"
    assert (jar.parent / "arguments").read_text().split()[-5:] == ["-l", "en", "-norm", "-r", "2"]
