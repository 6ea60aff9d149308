"""Figures: a mean with its interval, beside chance and the floors of models that cannot see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks_eval import blind, metrics
from benchmarks_eval.data import Item
from benchmarks_eval.options import Options, Rule, ScoreOptions, Ties
from benchmarks_eval.plan import ModelInfo, Wants
from benchmarks_eval.records import Ask, finite
from benchmarks_eval.statistics import interval
from benchmarks_eval.tasks import Task
from benchmarks_eval.trials import Trial, caption_trials, question_trials

ALL = ("contrastive", "generative", "letters")


@dataclass(frozen=True)
class Measure:
    """One figure of a task that is computed from score matrices."""

    name: str
    label: str
    trials: Sequence[Trial]
    metric: metrics.Metric
    chance: float
    kinds: tuple[str, ...] = ALL
    share: bool = True
    primary: bool = False

    @property
    def choice(self) -> bool:
        """Whether one of several candidates is picked."""
        return self.metric is metrics.choice


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
    """A task with its questions, the measures over them and the rule that compares scores."""

    task: Task
    items: list[Item]
    measures: list[Measure]
    rule: Rule
    score: ScoreOptions

    @property
    def ties(self) -> Ties:
        """What equal scores are worth."""
        return self.score.ties

    def plan(self, wants: Wants, options: Options) -> None:
        """Adds what a model has to answer."""
        asked = {id(m.trials): m.trials for m in self.measures if wants.info.kind in m.kinds}
        for trials in asked.values():  # several measures may look at the same trials
            wants.add_trials(self.task, trials, options)
        if self.task.kind == "caption" and wants.info.generates:
            for item in self.items:
                wants.add_caption(self.task, item.images[0])

    @property
    def retrieves(self) -> bool:
        """Whether a picture can be looked for by its generated caption."""
        return self.task.kind == "caption" and len({item.cluster for item in self.items}) > 1

    def captions(self, said: Mapping[tuple[str, Ask], str]) -> dict[str, str]:
        """Picture -> what a model says of it."""
        ask = Ask(self.task.prompt, self.task.max_new_tokens)
        return {item.images[0]: said[item.images[0], ask] for item in self.items}

    @property
    def text_choice(self) -> bool:
        """Whether the first figure compares texts, so that their own likelihood matters."""
        return len(self.measures[0].trials[0].texts) > 1


def bind(task: Task, items: list[Item], score: ScoreOptions, seed: int) -> BoundTask:
    """Builds the measures of a task from its questions."""
    trials = question_trials(task, items, seed)
    build = {"winoground": _winoground, "caption": _caption}.get(task.kind, _choices)
    measures = build(task, items, trials, seed)
    return BoundTask(task, items, measures, score.rule(task), score)


def _chance(trials: Sequence[Trial]) -> float:
    return float(np.mean([1 / trial.choices for trial in trials]))


_LABELS = {("labeled", "image"): "picture for a word", ("labeled", "text"): "word for a picture",
           ("two_word", "phrase"): "phrase for a picture",
           ("text_choice", "choice"): "text for a picture",
           ("picture_choice", "picture"): "picture for a text"}


def _choices(task: Task, items: list[Item], trials: dict[str, list[Trial]],
             seed: int) -> list[Measure]:
    measures: list[Measure] = []
    for name, asked in trials.items():
        bare = any(not image for trial in asked for image in trial.images)
        label = "better text" if bare else _LABELS[task.kind, name]
        measures.append(Measure(name, label, asked, metrics.choice, _chance(asked),
                                kinds=("generative",) if bare else ALL, primary=not measures))
    return measures


def _winoground(task: Task, items: list[Item], trials: dict[str, list[Trial]],
                seed: int) -> list[Measure]:
    # Letters compare the texts of one picture; two pictures' shares are no common scale.
    return [Measure(name, name.replace("_", " "), trials["group"], metric, chance,
                    kinds=ALL if name == "text" else ALL[:2], primary=name == "group")
            for name, (metric, chance) in metrics.WINOGROUND.items()]


def _caption(task: Task, items: list[Item], trials: dict[str, list[Trial]],
             seed: int) -> list[Measure]:
    pool = caption_trials(task, items, task.retrieval_pool - 1, seed)
    return [
        Measure("picture", f"picture for a caption, 1 of {task.foils + 1}", trials["picture"],
                metrics.choice, _chance(trials["picture"]), primary=True),
        Measure("gain", "gain over other pictures", trials["picture"], metrics.gain, 0.0,
                kinds=("generative",), share=False),
        Measure("retrieval", "retrieval of the picture, R@1", pool, metrics.choice,
                _chance(pool), kinds=("contrastive",)),
    ]


@dataclass(frozen=True)
class Values:
    """Per-trial credits [n], whether equal scores decided, and the scores [I, J] of each."""

    values: NDArray[np.float64]
    tied: list[bool]
    nonfinite: int
    scores: list[metrics.Scores]


def evaluate(measure: Measure, scorer: blind.Scorer, ties: Ties = "share") -> Values:
    """Credits of a scorer. A trial with a NaN or an infinity is worth nothing and is counted."""
    credits_: list[float] = []
    tied: list[bool] = []
    matrices: list[metrics.Scores] = []
    nonfinite = 0
    for trial in measure.trials:
        scores = scorer.matrix(trial)
        matrices.append(scores)
        if not np.isfinite(scores).all():
            nonfinite += 1
            credits_.append(0.0)
            tied.append(False)
            continue
        credit = measure.metric(scores, trial.gold)
        tied.append(measure.share and 0 < credit < 1)
        if measure.share:
            credit = metrics.worth(credit, ties, choice=measure.choice)
        credits_.append(credit)
    return Values(np.array(credits_), tied, nonfinite, matrices)


def blind_floors(measure: Measure, frequencies: blind.Unigram | None, seed: int,
                 ties: Ties = "share") -> dict[str, float]:
    """Figures of the blind models. ``random`` is a check of the metric and no floor."""
    floors = {"constant": float(evaluate(measure, blind.Constant(), ties).values.mean())}
    if measure.share:
        floors["random"] = float(evaluate(measure, blind.Random(seed), ties).values.mean())
    if all(len(trial.texts) > 1 for trial in measure.trials):
        for name, scorers in blind.text_only(measure.trials, frequencies).items():
            means = [evaluate(measure, scorer, ties).values.mean() for scorer in scorers]
            floors[name] = float(np.mean(means))
    return floors


def make_figure(bound: BoundTask, measure: Measure, model: ModelInfo, got: Values,
                floors: dict[str, float], seed: int) -> Figure:
    """A model's figure on one measure."""
    unit = "share" if measure.share else bound.rule.unit
    return _figure(bound.task, measure.name, measure.label, model.name, unit, got.values,
                   sum(got.tied), got.nonfinite, [trial.cluster for trial in measure.trials],
                   measure.chance, floors, measure.primary, seed)


def trial_rows(bound: BoundTask, measure: Measure, got: Values) -> Iterator[dict[str, Any]]:
    """Lines of ``trials.jsonl``: what the measure saw of each trial and what it gave for it."""
    for trial, scores, credit, tie in zip(measure.trials, got.scores, got.values, got.tied,
                                          strict=True):
        yield _row(bound.task, measure.name, trial, _cells(scores), credit, tie)


def _figure(task: Task, name: str, label: str, model: str, unit: str,
            values: NDArray[np.float64], ties: int, nonfinite: int, clusters: list[str],
            chance: float, floors: dict[str, float], primary: bool, seed: int) -> Figure:
    made = interval(values, clusters, share=unit == "share", seed=seed)
    floor = max([chance, *(value for kind, value in floors.items() if kind != "random")])
    return Figure(
        task=task.name, group=task.group, figure=name, label=label, model=model, unit=unit,
        n=len(values), clusters=len(set(clusters)), value=float(values.mean()),
        low=made.low, high=made.high, interval=made.method, chance=chance, floors=floors,
        floor=floor, above_floor=made.low > floor, ties=ties, nonfinite=nonfinite,
        primary=primary)


def caption_figures(bound: BoundTask, captions: dict[str, str], model: ModelInfo, seed: int,
                    scorer: blind.Scorer | None
                    ) -> tuple[list[Figure], list[dict[str, Any]]]:
    """Figures of generated captions, and their ``trials.jsonl`` lines.

    Args:
        bound: a caption task.
        captions: picture -> what the model says of it.
        model: which one.
        seed: of resamples, shuffles and foils.
        scorer: a contrastive model's scores of the captions, for other pictures too; None leaves
            the retrieval of the picture out.
    """
    from benchmarks_eval import captions as measuring  # METEOR's table, BLEU, ...

    figures: list[Figure] = []
    rows: list[dict[str, Any]] = []
    items = bound.items
    for made in measuring.caption_figures(items, captions, seed, meteor=bound.score.meteor,
                                          meteor_jar=bound.score.meteor_jar):
        figures.append(_caption_figure(bound.task, made, model))
        rows += [_row(bound.task, made["name"], item, [], value, False)
                 for item, value in zip(items, made["values"], strict=True)]
    if scorer is not None and bound.retrieves:
        trials = measuring.retrieval_trials(items, captions, bound.task.foils, seed)
        seen = [scorer.matrix(t) if t.texts[0].strip() else np.zeros((len(t.images), 1))
                for t in trials]
        known = {(t.texts[0], t.images): matrix for t, matrix in zip(trials, seen, strict=True)}
        made = measuring.retrieval_figure(
            trials, lambda text, images: known[text, tuple(images)][:, 0].tolist(), seed)
        figures.append(_caption_figure(bound.task, made, model))
        rows += [_row(bound.task, made["name"], t, _cells(matrix), value, 0 < value < 1)
                 for t, matrix, value in zip(trials, seen, made["values"], strict=True)]
    return figures, rows


def _caption_figure(task: Task, made: Mapping[str, Any], model: ModelInfo) -> Figure:
    floor = max([made["chance"], *made["floors"].values()])
    kept = ("label", "unit", "n", "clusters", "value", "low", "high", "interval", "chance",
            "floors", "ties", "nonfinite")
    return Figure(task=task.name, group=task.group, figure=made["name"], model=model.name,
                  floor=floor, above_floor=made["low"] > floor, primary=False,
                  **{name: made[name] for name in kept})


def _row(task: Task, figure: str, asked: Trial | Item, scores: list[list[float | None]],
         credit: float, tie: bool) -> dict[str, Any]:
    return {"task": task.name, "group": task.group, "figure": figure, "id": asked.id,
            "cluster": asked.cluster, "gold": asked.gold, "images": list(asked.images),
            "texts": list(asked.texts), "scores": scores, "credit": float(credit), "tie": tie,
            "tags": dict(asked.tags)}


def _cells(scores: metrics.Scores) -> list[list[float | None]]:
    return [[finite(float(cell)) for cell in line] for line in scores]
