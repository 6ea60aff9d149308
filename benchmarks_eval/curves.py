"""Learning curves: a figure over the checkpoints of a run, and where it leaves its blind floor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE = "sweep.json"
AXES = {"step": "optimizer steps", "words_seen": "words seen", "pairs_seen": "pairs seen"}
"""What a curve can be drawn over, in every `Checkpoint`."""
ONSET_RULE = ("first checkpoint from which on, to the last, every 95 % interval lies above the "
              "blind floor")


@dataclass(frozen=True)
class Checkpoint:
    """Where a model stood: how far the run had come, and where its results lie."""

    step: int
    phase: str
    kind: str
    words_seen: int
    pairs_seen: int
    folder: str
    """Results folder, relative to the sweep's."""


@dataclass(frozen=True)
class Point:
    """One figure at one checkpoint."""

    step: int
    words_seen: int
    pairs_seen: int
    value: float
    low: float
    high: float
    floor: float
    """Blind floor: captions are shuffled per model, so it need not be the same all along."""
    n: int
    ties: int
    nonfinite: int

    @property
    def above(self) -> bool:
        """Whether the interval lies above the floor."""
        return self.low > self.floor


@dataclass(frozen=True)
class Onset:
    """Where a curve leaves its blind floor for good.

    ``after`` is the last checkpoint before it (None: the first one is above already): the true
    onset lies between the two. ``points`` checkpoints speak for it; a single one (the last) may be
    chance once in forty.
    """

    step: int
    words_seen: int
    pairs_seen: int
    after: int | None
    points: int


@dataclass(frozen=True)
class Curve:
    """One figure of one kind of model over its checkpoints, by step."""

    task: str
    figure: str
    group: str
    label: str
    unit: str
    kind: str
    primary: bool
    chance: float
    points: tuple[Point, ...]

    @property
    def onset(self) -> Onset | None:
        """Where the curve leaves the blind floor for good (`ONSET_RULE`); None if it does not."""
        first = len(self.points)
        while first and self.points[first - 1].above:
            first -= 1
        if first == len(self.points):
            return None
        at = self.points[first]
        before = self.points[first - 1].step if first else None
        return Onset(at.step, at.words_seen, at.pairs_seen, before, len(self.points) - first)

    @property
    def floor(self) -> float:
        """The highest blind floor."""
        return max(point.floor for point in self.points)

    def to_json(self) -> dict[str, Any]:
        """A strict-JSON tree; the onset stands beside the points."""
        return asdict(self) | {"onset": None if self.onset is None else asdict(self.onset)}


@dataclass(frozen=True)
class Sweep:
    """A whole sweep."""

    folder: Path
    run: str
    suite: dict[str, Any]
    options: dict[str, Any]
    checkpoints: tuple[Checkpoint, ...]
    curves: tuple[Curve, ...]

    def to_json(self) -> dict[str, Any]:
        """A strict-JSON tree; no clock in it, so that equal sweeps give equal bytes."""
        return {"format": 1, "run": self.run, "suite": self.suite, "options": self.options,
                "onset_rule": ONSET_RULE,
                "checkpoints": [asdict(one) for one in self.checkpoints],
                "curves": [curve.to_json() for curve in self.curves]}


def make_curves(checkpoints: Sequence[Checkpoint],
                figures: Sequence[Sequence[dict[str, Any]]]) -> tuple[Curve, ...]:
    """Curves of every figure, one for each kind of model, in the order of the tables.

    Args:
        checkpoints: by step.
        figures: for each checkpoint the figures of its ``results.json``.
    """
    facts: dict[tuple[str, str, str], dict[str, Any]] = {}
    points: dict[tuple[str, str, str], list[Point]] = {}
    for place, own in zip(checkpoints, figures, strict=True):
        for one in own:
            key = one["task"], one["figure"], place.kind
            facts.setdefault(key, one)
            points.setdefault(key, []).append(Point(
                place.step, place.words_seen, place.pairs_seen, one["value"], one["low"],
                one["high"], one["floor"], one["n"], one["ties"], one["nonfinite"]))
    tasks = list(dict.fromkeys(task for task, _, _ in points))
    order = sorted(points, key=lambda key: tasks.index(key[0]))  # stable: figures keep theirs
    return tuple(Curve(task, figure, facts[task, figure, kind]["group"],
                       facts[task, figure, kind]["label"], facts[task, figure, kind]["unit"],
                       kind, facts[task, figure, kind]["primary"],
                       facts[task, figure, kind]["chance"], tuple(points[task, figure, kind]))
                 for task, figure, kind in order)


def read_sweep(folder: str | Path) -> Sweep:
    """The ``sweep.json`` of a folder.

    Raises:
        ValueError: no such file, or not one of ours.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise ValueError(f"{path}: no such file; a sweep that ended well writes it")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["format"] != 1:
            raise ValueError(f"format {tree['format']}")
        checkpoints = tuple(Checkpoint(**one) for one in tree["checkpoints"])
        curves = tuple(
            Curve(**{key: value for key, value in one.items() if key not in ("points", "onset")},
                  points=tuple(Point(**point) for point in one["points"]))
            for one in tree["curves"])
        return Sweep(Path(folder), tree["run"], tree["suite"], tree["options"], checkpoints,
                     curves)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a sweep of this version: {error!r}") from None
