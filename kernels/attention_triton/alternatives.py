"""Other configurations of a frozen row, and the way to run one: for measuring, never for users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from unittest import mock

from . import table
from .table import Config

__all__ = ["Key", "alternatives", "override"]

Key = tuple[str, int, int, int]
"""Kernel, padded head dimension, bytes an element, tile (0: tiled path), as in `table.frozen`."""


@contextmanager
def override(rows: Mapping[Key, Config]) -> Iterator[None]:
    """Let launches take these rows in place of the frozen ones."""
    with mock.patch.dict(table._TABLE, rows):
        yield


def alternatives(key: Key, config: Config) -> list[Config]:
    """Return the configurations worth trying for a row; its own comes first."""
    kernel, _, itemsize, tile = key
    exact = itemsize == 4
    heads = (2, 4, 8) if kernel.startswith("heads") else (1,)
    # Fewer than 64 rows a product are no wgmma, fp32 tiles of 64 take minutes to compile.
    blocks = (16, 32, 64) if exact or heads != (1,) else (32, 64, 128)
    if tile > 1:  # 0 and 1 are the tiled path's
        blocks = [block for block in blocks if block <= tile]
        keys = [tile] if kernel != "doc_fwd" or exact or tile < 128 else [tile // 2, tile]
        stages: tuple[int, ...] = (1, 2)
    else:
        keys = (16, 32) if exact else (32, 64, 128)
        stages = (1, 2) if exact else (1, 2, 3, 4)
    found = [config]
    for count, warps, block_q, block_k, stage in product(heads, (2, 4, 8), blocks, keys, stages):
        if heads != (1,) and (not count <= warps <= 2 * count or stage > 1):
            continue
        if heads == (1,) and warps < 4:
            continue
        if exact and (stage > 1 or block_q * block_k > 1024 * (4 if tile > 1 else 1)):
            continue
        one = replace(
            config, block_q=block_q, block_k=block_k, warps=warps, stages=stage, heads=count
        )
        if one not in found:
            found.append(one)
    return found
