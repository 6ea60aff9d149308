"""Published figures, to lay beside a run: ``published.yaml`` with sources and certainty."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FILE = Path(__file__).with_name("published.yaml")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Source(_Section):
    """Where figures were published and where they were read."""

    title: str
    where: str
    read_in: str
    """What was actually read: the source, or who says what is in it."""


class Benchmark(_Section):
    """Which of our figures a published one is comparable with."""

    suite: str
    task: str
    figures: tuple[str, ...] = Field(min_length=1)
    """Names in ``results.json``; any of them measures the same."""
    chance: float = Field(ge=0, lt=1)


class Entry(_Section):
    """One model's published figures."""

    model: str
    training: str
    kind: Literal["contrastive", "generative", "letters", "blind"]
    source: str
    certainty: Literal["read", "secondary", "derived"]
    scorer: str
    values: dict[str, float] = Field(min_length=1)
    """Benchmark to figure, 0 to 1."""
    digits: int = Field(default=3, ge=1)
    """Digits after the point as printed."""
    note: str = ""


class Published(_Section):
    """The whole file."""

    version: int
    sources: dict[str, Source]
    scorers: dict[str, str]
    tasks: dict[str, Benchmark]
    figures: tuple[Entry, ...]

    @model_validator(mode="after")
    def _check(self) -> Published:
        for entry in self.figures:
            name = f"figures of '{entry.model}' ({entry.training})"
            for what, key, known in (("source", entry.source, self.sources),
                                     ("scorer", entry.scorer, self.scorers)):
                if key not in known:
                    raise ValueError(f"{name}: unknown {what} '{key}'; "
                                     f"accepted: {', '.join(known)}")
            for task, value in entry.values.items():
                if task not in self.tasks:
                    raise ValueError(f"{name}: unknown task '{task}'; "
                                     f"accepted: {', '.join(self.tasks)}")
                if not 0 <= value <= 1:
                    raise ValueError(f"{name}: {task} is {value}, not 0 to 1")
        return self


@dataclass(frozen=True)
class PublishedFigure:
    """One published number, ready to stand in a table."""

    model: str
    training: str
    kind: str
    task: str
    value: float
    digits: int
    certainty: str
    source: str
    """Where it was published."""
    read_in: str
    scorer: str
    note: str


def load_published(path: str | Path = FILE) -> Published:
    """Reads and checks the file.

    Raises:
        ValueError: malformed (file and key are named).
    """
    path = Path(path)
    try:
        return Published.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{path}: {where + ': ' if where else ''}{message}") from None


def published_figures(suite: str, task: str, figure: str,
                      published: Published | None = None) -> list[PublishedFigure]:
    """What others report for one of our figures, in the file's order.

    Args:
        suite: name of the task file, as in ``results.json``.
        task: name of the task.
        figure: name of the figure.
        published: another file's content.
    """
    found = published or load_published()
    names = [name for name, one in found.tasks.items()
             if (one.suite, one.task) == (suite, task) and figure in one.figures]
    return list(_rows(found, names))


def _rows(found: Published, names: Iterable[str]) -> Iterable[PublishedFigure]:
    wanted = set(names)
    for entry in found.figures:
        source = found.sources[entry.source]
        for name in entry.values:
            if name in wanted:
                yield PublishedFigure(
                    entry.model, entry.training, entry.kind, found.tasks[name].task,
                    entry.values[name], entry.digits, entry.certainty, source.where,
                    source.read_in, found.scorers[entry.scorer], entry.note)
