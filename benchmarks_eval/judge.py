"""From records on disk to figures: no model is needed, and every rule can be another one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks_eval.figures import (
    BoundTask,
    Figure,
    Values,
    blind_floors,
    caption_figures,
    evaluate,
    make_figure,
    trial_rows,
)
from benchmarks_eval.notable import Extreme, Sample, extremes, samples
from benchmarks_eval.options import Options, Rule
from benchmarks_eval.plan import ModelInfo
from benchmarks_eval.questions import Questions
from benchmarks_eval.records import json_line, read_captions, read_scores, write_atomically
from benchmarks_eval.scoring import Answers, TaskScores
from benchmarks_eval.tasks import TaskFile

log = logging.getLogger("babyvlm")

RETRIEVAL = "retrieval"
"""Folder of what a contrastive model was asked about the captions of others."""
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Results:
    """All that reports are made of."""

    suite: TaskFile
    root: Path
    options: Options
    models: list[ModelInfo]
    figures: list[Figure]
    samples: list[Sample]
    extremes: list[Extreme]

    def to_json(self) -> dict[str, Any]:
        """A strict-JSON tree; no clock in it, so that equal runs give equal bytes."""
        return {
            "format": 2,
            "suite": self.suite.model_dump(mode="json"),
            "root": str(self.root),
            "options": asdict(self.options),
            "models": [asdict(model) for model in self.models],
            "figures": [asdict(figure) for figure in self.figures],
            "samples": [asdict(sample) for sample in self.samples],
            "extremes": [asdict(extreme) for extreme in self.extremes],
        }


def read_answers(info: ModelInfo, out: Path) -> Answers:
    """What a model said, from its folder.

    Raises:
        ValueError: its records are not there or malformed.
    """
    folder = out / info.file_name
    captions = read_captions(folder / "captions.jsonl") if info.generates else {}
    return Answers(read_scores(folder / "scores.jsonl"), captions)


def judge(questions: Questions, infos: Sequence[ModelInfo], records: Path,
          out: Path | None) -> Results:
    """Makes every figure from records.

    Args:
        questions: the tasks; ``questions.options.score`` says by which rules.
        infos: the models.
        records: folder that holds a folder of records for each model.
        out: where each model's ``trials.jsonl`` goes; None writes nothing.
    """
    options = questions.options
    answers = [read_answers(info, records) for info in infos]
    figures: list[Figure] = []
    found: list[Extreme] = []
    shown: list[Sample] = []
    lines: list[list[str]] = [[] for _ in infos]
    for task in questions.bound:
        for measure in task.measures:
            asked = [k for k, info in enumerate(infos) if info.kind in measure.kinds]
            floors = (blind_floors(measure, questions.frequencies, options.seed, task.ties)
                      if asked else {})
            for k in asked:
                got = evaluate(measure, _scorer(task, answers[k], infos[k]), task.ties)
                figures.append(make_figure(task, measure, infos[k], got, floors, options.seed))
                lines[k] += map(json_line, trial_rows(task, measure, got))
                if measure.primary:
                    found += extremes(task, measure, infos[k], got)
        if task.task.kind == "caption":
            said = {k: task.captions(answers[k].captions) for k, info in enumerate(infos)
                    if info.generates}
            for k, captions in said.items():
                made, rows = caption_figures(task, captions, infos[k], options.seed,
                                             _retriever(task, infos, records))
                figures += made
                lines[k] += map(json_line, rows)
            shown += samples(task, {infos[k].name: captions for k, captions in said.items()})
    if out is not None:
        for info, own in zip(infos, lines, strict=True):
            write_atomically(out / info.file_name / "trials.jsonl", own)
    for figure in figures:
        if figure.nonfinite:
            log.warning("%s, %s/%s: %d of %d trials have a NaN or infinite score; they count as "
                        "wrong", figure.model, figure.task, figure.figure, figure.nonfinite,
                        figure.n)
    return Results(questions.suite, questions.root, options, list(infos), figures, shown, found)


def _scorer(task: BoundTask, answers: Answers, info: ModelInfo,
            rule: Rule | None = None) -> TaskScores:
    return TaskScores(answers.records, task.task, info.kind, rule or task.rule)


def caption_judge(infos: Sequence[ModelInfo]) -> int | None:
    """Place of the model that looks for pictures by generated captions: the first contrastive one.

    Not the model itself: under its own likelihood a caption finds the picture that it was made of
    even when it is wrong, and when pictures were swapped behind the model's back.
    """
    return next((k for k, info in enumerate(infos) if info.kind == "contrastive"), None)


def _retriever(task: BoundTask, infos: Sequence[ModelInfo], records: Path) -> TaskScores | None:
    place = caption_judge(infos)
    if place is None:
        return None
    path = records / RETRIEVAL / infos[place].file_name / "scores.jsonl"
    if not path.is_file():
        return None
    return TaskScores(read_scores(path), task.task, "contrastive", task.rule)


@dataclass(frozen=True)
class Swept:
    """A text-choice figure by how much of the texts' own likelihood is taken off."""

    task: str
    figure: str
    model: str
    n: int
    chance: float
    mean: float
    """Under ``mean`` per token, for comparison."""
    shares: dict[float, float]
    """alpha -> share right."""


def sweep(bound: Sequence[BoundTask], infos: Sequence[ModelInfo], records: Path) -> list[Swept]:
    """The first figure of every task that compares texts, at each alpha, where prior records
    exist."""
    swept: list[Swept] = []
    for info in infos:
        if info.kind != "generative":
            continue
        answers = read_answers(info, records)
        if not any(not key.image for key in answers.records):
            continue
        for task in bound:
            measure = next((m for m in task.measures if m.primary), task.measures[0])
            bare = any(not image for trial in measure.trials for image in trial.images)
            if not task.text_choice or bare or info.kind not in measure.kinds:
                continue

            def share(rule: Rule, task: BoundTask = task, measure: Any = measure,
                      info: ModelInfo = info, answers: Answers = answers) -> float:
                got: Values = evaluate(measure, _scorer(task, answers, info, rule), task.ties)
                return float(np.mean(got.values))

            ends = task.rule.score_eos
            swept.append(Swept(
                task.task.name, measure.name, info.name, len(measure.trials), measure.chance,
                share(Rule("mean", 0.0, ends)),
                {alpha: share(Rule("pmi", alpha, ends)) for alpha in ALPHAS}))
    return swept
