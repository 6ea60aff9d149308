"""The plan of a run: every distinct question once, grouped by picture, cut into batches.

It is a pure function of the tasks, the data, the options and the models, so every rank makes the
same one, and ``plan.json`` tells whether what an earlier run left behind can be gone on with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks_eval.options import Options
from benchmarks_eval.records import Ask, Key, write_atomically
from benchmarks_eval.tasks import Task
from benchmarks_eval.trials import Trial

FILE = "plan.json"
TOKEN_BUDGET = 16_384
"""Positions a batch may take, estimated before any tokeniser is known."""
MOST_PICTURES = 128
"""Pictures of a batch at most: what a killed run may have to do again."""
CHOICES = 8
"""Questions of a batch to a chat model."""
CHARS_PER_TOKEN = 4
PREFIX_TOKENS = 256
"""Positions of a picture where a model does not say (``prefix_tokens``)."""


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model without loading it."""

    name: str
    path: str
    kind: str
    file_name: str
    tower_hash: str
    weights_hash: str
    prefix_tokens: int = PREFIX_TOKENS
    generates: bool = False
    """Whether it writes captions."""

    @classmethod
    def of(cls, model: Any) -> ModelInfo:
        """The facts of a loaded ``benchmarks_eval.models.Model``."""
        handle = model.handle
        return cls(model.name, model.path, model.kind, model.file_name, handle.tower_hash,
                   handle.weights_hash, int(getattr(handle, "prefix_tokens", PREFIX_TOKENS)),
                   model.kind != "contrastive" and hasattr(handle, "generate"))


@dataclass
class Wants:
    """What one model has to say about every picture, without repeats."""

    info: ModelInfo
    keys: dict[str, set[Key]] = field(default_factory=dict)
    """Picture -> the scores asked for; "" is no picture."""
    asks: dict[str, set[Ask]] = field(default_factory=dict)
    """Picture -> the captions asked for."""
    choices: set[Choice] = field(default_factory=set)
    """Letters only: what the model is shown together."""
    pairs: int = 0
    """Cells of score matrices, repeats included."""

    def add_trials(self, task: Task, trials: Iterable[Trial], options: Options) -> None:
        """Asks for every cell of the trials' matrices (and for the texts' prior)."""
        prior = self.info.kind == "generative" and options.needs_prior(task)
        for trial in trials:
            if self.info.kind == "letters":
                self.pairs += len(trial.images) * len(trial.texts)
                self.choices.update(choices(task, trial))
                continue
            for image in trial.images:
                wanted = self.keys.setdefault(image, set())
                for text in trial.texts:
                    self.pairs += 1
                    for score_eos in options.recorded_ends(task):
                        found = keys(task, trial, image, text, self.info.kind, score_eos)
                        wanted.update(found)
                        if prior:
                            none = self.keys.setdefault("", set())
                            none.update(key._replace(image="") for key in found)

    def add_caption(self, task: Task, image: str) -> None:
        """Asks for a generated caption of a picture."""
        self.asks.setdefault(image, set()).add(Ask(task.prompt, task.max_new_tokens))

    @property
    def num_keys(self) -> int:
        """Number of distinct scores."""
        return (sum(len(wanted) for wanted in self.keys.values())
                + sum(len(choice.asked()) for choice in self.choices))


class Choice(NamedTuple):
    """A question to a chat model, which names one of the options: texts for one picture, or
    pictures for one text."""

    images: tuple[str, ...]
    texts: tuple[str, ...]
    prompt: str

    def asked(self) -> list[Key]:
        """The records that the answers give, in a fixed order."""
        among = self.texts if len(self.texts) > 1 else self.images
        return [Key(image, text, self.prompt, among=among)
                for image in self.images for text in self.texts]


def choices(task: Task, trial: Trial) -> list[Choice]:
    """A trial as questions to a chat model; options in alphabetical order."""
    texts = tuple(sorted(trial.texts))
    if len(texts) == 1:
        return [Choice(tuple(sorted(trial.images)), texts, task.prompt)]
    return [Choice((image,), texts, task.prompt) for image in trial.images]


def keys(task: Task, trial: Trial, image: str, text: str, kind: str,
         score_eos: bool) -> list[Key]:
    """The records that together give the score of one picture and text: one per template."""
    if kind == "contrastive":
        return [Key(image, shown) for shown in task.render(text)]
    if kind == "letters":
        among = tuple(sorted(trial.texts if len(trial.texts) > 1 else trial.images))
        return [Key(image, text, task.prompt, among=among)]
    return [Key(image, shown, task.prompt, score_eos) for shown in task.render(text)]


@dataclass(frozen=True)
class Entry:
    """What is asked about one picture ("": none), in a fixed order.

    Candidates are in alphabetical order: the right answer has no place of its own.
    """

    image: str
    keys: tuple[Key, ...] = ()
    asks: tuple[Ask, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Pictures that are asked about together by models that share a tower."""

    models: tuple[int, ...]
    entries: tuple[tuple[Entry, ...], ...]
    """For each of the models, what it is asked."""
    choices: tuple[Choice, ...] = ()
    """Or questions to one chat model."""

    @property
    def pictures(self) -> list[str]:
        """The pictures whose features are needed."""
        return sorted({entry.image for own in self.entries for entry in own if entry.image})

    def wanted(self) -> Iterator[tuple[int, Any]]:
        """Model and key of every record that is asked for: a Key, or a picture and its Ask."""
        for index, own in zip(self.models, self.entries, strict=True):
            for entry in own:
                yield from ((index, key) for key in entry.keys)
                yield from ((index, (entry.image, ask)) for ask in entry.asks)
        yield from ((self.models[0], key) for choice in self.choices for key in choice.asked())

    @property
    def num_keys(self) -> int:
        """Scores that are asked for."""
        return sum(isinstance(key, Key) for _, key in self.wanted())

    @property
    def num_captions(self) -> int:
        """Captions that are asked for."""
        return sum(len(entry.asks) for own in self.entries for entry in own)


def cut(wants: Sequence[Wants], batch_size: int | None) -> list[Batch]:
    """Cuts all questions into batches: pictures in order, no text twice for one picture.

    Args:
        wants: what each model is asked. Models with one tower are asked together.
        batch_size: pictures a batch; None: as many as fit the token budget, 128 at most. A picture
            with more candidates than fit the budget is spread over batches of its own.
    """
    towers: dict[str, list[int]] = {}
    for index, want in enumerate(wants):
        towers.setdefault(want.info.tower_hash, []).append(index)
    batches: list[Batch] = []
    for members in towers.values():
        pictures = sorted({image for k in members
                           for image in wants[k].keys.keys() | wants[k].asks.keys()})
        batches += _cut_tower([wants[k] for k in members], tuple(members), pictures, batch_size)
    for index, want in enumerate(wants):
        asked = sorted(want.choices)
        batches += [Batch((index,), ((),), tuple(asked[k:k + CHOICES]))
                    for k in range(0, len(asked), CHOICES)]
    return batches


def _cut_tower(wants: Sequence[Wants], members: tuple[int, ...], pictures: Sequence[str],
               batch_size: int | None) -> list[Batch]:
    batches: list[Batch] = []
    waiting: list[list[Entry]] = []
    used = 0

    def flush() -> None:
        nonlocal used
        if waiting:
            columns = zip(*waiting, strict=True)
            batches.append(Batch(members, tuple(
                tuple(entry for entry in column if entry.keys or entry.asks)
                for column in columns)))
        waiting.clear()
        used = 0

    for image in pictures:
        entries = [Entry(image, tuple(sorted(want.keys.get(image, ()))),
                         tuple(sorted(want.asks.get(image, ())))) for want in wants]
        cost = max(_cost(entry, want) for entry, want in zip(entries, wants, strict=True))
        if not image or cost > TOKEN_BUDGET:
            flush()
            for pieces in _split(entries, wants):
                waiting.append(pieces)
                flush()
            continue
        full = (len(waiting) == batch_size if batch_size is not None
                else used + cost > TOKEN_BUDGET or len(waiting) == MOST_PICTURES)
        if full:
            flush()
        waiting.append(entries)
        used += cost
    flush()
    return batches


def _cost(entry: Entry, want: Wants) -> int:
    if want.info.kind != "generative":
        return 1
    prefix = want.info.prefix_tokens if entry.image else 1
    return (prefix + sum(_tokens(key.text) for key in entry.keys)
            + sum(prefix + ask.max_new_tokens for ask in entry.asks))


def _tokens(text: str) -> int:
    return 1 + len(text) // CHARS_PER_TOKEN


def _split(entries: Sequence[Entry], wants: Sequence[Wants]) -> list[list[Entry]]:
    """One picture's questions in pieces that fit the budget."""
    pieces: list[list[Entry]] = []
    for place, (entry, want) in enumerate(zip(entries, wants, strict=True)):
        own: list[Entry] = []
        chunk: list[Key] = []
        used = prefix = want.info.prefix_tokens if entry.image else 1
        for key in entry.keys:
            if chunk and used + _tokens(key.text) > TOKEN_BUDGET:
                own.append(Entry(entry.image, tuple(chunk)))
                chunk, used = [], prefix
            chunk.append(key)
            used += _tokens(key.text)
        own.append(Entry(entry.image, tuple(chunk), entry.asks))
        for number, piece in enumerate(own):
            if number == len(pieces):
                pieces.append([Entry(entry.image) for _ in entries])
            pieces[number][place] = piece
    return pieces


def digest(value: Any) -> str:
    """SHA-256 of a JSON tree."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """All batches, and the facts that they follow from."""

    infos: list[ModelInfo]
    batches: list[Batch]
    facts: dict[str, Any]
    """``plan.json``: suite, data, options, models, pictures, batches."""

    def write(self, out: Path) -> None:
        """Writes ``plan.json``."""
        write_atomically(out / FILE, json.dumps(self.facts, indent=1, ensure_ascii=False) + "\n")


# What decides the records; the rest of plan.json is for people and for `rescore`.
_DECISIVE = ("suite", "data", "pictures", "options", "models", "batches")


def make_plan(wants: Sequence[Wants], *, suite: Mapping[str, Any], root: Path,
              data: Mapping[str, Any], pictures: Mapping[str, str], options: Options) -> Plan:
    """Cuts the questions and collects the facts.

    Args:
        wants: what every model is asked.
        suite: the task file, as JSON.
        root: data folder (not decisive: data may move).
        data: task -> its file and digests.
        pictures: picture -> SHA-256 of its bytes.
        options: the run's.
    """
    batches = cut(wants, options.batch_size)
    recorded = asdict(options)
    recorded.pop("score")
    shown = [{"models": list(batch.models), "pictures": len(batch.pictures),
              "scores": batch.num_keys, "captions": batch.num_captions} for batch in batches]
    facts: dict[str, Any] = {
        "format": 1,
        "suite": dict(suite),
        "root": str(root),
        "data": dict(data),
        "pictures": {"number": len(pictures), "sha256": digest(dict(pictures))},
        "options": recorded,
        "models": [asdict(want.info) for want in wants],
        "pairs": sum(want.pairs for want in wants),
        "distinct": sum(want.num_keys for want in wants),
        "batches": {"number": len(batches), "sha256": digest([
            [batch.models, [[[e.image, e.keys, e.asks] for e in own] for own in batch.entries],
             batch.choices] for batch in batches]), "sizes": shown},
    }
    return Plan([want.info for want in wants], batches, facts)


def read_plan(out: Path) -> dict[str, Any] | None:
    """The facts of the plan that a folder was filled by; None when there is none.

    Raises:
        ValueError: the file is damaged or of another version.
    """
    path = out / FILE
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(facts, dict) or facts.get("format") != 1:
        raise ValueError(f"{path}: not a plan of this version; --fresh starts anew")
    return facts


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """The first fact in which two plans would record something else, or None."""
    for name in _DECISIVE:
        before, after = _decisive(name, old.get(name)), _decisive(name, new.get(name))
        if before != after:
            if isinstance(before, dict) and isinstance(after, dict):
                odd = sorted(key for key in before.keys() | after.keys()
                             if before.get(key) != after.get(key))
                return f"{name} ({', '.join(odd)})"
            return name
    return None


def _decisive(name: str, value: Any) -> Any:
    value = json.loads(json.dumps(value))  # tuples and lists are one to JSON
    if name == "models" and isinstance(value, list):
        return [{key: entry for key, entry in model.items() if key != "path"} for model in value]
    if name == "suite" and isinstance(value, dict):
        return {key: entry for key, entry in value.items()
                if key not in ("root", "description", "show_pictures")}
    return value
