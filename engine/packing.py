"""Best-fit packing of sequence lengths into rows of a fixed length (C++, ``csrc/packing.cpp``).

A fixed-length row is worth its padding for T <= 2048; longer rows are filled flat, in shuffled
order, and need none of this. ``python -m engine.packing --bench`` prints the rate.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Packing(NamedTuple):
    """Which bin each sequence lies in."""

    bin_of: NDArray[np.int32]
    """[n] bin of each sequence, numbered from 0 in the order in which bins were opened."""
    num_bins: int
    """Number of bins opened."""


def pack_best_fit(
    lengths: NDArray[np.int32] | NDArray[np.int64] | Sequence[int], capacity: int
) -> Packing:
    """Put sequences into as few bins of ``capacity`` tokens as best-fit decreasing finds.

    Longest first, each sequence goes into the bin with the least free space that still takes it,
    else into a new one (Ding et al. 2024, arXiv:2404.10830, without their truncation). Cost is
    O(n * capacity / 64). The result is a pure function of the arguments: sequences of one length
    are placed in index order, and of several equally full bins the one added to last is taken.

    Args:
        lengths: [n] tokens in each sequence, int32 or int64, or a sequence of ints.
        capacity: tokens a bin holds, 1 to 2**20.

    Raises:
        ValueError: a length below 1 or above ``capacity`` (naming its index), a capacity out of
            range, an array of another type or number of dimensions.
        ImportError: the C++ extension was not built.

    Example:
        >>> bin_of, num_bins = pack_best_fit([5, 3, 4, 2], capacity=7)
        >>> bin_of.tolist(), num_bins
        ([0, 1, 1, 0], 2)
    """
    try:
        import _native
    except ImportError as error:
        raise ImportError(
            "the C++ extension _native is not built; with a C++20 compiler and Python's headers "
            "at hand (Debian: apt-get install g++ python3-dev) type: pip install -e ."
        ) from error
    if not isinstance(lengths, np.ndarray):
        lengths = np.asarray(lengths, dtype=None if len(lengths) else np.int64)
    return Packing(*_native.pack_best_fit(lengths, capacity))


def caption_lengths(count: int, *, seed: int = 0) -> NDArray[np.int32]:
    """Draw lengths like those of BabyVLM's captions: 49 image tokens and a log-normal text.

    The text has a median of 8 tokens and at most 62, which gives a mean length near 60.
    """
    text = np.random.default_rng(seed).lognormal(np.log(8.0), 0.77, count)
    return (49 + np.clip(np.rint(text), 1, 62)).astype(np.int32)


def benchmark(count: int, capacity: int, *, repeats: int = 5) -> str:
    """Pack ``count`` caption-like lengths ``repeats`` times on one core; a line with the best."""
    lengths = caption_lengths(count)
    seconds = []
    packing = pack_best_fit(lengths[:1], capacity)
    for _ in range(repeats):
        start = time.perf_counter()
        packing = pack_best_fit(lengths, capacity)
        seconds.append(time.perf_counter() - start)
    share = int(lengths.sum()) / (packing.num_bins * capacity)
    return (
        f"capacity {capacity:>5,}: {count:,} sequences into {packing.num_bins:,} bins, "
        f"{share:.1%} real tokens, {count / min(seconds) / 1e6:.1f} million sequences/s"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m engine.packing", description=__doc__)
    parser.add_argument("--bench", action="store_true", required=True, help="measure the rate")
    parser.add_argument("--sequences", type=int, default=2_000_000, help="default: %(default)s")
    parser.add_argument("--capacity", type=int, nargs="+", default=[512, 2048])
    args = parser.parse_args(arguments)
    try:
        if args.sequences < 1:
            raise ValueError(f"--sequences is {args.sequences}; accepted: 1 or more")
        for capacity in args.capacity:
            print(benchmark(args.sequences, capacity))
    except (ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
