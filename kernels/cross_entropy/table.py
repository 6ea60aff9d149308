"""How linear cross-entropy runs: which algorithm, how many rows at a time, which tiles. Frozen.

The algorithm follows from shapes alone. Counted for 65,536 rows in bf16 on an H200 (790 TFLOP/s of
products, 4.3 TB/s of copy; a product takes 2 T H V operations, a pass reads or writes T V logits):

    H    V       one product  one pass  chunks: 3 products,  recomputed:  products at a
                                        2 passes beside      5 products   Triton rate of 500
    128  50,304  1.07 ms      1.53 ms   7.66 ms              5.34 ms      8.4 ms
    256  2,350   0.10         0.072     0.44                 0.50         0.79
    256  50,304  2.14         1.53      9.48                 10.7         16.9
    512  50,304  4.27         1.53      15.9                 21.4         33.8
    768  50,304  6.41         1.53      22.3                 32.0         50.6
    768  256,000 32.6         7.80      113                  163          258

- *Chunks* (training): the logits of some thousand rows are made by cuBLAS, one launch turns them
  into losses and gradients in place (one pass to read, one to write: 3.07 ms at V = 50,304), two
  products consume them. Each product also moves one pass of logits; it is counted as the longer
  of the two (below H = 183 the pass is).
- *Recomputed* (no logits in memory): dX and dW each need the logits again, so five products. On
  counts it wins only below H = 183; a Triton product with a softmax inside reaches some 500
  TFLOP/s, a cuBLAS product some 700, which moves that to H of about 120, where the whole op is a
  few milliseconds. Two-kernel recomputation was therefore left out. One kernel for both, as in
  cut-cross-entropy, needs atomics or locks: another result on every run.
- *Fused* (no gradient wanted: scoring, validation, and the forward pass of ``reduction="none"``):
  one product, its logits never stored. Chunks would add two passes: 6.41 + 3.07 ms at H = 768.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "FusedConfig", "Kind", "RowConfig", "chunk_rows", "fused_config", "fused_frozen", "row_config",
    "row_frozen", "splits",
]  # fmt: skip

Kind = Literal["plain", "dressed", "wide"]

# Bytes that training may use beside its inputs: logits of a chunk, the float32 sum of dW, dX. A GiB
# less what cuBLAS keeps for itself; but logits of half a GiB in any case, for each chunk adds to
# all of dW.
EXTRA_BYTES = 896 << 20
LEAST_BYTES = 512 << 20
# Of an H200. Another number changes how well the last wave is filled, no result.
MULTIPROCESSORS = 132
# Tiles of the product dX = dlogits @ W, the only one of the three with few tiles.
_TILE_ROWS, _TILE_COLUMNS = 128, (256, 128)
# On a CPU smaller chunks stay in cache, larger ones make threads meet less often; of a large
# vocabulary each chunk adds to all of dW. Time over plain PyTorch's, forward and backward, on a
# busy machine: 8,192 x 256 x 2,350 in chunks of 512, 1024, 2048, 3569 and all rows, one thread
# 0.67, 0.68, 0.70, 0.71, 0.77, two 0.73, 0.74, 0.75, 0.75, 0.76; 1,024 x 768 x 50,304 in chunks of
# 512 and 1024, one thread 0.91, 0.92, two 0.89, 0.88.
_CPU_BYTES = 32 << 20
_CPU_ROWS = 1024


@dataclass(frozen=True)
class RowConfig:
    """How the row kernel is compiled and how many of its programs share a multiprocessor."""

    block: int
    """Columns of a step."""
    warps: int
    per_sm: int
    lane: int = 8
    """Columns that one thread takes together: 16 bytes."""


@dataclass(frozen=True)
class FusedConfig:
    """How the fused forward is compiled."""

    rows: int = 128
    columns: int = 128
    depth: int = 64
    warps: int = 4
    stages: int = 3


# (most columns, kind) -> configuration. Kinds: plain; dressed (fp16 and bf16 with a bias, soft cap,
# smoothing or class weights); wide (float32). Four to sixteen columns a thread: 16 or 32 KB in
# flight a multiprocessor, and registers that hold every option without a spill. Short rows: many
# small programs, whose second pass meets L1. Long rows: two programs of 16 warps a multiprocessor,
# so that 264 rows (26 MB at V = 50,304) wait for their second pass in an L2 of 50 MB; four times
# as many would not.
_ROWS: dict[tuple[int, Kind], RowConfig] = {
    (4_096, "plain"): RowConfig(512, 2, 32),
    (4_096, "dressed"): RowConfig(512, 2, 32),
    (4_096, "wide"): RowConfig(256, 2, 32, lane=4),
    (16_384, "plain"): RowConfig(2048, 8, 8),
    (16_384, "dressed"): RowConfig(2048, 8, 8),
    (16_384, "wide"): RowConfig(1024, 8, 8, lane=4),
    (1 << 31, "plain"): RowConfig(8192, 16, 2),
    (1 << 31, "dressed"): RowConfig(4096, 16, 2),
    (1 << 31, "wide"): RowConfig(2048, 16, 2, lane=4),
}
# 128 x 128 in four warps: 255 registers, two programs a multiprocessor, so that one multiplies
# while the other takes exponentials. Class weights under smoothing spill there: eight warps.
_FUSED: dict[bool, FusedConfig] = {False: FusedConfig(), True: FusedConfig(warps=8)}
_PROGRAMS = 4096
"""Programs of a fused launch: 16 waves, of which the last wastes little."""
PARTS = 128
"""Most parts of a row: as many programs as multiprocessors for a single tile of rows."""


def row_config(vocab: int, dressed: bool, itemsize: int) -> RowConfig:
    """Return the row kernel's configuration for ``vocab`` columns."""
    kind = "wide" if itemsize == 4 else "dressed" if dressed else "plain"
    return next(row for (most, of), row in _ROWS.items() if vocab <= most and of == kind)


def fused_config(weighted: bool) -> FusedConfig:
    """Return the fused kernel's; ``weighted``: label smoothing with class weights."""
    return _FUSED[weighted]


def row_frozen() -> dict[tuple[int, Kind], RowConfig]:
    """Return all rows of the row kernel's table: ``(most columns, kind)`` to configuration."""
    return dict(_ROWS)


def fused_frozen() -> dict[bool, FusedConfig]:
    """Return all rows of the fused kernel's table."""
    return dict(_FUSED)


def splits(rows: int, vocab: int, config: FusedConfig) -> tuple[int, int]:
    """Into how many parts the fused forward cuts the vocabulary, and the tiles of each.

    Enough programs for some waves, but parts of at least four tiles, none empty, at most PARTS.
    """
    row_tiles, tiles = -(-rows // config.rows), -(-vocab // config.columns)
    wanted = min(-(-_PROGRAMS // row_tiles), max(1, tiles // 4), PARTS)
    each = -(-tiles // wanted)
    return -(-tiles // each), each


def chunk_rows(rows: int, width: int, vocab: int, itemsize: int, device: str) -> int:
    """How many rows' logits are made at a time.

    On a GPU: all if they fit, else the number that leaves the last waves of the dX products
    fullest. At H = 768, V = 50,304 that is 5,632 rows (44 x 3 tiles, exactly one wave of 132).
    """
    if device != "cuda":
        return min(rows, max(_CPU_ROWS, _CPU_BYTES // (vocab * itemsize)))
    budget = EXTRA_BYTES - vocab * width * 4 - rows * width * itemsize
    most = max(1, max(budget, LEAST_BYTES) // (vocab * itemsize))
    if rows <= most:
        return rows
    tiles = most // _TILE_ROWS
    if tiles == 0:
        return most
    counts = range(max(1, tiles // 2), tiles + 1)
    return _TILE_ROWS * min(counts, key=lambda count: (_dx_time(rows, width, count), -count))


def _dx_time(rows: int, width: int, tiles: int) -> int:
    """Time of the dX products in chunks of ``tiles`` row tiles: waves, in columns of a tile."""
    whole, rest = divmod(-(-rows // _TILE_ROWS), tiles)

    def time(columns: int) -> int:
        across = -(-width // columns)
        waves = whole * -(-tiles * across // MULTIPROCESSORS) - (-rest * across // MULTIPROCESSORS)
        return waves * columns

    return min(map(time, _TILE_COLUMNS))
