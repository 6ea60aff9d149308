"""The embedding gradient: words as in text and one word all the time, cases, truth and work.

Bound by memory. Legend: T rows, N columns, V words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from .cases import Case, Inputs, Op, Part, Scale, Work, register_case, register_op

__all__ = ["OP", "Words", "WordsInputs", "probabilities"]

OP = "embedding"
_DENSE = torch.ops.aten.embedding_dense_backward


@dataclass(frozen=True)
class Words:
    """T rows of N columns for V words; ``tied``: added to a gradient that is there."""

    rows: int
    columns: int
    words: int
    kind: Literal["text", "one word"] = "text"
    tied: bool = False

    def __str__(self) -> str:
        """Describe it in one line."""
        more = ", added to a gradient" * self.tied
        return f"{self.rows:,} rows × {self.columns:,}, {self.words:,} words, {self.kind}{more}"


@dataclass(eq=False)
class WordsInputs(Inputs):
    """The table as leaf, words ``[T]`` and the gradient ``[V, N]`` that others are added to."""

    ids: Tensor
    before: Tensor


def probabilities(spec: Words) -> Tensor:
    """Return the probability of each word: Zipf's law, or all on one."""
    if spec.kind == "one word":
        return torch.eye(1, spec.words)[0].double()
    weights = 1.0 / torch.arange(1, spec.words + 1, dtype=torch.float64)
    return weights / weights.sum()


def _build(spec: Words, device: torch.device, dtype: torch.dtype, seed: int) -> WordsInputs:
    host = torch.Generator().manual_seed(seed)
    ids = torch.multinomial(probabilities(spec), spec.rows, replacement=True, generator=host)
    # Frequent words have no small numbers in real vocabularies.
    ids = torch.randperm(spec.words, generator=host)[ids].to(device)
    generator = torch.Generator(device=device).manual_seed(seed)

    def draw(rows: int) -> Tensor:
        return torch.randn(rows, spec.columns, generator=generator, device=device).to(dtype)

    weight = draw(spec.words).requires_grad_()
    return WordsInputs(spec, {"weight": weight}, draw(spec.rows), ids, draw(spec.words))


def _parts(inputs: WordsInputs, _: bool) -> Sequence[Part]:
    def truth(dtype: torch.dtype) -> dict[str, Tensor]:
        assert inputs.upstream is not None
        grad = _DENSE(inputs.upstream.to(dtype), inputs.ids, inputs.spec.words, -1, False)
        return {"dweight": grad + inputs.before.to(dtype) if inputs.spec.tied else grad}

    return [Part("all words", truth, lambda _, x: x)]


def _work(spec: Words, dtype: torch.dtype) -> dict[str, Work]:
    """Rows and words in; out the whole table, or read and written the rows of words that occur."""
    row = spec.columns * dtype.itemsize
    given = spec.rows * (row + 8)
    if not spec.tied:
        return {"bwd": Work(given + spec.words * row, 0)}
    p = probabilities(spec)
    occur = float((1.0 - (1.0 - p) ** spec.rows).sum())  # expected
    return {"bwd": Work(given + 2 * round(occur) * row, 0)}


def _case(name: str, doc: str, spec: Words) -> None:
    def described(scale: Scale) -> Words:
        if scale == "full":
            return spec
        if scale == "small":
            return replace(spec, rows=3000, words=500)
        return replace(spec, rows=100, columns=min(spec.columns, 64), words=30)

    register_case(Case(OP, name, doc, described))


register_op(Op(OP, "the gradient of an embedding table", ("bwd",), _build, _parts, _work))
_case("EMB-768", "words as in text", Words(65_536, 768, 50_304))
_case("EMB-768-one", "padding everywhere", Words(65_536, 768, 50_304, "one word"))
_case("EMB-768-tied", "added to the output layer's", Words(65_536, 768, 50_304, tied=True))
_case("EMB-256", "a small model", Words(65_536, 256, 50_304))
_case("EMB-256-2350", "and a small vocabulary", Words(65_536, 256, 2350))
