"""Asking models: batch by batch, each picture's candidates together, each text embedded once."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks_eval.features import FeatureStore
from benchmarks_eval.metrics import Scores
from benchmarks_eval.options import Rule
from benchmarks_eval.parts import Row
from benchmarks_eval.plan import Batch, Choice, Entry, keys
from benchmarks_eval.records import Ask, Key, ScoreRecord, caption_row
from benchmarks_eval.tasks import Task
from benchmarks_eval.trials import Trial

if TYPE_CHECKING:
    from benchmarks_eval.models import Model

log = logging.getLogger("babyvlm")

TEXT_BATCH = 1024


@dataclass
class Answers:
    """Everything one model said."""

    records: dict[Key, ScoreRecord] = field(default_factory=dict)
    captions: dict[tuple[str, Ask], str] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskScores:
    """A model's records seen through one task: fills score matrices."""

    records: Mapping[Key, ScoreRecord]
    task: Task
    kind: str
    rule: Rule

    def matrix(self, trial: Trial) -> Scores:
        """Scores [I, J]: mean over the templates.

        Raises:
            ValueError: a record that the rule needs was not made.
        """
        return np.array([[self._score(trial, image, text) for text in trial.texts]
                         for image in trial.images])

    def _score(self, trial: Trial, image: str, text: str) -> float:
        rule = self.rule
        needs_prior = self.kind == "generative" and rule.normalise == "pmi" and rule.alpha != 0
        total = 0.0
        found = keys(self.task, trial, image, text, self.kind, rule.score_eos)
        for key in found:
            prior = self._record(key._replace(image="")) if needs_prior else None
            total += self._record(key).score(rule, prior)
        return total / len(found)

    def _record(self, key: Key) -> ScoreRecord:
        record = self.records.get(key)
        if record is not None:
            return record
        if any(other._replace(image=key.image) == key for other in self.records):
            why = ("pmi needs the texts without a picture: run with --prior" if not key.image
                   else "there is none for this picture")
        else:
            ends = "with" if key.score_eos else "without"
            why = f"{ends} the end of sequence nothing is recorded: run with --score-eos both"
        raise ValueError(f"task '{self.task.name}': no record of '{key.text}' for "
                         f"'{key.image or 'no picture'}'; {why}")


class Asker:
    """One model with the texts of its plan, ready to be asked batch by batch."""

    def __init__(self, index: int, model: Model, batches: Iterable[Batch], root: Path) -> None:
        self.index, self.model, self.root = index, model, root
        self._texts = np.zeros((0, 0))
        self._row: dict[str, int] = {}
        if model.kind == "contrastive":
            texts = sorted({key.text for batch in batches
                            for own, of in zip(batch.entries, batch.models, strict=True)
                            if of == index for entry in own for key in entry.keys})
            self._row = {text: k for k, text in enumerate(texts)}
            parts = [_numpy(model.contrastive.embed_texts(texts[k:k + TEXT_BATCH]))
                     for k in range(0, len(texts), TEXT_BATCH)]
            if parts:
                self._texts = np.concatenate(parts)  # [J, D]

    def ask(self, entries: Sequence[Entry], features: Any) -> list[Row]:
        """Rows about pictures (all with features [N, ...]) or about none (``features`` None)."""
        if self.model.kind == "contrastive":
            return self._cosines(entries, features)
        records: list[ScoreRecord] = []
        for prompt, score_eos in sorted({(k.prompt, k.score_eos) for e in entries for k in e.keys}):
            asked = [[k for k in e.keys if (k.prompt, k.score_eos) == (prompt, score_eos)]
                     for e in entries]
            rows = [n for n, wanted in enumerate(asked) if wanted]
            scored = self.model.generative.score_candidates(
                None if features is None else _take(features, rows),
                [[key.text for key in asked[n]] for n in rows], prompt=prompt, score_eos=score_eos)
            for n, likelihoods in zip(rows, scored, strict=True):
                for key, one in zip(asked[n], likelihoods, strict=True):
                    records.append(ScoreRecord(key, float(one.logprob_sum), int(one.num_tokens)))
        captions: list[tuple[str, Ask, str]] = []
        for ask in sorted({ask for entry in entries for ask in entry.asks}):
            rows = [n for n, entry in enumerate(entries) if ask in entry.asks]
            texts = self.model.generative.generate(
                _take(features, rows), prompt=ask.prompt, max_new_tokens=ask.max_new_tokens)
            captions += [(entries[n].image, ask, text) for n, text in zip(rows, texts, strict=True)]
        # In key order the file is the same at any batch size.
        records.sort(key=lambda record: record.key)
        captions.sort()
        return [*self._rows(records),
                *(Row(self.index, "captions", caption_row(*said)) for said in captions)]

    def _cosines(self, entries: Sequence[Entry], features: Any) -> list[Row]:
        images = _numpy(self.model.contrastive.embed_images(features))  # [N, D]
        # One dot product a pair: the same text gives the same cosine in any batch.
        return self._rows(
            ScoreRecord(key, cosine=float(vector @ self._texts[self._row[key.text]]))
            for entry, vector in zip(entries, images, strict=True) for key in entry.keys)

    def choose(self, choices: Sequence[Choice]) -> list[Row]:
        """Rows of a chat model's choices."""
        records: list[ScoreRecord] = []
        for choice in choices:
            paths = [self.root / image for image in choice.images]
            shares = self.model.letters.choose(paths, choice.texts, prompt=choice.prompt)
            flat = [float(share) for row in shares for share in row]
            records += [ScoreRecord(key, share=share)
                        for key, share in zip(choice.asked(), flat, strict=True)]
        return self._rows(records)

    def _rows(self, records: Iterable[ScoreRecord]) -> list[Row]:
        return [Row(self.index, "scores", record.to_json()) for record in records]


@dataclass
class Room:
    """Splits what does not fit into memory in two, and says so once."""

    said: bool = False

    def ask(self, asker: Asker, entries: Sequence[Entry], fetch: Callable[[list[str]], Any],
            ) -> list[Row]:
        """Rows of entries; pictures, then candidates, are halved as long as memory runs out.

        Raises:
            ValueError: not even one candidate of one picture fits.
        """
        try:
            pictures = [entry.image for entry in entries if entry.image]
            return asker.ask(entries, fetch(pictures) if pictures else None)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        _free()
        halves = _halves(entries)
        if halves is None:
            raise ValueError(f"{asker.model.name}: out of memory with a single candidate of "
                             f"'{entries[0].image or 'no picture'}'")
        if not self.said:
            log.warning("%s: out of memory; batches that do not fit are split in two (a smaller "
                        "--batch-size avoids the attempt)", asker.model.name)
            self.said = True
        rows = [row for half in halves for row in self.ask(asker, half, fetch)]
        return sorted(rows, key=_order)


def _order(row: Row) -> tuple[Any, ...]:
    made = row.row
    if row.file == "captions":
        return 1, made["image"], made["prompt"], made["max_new_tokens"]
    return 0, made["image"], made["text"], made.get("prompt", ""), made.get("score_eos", False)


def _halves(entries: Sequence[Entry]) -> list[list[Entry]] | None:
    if len(entries) > 1:
        middle = len(entries) // 2
        return [list(entries[:middle]), list(entries[middle:])]
    entry = entries[0]
    if len(entry.keys) + len(entry.asks) < 2:
        return None
    if entry.asks and entry.keys:
        return [[Entry(entry.image, entry.keys)], [Entry(entry.image, (), entry.asks)]]
    middle = max(len(entry.keys), len(entry.asks)) // 2
    return [[Entry(entry.image, entry.keys[:middle], entry.asks[:middle])],
            [Entry(entry.image, entry.keys[middle:], entry.asks[middle:])]]


def out_of_memory(error: BaseException) -> bool:
    """Whether memory, of the device or of the machine, was what lacked."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()  # torch.OutOfMemoryError, or the CPU allocator's RuntimeError
    return "out of memory" in text or "can't allocate memory" in text


def _free() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def ask_batch(batch: Batch, askers: Mapping[int, Asker], store: FeatureStore, root: Path,
              room: Room) -> list[Row]:
    """Everything that one batch asks, in the order of the records' files."""
    if batch.choices:
        return askers[batch.models[0]].choose(batch.choices)
    fetch = _Fetch(batch.pictures, askers[batch.models[0]].model.handle, store, root)
    return [row for index, entries in zip(batch.models, batch.entries, strict=True) if entries
            for row in room.ask(askers[index], entries, fetch)]


@dataclass
class _Fetch:
    """Features of a batch's pictures: all through the tower together, whoever asks for some."""

    pictures: list[str]
    handle: Any
    store: FeatureStore
    root: Path
    whole: Any = None
    fits: bool = True

    def __call__(self, pictures: list[str]) -> Any:
        if not self.fits:
            return self.store.get(self.handle, self.root, pictures)
        if self.whole is None:
            try:
                self.whole = self.store.get(self.handle, self.root, self.pictures)
            except (RuntimeError, MemoryError) as error:
                self.fits = not out_of_memory(error)
                raise
        place = {picture: row for row, picture in enumerate(self.pictures)}
        return _take(self.whole, [place[picture] for picture in pictures])


def _take(features: Any, rows: list[int]) -> Any:
    if rows == list(range(len(features))):
        return features
    if isinstance(features, list):
        return [features[row] for row in rows]
    return features[rows]


def _numpy(values: Any) -> Scores:
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float64)
