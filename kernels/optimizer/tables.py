"""What AdamW works on: lists of tensors, and the tables by which kernels find them.

Addresses go to the device as 64-bit numbers, once for each set of addresses: tables are kept by
what is in them, so one that is found is right. A table that a CUDA graph was captured with is kept
for good.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "ADDRESSES", "CHUNK", "KEPT", "PARTIALS", "Hyper", "Kind", "Table", "Tables", "Tensors",
    "keep_if_captured", "laid_out_like", "stream_of", "tables_of",
]  # fmt: skip

CHUNK = 16_384
"""Elements of a program. Frozen, like PARTIALS: the order in which the norm is added up follows."""
PARTIALS = 1024
"""Partial sums of the norm for each kind of tensors: some eight programs a multiprocessor."""
ADDRESSES = 8
"""Numbers a row: param, grad, exp_avg, exp_avg_sq, master, step; elements; 2 × group + aligned."""
SPARES = 4
"""Pieces of pinned memory of a size that are set aside for captures: two for each kind."""
KEPT = 16
"""Tables that are remembered at a time: gradients move between a few addresses, if at all."""


class Hyper(NamedTuple):
    """Settings of a group."""

    lr: float | Tensor
    beta1: float
    beta2: float
    eps: float
    weight_decay: float


class Kind(NamedTuple):
    """Dtypes for which a kernel is compiled; moments have that of the master, or of the param."""

    param: torch.dtype
    grad: torch.dtype
    master: bool


@dataclass
class Tensors:
    """Lists of equal lengths; ``masters``: None where a parameter has none."""

    params: list[Tensor]
    grads: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    steps: list[Tensor]
    masters: list[Tensor | None]
    groups: list[int]
    """Which of the settings each has."""

    def check(self) -> None:
        """Raise ValueError naming the list whose tensor does not fit its parameter."""
        lengths = {
            "grads": self.grads, "exp_avgs": self.exp_avgs, "exp_avg_sqs": self.exp_avg_sqs,
            "steps": self.steps, "masters": self.masters,
        }  # fmt: skip
        for name, found in lengths.items():
            if len(found) != len(self.params):
                raise ValueError(
                    f"{name}: as many as params, {len(self.params)}, expected, got {len(found)}"
                )
        for at, p in enumerate(self.params):
            master = self.masters[at]
            if not p.is_floating_point() or p.layout != torch.strided:
                raise ValueError(f"params[{at}]: dense floating expected, got {p.dtype} {p.layout}")
            if p.device != self.params[0].device:
                raise ValueError(
                    f"params[{at}]: lies on {p.device}, the first on {self.params[0].device}"
                )
            grad = (p.dtype,) if master is None else (p.dtype, torch.float32)
            moment = p.dtype if master is None else torch.float32
            _like(f"grads[{at}]", self.grads[at], p, grad)
            _like(f"exp_avgs[{at}]", self.exp_avgs[at], p, (moment,))
            _like(f"exp_avg_sqs[{at}]", self.exp_avg_sqs[at], p, (moment,))
            if master is not None:
                _like(f"masters[{at}]", master, p, (torch.float32,))
            step = self.steps[at]
            if step.numel() != 1 or step.dtype != torch.float32 or step.device != p.device:
                raise ValueError(
                    f"steps[{at}]: one torch.float32 on {p.device} expected, got {step.dtype} of "
                    f"shape {tuple(step.shape)} on {step.device}"
                )


def _like(name: str, x: Tensor, p: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    if x.shape != p.shape or x.dtype not in dtypes or x.device != p.device:
        raise ValueError(
            f"{name}: {' or '.join(map(str, dtypes))} of shape {tuple(p.shape)} on {p.device} "
            f"expected, got {x.dtype} of shape {tuple(x.shape)} on {x.device}"
        )
    if x.layout != torch.strided:
        raise ValueError(f"{name}: a dense tensor expected, got {x.layout}")


@dataclass(frozen=True)
class Table:
    """Tensors of one kind, as a kernel sees them."""

    kind: Kind
    addresses: Tensor
    """int64 ``[tensors, ADDRESSES]``."""
    chunks: Tensor
    """int32 ``[programs, 2]``: a row of ``addresses``, and which chunk of that tensor."""
    done: Tensor
    """int32 ``[1]``, 0 between launches."""
    tensors: int
    programs: int


@dataclass(frozen=True)
class Tables:
    """Those of all kinds, and the partial sums of the norm over all of them."""

    of_kinds: tuple[Table, ...]
    partials: Tensor
    """float32; what no program writes is 0."""


_kept: OrderedDict[tuple[object, ...], Tables] = OrderedDict()
_captured: dict[int, Tables | Tensor] = {}
_spare: dict[torch.device, list[Tensor]] = {}


def laid_out_like(grads: Sequence[Tensor], params: Sequence[Tensor]) -> list[Tensor]:
    """Return gradients whose elements lie as their parameters' do: most of them as they are."""
    return [
        g if _same(g, p) else torch.empty_like(p, dtype=g.dtype).copy_(g)
        for g, p in zip(grads, params, strict=True)
    ]


def _same(x: Tensor, p: Tensor) -> bool:
    return x.stride() == p.stride() or (x.is_contiguous() and p.is_contiguous())


def tables_of(tensors: Tensors) -> Tables:
    """Return the tables of these tensors, from before if the addresses are the same.

    Gradients must be `laid_out_like` their parameters.

    Raises:
        ValueError: a tensor with gaps, or moments laid out unlike their parameter.
        RuntimeError: while a CUDA graph is captured, before any step was taken.
    """
    device = tensors.params[0].device
    rows = tuple(_rows(tensors))
    stream = stream_of(device)
    capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    if not capturing:
        found = _kept.get((device, stream, rows))
    else:  # those of another capture are not filled before its graph has run
        found = next((x for k, x in _kept.items() if (k[0], k[2]) == (device, rows)), None)
    if found is None:
        _check_layout(tensors)
        found = _make(rows, device, capturing)
        if not capturing:
            _kept[device, stream, rows] = found
            if len(_kept) > KEPT:
                _kept.popitem(last=False)
    elif not capturing:
        _kept.move_to_end((device, stream, rows))
    return keep_if_captured(found, device)


def keep_if_captured(tables: Tables, device: torch.device) -> Tables:
    """Keep tables for good if the graph that is being captured reads them."""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        _captured[id(tables)] = tables
    return tables


def stream_of(device: torch.device) -> int:
    """Return the number of the current stream: memory that it uses is its own."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def _rows(tensors: Tensors) -> list[tuple[object, ...]]:
    """Return each tensor's kind and its row of addresses."""
    rows: list[tuple[object, ...]] = []
    for at, p in enumerate(tensors.params):
        master, grad = tensors.masters[at], tensors.grads[at]
        moments = tensors.exp_avgs[at], tensors.exp_avg_sqs[at]
        addresses = [x.data_ptr() for x in (p, grad, *moments)]
        addresses.append(0 if master is None else master.data_ptr())
        aligned = all(address % 16 == 0 for address in addresses)
        kind = Kind(p.dtype, grad.dtype, master is not None)
        group = 2 * tensors.groups[at] + aligned
        rows.append((kind, *addresses, tensors.steps[at].data_ptr(), p.numel(), group))
    return rows


def _check_layout(tensors: Tensors) -> None:
    for at, p in enumerate(tensors.params):
        if not p.is_contiguous() and torch.empty_like(p, device="meta").stride() != p.stride():
            raise ValueError(
                f"params[{at}]: elements without gaps expected, got strides {p.stride()} of shape "
                f"{tuple(p.shape)}"
            )
        others = {"exp_avgs": tensors.exp_avgs[at], "exp_avg_sqs": tensors.exp_avg_sqs[at]}
        for name, x in (others | {"masters": tensors.masters[at]}).items():
            if x is not None and not _same(x, p):
                raise ValueError(
                    f"{name}[{at}]: strides of its parameter, {p.stride()}, expected, "
                    f"got {x.stride()}"
                )


def _make(rows: Sequence[tuple[object, ...]], device: torch.device, capturing: bool) -> Tables:
    kinds: dict[Kind, list[tuple[int, ...]]] = {}
    for kind, *row in rows:
        assert isinstance(kind, Kind)
        kinds.setdefault(kind, []).append(tuple(row))  # type: ignore[arg-type]
    made = []
    for kind, found in kinds.items():
        addresses = torch.tensor(found, dtype=torch.int64)
        counts = (addresses[:, 6].clamp(min=1) + CHUNK - 1) // CHUNK  # one for an empty tensor
        tensor = torch.arange(len(found)).repeat_interleave(counts)
        first = (counts.cumsum(0) - counts)[tensor]
        chunks = torch.stack([tensor, torch.arange(len(tensor)) - first], 1).to(torch.int32)
        made.append(
            Table(
                kind,
                _to(addresses, device, capturing),
                _to(chunks, device, capturing),
                torch.zeros(1, dtype=torch.int32, device=device),
                len(found),
                len(chunks),
            )
        )
    length = 1 << (PARTIALS * len(made) - 1).bit_length()
    return Tables(tuple(made), torch.zeros(length, dtype=torch.float32, device=device))


def _to(x: Tensor, device: torch.device, capturing: bool) -> Tensor:
    """Copy to ``device`` without waiting.

    A graph reads the host's copy at every replay, and no pinned memory may be allocated while it is
    captured: that copy comes from memory set aside before, and is kept for good.
    """
    if device.type != "cuda":
        return x
    if not capturing:
        room = _spare.setdefault(device, [])
        if sum(spare.nbytes >= x.nbytes for spare in room) < SPARES:
            size = max(2 * x.nbytes, 4096)
            room.append(torch.empty(size, dtype=torch.uint8, pin_memory=True))
        return x.pin_memory().to(device, non_blocking=True)
    room = [spare for spare in _spare.get(device, []) if spare.nbytes >= x.nbytes]
    if not room:
        raise RuntimeError("take a step before a CUDA graph is captured: its tables need memory")
    spare = min(room, key=lambda spare: spare.nbytes)
    _spare[device] = [other for other in _spare[device] if other is not spare]
    _captured[id(spare)] = spare
    host = spare[: x.nbytes].view(x.dtype).view(x.shape)
    host.copy_(x)
    return host.to(device, non_blocking=True)
