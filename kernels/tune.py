"""``python -m kernels.tune``: look for better rows of the frozen tables of attention.

The neighbours of a row are compiled for sm_90; what spills in any variant that really runs is out.
On a GPU the rest is timed through the same launch code as users take, interleaved, beside the
frozen row; without one the counts rank them, and the output says so. Rows are printed ready to be
pasted into ``kernels/attention_triton/table.py``; nothing is changed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .attention_triton.alternatives import Key
    from .attention_triton.table import Config
    from .offline import CompileCase, Compiled

__all__ = ["Candidate", "count", "main", "paste", "rank"]

TOKENS = 65_536
LONG = 4096


@dataclass(eq=False)
class Candidate:
    """A configuration of a row, what became of it, and how long it takes."""

    config: Config
    counts: Compiled | None = None
    """Of the plainest variant."""
    worst_warps: int = 0
    """Fewest resident warps of a multiprocessor in any variant."""
    refused: str = ""
    times_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """Of the samples; infinite where it was not timed."""
        ordered = sorted(self.times_ms)
        return ordered[len(ordered) // 2] if ordered else float("inf")


def count(key: Key, configs: Sequence[Config], jobs: int = 2) -> list[Candidate]:
    """Compile each configuration of a row in all variants; the heaviest first, to refuse early."""
    from .attention_triton.alternatives import override
    from .attention_triton.offline import row_cases
    from .offline import offences
    from .offline.__main__ import compile_all

    found = [Candidate(config) for config in configs]
    begin = time.perf_counter()
    for quick in (True, False):
        owners: list[Candidate] = []
        cases: list[CompileCase] = []
        for candidate in found:
            if candidate.refused:
                continue
            with override({key: candidate.config}):
                listed = [c for c in row_cases(key, candidate.config) if c.quick == quick]
            owners += [candidate] * len(listed)
            cases += listed
        for done, (index, compiled) in enumerate(compile_all(cases, jobs=jobs), 1):
            candidate, case = owners[index], cases[index]
            if bad := offences(case, compiled):
                candidate.refused = f"{case.variant}: {bad[0]}"
            warps = compiled.warps_per_sm
            candidate.worst_warps = min(candidate.worst_warps or warps, warps)
            if quick and (index == 0 or owners[index - 1] is not candidate):
                candidate.counts = compiled
            if done % 20 == 0 or done == len(cases):
                rate = done / (time.perf_counter() - begin)
                _say(f"{_name(key)}: {done}/{len(cases)} compilations, {rate:.1f} a second")
        begin = time.perf_counter()
    return found


def rank(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return what may be used, best first: by time where there is one, else by counts.

    The counts: resident warps of the worst variant, then of the plainest, then larger tiles.
    """

    def order(candidate: Candidate) -> tuple[float, ...]:
        counts, config = candidate.counts, candidate.config
        assert counts is not None
        tile = config.block_q * config.block_k * config.heads
        return (
            candidate.median_ms,
            -candidate.worst_warps,
            -counts.warps_per_sm,
            -tile,
            counts.registers,
        )

    return sorted((c for c in candidates if not c.refused and c.counts), key=order)


def paste(key: Key, candidate: Candidate, frozen: Candidate | None = None) -> str:
    """Return a line of the table for a candidate, with its reason behind it."""
    shown = []
    for item in fields(candidate.config):
        value = getattr(candidate.config, item.name)
        if item.name in ("block_q", "block_k", "warps"):
            shown.append(str(value))
        elif value != item.default:
            shown.append(f"{item.name}={value!r}".replace("'", '"'))
    assert candidate.counts is not None
    reason = (
        f"{candidate.counts.registers} registers, {candidate.counts.warps_per_sm} warps/SM"
        f" ({candidate.worst_warps} at worst)"
    )
    if candidate.times_ms:
        reason = f"{candidate.median_ms:.3f} ms, {reason}"
        if frozen is not None and frozen.times_ms and frozen is not candidate:
            reason += f"; frozen row {frozen.median_ms:.3f} ms"
    where = ", ".join(f'"{part}"' if isinstance(part, str) else str(part) for part in key)
    return f"    ({where}): Config({', '.join(shown)}),  # {reason}"


# On a GPU ----------------------------------------------------------------------------------------


def problem(key: Key) -> Any:
    """Return the packed row on which a row of the table is timed (`bench.attention_cases`)."""
    from .bench.attention_cases import Packed

    _, dim, _, tile = key
    heads = max(1, 768 // dim) if dim < 64 else 12
    if tile in (0, 1):  # long documents, causal
        return Packed((LONG,) * (TOKENS // LONG // 2), heads=max(1, 1024 // dim), dim=dim)
    rows = tile - tile // 10
    lengths = (*[rows] * (TOKENS // rows), TOKENS % rows)
    return Packed(lengths, heads=heads, dim=dim, prefix=rows * 4 // 5)


def measure(key: Key, candidates: Sequence[Candidate], budget_s: float) -> None:
    """Time candidates on the GPU, interleaved and cold, each against the first one's result."""
    from . import attention
    from .bench.attention_peers import forced, named
    from .bench.cases import find_op
    from .bench.correct import first_line
    from .bench.measure import Options, interleave, launches_of, timer_for
    from .bench.peers import Run, grads_of

    device = torch.device("cuda")
    dtype = torch.bfloat16 if key[2] == 2 else torch.float32
    inputs: Any = find_op("attention").build(problem(key), device, dtype, 0)
    q, k, v = inputs.leaves
    softcap = 30.0 if key[3] == 1 else None  # what the rows of tile 1 are for
    mode = "fwd" if key[0].endswith("fwd") else "bwd"
    options = Options(budget_s=budget_s, caches=("cold",))
    expected: dict[str, torch.Tensor] | None = None
    launches, owners = [], []
    for candidate in candidates:
        run = Run(
            inputs,
            lambda: attention(q, k, v, inputs.intervals, softcap=softcap),
            grads_of(inputs),
            named,
            around=partial(_both, partial(forced, "attention", "triton"), key, candidate.config),
        )
        try:
            with run.around():
                out = run.forward()
                got = named(out.detach(), grads_of(inputs)(out))
            expected = expected or got
            worst = max(_distance(got[name], expected[name]) for name in got)
        except (RuntimeError, ValueError) as error:
            candidate.refused = first_line(error)
            continue
        if not worst < 0.02:
            candidate.refused = f"result differs from the frozen row's by {worst:.3f} in norm"
            continue
        launches += launches_of(str(candidate.config), run, [mode], options.caches)
        owners.append(candidate)
    interleave(launches, timer_for(device), options)
    for candidate, launch in zip(owners, launches, strict=True):
        candidate.times_ms = launch.samples
        candidate.refused = launch.failed


@contextmanager
def _both(around: Any, key: Key, config: Config) -> Iterator[None]:
    from .attention_triton.alternatives import override

    with around(), override({key: config}):
        yield


def _distance(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.float() - expected.float()).norm() / expected.float().norm())


# The command -------------------------------------------------------------------------------------


def _name(key: Key) -> str:
    return " ".join(str(part) for part in key)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, or 2 where nothing can be compiled or chosen."""
    parser = argparse.ArgumentParser(prog="python -m kernels.tune", description=__doc__)
    parser.add_argument("--kernel", help="rows of one kernel, e.g. doc_bwd (all)")
    parser.add_argument("--dim", type=int, help="rows of one padded head dimension (all)")
    parser.add_argument("--bytes", type=int, choices=(2, 4), default=2, help="of an element (2)")
    parser.add_argument("--tile", type=int, help="rows of one tile; 0, 1: tiled path (all)")
    parser.add_argument("--jobs", type=int, default=2, help="compiling processes (2)")
    parser.add_argument("--budget", type=float, default=8.0, help="seconds of timing a row (8)")
    parser.add_argument("--top", type=int, default=5, help="lines a row (5)")
    args = parser.parse_args(arguments)
    from .attention_triton.alternatives import alternatives
    from .attention_triton.table import frozen
    from .offline.cases import require_compiler

    try:
        require_compiler()
    except RuntimeError as error:
        _say(f"kernels.tune: {error}")
        return 2
    wanted = (args.kernel, args.dim, args.bytes, args.tile)
    rows = {
        key: config
        for key, config in frozen().items()
        if all(want in (None, part) for want, part in zip(wanted, key, strict=True))
    }
    if not rows:
        _say(f"kernels.tune: no frozen row is {wanted}; None stands for any")
        return 2
    timed = torch.cuda.is_available()
    if not timed:
        print("# No GPU here: ranked by what the compiler counts for sm_90; nothing was timed.")
    for key, config in rows.items():
        candidates = count(key, alternatives(key, config), args.jobs)
        usable = rank(candidates)
        if timed and usable:
            first = [c for c in usable if c is candidates[0]]
            measure(key, [*first, *(c for c in usable if c not in first)], args.budget)
            usable = rank(candidates)
        _report(key, candidates, usable[: args.top])
    return 0


def _report(key: Key, candidates: Sequence[Candidate], best: Sequence[Candidate]) -> None:
    now = candidates[0]
    refused = sum(bool(candidate.refused) for candidate in candidates)
    print(f"# {_name(key)}: {len(candidates)} configurations, {refused} refused")
    if now.refused:
        print(f"# the frozen row is refused: {now.refused}")
    for candidate in best:
        print(paste(key, candidate, now) + (" (frozen)" if candidate is now else ""))
    if now not in best and not now.refused:
        print(paste(key, now) + " (frozen)")


if __name__ == "__main__":
    sys.exit(main())
