"""Launches of the pairwise sigmoid loss: from tensors to kernels, nothing read back.

Legend: n image rows (this rank's), N text rows (all ranks'), D width. ``first``: the text row of
image row 0. ``count``: rows of all ranks, what the sum over pairs is divided by.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .launch import RESCALES, Gradients, aligned, boost, config, launch, total
from .sigmoid_triton import rescale_kernel, sigmoid_kernel

__all__ = ["forward", "held", "rescale"]


def held(dtype: torch.dtype) -> float:
    """What gradients are multiplied by until the upstream one is known: fp16 has no small numbers.

    At 256, those of logits up to 100 still fit it.
    """
    return 256.0 if dtype == torch.float16 else 1.0


def forward(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    bias: Tensor,
    row_ids: Tensor | None,
    column_ids: Tensor | None,
    first: int,
    count: int,
    gradients: bool,
    want_image: bool,
    want_text: bool,
    text_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the loss ``[]`` and what an upstream gradient of 1 makes of it.

    dimage ``[n, D]`` and dtext ``[N, D]`` (``[0, D]`` if not wanted), times `held`; dscale and
    dbias ``[2]`` (``[0]`` without ``gradients``).
    """
    rows, columns, width = image.shape[0], text.shape[0], image.shape[1]
    if rows == 0:
        dtext = text.new_zeros((columns if want_text else 0, width), dtype=text_dtype)
        scalars = scale.new_zeros(2 if gradients else 0)
        return scale.new_zeros(()), image.new_empty((0, width)), dtext, scalars
    image, text = aligned(image), aligned(text)
    made = Gradients(image, text, want_image, want_text, text_dtype)
    row = config("sigmoid", image.dtype)
    plan = list(made.weight_tiles(row))
    tiles = plan[-1][1] + plan[-1][2]
    parts = scale.new_empty((3 if gradients else 1, tiles))
    constant = 1.0 / max(count, 1)
    for block, before, here in plan:
        launch(
            sigmoid_kernel, here, row,
            image, text, scale, bias, row_ids, column_ids, made.weights, parts, block.row, rows,
            block.column, columns, first, block.span // row.block_n, before, tiles, image.shape[1],
            image.stride(0), text.stride(0), block.span, BOOST=boost(image.dtype),
            GRADIENTS=gradients, BLOCK_M=row.block_m, BLOCK_C=row.block_n, BLOCK_K=row.block_k,
            PIECE=row.piece, PRECISION="ieee",
        )  # fmt: skip
        made.add(block, scale, None, constant * held(image.dtype))
    loss, scalars = total(parts, None, constant)
    return loss, *made.results(width), scalars


def rescale(dimage: Tensor, dtext: Tensor, upstream: Tensor, dtype: torch.dtype) -> None:
    """Multiply both in place by ``upstream`` ``[1]``, and take `held` of ``dtype`` out again."""
    block = RESCALES.block_n
    programs = -(-dimage.numel() // block)
    grid = programs - (-dtext.numel() // block)
    if grid:
        launch(
            rescale_kernel, grid, RESCALES,
            dimage, dtext, upstream, dimage.numel(), dtext.numel(), programs, 1.0 / held(dtype),
            BLOCK=block,
        )  # fmt: skip
