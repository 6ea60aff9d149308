"""Score records: what a model said about one picture and one text."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks_eval.options import Rule


class Key(NamedTuple):
    """What identifies a score of one model. Contrastive scores have no prompt.

    ``image`` "" is no picture: the text-only prior of a generative model. ``among`` are the options
    that a model was shown together (letters only: their shares mean nothing apart).
    """

    image: str
    text: str
    prompt: str = ""
    score_eos: bool = False
    among: tuple[str, ...] = ()


class Ask(NamedTuple):
    """How a caption is to be generated."""

    prompt: str
    max_new_tokens: int


@dataclass(frozen=True)
class ScoreRecord:
    """One score. Generative: ``logprob_sum`` (nats) over ``num_tokens``; contrastive: ``cosine``;
    letters: ``share`` of the answers.

    Non-finite numbers are kept as NaN in memory and as null on disk: metrics count them.
    """

    key: Key
    logprob_sum: float | None = None
    num_tokens: int | None = None
    cosine: float | None = None
    share: float | None = None

    @property
    def num_chars(self) -> int:
        """Characters of the text as it was scored."""
        return len(self.key.text)

    def score(self, rule: Rule, prior: ScoreRecord | None = None) -> float:
        """The figure that candidates are compared by; higher is better, NaN when undefined.

        Args:
            rule: how log-likelihoods are compared; cosines and shares are taken as they are.
            prior: the record of the same text without a picture (pmi with ``alpha`` above 0).
        """
        if self.cosine is not None:
            return self.cosine
        if self.share is not None:
            return self.share
        assert self.logprob_sum is not None and self.num_tokens is not None
        if self.num_tokens <= 0:
            return math.nan
        if rule.normalise == "mean":
            return self.logprob_sum / self.num_tokens
        if rule.normalise == "char":
            return self.logprob_sum / self.num_chars if self.num_chars else math.nan
        if rule.normalise == "sum" or rule.alpha == 0:
            return self.logprob_sum
        assert prior is not None and prior.logprob_sum is not None
        return self.logprob_sum - rule.alpha * prior.logprob_sum

    def to_json(self) -> dict[str, Any]:
        """A strict-JSON row (no NaN literals)."""
        row: dict[str, Any] = {"image": self.key.image, "text": self.key.text}
        if self.cosine is not None:
            return row | {"cosine": finite(self.cosine)}
        if self.share is not None:
            return row | {"prompt": self.key.prompt, "among": list(self.key.among),
                          "share": finite(self.share)}
        assert self.logprob_sum is not None
        return row | {"prompt": self.key.prompt, "score_eos": self.key.score_eos,
                      "logprob_sum": finite(self.logprob_sum), "num_tokens": self.num_tokens}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> ScoreRecord:
        """The inverse of ``to_json`` (null becomes NaN)."""
        if "cosine" in row:
            return cls(Key(row["image"], row["text"]), cosine=_number(row["cosine"]))
        if "share" in row:
            key = Key(row["image"], row["text"], row["prompt"], among=tuple(row["among"]))
            return cls(key, share=_number(row["share"]))
        key = Key(row["image"], row["text"], row["prompt"], row["score_eos"])
        return cls(key, _number(row["logprob_sum"]), row["num_tokens"])


def finite(value: float) -> float | None:
    """The value, or None (null on disk) for NaN and infinities."""
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def read_scores(path: str | Path) -> dict[Key, ScoreRecord]:
    """All records of a file by key.

    Raises:
        ValueError: no such file, or a line is not a score record (file and line are named).
    """
    records: dict[Key, ScoreRecord] = {}
    for number, row in _rows(Path(path)):
        try:
            record = ScoreRecord.from_json(row)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: not a score record: {error!r}") from None
        records[record.key] = record
    return records


def caption_row(image: str, ask: Ask, caption: str) -> dict[str, Any]:
    """A line of ``captions.jsonl``."""
    return {"image": image, "prompt": ask.prompt, "max_new_tokens": ask.max_new_tokens,
            "caption": caption}


def read_captions(path: str | Path) -> dict[tuple[str, Ask], str]:
    """All generated captions of a file by picture and question.

    Raises:
        ValueError: no such file, or a line is not a caption (file and line are named).
    """
    captions: dict[tuple[str, Ask], str] = {}
    for number, row in _rows(Path(path)):
        try:
            ask = Ask(row["prompt"], row["max_new_tokens"])
            captions[row["image"], ask] = str(row["caption"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: not a caption: {error!r}") from None
    return captions


def _rows(path: Path) -> Iterable[tuple[int, Any]]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: not JSON: {error}") from None


def json_line(row: dict[str, Any]) -> str:
    """One line of strict JSON."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def write_atomically(path: Path, text: str | Iterable[str]) -> None:
    """Writes a whole file under a temporary name, syncs it and renames it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.writelines([text] if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
