"""What of attention is compiled offline: every frozen row, in the variants that really run.

The cases are recorded from `launch` itself, so they have the types, alignments and constants that
a GPU would see.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from ..offline.cases import CompileCase, Recorded, case_of, record
from . import launch, table
from .alternatives import Key
from .table import Config, Kernel, frozen, is_many_heads

__all__ = ["Variant", "offline_cases", "row_cases", "variants_of"]

ROWS = 1024
HEADS = 12
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

    @property
    def features(self) -> int:
        """How many there are: each costs registers."""
        return self.dropout + self.softcap + self.second + (self.group > 1)

    @property
    def usual(self) -> bool:
        """Whether all else is as most launches have it."""
        return self.aligned and self.dim == 0 and self.dtype != torch.float16

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


def variants_of(key: Key, config: Config) -> list[Variant]:
    """Return the ways in which a row's kernel is launched, the plainest first."""
    kernel, dim, itemsize, _ = key
    tiled = kernel.startswith("tiled")
    plain = Variant(torch.float32 if itemsize == 4 else torch.bfloat16)
    all_of_it = replace(plain, dropout=True, softcap=config.softcap, second=tiled, group=2)
    found = [plain, replace(plain, dropout=True), replace(plain, aligned=False)]
    found += [replace(plain, group=2), replace(plain, dropout=True, group=2)]
    if config.softcap:
        found += [replace(plain, softcap=True)]
    if tiled:
        found += [replace(plain, second=True)]
    if itemsize == 2:
        found += [replace(plain, dtype=torch.float16), replace(all_of_it, dtype=torch.float16)]
    if not kernel.startswith("heads"):
        odd = [other for other in _ODD_DIMS[dim] if tiled or not is_many_heads(other)]
        found += [replace(plain, dim=other) for other in odd]
        found += [replace(all_of_it, dim=other) for other in odd[:1]]
    return list(dict.fromkeys([*found, all_of_it]))


def row_cases(key: Key, config: Config) -> list[CompileCase]:
    """Return the cases of a row that the table holds: the variants in which a launch takes it."""
    kernel, dim, itemsize, tile = key
    found = []
    for variant in variants_of(key, config):
        recorded, taken = _recorded(kernel, variant.dim or dim, tile if tile > 1 else 0, variant)
        if taken is config:
            found.append((recorded, variant))
    most = max((variant.features for _, variant in found), default=0)
    return [
        case_of(
            recorded,
            op="attention",
            expect=config.expect,
            row=key,
            variant=variant.label,
            quick=variant.usual and (variant.features == most or (index == 0 and itemsize == 2)),
        )
        for index, (recorded, variant) in enumerate(found)
    ]


def _recorded(kernel: str, dim: int, tile: int, variant: Variant) -> tuple[Recorded, Config]:
    """Return a kernel's launch and the row of the table that it took."""
    rows: list[Config] = []

    def config(name: Kernel, *arguments: Any, **options: Any) -> Config:
        row = table.config(name, *arguments, **options)
        rows.extend([row] * (name == kernel))
        return row

    with mock.patch.object(launch, "config", config):
        calls = record(lambda: _launch(kernel, dim, tile, variant))
    calls = [call for call in calls if call.fn.__name__ == f"{kernel}_kernel"]
    assert len(calls) == len(rows) == 1, f"{kernel}: {len(calls)} launches of {len(rows)} rows"
    return calls[0], rows[0]


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

    def ends() -> Tensor:
        skip = 0 if variant.aligned else 1
        return torch.empty(rows + skip, dtype=torch.int32)[skip:]

    def second() -> Tensor | None:
        return ends() if variant.second else None

    q, k, v = rows_of_heads(heads), rows_of_heads(kv_heads), rows_of_heads(kv_heads)
    first = (ends(), ends(), second(), second())
    groups = torch.zeros(8, 2, dtype=torch.int32) if tile else None
    seed = torch.zeros(1, dtype=torch.int64) if variant.dropout else None
    scalars = (dim**-0.5, 30.0 if variant.softcap else 0.0, 0.15 if variant.dropout else 0.0, tile)
    if kernel.endswith("_fwd"):
        launch.forward(q, k, v, *first, groups, seed, *scalars)
        return
    out = torch.empty(rows, heads, dim, dtype=variant.dtype)
    lse = torch.empty(heads, rows, dtype=torch.float32)
    transposed = (ends(), ends(), second(), second())
    upstream = torch.empty(out.numel() + 1, dtype=variant.dtype)
    upstream = upstream[: out.numel()] if variant.aligned else upstream[1:]
    launch.backward(
        upstream.view_as(out), q, k, v, out, lse, *first, *transposed, groups, seed, *scalars
    )  # fmt: skip
