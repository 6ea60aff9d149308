"""How time is taken: one process, every launch of every variant interleaved, cold and warm.

On a GPU a launch is timed by events. A large matrix product goes ahead of it, so that the host has
enqueued the launch before the device reaches it (events on a starved stream time the host) and the
clocks are those of a busy device; its own time, taken each round, is the canary for contention.
Cold: a buffer larger than the L2 cache is read right before (not written: the eviction of dirty
lines would be timed too). Warm: the same launch right before.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from .correct import first_line
from .peers import Run

__all__ = [
    "CudaTimer",
    "Launch",
    "Options",
    "Summary",
    "WallTimer",
    "host_cost",
    "interleave",
    "launches_of",
    "peak_bytes",
    "percentile",
    "summary",
    "timer_for",
]

CACHES = ("cold", "warm")


@dataclass(frozen=True)
class Options:
    """How long to measure. Seconds are of one case; rounds are launches of each variant."""

    budget_s: float = 8.0
    min_rounds: int = 10
    max_rounds: int = 200
    warmup: int = 3
    host_calls: int = 50
    caches: tuple[str, ...] = CACHES


@dataclass(frozen=True)
class Summary:
    """Median and the 20th and 80th percentile of ``n`` samples."""

    p20: float
    p50: float
    p80: float
    n: int


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the ``share`` quantile (0 to 1), linear between the two nearest samples."""
    ordered = sorted(samples)
    if not ordered:
        raise ValueError("samples: at least one expected")
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def summary(samples: Sequence[float]) -> Summary:
    """Return median and 20/80 percentiles."""
    p20, p50, p80 = (percentile(samples, share) for share in (0.2, 0.5, 0.8))
    return Summary(p20, p50, p80, len(samples))


# Timers ------------------------------------------------------------------------------------------


class Timer(Protocol):
    """Times single launches on one device."""

    def cover(self, host_s: float) -> None:
        """Keep the device busy while the host enqueues for about ``host_s`` seconds."""
        ...

    def flush(self) -> None:
        """Push everything out of the cache."""
        ...

    def timed(self, action: Callable[[], Any]) -> Any:
        """Run ``action`` and return a token for `settle`."""
        ...

    def settle(self, tokens: Sequence[Any]) -> list[float]:
        """Wait for the device and return the milliseconds of each token."""
        ...

    def canary(self) -> Any:
        """Time a fixed piece of work: it changes only if clocks or neighbours do."""
        ...


class CudaTimer:
    """CUDA events, behind covering work."""

    def __init__(self, device: torch.device, flush_bytes: int = 0, side: int = 4096) -> None:
        """Allocate what is read to flush the cache (0: four times the L2) and the cover."""
        l2 = torch.cuda.get_device_properties(device).L2_cache_size
        self._buffer = torch.randn((flush_bytes or 4 * l2) // 4, device=device)
        self._largest = torch.empty((), device=device)
        self._a = torch.randn(side, side, device=device).bfloat16()
        self._b = torch.randn(side, side, device=device).bfloat16()
        self._c = torch.empty_like(self._a)
        for _ in range(200):  # an idle device has low clocks
            torch.matmul(self._a, self._b, out=self._c)
        self._cover_s = min(self.settle([self.canary() for _ in range(20)])) / 1e3

    def cover(self, host_s: float) -> None:
        """Enqueue matrix products for twice ``host_s``, 4 ms at most."""
        for _ in range(min(math.ceil(2 * host_s / self._cover_s), math.ceil(4e-3 / self._cover_s))):
            torch.matmul(self._a, self._b, out=self._c)

    def flush(self) -> None:
        """Read the buffer."""
        torch.amax(self._buffer, dim=0, out=self._largest)

    def timed(self, action: Callable[[], Any]) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        """Record an event on either side of ``action``."""
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        action()
        stop.record()
        return start, stop

    def settle(self, tokens: Sequence[tuple[torch.cuda.Event, torch.cuda.Event]]) -> list[float]:
        """Synchronise once for all of them."""
        torch.cuda.synchronize()
        return [start.elapsed_time(stop) for start, stop in tokens]

    def canary(self) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        """Time one covering product."""
        return self.timed(lambda: torch.matmul(self._a, self._b, out=self._c))


class WallTimer:
    """`time.perf_counter`, for a CPU."""

    def __init__(self, flush_bytes: int = 8 << 20, side: int = 128) -> None:
        """Allocate what is read to flush the cache."""
        self._buffer = torch.ones(flush_bytes // 4)
        self._a = torch.randn(side, side)

    def cover(self, host_s: float) -> None:
        """Nothing to hide on a CPU."""

    def flush(self) -> None:
        """Read the buffer."""
        self._buffer.amax()

    def timed(self, action: Callable[[], Any]) -> float:
        """Return the milliseconds of ``action``."""
        start = time.perf_counter()
        action()
        return (time.perf_counter() - start) * 1e3

    def settle(self, tokens: Sequence[float]) -> list[float]:
        """Return them as they are."""
        return list(tokens)

    def canary(self) -> float:
        """Time a small product."""
        return self.timed(lambda: self._a @ self._a)


def timer_for(device: torch.device) -> Timer:
    """Return the timer of a device."""
    return CudaTimer(device) if device.type == "cuda" else WallTimer()


# Launches ----------------------------------------------------------------------------------------


@dataclass(eq=False)
class Launch:
    """One mode of one run in one state of the cache: ``action(setup())``, only action timed."""

    key: tuple[str, str, str]
    """Provider, mode, cache."""
    run: Run
    setup: Callable[[], Any]
    action: Callable[[Any], Any]
    host_s: float = 0.0
    samples: list[float] = field(default_factory=list)
    failed: str = ""

    def once(self, timer: Timer) -> Any:
        """Enqueue one timed launch; return the timer's token."""
        cold = self.key[2] == "cold"
        with self.run.around():
            before = None if cold else self.setup()
            state = self.setup()
            timer.cover(self.host_s * (1 if cold else 2))
            if cold:
                timer.flush()
            else:
                self.action(before)
            return timer.timed(lambda: self.action(state))

    def warm_up(self, timer: Timer, times: int) -> None:
        """Compile and allocate; learn how long the host needs to enqueue the action."""
        hosts = []
        for _ in range(times):
            with self.run.around():
                state = self.setup()
                timer.settle([])
                start = time.perf_counter()
                self.action(state)
                hosts.append(time.perf_counter() - start)
                timer.settle([])
        self.host_s = statistics.median(hosts)


def launches_of(
    provider: str, run: Run, modes: Sequence[str], caches: Sequence[str] = CACHES
) -> list[Launch]:
    """Return the launches of a run in each of the op's modes that it has, cold and warm."""
    found = []
    forward, backward, build = run.forward, run.backward, run.build

    def nothing() -> None:
        return None

    for mode in modes:
        if mode == "fwd":
            setup, action = nothing, lambda _: forward()
        elif mode == "bwd" and backward is not None:
            setup, action = forward, backward
        elif mode == "fwd+bwd" and backward is not None:
            setup, action = nothing, lambda _, backward=backward: backward(forward())
        elif mode == "build" and build is not None:
            setup, action = nothing, lambda _, build=build: build()
        else:
            continue
        found += [Launch((provider, mode, cache), run, setup, action) for cache in caches]
    return found


def interleave(
    launches: Sequence[Launch], timer: Timer, options: Options, seed: int = 0
) -> list[float]:
    """Measure all launches in turn, one each a round, in another order each round.

    A launch that raises is left out from then on, with the reason in ``failed``.

    Returns:
        The canary's milliseconds, one a round; samples are in the launches.
    """
    rng = random.Random(seed)
    canaries: list[float] = []
    for launch in launches:
        _guard(launch, lambda launch=launch: launch.warm_up(timer, options.warmup))
    begin = time.perf_counter()
    for number in range(options.max_rounds):
        if number >= options.min_rounds and time.perf_counter() - begin > options.budget_s:
            break
        order = [launch for launch in launches if not launch.failed]
        rng.shuffle(order)
        timer.cover(1e-4)
        tokens = [timer.canary()]
        timed = []
        for launch in order:
            token = _guard(launch, lambda launch=launch: launch.once(timer))
            if not launch.failed:
                timed.append(launch)
                tokens.append(token)
        times = timer.settle(tokens)
        canaries.append(times[0])
        for launch, spent in zip(timed, times[1:], strict=True):
            launch.samples.append(spent)
    return canaries


def _guard(launch: Launch, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except (RuntimeError, ValueError, NotImplementedError, TypeError) as error:
        launch.failed = first_line(error)
        return None


# Host cost and memory ----------------------------------------------------------------------------


def host_cost(run: Run, mode: str, options: Options, repeats: int = 20) -> Summary:
    """Return microseconds of host time a call, over many calls that nothing waits for.

    The problem must be so small that the device keeps up.
    """
    (launch,) = launches_of("", run, [mode], ["cold"])
    calls, costs = options.host_calls, []
    with run.around():
        for number in range(repeats + 2):
            states = [launch.setup() for _ in range(calls)]
            torch.cuda.synchronize()
            begin = time.perf_counter()
            for state in states:
                launch.action(state)
            spent = (time.perf_counter() - begin) / calls * 1e6
            torch.cuda.synchronize()
            if number >= 2:
                costs.append(spent)
    return summary(costs)


def peak_bytes(run: Run, mode: str) -> int:
    """Return the most memory allocated during one call, beyond what was there before it."""
    (launch,) = launches_of("", run, [mode], ["cold"])
    with run.around():
        state = launch.setup()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        launch.action(state)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
