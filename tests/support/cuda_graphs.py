"""On a GPU only: does a step wait for the GPU anywhere, and does a CUDA graph hold it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from support.numerics import bits
from torch import Tensor

__all__ = ["assert_nothing_waits_and_a_graph_holds", "capture", "nothing_waits", "warm_up"]

T = TypeVar("T")


def warm_up(step: Callable[[], object], times: int = 3) -> None:
    """Run on a stream of its own, as PyTorch asks before a capture: kernels compile, memory is had.

    See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(times):
            step()
    torch.cuda.current_stream().wait_stream(side)


@contextmanager
def nothing_waits() -> Iterator[None]:
    """Raise RuntimeError where the host would wait for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def capture(step: Callable[[], T]) -> tuple[torch.cuda.CUDAGraph, T]:
    """Return a graph of ``step`` and what it fills when it is replayed."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    return graph, captured


def assert_nothing_waits_and_a_graph_holds(
    step: Callable[[], Sequence[Tensor]], change: Callable[[], object]
) -> None:
    """Fail unless ``step`` never waits and its graph, replayed after ``change``, gives its bits.

    ``change`` writes into the tensors that ``step`` reads.
    """
    warm_up(step)
    with nothing_waits():
        step()
    graph, captured = capture(step)
    with torch.no_grad():
        change()
    graph.replay()
    for a, b in zip(captured, step(), strict=True):
        assert torch.equal(bits(a), bits(b))
