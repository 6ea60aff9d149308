"""Which tile shapes each attention kernel runs with: frozen, so that no user's step is a search.

A row is keyed by kernel, padded head dimension, element size and (whole-document kernels) tile.
The reasons are counts of the compiler for sm_90 (``python -m kernels.offline`` prints them):
registers a thread, resident warps, shared memory; none may spill in any of its variants (dropout,
soft cap, grouped queries, branches). ``python -m kernels.tune`` measures alternatives on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

__all__ = ["Config", "config", "document_tile", "frozen", "is_many_heads", "padded_dim"]

Kernel = Literal[
    "doc_fwd", "doc_bwd", "heads_fwd", "heads_bwd", "tiled_fwd", "tiled_dq", "tiled_dkv"
]
TILES = (64, 128, 256)


@dataclass(frozen=True)
class Config:
    """How one kernel is compiled: blocks in rows, Triton's warps and pipeline stages."""

    block_q: int
    block_k: int
    """Key rows of a tile; on the document paths those of one product (the tile or half of it)."""
    warps: int
    stages: int = 1
    heads: int = 1
    """Heads side by side in one program (the many-heads path)."""
    expect: Literal["wgmma", "mma.sync", "fma"] = "wgmma"
    """The instruction its products must compile to on sm_90."""
    softcap: bool = True
    """Whether soft-capped scores spill nothing either; else the tiled path serves them."""


# (kernel, padded D, bytes an element, tile; 0 or 1 on the tiled path) -> how it is compiled.
_TABLE: dict[tuple[str, int, int, int], Config] = {
    # Whole documents. At 128 rows and more a query block of 64 keeps scores in registers beside
    # the accumulators; at 256 the forward takes its keys in two spans (255 registers in one) and
    # the backward its queries in 32s (64 spills 624 bytes). Eight warps where four would spill.
    ("doc_fwd", 32, 2, 64): Config(64, 64, 4),
    ("doc_fwd", 32, 2, 128): Config(64, 128, 4),
    ("doc_fwd", 32, 2, 256): Config(64, 128, 4),
    ("doc_fwd", 64, 2, 64): Config(64, 64, 4),
    ("doc_fwd", 64, 2, 128): Config(64, 128, 4),
    ("doc_fwd", 64, 2, 256): Config(64, 128, 4),
    ("doc_fwd", 128, 2, 64): Config(64, 64, 4),
    ("doc_fwd", 128, 2, 128): Config(64, 128, 4),
    ("doc_bwd", 32, 2, 64): Config(64, 64, 4),
    ("doc_bwd", 32, 2, 128): Config(64, 128, 8),
    ("doc_bwd", 32, 2, 256): Config(64, 256, 8, softcap=False),
    ("doc_bwd", 64, 2, 64): Config(32, 64, 4),
    ("doc_bwd", 64, 2, 128): Config(64, 128, 8),
    ("doc_bwd", 64, 2, 256): Config(32, 256, 8, softcap=False),
    ("doc_bwd", 128, 2, 64): Config(32, 64, 8),
    ("doc_bwd", 128, 2, 128): Config(32, 128, 8),
    # One warp a head, four heads (64 or 128 bytes of a row) a program: three to four programs fit
    # a multiprocessor where eight heads in eight warps leave one or two.
    ("heads_fwd", 8, 2, 64): Config(32, 64, 4, heads=4, expect="mma.sync"),
    ("heads_fwd", 8, 2, 128): Config(16, 128, 4, heads=4, expect="mma.sync"),
    ("heads_fwd", 8, 2, 256): Config(16, 256, 4, heads=4, expect="mma.sync"),
    ("heads_fwd", 16, 2, 64): Config(32, 64, 4, heads=4, expect="mma.sync"),
    ("heads_fwd", 16, 2, 128): Config(16, 128, 4, heads=4, expect="mma.sync"),
    ("heads_fwd", 16, 2, 256): Config(16, 256, 4, heads=4, expect="mma.sync"),
    ("heads_bwd", 8, 2, 64): Config(16, 64, 4, heads=4, expect="mma.sync"),
    ("heads_bwd", 8, 2, 128): Config(16, 128, 4, heads=4, expect="mma.sync", softcap=False),
    ("heads_bwd", 16, 2, 64): Config(16, 64, 4, heads=4, expect="mma.sync"),
    # Tiled: 128 queries in eight warps leave room for two programs of three-stage copies at D 64.
    ("tiled_fwd", 16, 2, 0): Config(128, 64, 8, 3),
    ("tiled_fwd", 32, 2, 0): Config(128, 64, 8, 3),
    ("tiled_fwd", 64, 2, 0): Config(128, 64, 8, 3),
    ("tiled_fwd", 128, 2, 0): Config(128, 64, 8, 3),
    ("tiled_dq", 16, 2, 0): Config(64, 64, 4, 2),
    ("tiled_dq", 32, 2, 0): Config(64, 64, 4, 2),
    ("tiled_dq", 64, 2, 0): Config(64, 64, 4, 2),
    ("tiled_dq", 128, 2, 0): Config(128, 64, 8, 2),
    ("tiled_dkv", 16, 2, 0): Config(64, 64, 4, 2),
    ("tiled_dkv", 32, 2, 0): Config(64, 64, 4, 2),
    ("tiled_dkv", 64, 2, 0): Config(64, 128, 8, 2),
    ("tiled_dkv", 128, 2, 0): Config(32, 128, 8, 2),
    # Heavy (tile 1): soft cap, branches or (dK, dV) grouped queries, which the rows above hold only
    # by spilling.
    ("tiled_dq", 128, 2, 1): Config(128, 32, 8, 2),
    ("tiled_dkv", 16, 2, 1): Config(32, 64, 4, 2),
    ("tiled_dkv", 32, 2, 1): Config(32, 64, 4, 2),
    ("tiled_dkv", 64, 2, 1): Config(32, 128, 8, 1),
    ("tiled_dkv", 128, 2, 1): Config(32, 64, 8, 1),
    # fp32 multiplies exactly, on the ordinary units: TF32's three-fold form loses bits or spills.
    ("doc_fwd", 32, 4, 64): Config(32, 64, 8, expect="fma"),
    ("doc_fwd", 64, 4, 64): Config(32, 64, 8, expect="fma"),
    ("doc_bwd", 32, 4, 64): Config(16, 64, 4, expect="fma"),
    ("doc_bwd", 64, 4, 64): Config(16, 64, 8, expect="fma"),
    ("heads_fwd", 8, 4, 64): Config(16, 64, 4, heads=4, expect="fma"),
    ("heads_fwd", 16, 4, 64): Config(16, 64, 8, heads=4, expect="fma"),
    ("heads_bwd", 8, 4, 64): Config(16, 64, 8, heads=2, expect="fma"),
    ("heads_bwd", 16, 4, 64): Config(16, 64, 8, heads=4, expect="fma"),
    ("tiled_fwd", 16, 4, 0): Config(32, 32, 4, expect="fma"),
    ("tiled_fwd", 32, 4, 0): Config(16, 32, 4, expect="fma"),
    ("tiled_fwd", 64, 4, 0): Config(32, 32, 4, expect="fma"),
    ("tiled_fwd", 128, 4, 0): Config(32, 16, 8, expect="fma"),
    ("tiled_fwd", 128, 4, 1): Config(16, 32, 16, expect="fma"),
    ("tiled_dq", 16, 4, 0): Config(16, 32, 4, expect="fma"),
    ("tiled_dq", 32, 4, 0): Config(16, 32, 4, expect="fma"),
    ("tiled_dq", 64, 4, 0): Config(16, 32, 4, expect="fma"),
    ("tiled_dq", 128, 4, 0): Config(16, 16, 8, expect="fma"),
    ("tiled_dkv", 16, 4, 0): Config(16, 32, 4, expect="fma"),
    ("tiled_dkv", 32, 4, 0): Config(16, 16, 8, expect="fma"),
    ("tiled_dkv", 64, 4, 0): Config(16, 32, 8, expect="fma"),
    ("tiled_dkv", 128, 4, 0): Config(16, 32, 8, expect="fma"),
    ("tiled_dkv", 128, 4, 1): Config(16, 16, 4, expect="fma"),
}


def is_many_heads(dim: int) -> bool:
    """Whether whole documents of this head dimension take the many-heads kernels."""
    return dim in (8, 16)


def padded_dim(dim: int) -> int:
    """D as the products see it: the next power of two, at least 16."""
    return max(16, 1 << (dim - 1).bit_length())


def _key(kernel: str, dim: int, dtype: torch.dtype, tile: int) -> tuple[str, int, int, int]:
    return kernel, dim if kernel.startswith("heads") else padded_dim(dim), dtype.itemsize, tile


def config(
    kernel: Kernel, dim: int, dtype: torch.dtype, tile: int = 0, *, heavy: bool = False
) -> Config:
    """Return the frozen row of a kernel.

    ``heavy``: on the tiled path with a soft cap, branches or (dK, dV) grouped queries; rows that
    have no second form serve these too.
    """
    key = _key(kernel, dim, dtype, tile)
    return _TABLE.get((*key[:3], 1), _TABLE[key]) if heavy else _TABLE[key]


def document_tile(direction: str, dim: int, dtype: torch.dtype, max_len: int, softcap: bool) -> int:
    """Return the tile that whole documents of ``max_len`` rows fit, 0 where there is none."""
    kernel = f"{'heads' if is_many_heads(dim) else 'doc'}_{direction}"
    for tile in TILES:
        if max_len <= tile:
            row = _TABLE.get(_key(kernel, dim, dtype, tile))
            return tile if row is not None and (row.softcap or not softcap) else 0
    return 0


def frozen() -> dict[tuple[str, int, int, int], Config]:
    """Return all rows: ``(kernel, padded D, bytes an element, tile)`` to configuration."""
    return dict(_TABLE)
