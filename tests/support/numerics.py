"""How numerical kernels are tested: error bounds, poisoned memory, awkward views, odd shapes.

Tests that use this run at full size on a GPU and, without one, small in Triton's interpreter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar
from unittest import mock

import pytest
import torch
from support import interpreter
from torch import Tensor

__all__ = [
    "DEVICE", "DIMS", "HEADS", "LENGTHS", "ON_GPU", "VIEWS", "assert_error_at_most_twice",
    "assert_same_bits", "bits", "guarded_memory", "kernels_as_on_hardware", "peak_memory",
    "poisoned_memory", "sized",
]  # fmt: skip

T = TypeVar("T")

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")


def sized(small: T, full: T) -> T:
    """Return ``full`` on a GPU and ``small`` in the interpreter (tens of µs an operation)."""
    return full if ON_GPU else small


# Lengths around tile borders, primes, and those at which flash-attn's own tests look.
LENGTHS: list[list[int]] = sized(
    [[1], [3], [113], [5, 1, 0, 30, 20, 64], [0, 0, 7, 0]],
    [[1], [3], [113], [239], [799], [1023], [1024], [4224], [1] * 300, [0, 0, 7, 0],
     [5, 1, 0, 30, 20, 64], [113, 203, 1, 239, 0, 64], [799, 3, 1023]],
)  # fmt: skip
DIMS = [8, 16, 24, 32, 40, 48, 64, 72, 80, 96, 120, 128]
HEADS = [(4, 4), (4, 2), (4, 1), (3, 1), (5, 5)]


@pytest.fixture(scope="module", autouse=True)
def kernels_as_on_hardware() -> Iterator[None]:
    """Round as hardware does where the interpreter does not; import it to use it."""
    with nullcontext() if ON_GPU else interpreter.repaired():
        yield


def assert_error_at_most_twice(
    name: str, ours: Tensor, path: Tensor, exact: Tensor, *, terms: float = 0.0
) -> None:
    """Fail unless ``ours`` is at most twice as far from ``exact`` as ``path`` is.

    Both the largest element's error and the error's norm count. To twice the path's error is added
    what no implementation can avoid and the path may escape by luck: the rounding of the result to
    its dtype (half a unit in the last place of the largest element), and one fp32 rounding of what
    is added up, for sums that cancel (a gradient that is exactly zero).

    Args:
        name: said when it fails.
        ours, path: of one dtype: the kernel's result and PyTorch's own operations'.
        exact: float64, from the same inputs.
        terms: magnitude of the largest term of the sums.
    """
    assert ours.dtype == path.dtype and exact.dtype == torch.float64, name
    assert ours.shape == path.shape == exact.shape, name
    if exact.numel() == 0:
        return
    assert torch.isfinite(exact).all(), f"{name}: exact result not finite"
    assert torch.isfinite(ours).all(), f"{name}: {int((~torch.isfinite(ours)).sum())} not finite"
    unit = torch.finfo(ours.dtype).eps / 2
    sums = torch.finfo(torch.float32).eps * terms
    ours_off, path_off = ours.double() - exact, path.double() - exact
    for what, size, count in (
        ("largest", lambda x: float(x.abs().max()), 1),
        ("norm", lambda x: float(torch.linalg.vector_norm(x)), exact.numel()),
    ):
        bound = 2 * size(path_off) + unit * size(exact) + sums * math.sqrt(count)
        got = size(ours_off)
        assert got <= bound, (
            f"{name}: {what} error {got:.2e}, the PyTorch path's allows {bound:.2e}"
        )


def bits(x: Tensor) -> Tensor:
    """Return the bit patterns as integers: -0 is not 0, and NaN equals itself."""
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return x.detach().contiguous().view(kinds[x.element_size()])


def assert_same_bits(run: Callable[[], Sequence[Tensor]], runs: int) -> None:
    """Fail unless every run gives the first one's bits."""
    first = [bits(x).clone() for x in run()]
    for number in range(1, runs):
        for at, (a, b) in enumerate(zip(first, run(), strict=True)):
            assert torch.equal(a, bits(b)), f"run {number}, tensor {at} differs"


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill what torch allocates uninitialised with NaN (integers: the largest).

    Covers ``empty``, ``empty_like``, ``new_empty``, ``empty_strided`` and ``resize_``, on every
    device.
    """
    fill = torch.utils.deterministic.fill_uninitialized_memory
    strict = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        assert torch.empty(1).isnan().all() and torch.empty(1, dtype=torch.int32) == 2**31 - 1
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warn)
        torch.utils.deterministic.fill_uninitialized_memory = fill


@contextmanager
def guarded_memory() -> Iterator[None]:
    """Put what ``torch.empty`` and ``empty_like`` give between guards; writing there is an error.

    Everything in between is NaN, too.
    """
    blocks: list[tuple[Tensor, int]] = []
    empty, guard = torch.empty, 1 << 14

    def guarded(*size: Any, **options: Any) -> Tensor:
        wanted = torch.Size(size[0] if isinstance(size[0], Sequence) else size)
        block = empty(wanted.numel() + 2 * guard, **options)
        block.fill_(math.nan if block.is_floating_point() else torch.iinfo(block.dtype).max)
        blocks.append((block, wanted.numel()))
        return block[guard : guard + wanted.numel()].view(wanted)

    def guarded_like(x: Tensor, **options: Any) -> Tensor:
        return guarded(x.shape, **({"dtype": x.dtype, "device": x.device} | options))

    with (
        mock.patch.object(torch, "empty", guarded),
        mock.patch.object(torch, "empty_like", guarded_like),
    ):
        yield
    assert blocks, "nothing was allocated through torch.empty"
    for block, used in blocks:
        for part in (block[:guard], block[guard + used :]):
            expected = torch.full_like(
                part, math.nan if part.is_floating_point() else torch.iinfo(part.dtype).max
            )
            assert torch.equal(bits(part), bits(expected)), "written outside of a tensor"


def _inside(x: Tensor, before: tuple[int, int, int], after: tuple[int, int, int]) -> Tensor:
    """Return a view of ``x``'s values in a larger block of NaN."""
    shape = [b + n + a for b, n, a in zip(before, x.shape, after, strict=True)]
    block = torch.full(shape, math.nan, dtype=x.dtype, device=x.device)
    view = block[tuple(slice(b, b + n) for b, n in zip(before, x.shape, strict=True))]
    return view.copy_(x)


def _misaligned(x: Tensor) -> Tensor:
    flat = torch.full((x.numel() + 1,), math.nan, dtype=x.dtype, device=x.device)
    return flat[1:].view(x.shape).copy_(x)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    # Rows, heads and dimensions of NaN around; once in whole words of 16 bytes, once not.
    "inside_nan": lambda x: _inside(x, (2, 1, 8), (5, 2, 16)),
    "inside_nan_odd": lambda x: _inside(x, (2, 1, 3), (5, 2, 2)),
    "misaligned": _misaligned,
    "heads_first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "every_other": lambda x: _inside(x.repeat_interleave(2, 2), (0, 0, 0), (0, 0, 8))[..., ::2],
    "dim_outermost": lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
}
"""Views ``[T, H, D]`` of the values of a contiguous tensor, laid out as callers happen to."""


def peak_memory(run: Callable[[], object]) -> int:
    """Return the bytes that ``run`` allocates at most at one time, on the GPU."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
