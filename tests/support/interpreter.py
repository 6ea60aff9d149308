"""Triton's interpreter, repaired where it is wrong and made to run and count what a test asks for.

For Triton 3.6. Nothing here is used where there is a GPU.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

__all__ = ["Work", "checked_overflow", "count_work", "repaired", "run_programs"]


def _cast(source: Any, target: Any) -> Any:
    """`InterpreterBuilder.cast_impl` with bf16 rounded to nearest even, as hardware does.

    The interpreter cuts mantissas off, which doubles the error that tests measure.
    """
    from triton.runtime import interpreter as it

    have, want = source.dtype.scalar, target.scalar
    if have == it.tl.float32 and want == it.tl.bfloat16:
        bits = np.ascontiguousarray(source.data).view(np.uint32).astype(np.uint64)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        data = np.where(np.isnan(source.data), 0x7FC0, rounded).astype(np.uint16)
    elif have == it.tl.bfloat16 and want == it.tl.float32:
        data = (np.ascontiguousarray(source.data).astype(np.uint32) << 16).view(np.float32)
    else:
        data = source.data.astype(it._get_np_dtype(target))
    return it.TensorHandle(data, want)


class _PatchOnce:
    """`_patch_lang`, which the interpreter calls again for every call of a device function.

    A scope that finds its modules patched already changes nothing: half of the time is saved.
    """

    def __init__(self, original: Callable[[Any], Any]) -> None:
        self.original = original
        self.there: set[int] = set()

    def __call__(self, fn: Any) -> _PatchOnce | Any:
        from triton.runtime.interpreter import tl

        modules = {id(m) for m in fn.__globals__.values() if m is tl or m is tl.core}
        if modules and modules <= self.there:
            return self
        outermost = not self.there
        scope = self.original(fn)
        # The original converts an array of one element, about which numpy warns every time.
        tl.tensor.__index__ = lambda tensor: tensor.handle.data.item()
        self.there |= modules
        if outermost:
            restore = scope.restore
            scope.restore = lambda: (self.there.clear(), restore())
        return scope

    def restore(self) -> None:
        """Leave what an outer scope patched."""


@contextmanager
def repaired() -> Iterator[None]:
    """Correct bf16 rounding, and no time spent where nothing is computed."""
    from triton.runtime import interpreter as it

    builder = it.interpreter_builder
    # Every int32 sum is otherwise made in int64 too, compared, and the comparison thrown away.
    options = dataclasses.replace(builder.options, sanitize_overflow=False)
    nameless = it.tl.core.tuple_type([])
    with (
        mock.patch.object(it.InterpreterBuilder, "cast_impl", lambda _, x, to: _cast(x, to)),
        mock.patch.object(it, "_patch_lang", _PatchOnce(it._patch_lang)),
        mock.patch.object(builder, "options", options),
        # Written out as text for every shape, and never read.
        mock.patch.object(it.tl.core, "_type_for_tuple_values", lambda *_: nameless),
        np.errstate(over="ignore"),  # of scores that are masked a line later
    ):
        yield


@contextmanager
def checked_overflow() -> Iterator[None]:
    """Make every 32-bit sum, difference and product that leaves its range an error."""
    from triton.runtime import interpreter as it

    builder = it.interpreter_builder
    options = dataclasses.replace(builder.options, sanitize_overflow=True, debug=True)
    with mock.patch.object(builder, "options", options):
        yield


@dataclasses.dataclass
class Work:
    """What interpreted programs did."""

    products: int = 0
    """Matrix products: tiles that are skipped make none, whatever the kernel looks like."""
    loads: int = 0


@contextmanager
def count_work(limit: int) -> Iterator[Work]:
    """Count products and loads; more than ``limit`` of either is an error at once."""
    from triton.runtime import interpreter as it

    work = Work()
    product, load = it.InterpreterBuilder.create_dot, it.InterpreterBuilder.create_masked_load

    def counted_product(*arguments: Any) -> Any:
        work.products += 1
        assert work.products <= limit, f"more than {limit} products"
        return product(*arguments)

    def counted_load(*arguments: Any) -> Any:
        work.loads += 1
        assert work.loads <= limit, f"more than {limit} loads"
        return load(*arguments)

    with (
        mock.patch.object(it.InterpreterBuilder, "create_dot", counted_product),
        mock.patch.object(it.InterpreterBuilder, "create_masked_load", counted_load),
    ):
        yield work


def run_programs(
    kernel: Any, grid: int, programs: Iterable[int], arguments: tuple[Any, ...], constants: Any
) -> None:
    """Run only some programs of a one-dimensional grid, on CPU tensors."""
    from triton.runtime import interpreter as it

    fn = kernel.rewrite()
    names = inspect.signature(kernel.fn).parameters
    constexprs = {name for name in names if "constexpr" in str(kernel.fn.__annotations__.get(name))}
    bound = inspect.getcallargs(fn, *arguments, **constants)
    bound = {n: x if n in constexprs else it._implicit_cvt(x) for n, x in bound.items()}
    scope = it._patch_lang(fn)
    try:
        it.interpreter_builder.set_grid_dim(grid, 1, 1)
        for program in programs:
            it.interpreter_builder.set_grid_idx(program, 0, 0)
            fn(**bound)
    finally:
        scope.restore()
