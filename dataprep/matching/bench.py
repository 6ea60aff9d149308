"""``python -m dataprep.matching.bench``: our matching beside SciPy's, on frames like a video's.

Each method runs in a process of its own, which reports its time, its CPU time and the memory that
it took beyond that of the loaded embeddings; a matching that proves something is checked by
`verify` afterwards.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dataprep.matching.baselines import BASELINES, top_candidates
from dataprep.matching.listed import match_listed
from dataprep.matching.result import Matching, verify
from dataprep.matching.solve import match
from dataprep.matching.synthetic import video_like

Load = Callable[[], tuple[np.ndarray, np.ndarray]]


def _embeddings(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    return np.load(folder / "rows.npy"), np.load(folder / "columns.npy")


def _peak_mb() -> float:
    """Largest resident size of this process so far (``getrusage`` also counts its parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _run(folder: Path, method: str, options: dict[str, Any], to: Any) -> None:
    """In a process of its own: one method, and what it took."""
    rows, columns = _embeddings(folder)
    before = _peak_mb()
    began, cpu = time.perf_counter(), time.process_time()
    row: dict[str, Any] = {"method": method}
    try:
        if method in ("auction", "exact"):
            found = match(rows, columns, exact=method == "exact", **options)
        else:
            found = BASELINES[method](rows, columns)
    except (ValueError, MemoryError) as error:
        to.put(row | {"error": str(error)})
        return
    row |= {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
    peak = _peak_mb()
    row |= {"peak_mb": peak, "extra_mb": peak - before}
    row |= {"total": found.total, "unmatched": int((found.columns < 0).sum())}
    if found.prices is not None:
        row |= {"gap": found.gap, "rounds": found.rounds, "bids": found.bids}
        row |= {f"{name}_s": value for name, value in found.seconds.items() if name != "all"}
        began = time.perf_counter()
        proven = verify(rows, columns, found)
        row |= {"verified_gap": (proven - found.total) / proven}
        row |= {"verify_s": time.perf_counter() - began}
    to.put(row)


def _graph(folder: Path, keep: int, to: Any) -> None:
    """In a process of its own: three solvers on one sparse graph, lists not counted.

    A row lists its best columns at the auction's prices: those that are most similar are the same
    for all frames of a long scene, and too few.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    rows, columns = _embeddings(folder)
    prices = match(rows, columns, progress=False).prices
    starts, listed, values = top_candidates(rows, columns, keep, prices)
    shape = (len(rows), len(columns))
    graph = csr_array((3.0 - values.astype(np.float64), listed, starts), shape)

    def scipys() -> float:
        chosen, found = min_weight_full_bipartite_matching(graph)
        return float((3.0 - graph[chosen, found]).sum())

    def ours(exact: bool) -> float:
        found: Matching = match_listed(starts, listed, values, shape[1], exact=exact)
        return found.total

    solvers: dict[str, Callable[[], float]] = {
        f"scipy sparse, K = {keep}": scipys, f"auction, K = {keep}": partial(ours, False),
        f"exact, K = {keep}": partial(ours, True),
    }  # fmt: skip
    for name, solve in solvers.items():
        began, cpu = time.perf_counter(), time.process_time()
        try:
            row: dict[str, Any] = {"method": name, "total": solve()}
        except ValueError as error:
            row = {"method": name, "error": str(error)}
        row |= {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
        to.put(row)
    to.put(None)


def _said(row: dict[str, Any]) -> dict[str, Any]:
    """Print that a method is done, for the slow ones take minutes."""
    took = f"{row['seconds']:.2f} s" if "seconds" in row else row["error"]
    print(f"{row['method']}: {took}", flush=True)
    return row


def _table(results: list[dict[str, Any]], best: float) -> str:
    lines = [
        f"{'method':<24}{'seconds':>9}{'CPU s':>9}{'peak MB':>9}{'below best':>12}  proven gap"
    ]
    for row in results:
        if "error" in row:
            lines.append(f"{row['method']:<24}{row['error']}")
            continue
        gap = f"{row['gap']:.4%}, verified {row['verified_gap']:.4%}" if "gap" in row else ""
        if row.get("unmatched"):
            gap = f"{row['unmatched']:,} rows unmatched"
        peak = f"{row['peak_mb']:,.0f}" if "peak_mb" in row else ""
        lines.append(
            f"{row['method']:<24}{row['seconds']:>9.2f}{row['cpu_s']:>9.2f}{peak:>9}"
            f"{(best - row['total']) / abs(best):>12.4%}  {gap}"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m dataprep.matching.bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000, help="frames (default 10,000)")
    parser.add_argument("--columns", type=int, default=60_000, help="pictures (default 60,000)")
    parser.add_argument("--width", type=int, default=512, help="of the embeddings")
    known = ["auction", "exact", *BASELINES]
    parser.add_argument("--method", action="append", choices=known, help="default: all")
    parser.add_argument("--keep", type=int, default=512, help="columns a row of the sparse graph")
    parser.add_argument("--graph", action="store_true", help="also the solvers on one sparse graph")
    parser.add_argument("--epsilon", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--resume", type=Path, help="folder of the auction's state")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args(argv)
    spawn = multiprocessing.get_context("spawn")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        for what, values in zip(
            ("rows", "columns"), video_like(args.rows, args.columns, args.width), strict=True
        ):
            np.save(folder / f"{what}.npy", values)
        print(f"{args.rows:,} x {args.columns:,} x {args.width} made in "
              f"{time.perf_counter() - began:.0f} s")  # fmt: skip
        options = {"epsilon": args.epsilon, "threads": args.threads, "resume": args.resume}
        for method in args.method or known:
            queue = spawn.Queue()
            process = spawn.Process(target=_run, args=(folder, method, options, queue))
            process.start()
            results.append(_said(queue.get()))
            process.join()
        if args.graph:
            queue = spawn.Queue()
            process = spawn.Process(target=_graph, args=(folder, args.keep, queue))
            process.start()
            while (row := queue.get()) is not None:
                results.append(_said(row))
            process.join()
    totals = [row["total"] for row in results if "total" in row]
    print(_table(results, max(totals, default=1.0)))
    if args.out:
        shape = {"rows": args.rows, "columns": args.columns, "width": args.width}
        args.out.write_text(json.dumps(shape | {"results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
