"""AdamW's frozen configurations, for `kernels.tune`."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ..tune.tunable import Problem, Tunable, half_and_double, neighbours
from .tables import Kind

if TYPE_CHECKING:
    from ..offline import CompileCase

__all__ = ["AdamW"]


class AdamW(Tunable):
    """Keys: `kernels.optimizer.tables.Kind`: dtypes of parameters and gradients, masters or not."""

    op = "adamw"
    kernels: ClassVar = ("adamw",)

    def table(self) -> MutableMapping[Any, Any]:
        """Return the rule's exceptions."""
        from . import adamw_triton

        return adamw_triton.MEASURED

    def frozen(self) -> dict[Any, Any]:
        """Return what the rule says of all kinds that are compiled offline, and its exceptions."""
        from .adamw_triton import config
        from .offline import KINDS

        keys = [Kind(*kind) for kind in KINDS]
        return {key: config(key) for key in dict.fromkeys([*keys, *self.table()])}

    def parts(self, key: Any) -> dict[str, str | int]:
        """Name the parts of a key; it serves all sizes of elements."""
        dtypes = f"{_name(key.param)} {_name(key.grad)}"
        return {"kernel": "adamw", "kind": dtypes + " masters" * key.master}

    def alternatives(self, key: Any, config: Any) -> list[Any]:
        """Return other blocks, warps and limits of registers: 4 to 16 elements a thread."""
        return neighbours(
            config,
            lambda one: 4 <= one.block // (32 * one.warps) <= 16,
            block=half_and_double(config.block, 256, 8192),
            warps=(4, 8, 16),
            registers=(64, 80, 128),
        )

    def cases(self, key: Any, config: Any) -> list[CompileCase]:
        """Return what is compiled of the update."""
        from ..offline.cases import case_of, record
        from . import offline

        found = []
        for variant in offline.VARIANTS:
            (recorded,) = (
                one
                for one in record(
                    lambda v=variant: offline._launch(key.param, key.grad, key.master, v)
                )
                if one.fn.__name__ == "adamw_kernel"
            )
            row = ("adamw", str(self.parts(key)["kind"]))
            found.append(
                case_of(
                    recorded, op="adamw", expect="none", row=row, variant=variant.label,
                    quick=variant in offline.VARIANTS[:2],
                )
            )  # fmt: skip
        return found

    def problem(self, key: Any) -> Problem | None:
        """Return a step with all of GPT-2 small, where the workbench has one."""
        cases = {
            Kind(torch.float32, torch.float32, False): "ADAMW-124M",
            Kind(torch.bfloat16, torch.bfloat16, True): "ADAMW-124M-bf16",
        }
        return Problem("adamw", cases[key], "fwd") if key in cases else None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
