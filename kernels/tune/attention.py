"""Attention's frozen table, for the search."""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from .tunable import Problem, Tunable

if TYPE_CHECKING:
    from ..bench.peers import Run
    from ..offline import CompileCase

__all__ = ["Attention", "problem"]

TOKENS = 65_536
LONG = 4096


def problem(key: Any) -> Any:
    """Return the packed row on which a row of the table is timed (`bench.attention_cases`)."""
    from ..bench.attention_cases import Packed

    _, dim, _, tile = key
    heads = max(1, 768 // dim) if dim < 64 else 12
    if tile in (0, 1):  # long documents, causal
        return Packed((LONG,) * (TOKENS // LONG // 2), heads=max(1, 1024 // dim), dim=dim)
    rows = tile - tile // 10
    lengths = (*[rows] * (TOKENS // rows), TOKENS % rows)
    return Packed(lengths, heads=heads, dim=dim, prefix=rows * 4 // 5)


def _run(softcap: float | None, inputs: Any) -> Run:
    from .. import attention
    from ..bench.attention_peers import forced, named
    from ..bench.peers import Run, grads_of

    q, k, v = inputs.leaves

    def forward() -> torch.Tensor:
        out = attention(q, k, v, inputs.intervals, softcap=softcap)
        assert isinstance(out, torch.Tensor)
        return out

    around = partial(forced, "attention", "triton")
    return Run(inputs, forward, grads_of(inputs), named, around=around)


class Attention(Tunable):
    """Keys: kernel, padded head dimension, bytes an element, tile (0, 1: tiled path)."""

    op = "attention"
    kernels: ClassVar = (
        "doc_fwd", "doc_bwd", "heads_fwd", "heads_bwd", "tiled_fwd", "tiled_dq", "tiled_dkv",
    )  # fmt: skip

    def table(self) -> MutableMapping[Any, Any]:
        """Return the table."""
        from ..attention_triton import table

        return table._TABLE

    def frozen(self) -> dict[Any, Any]:
        """Return all rows."""
        from ..attention_triton.table import frozen

        return {**frozen()}

    def parts(self, key: Any) -> dict[str, str | int]:
        """Name the parts of a key."""
        return dict(zip(("kernel", "dim", "bytes", "tile"), key, strict=True))

    def alternatives(self, key: Any, config: Any) -> list[Any]:
        """Return other blocks, warps, stages and heads."""
        from ..attention_triton.alternatives import alternatives

        return [*alternatives(key, config)]

    def cases(self, key: Any, config: Any) -> list[CompileCase]:
        """Return the variants in which a launch takes the row."""
        from ..attention_triton.offline import row_cases

        return row_cases(key, config)

    def problem(self, key: Any) -> Problem:
        """Return documents that fill the tile, or long ones."""
        mode = "fwd" if key[0].endswith("fwd") else "bwd"
        softcap = 30.0 if key[3] == 1 else None  # what the rows of tile 1 are for
        return Problem(
            "attention", "", mode, key[2], spec=problem(key), make=partial(_run, softcap)
        )
