"""Whole evaluations with models whose knowledge is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks_eval.figures import Figure
from benchmarks_eval.judge import Results
from benchmarks_eval.models import display_names, named_model, output_folder
from benchmarks_eval.notable import Sample
from benchmarks_eval.options import Options, Rule, ScoreOptions
from benchmarks_eval.questions import Questions
from benchmarks_eval.records import read_scores
from benchmarks_eval.report import number, sample_lines, short, table, write_results
from benchmarks_eval.run import evaluate
from benchmarks_eval.tasks import load_tasks

FakeMaker = Callable[..., Any]


def _evaluate(book: Path, out: Path, handles: dict[str, Any], **options: Any) -> Results:
    models = [named_model(handle, name, f"runs/{name}") for name, handle in handles.items()]
    questions = Questions.read(load_tasks(book / "tasks.yaml"), book, Options(**options))
    results = evaluate(models, questions, out, store=out.with_name(f"{out.name}-features"))
    assert results is not None
    return results


def _figures(results: Results, model: str) -> dict[str, Figure]:
    return {f"{f.task}/{f.figure}": f for f in results.figures if f.model == model}


@pytest.mark.parametrize("kind", ["generative", "contrastive"])
def test_oracle_is_perfect(book: Path, tmp_path: Path, fake: FakeMaker, kind: str) -> None:
    figures = _figures(_evaluate(book, tmp_path / "o", {"m": fake(kind)}), "m")
    for name, figure in figures.items():
        if figure.unit == "share" and not figure.figure.startswith("retrieval"):
            assert figure.value == 1.0 and figure.ties == 0, name
            assert figure.low > figure.chance
    if kind == "generative":
        assert figures["captions/gain"].value == pytest.approx(1.5)
        assert figures["captions/word_recall"].floors["shuffled"] < 0.8
        assert "captions/retrieval" not in figures
    else:  # two pictures of each colour: the twin has the same caption and is no foil
        assert figures["captions/retrieval"].value == 1.0
        assert figures["captions/retrieval"].chance == pytest.approx(1 / 11)
        assert "captions/gain" not in figures


@pytest.mark.parametrize("kind", ["generative", "contrastive"])
def test_constant_model_is_exactly_at_chance(book: Path, tmp_path: Path, fake: FakeMaker,
                                             kind: str) -> None:
    results = _evaluate(book, tmp_path / "o", {"m": fake(kind, skill="constant")})
    for name, figure in _figures(results, "m").items():
        if name.startswith("captions") and figure.figure not in ("picture", "gain", "retrieval"):
            continue
        assert figure.value == pytest.approx(figure.chance), name
        assert figure.floors["constant"] == pytest.approx(figure.chance), name
        assert not figure.above_floor
        assert figure.ties == (figure.n if figure.unit == "share" else 0), name


def test_captions_find_their_picture_by_a_model_that_did_not_write_them(
        book: Path, tmp_path: Path, fake: FakeMaker) -> None:
    results = _evaluate(book, tmp_path / "o", {
        "good": fake("generative"), "mute": fake("generative", skill="constant"),
        "eyes": fake("contrastive")})
    name = "captions/retrieval_from_caption"
    good, mute = (_figures(results, model)[name] for model in ("good", "mute"))
    # Two drawings of each colour are of two clusters: where both are shown they tie.
    assert good.value > 0.8 and 0 < good.ties < 12 and good.chance == 0.25 and good.n == 12
    assert mute.value == pytest.approx(0.25) and mute.ties == 12  # "what" fits no picture
    alone = _evaluate(book, tmp_path / "alone", {"good": fake("generative")})
    assert name not in _figures(alone, "good")  # its own word for it would not count


def test_nan_counts_as_wrong_and_is_counted(book: Path, tmp_path: Path, fake: FakeMaker) -> None:
    results = _evaluate(book, tmp_path / "o", {"m": fake("generative", skill="nan")})
    figure = _figures(results, "m")["phrases/phrase"]
    assert figure.nonfinite == 4 and figure.n == 12  # red is right in 2 and wrong in 2 trials
    assert figure.value == pytest.approx(8 / 12)
    written = write_results(results, tmp_path / "o")
    assert "NaN" not in written.read_text(encoding="utf-8")
    scores = read_scores(tmp_path / "o" / "m" / "scores.jsonl")
    assert any(np.isnan(record.score(Rule("mean", 0, False))) for record in scores.values())


def test_pairs_and_pictures_are_scored_once(book: Path, tmp_path: Path, fake: FakeMaker) -> None:
    first, second = fake("generative"), fake("contrastive")
    _evaluate(book, tmp_path / "o", {"a": first, "b": second}, batch_size=5)
    assert len(first.seen) == len(set(first.seen)) == 12  # one tower for both: one pass
    assert second.seen == []
    scores = read_scores(tmp_path / "o" / "a" / "scores.jsonl")
    lines = (tmp_path / "o" / "a" / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(scores)
    assert first.prompts == {"", "what is it ?"}
    for order in first.orders:
        assert order == sorted(order)  # the right answer has no place of its own


def test_another_tower_is_asked_itself(book: Path, tmp_path: Path, fake: FakeMaker) -> None:
    first, second = fake("generative"), fake("contrastive", tower_hash="other")
    _evaluate(book, tmp_path / "o", {"a": first, "b": second})
    assert len(first.seen) == len(second.seen) == 12


def test_batch_size_and_repetition_change_no_byte(book: Path, tmp_path: Path,
                                                  fake: FakeMaker) -> None:
    seen: set[str] = set()
    for k, batch_size in enumerate((1, 7, 32, 32)):
        out = tmp_path / str(k)
        results = _evaluate(book, out, {"m": fake("generative")}, batch_size=batch_size)
        files = [(out / "m" / f"{name}.jsonl").read_text() for name in ("scores", "captions")]
        seen.add(json.dumps(results.to_json() | {"options": None}) + "".join(files))
    assert len(seen) == 1


def test_normalisation_is_applied(book: Path, tmp_path: Path, fake: FakeMaker) -> None:
    # Captions have five words: summed, the gain per token counts five times.
    mean = _figures(_evaluate(book, tmp_path / "a", {"m": fake("generative")}), "m")
    total = _figures(_evaluate(book, tmp_path / "b", {"m": fake("generative")},
                               score=ScoreOptions("sum")), "m")
    assert total["captions/gain"].value == pytest.approx(5 * mean["captions/gain"].value)
    assert total["captions/gain"].unit == "nats" and mean["captions/gain"].unit == "nats/token"


def test_a_failure_keeps_what_is_done_and_no_half_written_file(book: Path, tmp_path: Path,
                                                               fake: FakeMaker) -> None:
    broken = fake("generative")
    whole = broken.generate
    broken.generate = lambda *_, **__: (_ for _ in ()).throw(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        _evaluate(book, tmp_path / "o", {"m": broken})
    files = {path.relative_to(tmp_path / "o").as_posix()
             for path in (tmp_path / "o").rglob("*") if path.is_file()}
    assert files == {"plan.json", "parts/rank-0000.jsonl"}
    broken.generate = whole
    results = _evaluate(book, tmp_path / "o", {"m": broken})
    assert _figures(results, "m")["captions/exact"].value == 1.0


def test_table_and_samples_read_well(book: Path, tmp_path: Path, fake: FakeMaker,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    results = _evaluate(book, tmp_path / "o",
                        {"words": fake("contrastive"), "talk": fake("generative")})
    text = table(results)
    line = next(row for row in text.splitlines() if "phrases" in row)
    assert ".500" in line and line.count("1.00* [.76, 1.00] 0t 0n") == 2 and "12" in line
    assert "–" in next(row for row in text.splitlines() if "gain" in row)
    said = sample_lines(results.samples, book)
    assert said.count("people say") == 4 and "talk says   look at the" in said
    assert "words says" not in said


def test_a_narrow_terminal_gets_one_model_below_the_other(
        book: Path, tmp_path: Path, fake: FakeMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    results = _evaluate(book, tmp_path / "o",
                        {"words": fake("contrastive"), "talk": fake("generative")})
    monkeypatch.setenv("COLUMNS", "120")
    assert "  words " in (head := table(results).splitlines()[0]) and "talk" in head
    monkeypatch.setenv("COLUMNS", "90")
    lines = table(results).splitlines()
    assert max(map(len, lines[:-3])) <= 90
    first = lines.index("")
    assert "words" in lines[0] and "talk" not in lines[0] and "talk" in lines[first + 1]
    # A block is without the figures that none of its models has.
    assert not any("gain" in line for line in lines[:first])
    assert any("gain" in line for line in lines[first:])


def test_a_caption_on_several_lines_is_shown_on_one() -> None:
    sample = Sample("t", "", "a.png", ["a cat"], {"talk": "a\n  cat "})
    assert "talk says   a cat\n" in sample_lines([sample], Path("data")) + "\n"


def test_numbers_are_short() -> None:
    assert [number(v, "share") for v in (0.71249, 1.0, 0.0)] == [".712", "1.00", ".000"]
    assert [short(v, "share") for v in (0.716, 1.0, 0.0)] == [".72", "1.00", ".00"]
    assert [number(v, "nats/token") for v in (1.234, -0.001, -1.5)] == ["+1.23", "+0.00", "-1.50"]


def test_names_and_folders() -> None:
    assert display_names(["runs/a/contrastive/model", "runs/a/generative/model"]) == [
        "contrastive", "generative"]
    assert display_names(["runs/a/generative/model", "runs/b/generative/model"]) == [
        "a/generative", "b/generative"]
    assert output_folder("runs/a/generative/model", "book") == Path("runs/a/eval/book")
