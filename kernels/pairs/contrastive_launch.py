"""Launches of the contrastive loss: from tensors to kernels, nothing read back.

Legend: n image rows (this rank's), N text rows (all ranks'), D width. ``first``: the text row of
image row 0. ``count``: rows of all ranks, what the mean is over.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .common import Positives
from .contrastive_triton import (
    NONE,
    loss_kernel,
    merge_kernel,
    statistics_kernel,
    weights_kernel,
)
from .launch import (
    MERGES,
    SUMS,
    Gradients,
    aligned,
    boost,
    config,
    even_share,
    launch,
    total,
    whole_tiles,
)

__all__ = ["gradients", "loss", "statistics"]

WORK_BYTES = 62_900_000
"""What partial sums may take: image rows go in stripes that small."""
LEAST_STRIPE = 1024


def statistics(
    image: Tensor, text: Tensor, scale: Tensor, positives: Positives | None, first: int
) -> tuple[Tensor, Tensor]:
    """Return the rows' ``[3, n]`` and the columns' ``[2, N]``, float32, as `merge_kernel` says."""
    image, text = aligned(image), aligned(text)
    rows, columns, padded = image.shape[0], text.shape[0], image.shape[1]
    row = config("statistics", image.dtype)
    row_stats = image.new_empty((3, rows), dtype=torch.float32)
    column_stats = image.new_empty((2, columns), dtype=torch.float32)
    if rows == 0:
        column_stats[0] = float(NONE.value)
        column_stats[1] = -torch.inf
        return row_stats, column_stats
    tiles = -(-columns // row.block_n)
    kinds = 2 if positives is None else 3
    # Bytes of partial sums a row: its own, one a tile, and its share of the columns'.
    bytes_a_row = 4 * (kinds * tiles + 2 * columns // row.block_m + 1)
    stripe = even_share(rows, max(WORK_BYTES // bytes_a_row, LEAST_STRIPE), row.block_m)
    row_parts = image.new_empty(tiles * kinds * stripe, dtype=torch.float32)
    column_parts = image.new_empty(stripe // row.block_m * 2 * columns, dtype=torch.float32)
    own = image.new_empty(rows, dtype=torch.float32)
    ids = (None, None, None) if positives is None else _ids(positives)
    for begin in range(0, rows, stripe):
        height = min(stripe, whole_tiles(rows - begin, row.block_m))
        blocks = height // row.block_m
        launch(
            statistics_kernel, blocks * tiles, row,
            image, text, scale, ids[0], ids[1], row_parts, column_parts, own, begin, rows, columns,
            first, height, padded, image.stride(0), text.stride(0), BLOCK_M=row.block_m,
            BLOCK_C=row.block_n, BLOCK_K=row.block_k, PIECE=row.piece, PRECISION="ieee",
        )  # fmt: skip
        row_programs = -(-height // MERGES.block_n)
        launch(
            merge_kernel, row_programs - (-columns // MERGES.block_n), MERGES,
            row_parts, column_parts, own, scale, ids[2], row_stats, column_stats, begin, rows,
            columns, height, row_programs, tiles, blocks, FIRST=begin == 0,
            LAST=begin + stripe >= rows, BLOCK=MERGES.block_n,
        )  # fmt: skip
    return row_stats, column_stats


def _ids(positives: Positives) -> tuple[Tensor, Tensor, Tensor]:
    return positives.rows, positives.columns, positives.shares


def loss(row_stats: Tensor, column_stats: Tensor, first: int, count: int) -> Tensor:
    """Return these rows' share of the mean, a float32 scalar; ``column_stats`` of all rows."""
    out = row_stats.new_empty(())
    launch(
        loss_kernel, 1, SUMS,
        row_stats, column_stats, out, row_stats.shape[1], column_stats.shape[1], first,
        0.5 / max(count, 1), BLOCK=SUMS.block_n,
    )  # fmt: skip
    return out


def gradients(
    upstream: Tensor,
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    positives: Positives | None,
    row_stats: Tensor,
    column_stats: Tensor,
    first: int,
    count: int,
    want_image: bool,
    want_text: bool,
    row_weight: Tensor | None = None,
    column_weights: Tensor | None = None,
    text_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dimage ``[n, D]``, dtext ``[N, D]`` (``[0, D]`` if not wanted), dscale ``[1]``.

    ``upstream`` float32 ``[1]``. Where the ranks' upstream gradients differ, ``row_weight`` [1] is
    this rank's and ``column_weights`` ``[N]`` that of each text row, both relative to ``upstream``.
    """
    rows, columns, width = image.shape[0], text.shape[0], image.shape[1]
    if rows == 0:
        made = text.new_zeros((columns if want_text else 0, width), dtype=text_dtype)
        return image.new_empty((0, width)), made, scale.new_zeros(1)
    image, text = aligned(image), aligned(text)
    made = Gradients(image, text, want_image, want_text, text_dtype)
    row = config("weights", image.dtype)
    plan = list(made.weight_tiles(row))
    dscale = scale.new_empty((1, plan[-1][1] + plan[-1][2]))
    ids = (None, None, None) if positives is None else _ids(positives)
    constant = 0.5 / max(count, 1)
    for block, before, tiles in plan:
        launch(
            weights_kernel, tiles, row,
            image, text, scale, *ids, row_stats, column_stats, row_weight, column_weights,
            made.weights, dscale, block.row, rows, block.column, columns, first,
            block.span // row.block_n, before, image.shape[1], image.stride(0), text.stride(0),
            block.span, BOOST=boost(image.dtype), BLOCK_M=row.block_m, BLOCK_C=row.block_n,
            BLOCK_K=row.block_k, PIECE=row.piece, PRECISION="ieee",
        )  # fmt: skip
        made.add(block, scale, upstream, constant)
    return *made.results(width), total(dscale, upstream, constant)[0].reshape(1)
