"""Two models, or two recipes with several runs each, on the same trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from benchmarks_eval.outcomes import Judged, Measured, Outcome
from benchmarks_eval.statistics import Paired, SeedGap, holm, paired, seed_gap
from benchmarks_eval.tasks import nearest

Key = tuple[str, str]
EQUAL = 1e-12


@dataclass(frozen=True)
class Change:
    """A trial whose credit is not what it was, with its right picture and text (or both of them
    for a square)."""

    id: str
    images: tuple[str, ...]
    texts: tuple[str, ...]
    before: float
    after: float


@dataclass(frozen=True)
class Row:
    """One figure of both sides. Exactly one of ``paired`` and ``seeds`` is there."""

    task: str
    group: str
    figure: str
    label: str
    unit: str
    chance: float
    floor: float
    n: int
    ties: tuple[int, int]
    nonfinite: tuple[int, int]
    paired: Paired | None
    seeds: SeedGap | None
    holm_p: float
    fixed: tuple[Change, ...] = ()
    broken: tuple[Change, ...] = ()

    @property
    def p(self) -> float:
        """Two-sided, before Holm's correction."""
        found = self.paired or self.seeds
        assert found is not None
        return found.p


@dataclass(frozen=True)
class Comparison:
    """What changes from the first side to the second."""

    before: tuple[Judged, ...]
    after: tuple[Judged, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A strict-JSON tree."""
        return {
            "format": 1,
            "before": [_run_json(run) for run in self.before],
            "after": [_run_json(run) for run in self.after],
            "notes": list(self.notes),
            "rows": [asdict(row) for row in self.rows],
        }


def _run_json(run: Judged) -> dict[str, str]:
    return {"folder": str(run.folder), "model": run.model, "kind": run.kind}


def compare(before: Sequence[Judged], after: Sequence[Judged], *,
            tasks: Sequence[str] | None = None, primary: bool = False, common: bool = False,
            seed: int = 0) -> Comparison:
    """Compares two sides figure by figure.

    Args:
        before: one run, or the runs of one recipe that differ in their seed.
        after: the same of the other side: one run, or at least two.
        tasks: only these tasks.
        primary: only the main figure of each task.
        common: compare the trials that all runs share where their sets differ, instead of
            refusing.
        seed: of resamples.

    Raises:
        ValueError: nothing to compare, unknown task, different trials, one run against several.
    """
    runs = [*before, *after]
    _check_sides(before, after, tasks)
    notes = list(differences(runs))
    keys, left_out = shared_keys(runs, len(before), tasks, primary)
    notes += left_out
    drafts: list[Row] = []
    for key in keys:
        measures = [run.measures[key] for run in runs]
        ids, note = shared_trials(runs, key, common)
        if note:
            notes.append(note)
        drafts.append(_row(measures, len(before), ids, seed))
    if not drafts:
        raise ValueError("nothing to compare: "
                         + ("; ".join(left_out) or "no figure is in all of the runs"))
    notes += _wholes(runs, keys)
    for row in drafts:
        for side, count in zip("AB", row.nonfinite, strict=True):
            if count:
                notes.append(f"{side}: NaN or infinite scores in trials of "
                             f"{row.task}/{row.figure}, which count as wrong: {count}")
    adjusted = holm([row.p for row in drafts])
    rows = tuple(replace(row, holm_p=p) for row, p in zip(drafts, adjusted, strict=True))
    return Comparison(tuple(before), tuple(after), rows, tuple(notes))


def _check_sides(before: Sequence[Judged], after: Sequence[Judged],
                 tasks: Sequence[str] | None) -> None:
    one, other = len(before), len(after)
    if not one or not other:
        raise ValueError("a comparison needs a run on each side")
    if (one == 1) != (other == 1):
        raise ValueError(f"{one} runs against {other}: how far seeds scatter must be known on "
                         f"both sides; give one run each, or at least two each")
    check_distinct([*before, *after])
    check_tasks([*before, *after], tasks)


def check_distinct(runs: Sequence[Judged]) -> None:
    """Refuses the same run given twice."""
    folders = [run.folder.resolve() for run in runs]
    for folder in folders:
        if folders.count(folder) > 1:
            raise ValueError(f"{folder} is given twice")


def check_tasks(runs: Sequence[Judged], tasks: Sequence[str] | None) -> None:
    """Refuses a task that no run has, with the nearest name."""
    known = dict.fromkeys(task for run in runs for task, _ in run.measures)
    for task in tasks or ():
        if task not in known:
            raise ValueError(f"unknown task '{task}'{nearest(task, known)}")


def _absent(runs: Sequence[Judged], split: int, key: Key) -> str:
    """``A``, ``B``, ``2 of the 3 runs of A``: where a figure is missing."""
    found: list[str] = []
    for side, members in (("A", runs[:split]), ("B", runs[split:])):
        missing = sum(key not in run.measures for run in members)
        if missing:
            found.append(side if missing == len(members)
                         else f"{missing} of the {len(members)} runs of {side}")
    return " and ".join(found)


def shared_keys(runs: Sequence[Judged], split: int, tasks: Sequence[str] | None,
                 primary: bool) -> tuple[list[Key], list[str]]:
    """The figures to compare, in the first run's order, and a line about each left out."""
    keys: list[Key] = []
    notes: list[str] = []
    mains = {(f["task"], f["figure"]) for run in runs for f in run.results["figures"]
             if f.get("primary")}
    every = dict.fromkeys(key for run in runs for key in run.measures)
    for key in every:
        if (tasks and key[0] not in tasks) or (primary and key not in mains):
            continue
        name = "/".join(key)
        absent = _absent(runs, split, key)
        units = list(dict.fromkeys(run.measures[key].unit for run in runs if key in run.measures))
        if absent:
            notes.append(f"{name} is left out: not in {absent}")
        elif len(units) > 1:
            notes.append(f"{name} is left out: measured in {' and in '.join(units)}")
        else:
            keys.append(key)
    return keys, notes


def shared_trials(runs: Sequence[Judged], key: Key, common: bool) -> tuple[list[str], str]:
    """Ids of the trials to compare, in order, and a note when they are not all.

    Raises:
        ValueError: the runs have different trials and ``common`` is not asked for, or share none.
    """
    asked = [{outcome.id: outcome.question for outcome in run.measures[key].outcomes}
             for run in runs]
    shared = [id_ for id_, question in asked[0].items()
              if all(other.get(id_) == question for other in asked)]
    sizes = [len(questions) for questions in asked]
    if len(shared) == max(sizes):
        return shared, ""
    counts = " and ".join(dict.fromkeys(map(str, sizes)))
    if not shared or not common:
        raise ValueError(
            f"{'/'.join(key)}: the runs have {counts} trials, {len(shared)} of them the same: "
            + ("--common compares those" if shared else
               "they were made with different data, --limit or --seed"))
    return shared, f"{'/'.join(key)}: {len(shared)} trials that all runs share, of {counts}"


def _row(measures: Sequence[Measured], split: int, ids: Sequence[str], seed: int) -> Row:
    first = measures[0]
    tables = [{outcome.id: outcome for outcome in measure.outcomes} for measure in measures]
    outcomes = [[table[id_] for id_ in ids] for table in tables]
    credits_ = np.array([[outcome.credit for outcome in one] for one in outcomes])
    clusters = [outcome.cluster for outcome in outcomes[0]]
    test: dict[str, Any] = {"paired": None, "seeds": None}
    fixed: list[Change] = []
    broken: list[Change] = []
    if len(measures) == 2:
        test["paired"] = paired(credits_[0], credits_[1], clusters, seed=seed)
        for outcome, old, new in zip(outcomes[0], *credits_.tolist(), strict=True):
            if abs(new - old) > EQUAL:
                (fixed if new > old else broken).append(
                    Change(outcome.id, outcome.right_images, outcome.right_texts, old, new))
    else:
        test["seeds"] = seed_gap(credits_[:split], credits_[split:], clusters, share=first.share,
                                 seed=seed)
    sides = outcomes[:split], outcomes[split:]
    return Row(
        first.task, first.group, first.figure, first.label, first.unit, first.chance,
        max(measure.floor for measure in measures), len(ids),
        ties=(_count(sides[0], _tied), _count(sides[1], _tied)),
        nonfinite=(_count(sides[0], _broken_scores), _count(sides[1], _broken_scores)),
        holm_p=math.nan, fixed=tuple(fixed), broken=tuple(broken), **test)


def _count(side: Sequence[Sequence[Outcome]], what: Callable[[Outcome], bool]) -> int:
    return sum(what(outcome) for one in side for outcome in one)


def _tied(outcome: Outcome) -> bool:
    return outcome.tie


def _broken_scores(outcome: Outcome) -> bool:
    return not np.isfinite(outcome.scores).all()


def differences(runs: Sequence[Judged]) -> Iterator[str]:
    """What else differs between the runs than the models."""
    suites = list(dict.fromkeys(_suite(run) for run in runs))
    if len(suites) > 1:
        yield f"different task files: {' and '.join(suites)}"
    options = [dict(_leaves(run.results.get("options") or {})) for run in runs]
    for name in dict.fromkeys(name for one in options for name in one):
        values = list(dict.fromkeys(str(one.get(name)) for one in options))
        if len(values) > 1 and name not in ("batch_size", "limit"):
            yield f"different {name.replace('_', ' ')}: {' and '.join(values)}"
    if len({run.kind == "letters" for run in runs}) > 1:
        yield ("letters and likelihoods are different kinds of measurement: one model reads the "
               "candidates in its prompt, the other scores each by itself")


def _wholes(runs: Sequence[Judged], keys: Sequence[Key]) -> Iterator[str]:
    """A line for each figure that is made of all trials together and compared by its mean."""
    for key in keys:
        if any(abs(run.measures[key].value - float(run.measures[key].credits.mean())) > 1e-6
               for run in runs):
            yield (f"{'/'.join(key)} is compared by its mean over trials; the run's own figure is "
                   f"made of all of them together")


def _suite(run: Judged) -> str:
    suite = run.results.get("suite") or {}
    return f"{suite.get('name', '?')} v{suite.get('version', '?')}"


def _leaves(tree: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield name, value
