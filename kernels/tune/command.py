"""Look for better rows of the frozen configurations of every op.

The neighbours of a row are compiled for sm_90; what spills in any variant that really runs is out.
On a GPU the rest is timed through the same launch code as users take, interleaved, beside the
frozen row; without one the counts rank them, and the output says so. Rows are printed ready to be
pasted into the op's table (a rule's exceptions are called MEASURED); nothing is changed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from .providers import PROVIDERS, tunable
from .search import Candidate, count, paste, rank, say
from .timing import measure
from .tunable import Tunable

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, or 2 where nothing can be compiled or chosen."""
    parser = argparse.ArgumentParser(prog="python -m kernels.tune", description=__doc__)
    parser.add_argument("--op", nargs="+", choices=list(PROVIDERS), help="rows of these ops (all)")
    parser.add_argument("--kernel", help="rows of one kernel, e.g. doc_bwd (all)")
    parser.add_argument(
        "--dim", type=int, help="rows of one padded head dimension, width or row length (all)"
    )
    parser.add_argument("--bytes", type=int, choices=(2, 4), default=2, help="of an element (2)")
    parser.add_argument(
        "--tile", type=int, help="rows of one tile; of attention 0, 1: tiled path (all)"
    )
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument(
        "--quick", action="store_true",
        help="compile the base and the heaviest variants alone; look at what you paste without it",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=2, help="compiling processes (2)")
    parser.add_argument("--budget", type=float, default=8.0, help="seconds of timing a row (8)")
    parser.add_argument("--top", type=int, default=5, help="lines a row (5)")
    args = parser.parse_args(arguments)
    from ..offline.cases import require_compiler

    try:
        if not args.list:
            require_compiler()
    except RuntimeError as error:
        say(f"kernels.tune: {error}")
        return 2
    wanted = (args.kernel, args.dim, args.bytes, args.tile)
    rows = [
        (of, key, config)
        for of in map(tunable, args.op or PROVIDERS)
        if args.kernel in (None, *of.kernels)
        for key, config in of.frozen().items()
        if _matches(of.parts(key), wanted)
    ]
    if not rows:
        say(f"kernels.tune: no frozen row is {wanted}; None stands for any")
        return 2
    if args.list:
        for of, key, config in rows:
            timed_on = of.problem(key) or "not timed"
            print(f"{of.op}: {of.name(key)}: {config} | {timed_on}")
        return 0
    timed = torch.cuda.is_available()
    if not timed:
        print("# No GPU here: ranked by what the compiler counts for sm_90; nothing was timed.")
    for of, key, config in rows:
        candidates = count(of, key, of.alternatives(key, config), args.jobs, args.quick)
        usable = rank(candidates)
        note = ""
        if timed and usable:
            first = [c for c in usable if c is candidates[0]]
            order = [*first, *(c for c in usable if c not in first)]
            if not measure(of, key, order, args.budget):
                note = "no case of the workbench takes this row: ranked by counts, not timed"
            usable = rank(candidates)
        _report(of, key, candidates, usable[: args.top], note)
    return 0


def _matches(parts: dict[str, str | int], wanted: Sequence[Any]) -> bool:
    """Whether a row is one of those asked for; all element sizes are where it serves several."""
    kernel, dim, itemsize, tile = wanted
    asked = {"kernel": kernel, "dim": dim, "tile": tile}
    return parts.get("bytes", itemsize) == itemsize and all(
        want is None or parts.get(name) == want for name, want in asked.items()
    )


def _report(
    of: Tunable, key: Any, candidates: Sequence[Candidate], best: Sequence[Candidate], note: str
) -> None:
    now = candidates[0]
    refused = sum(bool(candidate.refused) for candidate in candidates)
    title = of.name(key) if of.op == "attention" else f"{of.op}: {of.name(key)}"
    print(f"# {title}: {len(candidates)} configurations, {refused} refused")
    if note:
        print(f"# {note}")
    if now.refused:
        print(f"# the frozen row is refused: {now.refused}")
    for candidate in best:
        print(paste(key, candidate, now, of) + (" (frozen)" if candidate is now else ""))
    if now not in best and not now.refused:
        print(paste(key, now, of=of) + " (frozen)")
