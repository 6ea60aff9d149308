"""Comparisons: paired rows, recipes with seeds, refusals, and the table people read."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.judged_runs import trial, write_judged

from benchmarks_eval.commands import compare as command
from benchmarks_eval.compare import compare
from benchmarks_eval.compare_table import chance, comparison_table, plain, signed
from benchmarks_eval.outcomes import read_judged
from benchmarks_eval.statistics import holm, mcnemar


def pair(tmp_path: Path, before: list[float], after: list[float], **options) -> list:
    folders = [write_judged(tmp_path / name, "m", [trial(str(k), c) for k, c in enumerate(values)],
                            **options)
               for name, values in (("a", before), ("b", after))]
    return [read_judged(folder) for folder in folders]


def test_fixed_and_broken_trials_are_counted_and_named(tmp_path: Path) -> None:
    a, b = pair(tmp_path, [1, 1, 0, 0, 0, 0.25, 1], [1, 0, 1, 1, 1, 0.5, 1])
    made = compare([a], [b])
    (row,) = made.rows
    assert row.paired is not None and row.seeds is None
    assert [one.id for one in row.fixed] == ["2", "3", "4", "5"]
    assert [one.id for one in row.broken] == ["1"]
    assert (row.fixed[3].before, row.fixed[3].after) == (0.25, 0.5)
    assert row.fixed[0].texts == ("red ball",) and row.fixed[0].images == ("a.png",)
    assert row.paired.mcnemar_p == pytest.approx(mcnemar(4, 1))
    assert row.paired.exact and row.p == pytest.approx(12 / 32)  # of 2**5 signs, by hand
    assert row.holm_p == row.p
    back = compare([b], [a]).rows[0]
    assert len(back.fixed) == 1 and back.p == row.p


def test_candidates_in_another_order_are_the_same_trial(tmp_path: Path) -> None:
    a = write_judged(tmp_path / "a", "m", [trial("0", 1.0, texts=("x", "y"), gold=0)])
    b = write_judged(tmp_path / "b", "m", [trial("0", 0.0, texts=("y", "x"), gold=1)])
    row = compare([read_judged(a)], [read_judged(b)]).rows[0]
    assert (len(row.fixed), len(row.broken)) == (0, 1)


def test_trials_are_joined_by_id_and_not_by_line(tmp_path: Path) -> None:
    rows = [trial(str(k), float(k % 2)) for k in range(6)]
    a = write_judged(tmp_path / "a", "m", rows)
    b = write_judged(tmp_path / "b", "m", rows[::-1])
    row = compare([read_judged(a)], [read_judged(b)]).rows[0]
    assert row.fixed == row.broken == () and row.p == 1.0


def test_holm_goes_over_all_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folders = []
    for name, skill in (("a", 0.5), ("b", 0.65)):
        rows = [trial(str(k), float(rng.random() < skill), task=task)
                for task in ("t1", "t2", "t3") for k in range(120)]
        folders.append(read_judged(write_judged(tmp_path / name, "m", rows)))
    made = compare(folders[:1], folders[1:])
    assert [row.task for row in made.rows] == ["t1", "t2", "t3"]
    assert [row.holm_p for row in made.rows] == holm([row.p for row in made.rows])
    assert made.rows[0].holm_p > made.rows[0].p
    one = compare(folders[:1], folders[1:], tasks=["t2"])
    assert len(one.rows) == 1 and one.rows[0].holm_p == made.rows[1].p
    with pytest.raises(ValueError, match="unknown task 't22', did you mean 't2'"):
        compare(folders[:1], folders[1:], tasks=["t22"])


def test_different_trials_are_refused_unless_the_common_ones_are_asked_for(tmp_path: Path) -> None:
    a, b = pair(tmp_path, [1, 0, 1, 0], [1, 0, 1])
    with pytest.raises(ValueError) as caught:
        compare([a], [b])
    assert str(caught.value) == ("pairs/phrase: the runs have 4 and 3 trials, 3 of them the same: "
                                 "--common compares those")
    made = compare([a], [b], common=True)
    assert made.rows[0].n == 3
    assert made.notes == ("pairs/phrase: 3 trials that all runs share, of 4 and 3",)
    rows = [trial(str(k), 1.0, texts=("up", "down")) for k in range(4)]
    other = read_judged(write_judged(tmp_path / "c", "m", rows))
    with pytest.raises(ValueError, match="0 of them the same: they were made with different data"):
        compare([a], [other], common=True)


def test_what_else_differs_is_noted(tmp_path: Path) -> None:
    rows = [trial("0", 1.0), trial("1", 0.5, tie=True),
            trial("2", 0.0, scores=[[None, 1.0]])]
    gain = trial("0", 0.3, task="say", figure="gain")
    a = write_judged(tmp_path / "a", "m", [*rows, gain], units={"gain": "nats/token"})
    b = write_judged(
        tmp_path / "b", "n", [*rows, gain, trial("0", 1.0, task="more")], kind="letters",
        units={"gain": "nats"}, version=2,
        options={"seed": 0, "limit": 5, "score": {"normalise": "sum", "ties": "share"}})
    made = compare([read_judged(a)], [read_judged(b)])
    assert [(row.task, row.ties, row.nonfinite) for row in made.rows] == [("pairs", (1, 1), (1, 1))]
    notes = "\n".join(made.notes)
    assert "different task files: book v1 and book v2" in notes
    assert "different normalise: None and sum" in notes and "limit" not in notes
    assert "different kinds of measurement" in notes
    assert "say/gain is left out: measured in nats/token and in nats" in notes
    assert "more/phrase is left out: not in A" in notes
    assert ("A: NaN or infinite scores in trials of pairs/phrase, which count as wrong: 1"
            in made.notes)


def test_figures_of_a_whole_are_told_from_means(tmp_path: Path) -> None:
    a, b = pair(tmp_path, [0.2, 0.4], [0.3, 0.5], values={"phrase": 0.9})
    assert "compared by its mean over trials" in compare([a], [b]).notes[0]


def test_nothing_in_common_is_refused(tmp_path: Path) -> None:
    a = read_judged(write_judged(tmp_path / "a", "m", [trial("0", 1.0, task="x")]))
    b = read_judged(write_judged(tmp_path / "b", "m", [trial("0", 1.0, task="y")]))
    with pytest.raises(ValueError, match="nothing to compare: x/phrase is left out: not in B"):
        compare([a], [b])
    with pytest.raises(ValueError, match="is given twice"):
        compare([a], [a])


def recipe(tmp_path: Path, name: str, skill: float, seeds: int) -> list:
    runs = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, *name.encode()])
        rows = [trial(str(k), float(rng.random() < skill), cluster=str(k // 4))
                for k in range(400)]
        runs.append(read_judged(write_judged(tmp_path / f"{name}{seed}", "m", rows)))
    return runs


def test_recipes_are_compared_over_their_seeds(tmp_path: Path) -> None:
    made = compare(recipe(tmp_path, "a", 0.5, 3), recipe(tmp_path, "b", 0.6, 3))
    (row,) = made.rows
    assert row.paired is None and row.seeds is not None
    assert row.seeds.before.runs == 3 and len(row.seeds.after.means) == 3
    assert row.seeds.difference == pytest.approx(0.1, abs=0.05) and row.p < 0.05
    text = comparison_table(made)
    assert "A ± sd" in text and "new seeds and new trials" in text
    with pytest.raises(ValueError, match="1 runs against 3"):
        compare(recipe(tmp_path, "c", 0.5, 1), recipe(tmp_path, "d", 0.5, 3))


def test_the_table_says_what_it_shows(tmp_path: Path) -> None:
    a, b = pair(tmp_path, [0.0] * 30 + [1.0] * 30, [1.0] * 28 + [0.0] * 2 + [1.0] * 30)
    text = comparison_table(compare([a], [b]), trials=2)
    lines = text.splitlines()
    assert lines[0] == f"A  {a.folder}  (generative)"
    row = next(line for line in lines if line.startswith("pairs"))
    assert row.split()[:7] == ["pairs", "phrase", "60", "60", ".500", ".967", "+.467"]
    assert "<.001*" in row and "28" in row
    assert "pairs  phrase: 28 fixed" in text and "... and 26 more" in text
    assert "  0: red ball (a.png): 0 to 1" in text


def test_graded_credits_have_no_sign_test(tmp_path: Path) -> None:
    a, b = pair(tmp_path, [0.1, 0.2, 0.31], [0.15, 0.3, 0.3], units={"phrase": "score"})
    row = compare([a], [b]).rows[0]
    assert row.paired is not None and row.paired.fixed == 2
    line = next(one for one in comparison_table(compare([a], [b])).splitlines()
                if one.startswith("pairs"))
    assert line.split()[-6:-4] == ["1", "–"]


@pytest.mark.parametrize(("made", "text"), [
    (plain(0.7119, "share"), ".712"), (plain(1.0, "share"), "1.000"),
    (plain(0.412, "nats"), "0.412"),
    (signed(-0.0001, "share"), "+.000"), (signed(-0.25, "share"), "-.250"),
    (signed(1.0, "share"), "+1.000"), (signed(-0.412, "nats"), "-0.412"),
    (chance(0.0001), "<.001"), (chance(0.0321), ".032"), (chance(1.0), "1"),
])
def test_numbers_are_short(made: str, text: str) -> None:
    assert made == text


def run_command(*words: str) -> None:
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    command.run(parser.parse_args(["compare", *words]))


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    a, b = pair(tmp_path, [0, 0, 1, 1], [1, 0, 1, 1])
    out = tmp_path / "deep" / "c.json"
    run_command(str(a.folder), str(b.folder), "--json", str(out))
    assert "fixed" in capsys.readouterr().out
    tree = json.loads(out.read_text(encoding="utf-8"))
    assert tree["rows"][0]["paired"]["fixed"] == 1
    run_command(str(a.folder), str(b.folder), "--json")
    assert json.loads(capsys.readouterr().out) == tree
    run_command(",".join(str(r.folder) for r in recipe(tmp_path, "e", 0.5, 2)),
                ",".join(str(r.folder) for r in recipe(tmp_path, "f", 0.5, 2)), "--task", "pairs")
    assert "± sd" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--seed"):
        run_command(str(a.folder), str(b.folder), "--seed", "-1")
    with pytest.raises(ValueError, match="a folder on each side"):
        run_command(",", str(b.folder))


def test_no_model_library_is_loaded(tmp_path: Path) -> None:
    a, b = pair(tmp_path, [0, 0, 1, 1], [1, 0, 1, 1])
    program = (
        "import argparse, sys\n"
        "from benchmarks_eval.commands import breakdown, compare\n"
        "parser = argparse.ArgumentParser(); commands = parser.add_subparsers()\n"
        "compare.add(commands); breakdown.add(commands)\n"
        f"compare.run(parser.parse_args(['compare', {str(a.folder)!r}, {str(b.folder)!r}]))\n"
        f"breakdown.run(parser.parse_args(['breakdown', {str(a.folder)!r}]))\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          cwd=Path(__file__).parents[2], timeout=120)
    assert done.returncode == 0, done.stderr
