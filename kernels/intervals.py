"""The one mask form: for every query row, the interval of key rows that it sees.

A packed row of T tokens holds D documents, document ``d`` the rows ``cu_seqlens[d]`` to
``cu_seqlens[d + 1]``. Document, causal, prefix-LM and sliding-window masks are each one interval
``[start, stop)`` a query, so two int32 vectors replace every mask tensor. Branches (candidate
continuations after one shared prefix) add a second interval. Two documents of 4 and 2 rows:

    causal      prefix_lens=[2, 0]   causal=False   window=2     branches=[-1, 0]
    1 . . . . . 1 1 . . . .          1 1 1 1 . .    1 . . . . .  1 . . . . .
    1 1 . . . . 1 1 . . . .          1 1 1 1 . .    1 1 . . . .  1 1 . . . .
    1 1 1 . . . 1 1 1 . . .          1 1 1 1 . .    . 1 1 . . .  1 1 1 . . .
    1 1 1 1 . . 1 1 1 1 . .          1 1 1 1 . .    . . 1 1 . .  1 1 1 1 . .
    . . . . 1 . . . . . 1 .          . . . . 1 1    . . . . 1 .  1 1 1 1 1 .
    . . . . 1 1 . . . . 1 1          . . . . 1 1    . . . . 1 1  1 1 1 1 1 1
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .layout import PaddedLayout, Segments, build_layout

__all__ = ["Intervals", "intervals"]


@dataclass(eq=False)
class Intervals:
    """The keys that each of T query rows sees.

    ``start``, ``stop`` (int32 ``[T]``) are the first key and one past the last; ``start2``,
    ``stop2`` are the second interval (the shared prefix of a branch, empty where there is none)
    or ``None``. ``cu_seqlens`` (int32 ``[D + 1]``) and ``branches`` (int32 ``[D]`` or ``None``)
    are what they were made from.
    """

    start: Tensor
    stop: Tensor
    start2: Tensor | None
    stop2: Tensor | None
    cu_seqlens: Tensor
    branches: Tensor | None
    _segments: Segments | None = field(default=None, repr=False)
    _layouts: dict[torch.device, PaddedLayout] = field(default_factory=dict, repr=False)

    @property
    def num_rows(self) -> int:
        """T, the number of rows."""
        return self.start.shape[0]

    @property
    def num_documents(self) -> int:
        """D, the number of documents (branches count as documents)."""
        return self.cu_seqlens.shape[0] - 1

    @property
    def device(self) -> torch.device:
        """Where the vectors lie."""
        return self.start.device

    def to(self, device: torch.device | str, *, non_blocking: bool = True) -> Intervals:
        """Return the same intervals on ``device``; what was known on the host stays known."""
        device = torch.device(device)
        if device == self.device:
            return self

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=non_blocking)

        return Intervals(
            self.start.to(device, non_blocking=non_blocking),
            self.stop.to(device, non_blocking=non_blocking),
            move(self.start2),
            move(self.stop2),
            self.cu_seqlens.to(device, non_blocking=non_blocking),
            move(self.branches),
            self.segments(),
        )

    def segments(self) -> Segments:
        """Return the same facts on the host (read back once if they were made on a device)."""
        if self._segments is None:
            self._segments = Segments(
                self.cu_seqlens.cpu().long(),
                self.start.cpu().long(),
                self.stop.cpu().long(),
                None if self.branches is None else self.branches.cpu().long(),
            )
        return self._segments

    def layout(self, device: torch.device | None = None) -> PaddedLayout:
        """Return the padded per-document layout, built once from host data and kept a device."""
        device = self.device if device is None else device
        if device not in self._layouts:
            self._layouts[device] = build_layout(self.segments()).to(device)
        return self._layouts[device]

    def dense_mask(self) -> Tensor:
        """Return the mask as a bool ``[T, T]`` matrix (row = query), for references and tests."""
        key = torch.arange(self.num_rows, device=self.device)[None, :]
        mask = (key >= self.start[:, None]) & (key < self.stop[:, None])
        if self.start2 is not None and self.stop2 is not None:
            mask |= (key >= self.start2[:, None]) & (key < self.stop2[:, None])
        return mask


def intervals(
    cu_seqlens: Tensor,
    *,
    prefix_lens: Tensor | None = None,
    causal: bool = True,
    window: int | None = None,
    branches: Tensor | None = None,
    total: int | None = None,
) -> Intervals:
    """Build the key intervals of a packed row.

    Args:
        cu_seqlens: integer ``[D + 1]``, non-decreasing, first 0, last T. Empty documents are fine.
        prefix_lens: integer ``[D]``: every row of a document sees the whole of its first
            ``prefix_lens[d]`` rows (prefix-LM, Raffel et al. 2020 §3.2.1).
        causal: a row sees the rows up to itself; otherwise its whole document.
        window: a row sees at most itself and the ``window - 1`` rows before it in its document
            (a branch still sees its whole parent). Needs ``causal``; not with ``prefix_lens``.
        branches: integer ``[D]``: document ``i`` additionally sees the whole of document
            ``branches[i] < i``, which is no branch itself; -1: none.
        total: T. Only needed to avoid reading it back when ``cu_seqlens`` lies on a GPU.

    Returns:
        The intervals, on ``cu_seqlens``' device. Values are validated when it is the CPU; on a
        GPU only shapes are, because reading them back would stall the stream.

    Raises:
        ValueError: naming the argument that is wrong.

    Example:
        >>> intervals(torch.tensor([0, 3, 5])).stop.tolist()
        [1, 2, 3, 4, 5]
    """
    _check_shapes(cu_seqlens, prefix_lens, causal, window, branches)
    if cu_seqlens.device.type == "cpu":
        _check_values(cu_seqlens, prefix_lens, branches, total)
    device = cu_seqlens.device
    cu = cu_seqlens.to(torch.int32)
    if total is None:
        total = int(cu[-1])
    document = torch.repeat_interleave(cu.diff().long(), output_size=total)
    row = torch.arange(total, dtype=torch.int32, device=device)
    start = cu[document]
    stop = row + 1 if causal else cu[document + 1]
    if prefix_lens is not None:
        stop = torch.maximum(stop, start + prefix_lens.to(device, torch.int32)[document])
    if window is not None:
        start = torch.maximum(start, stop - window)
    start2 = stop2 = None
    if branches is not None:
        branches = branches.to(device, torch.int32)
        parent = branches.long()[document]
        none = parent < 0
        parent = parent.clamp(min=0)
        start2 = cu[parent].masked_fill(none, 0)
        stop2 = cu[parent + 1].masked_fill(none, 0)
    return Intervals(start, stop, start2, stop2, cu, branches)


def _check_shapes(
    cu_seqlens: Tensor,
    prefix_lens: Tensor | None,
    causal: bool,
    window: int | None,
    branches: Tensor | None,
) -> None:
    for name, tensor in (
        ("cu_seqlens", cu_seqlens),
        ("prefix_lens", prefix_lens),
        ("branches", branches),
    ):
        if tensor is None:
            continue
        if tensor.dim() != 1 or tensor.dtype not in (torch.int32, torch.int64):
            raise ValueError(
                f"{name}: int32 or int64 of one dimension expected, "
                f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
            )
    if cu_seqlens.shape[0] < 1:
        raise ValueError("cu_seqlens: D + 1 entries expected, got none")
    documents = cu_seqlens.shape[0] - 1
    for name, tensor in (("prefix_lens", prefix_lens), ("branches", branches)):
        if tensor is not None and tensor.shape[0] != documents:
            raise ValueError(
                f"{name}: one entry a document expected ({documents}), got {tensor.shape[0]}"
            )
    if window is not None:
        if window < 1:
            raise ValueError(f"window: at least 1 expected, got {window}")
        if prefix_lens is not None:
            raise ValueError("window: does not combine with prefix_lens")
        if not causal:
            raise ValueError("window: needs causal=True")


def _check_values(
    cu_seqlens: Tensor, prefix_lens: Tensor | None, branches: Tensor | None, total: int | None
) -> None:
    lengths = cu_seqlens.diff()
    if cu_seqlens[0] != 0:
        raise ValueError(f"cu_seqlens: must start at 0, got {int(cu_seqlens[0])}")
    if (lengths < 0).any():
        where = int((lengths < 0).int().argmax()) + 1
        raise ValueError(
            f"cu_seqlens: must not decrease, entry {where} is {int(cu_seqlens[where])}"
        )
    if total is not None and cu_seqlens[-1] != total:
        raise ValueError(f"cu_seqlens: must end at T = {total}, got {int(cu_seqlens[-1])}")
    if prefix_lens is not None:
        prefix = prefix_lens.cpu()
        wrong = (prefix > lengths) | (prefix < 0)
        if wrong.any():
            where = int(wrong.int().argmax())
            raise ValueError(
                f"prefix_lens: document {where} has {int(lengths[where])} rows, "
                f"its prefix cannot have {int(prefix[where])}"
            )
    if branches is not None:
        parent = branches.cpu().long()
        index = torch.arange(parent.shape[0])
        # Checked in two steps: only once parents are known to exist can theirs be looked up.
        wrong = (parent < -1) | (parent >= index)
        if not wrong.any():
            wrong = (parent >= 0) & (parent[parent.clamp(min=0)] != -1)
        if wrong.any():
            where = int(wrong.int().argmax())
            raise ValueError(
                f"branches: entry {where} is {int(parent[where])}; -1 or an earlier document that "
                "is no branch itself expected"
            )
