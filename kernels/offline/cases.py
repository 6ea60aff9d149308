"""What is compiled: a kernel with the types, constants and alignments of one kind of launch.

Cases are best recorded: run the op's own launch code on small CPU tensors while `record` listens,
and the case has exactly the specialisation that Triton would make of that launch on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from unittest import mock

__all__ = ["TARGET", "CompileCase", "Expect", "Recorded", "case_of", "record", "require_compiler"]

Expect = Literal["wgmma", "mma.sync", "fma", "none"]
TARGET = ("cuda", 90, 32)
"""Backend, architecture (sm_90: Hopper), threads of a warp."""


@dataclass(frozen=True, eq=False)
class CompileCase:
    """One compilation and what must come of it."""

    op: str
    kernel: str
    fn: Any
    """The ``triton.jit`` function."""
    signature: Mapping[str, str]
    """Argument to Triton type (``"*bf16"``, ``"i32"``, ``"constexpr"``, ...)."""
    constexprs: Mapping[Any, Any]
    """Argument (name or index path) to value; an argument given as None is one of them."""
    attrs: Mapping[tuple[int, ...], Any]
    """Index path of an argument to its attributes; says which are multiples of 16."""
    options: Mapping[str, Any]
    """Triton's launch options, at least ``num_warps`` and ``num_stages``."""
    expect: Expect
    """The instruction that every matrix product must become; ``fma``: none of the tensor cores."""
    row: tuple[str | int, ...] = ()
    """The row of the op's frozen table that this is a case of."""
    variant: str = "base"
    quick: bool = True
    """Whether the short run of the gate includes it."""
    spill_budget_bytes: int = 0

    @property
    def label(self) -> str:
        """Name for people: kernel, row, variant."""
        row = " ".join(str(part) for part in self.row if part != self.kernel)
        return " | ".join(part for part in (self.kernel, row, self.variant) if part)


@dataclass(frozen=True, eq=False)
class Recorded:
    """A launch that was asked for and not made."""

    fn: Any
    signature: dict[str, str]
    constexprs: dict[Any, Any]
    attrs: dict[tuple[int, ...], Any]
    options: dict[str, Any] = field(default_factory=dict)


def require_compiler() -> None:
    """Raise where Triton's functions are interpreted: they cannot be compiled in that process."""
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        raise RuntimeError(
            "TRITON_INTERPRET: kernels of this process are interpreted and cannot be compiled; "
            "unset it and start again"
        )


def record(launch: Callable[[], object]) -> list[Recorded]:
    """Run ``launch`` with every Triton kernel call recorded instead of made; tensors stay as is.

    Tensors may lie on the CPU: only their type and the alignment of their address count.
    """
    require_compiler()
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import make_backend
    from triton.runtime.jit import JITFunction, create_function_from_signature

    backend = make_backend(GPUTarget(*TARGET))
    found: list[Recorded] = []

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        binder = create_function_from_signature(self.signature, self.params, backend)
        bound, specialization, options = binder(*args, **kwargs)
        _, signature, constexprs, attrs = self._pack_args(
            backend, dict(kwargs), bound, specialization, options
        )
        found.append(Recorded(self, signature, constexprs, attrs, dict(options)))

    with mock.patch.object(JITFunction, "run", run):
        launch()
    return found


def case_of(
    recorded: Recorded,
    *,
    op: str,
    expect: Expect,
    row: tuple[str | int, ...] = (),
    variant: str = "base",
    quick: bool = True,
) -> CompileCase:
    """Make a case of a recorded launch."""
    return CompileCase(
        op=op,
        kernel=recorded.fn.__name__.removesuffix("_kernel"),
        fn=recorded.fn,
        signature=recorded.signature,
        constexprs=recorded.constexprs,
        attrs=recorded.attrs,
        options=recorded.options,
        expect=expect,
        row=row,
        variant=variant,
        quick=quick,
    )
