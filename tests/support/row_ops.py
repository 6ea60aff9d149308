"""Running the fused operations over rows in any implementation, and holding them to fp64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support.numerics import DEVICE, ON_GPU, VIEWS, assert_error_at_most_twice
from torch import Tensor

from kernels import dispatch
from kernels.rows import common_triton

__all__ = [
    "ROW_VIEWS", "SEED", "assert_compiled_is_eager", "backend", "compare", "draw", "few_launches",
    "run",
]  # fmt: skip

SEED = 0x1234_5678_9ABC_DEF
Call = Callable[..., Tensor | tuple[Tensor, ...]]

ROW_VIEWS = {name: (lambda x, view=view: view(x[:, None])[:, 0]) for name, view in VIEWS.items()}
"""Views ``[M, N]`` of the values of a contiguous tensor, laid out as callers happen to."""


@pytest.fixture(scope="module", autouse=True)
def few_launches() -> Iterator[None]:
    """The interpreter pays by the program: let one add up many columns. Import it to use it."""
    patch = pytest.MonkeyPatch()
    if not ON_GPU:
        patch.setattr(common_triton, "COLUMNS", 512)
    yield
    patch.undo()


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Return random-normal numbers, the same in every dtype but for rounding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


@contextmanager
def backend(op: str, name: str) -> Iterator[None]:
    """Let nothing but one implementation of ``op`` run."""
    dispatch.set_backend(op, name)
    try:
        yield
    finally:
        dispatch.set_backend(op, None)


def run(
    op: str,
    name: str,
    call: Call,
    inputs: Sequence[Tensor | None],
    fixed: Sequence[Tensor] = (),
    upstream: torch.dtype | None = None,
) -> list[Tensor]:
    """Return the outputs of ``call(*inputs, *fixed)`` and the gradients of the inputs given.

    Gradients of the outputs are random-normal, a function of shapes, in ``upstream`` (None: the
    outputs' dtype) before they are widened.
    """
    leaves = [None if x is None else x.detach().requires_grad_() for x in inputs]
    with backend(op, name):
        found = call(*leaves, *fixed)
        outs = found if isinstance(found, tuple) else (found,)
        ups = [
            draw(*x.shape, dtype=upstream or x.dtype, seed=99 + at).to(x.dtype)
            for at, x in enumerate(outs)
        ]
        grads = torch.autograd.grad(outs, [x for x in leaves if x is not None], ups)
    return [*(x.detach() for x in outs), *grads]


def compare(
    op: str,
    call: Call,
    inputs: Sequence[Tensor | None],
    fixed: Sequence[Tensor] = (),
    *,
    terms: float = 0.0,
) -> list[Tensor]:
    """Hold our results and gradients against fp64 and PyTorch's own in the same dtype.

    ``terms``: see `assert_error_at_most_twice`; returns what our kernels gave.
    """

    def wide(given: Sequence[Any]) -> list[Any]:
        floating = [isinstance(x, Tensor) and x.is_floating_point() for x in given]
        return [x.double() if f else x for x, f in zip(given, floating, strict=True)]

    ours = run(op, "triton", call, inputs, fixed)
    path = run(op, "eager", call, inputs, fixed)
    exact = run(op, "reference", call, wide(inputs), wide(fixed), ours[0].dtype)
    for at, found in enumerate(zip(ours, path, exact, strict=True)):
        assert_error_at_most_twice(f"{op} {at}", *found, terms=terms)
    return ours


def assert_compiled_is_eager(
    op: str,
    call: Call,
    inputs: Sequence[Tensor | None],
    fixed: Sequence[Tensor] = (),
    engine: str = "aot_eager",
) -> None:
    """Fail unless the traced function gives the bits of the plain one, in one graph."""
    torch.compiler.reset()
    compiled = torch.compile(call, fullgraph=True, backend=engine)
    for a, b in zip(
        run(op, "triton", compiled, inputs, fixed),
        run(op, "triton", call, inputs, fixed),
        strict=True,
    ):
        assert a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)
