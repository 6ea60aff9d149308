"""``python -m kernels.offline``: compile every kernel for sm_90, print its counts, fail on spills.

Exit code 0: all pass. 1: some case spills, uses a stack, does not fit or lost its tensor-core
instruction (each is named). 2: nothing could be compiled, or an argument is wrong.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from .cases import CompileCase
from .compiled import Compiled, compile_case, offences
from .providers import PROVIDERS, all_cases

__all__ = ["compile_all", "main", "table"]

COLUMNS = (
    ("warps", lambda c, _: c.options["num_warps"]),
    ("stages", lambda c, _: c.options["num_stages"]),
    ("registers", lambda _, r: r.registers),
    ("stack", lambda _, r: r.stack_bytes),
    ("spill", lambda _, r: r.spill_bytes),
    ("shared", lambda _, r: r.shared_bytes),
    ("wgmma", lambda _, r: r.wgmma),
    ("mma.sync", lambda _, r: r.mma_sync),
    ("cp.async", lambda _, r: r.cp_async),
    ("tma", lambda _, r: r.tma),
    ("16 B loads", lambda _, r: r.loads_16b),
    ("warps/SM", lambda _, r: r.warps_per_sm),
    ("s", lambda _, r: f"{r.compile_s:.1f}"),
)

_CASES: Sequence[CompileCase] = ()
_FRESH = False


def _one(index: int) -> tuple[int, Compiled]:
    return index, compile_case(_CASES[index], fresh=_FRESH)


def compile_all(
    cases: Sequence[CompileCase], *, jobs: int = 2, fresh: bool = False
) -> Iterator[tuple[int, Compiled]]:
    """Yield the index of each case and its counts as they come, from ``jobs`` processes.

    Forked, not spawned: compiled functions cannot be sent to another process, and the CUDA driver,
    which a fork would break, is never touched here.
    """
    global _CASES, _FRESH
    _CASES, _FRESH = cases, fresh
    # The slowest first, as far as one can tell: products that are unrolled into scalar code.
    order = sorted(range(len(cases)), key=lambda i: cases[i].expect != "fma")
    if jobs <= 1 or len(cases) < 2:
        yield from map(_one, order)
        return
    context = multiprocessing.get_context("fork")
    with context.Pool(min(jobs, len(cases))) as pool:
        yield from pool.imap_unordered(_one, order)


def table(results: Sequence[tuple[CompileCase, Compiled]]) -> str:
    """Return the counts as text, one line a case."""
    rows = [["case", *(name for name, _ in COLUMNS), ""]]
    for case, compiled in results:
        counts = [str(value(case, compiled)) for _, value in COLUMNS]
        rows.append([case.label, *counts, "; ".join(offences(case, compiled))])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m kernels.offline",
        description="Compile every Triton kernel for sm_90 without a GPU and check what came out.",
    )
    parser.add_argument("--op", choices=list(PROVIDERS), help="cases of one op")
    parser.add_argument("--kernel", help="cases of one kernel, e.g. doc_fwd")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--json", type=Path, help="also write all counts to this file")
    parser.add_argument("--quick", action="store_true", help="each row's base and heaviest variant")
    parser.add_argument("--fresh", action="store_true", help="compile again what is in the cache")
    options = parser.parse_args(arguments)
    try:
        cases = all_cases(options.op)
    except (RuntimeError, ImportError) as error:
        print(f"kernels.offline: {error}", file=sys.stderr)
        return 2
    if options.kernel is not None:
        known = sorted({case.kernel for case in cases})
        cases = [case for case in cases if case.kernel == options.kernel]
        if not cases:
            print(
                f"kernels.offline: --kernel: one of {', '.join(known)} expected, "
                f"got {options.kernel!r}",
                file=sys.stderr,
            )
            return 2
    if options.quick:
        cases = few_of_each_row(cases)
    return _run(cases, options.jobs, options.fresh, options.json)


def few_of_each_row(cases: Sequence[CompileCase]) -> list[CompileCase]:
    """Return the cases marked quick, and of a row without any its last, the heaviest."""
    last = {(case.kernel, case.row): case for case in cases}
    covered = {(case.kernel, case.row) for case in cases if case.quick}
    return [
        case
        for case in cases
        if case.quick
        or ((case.kernel, case.row) not in covered and case is last[case.kernel, case.row])
    ]


def _run(cases: Sequence[CompileCase], jobs: int, fresh: bool, to: Path | None) -> int:
    begin = time.perf_counter()
    found: dict[int, Compiled] = {}
    for index, compiled in compile_all(cases, jobs=jobs, fresh=fresh):
        found[index] = compiled
        _progress(len(found), len(cases), begin)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    results = [(case, found[index]) for index, case in enumerate(cases)]
    print(table(results))
    bad = [(case, what) for case, compiled in results for what in offences(case, compiled)]
    if to is not None:
        to.write_text(json.dumps([_record(*result) for result in results], indent=1) + "\n")
    spent = time.perf_counter() - begin
    rows = len({(case.kernel, case.row) for case in cases})
    print(f"{len(cases)} cases of {rows} rows for sm_90 in {spent:.0f} s, {len(bad)} offences")
    for case, what in bad:
        print(f"kernels.offline: {case.op}: {case.label}: {what}", file=sys.stderr)
    return 1 if bad else 0


def _progress(done: int, total: int, begin: float) -> None:
    spent = time.perf_counter() - begin
    rate = done / max(spent, 1e-9)
    line = f"{done}/{total} cases, {rate:.1f} a second, {(total - done) / rate:.0f} s left"
    if sys.stderr.isatty():
        print(f"\r{line:<60}", end="", file=sys.stderr, flush=True)
    elif done % 50 == 0 or done == total:
        print(line, file=sys.stderr, flush=True)


def _record(case: CompileCase, compiled: Compiled) -> dict[str, object]:
    return {
        "op": case.op,
        "kernel": case.kernel,
        "row": list(case.row),
        "variant": case.variant,
        "expect": case.expect,
        "options": dict(case.options),
        **asdict(compiled),
        "offences": offences(case, compiled),
    }


if __name__ == "__main__":
    sys.exit(main())
