"""What of the image op is compiled offline, recorded from the launch code itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from ..offline.cases import CompileCase, case_of, record
from . import augment_triton, sample_triton
from .parameters import CHANGES, Law

__all__ = ["offline_cases"]

EVERYTHING = (1 << len(CHANGES)) - 1
WIDTHS = (0.4, 0.4, 0.4)


@dataclass(frozen=True)
class Variant:
    """One kind of launch."""

    stored: tuple[int, int] = (256, 256)
    size: tuple[int, int] = (224, 224)
    changes: int = EVERYTHING
    dtype: torch.dtype = torch.bfloat16
    layout: str = "nhwc"
    patch: int = 16
    antialias: bool = True

    @property
    def label(self) -> str:
        """Name for people."""
        stored = "x".join(map(str, self.stored))
        words = [f"of {stored}", self.layout + f" {self.patch}" * (self.layout == "patches")]
        words += [str(self.dtype).removeprefix("torch."), f"changes {self.changes:05b}"]
        return " ".join([*words, *(["no antialias"] if not self.antialias else [])])


def _variants() -> Iterator[Variant]:
    for layout in augment_triton.LAYOUTS:
        base = Variant(layout=layout)
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            yield replace(base, dtype=dtype)
        for changes in (0, EVERYTHING & ~2, 2):
            yield replace(base, changes=changes)
        yield replace(base, antialias=False)
        yield replace(base, antialias=False, changes=0)
        yield replace(base, stored=(224, 224))  # nothing shrinks
        for size in ((32, 32), (336, 336), (64, 128), (16, 16)):
            yield replace(base, size=size)
    for size in ((1, 1), (3, 5), (17, 225), (1, 500)):
        for layout in ("nhwc", "nchw"):
            yield Variant(size=size, layout=layout)
    yield Variant(layout="patches", patch=14)
    yield Variant(layout="patches", patch=7, dtype=torch.float32)
    yield Variant(layout="patches", patch=1, size=(5, 5))


def offline_cases() -> list[CompileCase]:
    """Return the cases of all layouts, sizes and changes, and of the draws."""
    found = []
    for variant in dict.fromkeys(_variants()):
        for recorded in record(lambda variant=variant: _launch(variant)):
            found.append(
                case_of(
                    recorded,
                    op="augment",
                    expect="none",
                    row=(recorded.fn.__name__.removesuffix("_kernel"), *variant.size),
                    variant=variant.label,
                    quick=variant in (Variant(), Variant(layout="patches")),
                )
            )
    for area in ((0.2, 1.0), None):
        for sizes in (False, True):
            (recorded,) = record(lambda area=area, sizes=sizes: _sample(area, sizes))
            variant = f"{'no crop' if area is None else 'crop'}{', sizes' * sizes}"
            found.append(
                case_of(recorded, op="augment", expect="none", row=("sample",), variant=variant)
            )
    return found


def _launch(v: Variant) -> None:
    """Call the launch code; nothing is computed, see `record`."""
    images = torch.empty(4, *v.stored, 3, dtype=torch.uint8)
    augment_triton.augment(
        images, torch.empty(4, 10), v.changes, *v.size, [0.485, 0.456, 0.406],
        [0.229, 0.224, 0.225], v.dtype, v.layout, v.patch, v.antialias,
    )  # fmt: skip


def _sample(area: tuple[float, float] | None, sizes: bool) -> None:
    law = Law(area, (3 / 4, 4 / 3), 0.5, WIDTHS, 0.1, 0.2)
    index, seed = torch.zeros(100, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    filled = torch.ones(100, 2, dtype=torch.int64) if sizes else None
    sample_triton.sample(index, seed, filled, 256, 256, law)
