"""Triton attention at sizes that hurt: thousands of documents, more than 2**31 elements.

Without a GPU single programs of the full grid run in the interpreter, on memory of which only the
touched pages exist.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from support import interpreter
from support.attention_cases import Problem, attend, inputs, mask_of, problem_mask, reference
from support.numerics import (
    DEVICE,
    ON_GPU,
    bits,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
    peak_memory,
)
from torch import Tensor

from kernels.attention_triton import launch
from kernels.attention_triton.table import Config
from kernels.intervals import SEGMENT, Intervals

DOCUMENTS, LENGTH = 8192, 34
ROWS = DOCUMENTS * LENGTH
# Matrix products of a tile of each kernel.
PRODUCTS = {"fwd": 2, "bwd": 5, "dq": 3, "dkv": 4}
MOST_LOADS = 100
"""Of one program, also where tiles are looked at and stepped over."""


class Sampled:
    """Stands in for `launch._launch`: runs some programs of each grid and counts what they do."""

    def __init__(self, choose: Callable[[str, int, Config], set[int]]) -> None:
        self.choose = choose
        self.seen: dict[str, tuple[int, Config, list[interpreter.Work]]] = {}

    def __call__(self, kernel: Any, grid: int, row: Config, *args: Any, **constants: Any) -> None:
        name, done = kernel.__name__.removesuffix("_kernel"), []
        for program in sorted(self.choose(name, grid, row)):
            with interpreter.count_work(MOST_LOADS) as work:
                interpreter.run_programs(kernel, grid, [program], args, constants)
            done.append(work)
        self.seen[name] = (grid, row, done)


def _last_group(mask: Intervals, tile: int = 64) -> int:
    """Return the slot of the last group that holds documents."""
    groups = mask.groups[tile]
    return int((groups[:, 1] > groups[:, 0]).nonzero()[-1])


@pytest.mark.skipif(ON_GPU, reason="counts in the interpreter")
@pytest.mark.parametrize("path", ["doc", "heads", "tiled", "branches"])
def test_thousands_of_documents_are_not_searched(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a program visits does not depend on how many documents there are."""
    dim = {"doc": 32, "heads": 8, "tiled": 16, "branches": 16}[path]
    problem = Problem((LENGTH,) * DOCUMENTS, "prefix", 1, 1, dim, torch.float16, path == "tiled")
    alone = dataclasses.replace(problem, lengths=(LENGTH,))
    if path == "branches":  # pictures, each followed by four answers; the last one by one
        parents = torch.arange(DOCUMENTS, dtype=torch.int32) // 5 * 5
        parents[::5] = -1
        problem = dataclasses.replace(problem, form={"branches": parents})
        alone = dataclasses.replace(problem, lengths=(LENGTH,) * 2, form="branches")
    mask, made = problem_mask(problem), inputs(problem)
    last_program = set() if path in ("tiled", "branches") else {_last_group(mask)}
    sampled = Sampled(lambda _, grid, __: {0, grid // 3, grid // 2, grid - 1} | last_program)
    monkeypatch.setattr(launch, "_launch", sampled)
    found = attend(problem, mask, *made)

    whole = path in ("doc", "heads")
    assert set(sampled.seen) == (
        {f"{path}_fwd", f"{path}_bwd"} if whole else {"tiled_fwd", "tiled_dq", "tiled_dkv"}
    )
    reach = LENGTH * (5 if path == "branches" else 1)  # rows that a row may see or be seen by
    for name, (grid, row, done) in sampled.seen.items():
        a_tile = PRODUCTS[name.rsplit("_", 1)[1]]
        if whole:  # a tile holds one document of 34; slots that no group uses end at once
            assert grid == -(-ROWS // SEGMENT) * (2 * SEGMENT // 64 + 1)
            tiles = -(-64 // row.block_q)
        else:
            own, other = row.block_q, row.block_k
            if name == "tiled_dkv":
                own, other = other, own
            assert grid == -(-ROWS // own)
            tiles = (own + 2 * reach) // other + 4
        assert a_tile <= max(work.products for work in done) <= tiles * a_tile, name

    # And the last document, whose programs were among them, is right.
    rows = slice(ROWS - sum(alone.lengths), ROWS)
    exact = reference(alone, problem_mask(alone), *(x[rows].double() for x in made))
    for ours, want in zip(found, exact, strict=True):
        off = ours[-LENGTH:].double() - want[-LENGTH:]
        assert off.norm() <= 2e-3 * want[-LENGTH:].norm()


@pytest.mark.gpu
@pytest.mark.parametrize(("heads", "dim", "tiled"), [(6, 64, False), (32, 8, False), (6, 64, True)])
def test_thousands_of_documents_at_full_size(heads: int, dim: int, tiled: bool) -> None:
    """Every row is right, and memory is that of the results and nothing more."""
    problem = Problem(
        (LENGTH,) * DOCUMENTS, "prefix", heads, heads, dim, torch.bfloat16, tiled=tiled
    )
    mask, made = problem_mask(problem), inputs(problem)
    found = attend(problem, mask, *made)
    q, k, v, dout = (
        x.double().view(DOCUMENTS, LENGTH, heads, dim).transpose(1, 2).contiguous() for x in made
    )
    for x in (q, k, v):
        x.requires_grad_()
    seen = mask_of((LENGTH,), "prefix").dense_mask()
    scores = (q @ k.transpose(-1, -2) * dim**-0.5).masked_fill(~seen, float("-inf"))
    exact = torch.softmax(scores, -1) @ v
    grads = torch.autograd.grad(exact, (q, k, v), dout)
    for ours, want in zip([found[0], *found[2:]], [exact.detach(), *grads], strict=True):
        off = ours.double() - want.transpose(1, 2).reshape(ours.shape)
        assert off.norm() <= 0.005 * want.norm()
        assert off.abs().max() <= 0.02 * want.abs().max()
    del q, k, v, dout, scores, exact, grads
    results = sum(x.numel() * x.element_size() for x in found)
    delta, slack = found[1].numel() * 4, 8 << 20
    assert peak_memory(lambda: attend(problem, mask, *made)) <= results + delta + slack


@pytest.mark.parametrize("path", ["doc", "heads", "tiled", "branches"])
def test_strides_beyond_32_bits(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows 2**23 elements apart: from row 256 on, offsets leave int32."""
    form = "branches" if path == "branches" else "prefix"
    dim = {"doc": 24, "heads": 8, "tiled": 24, "branches": 16}[path]
    problem = Problem((60, 64, 50, 64, 50, 12), form, 2, 1, dim, torch.float16, path == "tiled")
    mask, made = problem_mask(problem), inputs(problem)
    rows, stride = made[0].shape[0], 1 << 23
    assert (rows - 1) * stride > 2**31
    block = torch.empty(rows * stride, dtype=torch.float16, device=DEVICE)
    far, at = [], 0
    for x in made[:3]:
        far.append(block.as_strided(x.shape, (stride, dim + 8, 1), at).copy_(x))
        at += x.shape[1] * (dim + 8)
    read: set[int] = set()
    original = launch._launch

    def spy(kernel: Any, grid: int, row: Config, *args: Any, **constants: Any) -> None:
        read.update(x.data_ptr() for x in args if isinstance(x, Tensor))
        original(kernel, grid, row, *args, **constants)

    monkeypatch.setattr(launch, "_launch", spy)
    # A 32-bit offset ends here in an error, instead of in a segmentation fault.
    with nullcontext() if ON_GPU else interpreter.checked_overflow():
        found = attend(problem, mask, *far, made[3])
    assert {x.data_ptr() for x in far} <= read  # no copy was made
    for a, b in zip(found, attend(problem, mask, *made), strict=True):
        assert torch.equal(bits(a), bits(b))


def _choose_last(heads: int, rows: int, group: int) -> Callable[[str, int, Config], set[int]]:
    """Return what picks the programs that write the last head of the last ``rows`` rows."""

    def choose(name: str, grid: int, row: Config) -> set[int]:
        slabs = -(-heads // row.heads)
        if not name.startswith("tiled"):
            return {group * slabs + slabs - 1}
        if name == "tiled_dkv":
            return {grid - 1 - tile * heads for tile in range(-(-rows // row.block_k))}
        return {tile * heads + heads - 1 for tile in range(-(-rows // row.block_q))}

    return choose


@pytest.mark.parametrize(
    ("heads", "dim", "tile", "rows"),
    [(33, 64, 64, 64), (129, 16, 64, 64), (33, 64, 0, 200)],
    ids=["doc", "heads", "tiled"],
)
def test_results_beyond_32_bits(
    heads: int, dim: int, tile: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last rows of tensors of more than 2**31 elements, written forward and backward."""
    before = 1 << 20
    assert before * heads * dim > 2**31
    mask = mask_of((64,) * (before // 64) + (rows,), "full")
    groups = mask.groups[tile] if tile else None
    alone = mask_of((rows,), "full")
    problem = Problem((rows,), "full", 1, 1, dim, torch.float16)
    q, k, v, dout = inputs(problem)
    # Forward's result is replaced by noise: gradients of q and k then do not cancel.
    noise = inputs(problem, seed=1)[3]
    vectors = ("start", "stop", "start2", "stop2")
    transposed = ("q_start", "q_stop", "q_start2", "q_stop2")

    def run(mask: Intervals, groups: Tensor | None, *tensors: Tensor) -> list[Tensor]:
        q, k, v, dout, noise = tensors
        first = [getattr(mask, name) for name in vectors]
        rest = [getattr(mask, name) for name in transposed]
        options = (None, dim**-0.5, 0.0, 0.0, tile)
        out, lse = launch.forward(q, k, v, *first, groups, *options)
        grads = launch.backward(dout, q, k, v, noise, lse, *first, *rest, groups, *options)
        return [x[-rows:, -1].clone() for x in (out, lse.T, *grads)]

    expected = run(alone, alone.groups[tile] if tile else None, q, k, v, dout, noise)
    # One head seen as all of them: only what is written needs to be large.
    shared = []
    for x in (q, k, v):
        long = torch.zeros(before + rows, 1, dim, dtype=x.dtype, device=DEVICE)
        long[before:] = x
        shared.append(long.expand(-1, heads, -1))
    large = []
    for x in (dout, noise):
        x_large = torch.empty(before + rows, heads, dim, dtype=x.dtype, device=DEVICE)
        x_large[before:] = x
        large.append(x_large)
    if not ON_GPU:
        sampled = Sampled(_choose_last(heads, rows, _last_group(mask) if tile else 0))
        monkeypatch.setattr(launch, "_launch", sampled)
    with nullcontext() if ON_GPU else interpreter.checked_overflow():
        found = run(mask, groups, *shared, *large)
    for ours, want in zip(found, expected, strict=True):
        assert (ours.double() - want.double()).norm() <= 2e-3 * want.double().norm()
