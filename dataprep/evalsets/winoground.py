"""Winoground instances: a real picture, a generated one, and the phrase that is true of each.

From the trials of a two-word set. A language model writes the prompts, Stable Diffusion paints
several candidates, and a similarity model ranks them by margin: similarity to their own phrase
minus that to the other. Published (Baby Winoground): 365 instances with real positives and
generated negatives, so whoever tells generated from real knows half of the answer. The control
set, whose positives are generated too, is what it lacks: there both pictures come from one brush.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from dataprep.benchmarks.winoground import HEADER
from dataprep.evalsets.asking import Ask, Asked, asked_by, failures, put
from dataprep.evalsets.candidates import Candidates, Side, Wanted
from dataprep.evalsets.diffusion import Start
from dataprep.evalsets.evalset import EvalSet, Finished, Record
from dataprep.evalsets.frames import path_from
from dataprep.evalsets.templates import WINOGROUND
from dataprep.provenance.version import code_version
from dataprep.similarity.scorers import Scorer

FILE = "winoground.csv"
CONTROL = "winoground_synthetic.csv"
FOLDER = "candidates"
ATTEMPTS = 4
SIDES: tuple[Side, ...] = ("negative", "positive")
UNKNOWN = "(not known)"


def trials_of(two_word: EvalSet) -> list[Record]:
    """What instances are made of: the trials that reviews and pruning left in a two-word set.

    Raises:
        ValueError: it is a set of another kind, or nothing is left in it.
    """
    if two_word.kind != "two_word":
        raise ValueError(f"{two_word.folder}: a set of kind {two_word.kind}; accepted: two_word")
    trials = [record for record in two_word.kept() if not record.pruned]
    if not trials:
        raise ValueError(f"{two_word.folder}: no trial is left in it")
    return trials


def ask_prompts(trials: Sequence[Record], ask: Ask, *, model: str, seed: int) -> list[Asked]:
    """The language model's prompts for every trial, in order."""
    questions = [
        {
            "positive": trial.fields["positive_phrase"],
            "negative": trial.fields["negative_phrase"],
            "utterance": str(trial.facts.get("utterance", UNKNOWN)),
        }
        for trial in trials
    ]
    return put(WINOGROUND, questions, ask, model=model, seed=seed)


def winoground_records(
    two_word: EvalSet,
    folder: Path,
    asked: Sequence[Asked],
    candidates: Candidates,
    scorer: Scorer,
    *,
    min_margin: float = 0.0,
    progress: bool = True,
) -> tuple[list[Record], dict[str, int]]:
    """An instance for every trial, those that failed with the reason; failed requests by kind.

    Args:
        two_word: the set the trials come from (see :func:`trials_of`).
        folder: the new set's.
        asked: the prompts of :func:`ask_prompts`, one a trial.
        candidates: makes and keeps the pictures.
        scorer: ranks them.
        min_margin: an instance whose best negative has a smaller margin is left out.
        progress: show a bar with rate and time left.
    """
    trials = trials_of(two_word)
    records: list[Record] = []
    with tqdm(total=len(trials), unit="instance", disable=not progress) as bar:
        for trial, one in zip(trials, asked, strict=True):
            records.append(_instance(two_word, folder, trial, one, candidates, scorer, min_margin))
            bar.update()
    return records, failures(asked)


def _instance(
    two_word: EvalSet,
    folder: Path,
    trial: Record,
    asked: Asked,
    candidates: Candidates,
    scorer: Scorer,
    min_margin: float,
) -> Record:
    real = two_word.folder / trial.images["image"]
    record = Record(
        id=trial.id,
        images={"positive": path_from(folder, real)},
        fields=dict(trial.fields),
        facts={k: trial.facts[k] for k in ("kind", "utterance") if k in trial.facts},
        provenance={
            "two_word": trial.provenance,
            **asked_by(WINOGROUND, asked),
            "scorer": scorer.name,
            "scorer_hash": scorer.hash,
            "code_version": code_version(),
        },
    )
    if asked.value is None:
        record.dropped = f"prompt: {asked.failure}"
        return record
    phrases = {
        "positive": record.fields["positive_phrase"], "negative": record.fields["negative_phrase"],
    }  # fmt: skip
    edits = candidates.painter.settings.mode != "text-to-image"
    start = _start(real, asked.value) if edits else None
    read = scorer.embed_texts([phrases["positive"], phrases["negative"]])
    for side in SIDES:
        wanted = Wanted(trial.id, side, asked.value[f"{side}_prompt"], start)
        made, pictures = candidates.get(wanted)
        seen = scorer.embed_images(pictures)
        other = read[1] - read[0] if side == "negative" else read[0] - read[1]
        margins = [float(margin) for margin in seen @ other]
        best = int(np.argmax(margins))
        record.fields[f"{side}_attempt"] = str(best)
        record.facts[side] = {
            "candidates": [
                f"{FOLDER}/{candidates.name(wanted, attempt)}.png" for attempt in range(len(made))
            ],
            "margins": [round(margin, 6) for margin in margins],
        }
        record.provenance[side] = {
            "prompt": wanted.prompt,
            "seeds": [one["seed"] for one in made],
            "picture_sha256": [one["picture_sha256"] for one in made],
            **{k: made[0][k] for k in ("model", "weights_sha256", "mode", "batch_size")},
        }
        if side == "negative" and margins[best] < min_margin:
            record.dropped = f"margin: best negative {margins[best]:.3f} below {min_margin}"
            return record
    return record


def _start(real: Path, value: dict[str, Any]) -> Start:
    region = value["region"]
    with Image.open(real) as picture:
        return Start(
            picture.convert("RGB"),
            (region["left"], region["top"], region["right"], region["bottom"]),
        )


def finish(evalset: EvalSet) -> Finished:
    """The official table, and the control in which the positives are generated, too."""
    rows: list[tuple[object, ...]] = []
    control: list[tuple[object, ...]] = []
    kept = evalset.kept()
    for record in evalset.candidates():
        for side, role in (("negative", "negative"), ("positive", "control")):
            chosen = int(record.fields[f"{side}_attempt"])
            record.images[role] = record.facts[side]["candidates"][chosen]
    for number, record in enumerate(kept):
        phrases = (record.fields["positive_phrase"], record.fields["negative_phrase"])
        negative = (number, *phrases, record.images["negative"], "negative")
        rows += [(number, *phrases, record.images["positive"], "positive"), negative]
        control += [(number, *phrases, record.images["control"], "positive"), negative]
    name = evalset.info["name"]
    tasks = [
        {"name": name, "kind": "winoground", "file": FILE, "cluster": "positive_phrase"},
        {
            "name": f"{name}-synthetic", "kind": "winoground", "file": CONTROL,
            "cluster": "positive_phrase",
        },
    ]  # fmt: skip
    won = sum(_sound(record) for record in kept)
    return Finished(
        {FILE: (HEADER, list(rows)), CONTROL: (HEADER, list(control))},
        tasks if kept else [],
        {"instances": len(kept), "controls_with_margin": won},
    )


def _sound(record: Record) -> bool:
    margins = record.facts["positive"]["margins"]
    return margins[int(record.fields["positive_attempt"])] > 0
