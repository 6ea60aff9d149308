"""What each of our attention paths moves and multiplies, counted on the host, beside the floor.

Counted are the loads and stores that programs issue, in sectors of 32 bytes, and the products as
padded and tiled; masked-off rows are not moved. What is read again is counted again: it comes from
the L2 cache at best. The floor is `Op.work`: each tensor once, visible pairs only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from kernels.attention_triton.table import config, document_tile, is_many_heads, padded_dim
from kernels.intervals import Intervals

from .attention_cases import Packed
from .cases import Case, find_op

__all__ = [
    "NOMINAL_COPY",
    "NOMINAL_MATMUL",
    "Count",
    "PathShape",
    "count_path",
    "counts_table",
    "paths_of",
    "visited_tiles",
]

SECTOR = 32
NOMINAL_COPY, NOMINAL_MATMUL = 4.3e12, 790e12
"""Rates that the printed floor times assume (an H200's copy and dense bf16 product, rounded)."""

Walk = Literal["groups", "queries", "keys"]
"""What a program owns: a group of whole documents, a block of query rows, a block of key rows."""


@dataclass(frozen=True)
class PathShape:
    """The tiles of one kernel, as its frozen configuration has them.

    ``products`` holds, for each product of a tile, the dimension that is neither queries nor keys,
    as padded. ``columns`` is how many heads lie side by side in one load.
    """

    kernel: str
    mode: Literal["fwd", "bwd"]
    walk: Walk
    block_q: int
    block_k: int
    products: tuple[int, ...]
    columns: int = 1


@dataclass(frozen=True)
class Count:
    """Bytes moved, floating-point operations, and (query, key) tiles visited over all heads."""

    bytes: int
    flops: int
    tiles: int

    def __add__(self, other: Count) -> Count:
        """Add the counts of two kernels."""
        return Count(self.bytes + other.bytes, self.flops + other.flops, self.tiles + other.tiles)


# Shapes ------------------------------------------------------------------------------------------


def paths_of(spec: Packed, dtype: torch.dtype) -> dict[tuple[str, str], list[PathShape]]:
    """Return ``(mode, path)`` to its kernels: the whole-document path where there is one, tiled.

    The whole-document path comes first; it is what runs when it is there.
    """
    found: dict[tuple[str, str], list[PathShape]] = {}
    for mode in ("fwd", "bwd"):
        tile = document_tile(mode, spec.dim, dtype, spec.longest, softcap=False)
        if tile and is_many_heads(spec.dim):
            found[mode, f"many heads, tile {tile}"] = [_heads_shape(mode, spec, dtype, tile)]
        elif tile:
            found[mode, f"whole documents, tile {tile}"] = [_doc_shape(mode, spec, dtype, tile)]
        found[mode, "tiled"] = _tiled_shapes(mode, spec, dtype)
    return found


def _doc_shape(
    mode: Literal["fwd", "bwd"], spec: Packed, dtype: torch.dtype, tile: int
) -> PathShape:
    kernel = "doc_fwd" if mode == "fwd" else "doc_bwd"
    c = config(kernel, spec.dim, dtype, tile)
    products = (padded_dim(spec.dim),) * (2 if mode == "fwd" else 5)
    return PathShape(kernel, mode, "groups", c.block_q, tile, products)


def _heads_shape(
    mode: Literal["fwd", "bwd"], spec: Packed, dtype: torch.dtype, tile: int
) -> PathShape:
    kernel = "heads_fwd" if mode == "fwd" else "heads_bwd"
    c = config(kernel, spec.dim, dtype, tile)
    # D is summed over in q kᵀ and dout vᵀ and zero-padded to 16 there; elsewhere it is a side.
    inner, side = max(spec.dim, 16), spec.dim
    products = (inner, side) if mode == "fwd" else (inner, inner, side, side, side)
    return PathShape(kernel, mode, "groups", c.block_q, tile, products, c.heads)


def _tiled_shapes(mode: Literal["fwd", "bwd"], spec: Packed, dtype: torch.dtype) -> list[PathShape]:
    dim = padded_dim(spec.dim)
    if mode == "fwd":
        c = config("tiled_fwd", spec.dim, dtype)
        return [PathShape("tiled_fwd", mode, "queries", c.block_q, c.block_k, (dim,) * 2)]
    dq, dkv = config("tiled_dq", spec.dim, dtype), config("tiled_dkv", spec.dim, dtype)
    return [
        PathShape("tiled_dq", mode, "queries", dq.block_q, dq.block_k, (dim,) * 3),
        PathShape("tiled_dkv", mode, "keys", dkv.block_q, dkv.block_k, (dim,) * 4),
    ]


# Tiles -------------------------------------------------------------------------------------------


def visited_tiles(mask: Intervals, walk: Walk, own: int, walked: int) -> tuple[int, int]:
    """Return (tiles that one head's programs visit, rows of the walked side they load).

    Args:
        mask: on the host.
        walk: ``queries``: blocks of ``own`` query rows walk over keys; ``keys``: the transpose.
            ``groups``: blocks of ``walked`` queries inside each group of at most ``own`` rows,
            each of which is one tile as wide as the group's.
        own: rows of a program's block (groups: of its tile).
        walked: rows of a step.
    """
    if walk == "groups":
        sizes = (mask.groups[own][:, 1] - mask.groups[own][:, 0]).tolist()
        return sum(-(-size // walked) for size in sizes), sum(sizes)
    low, high = (mask.start, mask.stop) if walk == "queries" else (mask.q_start, mask.q_stop)
    first = torch.arange(0, mask.num_rows, own)
    last = torch.clamp(first + own, max=mask.num_rows) - 1
    # Ends never decrease along the row: the first row bounds the walk below, the last above.
    begin, end = low[first].long(), high[last].long()
    steps = torch.clamp(end - begin + walked - 1, min=0) // walked
    rows = torch.minimum(begin + steps * walked, torch.tensor(mask.num_rows)) - begin
    tiles, loaded = int(steps.sum()), int(torch.where(steps > 0, rows, 0).sum())
    if mask.start2 is not None:
        more = [_second_steps(mask, walk, int(a), own, walked) for a in first]
        tiles, loaded = tiles + sum(t for t, _ in more), loaded + sum(r for _, r in more)
    return tiles, loaded


def _second_steps(mask: Intervals, walk: Walk, at: int, own: int, walked: int) -> tuple[int, int]:
    """Tiles and rows of the second interval (branches) of the block that begins at row ``at``."""
    assert mask.start2 is not None and mask.stop2 is not None
    assert mask.q_start2 is not None and mask.q_stop2 is not None
    ends = (mask.start2, mask.stop2) if walk == "queries" else (mask.q_start2, mask.q_stop2)
    one, two = (x[at : at + own] for x in ends)
    real = one < two
    if not bool(real.any()):
        return 0, 0
    tiles = rows = 0
    for begin in range(int(one[real].min()), int(two[real].max()), walked):
        stop = min(begin + walked, mask.num_rows)
        if walk == "queries":
            touched = real & (one < begin + walked) & (two > begin)
        else:  # the hull may hold rows of other documents: the rows' own intervals decide
            low, high = mask.start2[begin:stop], mask.stop2[begin:stop]
            touched = (low < at + own) & (high > at) & (low < high)
        if bool(touched.any()):
            tiles, rows = tiles + 1, rows + stop - begin
    return tiles, rows


# Counts ------------------------------------------------------------------------------------------


def count_path(spec: Packed, shapes: Iterable[PathShape], dtype: torch.dtype) -> Count:
    """Count the kernels of one path on one problem."""
    total = Count(0, 0, 0)
    for shape in shapes:
        total = total + _count_kernel(spec, shape, dtype)
    return total


def _count_kernel(spec: Packed, shape: PathShape, dtype: torch.dtype) -> Count:
    mask, rows = spec.intervals(), spec.total
    slab = -(-shape.columns * spec.dim * dtype.itemsize // SECTOR) * SECTOR / shape.columns
    query_row, key_row = spec.heads * slab, spec.kv * slab
    scalar_row, ends_row = spec.heads * 4, 2 * 4 * -(-spec.heads // shape.columns)
    if shape.walk == "groups":
        tiles, rows = visited_tiles(mask, "groups", shape.block_k, shape.block_q)
        if shape.mode == "fwd":  # q, out; k, v by each query head's program; log-sum-exp
            moved = rows * (4 * query_row + scalar_row + ends_row)
        else:  # q, out, dout, dq; k, v, dk, dv; log-sum-exp
            moved = rows * (4 * query_row + 4 * key_row + scalar_row + ends_row)
    elif shape.walk == "queries":
        tiles, walked = visited_tiles(mask, "queries", shape.block_q, shape.block_k)
        # Forward: q, out, log-sum-exp. dQ: q, out, dout, dq, log-sum-exp, delta.
        tensors, scalars = (2, 1) if shape.mode == "fwd" else (4, 2)
        moved = rows * (tensors * query_row + scalars * scalar_row + ends_row)
        moved += walked * 2 * query_row  # k, v by each query head's program
    else:
        tiles, walked = visited_tiles(mask, "keys", shape.block_k, shape.block_q)
        moved = rows * (4 * key_row + 2 * 4 * spec.kv)  # k, v, dk, dv, the transposed ends
        moved += walked * (2 * query_row + 2 * scalar_row)  # q, dout, log-sum-exp, delta
    flops = 2 * shape.block_q * shape.block_k * sum(shape.products)
    return Count(round(moved), tiles * spec.heads * flops, tiles * spec.heads)


def counts_table(cases: Sequence[Case], dtype: torch.dtype = torch.bfloat16) -> str:
    """Return a markdown table: each path of each case beside the case's floor.

    Raises:
        ValueError: none of the cases is of attention.
    """
    chosen = [case for case in cases if case.op == "attention"]
    if not chosen:
        raise ValueError("--counts: counts the paths of attention, and no case of it is chosen")
    lines = [
        "| case | mode | path | MB | of floor | GFLOP | of floor | tiles | floor, ms |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for case in chosen:
        spec = case.spec("full")
        work = find_op("attention").work(spec, dtype)
        for (mode, path), shapes in paths_of(spec, dtype).items():
            floor, count = work[mode], count_path(spec, shapes, dtype)
            ms = 1e3 * max(floor.bytes / NOMINAL_COPY, floor.flops / NOMINAL_MATMUL)
            lines.append(
                f"| {case.name} | {mode} | {path} | {count.bytes / 1e6:,.0f} "
                f"| {count.bytes / floor.bytes:.2f}× | {count.flops / 1e9:,.0f} "
                f"| {count.flops / floor.flops:.2f}× | {count.tiles:,} | {ms:.3f} |"
            )
    lines += [
        "",
        f"Floor times assume {NOMINAL_COPY / 1e12:.1f} TB/s of copy and "
        f"{NOMINAL_MATMUL / 1e12:.0f} TFLOP/s of dense products. Bytes are what programs ask for; "
        "what the tiled path asks for again comes from the L2 cache at best.",
    ]
    return "\n".join(lines)
