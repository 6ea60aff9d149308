"""Reading finished runs: shapes, meanings, and one clear line for everything malformed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from support.judged_runs import trial, write_judged

from benchmarks_eval.models import Model
from benchmarks_eval.outcomes import Outcome, file_name, read_judged, read_outcomes


def test_a_run_is_read_by_figure(tmp_path: Path) -> None:
    rows = [trial("0", 1.0), trial("1", 0.0, tags={"difference": "noun"}),
            trial("0", 0.41, task="say", figure="gain", images=("a", "b"), texts=("x",),
                  scores=[[1.0], [None]])]
    folder = write_judged(tmp_path, "m", rows, units={"gain": "nats"})
    for given in (folder, tmp_path):
        run = read_judged(given)
        assert (run.model, run.kind, run.folder) == ("m", "generative", folder)
        assert list(run.measures) == [("pairs", "phrase"), ("say", "gain")]
    pairs, gain = run.measures.values()
    assert pairs.share and not gain.share
    assert pairs.credits.tolist() == [1.0, 0.0] and pairs.clusters == ["0", "1"]
    assert pairs.outcomes[1].tags == {"difference": "noun"}
    assert math.isnan(gain.outcomes[0].scores[1, 0])


def test_right_and_wrong_by_shape() -> None:
    phrase = Outcome.from_json(trial("0", 1.0, gold=1))
    assert (phrase.right_texts, phrase.wrong_texts) == (("blue ball",), ("red ball",))
    assert phrase.right_images == ("a.png",)
    picture = Outcome.from_json(trial("0", 1.0, images=("a", "b", "c"), texts=("dog",), gold=2))
    assert (picture.right_texts, picture.wrong_texts) == (("dog",), ())
    assert picture.right_images == ("c",)
    square = Outcome.from_json(trial("0", 1.0, images=("a", "b")))
    assert square.square and len(square.right_texts) == 2 and square.wrong_texts == ()


def test_a_question_is_the_same_in_any_order() -> None:
    one = Outcome.from_json(trial("0", 1.0, texts=("x", "y"), gold=0))
    same = Outcome.from_json(trial("0", 0.0, texts=("y", "x"), gold=1))
    other = Outcome.from_json(trial("0", 1.0, texts=("y", "x"), gold=0))
    assert one.question == same.question != other.question


def test_folder_names_follow_the_models() -> None:
    for name in ("generative", "noise:runs/a", "open_clip:ViT-B-32", "a b/c", "server:x@http://h"):
        assert file_name(name) == Model(name, "p", "generative", None).file_name


@pytest.mark.parametrize(("change", "message"), [
    ({"credit": float("inf")}, "credit inf is not a finite number"),
    ({"gold": 2}, "gold 2 is none of 2 candidates"),
    ({"scores": [[1.0]]}, "scores of shape [1, 1] for 1 pictures and 2 texts"),
    ({"tags": None}, "not a trial"),
])
def test_malformed_rows_are_named(tmp_path: Path, change: dict, message: str) -> None:
    folder = write_judged(tmp_path, "m", [trial("0", 1.0)])
    file = folder / "trials.jsonl"
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(trial("1", 1.0) | change) + "\n")
    with pytest.raises(ValueError) as caught:
        read_judged(folder)
    assert str(caught.value).startswith(f"{file}, line 2: not a trial")
    assert message in str(caught.value)


def test_missing_keys_broken_lines_and_repeats_are_named(tmp_path: Path) -> None:
    folder = write_judged(tmp_path, "m", [trial("0", 1.0), trial("0", 1.0)])
    with pytest.raises(ValueError, match=r"line 2: trial '0' of pairs/phrase stands in line 1"):
        read_judged(folder)
    file = folder / "trials.jsonl"
    row = trial("0", 1.0)
    del row["cluster"]
    file.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(ValueError, match="line 1: not a trial: no 'cluster'"):
        read_outcomes(file)
    file.write_text('{"task": ', encoding="utf-8")
    with pytest.raises(ValueError, match="line 1: not a trial"):
        read_outcomes(file)


def test_runs_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        read_judged(tmp_path / "none")
    with pytest.raises(ValueError, match=r"no trials\.jsonl here"):
        read_judged(tmp_path)
    run = tmp_path / "runs" / "a"
    one = write_judged(run / "eval" / "book", "m", [trial("0", 1.0)])
    with pytest.raises(ValueError) as caught:
        read_judged(run)
    assert str(one) in str(caught.value)
    two = write_judged(run / "eval" / "book", "n", [trial("0", 1.0)])
    with pytest.raises(ValueError) as caught:
        read_judged(two.parent)
    assert "holds 2 models" in str(caught.value) and str(two) in str(caught.value)
    with pytest.raises(ValueError, match="knows no such model; it has n"):
        read_judged(one)  # the second writing forgot it
    (two.parent / "results.json").unlink()
    with pytest.raises(ValueError, match=r"results\.json: no such file"):
        read_judged(two)
    (two.parent / "results.json").write_text('{"figures": [{}], "models": []}', encoding="utf-8")
    with pytest.raises(ValueError, match="not the results of a run: no 'task'"):
        read_judged(two)


def test_trials_without_a_figure_are_named(tmp_path: Path) -> None:
    folder = write_judged(tmp_path, "m", [trial("0", 1.0)])
    rows = [trial("0", 1.0, task="new")]
    (folder / "trials.jsonl").write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="task 'new', figure 'phrase' is not in"):
        read_judged(folder)


def test_scores_keep_their_values(tmp_path: Path) -> None:
    value = -12.345678901234567
    folder = write_judged(tmp_path, "m", [trial("0", 0.0, scores=[[value, 0.5]])])
    outcome = read_judged(folder).measures["pairs", "phrase"].outcomes[0]
    assert np.array_equal(outcome.scores, np.array([[value, 0.5]]))
