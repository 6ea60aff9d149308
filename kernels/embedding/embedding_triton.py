"""The gradient of an embedding table: rows of one word added up in a fixed order, no atomics.

Sorted (stably) by word, the rows of each word lie together: a segment. A program takes a chunk of
the sorted order, whatever words are in it, so that a word that is every other row costs no more
than others. A segment that lies within a chunk is finished there. Of one that does not, each chunk
leaves a partial sum in float32, and a second launch adds these up in the order of the chunks.
Both grids follow from the number of rows; how many segments there are is known to nobody.

Legend: T rows, N columns, V words.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..rows.common_triton import launch, ready, row_start, stride_of

__all__ = ["Config", "add", "backward", "config"]

MERGED = 16
"""Partial sums of a word that `embedding_merge_kernel` reads at once. Few: most of its programs
have nothing to do, and the registers of each limit how many are there at a time."""
MERGED_COLUMNS = 128
MERGED_STAGES = 4
"""Reads under way, for the word that is every other row."""
MERGED_WARPS = 4
COUNTED = 128
"""Chunks whose words are looked at at once, to see how far a word goes."""


@dataclass(frozen=True)
class Config:
    """How the sums over chunks are compiled."""

    columns: int
    """Columns of a program."""
    rows: int
    """Rows of a tile, all read before any is added."""
    tiles: int
    """Tiles of a chunk."""
    warps: int

    @property
    def chunk(self) -> int:
        """Rows of a chunk."""
        return self.rows * self.tiles


MEASURED: dict[tuple[int, int], Config] = {}
"""Exceptions to the rule: rows that were faster on a GPU, as ``python -m kernels.tune`` prints
them. Keys are the arguments of `config`."""


def config(columns: int, itemsize: int) -> Config:
    """Return the frozen configuration for rows of ``columns`` elements of ``itemsize`` bytes.

    Counted for sm_90 (``python -m kernels.offline --op embedding``), to be measured: a program is
    one warp of which each thread reads 16 bytes of a row and keeps eight rows, so that a
    multiprocessor's 32 programs have 128 KB in flight. Four tiles: a partial sum is written, and
    read, for one row in 32 at most, and 65,536 rows of 768 are 6,144 programs.
    """
    if (measured := MEASURED.get((columns, itemsize))) is not None:
        return measured
    width = 32 * 16 // itemsize
    return Config(min(width, max(16, 1 << (columns - 1).bit_length())), 8, 4, 1)


@triton.jit(do_not_specialize=["rows", "words", "padding", "chunks"])
def embedding_sum_kernel(
    grad,
    order,
    ids,
    out,
    partials,
    rows,
    words,
    padding,
    chunks,
    grad_stride,
    N: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    TILES: tl.constexpr,
    ADD: tl.constexpr,
):
    """Grid (chunks, ceil(N / COLUMNS)): write, or ADD, the sums of segments within a chunk.

    ``ids`` int32 ``[T]``, sorted; ``order`` int64 ``[T]``: the row of ``grad`` of each.
    ``partials`` float32 ``[2, chunks, N]``: the sum over the chunk of the word that the chunk
    before ends with, and of the word that the chunk after begins with.
    """
    chunk = tl.program_id(0).to(tl.int64)
    start = chunk * (ROWS * TILES)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < N
    inherited = tl.load(ids + start - 1, mask=start > 0, other=0)  # the word before the chunk
    total = tl.zeros([COLUMNS], tl.float32)
    word = tl.load(ids + start)
    for tile in range(TILES):
        first = start + tile * ROWS
        values = ()
        following = ()
        for r in tl.static_range(ROWS):  # type: ignore
            at = first + r
            here = tl.load(ids + at, mask=at < rows, other=-1)
            used = (here >= 0) & (here < words) & (here != padding)
            source = tl.load(order + at, mask=used, other=0)
            place = grad + row_start(source, grad_stride, N) + column
            values += (tl.load(place, mask=inside & used, other=0.0),)
            following += (tl.load(ids + at + 1, mask=at + 1 < rows, other=-1),)
        for r in tl.static_range(ROWS):  # type: ignore
            at = first + r
            total += values[r].to(tl.float32)
            ends = (at + 1 >= rows) | (following[r] != word)
            closes = (at + 1 == start + ROWS * TILES) & (at < rows)
            used = (at < rows) & (word >= 0) & (word < words) & (word != padding)
            begun_before = (start > 0) & (word == inherited)
            if used & (ends | closes):
                if ends & (not begun_before):
                    target = out + word.to(tl.int64) * N + column
                    result = total
                    if ADD:
                        result += tl.load(target, mask=inside, other=0.0).to(tl.float32)
                    tl.store(target, result.to(out.dtype.element_ty), mask=inside)
                else:
                    slot = tl.where(begun_before, chunk, chunks + chunk)
                    tl.store(partials + slot * N + column, total, mask=inside)
            total = tl.where(ends, 0.0, total)
            word = following[r]


@triton.jit(do_not_specialize=["rows", "words", "padding", "chunks"])
def embedding_merge_kernel(
    ids,
    out,
    partials,
    rows,
    words,
    padding,
    chunks,
    N: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
    COUNTED: tl.constexpr,
    MERGED: tl.constexpr,
    STAGES: tl.constexpr,
    ADD: tl.constexpr,
):
    """Grid (chunks - 1, ceil(N / COLUMNS)): finish the segment that begins in a chunk and goes on.

    A program whose chunk has no such segment returns at once.
    """
    chunk = tl.program_id(0).to(tl.int64)
    start = chunk * CHUNK
    word = tl.load(ids + start + CHUNK - 1)
    goes_on = tl.load(ids + start + CHUNK) == word
    before = tl.load(ids + start - 1, mask=start > 0, other=0)
    begins = (start == 0) | (before != word)
    if goes_on & begins & (word >= 0) & (word < words) & (word != padding):
        # Chunks after this one that begin with the word; in the last of them it ends.
        ahead = tl.arange(0, COUNTED)
        count = 0
        found = COUNTED
        while found == COUNTED:
            at = chunk + 1 + count + ahead
            heads = tl.load(ids + at * CHUNK, mask=at < chunks, other=-1)
            found = tl.sum((heads == word).to(tl.int32), 0)
            count += found
        column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
        inside = column < N
        part = tl.arange(0, MERGED)
        sums = tl.zeros([MERGED, COLUMNS], tl.float32)
        following = partials + (chunk + 1) * N
        for first in tl.range(0, count, MERGED, num_stages=STAGES):
            at = first + part
            place = following + at.to(tl.int64)[:, None] * N + column[None, :]
            sums += tl.load(place, mask=(at < count)[:, None] & inside[None, :], other=0.0)
        result = tl.load(partials + (chunks + chunk) * N + column, mask=inside, other=0.0)
        result += tl.sum(sums, 0)
        place = out + word.to(tl.int64) * N + column
        if ADD:
            result += tl.load(place, mask=inside, other=0.0).to(tl.float32)
        tl.store(place, result.to(out.dtype.element_ty), mask=inside)


def backward(grad: Tensor, ids: Tensor, words: int, padding: int) -> Tensor:
    """Return the gradient ``[V, N]`` of the table, in the dtype of ``grad`` ``[..., N]``.

    ``padding``: a word that has none; -1: there is no such word.
    """
    shape = (words, grad.shape[-1])
    out = torch.zeros(shape, dtype=grad.dtype, device=grad.device)
    _sums(grad, ids, out, padding, add=False)
    return out


def add(grad: Tensor, ids: Tensor, into: Tensor, padding: int) -> None:
    """Add the gradient to ``into`` ``[V, N]``, rounded once to its dtype."""
    whole = into.is_contiguous()
    out = into if whole else into.contiguous()
    _sums(grad, ids, out, padding, add=True)
    if not whole:
        into.copy_(out)


def _sums(grad: Tensor, ids: Tensor, out: Tensor, padding: int, *, add: bool) -> None:
    columns, rows, words = grad.shape[-1], ids.numel(), out.shape[0]
    if rows == 0 or columns == 0 or words == 0:
        return
    # Keys of 32 bits: half the passes of a sort by 64.
    sorted_ids, order = torch.sort(ids.reshape(-1).to(torch.int32), stable=True)
    value = ready(grad)
    c = config(columns, grad.element_size())
    chunks = -(-rows // c.chunk)
    partials = torch.empty((2, chunks, columns), dtype=torch.float32, device=grad.device)
    launch(
        embedding_sum_kernel, (chunks, -(-columns // c.columns)), grad,
        value, order, sorted_ids, out, partials, rows, words, padding, chunks, stride_of(value),
        N=columns, COLUMNS=c.columns, ROWS=c.rows, TILES=c.tiles, ADD=add, num_warps=c.warps,
    )  # fmt: skip
    if chunks == 1:
        return
    launch(
        embedding_merge_kernel, (chunks - 1, -(-columns // MERGED_COLUMNS)), grad,
        sorted_ids, out, partials, rows, words, padding, chunks, N=columns,
        COLUMNS=MERGED_COLUMNS, CHUNK=c.chunk, COUNTED=COUNTED, MERGED=MERGED,
        STAGES=MERGED_STAGES, ADD=add, num_warps=MERGED_WARPS,
    )  # fmt: skip
