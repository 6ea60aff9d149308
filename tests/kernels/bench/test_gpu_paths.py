"""What only runs on a GPU, on a CPU with the few CUDA calls replaced: order and arithmetic.

Marked ``gpu``: the same on the real thing.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kernels.bench import load_ops, measure, results, roofline
from kernels.bench.__main__ import main
from kernels.bench.attention_peers import ours_run
from kernels.bench.cases import find_op, select_cases
from kernels.bench.correct import GREEN
from kernels.bench.measure import CudaTimer, Options, host_cost, interleave, launches_of, peak_bytes
from kernels.bench.peers import Run, peers
from kernels.bench.results import Report, load
from kernels.bench.run import Settings, _Entry, _memory_and_host, _Rows

load_ops()
CPU = torch.device("cpu")


class Event:
    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing
        self.at = -1.0

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: Event) -> float:
        return (other.at - self.at) * 1e3


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Replace what is asked of CUDA; yields the allocator's numbers."""
    state = {"now": 1000, "peak": 1000, "synchronised": 0}

    def synchronise(*_: Any) -> None:
        state["synchronised"] += 1

    def reset() -> None:
        state["peak"] = state["now"]

    props = SimpleNamespace(
        L2_cache_size=4096, major=9, minor=0, multi_processor_count=3, total_memory=5
    )
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronise)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: props)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: state["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: state["peak"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    return state


def _run() -> Run:
    (case,) = select_cases(["attention"], ["P1"])
    return ours_run("padded_sdpa", case.inputs(CPU, torch.float32, 0, "smoke"))  # type: ignore[arg-type]


def test_cuda_timer(memory: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    timer = CudaTimer(CPU, side=64)
    assert timer._buffer.numel() * 4 == 4 * 4096
    products = 0
    product = torch.matmul

    def count(*args: Any, **options: Any) -> torch.Tensor:
        nonlocal products
        products += 1
        return product(*args, **options)

    monkeypatch.setattr(torch, "matmul", count)
    timer._cover_s = 0.25e-3
    for host_s, expected in ((0.0, 0), (0.1e-3, 1), (0.5e-3, 4), (1.0, 16)):
        products = 0
        timer.cover(host_s)
        assert products == expected  # twice the host's time, 4 ms at most
    timer.flush()
    assert float(timer._largest) == float(timer._buffer.max())
    slow = timer.timed(lambda: time.sleep(0.02))
    before = memory["synchronised"]
    (spent,) = timer.settle([slow])
    assert 20.0 <= spent < 200.0 and memory["synchronised"] == before + 1
    options = Options(budget_s=0.0, min_rounds=2, max_rounds=2, warmup=1)
    launches = launches_of("ours", _run(), ("fwd", "bwd", "fwd+bwd"))
    assert len(interleave(launches, timer, options)) == 2
    assert all(len(launch.samples) == 2 and not launch.failed for launch in launches)


def test_host_cost_counts_the_call_alone(memory: dict[str, int]) -> None:
    run = _run()
    run.forward = lambda: time.sleep(0.002)
    run.backward = lambda _: None
    options = Options(host_calls=5)
    forward = host_cost(run, "fwd", options, repeats=2)
    backward = host_cost(run, "bwd", options, repeats=2)  # its forwards stay outside
    assert forward.p20 >= 2000.0 and forward.n == 2
    assert backward.p50 < 500.0
    assert memory["synchronised"] == 2 * 2 * 4


def test_peak_is_of_the_mode_alone(memory: dict[str, int]) -> None:
    run = _run()

    def allocates(size: int) -> None:
        memory["now"] += size
        memory["peak"] = max(memory["peak"], memory["now"])

    run.forward = lambda: allocates(500)
    run.backward = lambda _: (allocates(70), allocates(-70))
    assert peak_bytes(run, "fwd") == 500
    assert peak_bytes(run, "bwd") == 70
    assert peak_bytes(run, "fwd+bwd") == 570


def test_memory_and_host_rows(memory: dict[str, int]) -> None:
    (case,) = select_cases(["attention"], ["BABY"])
    settings = Settings(CPU, torch.float32, smoke=True, options=Options(host_calls=2))
    peer = next(peer for peer in peers("attention") if peer.name == "padded_sdpa")
    inputs = case.inputs(CPU, torch.float32, 0, "smoke")
    entries = [_Entry(peer, GREEN, peer.make(inputs))]
    report = Report({})
    rows = _Rows(case, find_op("attention"), inputs.spec, settings, report)
    _memory_and_host(case, find_op("attention"), entries, settings, rows)
    found = {(row.mode, row.metric, row.unit) for row in report.rows}
    assert found == {
        (mode, metric, unit)
        for mode in ("fwd", "bwd", "fwd+bwd", "build")
        for metric, unit in (("host", "us"), ("memory", "bytes"))
    }
    assert all(row.ours and row.cache == "" and row.gate == "green" for row in report.rows)


def test_ceilings_and_facts_of_a_device(
    memory: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline, "_WARM_UP_S", 0.0)
    device: Any = SimpleNamespace(type="cuda")
    assert roofline._median_s(lambda: time.sleep(0.001), device, repeats=3) >= 0.001
    monkeypatch.setattr(results, "_said", lambda command: "580.1, 1980 MHz, 3201 MHz, x, 700 W")
    facts = results._gpu(device)
    assert facts["capability"] == "9.0" and facts["l2_bytes"] == 4096
    assert facts["driver_version"] == "580.1" and facts["power.limit"] == "700 W"
    monkeypatch.setattr(results, "_said", lambda command: None)
    assert "driver_version" not in results._gpu(device)
    assert results._gpu(CPU) == {}


def test_timers_of_devices(memory: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(measure.timer_for(CPU), measure.WallTimer)
    monkeypatch.setattr(measure, "CudaTimer", lambda device: "cuda timer")
    assert measure.timer_for(torch.device("cuda")) == "cuda timer"  # type: ignore[comparison-overlap]


@pytest.mark.gpu
def test_smoke_on_the_gpu(tmp_path: Path) -> None:
    path = tmp_path / "smoke.json"
    assert main(["--smoke", "--out", str(path), "--peers", "all,-flex"]) == 0
    (report,) = load(path)
    assert report.header["gpu"]["multiprocessors"] > 0
    assert not report.find(gate="red") and not report.find(gate="failed")
    assert report.find(provider="triton", metric="host") and report.find(metric="memory")
    cold = report.find(provider="triton", mode="fwd", cache="cold")
    assert cold and all((row.p50 or 0.0) > 0.0 for row in cold)
