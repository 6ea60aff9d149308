"""Score records: what a model said about one picture and one text, streamed to JSON lines."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TextIO

from benchmarks_eval.tasks import Normalise


class Key(NamedTuple):
    """What identifies a score of one model. Contrastive scores have no prompt."""

    image: str
    text: str
    prompt: str = ""
    score_eos: bool = False


@dataclass(frozen=True)
class ScoreRecord:
    """One score. Generative: ``logprob_sum`` (nats) over ``num_tokens``; contrastive: ``cosine``.

    Non-finite numbers are kept as NaN in memory and as null on disk: metrics count them.
    """

    key: Key
    logprob_sum: float | None = None
    num_tokens: int | None = None
    cosine: float | None = None

    def score(self, normalise: Normalise) -> float:
        """The figure that candidates are compared by; higher is better, NaN when undefined."""
        if self.cosine is not None:
            return self.cosine
        assert self.logprob_sum is not None and self.num_tokens is not None
        if self.num_tokens <= 0:
            return math.nan
        return self.logprob_sum / self.num_tokens if normalise == "mean" else self.logprob_sum

    def to_json(self) -> dict[str, Any]:
        """A strict-JSON row (no NaN literals)."""
        row: dict[str, Any] = {"image": self.key.image, "text": self.key.text}
        if self.cosine is not None:
            return row | {"cosine": _finite(self.cosine)}
        assert self.logprob_sum is not None
        return row | {"prompt": self.key.prompt, "score_eos": self.key.score_eos,
                      "logprob_sum": _finite(self.logprob_sum), "num_tokens": self.num_tokens}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> ScoreRecord:
        """The inverse of ``to_json`` (null becomes NaN)."""
        if "cosine" in row:
            return cls(Key(row["image"], row["text"]), cosine=_number(row["cosine"]))
        key = Key(row["image"], row["text"], row["prompt"], row["score_eos"])
        return cls(key, _number(row["logprob_sum"]), row["num_tokens"])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


class JsonLines:
    """Streams rows to ``<path>.part`` and gives the file its name when the block ends well.

    A killed run leaves only the ``.part`` file; the next run starts it anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = path.with_name(path.name + ".part")
        self._file: TextIO | None = None

    def __enter__(self) -> JsonLines:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._part.open("w", encoding="utf-8")
        return self

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Appends rows and hands them to the operating system."""
        assert self._file is not None
        self._file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
                              for row in rows)
        self._file.flush()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        assert self._file is not None
        if kind is None:
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            os.replace(self._part, self.path)
        else:
            self._part.unlink(missing_ok=True)


def read_scores(path: str | Path) -> dict[Key, ScoreRecord]:
    """All records of a file by key.

    Raises:
        ValueError: a line is not a score record (file and line are named).
    """
    records: dict[Key, ScoreRecord] = {}
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = ScoreRecord.from_json(json.loads(line))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: not a score record: {error!r}") from None
            records[record.key] = record
    return records


def write_atomically(path: Path, text: str) -> None:
    """Writes a whole file under a temporary name, syncs it and renames it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
