"""The vectors and groups of `kernels.intervals` in one small kernel, for a GPU.

Such a kernel waits for memory, so all that can wait at once does: one program makes 256 rows by a
binary search of their document, one packs the documents of one segment into one tile size. Nothing
is read back and all sizes follow from T, so that a CUDA graph can hold it. Values cannot be checked
here: whatever ``cu_seqlens`` says, no vector or group leaves ``[0, T]`` and every loop ends.
"""
# ruff: noqa: ANN001, ANN202  a kernel's arguments have the types of what it is launched with

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .intervals_torch import GROUP_TILES, SEGMENT, RowVectors, branch_hulls

__all__ = ["build", "offline_cases"]

# Counted, not measured: a warp with 8 searches a lane has 8 of the ~log2(D) dependent reads in
# flight, packing reduces within a warp without a barrier, and 132 SMs x 32 programs x 256 rows
# (64 registers a thread) are a million rows in one wave.
BLOCK = 256
NUM_WARPS = 1
NUM_STAGES = 1
# Documents looked at in one step of the packing: one a lane. Only tiles that hold more of them
# take a second step.
CHUNK = 32
# Each vector begins on a 128-byte line, in int32.
LINE = 32
# Groups of a segment: any two in a row together exceed a tile.
_SLOTS = {tile: 2 * SEGMENT // tile + 1 for tile in GROUP_TILES}


@triton.jit
def _inside(value, total):
    """Return ``value`` held within ``[0, total]``."""
    return tl.minimum(tl.maximum(value, 0), total)


@triton.jit
def _last_at_most(cu, bound, documents, top):
    """Return the largest ``p <= documents`` with ``cu[p] <= bound``, for a scalar or a block.

    ``cu[0] <= bound`` is taken for granted; ``top``: the largest power of two in ``documents``.
    A loop of run-time length: another number of documents is no reason to compile anew.
    """
    found = (bound * 0).to(tl.int64)
    step = top
    while step > 0:
        further = found + step
        inside = further <= documents
        value = tl.load(cu + further, mask=inside, other=0)
        found = tl.where(inside & (value <= bound), further, found)
        step = step >> 1
    return found


@triton.jit
def _pack(
    cu,
    groups,
    segment,
    tile,
    slots,
    total,
    documents,
    top,
    SEGMENT: tl.constexpr,
    CHUNK: tl.constexpr,
    FILL: tl.constexpr,
):
    """Greedily fill ``slots`` row ranges with the documents that begin in one segment."""
    edge = segment.to(tl.int64) * SEGMENT
    limit = tl.minimum(edge + SEGMENT, total)
    d = tl.where(segment > 0, _last_at_most(cu, edge - 1, documents, top) + 1, 0)
    at = _inside(tl.load(cu + d, mask=d < documents, other=0), total)  # where document d begins
    begin = at  # of the group that is being filled
    used = 0
    while (d < documents) & (at < limit):
        document = d + tl.arange(0, CHUNK)
        known = document < documents
        first = tl.load(cu + document, mask=known, other=0)
        end = _inside(tl.load(cu + document + 1, mask=known, other=total), total)
        fits = known & (first < limit) & (end - begin <= tile)
        taken = tl.sum(fits.to(tl.int32))
        at = tl.maximum(at, tl.max(tl.where(fits, end, 0)))
        closed = taken < CHUNK
        filled = at > begin
        emit = closed & filled & (used < slots)
        tl.store(groups + 2 * used, begin, mask=emit)
        tl.store(groups + 2 * used + 1, at, mask=emit)
        used += emit.to(tl.int32)
        # Not one fits into an empty tile: document d is longer than a tile, on to the next.
        skip = (taken == 0) & (filled == 0)
        at = tl.where(skip, tl.min(end), at)
        d += taken + skip.to(tl.int32)
        begin = tl.where(closed, at, begin)
    # A group is still open where the segment ended with a full step.
    emit = (at > begin) & (used < slots)
    tl.store(groups + 2 * used, begin, mask=emit)
    tl.store(groups + 2 * used + 1, at, mask=emit)
    used += emit.to(tl.int32)
    rest = tl.arange(0, FILL)
    tl.store(groups + rest, 0, mask=(rest >= 2 * used) & (rest < 2 * slots))


@triton.jit(
    do_not_specialize=["total", "documents", "top", "window", "packers"],
    do_not_specialize_on_alignment=["cu", "prefix_lens", "branches", "hulls"],
)
def intervals_kernel(
    cu,
    prefix_lens,
    branches,
    hulls,
    out,
    total,
    documents,
    top,
    window,
    stride,
    packers,
    CAUSAL: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    SEGMENT: tl.constexpr,
    SMALLEST: tl.constexpr,
    TILES: tl.constexpr,
):
    """Grid (packers + ceil(T / BLOCK)); ``packers`` = segments x TILES, or 0.

    ``out``: start, stop, q_start, q_stop (with ``branches``: start2, stop2, q_start2, q_stop2),
    each ``stride`` long, then the groups of the tile sizes SMALLEST, 2 SMALLEST, ... in turn.
    ``prefix_lens``, ``branches`` and ``hulls``, ``window`` may be None.
    """
    program = tl.program_id(0)
    if program < packers:  # these take longest, so they begin first
        segment = program // TILES
        size = program % TILES
        tile = SMALLEST << size
        slots = 2 * SEGMENT // tile + 1
        # Slots of the smaller tiles a segment: a geometric series, and one each.
        before = size + 4 * SEGMENT // SMALLEST - 4 * SEGMENT // tile
        place = before.to(tl.int64) * (packers // TILES) + segment.to(tl.int64) * slots
        groups = out + stride.to(tl.int64) * 4 + place * 2
        FILL: tl.constexpr = 8 * SEGMENT // SMALLEST  # a power of two above 2 slots
        _pack(cu, groups, segment, tile, slots, total, documents, top, SEGMENT, CHUNK, FILL)
        return
    row = (program - packers).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = row < total
    document = _last_at_most(cu, row, documents, top)
    owned = inside & (document < documents)
    start = _inside(tl.load(cu + document), total).to(tl.int64)
    q_stop = tl.load(cu + document + 1, mask=document < documents, other=total)
    q_stop = _inside(q_stop, total).to(tl.int64)
    if CAUSAL:
        stop = row + 1
        q_start = row
    else:
        stop = q_stop
        q_start = start
    if prefix_lens is not None:
        prefix = tl.load(prefix_lens + document, mask=owned, other=0)
        shared = tl.minimum(start + prefix, q_stop)
        q_start = tl.where(row < shared, start, q_start)
        stop = tl.maximum(stop, shared)
    if window is not None:
        start = tl.maximum(start, stop - window)
        q_stop = tl.minimum(q_stop, row + window)
    place = out + row
    hop = stride.to(tl.int64)
    tl.store(place, start.to(tl.int32), mask=inside)
    tl.store(place + hop, stop.to(tl.int32), mask=inside)
    tl.store(place + hop * 2, q_start.to(tl.int32), mask=inside)
    tl.store(place + hop * 3, q_stop.to(tl.int32), mask=inside)
    if branches is not None:
        parent = tl.load(branches + document, mask=owned, other=-1).to(tl.int64)
        known = (parent >= 0) & (parent < documents)
        start2 = _inside(tl.load(cu + parent, mask=known, other=0), total)
        stop2 = _inside(tl.load(cu + parent + 1, mask=known, other=0), total)
        empty = start2 >= stop2
        tl.store(place + hop * 4, tl.where(empty, 0, start2), mask=inside)
        tl.store(place + hop * 5, tl.where(empty, 0, stop2), mask=inside)
        low = tl.load(hulls + document, mask=owned, other=0)
        high = tl.load(hulls + documents + document, mask=owned, other=0)
        tl.store(place + hop * 6, _inside(low, total), mask=inside)
        tl.store(place + hop * 7, _inside(high, total), mask=inside)


def build(
    cu: Tensor,
    total: int,
    *,
    prefix_lens: Tensor | None = None,
    causal: bool = True,
    window: int | None = None,
    branches: Tensor | None = None,
    block: int = BLOCK,
) -> tuple[RowVectors, dict[int, Tensor]]:
    """Return the vectors and the groups of `kernels.intervals` (arguments as there).

    Tensors are int32 and contiguous, on one GPU or (in Triton's interpreter) the CPU; nothing is
    checked. One launch; with ``branches`` a few small ones before it, for their hulls.

    Args:
        cu: ``[D + 1]``.
        total: T.
        prefix_lens: ``[D]`` or None.
        causal: see `kernels.intervals`.
        window: see `kernels.intervals`.
        branches: ``[D]`` or None.
        block: rows a program; tests make it large, for the interpreter pays by the program.
    """
    documents = cu.shape[0] - 1
    stride = -(-total // LINE) * LINE
    rows, segments = (4, -(-total // SEGMENT)) if branches is None else (8, 0)
    # One allocation and as few views as can be: each costs the host about a microsecond.
    size = rows * stride + 2 * segments * sum(_SLOTS.values())
    out = torch.empty(size, dtype=torch.int32, device=cu.device)
    vectors = RowVectors(*out.as_strided((rows, total), (stride, 1)).unbind())
    groups = {}
    place = rows * stride
    for tile, slots in _SLOTS.items() if branches is None else ():
        groups[tile] = out.as_strided((segments * slots, 2), (2, 1), place)
        place += 2 * segments * slots
    if total == 0:
        return vectors, groups
    packers = segments * len(_SLOTS)
    launch: Any = intervals_kernel[(packers - (-total // block),)]
    with _on(cu.device):
        hulls = None if branches is None else branch_hulls(cu, branches)
        launch(
            cu,
            prefix_lens,
            branches,
            hulls,
            out,
            total,
            documents,
            1 << documents.bit_length() >> 1,
            window,
            stride,
            packers,
            CAUSAL=causal,
            BLOCK=block,
            CHUNK=CHUNK,
            SEGMENT=SEGMENT,
            SMALLEST=GROUP_TILES[0],
            TILES=len(_SLOTS),
            num_warps=NUM_WARPS,
            num_stages=NUM_STAGES,
        )
    return vectors, groups


def _on(device: torch.device) -> Any:
    """Return a context in which launches go to ``device``; entering costs only if they don't."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(device)


def offline_cases() -> list[dict[str, Any]]:
    """Return every form of the kernel as what an offline compilation needs to know."""
    cases = []
    for name, causal, given in (
        ("causal", True, ()),
        ("full", False, ()),
        ("prefix", True, ("prefix_lens",)),
        ("full_prefix", False, ("prefix_lens",)),
        ("window", True, ("window",)),
        ("branches", True, ("branches", "hulls")),
        ("full_branches", False, ("branches", "hulls")),
        ("prefix_branches", True, ("prefix_lens", "branches", "hulls")),
        ("window_branches", True, ("window", "branches", "hulls")),
    ):
        constexprs: dict[str, Any] = {
            "CAUSAL": causal,
            "BLOCK": BLOCK,
            "CHUNK": CHUNK,
            "SEGMENT": SEGMENT,
            "SMALLEST": GROUP_TILES[0],
            "TILES": len(_SLOTS),
        }
        optional = ("prefix_lens", "branches", "hulls", "window")
        constexprs |= {argument: None for argument in optional if argument not in given}
        signature = {}
        for argument in intervals_kernel.arg_names:
            pointer = argument in ("cu", "prefix_lens", "branches", "hulls", "out")
            kind = "*i32" if pointer else "i32"
            signature[argument] = "constexpr" if argument in constexprs else kind
        aligned = [intervals_kernel.arg_names.index(argument) for argument in ("out", "stride")]
        cases.append(
            {
                "name": f"intervals_{name}",
                "fn": intervals_kernel,
                "signature": signature,
                "constexprs": constexprs,
                "attrs": {(index,): [["tt.divisibility", 16]] for index in aligned},
                "num_warps": NUM_WARPS,
                "num_stages": NUM_STAGES,
                "expect": "none",
            }
        )
    return cases
