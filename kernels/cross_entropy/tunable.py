"""Linear cross-entropy's frozen tables, for `kernels.tune`: of the row kernel, of the fused one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import mock

import torch

from ..tune.tunable import Problem, Tunable, half_and_double, neighbours
from . import table
from .table import FusedConfig, RowConfig

if TYPE_CHECKING:
    from ..bench.peers import Run
    from ..offline import CompileCase

__all__ = ["CrossEntropy"]

SHARED_BYTES = 227 << 10
"""Of a program, on sm_90."""


def _dressed(inputs: Any) -> Run:
    """Training with a soft cap."""
    from ..bench.attention_peers import forced
    from ..bench.peers import Run, grads_of
    from .public import linear_cross_entropy

    op = "linear_cross_entropy"
    x, weight = inputs.leaves
    return Run(
        inputs,
        lambda: linear_cross_entropy(x, weight, inputs.targets, ignore_index=None, softcap=30.0),
        grads_of(inputs),
        lambda loss, grads: {"loss": loss, "dx": grads[0], "dw": grads[1]},
        around=partial(forced, op, "triton"),
    )


def _weighted(inputs: Any) -> Run:
    """Validation under label smoothing with class weights."""
    from ..bench.attention_peers import forced
    from ..bench.peers import Run
    from .public import linear_cross_entropy

    x, weight = inputs.leaves
    each = torch.linspace(0.5, 1.5, weight.shape[0], device=weight.device)

    @torch.no_grad()
    def forward() -> torch.Tensor:
        return linear_cross_entropy(
            x, weight, inputs.targets, ignore_index=None, label_smoothing=0.1, class_weight=each
        )

    return Run(
        inputs, forward, None, lambda loss, _: {"loss": loss},
        around=partial(forced, "linear_cross_entropy", "triton"),
    )  # fmt: skip


class CrossEntropy(Tunable):
    """Keys: ``("rows", most columns, kind)`` and ``("fused", weighted)``."""

    op = "cross_entropy"
    kernels: ClassVar = ("rows", "fused")

    def table(self) -> MutableMapping[Any, Any]:
        """Return both tables in one; see `override`."""
        rows = {("rows", *key): row for key, row in table.row_frozen().items()}
        return rows | {("fused", key): row for key, row in table.fused_frozen().items()}

    def frozen(self) -> dict[Any, Any]:
        """Return all rows."""
        return dict(self.table())

    @contextmanager
    def override(self, rows: Mapping[Any, Any]) -> Iterator[None]:
        """Let launches take these rows in place of the frozen ones."""
        of_rows = {key[1:]: row for key, row in rows.items() if key[0] == "rows"}
        fused = {key[1]: row for key, row in rows.items() if key[0] == "fused"}
        with mock.patch.dict(table._ROWS, of_rows), mock.patch.dict(table._FUSED, fused):
            yield

    def parts(self, key: Any) -> dict[str, str | int]:
        """Name the parts of a key."""
        if key[0] == "fused":
            return {"kernel": "fused", "kind": "weighted" if key[1] else "plain", "bytes": 2}
        _, most, kind = key
        columns = f"V<={most}" if most < 1 << 31 else "any V"
        itemsize = 4 if kind == "wide" else 2
        return {"kernel": "rows", "columns": columns, "kind": kind, "bytes": itemsize}

    def key_text(self, key: Any) -> str:
        """Return a key as its own table has it."""
        return super().key_text(key[1] if key[0] == "fused" else key[1:])

    def alternatives(self, key: Any, config: Any) -> list[Any]:
        """Return other steps, warps and programs a multiprocessor, or other tiles."""
        if key[0] == "rows":
            return neighbours(
                config,
                _row_allowed,
                block=half_and_double(config.block, 256, 16_384),
                warps=half_and_double(config.warps, 1, 32),
                per_sm=half_and_double(config.per_sm, 1, 32),
            )
        return neighbours(
            config, _fused_allowed, rows=(64, 128, 256), columns=(64, 128, 256),
            depth=(32, 64, 128), warps=(4, 8), stages=(2, 3, 4),
        )  # fmt: skip

    def cases(self, key: Any, config: Any) -> list[CompileCase]:
        """Return what is compiled of the row."""
        from . import offline

        parts = self.parts(key)
        if key[0] == "fused":
            return [
                case
                for case in offline._fused_cases()
                if case.kernel == "cross_entropy_fused" and case.row[1] == parts["kind"]
            ]
        row = (parts["kind"], parts["columns"])
        return [case for case in offline._row_cases() if case.row[1:] == row]

    def problem(self, key: Any) -> Problem:
        """Return training with as many words as the row serves, or scoring."""
        if key[0] == "fused":
            if key[1]:
                return Problem("linear_cross_entropy", "GPT2", "fwd", make=_weighted)
            return Problem("linear_logprobs", "GPT2", "fwd")
        _, most, kind = key
        words = {4_096: 2_350, 16_384: 9_001}.get(most, 50_304)
        return Problem(
            "linear_cross_entropy", "NARROW", "fwd+bwd", 4 if kind == "wide" else 2,
            {"vocab": words}, make=_dressed if kind == "dressed" else None,
        )  # fmt: skip


def _row_allowed(config: RowConfig) -> bool:
    """Whole words for each thread, and a multiprocessor that holds the programs."""
    each = config.block // (32 * config.warps)
    return config.lane <= each <= 4 * config.lane and config.warps * config.per_sm <= 64


def _fused_allowed(config: FusedConfig) -> bool:
    """At most 128 logits a thread, and stages that fit."""
    each = config.rows * config.columns // (32 * config.warps)
    tiles = (config.rows + config.columns) * config.depth * 2 * config.stages
    return 32 <= each <= 128 and tiles <= SHARED_BYTES
