"""The frozen table of the losses over all pairs, for `kernels.tune`."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..tune.tunable import Problem, Tunable, half_and_double, neighbours

if TYPE_CHECKING:
    from ..offline import CompileCase

__all__ = ["Pairs"]

SHARED_BYTES = 227 << 10
"""Of a program, on sm_90."""
HALF_REGISTERS = 128
"""Of a thread, where two programs of 8 warps share a multiprocessor."""


class Pairs(Tunable):
    """Keys: kernel, bytes an element, columns of a tile of products (0: no products)."""

    op = "pairs"
    kernels: ClassVar = ("statistics", "weights", "sigmoid", "products")

    def table(self) -> MutableMapping[Any, Any]:
        """Return the table."""
        from . import launch

        return launch._TABLE

    def frozen(self) -> dict[Any, Any]:
        """Return all rows."""
        return dict(self.table())

    def parts(self, key: Any) -> dict[str, str | int]:
        """Name the parts of a key."""
        return dict(zip(("kernel", "bytes", "tile"), key, strict=True))

    def alternatives(self, key: Any, config: Any) -> list[Any]:
        """Return other tiles, warps, stages and limits of registers.

        Tiles divide the whole ones (128 rows and columns) that weights are stored in, and the
        columns of products those of the key, which divide all widths that come to the row.
        """
        kernel, itemsize, columns = key
        exact = itemsize == 4

        def allowed(one: Any) -> bool:
            each = one.block_m * one.block_n // (32 * one.warps)
            tiles = (one.block_m + one.block_n) * one.block_k * itemsize * one.stages
            if one.piece > one.block_n or tiles > SHARED_BYTES:
                return False
            if one.max_registers is not None and one.warps != 8:
                return False
            return 8 <= each <= 32 if exact else 32 <= each <= 128

        if kernel == "products":
            block_n = half_and_double(columns, 32 if exact else 64, columns)
        else:
            block_n = [32, 64] if exact else [64, 128]
        return neighbours(
            config,
            allowed,
            block_m=(32, 64) if exact else (64, 128),
            block_n=block_n,
            block_k=(16, 32) if exact else (32, 64) if kernel == "products" else (64,),
            piece=half_and_double(config.piece, 64 if kernel == "products" else 16, 128),
            warps=(4, 8),
            stages=(1, 2) if exact else (2, 3, 4),
            max_registers=(None,) if exact or kernel == "products" else (None, HALF_REGISTERS),
        )

    def cases(self, key: Any, config: Any) -> list[CompileCase]:
        """Return what is compiled of the row."""
        from .offline import offline_cases

        return [case for case in offline_cases() if case.row == key]

    def problem(self, key: Any) -> Problem:
        """Return the loss that the kernel is a part of; products are of InfoNCE."""
        kernel, itemsize, columns = key
        changes = {"width": columns if columns in (64, 128) else 512}
        if kernel == "sigmoid":
            return Problem("sigmoid_loss", "SigLIP-4k", "fwd+bwd", itemsize, changes)
        return Problem("contrastive_loss", "InfoNCE-4k", "fwd+bwd", itemsize, changes)
