"""One recipe over its seeds: the table, what is left out, and the command's manners."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.judged_runs import trial, write_judged

from benchmarks_eval.__main__ import main
from benchmarks_eval.outcomes import Judged, read_judged
from benchmarks_eval.recipe import recipe_table, summarise
from benchmarks_eval.statistics import detectable_share, interval


def runs(tmp_path: Path, seeds: int, *, copies: int = 1) -> list[Judged]:
    """Runs with a task of pairs (each answer ``copies`` times in a cluster) and a gain in nats."""
    made = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        hits = rng.random(200) < 0.7
        rows = [trial(f"{k}-{c}", float(hit), cluster=str(k)) for k, hit in enumerate(hits)
                for c in range(copies)]
        rows += [trial(str(k), float(rng.normal()), task="say", figure="gain") for k in range(30)]
        made.append(read_judged(write_judged(tmp_path / str(seed), "m", rows,
                                             units={"gain": "nats"})))
    return made


def test_figures_over_seeds(tmp_path: Path) -> None:
    given = runs(tmp_path, 3)
    made = summarise(given)
    pairs, gain = made.rows
    means = [float(run.measures["pairs", "phrase"].credits.mean()) for run in given]
    assert pairs.runs.means == pytest.approx(means)
    assert pairs.runs.between_sd == pytest.approx(np.std(means, ddof=1))
    assert pairs.adjusted == pytest.approx((np.mean(means) - 0.5) / 0.5)
    assert pairs.shows == pytest.approx(detectable_share(200, 0.5))
    assert gain.adjusted is None and gain.shows is None
    text = recipe_table(made)
    assert "seed sd" in text and text.count("(generative)") == 3
    assert [row.figure for row in summarise(given, primary=True).rows] == ["phrase"]


def test_copies_show_no_more(tmp_path: Path) -> None:
    once = summarise(runs(tmp_path / "a", 1), tasks=["pairs"]).rows[0]
    tenfold = summarise(runs(tmp_path / "b", 1, copies=10), tasks=["pairs"]).rows[0]
    assert tenfold.n == 10 * once.n
    assert tenfold.shows == pytest.approx(once.shows, abs=0.005)
    assert tenfold.runs.low == pytest.approx(once.runs.low, abs=0.005)


def test_one_run_has_its_own_interval(tmp_path: Path) -> None:
    (run,) = runs(tmp_path, 1)
    measured = run.measures["pairs", "phrase"]
    made = interval(measured.credits, measured.clusters, share=True, seed=0)
    row = summarise([run]).rows[0]
    assert (row.runs.low, row.runs.high, row.runs.between_sd) == (made.low, made.high, None)


def test_what_some_runs_lack_is_said(tmp_path: Path) -> None:
    one, two = runs(tmp_path, 2)
    other = read_judged(write_judged(tmp_path / "x", "m", [trial("0", 1.0, task="new")]))
    short = read_judged(write_judged(
        tmp_path / "y", "m", [trial(f"{k}-0", 1.0, cluster=str(k)) for k in range(50)]))
    assert summarise([one, two]).notes == ()
    with pytest.raises(ValueError, match="200 and 50 trials, 50 of them the same: --common"):
        summarise([one, short])
    made = summarise([one, short], common=True)
    assert made.rows[0].n == 50
    assert made.notes == ("say/gain is left out: not in 1 of the 2 runs of A",
                          "pairs/phrase: 50 trials that all runs share, of 200 and 50")
    with pytest.raises(ValueError, match="no figure is in all of the runs: pairs/phrase is left"):
        summarise([one, other])
    with pytest.raises(ValueError, match="given twice"):
        summarise([one, one])


def test_the_command_by_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one, two = runs(tmp_path, 2)
    assert main(["compare", f"{one.folder},{two.folder}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["runs"]["runs"] == 2
    assert main(["compare", str(one.folder), str(two.folder), "--task", "pairs"]) == 0
    assert "McNemar" in capsys.readouterr().out
    assert main(["breakdown", str(one.folder)]) == 0
    capsys.readouterr()
    assert main(["compare", str(one.folder), str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "no such folder" in error and error.count("\n") == 1
