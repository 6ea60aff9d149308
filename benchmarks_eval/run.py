"""One evaluation from task file to results: the order of the work, without any of its details."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks_eval import blind, scoring
from benchmarks_eval.data import missing_picture, read_items
from benchmarks_eval.figures import (
    BoundTask,
    Figure,
    bind,
    blind_floors,
    caption_figures,
    make_figure,
)
from benchmarks_eval.models import Model
from benchmarks_eval.records import JsonLines, ScoreRecord
from benchmarks_eval.tasks import Normalise, TaskFile
from benchmarks_eval.trials import Trial, spread

log = logging.getLogger("babyvlm")

SAMPLES = 12
EXTREMES = 3


@dataclass(frozen=True)
class Options:
    """What the command line decides."""

    seed: int = 0
    limit: int | None = None
    normalise: Normalise | None = None
    batch_size: int = 32


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


@dataclass(frozen=True)
class Results:
    """All that reports are made of."""

    suite: TaskFile
    root: Path
    options: Options
    models: list[Model]
    figures: list[Figure]
    samples: list[Sample]
    extremes: list[Extreme]

    def to_json(self) -> dict[str, Any]:
        """A strict-JSON tree; no clock in it, so that equal runs give equal bytes."""
        return {
            "format": 1,
            "suite": self.suite.model_dump(mode="json"),
            "root": str(self.root),
            "options": asdict(self.options),
            "models": [{"name": m.name, "path": m.path, "kind": m.kind,
                        "tower_hash": m.handle.tower_hash} for m in self.models],
            "figures": [asdict(figure) for figure in self.figures],
            "samples": [asdict(sample) for sample in self.samples],
            "extremes": [asdict(extreme) for extreme in self.extremes],
        }


def read_tasks(suite: TaskFile, root: Path, options: Options) -> list[BoundTask]:
    """Reads every CSV and checks every picture before a model is touched.

    Raises:
        ValueError: a malformed row or a missing picture (file and line).
    """
    bound: list[BoundTask] = []
    for task in suite.tasks:
        items = spread(read_items(task, root), options.limit)
        missing = missing_picture(task, root, items)
        if missing is not None:
            raise ValueError(missing)
        bound.append(bind(task, items, options.normalise or task.normalise, options.seed))
    return bound


def word_frequencies(suite: TaskFile) -> blind.Unigram | None:
    """Training word frequencies for the unigram floor, when the suite names a corpus."""
    if suite.corpus is None:
        return None
    from engine import read_corpus

    return blind.Unigram(read_corpus(suite.corpus).pairs("train").utterance)


def evaluate(models: Sequence[Model], suite: TaskFile, root: Path, out: Path,
             options: Options) -> Results:
    """Scores every model on every task; records stream to ``<out>/<model>/*.jsonl``."""
    bound = read_tasks(suite, root, options)
    frequencies = word_frequencies(suite)
    plans: list[scoring.Plan] = []
    for model in models:
        plan = scoring.Plan()
        for task in bound:
            task.plan(plan, model.kind)
        plans.append(plan)
    with ExitStack() as stack:
        files = {(m.name, what): stack.enter_context(
                     JsonLines(out / m.file_name / f"{what}.jsonl"))
                 for m in models for what in _files(m)}

        def sink(model: Model, records: list[ScoreRecord],
                 captions: list[tuple[str, scoring.Ask, str]]) -> None:
            files[model.name, "scores"].write(record.to_json() for record in records)
            if captions:
                files[model.name, "captions"].write(
                    {"image": image, "prompt": ask.prompt, "caption": text}
                    for image, ask, text in captions)

        answers = scoring.score(models, plans, root, batch_size=options.batch_size, sink=sink)
    figures: list[Figure] = []
    extremes: list[Extreme] = []
    for task in bound:
        made, notable = _task_figures(task, models, answers, frequencies, options.seed)
        figures += made
        extremes += notable
    for figure in figures:
        if figure.nonfinite:
            log.warning("%s, %s/%s: %d of %d trials have a NaN or infinite score; they count as "
                        "wrong", figure.model, figure.task, figure.figure, figure.nonfinite,
                        figure.n)
    return Results(suite, root, options, list(models), figures,
                   _samples(bound, models, answers), extremes)


def _files(model: Model) -> tuple[str, ...]:
    return ("scores", "captions") if model.kind == "generative" else ("scores",)


def _task_figures(bound: BoundTask, models: Sequence[Model], answers: Sequence[scoring.Answers],
                  frequencies: blind.Unigram | None,
                  seed: int) -> tuple[list[Figure], list[Extreme]]:
    figures: list[Figure] = []
    extremes: list[Extreme] = []
    for measure in bound.measures:
        floors = blind_floors(measure, frequencies, seed)
        for model, answer in zip(models, answers, strict=True):
            if model.kind not in measure.kinds:
                continue
            scorer = scoring.TaskScores(answer.records, bound.task, model.kind, bound.normalise)
            figures.append(make_figure(bound, measure, model.name, scorer, floors, seed))
            if measure.primary:
                extremes += _extremes(bound, measure.label, measure.trials, model, scorer)
    if bound.task.kind == "caption":
        for model, answer in zip(models, answers, strict=True):
            if model.kind == "generative":
                figures += caption_figures(bound, _captions(bound, answer), model.name, seed)
    return figures, extremes


def _captions(bound: BoundTask, answer: scoring.Answers) -> dict[str, str]:
    ask = scoring.Ask(bound.task.prompt, bound.task.max_new_tokens)
    return {item.images[0]: answer.captions[item.images[0], ask] for item in bound.items}


def _margin(trial: Trial, scores: np.ndarray) -> float:
    """Right answer minus the best wrong one; for a square the matching margin."""
    if len(trial.images) > 1 and len(trial.texts) > 1:
        return float(scores[0, 0] + scores[1, 1] - scores[0, 1] - scores[1, 0])
    flat = scores.ravel()
    return float(flat[trial.gold] - np.delete(flat, trial.gold).max())


def _extremes(bound: BoundTask, label: str, trials: Sequence[Trial], model: Model,
              scorer: blind.Scorer) -> list[Extreme]:
    ranked: list[tuple[float, int, np.ndarray]] = []
    for number, trial in enumerate(trials):
        scores = scorer.matrix(trial)
        if np.isfinite(scores).all():
            ranked.append((_margin(trial, scores), number, scores))
    ranked.sort(key=lambda entry: entry[:2])
    found: list[Extreme] = []
    for best, entries in ((True, ranked[::-1]), (False, ranked)):
        shown: set[str] = set()
        for margin, number, scores in entries:
            trial = trials[number]
            if len(shown) == EXTREMES or (margin > 0) != best:
                break
            if trial.cluster in shown:  # one picture has many trials: show different ones
                continue
            shown.add(trial.cluster)
            found.append(Extreme(bound.task.name, bound.task.group, label, model.name, best,
                                 margin, trial.gold, list(trial.images), list(trial.texts),
                                 scores.tolist()))
    return found


def _samples(bound: Sequence[BoundTask], models: Sequence[Model],
             answers: Sequence[scoring.Answers]) -> list[Sample]:
    samples: list[Sample] = []
    for task in bound:
        if task.task.kind != "caption":
            continue
        references: dict[str, list[str]] = {}
        for item in task.items:
            references.setdefault(item.images[0], []).append(item.texts[0])
        said = {model.name: _captions(task, answer)
                for model, answer in zip(models, answers, strict=True)
                if model.kind == "generative"}
        pictures = list(references)
        for k in range(min(SAMPLES, len(pictures))):
            image = pictures[k * len(pictures) // min(SAMPLES, len(pictures))]
            samples.append(Sample(task.task.name, task.task.group, image, references[image],
                                  {name: captions[image] for name, captions in said.items()}))
    return samples
