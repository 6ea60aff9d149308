"""What a model's tokeniser makes of the texts of a task, read from its file alone: no weights.

A word outside the vocabulary becomes ``<unk>``: with CVCL's 2,350 words, 174 of VTWT's 967
questions hold one, and in 4 both phrases become the same tokens, so that no model can tell them
apart. That is worth knowing before anything is scored.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers

from benchmarks_eval.tasks import Task
from benchmarks_eval.trials import Trial

WRAPPERS = ("no-image", "noise", "shuffled")
"""Specifications that keep another model's texts: ``noise:SPEC``."""


@dataclass(frozen=True)
class Vocabulary:
    """A tokeniser and the id that it gives to what it does not know (None: it spells all)."""

    name: str
    inner: tokenizers.Tokenizer
    unknown: int | None

    @classmethod
    def read(cls, spec: str) -> Vocabulary:
        """The tokeniser of a model: a folder with a ``tokenizer.json``, or that file.

        Args:
            spec: as for ``run --model``, where the model has such a file: a folder,
                ``llava:FOLDER``, or one of these after ``no-image:``, ``noise:``, ``shuffled:``.

        Raises:
            ValueError: no such folder or file, or it is no tokeniser.
        """
        path = Path(_folder(spec))
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise ValueError(
                f"--model {spec}: no tokeniser at {file}; accepted: a model folder "
                f"with a tokenizer.json"
            )
        try:
            text = file.read_text(encoding="utf-8")
            inner = tokenizers.Tokenizer.from_str(text)
            mark = json.loads(text)["model"].get("unk_token")
        except Exception as error:  # the library raises bare Exception on a malformed file
            raise ValueError(
                f"--model {spec}: {file} is no tokeniser ({' '.join(str(error).split())})"
            ) from None
        inner.no_padding()
        inner.no_truncation()
        return cls(spec, inner, inner.token_to_id(mark) if isinstance(mark, str) else None)

    def tokens(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, without special tokens."""
        return tuple(self.inner.encode(text, add_special_tokens=False).ids)

    def unknown_words(self, text: str) -> list[str]:
        """The parts of a text that become ``<unk>``."""
        if self.unknown is None:
            return []
        coded = self.inner.encode(text, add_special_tokens=False)
        return [
            text[start:end].lower()
            for one, (start, end) in zip(coded.ids, coded.offsets, strict=True)
            if one == self.unknown
        ]


@dataclass(frozen=True)
class Coverage:
    """How much of a set of questions a vocabulary holds."""

    questions: int = 0
    unknown: int = 0
    """Questions with an unknown word in a candidate."""
    alike: int = 0
    """Questions with two candidates that become the same tokens: ties by construction."""
    words: Counter[str] = field(default_factory=Counter)
    """Unknown word -> questions with it."""

    def line(self, name: str) -> str:
        """One line for people."""
        said = f"{name}: {self.unknown:,} of {self.questions:,} questions hold an unknown word"
        if self.words:
            common = sorted(self.words.items(), key=lambda pair: (-pair[1], pair[0]))
            shown = ", ".join(f"{word} {count}" for word, count in common[:8])
            said += f" ({len(self.words)} words: {shown}{', ...' if len(common) > 8 else ''})"
        if self.alike:
            said += f"; in {self.alike:,} two candidates become the same tokens"
        return said


def coverage(vocabulary: Vocabulary, task: Task, trials: Sequence[Trial]) -> Coverage:
    """Counts over the texts that a model would be asked about (templates included)."""
    unknown = alike = 0
    words: Counter[str] = Counter()
    for trial in trials:
        shown = [task.render(text) for text in trial.texts]
        missing = {word for one in shown for text in one for word in vocabulary.unknown_words(text)}
        unknown += bool(missing)
        words.update(missing)
        coded = [tuple(vocabulary.tokens(text) for text in one) for one in shown]
        alike += len(set(coded)) < len(coded)
    return Coverage(len(trials), unknown, alike, words)


def _folder(spec: str) -> str:
    kind, colon, rest = spec.partition(":")
    if colon and kind in WRAPPERS:
        return _folder(rest)
    if colon and kind == "llava":
        return rest
    if colon and kind in ("open_clip", "server", "blind"):
        raise ValueError(
            f"--model {spec}: a model of kind '{kind}' has no vocabulary to check; "
            f"accepted: a model folder, llava:FOLDER"
        )
    return spec
