"""What the launches of the losses over all pairs share: tile shapes, views, blocks, gradients.

Legend: n image rows, N text rows, D width (padded to whole tiles), all on one device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .common_triton import products_kernel, total_kernel

__all__ = [
    "MERGES",
    "RESCALES",
    "SUMS",
    "Block",
    "Config",
    "Gradients",
    "aligned",
    "blocks_of",
    "boost",
    "config",
    "even_share",
    "frozen",
    "launch",
    "padded_width",
    "table_key",
    "total",
    "whole_tiles",
]

Kernel = Literal["statistics", "weights", "sigmoid", "products"]
WORK_BYTES = 62_900_000
"""What weights and sums may take: with all else that is under 64 MB at 32,768 pairs of 512."""
SIDES = (2048, 8192)
"""Rows and columns of a block of weights, if there are as many: smaller ones leave most of a GPU
idle, larger ones its L2 cache behind."""
USUAL_SIDE = 4096
"""Where what fits `WORK_BYTES` would take half as long again, blocks may be this large squared."""
PROCESSORS = 132
"""Multiprocessors of the GPU that blocks are fitted to."""
TILE = 128
"""Blocks are whole tiles of every kernel."""


@dataclass(frozen=True)
class Config:
    """How one kernel is compiled: a tile of rows x columns, BLOCK_K of the summed dimension."""

    block_m: int
    block_n: int
    block_k: int
    piece: int
    """Columns of a tile that the epilogue takes at a time."""
    warps: int
    stages: int
    max_registers: int | None = None
    """128 a thread at 8 warps: two programs share a multiprocessor, one multiplies while one
    exponentiates."""
    expect: Literal["wgmma", "fma"] = "wgmma"


# (kernel, bytes an element, columns of a products tile or 0) -> how it is compiled. The reasons are
# the compiler's counts for sm_90 (`python -m kernels.offline`); nothing spills.
# A tile of logits costs as long to exponentiate (2 of 16 a clock) as half its product takes, so
# these kernels need two programs a multiprocessor, and 128 registers hold a 128 x 128 tile beside
# 16 to 64 columns of it in other forms. Products have nothing to hide: the largest tile wins, since
# it asks the L2 cache for the fewest bytes an operation (48 a clock, 128 x 128 asks for 64).
_TABLE: dict[tuple[str, int, int], Config] = {
    ("statistics", 2, 0): Config(128, 128, 64, 64, 8, 3, 128),
    ("weights", 2, 0): Config(128, 128, 64, 16, 8, 3, 128),
    ("sigmoid", 2, 0): Config(128, 128, 64, 32, 8, 3, 128),
    ("products", 2, 64): Config(128, 64, 64, 64, 8, 3),
    ("products", 2, 128): Config(128, 128, 64, 64, 8, 3),
    ("products", 2, 256): Config(128, 256, 64, 64, 8, 4),
    # fp32 multiplies exactly, on the ordinary units.
    ("statistics", 4, 0): Config(64, 64, 32, 32, 8, 2, expect="fma"),
    ("weights", 4, 0): Config(64, 64, 32, 32, 8, 2, expect="fma"),
    ("sigmoid", 4, 0): Config(64, 64, 32, 32, 8, 2, expect="fma"),
    ("products", 4, 64): Config(64, 64, 32, 64, 8, 2, expect="fma"),
}
# Kernels that only add up numbers: elements of a program's step (block_n), warps.
MERGES = Config(1, 128, 1, 128, 4, 1, expect="fma")
SUMS = Config(1, 2048, 1, 2048, 8, 1, expect="fma")
RESCALES = Config(1, 4096, 1, 4096, 8, 1, expect="fma")


def frozen() -> dict[tuple[str, int, int], Config]:
    """Return all rows: ``(kernel, bytes an element, columns of a products tile or 0)``."""
    return dict(_TABLE)


def table_key(kernel: Kernel, dtype: torch.dtype, padded: int) -> tuple[str, int, int]:
    """Return the key of a kernel's frozen row; ``padded``: the width, which products ask for."""
    if kernel != "products":
        return kernel, dtype.itemsize, 0
    if dtype.itemsize == 4:
        return kernel, 4, 64
    wide = padded >= 512 and padded % 256 == 0
    return kernel, 2, 256 if wide else min(padded, 128)


def config(kernel: Kernel, dtype: torch.dtype, padded: int = 0) -> Config:
    """Return the frozen row of a kernel; ``padded``: the width, for products."""
    return _TABLE[table_key(kernel, dtype, padded)]


def launch(kernel: Any, grid: int, row: Config, *arguments: Any, **constants: object) -> None:
    """Launch a kernel of the table on the device of the first argument.

    Changing to that device costs only if it is not the current one.
    """
    options: dict[str, Any] = {"num_warps": row.warps, "num_stages": row.stages}
    if row.max_registers is not None:
        options["maxnreg"] = row.max_registers
    device = arguments[0].device
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        kernel[(grid,)](*arguments, **constants, **options)
    else:
        with torch.cuda.device(device):
            kernel[(grid,)](*arguments, **constants, **options)


def padded_width(width: int) -> int:
    """D as the kernels see it: 64, or whole 128s."""
    return 64 if width <= 64 else -(-width // 128) * 128


def aligned(x: Tensor) -> Tensor:
    """Return ``[n, D]`` as ``[n, padded_width(D)]`` with rows of whole 16-byte words.

    A view where the tensor is so already (and 128 rows are fewer than 2**31 elements apart); else
    a copy with zeros, cheap beside n x N x D.
    """
    width = padded_width(x.shape[1])
    if x.shape[1] < width:
        return F.pad(x, (0, width - x.shape[1]))
    fits = x.stride(0) % 16 == 0 and x.stride(0) < 2**23 and x.data_ptr() % 16 == 0
    return x if x.stride(1) == 1 and fits else x.clone(memory_format=torch.contiguous_format)


def boost(dtype: torch.dtype) -> float:
    """What weights are multiplied by: fp16 has no small numbers, weights of 2 no need for large."""
    return 2.0**14 if dtype == torch.float16 else 1.0


# Blocks of pairs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """The pairs [row, row_stop) x [column, column_stop); weights [height, span] in whole tiles."""

    row: int
    row_stop: int
    column: int
    column_stop: int

    @property
    def height(self) -> int:
        """Rows, whole tiles."""
        return whole_tiles(self.row_stop - self.row)

    @property
    def span(self) -> int:
        """Columns, whole tiles."""
        return whole_tiles(self.column_stop - self.column)


def whole_tiles(count: int, tile: int = TILE) -> int:
    """Return ``count`` rounded up to whole tiles."""
    return -(-count // tile) * tile


def even_share(count: int, most: int, tile: int = TILE) -> int:
    """Return the size of equal parts of whole tiles: as few as make up count, ``most`` each."""
    return whole_tiles(-(-count // -(-count // max(most // tile * tile, tile))), tile)


def _shares(count: int) -> list[int]:
    """The sides that cut ``count`` into equal parts of whole tiles within `SIDES`."""
    least, most = SIDES
    parts = range(-(-count // most), max(count // least, 1) + 1)
    return sorted({whole_tiles(-(-count // n)) for n in parts})


def _block_cost(height: int, span: int, padded: int, itemsize: int) -> float:
    """Time of a block, in steps of the summed dimension: its weights', and its products'."""
    across = padded // (256 if itemsize == 2 and padded >= 512 and padded % 256 == 0 else TILE)
    down, over = height // TILE, span // TILE
    weights = -(-down * over // (2 * PROCESSORS)) * 2 * padded
    work = (down * span + over * height) * max(across, 1)
    return weights + max(height, span, work / PROCESSORS)


@lru_cache(maxsize=64)
def sides(rows: int, columns: int, padded: int, itemsize: int) -> tuple[int, int]:
    """Return rows and columns of a block of weights: of those that fit, the least time in all.

    They have to fit `WORK_BYTES` together with the second halves of sums over several blocks:
    dtext's all the while, dimage's of one block's rows.
    """
    low = 2 * padded if itemsize == 2 else 0

    def memory(height: int, span: int) -> int:
        text_low = low * columns if height < rows else 0
        return itemsize * height * span + text_low + (low * height if span < columns else 0)

    def cost(side: tuple[int, int]) -> float:
        height, span = side
        count = -(-rows // height) * -(-columns // span)
        return count * _block_cost(height, span, padded, itemsize)

    every = [(height, span) for height in _shares(rows) for span in _shares(columns)]
    roomy = (itemsize * USUAL_SIDE + low) * USUAL_SIDE + low * columns
    best = min((side for side in every if memory(*side) <= roomy), key=cost)
    small = [side for side in every if memory(*side) <= WORK_BYTES]
    if small and cost(min(small, key=cost)) <= 1.5 * cost(best):
        return min(small, key=cost)
    return best


def blocks_of(rows: int, columns: int, padded: int, itemsize: int) -> list[Block]:
    """Return the blocks of all pairs, rows by rows."""
    height, span = sides(rows, columns, padded, itemsize)
    return [
        Block(row, min(row + height, rows), column, min(column + span, columns))
        for row in range(0, rows, height)
        for column in range(0, columns, span)
    ]


# Gradients ---------------------------------------------------------------------------------------


class Gradients:
    """Space for the weights of one block and for both gradients, added up block by block."""

    def __init__(
        self,
        image: Tensor,
        text: Tensor,
        want_image: bool,
        want_text: bool,
        text_dtype: torch.dtype | None = None,
    ) -> None:
        """Allocate for aligned ``image`` [n, padded] and ``text`` [N, padded].

        ``text_dtype``: of dtext where it is not text's own (float32: ranks add theirs up).
        """
        rows, columns, padded = image.shape[0], text.shape[0], image.shape[1]
        self.image, self.text, self.padded = image, text, padded
        self.blocks = blocks_of(rows, columns, padded, image.element_size())
        self.tiles: tuple[int, int] = (0, 0)
        self.dimage = image.new_empty(rows if want_image else 0, padded)
        self.dtext = text.new_empty(columns if want_text else 0, padded, dtype=text_dtype)
        self.want_image, self.want_text = want_image, want_text
        self.weights: Tensor | None = None
        if want_image or want_text:
            height, span = self.blocks[0].height, self.blocks[0].span
            self.weights = image.new_empty(height * span)
        self._image_low = self._low(self.dimage, self.blocks[0].height, self._parts(down=False))
        self._text_low = self._low(self.dtext, columns, self._parts(down=True))

    def _parts(self, down: bool) -> int:
        starts = {block.row if down else block.column for block in self.blocks}
        return len(starts)

    def _low(self, sums: Tensor, rows: int, parts: int) -> Tensor | None:
        """What sums of several parts round away. An unread one beside those of a single part: the
        compiler would merge the ends of both products and make each wait for the one before."""
        if sums.dtype == torch.float32:
            return None
        size = (rows, self.padded) if parts > 1 and sums.numel() else (1,)
        return sums.new_empty(size, dtype=torch.bfloat16)

    def weight_tiles(self, row: Config) -> Iterator[tuple[Block, int, int]]:
        """Yield each block, the number of tiles that lie before it, and its own."""
        before = 0
        for block in self.blocks:
            here = (block.height // row.block_m) * (block.span // row.block_n)
            yield block, before, here
            before += here

    def add(
        self, block: Block, scale: Tensor | None, upstream: Tensor | None, constant: float
    ) -> None:
        """Add the products of the block's weights, times the factors, to the gradients."""
        if self.weights is None:
            return
        row = config("products", self.image.dtype, self.padded)
        across = self.padded // row.block_n
        image_tiles = block.height // row.block_m * across if self.want_image else 0
        text_tiles = block.span // row.block_m * across if self.want_text else 0
        last = self.blocks[-1]
        launch(
            products_kernel, image_tiles + text_tiles, row,
            self.weights, self.image, self.text, self.dimage, self._image_low, self.dtext,
            self._text_low, scale, upstream, image_tiles, block.row, block.row_stop, block.column,
            block.column_stop, int(block.column == 0), int(block.column == last.column),
            int(block.row == 0), int(block.row == last.row), block.height, block.span, self.padded,
            self.image.stride(0), self.text.stride(0), constant / boost(self.image.dtype),
            BLOCK_M=row.block_m, BLOCK_N=row.block_n, BLOCK_K=row.block_k, PIECE=row.piece,
            PRECISION="ieee",
        )  # fmt: skip

    def results(self, width: int) -> tuple[Tensor, Tensor]:
        """Return dimage and dtext without padding, contiguous; ``[0, D]`` what is not wanted."""
        found = (self.dimage, self.dtext)
        if width == self.padded:
            return found
        return found[0][:, :width].contiguous(), found[1][:, :width].contiguous()


def total(parts: Tensor, upstream: Tensor | None, constant: float) -> tuple[Tensor, Tensor]:
    """Return the sums of the rows of float32 ``[k, count]``, times the factors, in fixed order.

    The first one ``[]`` and the others ``[k - 1]``, which share no memory.
    """
    out, rest = parts.new_empty(()), parts.new_empty(parts.shape[0] - 1)
    launch(
        total_kernel, parts.shape[0], SUMS,
        parts, upstream, out, rest, parts.shape[1], constant, BLOCK=SUMS.block_n,
    )  # fmt: skip
    return out, rest
