"""``python -m kernels.bench``: measure, list, count, and turn result files into tables.

python -m kernels.bench --list
python -m kernels.bench --counts
python -m kernels.bench --peers all --out results.json --plot pictures
python -m kernels.bench --smoke --out smoke.json
python -m kernels.bench --table results.json --readme README.md --plot pictures
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from . import load_ops
from .cases import cases, ops, select_cases
from .counts import counts_table
from .measure import Options
from .peers import peers, select_peers
from .plot import draw
from .results import Report, load
from .run import Settings, measure_cases
from .tables import refuse_smoke, render, update_readme

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_SMOKE = Options(budget_s=0.1, min_rounds=3, max_rounds=3, warmup=1, host_calls=2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kernels.bench",
        description="Measure the ops against their peers and their floor.",
    )
    what = parser.add_argument_group("what")
    what.add_argument("--op", nargs="+", help="ops (all)")
    what.add_argument("--case", nargs="+", help="cases (all)")
    what.add_argument(
        "--peers", default="all", help="all, ours, or names by commas; -name: without"
    )
    what.add_argument("--dtype", choices=_DTYPES, default="bf16")
    what.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    what.add_argument("--seed", type=int, default=0)
    how = parser.add_argument_group("how long")
    how.add_argument("--budget", type=float, default=8.0, help="seconds of timing a case (8)")
    how.add_argument("--limit", type=float, help="start no case after this many seconds")
    how.add_argument("--smoke", action="store_true", help="tiny problems; the times mean nothing")
    files = parser.add_argument_group("files")
    files.add_argument("--out", type=Path, metavar="FILE.json", help="written after every case")
    files.add_argument("--append", action="store_true", help="keep the reports that --out holds")
    files.add_argument("--table", type=Path, metavar="FILE.json", help="print a file as markdown")
    files.add_argument("--readme", type=Path, metavar="FILE.md", help="with --table: put it there")
    files.add_argument("--plot", type=Path, metavar="DIR", help="draw bars and roofline")
    show = parser.add_argument_group("show")
    show.add_argument("--list", action="store_true", help="ops, cases and peers; measure nothing")
    show.add_argument("--counts", action="store_true", help="bytes and flops beside the floor")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code.

    0 all well, 1 an implementation of ours is wrong or failed, 2 what was asked for is not there.
    """
    args = _parser().parse_args(argv)
    load_ops()
    try:
        return _run(args)
    except ValueError as error:
        print(f"kernels.bench: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    if args.readme and not args.table:
        raise ValueError("--readme: needs --table FILE.json")
    if args.append and not args.out:
        raise ValueError("--append: needs --out FILE.json")
    chosen = select_cases(args.op, args.case)
    chosen_peers = select_peers(args.peers, list(dict.fromkeys(case.op for case in chosen)))
    device = _device(args.device)
    if args.list:
        _list(device)
        return 0
    if args.counts:
        print(counts_table(chosen, _DTYPES[args.dtype]))
        return 0
    if args.table:
        _tables(args.table, args.readme, args.plot, args.smoke)
        return 0
    if device.type == "cpu" and not args.smoke:
        raise ValueError("--device: no NVIDIA GPU here; --smoke runs tiny problems on the CPU")
    if args.smoke:
        print("SMOKE RUN: tiny problems. That they run is what it shows; the times mean nothing.")
    before = load(args.out) if args.append and args.out.exists() else []
    settings = Settings(
        device=device,
        dtype=_DTYPES[args.dtype],
        seed=args.seed,
        smoke=args.smoke,
        limit_s=args.limit,
        options=_SMOKE if args.smoke else Options(budget_s=args.budget),
    )
    report = measure_cases(chosen, chosen_peers, settings, out=args.out, before=before, say=_say)
    if args.out:
        print(f"{args.out}: {len(report.rows)} rows")
    if args.plot:
        for path in draw([report], args.plot):
            print(path)
    return _exit_code(report)


def _say(line: str) -> None:
    print(line, flush=True)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: no NVIDIA GPU here")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name, torch.cuda.current_device()) if name == "cuda" else torch.device(name)


def _exit_code(report: Report) -> int:
    for case, why in report.header["given_up"].items():
        print(f"{case} given up: {why}", file=sys.stderr)
    red = [row for row in report.find(metric="none", ours=True) if row.gate in ("red", "failed")]
    for row in red:
        print(f"{row.op} {row.case} {row.provider}: {row.detail}", file=sys.stderr)
    return 1 if red or report.header["given_up"] else 0


def _list(device: torch.device) -> None:
    for op in ops():
        print(f"{op.name}: {op.doc} ({', '.join(op.modes)})")
        print("  cases")
        for case in cases(op.name):
            print(f"    {case.name:<16} {case.doc}: {case.spec('full')}")
        print("  peers")
        for peer in peers(op.name):
            why = peer.available(device)
            print(f"    {peer.name:<16} {peer.doc}{f' [{why}]' if why else ''}")


def _tables(path: Path, readme: Path | None, plot: Path | None, smoke: bool) -> None:
    reports = load(path)
    if not smoke:
        refuse_smoke(reports, path)
    text = render(reports)
    if readme is None:
        print(text)
    else:
        print(f"{readme}: {'rewritten' if update_readme(readme, text) else 'unchanged'}")
    if plot is not None:
        for drawn in draw(reports, plot):
            print(drawn, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
