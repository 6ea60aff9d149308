"""`sweep`: every kept checkpoint of a run, learning curves, onset, going on after a kill."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks_eval.commands import sweep as command
from benchmarks_eval.curve_table import curve_table
from benchmarks_eval.curves import Checkpoint, Curve, Point, make_curves, read_sweep
from benchmarks_eval.models import Model
from benchmarks_eval.options import Options
from benchmarks_eval.questions import Questions
from benchmarks_eval.sweep import sweep
from benchmarks_eval.tasks import load_tasks


def point(step: int, low: float, floor: float = 0.5) -> Point:
    return Point(step, 10 * step, 2 * step, low + 0.1, low, low + 0.2, floor, 40, 0, 0)


def curve(*lows: float) -> Curve:
    return Curve("t", "f", "", "a figure", "share", "generative", True, 0.5,
                 tuple(point(100 * (k + 1), low) for k, low in enumerate(lows)))


def test_onset_is_the_first_checkpoint_that_stays_above_the_floor() -> None:
    onset = curve(0.3, 0.6, 0.5, 0.51, 0.7).onset  # 200 leaves the floor, and comes back at 300
    assert onset is not None
    assert (onset.step, onset.words_seen, onset.pairs_seen) == (400, 4000, 800)
    assert (onset.after, onset.points) == (300, 2)


@pytest.mark.parametrize("lows", [(0.3, 0.4), (0.6, 0.7, 0.5)])
def test_no_onset_where_the_last_interval_meets_the_floor(lows: tuple[float, ...]) -> None:
    assert curve(*lows).onset is None


def test_onset_from_the_first_checkpoint_has_none_before_it() -> None:
    onset = curve(0.6, 0.7).onset
    assert onset is not None and (onset.step, onset.after) == (100, None)


def test_onset_goes_by_each_checkpoints_own_floor() -> None:
    made = Curve("t", "f", "", "", "share", "generative", True, 0.5,
                 (point(100, 0.55, floor=0.6), point(200, 0.55, floor=0.5)))
    assert made.onset is not None and made.onset.step == 200


def test_curves_keep_kinds_apart_and_tasks_together() -> None:
    places = [Checkpoint(1, "a", "contrastive", 1, 1, "x"), Checkpoint(2, "b", "generative", 2, 2,
                                                                       "y")]
    fact = {"group": "", "label": "l", "unit": "share", "primary": True, "chance": .5, "value": .6,
            "low": .5, "high": .7, "floor": .5, "n": 9, "ties": 1, "nonfinite": 0}
    made = make_curves(places, [[fact | {"task": t, "figure": "f"} for t in "pq"]] * 2)
    assert [(c.task, c.kind, [p.step for p in c.points]) for c in made] == [
        ("p", "contrastive", [1]), ("p", "generative", [2]),
        ("q", "contrastive", [1]), ("q", "generative", [2])]


STEPS = (100, 200, 300, 400)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with four kept checkpoints and a last one that was not kept for good."""
    root = tmp_path / "run"
    for step in (*STEPS, 450):
        folder = root / "checkpoints" / f"step-{step:07d}"
        folder.mkdir(parents=True)
        if step != 450:
            (folder / "model").mkdir()
        progress = {"phase": "joint", "step": step, "phase_step": step, "world_size": 1,
                    "kind": "generative", "words_seen": 7 * step, "pairs_seen": 2 * step}
        (folder / "manifest.json").write_text(json.dumps({"format": 1, "progress": progress}))
    return root


Sweep = Callable[..., Any]


@pytest.fixture
def swept(run: Path, book: Path, fake: Callable[..., Any], tmp_path: Path) -> Sweep:
    """Sweeps a model that says the same of everything up to step 200, and knows all after it."""
    loaded: list[int] = []
    towers: list[Any] = []

    def go(out: Path | None = None, stop: int | None = None, options: Options | None = None,
           **kwargs: Any) -> Any:
        def load(info: Any) -> Model:
            if info.step == stop:
                raise KeyboardInterrupt
            loaded.append(info.step)
            handle = fake("generative", skill="constant" if info.step <= 200 else "oracle")
            towers.append(handle)
            return Model(info.path.name, str(info.model), "generative", handle)

        questions = Questions.read(load_tasks(book / "tasks.yaml"), book, options or Options())
        return sweep(run, questions, out or tmp_path / "out", load=load, store=tmp_path / "store",
                     **kwargs)

    go.loaded = loaded  # type: ignore[attr-defined]
    go.towers = towers  # type: ignore[attr-defined]
    return go


def test_curve_rises_from_the_floor_and_has_its_onset(swept: Sweep, tmp_path: Path) -> None:
    made = swept()
    assert [one.step for one in made.checkpoints] == list(STEPS)
    labels = next(c for c in made.curves if (c.task, c.figure) == ("labels", "image"))
    assert [p.value for p in labels.points] == [0.25, 0.25, 1.0, 1.0]
    assert [p.words_seen for p in labels.points] == [700, 1400, 2100, 2800]
    assert labels.points[0].ties == 24
    assert labels.onset is not None
    assert (labels.onset.step, labels.onset.after, labels.onset.pairs_seen) == (300, 200, 600)
    assert read_sweep(tmp_path / "out") == made
    table = curve_table(made)
    line = next(line for line in table.splitlines() if line.startswith("  labels  image"))
    assert "300 (2,100 words, 600 pairs) [200]" in line and "▃▃██" in line


def test_frozen_tower_runs_for_the_first_checkpoint_only(swept: Sweep) -> None:
    swept()
    assert [len(tower.seen) for tower in swept.towers] == [12, 0, 0, 0]  # type: ignore[attr-defined]


def test_a_killed_sweep_goes_on_and_ends_in_the_same_bytes(swept: Sweep, tmp_path: Path) -> None:
    swept(tmp_path / "whole")
    loaded = swept.loaded  # type: ignore[attr-defined]
    loaded.clear()
    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path / "cut", stop=300)
    assert not (tmp_path / "cut" / "sweep.json").exists()
    (tmp_path / "cut" / "step-0000200" / "results.json").unlink()  # killed before this was there
    swept(tmp_path / "cut")
    assert loaded == [100, 200, 200, 300, 400]
    for path in sorted((tmp_path / "whole").rglob("*.json*")):
        other = tmp_path / "cut" / path.relative_to(tmp_path / "whole")
        assert path.read_bytes() == other.read_bytes(), path
    loaded.clear()
    swept(tmp_path / "cut")
    assert loaded == []


def test_another_sweep_is_refused_unless_fresh(swept: Sweep, tmp_path: Path) -> None:
    swept()
    with pytest.raises(ValueError, match=r"holds another sweep: its data \(.*labels.*\) differ"):
        swept(options=Options(limit=3))
    made = swept(options=Options(limit=3), fresh=True)
    assert {p.n for c in made.curves if c.figure == "image" for p in c.points} == {3}


def test_a_step_trained_again_is_not_mixed_with_the_old_one(swept: Sweep, run: Path) -> None:
    swept()
    path = run / "checkpoints" / "step-0000200" / "manifest.json"
    path.write_text(path.read_text().replace('"world_size": 1', '"world_size": 2'))
    with pytest.raises(ValueError, match="another checkpoint of step 200: the run was trained"):
        swept()


def test_runs_without_kept_checkpoints_say_what_to_set(swept: Sweep, run: Path) -> None:
    with pytest.raises(ValueError, match="no kept checkpoint holds a contrastive model; there are: "
                                         "generative"):
        swept(kind="contrastive")
    for folder in run.glob("checkpoints/*/model"):
        shutil.rmtree(folder)
    with pytest.raises(ValueError, match="none of its 5 checkpoints was kept.*keep_every=100"):
        swept()
    with pytest.raises(ValueError, match="no run directory"):
        sweep(run.parent / "nowhere", None, run, load=None)  # type: ignore[arg-type]


def test_command_sweeps_engine_checkpoints(run: Path, book: Path, exported: list[str],
                                           tmp_path: Path, capsys: pytest.CaptureFixture[str]
                                           ) -> None:
    for step in STEPS:
        target = run / "checkpoints" / f"step-{step:07d}" / "model"
        shutil.rmtree(target)
        shutil.copytree(exported[1], target)
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    command.run(parser.parse_args([
        "sweep", str(run), "--tasks", str(book / "tasks.yaml"), "--only", "labels", "--device",
        "cpu", "--features", str(tmp_path / "store")]))
    out = run / "eval" / "sweep-colours"
    assert str(out / "sweep.json") in capsys.readouterr().out
    values = [p.value for p in read_sweep(out).curves[0].points]
    assert len(values) == 4 and len(set(values)) == 1  # four times the same model


def test_a_malformed_sweep_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sweep\.json: no such file"):
        read_sweep(tmp_path)
    (tmp_path / "sweep.json").write_text('{"format": 1}')
    with pytest.raises(ValueError, match=r"sweep\.json: not a sweep of this version"):
        read_sweep(tmp_path)


def test_reading_a_sweep_loads_no_torch() -> None:
    code = ("import sys; import benchmarks_eval.pages, benchmarks_eval.curve_table, "
            "benchmarks_eval.commands.sweep, benchmarks_eval.commands.report; "
            "sys.exit('torch' in sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
