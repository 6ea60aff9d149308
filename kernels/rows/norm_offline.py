"""What of the norms is compiled offline: every padded width, in the variants that really run.

The cases are recorded from the launch code itself, so they have the types, alignments and constants
that a GPU would see. The launch that adds up partial sums is among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..offline.cases import CompileCase, Recorded, case_of, record
from . import norm_triton

__all__ = ["offline_cases"]

ROWS = 1024
_HALF, _FULL = torch.bfloat16, torch.float32


@dataclass(frozen=True)
class Variant:
    """One way in which a norm is launched."""

    columns: int
    dtype: torch.dtype = _HALF
    weight: torch.dtype | None = None
    """None: dtype."""
    layer: bool = True
    """LayerNorm with bias, else RMSNorm."""
    residual: bool = True
    dropout: bool = True
    last: bool = False
    """Nobody uses the sum: it has no gradient."""
    strided: bool = False
    """Rows of a wider matrix; weights that begin anywhere."""

    @property
    def label(self) -> str:
        """Name for people."""
        parts = [str(self.dtype)[6:], "layer" if self.layer else "rms"]
        parts += [f"weights {str(self.weight)[6:]}"] * (self.weight is not None)
        names = ("residual", "dropout", "last", "strided")
        return " ".join([*parts, *(name for name in names if getattr(self, name))])


def _variants() -> Iterator[Variant]:
    width = 8
    while width <= norm_triton.MAX_COLUMNS:
        for dtype in (_HALF, _FULL):
            heaviest = Variant(width, dtype)
            yield heaviest
            yield replace(heaviest, dropout=False)
            yield replace(heaviest, layer=False, dropout=False, residual=False)
            yield replace(heaviest, dropout=False, residual=False)
            yield replace(heaviest, last=True)
            yield replace(heaviest, strided=True)
            if width > 8:  # neither a power of two nor, the second, a multiple of 8
                yield replace(heaviest, columns=width - 8)
            if 8 < width <= norm_triton.MAX_RAGGED:
                yield replace(heaviest, columns=width - 3)
                yield replace(heaviest, columns=width - 3, strided=True)
        yield Variant(width, torch.float16)
        yield Variant(width, weight=_FULL)
        width *= 2


def offline_cases() -> list[CompileCase]:
    """Return the cases of all widths."""
    return [case for variant in _variants() for case in _cases(variant)]


def _cases(variant: Variant) -> Iterator[CompileCase]:
    for found in record(lambda: _launch(variant)):
        sums = found.fn.__name__ == "column_sums_kernel"
        if sums and (variant.columns != 1024 or not (variant.dropout or variant.strided)):
            continue  # the width is no constant of it
        yield case_of(
            found,
            op="norm",
            expect="none",
            row=_row(found, variant),
            variant=variant.label,
            quick=variant == Variant(variant.columns),
        )


def _row(found: Recorded, variant: Variant) -> tuple[str, int, int]:
    return found.fn.__name__.removesuffix("_kernel"), variant.columns, variant.dtype.itemsize


def _launch(variant: Variant) -> None:
    """Call the launch code; nothing is computed, see `record`."""
    columns, dtype = variant.columns, variant.dtype

    def rows() -> Tensor:
        if not variant.strided:
            return torch.empty(ROWS, columns, dtype=dtype)
        return torch.empty(ROWS, columns + 8, dtype=dtype)[:, :columns]

    skip = 1 if variant.strided else 0
    weight = torch.empty(columns + skip, dtype=variant.weight or dtype)[skip:]
    bias = torch.empty_like(weight) if variant.layer else None
    residual = rows() if variant.residual else None
    seed = torch.zeros(1, dtype=torch.int64) if variant.dropout else None
    p = 0.15 if variant.dropout else 0.0
    _, summed, stats = norm_triton.forward(
        rows(), weight, bias, residual, seed, 1e-5, p, variant.layer
    )
    dsummed = None if summed is None or variant.last else rows()
    norm_triton.backward(
        rows(), dsummed, rows() if summed is None else summed, weight, stats, seed, p,
        variant.layer, variant.layer,
    )  # fmt: skip
