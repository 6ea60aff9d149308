"""What of the losses over all pairs is compiled offline: every frozen row, in every variant.

The cases are recorded from the launches themselves, so they have the types, alignments and
constants that a GPU would see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from ..offline.cases import CompileCase, Recorded, case_of, record
from . import contrastive_launch, sigmoid_launch
from .common import Positives
from .launch import Kernel, frozen, table_key

__all__ = ["offline_cases"]

ROWS = 9000
"""Several blocks of weights, so that sums have second halves."""
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_ROW_KERNELS = get_args(Kernel)


@dataclass(frozen=True)
class Variant:
    """One way in which a loss is asked for."""

    dtype: torch.dtype = torch.bfloat16
    dim: int = 512
    rows: int = ROWS
    labels: bool = False
    wants: tuple[bool, bool] = (True, True)
    """Gradients of image and of text."""
    rank: bool = False
    """A block of rows from an odd one on, upstream gradients of all ranks, dtext in fp32."""
    quick: bool = True

    @property
    def label(self) -> str:
        """Name for people."""
        parts = [str(self.dtype).removeprefix("torch."), f"D={self.dim}"]
        parts += ["one block"] * (self.rows < ROWS) + ["labels"] * self.labels
        parts += ["no dimage"] * (not self.wants[0]) + ["no dtext"] * (not self.wants[1])
        return " ".join(parts + ["rank"] * self.rank)


def _variants() -> Iterator[Variant]:
    for dtype in _DTYPES:
        yield Variant(dtype)
        yield Variant(dtype, labels=True, rank=True)
        yield Variant(dtype, dim=64, labels=True, quick=False)
        yield Variant(dtype, dim=128, quick=False)
    for dtype in (torch.bfloat16, torch.float32):
        yield Variant(dtype, rank=True, quick=False)
        yield Variant(dtype, labels=True, rows=500, quick=False)
        yield Variant(dtype, dim=128, rows=500, quick=False)
        yield Variant(dtype, wants=(False, False), quick=False)
        yield Variant(dtype, wants=(False, False), labels=True, rank=True, quick=False)
    yield Variant(dim=64, rows=500, rank=True, quick=False)
    yield Variant(wants=(True, False), quick=False)
    yield Variant(wants=(False, True), quick=False)


def offline_cases() -> list[CompileCase]:
    """Return the cases of both losses, each compilation once."""
    found: dict[Any, CompileCase] = {}
    for variant in _variants():
        for op, launch in (("contrastive_loss", _contrastive), ("sigmoid_loss", _sigmoid)):
            for recorded in record(lambda launch=launch, variant=variant: launch(variant)):
                found.setdefault(_key(recorded), _case(op, variant, recorded))
    return list(found.values())


def _key(recorded: Recorded) -> Any:
    parts = (recorded.signature, recorded.constexprs, recorded.attrs, recorded.options)
    return recorded.fn.__name__, *(repr(sorted(part.items(), key=repr)) for part in parts)


def _case(op: str, variant: Variant, recorded: Recorded) -> CompileCase:
    kernel = recorded.fn.__name__.removesuffix("_kernel")
    expect: Any = "none"
    row: tuple[str | int, ...] = (kernel,)
    if kernel in _ROW_KERNELS:
        row = table_key(kernel, variant.dtype, variant.dim)
        expect = frozen()[row].expect
    return case_of(
        recorded, op=op, expect=expect, row=row, variant=variant.label, quick=variant.quick
    )


def _inputs(variant: Variant) -> tuple[Tensor, Tensor, Tensor, Tensor | None, int, int]:
    """Image, text, a scalar, all ids, the first row's column and the rows of all ranks."""
    first = 3 if variant.rank else 0
    rows = variant.rows - 2 * first
    image = torch.empty(rows, variant.dim, dtype=variant.dtype)
    text = torch.empty(variant.rows, variant.dim, dtype=variant.dtype)
    ids = torch.empty(variant.rows, dtype=torch.int32) if variant.labels else None
    return image, text, torch.empty(1), ids, first, variant.rows


def _contrastive(variant: Variant) -> None:
    image, text, one, ids, first, count = _inputs(variant)
    own = slice(first, first + image.shape[0])
    positives = None
    if ids is not None:
        shares = torch.empty(count)
        positives = Positives(ids[own], ids, shares[own])
    rows, columns = contrastive_launch.statistics(image, text, one, positives, first)
    contrastive_launch.loss(rows, columns, first, count)
    ranks: dict[str, Any] = {}
    if variant.rank:
        ranks = {"row_weight": torch.empty(2)[1:], "column_weights": torch.empty(count)}
        ranks["text_dtype"] = torch.float32
    contrastive_launch.gradients(
        one, image, text, one, positives, rows, columns, first, count, *variant.wants, **ranks
    )


def _sigmoid(variant: Variant) -> None:
    image, text, one, ids, first, count = _inputs(variant)
    row_ids = None if ids is None else ids[first : first + image.shape[0]]
    text_dtype = torch.float32 if variant.rank else None
    _, dimage, dtext, _ = sigmoid_launch.forward(
        image, text, one, one, row_ids, ids, first, count, True, *variant.wants, text_dtype
    )
    sigmoid_launch.rescale(dimage, dtext, one, image.dtype)
    if not any(variant.wants):
        sigmoid_launch.forward(
            image, text, one, one, row_ids, ids, first, count, False, False, False
        )
