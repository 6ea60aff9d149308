"""What of attention is compiled offline: every frozen row, in the variants that really run.

The cases are recorded from `launch` itself, so they have the types, alignments and constants that
a GPU would see.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..offline.cases import CompileCase, case_of, record
from . import launch
from .alternatives import Key
from .table import Config, frozen, is_many_heads

__all__ = ["Variant", "offline_cases", "row_cases", "variants_of"]

ROWS = 1024
HEADS = 12
HEAVY = 1
"""The tile of rows that serve the tiled path's soft cap and second interval."""
# Head dimensions that a padded dimension also serves.
_ODD_DIMS = {16: (8,), 32: (24,), 64: (40,), 128: (72, 80)}


@dataclass(frozen=True)
class Variant:
    """One way in which a row is launched."""

    dtype: torch.dtype = torch.bfloat16
    dim: int = 0
    """0: that of the row."""
    dropout: bool = False
    softcap: bool = False
    group: int = 1
    """Query heads of one key/value head."""
    second: bool = False
    """With the second interval (branches)."""
    aligned: bool = True
    """False: views that begin anywhere, of odd strides."""
    quick: bool = False

    @property
    def label(self) -> str:
        """Name for people."""
        parts = [
            str(self.dtype).removeprefix("torch.").replace("bfloat", "bf").replace("float", "fp")
        ]
        parts += [f"D={self.dim}"] * bool(self.dim)
        parts += [name for name in ("dropout", "softcap", "second") if getattr(self, name)]
        parts += [f"group={self.group}"] * (self.group > 1)
        parts += ["unaligned"] * (not self.aligned)
        return " ".join(parts)


def variants_of(key: Key, config: Config) -> Iterator[Variant]:
    """Yield the variants in which a row of the frozen table can run.

    A row of tile 1 (`table`) serves the soft cap and the second interval alone; where there is
    none, that of tile 0 serves all.
    """
    kernel, dim, itemsize, tile = key
    dtype = torch.float32 if itemsize == 4 else torch.bfloat16
    tiled = kernel.startswith("tiled")
    heavy = tile == HEAVY
    both = not heavy and (not tiled or (*key[:3], HEAVY) not in frozen())
    plain = Variant(dtype, softcap=heavy)
    softcap = config.softcap and (heavy or both)
    yield replace(plain, quick=True)
    yield replace(plain, dropout=True)
    yield replace(plain, aligned=False)
    if both and softcap:
        yield replace(plain, softcap=True)
    if itemsize == 2:
        yield replace(plain, dtype=torch.float16)
    second = tiled and (heavy or both)
    if second:
        yield Variant(dtype, second=True)
    yield Variant(dtype, dropout=True, softcap=softcap, group=2, second=second, quick=True)
    if not kernel.startswith("heads"):
        for odd in _ODD_DIMS[dim]:
            if tiled or not is_many_heads(odd):
                yield replace(plain, dim=odd)


def row_cases(
    key: Key, config: Config, variants: Iterable[Variant] | None = None
) -> Iterator[CompileCase]:
    """Yield the cases of a row that the table holds."""
    kernel, dim, _, tile = key
    tile = 0 if tile == HEAVY else tile
    for variant in variants_of(key, config) if variants is None else variants:
        found = [
            recorded
            for recorded in record(lambda v=variant: _launch(kernel, v.dim or dim, tile, v))
            if recorded.fn.__name__ == f"{kernel}_kernel"
        ]
        if len(found) != 1:
            raise RuntimeError(f"{key}: its launch made {len(found)} calls of {kernel}_kernel")
        yield case_of(
            found[0],
            op="attention",
            expect=config.expect,
            row=key,
            variant=variant.label,
            quick=variant.quick,
        )


def offline_cases() -> list[CompileCase]:
    """Return the cases of all frozen rows."""
    return [case for key, config in frozen().items() for case in row_cases(key, config)]


def _launch(kernel: str, dim: int, tile: int, variant: Variant) -> None:
    """Call the launch code so that it takes the row (nothing is computed, see `record`)."""
    rows = ROWS if variant.aligned else ROWS + 1
    heads, kv_heads = HEADS, HEADS // variant.group

    def rows_of_heads(count: int) -> Tensor:
        if variant.aligned:
            return torch.empty(rows, count, dim, dtype=variant.dtype)
        flat = torch.empty(rows, count * dim + 1, dtype=variant.dtype)
        return flat[:, 1:].view(rows, count, dim)

    def ends(given: bool = True) -> Tensor | None:
        skip = 0 if variant.aligned else 1
        return torch.empty(rows + skip, dtype=torch.int32)[skip:] if given else None

    q, k, v = rows_of_heads(heads), rows_of_heads(kv_heads), rows_of_heads(kv_heads)
    first = (ends(), ends(), ends(variant.second), ends(variant.second))
    groups = torch.zeros(8, 2, dtype=torch.int32) if tile else None
    seed = torch.zeros(1, dtype=torch.int64) if variant.dropout else None
    scalars = (dim**-0.5, 30.0 if variant.softcap else 0.0, 0.15 if variant.dropout else 0.0, tile)
    if kernel.endswith("_fwd"):
        launch.forward(q, k, v, *first, groups, seed, *scalars)
        return
    out = torch.empty(rows, heads, dim, dtype=variant.dtype)
    lse = torch.empty(heads, rows, dtype=torch.float32)
    transposed = (ends(), ends(), ends(variant.second), ends(variant.second))
    upstream = torch.empty(out.numel() + 1, dtype=variant.dtype)
    upstream = upstream[: out.numel()] if variant.aligned else upstream[1:]
    launch.backward(
        upstream.view_as(out), q, k, v, out, lse, *first, *transposed, groups, seed, *scalars
    )  # fmt: skip
