"""The two ceilings of a device, measured in the same call, and the floor they set for a case."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .cases import Work

__all__ = ["Ceilings", "floor_ms", "measure_ceilings", "shares"]

_WARM_UP_S = 0.3


@dataclass(frozen=True)
class Ceilings:
    """Bytes per second of a copy (read plus written) and flops per second of a matrix product."""

    copy_bytes_per_s: float
    matmul_flops_per_s: float


def measure_ceilings(device: torch.device, dtype: torch.dtype, *, small: bool = False) -> Ceilings:
    """Measure a large copy and a large product of random numbers in ``dtype``.

    Args:
        device: where.
        dtype: of the product's operands.
        small: a few milliseconds' worth, for a smoke run; on a CPU always.
    """
    large = device.type == "cuda" and not small
    size, side = ((2 << 30), 8192) if large else ((32 << 20), 256)
    copy_s = _copy_s(size, device)
    a = torch.randn(side, side, device=device).to(dtype)
    b = torch.randn(side, side, device=device).to(dtype)
    c = torch.empty_like(a)
    product_s = _median_s(lambda: torch.matmul(a, b, out=c), device)
    return Ceilings(2 * size / copy_s, 2 * side**3 / product_s)


def _copy_s(size: int, device: torch.device) -> float:
    source = torch.empty(size // 4, device=device).normal_()
    target = torch.empty_like(source)
    return _median_s(lambda: target.copy_(source), device)


def _median_s(action: Callable[[], object], device: torch.device, repeats: int = 50) -> float:
    if device.type != "cuda":
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            action()
            times.append(time.perf_counter() - begin)
        return statistics.median(times)
    begin = time.perf_counter()
    while time.perf_counter() - begin < _WARM_UP_S:  # an idle device has low clocks
        for _ in range(10):
            action()
        torch.cuda.synchronize()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    events[0].record()
    for event in events[1:]:
        action()
        event.record()
    torch.cuda.synchronize()
    pairs = itertools.pairwise(events)
    return statistics.median(start.elapsed_time(stop) for start, stop in pairs) / 1e3


def floor_ms(work: Work, ceilings: Ceilings) -> float:
    """Return the time that no implementation beats: the slower of its bytes and its operations."""
    return 1e3 * max(
        work.bytes / ceilings.copy_bytes_per_s, work.flops / ceilings.matmul_flops_per_s
    )


def shares(work: Work, ms: float, ceilings: Ceilings) -> tuple[float, float]:
    """Return the shares of the copy rate and of the product rate that ``ms`` achieves."""
    seconds = ms / 1e3
    return (
        work.bytes / seconds / ceilings.copy_bytes_per_s,
        work.flops / seconds / ceilings.matmul_flops_per_s,
    )
