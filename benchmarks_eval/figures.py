"""Figures: a mean with its interval, beside chance and the floors of models that cannot see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks_eval import blind, metrics
from benchmarks_eval.data import Item
from benchmarks_eval.scoring import Plan
from benchmarks_eval.statistics import interval
from benchmarks_eval.tasks import Normalise, Task
from benchmarks_eval.trials import (
    Trial,
    caption_trials,
    labeled_trials,
    two_word_trials,
    winoground_trials,
)

SHUFFLES = 100
BOTH = ("contrastive", "generative")


@dataclass(frozen=True)
class Measure:
    """One figure of a task that is computed from score matrices."""

    name: str
    label: str
    trials: Sequence[Trial]
    metric: metrics.Metric
    chance: float
    kinds: tuple[str, ...] = BOTH
    share: bool = True
    primary: bool = False


@dataclass(frozen=True)
class Figure:
    """What a table shows in one cell, and all that stands behind it."""

    task: str
    group: str
    figure: str
    label: str
    model: str
    unit: str
    n: int
    clusters: int
    value: float
    low: float
    high: float
    interval: str
    chance: float
    floors: dict[str, float]
    floor: float
    above_floor: bool
    ties: int
    nonfinite: int
    primary: bool


@dataclass(frozen=True)
class BoundTask:
    """A task with its questions and the measures over them."""

    task: Task
    items: list[Item]
    measures: list[Measure]
    normalise: Normalise

    def plan(self, plan: Plan, kind: str) -> None:
        """Adds what a model of this kind has to answer."""
        for measure in self.measures:
            if kind in measure.kinds:
                plan.add_trials(self.task, measure.trials, kind)
        if self.task.kind == "caption" and kind == "generative":
            for item in self.items:
                plan.add_caption(self.task, item.images[0])


def bind(task: Task, items: list[Item], normalise: Normalise, seed: int) -> BoundTask:
    """Builds the measures of a task from its questions."""
    build = {"labeled": _labeled, "two_word": _two_word, "winoground": _winoground,
             "caption": _caption}[task.kind]
    return BoundTask(task, items, build(task, items, seed), normalise)


def _chance(trials: Sequence[Trial]) -> float:
    return float(np.mean([1 / trial.choices for trial in trials]))


def _labeled(task: Task, items: list[Item], seed: int) -> list[Measure]:
    measures: list[Measure] = []
    for direction in task.directions:
        trials = labeled_trials(task, items, direction, seed)
        label = "picture for a word" if direction == "image" else "word for a picture"
        measures.append(Measure(direction, label, trials, metrics.choice, _chance(trials),
                                primary=direction == task.directions[0]))
    return measures


def _two_word(task: Task, items: list[Item], seed: int) -> list[Measure]:
    trials = two_word_trials(task, items, seed)
    return [Measure("phrase", "phrase for a picture", trials, metrics.choice, _chance(trials),
                    primary=True)]


def _winoground(task: Task, items: list[Item], seed: int) -> list[Measure]:
    trials = winoground_trials(items)
    return [Measure(name, name.replace("_", " "), trials, metric, chance,
                    primary=name == "group")
            for name, (metric, chance) in metrics.WINOGROUND.items()]


def _caption(task: Task, items: list[Item], seed: int) -> list[Measure]:
    trials = caption_trials(task, items, task.foils, seed)
    pool = caption_trials(task, items, task.retrieval_pool - 1, seed)
    return [
        Measure("picture", f"picture for a caption, 1 of {task.foils + 1}", trials,
                metrics.choice, _chance(trials), primary=True),
        Measure("gain", "gain over other pictures", trials, metrics.gain, 0.0,
                kinds=("generative",), share=False),
        Measure("retrieval", "retrieval of the picture, R@1", pool, metrics.choice,
                _chance(pool), kinds=("contrastive",)),
    ]


@dataclass(frozen=True)
class Values:
    """Per-trial credits [n]; ``ties`` counts the trials that equal scores decided."""

    values: NDArray[np.float64]
    ties: int
    nonfinite: int


def evaluate(measure: Measure, scorer: blind.Scorer) -> Values:
    """Credits of a scorer. A trial with a NaN or an infinity is worth nothing and is counted."""
    credits_: list[float] = []
    ties = nonfinite = 0
    for trial in measure.trials:
        scores = scorer.matrix(trial)
        if not np.isfinite(scores).all():
            nonfinite += 1
            credits_.append(0.0)
            continue
        credit = measure.metric(scores, trial.gold)
        ties += measure.share and 0 < credit < 1
        credits_.append(credit)
    return Values(np.array(credits_), ties, nonfinite)


def blind_floors(measure: Measure, frequencies: blind.Unigram | None,
                 seed: int) -> dict[str, float]:
    """Figures of the blind models. ``random`` is a check of the metric and no floor."""
    floors = {"constant": float(evaluate(measure, blind.Constant()).values.mean())}
    if measure.share:
        floors["random"] = float(evaluate(measure, blind.Random(seed)).values.mean())
    if all(len(trial.texts) > 1 for trial in measure.trials):
        for name, scorers in blind.text_only(measure.trials, frequencies, seed).items():
            means = [evaluate(measure, scorer).values.mean() for scorer in scorers]
            floors[name] = float(np.mean(means))
    return floors


def make_figure(bound: BoundTask, measure: Measure, model: str, scorer: blind.Scorer,
                floors: dict[str, float], seed: int) -> Figure:
    """A model's figure on one measure."""
    got = evaluate(measure, scorer)
    unit = "share" if measure.share else (
        "nats/token" if bound.normalise == "mean" else "nats")
    return _figure(bound.task, measure.name, measure.label, model, unit, got,
                   [trial.cluster for trial in measure.trials], measure.chance, floors,
                   measure.primary, seed)


def caption_figures(bound: BoundTask, captions: dict[str, str], model: str,
                    seed: int) -> list[Figure]:
    """Overlap of generated captions with the references, beside shuffled and constant floors.

    Floors: ``shuffled`` gives every reference the model's captions of other pictures;
    ``constant`` is the one reference that, said of every picture, would score best (chosen on
    the same data, so it flatters the floor).
    """
    figures: list[Figure] = []
    for name, label, metric in (
        ("word_recall", "content words said", metrics.word_recall),
        ("exact", "exactly the reference", metrics.exact_match),
    ):
        values = [metric(item.texts[0], captions[item.images[0]]) for item in bound.items]
        floors = {"shuffled": _shuffled(bound.items, captions, metric, seed),
                  "constant": _constant(bound.items, metric)}
        figures.append(_figure(bound.task, name, label, model, "share",
                               Values(np.array(values), 0, 0),
                               [item.cluster for item in bound.items], 0.0, floors, False, seed))
    return figures


Overlap = Callable[[str, str], float]


def _shuffled(items: list[Item], captions: dict[str, str], metric: Overlap, seed: int) -> float:
    order = np.random.default_rng(seed).permutation(len(items))
    scores: list[float] = []
    for step in range(1, min(len(items) - 1, SHUFFLES) + 1):
        for mine, other in zip(order, np.roll(order, step), strict=True):
            if items[mine].images[0] != items[other].images[0]:
                scores.append(metric(items[mine].texts[0], captions[items[other].images[0]]))
    return float(np.mean(scores))


def _constant(items: list[Item], metric: Overlap) -> float:
    references = [item.texts[0] for item in items]
    return max(float(np.mean([metric(reference, guess) for reference in references]))
               for guess in sorted(set(references)))


def _figure(task: Task, name: str, label: str, model: str, unit: str, got: Values,
            clusters: list[str], chance: float, floors: dict[str, float], primary: bool,
            seed: int) -> Figure:
    made = interval(got.values, clusters, share=unit == "share", seed=seed)
    floor = max([chance, *(value for kind, value in floors.items() if kind != "random")])
    return Figure(
        task=task.name, group=task.group, figure=name, label=label, model=model, unit=unit,
        n=len(got.values), clusters=len(set(clusters)), value=float(got.values.mean()),
        low=made.low, high=made.high, interval=made.method, chance=chance, floors=floors,
        floor=floor, above_floor=made.low > floor, ties=got.ties, nonfinite=got.nonfinite,
        primary=primary)
