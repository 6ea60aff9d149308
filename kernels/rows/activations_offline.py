"""What of the activations is compiled offline: every block of columns, in the variants that run.

The cases are recorded from the launch code itself, so they have the types, alignments and constants
that a GPU would see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch
from torch import Tensor

from ..offline.cases import CompileCase, case_of, record
from . import activations_triton

__all__ = ["offline_cases"]

ROWS = 1024
HEAVIEST = ("tanh bias dropout", "erf bias dropout", "packed")
WIDTHS = (8, 16, 64, 128, 3072, 4096, 768, 640, 1000, 1001)
"""Every size of block, with and without a rest, and one where rows begin at any byte."""


def offline_cases() -> list[CompileCase]:
    """Return the cases of all blocks of columns."""
    found: list[CompileCase] = []
    for columns, dtype in product(WIDTHS, (torch.bfloat16, torch.float32, torch.float16)):
        everything = columns == 4096
        if dtype == torch.float16 and not everything:
            continue
        for name, launch in (*_gelu(columns, dtype), *_swiglu(columns, dtype)):
            if not everything and name not in HEAVIEST:
                continue
            variant = f"{str(dtype)[6:]} {name}"
            found += [
                case_of(
                    recorded,
                    op="activations",
                    expect="none",
                    row=(recorded.fn.__name__.removesuffix("_kernel"), columns, dtype.itemsize),
                    variant=variant,
                    quick=everything and name in HEAVIEST,
                )
                for recorded in record(launch)
                if recorded.fn.__name__ != "column_sums_kernel"  # the norms list it
            ]
    return found


def _gelu(columns: int, dtype: torch.dtype) -> Iterator[tuple[str, Callable[[], object]]]:
    for tanh, bias, dropout in product((True, False), repeat=3):
        words = [("erf", "tanh")[tanh], *["bias"] * bias, *["dropout"] * dropout]
        yield " ".join(words), partial(_launch_gelu, columns, dtype, tanh, bias, dropout)
    yield (
        "tanh bias dropout strided, bias float32",
        partial(_launch_gelu, columns, dtype, True, True, True, strided=True),
    )


def _launch_gelu(
    columns: int, dtype: torch.dtype, tanh: bool, bias: bool, dropout: bool, strided: bool = False
) -> None:
    skip = 1 if strided else 0
    x = torch.empty(ROWS, columns + 8 * skip, dtype=dtype)[:, :columns]
    shift = torch.empty(columns + skip, dtype=torch.float32 if strided else dtype)[skip:]
    inputs = (
        x, shift if bias else None, torch.zeros(1, dtype=torch.int64) if dropout else None,
        0.15 if dropout else 0.0, tanh,
    )  # fmt: skip
    activations_triton.gelu_forward(*inputs)
    activations_triton.gelu_backward(x, *inputs)


def _swiglu(columns: int, dtype: torch.dtype) -> Iterator[tuple[str, Callable[[], object]]]:
    def packed() -> None:
        both = torch.empty(ROWS, 2 * columns, dtype=dtype)
        activations_triton.swiglu_backward(
            activations_triton.swiglu_forward(both, None), both, None
        )

    def apart(x: Tensor) -> None:
        activations_triton.swiglu_backward(activations_triton.swiglu_forward(x, x), x, x)

    yield "packed", packed
    yield "apart", partial(apart, torch.empty(ROWS, columns, dtype=dtype))
    yield "strided", partial(apart, torch.empty(ROWS, columns + 8, dtype=dtype)[:, :columns])
