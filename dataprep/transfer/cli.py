"""``python -m dataprep match``: the transferred corpus."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from dataprep.similarity.cli import add_scorer

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add ``match`` to ``python -m dataprep``."""
    match = commands.add_parser(
        "match",
        help="for every child frame a different general picture with its words, most alike in all",
    )
    match.add_argument("frames", type=Path, help="corpus of the child's frames")
    match.add_argument("pool", type=Path, help="corpus of general pictures, words rewritten")
    match.add_argument("--out", type=Path, required=True, help="corpus directory to make")
    match.add_argument("--frames-split", default="train", help="split of FRAMES (train)")
    match.add_argument("--pool-split", default="train", help="split of POOL (train)")
    match.add_argument(
        "--by", choices=("images", "texts", "image-text"), default="images",
        help="what is compared: pictures (as published), words, or frames with the pool's words",
    )  # fmt: skip
    match.add_argument(
        "--method",
        choices=("auction", "exact", "dense", "sparse", "blockwise", "greedy", "random"),
        default="auction",
        help="auction: within epsilon a frame of the optimum, with proof (default); exact: the "
        "optimum; dense, sparse: SciPy's; blockwise: Hungarian in random blocks; greedy; random: "
        "the paper's control",
    )
    match.add_argument("--epsilon", type=float, default=1e-4, help="of the auction (1e-4)")
    match.add_argument("--per-row", type=int, default=1, help="pictures for each frame (1)")
    match.add_argument(
        "--reject-below", type=float, help="leave a frame out rather than go below this similarity"
    )
    match.add_argument(
        "--quota", action="append", default=[], metavar="SOURCE=N",
        help="at most N pictures of a source (may be given several times)",
    )  # fmt: skip
    match.add_argument("--most", type=int, help="keep only the N most similar pairs")
    match.add_argument("--keep", type=int, default=512, help="lists of sparse and greedy (512)")
    match.add_argument("--blocks", type=int, default=5, help="of blockwise (5)")
    match.add_argument("--seed", type=int, default=0, help="of blockwise, random, the control (0)")
    match.add_argument(
        "--verify", action="store_true", help="check the result with NumPy over all pairs"
    )
    add_scorer(match)
    match.add_argument("--frames-stores", type=Path, help="default FRAMES.embeddings")
    match.add_argument("--pool-stores", type=Path, help="default POOL.embeddings")
    match.add_argument("--work", type=Path, help="state of the matching (default OUT.work)")
    match.add_argument(
        "--sheet", type=Path,
        help="picture of matched pairs (default OUT.sheet.png; it shows child frames, so it is not "
        "part of the corpus)",
    )  # fmt: skip
    match.add_argument("--memory-gib", type=float, help="for the matching's tiles and lists (1)")
    match.add_argument("--threads", type=int, help="processor cores of the matching (all)")
    match.add_argument("--name", default="transferred", help="name of the corpus made")
    match.add_argument(
        "--mixed", type=Path, metavar="DIR",
        help="also write FRAMES and OUT mixed, what training reads (see `merge` for more ways)",
    )  # fmt: skip
    match.add_argument("--force", action="store_true", help="replace an existing corpus")
    match.set_defaults(run=_match)


def _match(arguments: argparse.Namespace) -> None:
    from dataprep.similarity.cli import describe
    from dataprep.similarity.embed import stores_of
    from dataprep.similarity.scorers import open_scorer
    from dataprep.sources.write import check_out
    from dataprep.transfer.methods import Method
    from dataprep.transfer.stage import Options, transfer
    from engine import read_corpus

    started = time.monotonic()
    if arguments.mixed is not None:
        check_out(arguments.mixed, arguments.force)
    frames, pool = read_corpus(arguments.frames), read_corpus(arguments.pool)
    method = Method(
        arguments.method, arguments.epsilon, arguments.per_row, arguments.reject_below,
        dict(_limit(text) for text in arguments.quota), arguments.keep, arguments.blocks,
        arguments.seed,
    )  # fmt: skip
    memory = None if arguments.memory_gib is None else int(arguments.memory_gib * (1 << 30))
    options = Options(
        method=method, frames_split=arguments.frames_split, pool_split=arguments.pool_split,
        by=arguments.by, most=arguments.most, verify=arguments.verify, name=arguments.name,
        batch_size=arguments.batch_size, memory_bytes=memory, threads=arguments.threads,
        device=arguments.device,
    )  # fmt: skip
    scorer = open_scorer(arguments.scorer, arguments.device)
    print(describe(scorer))
    out = arguments.out
    sheet = arguments.sheet or out.with_name(f"{out.name}.sheet.png")
    done = transfer(
        frames, pool, scorer, out, options=options,
        stores=(arguments.frames_stores or stores_of(frames),
                arguments.pool_stores or stores_of(pool)),
        work=arguments.work or out.with_name(f"{out.name}.work"), sheet=sheet,
        force=arguments.force,
    )  # fmt: skip
    found, proof = done.matching, done.certificate
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in found.seconds.items())
    print(f"{done.frames:,} frames x {done.pool:,} pictures by {found.method}: {spent}")
    print(f"  matched {proof['matched']:,}, total {found.total:.3f}, mean similarity "
          f"{proof['mean_similarity']:.4f} (random {done.random_mean:.4f})")  # fmt: skip
    if proof["bound"] is not None:
        print(f"  no assignment is above {proof['bound']:.3f}: gap at most {proof['gap']:.5%}")
    else:
        print("  this method proves nothing about all pairs")
    if proof["verified_bound"] is not None:
        print(f"  verified by NumPy over all pairs: bound {proof['verified_bound']:.3f}")
    elif options.verify:
        print("  verified by NumPy: different pictures, true similarities, true total")
    print(f"{out}: {done.written:,} pictures in {time.monotonic() - started:.0f} s")
    print(f"{sheet}: pairs side by side; shows frames of {frames.path}")
    if arguments.mixed is not None:
        from dataprep.tools.merge import merge

        counts = merge([frames.path, out], arguments.mixed, force=arguments.force)
        mixed = ", ".join(f"{split} {sum(by.values()):,}" for split, by in counts.items())
        print(f"{arguments.mixed}: {mixed} pairs")


def _limit(text: str) -> tuple[str, int]:
    name, equals, number = text.rpartition("=")
    if not equals or not name or not number.isdigit():
        raise ValueError(f"--quota {text}: accepted: SOURCE=N, for example laion=20000")
    return name, int(number)
