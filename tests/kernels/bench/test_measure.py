"""Percentiles, the order of launches, what is inside of a launch's time and what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from kernels.bench.cases import Inputs
from kernels.bench.measure import (
    Launch,
    Options,
    WallTimer,
    interleave,
    launches_of,
    percentile,
    summary,
)
from kernels.bench.peers import Run

OPTIONS = Options(budget_s=60.0, min_rounds=5, max_rounds=5, warmup=2)


class LoggingTimer:
    """Writes down what happens; a timed action takes as many milliseconds as it is told."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.spends = 1.0

    def cover(self, host_s: float) -> None:
        self.log.append("cover")

    def flush(self) -> None:
        self.log.append("flush")

    def timed(self, action: Callable[[], Any]) -> float:
        self.log.append("start")
        action()
        self.log.append("stop")
        return self.spends

    def settle(self, tokens: Any) -> list[float]:
        return list(tokens)

    def canary(self) -> float:
        self.log.append("canary")
        return 7.0


def _run(log: list[str], name: str, backward: bool = True) -> Run:
    @contextmanager
    def around() -> Iterator[None]:
        log.append(f"enter {name}")
        yield
        log.append(f"leave {name}")

    def forward() -> str:
        log.append(f"fwd {name}")
        return name

    def back(out: str) -> None:
        assert out == name
        log.append(f"bwd {name}")

    inputs = Inputs(None, {}, None)
    return Run(inputs, forward, back if backward else None, lambda *_: {}, around=around)


@pytest.mark.parametrize(
    ("samples", "share", "expected"),
    [
        ([3.0], 0.2, 3.0),
        ([1.0, 2.0], 0.5, 1.5),
        ([5.0, 1.0, 3.0], 0.5, 3.0),
        ([0.0, 10.0, 20.0, 30.0, 40.0, 50.0], 0.2, 10.0),
        ([0.0, 10.0, 20.0, 30.0, 40.0, 50.0], 0.8, 40.0),
        ([0.0, 1.0], 0.8, 0.8),
    ],
)
def test_percentile(samples: list[float], share: float, expected: float) -> None:
    assert percentile(samples, share) == pytest.approx(expected)


def test_percentile_is_torchs_quantile() -> None:
    x = torch.randn(137, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for share in (0.0, 0.2, 0.5, 0.8, 1.0):
        assert percentile(x.tolist(), share) == pytest.approx(float(x.quantile(share)))
    found = summary(x.tolist())
    assert (found.p20, found.n) == (percentile(x.tolist(), 0.2), 137)
    assert found.p20 < found.p50 < found.p80


def test_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="samples: at least one"):
        percentile([], 0.5)


def test_every_launch_once_a_round_in_changing_order() -> None:
    timer = LoggingTimer()
    log: list[str] = []
    launches = [
        launch
        for name in "abcd"
        for launch in launches_of(name, _run(log, name), ("fwd",), ("cold",))
    ]
    canaries = interleave(launches, timer, OPTIONS)
    order = [line[-1] for line in log if line.startswith("fwd")]
    warm_up, order = order[: 4 * OPTIONS.warmup], order[4 * OPTIONS.warmup :]
    assert Counter(warm_up) == dict.fromkeys("abcd", OPTIONS.warmup)
    rounds = ["".join(order[k : k + 4]) for k in range(0, len(order), 4)]
    assert len(rounds) == OPTIONS.max_rounds
    assert all(sorted(one) == list("abcd") for one in rounds)
    assert len(set(rounds)) > 1
    assert canaries == [7.0] * OPTIONS.max_rounds
    assert timer.log.count("canary") == OPTIONS.max_rounds
    assert all(launch.samples == [1.0] * OPTIONS.max_rounds for launch in launches)


def _once(mode: str, cache: str) -> list[str]:
    timer = LoggingTimer()
    (launch,) = launches_of("a", _run(timer.log, "a"), (mode,), (cache,))
    launch.once(timer)
    assert timer.log[0] == "enter a" and timer.log[-1] == "leave a"
    return timer.log[1:-1]


def test_only_the_mode_itself_is_timed() -> None:
    assert _once("fwd", "cold") == ["cover", "flush", "start", "fwd a", "stop"]
    assert _once("bwd", "cold") == ["fwd a", "cover", "flush", "start", "bwd a", "stop"]
    assert _once("fwd+bwd", "cold") == ["cover", "flush", "start", "fwd a", "bwd a", "stop"]


def test_warm_runs_the_same_right_before() -> None:
    assert _once("fwd", "warm") == ["cover", "fwd a", "start", "fwd a", "stop"]
    assert _once("bwd", "warm") == [
        "fwd a", "fwd a", "cover", "bwd a", "start", "bwd a", "stop",
    ]  # fmt: skip


def test_modes_that_a_run_does_not_have_are_left_out() -> None:
    run = _run([], "a", backward=False)
    keys = [launch.key for launch in launches_of("a", run, ("fwd", "bwd", "fwd+bwd", "build"))]
    assert keys == [("a", "fwd", "cold"), ("a", "fwd", "warm")]
    run.build = lambda: None
    assert [x.key[1] for x in launches_of("a", run, ("build",), ("cold",))] == ["build"]


def test_a_launch_that_raises_is_left_out_and_the_others_go_on() -> None:
    timer = LoggingTimer()
    calls = 0

    def breaks(_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > OPTIONS.warmup + 2:
            raise RuntimeError("no more\nof this")

    good = launches_of("good", _run([], "good"), ("fwd",), ("cold",))[0]
    bad = Launch(("bad", "fwd", "cold"), _run([], "bad"), lambda: None, breaks)
    interleave([bad, good], timer, OPTIONS)
    assert bad.failed == "no more"
    assert (len(bad.samples), len(good.samples)) == (2, OPTIONS.max_rounds)
    assert calls == OPTIONS.warmup + 3


def test_the_budget_ends_the_rounds() -> None:
    launch = launches_of("a", _run([], "a"), ("fwd",), ("cold",))[0]
    options = Options(budget_s=0.0, min_rounds=2, max_rounds=1000, warmup=1)
    interleave([launch], LoggingTimer(), options)
    assert len(launch.samples) == 2


def test_wall_timer_times() -> None:
    timer = WallTimer(flush_bytes=1 << 12, side=4)
    x = torch.randn(300, 300)
    long, short = timer.timed(lambda: [x @ x for _ in range(20)]), timer.timed(lambda: None)
    assert timer.settle([long, short]) == [long, short]
    assert long > short >= 0.0
    timer.flush()
    assert timer.canary() >= 0.0
