"""Frozen configurations of norms, activations and rotary positions, for `kernels.tune`."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ..tune.tunable import Problem, Tunable, half_and_double, neighbours

if TYPE_CHECKING:
    from ..offline import CompileCase

__all__ = ["Activations", "Norm", "Rotary"]

THREAD_BYTES = (16, 32, 64)
"""Of each tensor, that a thread may hold; the rules say 32."""


class _Rows(Tunable):
    """Rules over rows. Keys: "fwd" or "bwd", columns, bytes an element."""

    columns: ClassVar[tuple[int, ...]]
    """Of the rows to be tuned: those that the workbench knows."""

    def frozen(self) -> dict[Any, Any]:
        """Return what the rule says, and its exceptions."""
        keys: list[Any] = list(product(self.kernels, self.columns, (2, 4)))
        return {key: self.rule(*key) for key in dict.fromkeys([*keys, *self.table()])}

    def rule(self, kernel: Any, columns: int, itemsize: int) -> Any:
        """Return what launches take."""
        raise NotImplementedError

    def parts(self, key: Any) -> dict[str, str | int]:
        """Name the parts of a key."""
        return dict(zip(("kernel", "dim", "bytes"), key, strict=True))


class Norm(_Rows):
    """LayerNorm and RMSNorm."""

    op = "norm"
    kernels: ClassVar = ("fwd", "bwd")
    columns = (256, 384, 512, 768, 1024, 2048, 4096)

    def table(self) -> MutableMapping[Any, Any]:
        """Return the rule's exceptions."""
        from . import norm_triton

        return norm_triton.MEASURED

    def rule(self, kernel: Any, columns: int, itemsize: int) -> Any:
        """Return what launches take."""
        from .norm_triton import config

        return config(kernel, columns, itemsize)

    def alternatives(self, key: Any, config: Any) -> list[Any]:
        """Return other warps and rows of a tile, and for the backward what it reads ahead."""
        from .common_triton import MOST_PARTIALS
        from .norm_triton import PROGRAMS, padded

        kernel, columns, itemsize = key
        row_bytes = padded(columns) * itemsize
        found = [config]
        for warps, share in product(half_and_double(config.warps, 1, 16), THREAD_BYTES):
            rows = max(1, 32 * warps * share // row_bytes)
            if kernel == "fwd":
                found += neighbours(replace(config, warps=warps, rows=rows))
                continue
            programs = min(PROGRAMS * 8 // warps, MOST_PARTIALS)
            found += neighbours(
                replace(config, warps=warps, rows=rows, programs=programs),
                stages=(1, 2, 3, 4) if config.stages > 1 else (1,),
            )
        return list(dict.fromkeys(found))

    def cases(self, key: Any, config: Any) -> list[CompileCase]:
        """Return what is compiled for rows of that length."""
        from . import norm_offline

        kernel, columns, itemsize = key
        variants = [
            replace(variant, columns=columns)
            for variant in norm_offline._variants()
            if variant.columns == 1024 and variant.dtype.itemsize == itemsize
        ]
        every = (case for variant in variants for case in norm_offline._cases(variant))
        return [case for case in every if case.kernel == f"norm_{kernel}"]

    def problem(self, key: Any) -> Problem:
        """Return the addition and the norm after it."""
        kernel, columns, itemsize = key
        changes = {"columns": columns}
        if columns in (2048, 4096):  # the workbench has these as RMSNorm
            return Problem("rms_norm", "RMS-1024", kernel, itemsize, changes)
        return Problem("layer_norm", "LN-768", kernel, itemsize, changes)


class Activations(_Rows):
    """GELU and SwiGLU; "bwd" is GELU's, whose bias has a gradient, "fwd" all others."""

    op = "activations"
    kernels: ClassVar = ("fwd", "bwd")
    columns = (1024, 3072, 5632)

    def table(self) -> MutableMapping[Any, Any]:
        """Return the rule's exceptions."""
        from . import activations_triton

        return activations_triton.MEASURED

    def rule(self, kernel: Any, columns: int, itemsize: int) -> Any:
        """Return what launches take."""
        from .activations_triton import config

        return config(kernel, columns, itemsize)

    def alternatives(self, key: Any, config: Any) -> list[Any]:
        """Return other tiles and warps, and for the backward what it reads ahead."""
        kernel, _, itemsize = key
        found = [config]
        blocks = half_and_double(config.columns, 64, 1024)
        warps_of = half_and_double(config.warps, 2, 16)
        for block, warps, share in product(blocks, warps_of, THREAD_BYTES):
            rows = max(1, 32 * warps * share // (block * itemsize))
            # Two programs of 8 warps and 128 registers share a multiprocessor; of 4 warps any do.
            registers = config.registers if warps >= 8 else None
            tile = replace(config, rows=rows, columns=block, warps=warps, registers=registers)
            ahead = kernel == "bwd" and config.stages > 1
            found += neighbours(tile, stages=(2, 3, 4) if ahead else (config.stages,))
        return list(dict.fromkeys(found))

    def cases(self, key: Any, config: Any) -> list[CompileCase]:
        """Return what is compiled for rows of that length."""
        from ..offline.cases import case_of, record
        from . import activations_offline as offline

        kernel, columns, itemsize = key
        dtypes = (torch.float32,) if itemsize == 4 else (torch.bfloat16, torch.float16)
        found = []
        for dtype in dtypes:
            for name, launch in (*offline._gelu(columns, dtype), *offline._swiglu(columns, dtype)):
                for recorded in record(launch):
                    made = recorded.fn.__name__.removesuffix("_kernel")
                    if made == "column_sums" or (made == "gelu_bwd") != (kernel == "bwd"):
                        continue
                    found.append(
                        case_of(
                            recorded, op=self.op, expect="none", row=(made, columns, itemsize),
                            variant=f"{str(dtype)[6:]} {name}",
                            quick=dtype == dtypes[0] and name in offline.HEAVIEST,
                        )
                    )  # fmt: skip
        return found

    def problem(self, key: Any) -> Problem:
        """Return SwiGLU, both ways, for the rows that it is registered with; else GELU."""
        kernel, columns, itemsize = key
        changes = {"columns": columns}
        if kernel == "fwd" and columns == 5632:
            return Problem("swiglu", "SwiGLU-5632", "fwd+bwd", itemsize, changes)
        return Problem("bias_gelu", "GELU-3072", kernel, itemsize, changes)


class Rotary(Tunable):
    """Keys: the fewest of the heads of queries and keys, half the head dimension."""

    op = "rotary"
    kernels: ClassVar = ("rotary",)

    def table(self) -> MutableMapping[Any, Any]:
        """Return the rule's exceptions."""
        from . import rotary_triton

        return rotary_triton.MEASURED

    def frozen(self) -> dict[Any, Any]:
        """Return what the rule says of the heads that are compiled offline, and its exceptions."""
        from .rotary_triton import config

        keys = [(min(heads, kv or heads), 32) for heads, kv in self._heads()]
        return {key: config(*key) for key in dict.fromkeys([*keys, *self.table()])}

    def _heads(self) -> Iterator[tuple[int, int]]:
        from .rotary_offline import HEADS

        yield from HEADS

    def parts(self, key: Any) -> dict[str, str | int]:
        """Name the parts of a key; it serves all sizes of elements."""
        return {"kernel": "rotary", "heads": key[0], "dim": 2 * key[1]}

    def alternatives(self, key: Any, config: Any) -> list[Any]:
        """Return other tiles and warps: 4 to 32 elements of each half a thread."""
        from .rotary_triton import padded

        heads, half = key

        def allowed(one: Any) -> bool:
            return 4 <= one.rows * one.heads * padded(half) // (32 * one.warps) <= 32

        return neighbours(
            config,
            allowed,
            rows=half_and_double(config.rows, 1, 1024),
            heads=half_and_double(config.heads, 1, 1 << (heads - 1).bit_length()),
            warps=half_and_double(config.warps, 1, 16),
        )

    def cases(self, key: Any, config: Any) -> list[CompileCase]:
        """Return what is compiled of the row."""
        from ..offline.cases import case_of, record
        from . import rotary_offline as offline

        fewest, half = key
        both = [pair for pair in self._heads() if min(pair[0], pair[1] or pair[0]) == fewest]
        found = []
        for (heads, kv), dtype, inverse in product(
            both or [(fewest, fewest)], (torch.bfloat16, torch.float32), (False, True)
        ):
            (recorded,) = record(
                lambda h=heads, k=kv, d=dtype, i=inverse: offline._launch(
                    h, k, 2 * half, d, torch.float32, i
                )
            )
            variant = f"{str(dtype)[6:]} {heads}/{kv} heads{' back' * inverse}"
            found.append(
                case_of(
                    recorded, op=self.op, expect="none", row=("rotary", 2 * half, fewest),
                    variant=variant, quick=not inverse,
                )
            )  # fmt: skip
        return found

    def problem(self, key: Any) -> Problem:
        """Return queries with as many keys, or with fewer."""
        fewest, half = key
        case, heads = ("ROPE-32/4", 32) if fewest == 4 else ("ROPE-12/12", fewest)
        changes = {"heads": heads, "kv": fewest, "dim": 2 * half}
        return Problem("rotary", case, "fwd", changes=changes)
