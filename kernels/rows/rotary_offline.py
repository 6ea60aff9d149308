"""What of rotary positions is compiled offline, recorded from the launch code itself."""

from __future__ import annotations

from functools import partial
from itertools import product

import torch

from ..offline.cases import CompileCase, case_of, record
from . import rotary_triton

__all__ = ["offline_cases"]

ROWS = 1024
HEADS = ((12, 12), (32, 4), (8, 1), (16, 0), (2, 2))
"""Of queries and keys; 0: side by side in one tensor."""
DIMS = (8, 24, 64, 80, 128, 256, 20)


def offline_cases() -> list[CompileCase]:
    """Return the cases of every head dimension."""
    found: list[CompileCase] = []
    for (heads, kv), dim, dtype in product(HEADS, DIMS, (torch.bfloat16, torch.float32)):
        angles = (dtype, torch.float32) if dim == 64 else (torch.float32,)
        for inverse, of_angles in product((False, True), dict.fromkeys(angles)):
            if inverse and dim not in (8, 64, 128):
                continue
            (recorded,) = record(partial(_launch, heads, kv, dim, dtype, of_angles, inverse))
            found.append(
                case_of(
                    recorded,
                    op="rotary",
                    expect="none",
                    row=("rotary", dim, heads, kv),
                    variant=f"{str(dtype)[6:]} angles {str(of_angles)[6:]}{' back' * inverse}",
                    quick=heads == 32 and dim == 64,
                )
            )
    return found


def _launch(
    heads: int, kv: int, dim: int, dtype: torch.dtype, angles: torch.dtype, inverse: bool
) -> None:
    projected = torch.empty(ROWS, heads + 2 * kv, dim, dtype=dtype)
    cos, sin = torch.empty(2, ROWS, dim // 2, dtype=angles)
    keys = projected[:, heads : heads + kv] if kv else None
    rotary_triton.turn(projected[:, :heads], keys, cos, sin, inverse)
