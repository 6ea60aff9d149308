"""Every figure again from the records on disk, by other rules, without a model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks_eval.__main__ import main
from benchmarks_eval.commands.report import write_page
from benchmarks_eval.models import named_model
from benchmarks_eval.options import Options, Rule, ScoreOptions
from benchmarks_eval.questions import Questions
from benchmarks_eval.records import Key, ScoreRecord, read_scores
from benchmarks_eval.report import write_results
from benchmarks_eval.run import evaluate
from benchmarks_eval.tasks import load_tasks

REPO = Path(__file__).parents[2]
FakeMaker = Callable[..., Any]


def _run(book: Path, out: Path, handle: Any, **options: Any) -> dict[str, Any]:
    questions = Questions.read(load_tasks(book / "tasks.yaml"), book, Options(**options))
    results = evaluate([named_model(handle, "m", "runs/m")], questions, out)
    assert results is not None
    write_results(results, out)
    write_page(out, questions)
    return _figures(out)


def _figures(out: Path) -> dict[str, Any]:
    tree = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return {f"{f['task']}/{f['figure']}": f for f in tree["figures"]}


def _rescore(*args: str | Path) -> int:
    return main(["rescore", *map(str, args)])


@pytest.mark.parametrize("rule", [
    ["--normalise", "sum"], ["--normalise", "char"], ["--normalise", "pmi", "--alpha", "0.5"],
    ["--normalise", "mean", "--ties", "strict"], ["--score-eos", "yes"]])
def test_rescored_figures_are_those_of_a_run(book: Path, tmp_path: Path, fake: FakeMaker,
                                             rule: list[str]) -> None:
    said = dict(zip(rule[::2], rule[1::2], strict=True))
    ends = {"yes": True}.get(said.get("--score-eos", ""))
    alpha = float(said["--alpha"]) if "--alpha" in said else None
    score = ScoreOptions(said.get("--normalise"), alpha, said.get("--ties", "share"),  # type: ignore[arg-type]
                         ends)
    direct = _run(book, tmp_path / "direct", fake("generative"), score=score, prior=True,
                  ends="both")
    _run(book, tmp_path / "plain", fake("generative"), prior=True, ends="both")
    assert _rescore(tmp_path / "plain", *rule, "--out", tmp_path / "again") == 0
    assert _figures(tmp_path / "again") == direct
    rows = (tmp_path / "again" / "m" / "trials.jsonl").read_bytes()
    assert rows == (tmp_path / "direct" / "m" / "trials.jsonl").read_bytes()


def test_rescoring_by_the_same_rule_changes_no_byte(book: Path, tmp_path: Path,
                                                    fake: FakeMaker) -> None:
    _run(book, tmp_path, fake("generative"))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()
              and book not in p.parents}
    assert _rescore(tmp_path, "--out", tmp_path) == 0
    assert {p: p.read_bytes() for p in before} == before


def test_normalisations_by_hand() -> None:
    record = ScoreRecord(Key("p", "four word text here"), logprob_sum=-8.0, num_tokens=4)
    prior = ScoreRecord(Key("", "four word text here"), logprob_sum=-6.0, num_tokens=4)
    for normalise, alpha, value in (("mean", 1, -2), ("sum", 1, -8), ("char", 1, -8 / 19),
                                    ("pmi", 1, -2), ("pmi", 0.5, -5), ("pmi", 0, -8)):
        assert record.score(Rule(normalise, alpha, False), prior) == value  # type: ignore[arg-type]
    empty = ScoreRecord(Key("p", ""), logprob_sum=0.0, num_tokens=0)
    assert empty.score(Rule("mean", 1, False)) != empty.score(Rule("mean", 1, False))  # NaN


def test_pmi_takes_off_what_a_text_is_worth_alone(book: Path, tmp_path: Path, fake: FakeMaker,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    # "text" likes short phrases; so does its prior, ten times less: only alpha counts.
    figures = _run(book, tmp_path, fake("generative", skill="text"), prior=True)
    assert figures["phrases/phrase"]["value"] < 1
    assert any(key.image == "" for key in read_scores(tmp_path / "m" / "scores.jsonl"))
    assert _rescore(tmp_path) == 0
    printed = capsys.readouterr().out
    assert "a=0.25" in printed and "a=1" in printed
    row = next(line for line in printed.splitlines() if line.startswith("  phrases  m "))
    assert len(row.split()) == 2 + 3 + 5
    assert not any(line.startswith("  captions  m ") for line in printed.splitlines())


def test_what_is_not_recorded_is_said_in_a_line(book: Path, tmp_path: Path, fake: FakeMaker,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    _run(book, tmp_path / "o", fake("generative"))
    capsys.readouterr()
    for args, said in (
        (["--normalise", "pmi"], "run with --prior"),
        (["--score-eos", "yes"], "run with --score-eos both"),
        (["--normalise", "mean", "--alpha", "1"], "--alpha has no meaning"),
        (["--root", tmp_path], "no such file"),
    ):
        assert _rescore(tmp_path / "o", *args) == 2
        shown = capsys.readouterr().err.strip()
        assert shown.startswith("error: ") and said in shown and "\n" not in shown, shown
    assert _rescore(tmp_path / "nowhere") == 2
    assert "no plan.json here" in capsys.readouterr().err
    csv = book / "labeled.csv"
    csv.write_text(csv.read_text().replace("\n0,", "\nzero,"))
    assert _rescore(tmp_path / "o") == 2
    assert "no longer those that were scored: data (labels)" in capsys.readouterr().err


def test_ties_are_worth_what_is_asked_for(book: Path, tmp_path: Path, fake: FakeMaker,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    _run(book, tmp_path, fake("generative", skill="constant"))
    for ties, phrase, group in (("share", 0.5, 1 / 6), ("strict", 0.0, 0.0), ("first", 1.0, 0.0)):
        capsys.readouterr()
        assert _rescore(tmp_path, "--ties", ties, "--out", tmp_path / ties) == 0
        figures = _figures(tmp_path / ties)
        assert figures["phrases/phrase"]["value"] == pytest.approx(phrase)
        assert figures["phrases/phrase"]["floors"]["constant"] == pytest.approx(phrase)
        assert figures["wino/group"]["value"] == pytest.approx(group)
        assert figures["phrases/phrase"]["ties"] == 12  # counted whatever they are worth
        assert " 12t 0n" in capsys.readouterr().out


def test_no_model_and_no_torch(book: Path, tmp_path: Path, fake: FakeMaker) -> None:
    _run(book, tmp_path / "o", fake("generative"), prior=True)
    code = ("import sys\nfrom benchmarks_eval.__main__ import main\n"
            f"assert main(['rescore', {str(tmp_path / 'o')!r}, '--normalise', 'sum', '--out', "
            f"{str(tmp_path / 'again')!r}]) == 0\n"
            f"assert main(['list', {str(book)!r}]) == 0\n"
            "loaded = {'torch', 'transformers', 'open_clip'} & set(sys.modules)\n"
            "assert not loaded, loaded\n")
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
