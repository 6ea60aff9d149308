"""What a page shows beside figures: sample captions, and the trials a model is surest about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks_eval.figures import BoundTask, Measure, Values
from benchmarks_eval.plan import ModelInfo
from benchmarks_eval.trials import Trial

SAMPLES = 12
EXTREMES = 3


@dataclass(frozen=True)
class Sample:
    """A picture with what people and models say about it."""

    task: str
    group: str
    image: str
    references: list[str]
    captions: dict[str, str]


@dataclass(frozen=True)
class Extreme:
    """A trial a model is most surely right or wrong about, with every candidate's score."""

    task: str
    group: str
    label: str
    model: str
    best: bool
    margin: float
    gold: int
    images: list[str]
    texts: list[str]
    scores: list[list[float]]


def _margin(trial: Trial, scores: np.ndarray) -> float:
    """Right answer minus the best wrong one; for a square the matching margin."""
    if len(trial.images) > 1 and len(trial.texts) > 1:
        return float(scores[0, 0] + scores[1, 1] - scores[0, 1] - scores[1, 0])
    flat = scores.ravel()
    return float(flat[trial.gold] - np.delete(flat, trial.gold).max())


def extremes(bound: BoundTask, measure: Measure, model: ModelInfo, got: Values) -> list[Extreme]:
    """The trials a model is most surely right and most surely wrong about."""
    ranked: list[tuple[float, int, np.ndarray]] = []
    for number, (trial, scores) in enumerate(zip(measure.trials, got.scores, strict=True)):
        if np.isfinite(scores).all():
            ranked.append((_margin(trial, scores), number, scores))
    ranked.sort(key=lambda entry: entry[:2])
    found: list[Extreme] = []
    for best, entries in ((True, ranked[::-1]), (False, ranked)):
        shown: set[str] = set()
        for margin, number, scores in entries:
            trial = measure.trials[number]
            if len(shown) == EXTREMES or (margin > 0) != best:
                break
            if trial.cluster in shown:  # one picture has many trials: show different ones
                continue
            shown.add(trial.cluster)
            found.append(Extreme(bound.task.name, bound.task.group, measure.label, model.name,
                                 best, margin, trial.gold, list(trial.images), list(trial.texts),
                                 scores.tolist()))
    return found


def samples(bound: BoundTask, said: dict[str, dict[str, str]]) -> list[Sample]:
    """Pictures spread evenly over a caption task; ``said``: model -> picture -> caption."""
    references: dict[str, list[str]] = {}
    for item in bound.items:
        references.setdefault(item.images[0], []).append(item.texts[0])
    pictures: Sequence[str] = list(references)
    number = min(SAMPLES, len(pictures))
    chosen = [pictures[k * len(pictures) // number] for k in range(number)]
    return [Sample(bound.task.name, bound.task.group, image, references[image],
                   {name: captions[image] for name, captions in said.items()})
            for image in chosen]
