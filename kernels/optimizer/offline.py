"""What of AdamW is compiled offline, recorded from the launch code itself."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch

from ..offline.cases import CompileCase, case_of, record
from . import adamw_triton
from .tables import Hyper, Tensors, tables_of

__all__ = ["offline_cases"]

_FP32, _FP16, _BF16 = torch.float32, torch.float16, torch.bfloat16
KINDS = (
    (_FP32, _FP32, False),
    (_BF16, _BF16, False),
    (_FP16, _FP16, False),
    (_BF16, _BF16, True),
    (_BF16, _FP32, True),
    (_FP16, _FP16, True),
)
"""Dtypes of parameters and gradients, and whether there are masters."""


@dataclass(frozen=True)
class Variant:
    """One way in which a step is launched."""

    groups: int = 2
    clip: bool = True
    skip: bool = True
    rates: bool = False
    """Learning rates on the device."""

    @property
    def label(self) -> str:
        """Name for people."""
        names = [name for name in ("clip", "skip", "rates") if getattr(self, name)]
        return " ".join([f"{self.groups} groups", *names])


VARIANTS = (
    Variant(),
    Variant(clip=False, skip=False),
    Variant(skip=False),
    Variant(clip=False),
    Variant(rates=True),
    Variant(groups=1, clip=False, skip=False),
    Variant(groups=12),
)


def offline_cases() -> list[CompileCase]:
    """Return the cases of all dtypes and variants."""
    found: list[CompileCase] = []
    for (param, grad, master), variant in product(KINDS, VARIANTS):
        for recorded in record(lambda p=param, g=grad, m=master, v=variant: _launch(p, g, m, v)):
            name = recorded.fn.__name__.removesuffix("_kernel")
            if name == "adamw_norm" and variant != VARIANTS[0]:
                continue  # has no variants
            kinds = [f"{str(param)[6:]}", *([f"gradients {str(grad)[6:]}"] * (grad != param))]
            found.append(
                case_of(
                    recorded,
                    op="adamw",
                    expect="none",
                    row=(name, " ".join([*kinds, *["masters"] * master])),
                    variant=variant.label if name == "adamw" else "base",
                    quick=variant in VARIANTS[:2],
                )
            )
    return found


def _launch(param: torch.dtype, grad: torch.dtype, master: bool, variant: Variant) -> None:
    """Call the launch code; nothing is computed, see `record`."""
    main = _FP32 if master else param
    shape = (variant.groups, 64)

    def rows(dtype: torch.dtype) -> list[torch.Tensor]:
        return list(torch.empty(shape, dtype=dtype))

    tensors = Tensors(
        rows(param), rows(grad), rows(main), rows(main), [torch.zeros(())] * variant.groups,
        list(rows(_FP32)) if master else [None] * variant.groups, list(range(variant.groups)),
    )  # fmt: skip
    hypers = [Hyper(1e-3, 0.9, 0.95, 1e-8, 0.1)] * variant.groups
    rates = [torch.zeros(()) for _ in hypers] if variant.rates else None
    limit = 1.0 if variant.clip else None
    adamw_triton.step(tables_of(tensors), hypers, rates, limit, variant.skip)
