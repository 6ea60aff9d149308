"""Drive one measurement: each case against each peer, the file rewritten after every case."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from .cases import Case, Inputs, Op, Scale, find_op
from .correct import GREEN, Gate, Judge, first_line
from .measure import (
    Options,
    Summary,
    Timer,
    host_cost,
    interleave,
    launches_of,
    peak_bytes,
    summary,
    timer_for,
)
from .peers import Peer, Run
from .results import METRICS, Report, Row, header, save
from .roofline import floor_ms, measure_ceilings, shares

__all__ = ["CANARY", "Settings", "measure_cases"]

CANARY = "canary"
"""Provider of the rows that hold the time of a fixed product, taken once a round."""


@dataclass(frozen=True)
class Settings:
    """Where and how to measure."""

    device: torch.device
    dtype: torch.dtype = torch.bfloat16
    seed: int = 0
    smoke: bool = False
    limit_s: float | None = None
    """Start no case after this many seconds."""
    options: Options = field(default_factory=Options)

    @property
    def scale(self) -> Scale:
        """The size of the problems that are timed."""
        return "smoke" if self.smoke else "full"

    @property
    def small(self) -> Scale:
        """The size of those that are compared in everything."""
        return "smoke" if self.smoke else "small"


@dataclass(eq=False)
class _Entry:
    """A peer on its way through one case."""

    peer: Peer
    gate: Gate = GREEN
    run: Run | None = None


def measure_cases(
    cases: Sequence[Case],
    peers: dict[str, list[Peer]],
    settings: Settings,
    *,
    out: Path | None = None,
    before: Sequence[Report] = (),
    say: Callable[[str], None] = print,
) -> Report:
    """Measure cases in order.

    Args:
        cases: what.
        peers: who, for each op.
        settings: how.
        out: JSON file, written after every case; None keeps the report in memory.
        before: reports that are kept in the file.
        say: receives progress, one line a peer.

    Returns:
        The report.
    """
    begin = time.perf_counter()
    ceilings = measure_ceilings(settings.device, settings.dtype, small=settings.smoke)
    report = Report(
        header(
            settings.device,
            settings.dtype,
            seed=settings.seed,
            smoke=settings.smoke,
            ceilings=ceilings,
        )
    )
    options = {**asdict(settings.options), "caches": list(settings.options.caches)}
    report.header |= {"options": options, "given_up": {}}
    timer = timer_for(settings.device)
    for number, case in enumerate(cases, 1):
        elapsed = time.perf_counter() - begin
        if settings.limit_s is not None and elapsed > settings.limit_s:
            say(f"{len(cases) - number + 1} cases left out: {elapsed:.0f} s have passed")
            break
        say(f"[{number}/{len(cases)}] {case.op} {case.name}: {case.spec(settings.scale)}")
        try:
            _measure_case(case, peers[case.op], settings, timer, report, say)
        except RuntimeError as error:
            report.header["given_up"][f"{case.op} {case.name}"] = first_line(error)
            say(f"    given up: {first_line(error)}")
            if settings.device.type == "cuda":
                torch.cuda.synchronize()  # raises again if the device is gone
                torch.cuda.empty_cache()
        finally:
            report.header["elapsed_s"] = round(time.perf_counter() - begin, 1)
            if out is not None:
                save(out, [*before, report])
    else:
        report.header["finished"] = True
        if out is not None:
            save(out, [*before, report])
    return report


def _measure_case(
    case: Case,
    peers: Sequence[Peer],
    settings: Settings,
    timer: Timer,
    report: Report,
    say: Callable[[str], None],
) -> None:
    op, spec = find_op(case.op), case.spec(settings.scale)
    entries = [_Entry(peer) for peer in peers]
    for entry in entries:
        why = entry.peer.available(settings.device)
        if why is not None:
            entry.gate = Gate("unavailable", why)
            continue
        why = entry.peer.supports(spec)
        if why is not None:
            entry.gate = Gate("unsupported", why)
    small = case.inputs(settings.device, settings.dtype, settings.seed + 1, settings.small)
    _gate_all(op, [e for e in entries if not e.peer.full_only], small, everything=True)
    inputs = case.inputs(settings.device, settings.dtype, settings.seed, settings.scale)
    _gate_all(op, entries, inputs, everything=False)
    launches = [
        launch
        for entry in entries
        if entry.run is not None
        for launch in launches_of(entry.peer.name, entry.run, op.modes, settings.options.caches)
    ]
    canaries = interleave(launches, timer, settings.options, settings.seed)
    rows = _Rows(case, op, spec, settings, report)
    for launch in launches:
        provider, mode, cache = launch.key
        entry = next(entry for entry in entries if entry.peer.name == provider)
        if launch.failed:
            entry.gate = Gate("failed", launch.failed)
        elif launch.samples:
            rows.add(entry, mode, cache, "time", summary(launch.samples))
    if canaries:
        rows.canary(summary(canaries))
    if settings.device.type == "cuda":
        _memory_and_host(case, op, entries, settings, rows)
    for entry in entries:
        if not entry.gate.open:
            rows.refused(entry)
        say(rows.line(entry))
    if settings.device.type == "cuda":
        del launches, inputs, small
        for entry in entries:
            entry.run = None
        torch.cuda.empty_cache()


def _gate_all(op: Op, entries: Sequence[_Entry], inputs: Inputs, *, everything: bool) -> None:
    """Make each open peer's run on ``inputs`` and compare it with the truth."""
    judge = Judge(op)
    for entry in entries:
        if not entry.gate.open:
            continue
        try:
            entry.run = entry.peer.make(inputs)
        except (RuntimeError, ValueError, NotImplementedError, TypeError, ImportError) as error:
            entry.gate = Gate("unsupported", first_line(error))
        else:
            entry.gate = judge.verdict(entry.run, everything=everything)
        if not entry.gate.open:
            entry.run = None
        if entry.peer.ours and entry.gate.status == "unsupported":
            entry.gate = Gate("failed", entry.gate.detail)  # ours have to do every case


def _memory_and_host(
    case: Case, op: Op, entries: Sequence[_Entry], settings: Settings, rows: _Rows
) -> None:
    """Peak memory at full size; host time a call on the small problem, or a few of the full one."""
    passed = [entry for entry in entries if entry.gate.open]
    for entry in passed:
        assert entry.run is not None
        for mode in _modes(entry.run, op):
            peak = float(peak_bytes(entry.run, mode))
            rows.add(entry, mode, "", "memory", Summary(peak, peak, peak, 1))
    small = case.inputs(settings.device, settings.dtype, settings.seed, settings.small)
    for entry in passed:
        assert entry.run is not None
        options = settings.options
        run = entry.run if entry.peer.full_only else entry.peer.make(small)
        if entry.peer.full_only:  # few enough for the launch queue and the memory
            options = replace(options, host_calls=min(10, options.host_calls))
        for mode in _modes(run, op):
            rows.add(entry, mode, "", "host", host_cost(run, mode, options))


def _modes(run: Run, op: Op) -> list[str]:
    return [mode for mode in op.modes if launches_of("", run, [mode], ["cold"])]


class _Rows:
    """Turns what was measured on one case into rows of the report."""

    def __init__(self, case: Case, op: Op, spec: Any, settings: Settings, report: Report) -> None:
        self._case, self._settings, self._report = case, settings, report
        self._work = op.work(spec, settings.dtype)
        self._spec = str(spec)

    def add(self, entry: _Entry, mode: str, cache: str, metric: str, found: Summary) -> None:
        """Add a row of numbers, beside the floor of the case where it is a time."""
        row = self._row(entry.peer, metric, entry)
        row.mode, row.cache, row.n = mode, cache, found.n
        row.p20, row.p50, row.p80 = found.p20, found.p50, found.p80
        work = self._work.get(mode)
        if metric == "time" and work is not None:
            row.bytes, row.flops = work.bytes, work.flops
            row.floor_ms = floor_ms(work, self._report.ceilings)
            row.share_of_copy, row.share_of_matmul = shares(work, found.p50, self._report.ceilings)
        self._report.rows.append(row)

    def refused(self, entry: _Entry) -> None:
        """Add the row of a peer without numbers; what it had before it failed is taken out."""
        mine = {"op": self._case.op, "case": self._case.name, "provider": entry.peer.name}
        for row in self._report.find(**mine):
            self._report.rows.remove(row)
        row = self._row(entry.peer, "none", entry)
        row.gate, row.detail = entry.gate.status, entry.gate.detail
        self._report.rows.append(row)

    def canary(self, found: Summary) -> None:
        """Add the canary's row; its spread says how far the others can be trusted."""
        self._report.rows.append(
            Row(
                self._case.op, self._case.name, CANARY, "", "", "time", METRICS["time"], "green",
                p20=found.p20, p50=found.p50, p80=found.p80, n=found.n,
                smoke=self._settings.smoke, config={"spread": found.p80 / found.p20},
            )
        )  # fmt: skip

    def line(self, entry: _Entry) -> str:
        """Say in one line what became of a peer."""
        name = f"    {entry.peer.name:<16}"
        if not entry.gate.open:
            return f"{name}{entry.gate.status}: {entry.gate.detail}"
        found = self._report.find(
            op=self._case.op, case=self._case.name, provider=entry.peer.name, metric="time"
        )
        times = [f"{row.mode} {row.cache} {row.p50:.3f} ms" for row in found]
        label = f" [{found[0].computes}]" if found and found[0].computes else ""
        return f"{name}{', '.join(times)}{label}"

    def _row(self, peer: Peer, metric: str, entry: _Entry) -> Row:
        run = entry.run
        return Row(
            self._case.op, self._case.name, peer.name, "", "", metric, METRICS[metric], "green",
            ours=peer.ours, computes=run.computes if run else "", note=run.note if run else "",
            smoke=self._settings.smoke,
            config={"spec": self._spec, **(run.config if run else {})},
        )  # fmt: skip
