"""What of the embedding gradient is compiled offline, recorded from the launch code itself."""

from __future__ import annotations

from functools import partial
from itertools import product

import torch

from ..offline.cases import CompileCase, case_of, record
from . import embedding_triton

__all__ = ["offline_cases"]

ROWS, WORDS = 1024, 50
COLUMNS = (8, 256, 768, 4096, 100, 765)
"""The last two: no whole words of 16 bytes a row."""
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def offline_cases() -> list[CompileCase]:
    """Return the cases of every width: new gradients and added ones, rows apart or not."""
    found: list[CompileCase] = []
    for columns, dtype, add, apart in product(COLUMNS, DTYPES, (False, True), (False, True)):
        into = (dtype, torch.float32) if add and dtype == torch.bfloat16 else (dtype,)
        for other in into:
            for recorded in record(partial(_launch, columns, dtype, other, add, apart)):
                name = recorded.fn.__name__.removesuffix("_kernel")
                if name == "embedding_merge" and (apart or (dtype != other and columns != 768)):
                    continue  # reads partial sums only
                words = [str(dtype)[6:], *([f"into {str(other)[6:]}"] if add else [])]
                found.append(
                    case_of(
                        recorded,
                        op="embedding",
                        expect="none",
                        row=(name, columns),
                        variant=" ".join([*words, *["strided"] * apart]),
                        quick=columns in (100, 768) and dtype != torch.float16,
                    )
                )
    return found


def _launch(columns: int, dtype: torch.dtype, into: torch.dtype, add: bool, apart: bool) -> None:
    """Call the launch code; nothing is computed, see `record`."""
    grad = torch.empty(ROWS, columns + 8 * apart, dtype=dtype)[:, :columns]
    ids = torch.zeros(ROWS, dtype=torch.int64)
    if add:
        embedding_triton.add(grad, ids, torch.empty(WORDS, columns, dtype=into), -1)
    else:
        embedding_triton.backward(grad, ids, WORDS, -1)
