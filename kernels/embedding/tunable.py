"""The embedding gradient's frozen configurations, for `kernels.tune`."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..tune.tunable import Problem, Tunable, half_and_double, neighbours

if TYPE_CHECKING:
    from ..offline import CompileCase

__all__ = ["Embedding"]


class Embedding(Tunable):
    """Keys: columns, bytes an element."""

    op = "embedding"
    kernels: ClassVar = ("sum",)

    def table(self) -> MutableMapping[Any, Any]:
        """Return the rule's exceptions."""
        from . import embedding_triton

        return embedding_triton.MEASURED

    def frozen(self) -> dict[Any, Any]:
        """Return what the rule says of the widths that the workbench knows, and its exceptions."""
        from .embedding_triton import config

        keys = [(columns, itemsize) for columns in (256, 768) for itemsize in (2, 4)]
        return {key: config(*key) for key in dict.fromkeys([*keys, *self.table()])}

    def parts(self, key: Any) -> dict[str, str | int]:
        """Name the parts of a key."""
        return {"kernel": "sum", "dim": key[0], "bytes": key[1]}

    def alternatives(self, key: Any, config: Any) -> list[Any]:
        """Return other tiles, chunks and warps; a thread reads 8 or 16 bytes of a row."""
        itemsize = key[1]
        return neighbours(
            config,
            lambda one: one.columns * itemsize // (32 * one.warps) in (8, 16),
            columns=half_and_double(config.columns, 64, 1024),
            rows=(4, 8, 16),
            tiles=(2, 4, 8),
            warps=(1, 2, 4),
        )

    def cases(self, key: Any, config: Any) -> list[CompileCase]:
        """Return what is compiled for the columns: new gradients and added ones."""
        from itertools import product

        from ..offline.cases import case_of, record
        from . import offline

        columns, itemsize = key
        found = []
        dtypes = [dtype for dtype in offline.DTYPES if dtype.itemsize == itemsize]
        for dtype, add, apart in product(dtypes, (False, True), (False, True)):
            recorded, *_ = record(
                lambda d=dtype, a=add, s=apart: offline._launch(columns, d, d, a, s)
            )
            variant = f"{str(dtype)[6:]}{' add' * add}{' strided' * apart}"
            found.append(
                case_of(
                    recorded, op="embedding", expect="none", row=("embedding_sum", columns),
                    variant=variant, quick=dtype == dtypes[0] and add == apart,
                )
            )  # fmt: skip
        return found

    def problem(self, key: Any) -> Problem:
        """Return words as in text."""
        columns, itemsize = key
        return Problem("embedding", "EMB-768", "bwd", itemsize, {"columns": columns})
