"""One recipe by itself: its runs' figures, how far seeds scatter, what the set can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks_eval.compare import (
    check_distinct,
    check_tasks,
    differences,
    shared_keys,
    shared_trials,
)
from benchmarks_eval.compare_table import aligned, plain
from benchmarks_eval.outcomes import Judged
from benchmarks_eval.statistics import (
    Runs,
    cluster_variance,
    detectable_share,
    floor_adjusted,
    over_seeds,
    units,
)


@dataclass(frozen=True)
class RecipeRow:
    """One figure of a recipe.

    ``adjusted`` is the mean on the scale from blind floor (0) to perfect (1); ``shows`` the
    smallest accuracy that this set tells from chance in 8 cases of 10. Both are None for anything
    but shares, and where they mean nothing (a floor of 1, no chance level).
    """

    task: str
    group: str
    figure: str
    unit: str
    n: int
    clusters: int
    chance: float
    floor: float
    runs: Runs
    adjusted: float | None
    shows: float | None


@dataclass(frozen=True)
class Recipe:
    """The runs of a recipe and their figures."""

    runs: tuple[Judged, ...]
    rows: tuple[RecipeRow, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A strict-JSON tree."""
        return {"format": 1,
                "runs": [{"folder": str(run.folder), "model": run.model, "kind": run.kind}
                         for run in self.runs],
                "notes": list(self.notes), "rows": [asdict(row) for row in self.rows]}


def summarise(runs: Sequence[Judged], *, tasks: Sequence[str] | None = None,
              primary: bool = False, common: bool = False,
              seed: int = 0) -> Recipe:
    """Every figure that all runs have.

    Args:
        runs: of one recipe, with different seeds; one is enough.
        tasks: only these.
        primary: only the main figure of each task.
        common: over the trials that all runs share where their sets differ.
        seed: of bootstraps.

    Raises:
        ValueError: an unknown task, different trials, or nothing in common.
    """
    check_distinct(runs)
    check_tasks(runs, tasks)
    keys, notes = shared_keys(runs, len(runs), tasks, primary)
    notes = [*differences(runs), *notes]
    rows: list[RecipeRow] = []
    for key in keys:
        first = runs[0].measures[key]
        ids, note = shared_trials(runs, key, common)
        notes += [note] if note else []
        tables = [{o.id: o for o in run.measures[key].outcomes} for run in runs]
        credits_ = np.array([[table[id_].credit for id_ in ids] for table in tables])
        clusters = [tables[0][id_].cluster for id_ in ids]
        floor = max(run.measures[key].floor for run in runs)
        made = over_seeds(credits_, clusters, share=first.share, seed=seed)
        adjusted = shows = None
        if first.share and floor < 1:
            adjusted = floor_adjusted(made.mean, floor)
        if first.share and 0 < first.chance < 1:
            shows = detectable_share(_effective(credits_[0], clusters), first.chance)
        rows.append(RecipeRow(key[0], first.group, key[1], first.unit, len(ids),
                              len(set(clusters)), first.chance, floor, made, adjusted, shows))
    if not rows:
        raise ValueError(f"no figure is in all of the runs: {'; '.join(notes) or 'no tasks'}")
    return Recipe(tuple(runs), tuple(rows), tuple(notes))


def _effective(credits_: np.ndarray, clusters: Sequence[str]) -> float:
    """Independent trials that these are worth: n over the design effect."""
    drawn = units(clusters)
    n, count = len(credits_), len(set(drawn))
    spread = float(credits_.var(ddof=1)) / n if n > 1 else 0.0
    if count < 2 or spread == 0:
        return float(count)
    return max(1.0, n * min(1.0, spread / cluster_variance(credits_, drawn)))


def recipe_table(made: Recipe) -> str:
    """The terminal table."""
    lines = [f"{'A' if k == 0 else ' '}  {run.folder}  ({run.kind})"
             for k, run in enumerate(made.runs)]
    head = ("", "n", "clusters", "mean", "sd", "seed sd", "95 %", "chance", "blind", "adjusted",
            "shows")
    lines += ["", *aligned(head, made.rows, _cells), ""]
    lines += [
        "sd: between the runs; seed sd: what is left of it without the noise of these trials. "
        "95 %: for new",
        "trials and, with several runs, new seeds. adjusted: 0 at the blind floor, 1 when "
        "perfect. shows: the",
        "smallest accuracy that this set tells from chance in 8 cases of 10.",
        *(f"note: {note}" for note in made.notes),
    ]
    return "\n".join(lines)


def _cells(row: RecipeRow) -> tuple[str, ...]:
    def shown(value: float | None, unit: str = row.unit) -> str:
        return "–" if value is None else plain(value, unit)

    made = row.runs
    return (f"{row.task}  {row.figure}", str(row.n), str(row.clusters), shown(made.mean),
            shown(made.between_sd), shown(made.seed_sd),
            f"[{shown(made.low)}, {shown(made.high)}]", shown(row.chance), shown(row.floor),
            shown(row.adjusted), shown(row.shows))
