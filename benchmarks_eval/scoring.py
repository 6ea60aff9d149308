"""Which pairs to score, and scoring them: each distinct pair once, the tower once per picture."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks_eval.metrics import Scores
from benchmarks_eval.models import Model
from benchmarks_eval.records import Key, ScoreRecord
from benchmarks_eval.tasks import Normalise, Task
from benchmarks_eval.trials import Trial

log = logging.getLogger("babyvlm")

TEXT_BATCH = 1024


class Ask(NamedTuple):
    """How a caption is to be generated."""

    prompt: str
    max_new_tokens: int


@dataclass
class Plan:
    """What one model has to say about every picture, without repeats."""

    keys: dict[str, set[Key]] = field(default_factory=dict)
    """Picture -> the scores asked for."""
    asks: dict[str, set[Ask]] = field(default_factory=dict)
    """Picture -> the captions asked for."""

    def add_trials(self, task: Task, trials: Iterable[Trial], kind: str) -> None:
        """Asks for every cell of the trials' matrices."""
        for trial in trials:
            for image in trial.images:
                wanted = self.keys.setdefault(image, set())
                for text in trial.texts:
                    wanted.update(keys(task, image, text, kind))

    def add_caption(self, task: Task, image: str) -> None:
        """Asks for a generated caption of a picture."""
        self.asks.setdefault(image, set()).add(Ask(task.prompt, task.max_new_tokens))

    @property
    def pictures(self) -> list[str]:
        """Every picture needed, in a fixed order."""
        return sorted(self.keys.keys() | self.asks.keys())

    @property
    def num_pairs(self) -> int:
        """Number of distinct scores."""
        return sum(len(wanted) for wanted in self.keys.values())


def keys(task: Task, image: str, text: str, kind: str) -> list[Key]:
    """The records that together give the score of one picture and text: one per template."""
    if kind == "contrastive":
        return [Key(image, shown) for shown in task.render(text)]
    return [Key(image, shown, task.prompt, task.score_eos) for shown in task.render(text)]


@dataclass(frozen=True)
class TaskScores:
    """A model's records seen through one task: fills score matrices."""

    records: dict[Key, ScoreRecord]
    task: Task
    kind: str
    normalise: Normalise

    def matrix(self, trial: Trial) -> Scores:
        """Scores [I, J]: mean over the templates."""
        return np.array([[self._score(image, text) for text in trial.texts]
                         for image in trial.images])

    def _score(self, image: str, text: str) -> float:
        found = [self.records[key].score(self.normalise)
                 for key in keys(self.task, image, text, self.kind)]
        return sum(found) / len(found)


@dataclass
class Answers:
    """Everything one model said."""

    records: dict[Key, ScoreRecord] = field(default_factory=dict)
    captions: dict[tuple[str, Ask], str] = field(default_factory=dict)


Sink = Callable[[Model, list[ScoreRecord], list[tuple[str, Ask, str]]], None]


def score(models: Sequence[Model], plans: Sequence[Plan], root: Path, *, batch_size: int,
          sink: Sink) -> list[Answers]:
    """Scores every model's plan; models with the same tower share its features.

    Args:
        models: loaded models, one plan each.
        plans: what to ask.
        root: folder that picture keys start from.
        batch_size: pictures that go through a tower together.
        sink: receives each batch's records and captions as they are made.
    """
    answers = [Answers() for _ in models]
    towers: dict[str, list[int]] = {}
    for index, model in enumerate(models):
        towers.setdefault(model.handle.tower_hash, []).append(index)
    for members in towers.values():
        names = ", ".join(models[k].name for k in members)
        pictures = sorted({image for k in members for image in plans[k].pictures})
        log.info("scoring %s: %d pictures once through the tower, %s distinct pairs", names,
                 len(pictures), " + ".join(str(plans[k].num_pairs) for k in members))
        askers = {k: _Contrastive(models[k], plans[k])
                  if models[k].kind == "contrastive" else _Generative(models[k], plans[k])
                  for k in members}
        with tqdm(total=len(pictures), unit="picture", desc=names, dynamic_ncols=True) as bar:
            for start in range(0, len(pictures), batch_size):
                batch = pictures[start:start + batch_size]
                features = models[members[0]].handle.image_features([root / p for p in batch])
                for k in members:
                    records, captions = askers[k].ask(batch, features)
                    answers[k].records.update((record.key, record) for record in records)
                    answers[k].captions.update(((p, ask), text) for p, ask, text in captions)
                    sink(models[k], records, captions)
                bar.update(len(batch))
    return answers


_Said = tuple[list[ScoreRecord], list[tuple[str, Ask, str]]]


class _Contrastive:
    """Embeds every text once, then takes dot products picture by picture."""

    def __init__(self, model: Model, plan: Plan) -> None:
        self._model, self._plan = model, plan
        texts = sorted({key.text for wanted in plan.keys.values() for key in wanted})
        self._row = {text: k for k, text in enumerate(texts)}
        parts = [_numpy(model.contrastive.embed_texts(texts[k:k + TEXT_BATCH]))
                 for k in range(0, len(texts), TEXT_BATCH)]
        self._texts = np.concatenate(parts) if parts else np.zeros((0, 0))  # [J, D]

    def ask(self, pictures: list[str], features: Any) -> _Said:
        images = _numpy(self._model.contrastive.embed_images(features))  # [N, D]
        records: list[ScoreRecord] = []
        for picture, vector in zip(pictures, images, strict=True):
            for key in sorted(self._plan.keys.get(picture, ())):
                # One dot product a pair: the same text gives the same cosine in any batch.
                cosine = float(vector @ self._texts[self._row[key.text]])
                records.append(ScoreRecord(key, cosine=cosine))
        return records, []


class _Generative:
    """Scores a picture's candidates together (they share its prefix) and writes captions."""

    def __init__(self, model: Model, plan: Plan) -> None:
        self._model, self._plan = model, plan

    def ask(self, pictures: list[str], features: Any) -> _Said:
        records: list[ScoreRecord] = []
        wanted = [self._plan.keys.get(picture, set()) for picture in pictures]
        for prompt, score_eos in sorted({(k.prompt, k.score_eos) for keys in wanted for k in keys}):
            # Alphabetical candidates: the right answer has no place of its own.
            asked = [sorted(k for k in keys if (k.prompt, k.score_eos) == (prompt, score_eos))
                     for keys in wanted]
            rows = [n for n, keys in enumerate(asked) if keys]
            scored = self._model.generative.score_candidates(
                _take(features, rows), [[key.text for key in asked[n]] for n in rows],
                prompt=prompt, score_eos=score_eos)
            for n, likelihoods in zip(rows, scored, strict=True):
                for key, one in zip(asked[n], likelihoods, strict=True):
                    records.append(ScoreRecord(key, float(one.logprob_sum), int(one.num_tokens)))
        captions: list[tuple[str, Ask, str]] = []
        for ask in sorted({ask for p in pictures for ask in self._plan.asks.get(p, ())}):
            rows = [n for n, p in enumerate(pictures) if ask in self._plan.asks.get(p, ())]
            texts = self._model.generative.generate(
                _take(features, rows), prompt=ask.prompt, max_new_tokens=ask.max_new_tokens)
            captions += [(pictures[n], ask, text) for n, text in zip(rows, texts, strict=True)]
        # In key order the file is the same at any batch size.
        return sorted(records, key=lambda record: record.key), sorted(captions)


def _take(features: Any, rows: list[int]) -> Any:
    return features if len(rows) == len(features) else features[rows]


def _numpy(values: Any) -> Scores:
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float64)
