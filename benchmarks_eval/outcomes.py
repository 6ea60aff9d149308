"""What a finished run left on disk, trial by trial: ``trials.jsonl`` beside ``results.json``."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRIALS = "trials.jsonl"
RESULTS = "results.json"


@dataclass(frozen=True)
class Outcome:
    """One trial of one measure: what was asked, what the model scored, what it earned.

    ``scores`` is [images, texts], higher is better, NaN where not finite; measures that compare
    texts rather than scores (METEOR) leave it empty. The right answer lies at ``gold`` on the axis
    that has more than one candidate; where both have two, it is the diagonal. ``tie`` says that
    equal scores decided.
    """

    task: str
    group: str
    figure: str
    id: str
    cluster: str
    gold: int
    images: tuple[str, ...]
    texts: tuple[str, ...]
    scores: NDArray[np.float64] = field(repr=False)
    credit: float
    tie: bool
    tags: dict[str, str]

    @property
    def square(self) -> bool:
        """Whether two pictures meet two texts (winoground)."""
        return len(self.images) > 1 and len(self.texts) > 1

    @property
    def right_texts(self) -> tuple[str, ...]:
        """The texts that are true of a picture here."""
        if self.square or len(self.texts) == 1:
            return self.texts
        return (self.texts[self.gold],)

    @property
    def right_images(self) -> tuple[str, ...]:
        """The pictures that a text is true of here."""
        if self.square or len(self.images) == 1:
            return self.images
        return (self.images[self.gold],)

    @property
    def wrong_texts(self) -> tuple[str, ...]:
        """The texts offered beside the right one; none where pictures are chosen from."""
        if self.square or len(self.texts) == 1:
            return ()
        return tuple(t for k, t in enumerate(self.texts) if k != self.gold)

    @property
    def question(self) -> tuple[Any, ...]:
        """What was asked, whatever order the candidates stood in."""
        if self.square:
            return self.images, self.texts
        return (tuple(sorted(self.images)), tuple(sorted(self.texts)),
                self.images[self.gold] if len(self.images) > 1 else "",
                self.texts[self.gold] if len(self.texts) > 1 else "")

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Outcome:
        """A row of ``trials.jsonl`` (null scores become NaN).

        Raises:
            ValueError: a key is missing, or shapes do not fit together.
        """
        absent = [name for name in _KEYS if name not in row]
        if absent:
            raise ValueError(f"no '{absent[0]}'")
        images, texts = tuple(row["images"]), tuple(row["texts"])
        cells = [[math.nan if cell is None else float(cell) for cell in line]
                 for line in row["scores"]]
        scores = np.array(cells, dtype=np.float64) if cells else np.zeros((0, 0))
        if scores.size and scores.shape != (len(images), len(texts)):
            raise ValueError(f"scores of shape {list(scores.shape)} for {len(images)} pictures "
                             f"and {len(texts)} texts")
        gold = int(row["gold"])
        if scores.size and not 0 <= gold < max(scores.shape):
            raise ValueError(f"gold {gold} is none of {max(scores.shape)} candidates")
        credit = float(row["credit"])
        if not math.isfinite(credit):
            raise ValueError(f"credit {credit} is not a finite number")
        return cls(row["task"], row["group"], row["figure"], row["id"], row["cluster"], gold,
                   images, texts, scores, credit, bool(row["tie"]), dict(row["tags"]))


_KEYS = ("task", "group", "figure", "id", "cluster", "gold", "images", "texts", "scores",
         "credit", "tie", "tags")


_FIGURE_KEYS = ("task", "figure", "model", "group", "label", "unit", "chance", "floor",
                "value")


@dataclass(frozen=True)
class Measured:
    """All trials of one figure of one model."""

    task: str
    figure: str
    group: str
    label: str
    unit: str
    chance: float
    floor: float
    value: float
    """The figure as the run printed it: the mean credit, but for figures of a whole (BLEU)."""
    outcomes: tuple[Outcome, ...]

    @property
    def share(self) -> bool:
        """Whether credits are 0 to 1 and stand for hits."""
        return self.unit == "share"

    @property
    def credits(self) -> NDArray[np.float64]:
        """Credits [trials]."""
        return np.array([outcome.credit for outcome in self.outcomes])

    @property
    def clusters(self) -> list[str]:
        """Each trial's cluster."""
        return [outcome.cluster for outcome in self.outcomes]


@dataclass(frozen=True)
class Judged:
    """One model's finished run: its measures in the order of the tables."""

    folder: Path
    model: str
    kind: str
    results: dict[str, Any]
    measures: dict[tuple[str, str], Measured]


def read_judged(path: str | Path) -> Judged:
    """Reads one model's trials.

    Args:
        path: the model's folder in a results folder, or a results folder that holds one model.

    Raises:
        ValueError: no finished run there, several models, or a malformed row (file and line).
    """
    folder = _model_folder(Path(path))
    results = read_results(folder.parent / RESULTS)
    model = _model_entry(results, folder)
    facts = {(f["task"], f["figure"]): f for f in results["figures"]
             if f["model"] == model["name"]}
    found: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in read_outcomes(folder / TRIALS):
        found.setdefault((outcome.task, outcome.figure), []).append(outcome)
    unknown = next((key for key in found if key not in facts), None)
    if unknown is not None:
        raise ValueError(f"{folder / TRIALS}: task '{unknown[0]}', figure '{unknown[1]}' is not "
                         f"in {folder.parent / RESULTS}; run `rescore` on {folder.parent}")
    measures = {key: Measured(key[0], key[1], facts[key]["group"], facts[key]["label"],
                              facts[key]["unit"], facts[key]["chance"], facts[key]["floor"],
                              facts[key]["value"],
                              tuple(found[key]))
                for key in facts if key in found}
    if not measures:
        raise ValueError(f"{folder / TRIALS}: no trials")
    return Judged(folder, model["name"], model["kind"], results, measures)


def read_results(path: Path) -> dict[str, Any]:
    """The tree of a ``results.json``.

    Raises:
        ValueError: no such file, or not one of ours.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; a run that ended well writes it")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        figures, models = tree["figures"], tree["models"]
        lacking = [key for entries, keys in ((figures, _FIGURE_KEYS), (models, ("name", "kind")))
                   for entry in entries for key in keys if key not in entry]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the results of a run: {error!r}") from None
    if lacking:
        raise ValueError(f"{path}: not the results of a run: no '{lacking[0]}'")
    return tree


def read_outcomes(path: Path) -> list[Outcome]:
    """Every row of a ``trials.jsonl``.

    Raises:
        ValueError: no such file, or a row is malformed (file and line are named).
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; a run that ended well writes it")
    outcomes: list[Outcome] = []
    seen: dict[tuple[str, str, str], int] = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                outcome = Outcome.from_json(json.loads(line))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: not a trial: {error}") from None
            key = outcome.task, outcome.figure, outcome.id
            if key in seen:
                raise ValueError(f"{path}, line {number}: trial '{outcome.id}' of "
                                 f"{outcome.task}/{outcome.figure} stands in line {seen[key]} too")
            seen[key] = number
            outcomes.append(outcome)
    return outcomes


def _model_folder(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder; give a model's folder of a results folder, "
                         f"like runs/a/eval/babyvlm/generative")
    if (path / TRIALS).is_file():
        return path
    inside = sorted(child for child in path.iterdir() if (child / TRIALS).is_file())
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise ValueError(f"{path} holds {len(inside)} models: name one of "
                         f"{', '.join(str(child) for child in inside)}")
    deeper = sorted({found.parent for found in path.glob("eval/*/*/" + TRIALS)})
    hint = f"; there is {', '.join(str(child) for child in deeper)}" if deeper else ""
    raise ValueError(f"{path}: no {TRIALS} here{hint}")


def _model_entry(results: dict[str, Any], folder: Path) -> dict[str, Any]:
    models = results["models"]
    for model in models:
        if folder.name in (model.get("file_name"), file_name(model["name"])):
            return model
    names = ", ".join(model["name"] for model in models)
    raise ValueError(f"{folder}: {folder.parent / RESULTS} knows no such model; it has {names}")


def file_name(name: str) -> str:
    """A model's name as its folder is called (the rule of ``models``, which would load more)."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-") or "model"
