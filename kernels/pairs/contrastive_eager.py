"""Symmetric InfoNCE in torch's operations, a block of logits at a time: any device, any dtype.

The same three steps as `contrastive_launch`, with the same arguments: statistics of rows and
columns, the loss they give, the gradients. Logits are made twice, like there, and kept never.
Legend: n image rows (this rank's), N text rows (all ranks'), D width; b rows of a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .common import Positives

__all__ = ["BLOCK_LOGITS", "gradients", "loss", "row_blocks", "statistics"]

BLOCK_LOGITS = 2**20
"""Most logits of a block on a CPU: 4 MB in float32, which its cache keeps."""
DEVICE_BLOCK_LOGITS = 2**24
"""And elsewhere: 64 MB, enough to keep a GPU busy."""
_LOG2E = math.log2(math.e)


def row_blocks(image: Tensor, columns: int) -> Iterator[slice]:
    """Yield the rows of each block of logits: of ``image`` ``[n, D]`` with so many texts."""
    most = BLOCK_LOGITS if image.device.type == "cpu" else DEVICE_BLOCK_LOGITS
    rows, size = image.shape[0], max(1, most // max(columns, 1))
    return (slice(begin, min(begin + size, rows)) for begin in range(0, rows, size))


def _same(positives: Positives, block: slice) -> Tensor:
    return positives.rows[block, None] == positives.columns[None, :]


def _own(matrix: Tensor, block: slice, first: int) -> Tensor:
    """A view of the entries ``[b]`` of a block ``[b, N]`` that are pairs of row i and text i."""
    return matrix[:, first + block.start : first + block.stop].diagonal()


def statistics(
    image: Tensor, text: Tensor, scale: Tensor, positives: Positives | None, first: int
) -> tuple[Tensor, Tensor]:
    """Return the rows' ``[3, n]`` and the columns' ``[2, N]``, in units of log2.

    Both: shift (the maximum) and log2 of the sum of ``exp2(logit - shift)``; rows also: how far
    the (mean) positive lies below the shift.
    """
    rows, columns = image.shape[0], text.shape[0]
    row_stats = image.new_empty((3, rows))
    shift, total = image.new_full((2, columns), -torch.inf).unbind()
    factor = scale * _LOG2E
    for block in row_blocks(image, columns):
        logits = (image[block] * factor) @ text.T  # [b, N]
        if positives is None:
            positive = _own(logits, block, first).clone()
        else:
            positive = torch.where(_same(positives, block), logits, 0.0).sum(1)
            positive = positive * positives.shares[block]
        top = logits.amax(1)
        row_stats[0, block], row_stats[2, block] = top, top - positive
        row_stats[1, block] = (logits - top[:, None]).exp2_().sum(1).log2()
        higher = torch.maximum(shift, logits.amax(0))
        here = logits.sub_(higher).exp2_().sum(0)
        # Of a first block, and where there is none, ``shift`` is infinite.
        total = here if block.start == 0 else total * (shift - higher).exp2_() + here
        shift = higher
    return row_stats, torch.stack([shift, total.log2() if rows else total])


def loss(row_stats: Tensor, column_stats: Tensor, first: int, count: int) -> Tensor:
    """Return these rows' share of the mean; ``column_stats`` of all rows."""
    shift, log, gap = row_stats
    column_shift, column_log = column_stats[:, first : first + row_stats.shape[1]]
    found = (log + gap).sum() + (column_log + (column_shift - shift) + gap).sum()
    return found * (0.5 / (max(count, 1) * _LOG2E))


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

    Arguments as in `contrastive_launch.gradients`; sums are made in the features' own dtype.
    """
    columns = text.shape[0]
    factor = scale * _LOG2E
    dimage = image.new_empty(image.shape if want_image else (0, image.shape[1]))
    dtext = text.new_zeros(text.shape if want_text else (0, text.shape[1]), dtype=text_dtype)
    dscale = scale.new_zeros(1)
    constant = upstream * (0.5 / max(count, 1))
    for block in row_blocks(image, columns):
        logits = (image[block] * factor) @ text.T  # [b, N]
        by_row = (logits - row_stats[0, block, None]).sub_(row_stats[1, block, None]).exp2_()
        weights = logits.sub_(column_stats[0]).sub_(column_stats[1]).exp2_()
        if column_weights is not None:
            weights *= column_weights
        if positives is None:
            _own(by_row, block, first).sub_(2.0)
        else:
            by_row -= torch.where(_same(positives, block), 2.0 * positives.shares[block, None], 0.0)
        weights += by_row if row_weight is None else by_row.mul_(row_weight)
        products = weights @ text  # [b, D]
        dscale += torch.dot(products.flatten(), image[block].flatten())
        if want_image:
            torch.mul(products, scale * constant, out=dimage[block])
        if want_text:
            dtext.addmm_(weights.T, image[block])
    return dimage, dtext.mul_(scale * constant), dscale * constant
