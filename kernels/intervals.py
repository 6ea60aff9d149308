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

A column is one interval too: the rows that see key ``j`` are ``[q_start[j], q_stop[j])``, which
is what a backward pass needs. In the second drawing ``q_start`` is 0 0 2 3 4 5 and ``q_stop``
4 4 4 4 6 6.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .intervals_torch import GROUP_TILES, SEGMENT, pack, row_vectors
from .layout import PaddedLayout, Segments, build_layout

__all__ = ["GROUP_TILES", "SEGMENT", "Intervals", "intervals"]

_INT32_MAX = 2**31 - 1


@dataclass(eq=False)
class Intervals:
    """The keys that each of T query rows sees, and the rows that see each key.

    Tensors are int32, contiguous, on one device, and not to be written to. `intervals` makes them.
    """

    start: Tensor
    """``[T]``: the first key each row sees; does not decrease along the row."""
    stop: Tensor
    """``[T]``: one past the last key each row sees; does not decrease."""
    q_start: Tensor
    """``[T]``: the first row that sees each key through ``[start, stop)``; does not decrease."""
    q_stop: Tensor
    """``[T]``: one past the last row that sees each key through it; does not decrease."""
    start2: Tensor | None
    """``[T]``: second interval, a branch's parent (0, 0: none). None without branches."""
    stop2: Tensor | None
    q_start2: Tensor | None
    """``[T]``: hull of the rows of all branches of the key's document (0, 0: it has none). Rows of
    other documents may lie inside: ``start2``, ``stop2`` say which rows see the key."""
    q_stop2: Tensor | None
    cu_seqlens: Tensor
    """``[D + 1]``: where documents begin and end."""
    branches: Tensor | None
    """``[D]``: the document that each one continues (-1: none), or None."""
    prefix_lens: Tensor | None
    """``[D]``: rows at the head of each document that all of it sees, or None."""
    causal: bool
    window: int | None
    max_len: int | None
    """Rows of the longest document or a bound on it, on the host; None: not known there."""
    _groups: dict[int, Tensor] | None = field(default=None, repr=False)
    _host: Intervals | None = field(default=None, repr=False)
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

    @property
    def groups(self) -> dict[int, Tensor]:
        """Row ranges of whole consecutive documents: ``{tile: int32 [G, 2]}``, begin and end.

        A range has at most ``tile`` rows and every document of at most ``tile`` rows lies in
        exactly one; longer ones lie in none. Empty slots are (0, 0): every `SEGMENT` rows own
        ``2 * SEGMENT // tile + 1`` slots, for two consecutive groups of greedy packing together
        exceed a tile. Empty dictionary with branches, whose rows see more than their document.
        """
        if self._groups is None:
            ends = [] if self.branches is not None else self.segments().cu_seqlens.tolist()
            self._groups = {tile: pack(ends, tile).to(self.device) for tile in GROUP_TILES if ends}
        return self._groups

    def to(self, device: torch.device | str, *, non_blocking: bool = True) -> Intervals:
        """Return the same intervals on ``device``; what was known on the host stays known.

        Only the document lists are copied (to the host: never non-blocking); the vectors are made
        anew from them on ``device``.
        """
        device = torch.device(device)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        if device == self.device:
            return self
        on_host = device.type == "cpu"
        if on_host and self._host is not None:
            return self._host

        def move(tensor: Tensor | None) -> Tensor | None:
            if tensor is None:
                return None
            return tensor.to(device, non_blocking=non_blocking and not on_host)

        made = intervals(
            self.cu_seqlens.to(device, non_blocking=non_blocking and not on_host),
            prefix_lens=move(self.prefix_lens),
            causal=self.causal,
            window=self.window,
            branches=move(self.branches),
            total=self.num_rows,
            max_len=self.max_len,
        )
        made._host = self if self.device.type == "cpu" else self._host
        return made

    def segments(self) -> Segments:
        """Return the same facts on the host (read back once if they were made on a device)."""
        if self._host is not None:
            return self._host.segments()
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
    max_len: int | None = None,
) -> Intervals:
    """Build the key intervals of a packed row.

    On a GPU this is one small kernel (int64 input is converted by one more; branches cost a few
    more) on fixed-size memory: it waits for nothing and can be captured in a CUDA graph, if
    ``total`` is given.

    Args:
        cu_seqlens: integer ``[D + 1]``, non-decreasing, first 0, last T. Empty documents are fine.
        prefix_lens: integer ``[D]``: every row of a document sees the whole of its first
            ``prefix_lens[d]`` rows (prefix-LM, Raffel et al. 2020 §3.2.1).
        causal: a row sees the rows up to itself; otherwise its whole document.
        window: a row sees at most itself and the ``window - 1`` rows before it in its document
            (a branch still sees its whole parent). Needs ``causal``; not with ``prefix_lens``.
        branches: integer ``[D]``: document ``i`` additionally sees the whole of document
            ``branches[i] < i``, which is no branch itself; -1: none. Lay each family out together:
            on a GPU a tile of rows steps over (without reading) what lies between its parents.
        total: T. Only needed to avoid reading it back when ``cu_seqlens`` lies on a GPU.
        max_len: rows of the longest document, or any bound on it. Only needed when ``cu_seqlens``
            lies on a GPU, for paths that own whole documents: without it none is chosen there.

    Returns:
        The intervals, on ``cu_seqlens``' device. Values are validated when it is the CPU; on a
        GPU only shapes are, because reading them back would stall the stream.

    Raises:
        ValueError: naming the argument that is wrong.

    Example:
        >>> intervals(torch.tensor([0, 3, 5])).stop.tolist()
        [1, 2, 3, 4, 5]
    """
    _check_shapes(cu_seqlens, prefix_lens, causal, window, branches, total, max_len)
    device = cu_seqlens.device
    if device.type == "cpu":
        longest = _check_values(cu_seqlens, prefix_lens, branches, total, max_len)
        max_len = longest if max_len is None else max_len
    cu = cu_seqlens.to(torch.int32).contiguous()
    if prefix_lens is not None:
        prefix_lens = prefix_lens.to(device, torch.int32).contiguous()
    if branches is not None:
        branches = branches.to(device, torch.int32).contiguous()
    if total is None:
        total = int(cu[-1])
    groups = None
    if device.type == "cuda":
        from .intervals_triton import build

        vectors, groups = build(
            cu, total, prefix_lens=prefix_lens, causal=causal, window=window, branches=branches
        )
    else:
        vectors = row_vectors(cu, total, prefix_lens, causal, window, branches)
    return Intervals(
        **vectors._asdict(),
        cu_seqlens=cu,
        branches=branches,
        prefix_lens=prefix_lens,
        causal=causal,
        window=window,
        max_len=max_len,
        _groups=groups,
    )


def _check_shapes(
    cu_seqlens: Tensor,
    prefix_lens: Tensor | None,
    causal: bool,
    window: int | None,
    branches: Tensor | None,
    total: int | None,
    max_len: int | None,
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
    for name, value in (("window", window), ("total", total), ("max_len", max_len)):
        if value is not None and not 0 <= value <= _INT32_MAX:
            raise ValueError(f"{name}: 0 to 2**31 - 1 expected, got {value}")


def _check_values(
    cu_seqlens: Tensor,
    prefix_lens: Tensor | None,
    branches: Tensor | None,
    total: int | None,
    max_len: int | None,
) -> int:
    """Check what lies on the host; return the rows of the longest document."""
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
    if cu_seqlens[-1] > _INT32_MAX:
        raise ValueError(f"cu_seqlens: at most 2**31 - 1 rows expected, got {int(cu_seqlens[-1])}")
    longest = int(lengths.max()) if lengths.shape[0] else 0
    if max_len is not None and max_len < longest:
        raise ValueError(f"max_len: the longest document has {longest} rows, got {max_len}")
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
    return longest
