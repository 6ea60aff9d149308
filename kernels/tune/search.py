"""Candidates for a row: compiled for sm_90, those that spill refused, the others put in order."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .attention import Attention
from .tunable import Tunable

if TYPE_CHECKING:
    from ..offline import CompileCase, Compiled

__all__ = ["Candidate", "count", "paste", "rank", "say"]

TILE = ("block_q", "block_k", "block_m", "block_n", "block", "rows", "columns", "heads")
"""Fields whose product is the size of a program's tile."""


@dataclass(eq=False)
class Candidate:
    """A configuration of a row, what became of it, and how long it takes."""

    config: Any
    counts: Compiled | None = None
    """Of the plainest variant."""
    worst_warps: int = 0
    """Fewest resident warps of a multiprocessor in any variant."""
    streams: bool = False
    """Whether nothing is multiplied: memory bounds it, and what is under way fills it."""
    refused: str = ""
    times_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """Of the samples; infinite where it was not timed."""
        ordered = sorted(self.times_ms)
        return ordered[len(ordered) // 2] if ordered else float("inf")

    @property
    def tile(self) -> int:
        """Elements of a program's tile, or its rows."""
        return math.prod(getattr(self.config, name, 1) for name in TILE)

    @property
    def under_way(self) -> int:
        """Elements (or rows) that a multiprocessor's programs read at once; 0 where products do."""
        if not self.streams:
            return 0
        programs = self.worst_warps // self.config.warps
        return programs * self.tile * max(1, getattr(self.config, "stages", 1) - 1)


def count(
    of: Tunable, key: Any, configs: Sequence[Any], jobs: int = 2, quick: bool = False
) -> list[Candidate]:
    """Compile each configuration of a row in all variants; the heaviest first, to refuse early.

    ``quick``: in the first of them and the heaviest alone.
    """
    from ..offline import offences
    from ..offline.__main__ import compile_all

    found = [Candidate(config) for config in configs]
    begin = time.perf_counter()
    for early in (True,) if quick else (True, False):
        owners: list[Candidate] = []
        cases: list[CompileCase] = []
        for candidate in found:
            if candidate.refused:
                continue
            with of.override({key: candidate.config}):
                listed = _share(of.cases(key, candidate.config), early)
            owners += [candidate] * len(listed)
            cases += listed
        for done, (index, compiled) in enumerate(compile_all(cases, jobs=jobs), 1):
            candidate, case = owners[index], cases[index]
            if bad := offences(case, compiled):
                candidate.refused = f"{case.variant}: {bad[0]}"
            candidate.streams = case.expect == "none"
            warps = compiled.warps_per_sm
            candidate.worst_warps = min(candidate.worst_warps or warps, warps)
            if early and (index == 0 or owners[index - 1] is not candidate):
                candidate.counts = compiled
            if done % 20 == 0 or done == len(cases):
                rate = done / (time.perf_counter() - begin)
                say(f"{of.name(key)}: {done}/{len(cases)} compilations, {rate:.1f} a second")
        begin = time.perf_counter()
    return found


def _share(cases: Sequence[CompileCase], early: bool) -> list[CompileCase]:
    """Cases of the short run of the gate, or the others.

    Where none is in it: the first and the last, which is the heaviest.
    """
    quick = {id(case) for case in cases if case.quick} or {
        id(case) for case in cases[:: len(cases) - 1 or 1]
    }
    return [case for case in cases if (id(case) in quick) == early]


def rank(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return what may be used, best first: by time where there is one, else by counts.

    The counts: resident warps of the worst variant, then of the plainest, then larger tiles; where
    nothing is multiplied, first of all what is under way at once.
    """

    def order(candidate: Candidate) -> tuple[float, ...]:
        counts = candidate.counts
        assert counts is not None
        return (
            candidate.median_ms,
            -candidate.under_way,
            -candidate.worst_warps,
            -counts.warps_per_sm,
            -candidate.tile,
            counts.registers,
        )

    return sorted((c for c in candidates if not c.refused and c.counts), key=order)


def paste(
    key: Any, candidate: Candidate, frozen: Candidate | None = None, of: Tunable | None = None
) -> str:
    """Return a line of the table (of attention's, or ``of``) for a candidate, with its reason."""
    assert candidate.counts is not None
    reason = (
        f"{candidate.counts.registers} registers, {candidate.counts.warps_per_sm} warps/SM"
        f" ({candidate.worst_warps} at worst)"
    )
    if candidate.times_ms:
        reason = f"{candidate.median_ms:.3f} ms, {reason}"
        if frozen is not None and frozen.times_ms and frozen is not candidate:
            reason += f"; frozen row {frozen.median_ms:.3f} ms"
    return f"    {(of or Attention()).paste(key, candidate.config)}  # {reason}"


def say(line: str) -> None:
    """Tell the person who waits."""
    print(line, file=sys.stderr, flush=True)
