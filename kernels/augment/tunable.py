"""Augmentation's frozen configurations, for `kernels.tune`."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..tune.tunable import Problem, Tunable, neighbours

if TYPE_CHECKING:
    from ..offline import CompileCase

__all__ = ["Augment"]


class Augment(Tunable):
    """Keys: height and width of the result."""

    op = "augment"
    kernels: ClassVar = ("augment",)

    def table(self) -> MutableMapping[Any, Any]:
        """Return the rule's exceptions."""
        from . import augment_triton

        return augment_triton.MEASURED

    def frozen(self) -> dict[Any, Any]:
        """Return what the rule says of towers' usual sizes, and its exceptions."""
        from .augment_triton import config

        keys = [(224, 224), (336, 336), (32, 32)]
        return {key: config(*key) for key in dict.fromkeys([*keys, *self.table()])}

    def parts(self, key: Any) -> dict[str, str | int]:
        """Name the parts of a key; it serves all dtypes of the result."""
        return {"kernel": "augment", "height": key[0], "dim": key[1]}

    def alternatives(self, key: Any, config: Any) -> list[Any]:
        """Return other tiles and warps: 1 to 8 pixels a thread, no tile wider than the result."""
        height, width = (1 << (side - 1).bit_length() for side in key)
        return neighbours(
            config,
            lambda one: 1 <= one.rows * one.columns // (32 * one.warps) <= 8,
            rows=[rows for rows in (4, 8, 16, 32) if rows <= height],
            columns=[columns for columns in (16, 32, 64, 128) if columns <= width],
            warps=(1, 2, 4, 8),
        )

    def cases(self, key: Any, config: Any) -> list[CompileCase]:
        """Return what is compiled for results of that size: the sum of grey, and the result."""
        from dataclasses import replace

        from ..offline.cases import case_of, record
        from . import offline

        usual = offline.Variant(size=key)
        variants = [
            usual,
            replace(usual, changes=0),
            replace(usual, changes=0, antialias=False),
            replace(usual, layout="nchw"),
            *([replace(usual, layout="patches")] if not any(side % 16 for side in key) else []),
        ]
        return [
            case_of(
                recorded, op="augment", expect="none", variant=variant.label,
                row=(recorded.fn.__name__.removesuffix("_kernel"), *key), quick=variant == usual,
            )
            for variant in variants
            for recorded in record(lambda v=variant: offline._launch(v))
        ]  # fmt: skip

    def problem(self, key: Any) -> Problem | None:
        """Return a batch with changes of colour: both kernels run."""
        if key[0] != key[1]:
            return None
        return Problem("augment_images", "AUG-colours", "fwd", changes={"size": key[0]})
