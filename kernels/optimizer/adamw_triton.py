"""AdamW over any number of tensors in one launch, the gradients' global norm in another before it.

Kernels find their tensors through `tables`: addresses as 64-bit numbers, and a list of chunks, each
a program's share of one tensor. The norm is the sum of a fixed number of partial sums, which every
program of the update adds up for itself, in the same order: nothing waits, and nothing is atomic
but a count of the programs that are done, by which the last one knows that it may count the step.

Loshchilov & Hutter 2019, "Decoupled weight decay regularization"; Kingma & Ba 2015, "Adam".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..rows.common_triton import launch
from .tables import ADDRESSES, CHUNK, PARTIALS, Hyper, Kind, Table, Tables

__all__ = ["Config", "config", "step"]

NORM_BLOCK = 4096
NORM_WARPS = 8
STEPPED = 128
"""Tensors whose steps are counted at once."""
HYPERS = 8
_TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@dataclass(frozen=True)
class Config:
    """How the update is compiled."""

    block: int
    """Elements of a turn."""
    warps: int
    registers: int
    """Most registers of a thread."""


MEASURED: dict[Kind, Config] = {}
"""Exceptions to the rule: rows that were faster on a GPU, as ``python -m kernels.tune`` prints
them."""


def config(kind: Kind) -> Config:
    """Return the frozen configuration.

    Counted for sm_90 (``python -m kernels.offline --op adamw``), to be measured: 16 bytes of each
    tensor a thread, so that a multiprocessor's 32 warps have 64 KB in flight (half precision: 24
    warps, 48 KB). Unbounded, ptxas sometimes stops at 48 or 80 registers and spills three of them.
    """
    if (measured := MEASURED.get(kind)) is not None:
        return measured
    if kind.master or kind.param == torch.float32:
        return Config(1024, 8, 64)
    return Config(2048, 8, 80)


@triton.jit
def read(pointer, inside):
    """Load in float32; ``inside`` None: everything, in words of 16 bytes."""
    if inside is None:
        return tl.load(pointer).to(tl.float32)
    else:
        return tl.load(pointer, mask=inside, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["count"])
def adamw_norm_kernel(
    table,
    chunks,
    partials,
    count,
    GRAD: tl.constexpr,
    ADDRESSES: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Grid (programs): ``partials[program]`` = the sum of squares of every programs-th chunk."""
    program = tl.program_id(0)
    offsets = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for at in range(program, count, tl.num_programs(0)):
        tensor, part = tl.load(chunks + 2 * at), tl.load(chunks + 2 * at + 1)
        row = table + tensor * ADDRESSES
        start = part.to(tl.int64) * CHUNK
        size = tl.minimum(tl.load(row + 6) - start, CHUNK).to(tl.int32)
        grad = tl.load(row + 1).to(tl.pointer_type(GRAD)) + start
        whole = tl.where(tl.load(row + 7) % 2 == 1, size // BLOCK, 0)
        for block in range(whole):
            value = read(tl.multiple_of(grad, 16) + block * BLOCK + offsets, None)
            total += value * value
        for block in range(whole, tl.cdiv(size, BLOCK)):
            place = block * BLOCK + offsets
            value = read(grad + place, place < size)
            total += value * value
    tl.store(partials + program, tl.sum(total, 0))


@triton.jit
def one_minus_exp(x):
    """``1 - exp(x)`` for x ≤ 0, exact to some 2 units where x is near 0."""
    series = 1.0 + x / 6.0
    series = 1.0 + x / 5.0 * series
    series = 1.0 + x / 4.0 * series
    series = 1.0 + x / 3.0 * series
    series = 1.0 + x / 2.0 * series
    return tl.where(x > -0.25, -x * series, 1.0 - tl.exp(x))


@triton.jit
def update(
    param,
    grad,
    mean,
    square,
    master,
    inside,
    scale,
    decay,
    size,
    root,
    eps,
    rest1,
    beta2,
    rest2,
):
    """One block of one tensor; the pointers have its elements' offsets."""
    g = read(grad, inside) * scale
    m = read(mean, inside)
    v = read(square, inside)
    x = read(param if master is None else master, inside)
    m += rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    x = x * decay - size * tl.div_rn(m, tl.sqrt_rn(v) * root + eps)
    tl.store(mean, m.to(mean.dtype.element_ty), mask=inside)
    tl.store(square, v.to(square.dtype.element_ty), mask=inside)
    if master is not None:
        tl.store(master, x, mask=inside)
    tl.store(param, x.to(param.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["tensors"])
def adamw_kernel(
    table,
    chunks,
    hypers,
    rates,
    partials,
    norm,
    done,
    tensors,
    max_norm,
    PARAM: tl.constexpr,
    GRAD: tl.constexpr,
    MASTER: tl.constexpr,
    GROUPS: tl.constexpr,
    SKIP: tl.constexpr,
    HYPERS: tl.constexpr,
    PARTIALS: tl.constexpr,
    ADDRESSES: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    STEPPED: tl.constexpr,
):
    """Grid (chunks): one step of each tensor of the table.

    ``hypers``: HYPERS numbers a group, see `_hypers`; ``rates``: pointers to the learning rates, or
    None. ``partials``: the norm's, or None (nothing is clipped or skipped); ``norm`` gets the norm;
    ``max_norm`` None: nothing is clipped. ``done``: int32, 0 before and after.
    """
    apply = True
    scale = 1.0
    if partials is not None:
        total = tl.sqrt_rn(tl.sum(tl.load(partials + tl.arange(0, PARTIALS)), 0))
        if tl.program_id(0) == 0:
            if norm is not None:
                tl.store(norm, total)
        if SKIP:
            apply = total < float("inf")
        if max_norm is not None:
            scale = tl.minimum(
                tl.div_rn(max_norm, total + 1e-6), 1.0, propagate_nan=tl.PropagateNan.ALL
            )
    if apply:
        chunk = tl.program_id(0)
        tensor, part = tl.load(chunks + 2 * chunk), tl.load(chunks + 2 * chunk + 1)
        row = table + tensor * ADDRESSES
        flags = tl.load(row + 7)
        group = flags // 2
        lr, weight_decay, eps, rest1 = 0.0, 0.0, 0.0, 0.0
        beta2, rest2, log1, log2 = 0.0, 0.0, 0.0, 0.0
        for at in tl.static_range(GROUPS):  # type: ignore
            own = group == at
            rate = hypers[at * HYPERS]
            if rates is not None:
                rate = tl.load(rates[at]).to(tl.float32)
            lr = tl.where(own, rate, lr)
            weight_decay = tl.where(own, hypers[at * HYPERS + 1], weight_decay)
            eps = tl.where(own, hypers[at * HYPERS + 2], eps)
            rest1 = tl.where(own, hypers[at * HYPERS + 3], rest1)
            beta2 = tl.where(own, hypers[at * HYPERS + 4], beta2)
            rest2 = tl.where(own, hypers[at * HYPERS + 5], rest2)
            log1 = tl.where(own, hypers[at * HYPERS + 6], log1)
            log2 = tl.where(own, hypers[at * HYPERS + 7], log2)
        count = tl.load(tl.load(row + 5).to(tl.pointer_type(tl.float32))) + 1.0
        size = tl.div_rn(lr, one_minus_exp(count * log1))
        root = tl.div_rn(1.0, tl.sqrt_rn(one_minus_exp(count * log2)))
        decay = 1.0 - lr * weight_decay
        # Pointers.
        start = part.to(tl.int64) * CHUNK
        length = tl.minimum(tl.load(row + 6) - start, CHUNK).to(tl.int32)
        param = tl.load(row).to(tl.pointer_type(PARAM)) + start
        grad = tl.load(row + 1).to(tl.pointer_type(GRAD)) + start
        if MASTER:
            mean = tl.load(row + 2).to(tl.pointer_type(tl.float32)) + start
            square = tl.load(row + 3).to(tl.pointer_type(tl.float32)) + start
            master = tl.load(row + 4).to(tl.pointer_type(tl.float32)) + start
        else:
            mean = tl.load(row + 2).to(tl.pointer_type(PARAM)) + start
            square = tl.load(row + 3).to(tl.pointer_type(PARAM)) + start
            master = None
        offsets = tl.arange(0, BLOCK)
        whole = tl.where(flags % 2 == 1, length // BLOCK, 0)
        for block in range(whole):
            place = block * BLOCK + offsets
            update(
                tl.multiple_of(param, 16) + place, tl.multiple_of(grad, 16) + place,
                tl.multiple_of(mean, 16) + place, tl.multiple_of(square, 16) + place,
                None if master is None else tl.multiple_of(master, 16) + place, None,
                scale, decay, size, root, eps, rest1, beta2, rest2,
            )  # fmt: skip
        for block in range(whole, tl.cdiv(length, BLOCK)):
            place = block * BLOCK + offsets
            update(
                param + place, grad + place, mean + place, square + place,
                None if master is None else master + place, place < length,
                scale, decay, size, root, eps, rest1, beta2, rest2,
            )  # fmt: skip
        tl.debug_barrier()  # every thread has read its step
        if tl.atomic_add(done, 1, sem="acq_rel") == tl.num_programs(0) - 1:
            for first in range(0, tensors, STEPPED):
                number = first + tl.arange(0, STEPPED)
                real = number < tensors
                steps = tl.load(table + number * ADDRESSES + 5, mask=real, other=0)
                steps = steps.to(tl.pointer_type(tl.float32))
                tl.store(steps, tl.load(steps, mask=real, other=0.0) + 1.0, mask=real)
            tl.store(done, 0)


def step(
    tables: Tables,
    hypers: Sequence[Hyper],
    rates: Sequence[Tensor] | None,
    max_norm: float | None,
    skip: bool,
) -> Tensor | None:
    """Take one step of every tensor; return the norm of all gradients if it was computed.

    ``rates``: learning rates on the device, one a group, in place of those in ``hypers``.
    """
    norm = partials = None
    if max_norm is not None or skip:
        partials = tables.partials
        norm = torch.empty((), dtype=torch.float32, device=partials.device)
        for number, table in enumerate(tables.of_kinds):
            programs = min(table.programs, PARTIALS)
            launch(
                adamw_norm_kernel, (programs,), table.addresses,
                table.addresses, table.chunks, partials[number * PARTIALS :], table.programs,
                GRAD=_TYPES[table.kind.grad], ADDRESSES=ADDRESSES, CHUNK=CHUNK, BLOCK=NORM_BLOCK,
                num_warps=NORM_WARPS,
            )  # fmt: skip
    flat = _hypers(hypers)
    for number, table in enumerate(tables.of_kinds):
        launch(
            adamw_kernel, (table.programs,), table.addresses,
            table.addresses, table.chunks, flat, None if rates is None else tuple(rates), partials,
            norm if number == 0 else None, table.done, table.tensors,
            None if max_norm is None else float(max_norm),
            **_constants(table, len(hypers), skip, 0 if partials is None else partials.numel()),
        )  # fmt: skip
    return norm


def _constants(table: Table, groups: int, skip: bool, partials: int) -> dict[str, Any]:
    c = config(table.kind)
    return {
        "PARAM": _TYPES[table.kind.param],
        "GRAD": _TYPES[table.kind.grad],
        "MASTER": table.kind.master,
        "GROUPS": groups,
        "SKIP": skip,
        "HYPERS": HYPERS,
        "PARTIALS": partials,
        "ADDRESSES": ADDRESSES,
        "CHUNK": CHUNK,
        "BLOCK": c.block,
        "STEPPED": STEPPED,
        "num_warps": c.warps,
        "maxnreg": c.registers,
    }


def _hypers(groups: Sequence[Hyper]) -> tuple[float, ...]:
    """Return what kernels need of each group, each number rounded to float32 only once."""
    flat: list[float] = []
    for lr, beta1, beta2, eps, weight_decay in groups:
        logs = [math.log(beta) if beta > 0.0 else -math.inf for beta in (beta1, beta2)]
        rate = 0.0 if isinstance(lr, Tensor) else float(lr)
        flat += [rate, weight_decay, eps, 1.0 - beta1, beta2, 1.0 - beta2, *logs]
    return tuple(map(float, flat))
