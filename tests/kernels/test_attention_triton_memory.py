"""Triton attention and memory: views of any layout, poison around and under, the same bits again.

The sums do not depend on where a tensor lies, so every comparison here is bit by bit.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from support.attention_cases import Problem, attend, inputs, problem_mask
from support.numerics import (
    DEVICE,
    VIEWS,
    assert_same_bits,
    bits,
    guarded_memory,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
    poisoned_memory,
    sized,
)
from torch import Tensor

from kernels.attention_ops import attention_triton
from kernels.attention_triton import launch

LENGTHS = sized((5, 1, 0, 30, 3), (5, 1, 0, 30, 3, 61, 17) * 50)
PROBLEMS = {
    "doc": Problem(LENGTHS, "prefix", 4, 2, 24),
    "heads": Problem(LENGTHS, "prefix", 6, 3, 8),
    "tiled": Problem(LENGTHS, "prefix", 4, 2, 16, torch.float16, tiled=True),
    "branches": Problem(LENGTHS, "branches", 2, 1, 40, torch.bfloat16),
}
by_path = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


def _same(ours: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(ours, expected, strict=True):
        assert torch.equal(bits(a), bits(b))


@pytest.mark.parametrize("view", VIEWS)
@by_path
def test_any_layout(problem: Problem, view: str) -> None:
    """Also with NaN before, behind and between the rows: nothing reads there."""
    mask, made = problem_mask(problem), inputs(problem)
    laid_out = [VIEWS[view](x) for x in made]
    assert view == "misaligned" or not laid_out[0].is_contiguous()
    assert all(torch.equal(a, b) for a, b in zip(laid_out, made, strict=True))
    _same(attend(problem, mask, *laid_out), attend(problem, mask, *made))


def test_slices_of_one_projection() -> None:
    """The usual caller: q, k and v are parts of one matrix product's result."""
    problem = dataclasses.replace(PROBLEMS["doc"], kv_heads=4)
    q, k, v, dout = inputs(problem)
    total, heads, dim = q.shape
    by_stack = torch.stack((q, k, v), 1).unbind(1)
    by_chunk = [
        x.view(total, heads, dim)
        for x in torch.cat([x.reshape(total, -1) for x in (q, k, v)], 1).chunk(3, 1)
    ]
    expected = attend(problem, problem_mask(problem), q, k, v, dout)
    for parts in (by_stack, by_chunk):
        assert not any(x.is_contiguous() for x in parts)
        _same(attend(problem, problem_mask(problem), *parts, dout), expected)


@by_path
def test_expanded(problem: Problem) -> None:
    """Strides of zero: one key head seen as several, and the gradient of a sum."""
    q, k, v, _ = inputs(problem)
    k, v = (x[:, :1].expand_as(x) for x in (k, v))
    ones = torch.ones((), dtype=q.dtype, device=DEVICE).expand_as(q)
    assert k.stride(1) == 0 or k.shape[1] == 1
    dense = (q, k.contiguous(), v.contiguous(), ones.contiguous())
    mask = problem_mask(problem)
    _same(attend(problem, mask, q, k, v, ones), attend(problem, mask, *dense))


@by_path
def test_mask_vectors_inside_other_memory(problem: Problem) -> None:
    """Behind the last row stand intervals that would lead far out of the tensors."""
    mask, made = problem_mask(problem), inputs(problem)

    def inside(x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        block = torch.full((x.shape[0] + 700,), 1 << 30, dtype=x.dtype, device=DEVICE)
        return block[1 : 1 + x.shape[0]].copy_(x)

    names = ("start", "stop", "q_start", "q_stop", "start2", "stop2", "q_start2", "q_stop2")
    moved = dataclasses.replace(mask, **{name: inside(getattr(mask, name)) for name in names})
    _same(attend(problem, moved, *made), attend(problem, mask, *made))


@by_path
def test_every_output_is_written(problem: Problem) -> None:
    """What torch allocates is full of NaN, also the scratch memory between two kernels."""
    mask, made = problem_mask(problem), inputs(problem)
    expected = attend(problem, mask, *made)
    with poisoned_memory():
        _same(attend(problem, mask, *made), expected)


@by_path
def test_nothing_is_written_beyond_outputs(problem: Problem) -> None:
    mask, made = problem_mask(problem), inputs(problem)
    with guarded_memory():
        attend(problem, mask, *made)


@by_path
def test_poison_reaches_every_output(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: without kernels all outputs are NaN."""
    monkeypatch.setattr(launch, "_launch", lambda *_, **__: None)
    with poisoned_memory():
        assert all(
            x.isnan().all() for x in attend(problem, problem_mask(problem), *inputs(problem))
        )


@by_path
def test_nothing_is_written_but_outputs(problem: Problem) -> None:
    mask, made = problem_mask(problem), inputs(problem)
    tensors = [x for x in (*made, *vars(mask).values()) if isinstance(x, Tensor)]
    tensors += [] if mask.branches is not None else list(mask.groups.values())
    before = [bits(x).clone() for x in tensors]
    versions = [x._version for x in tensors]
    attend(problem, mask, *made)
    assert [x._version for x in tensors] == versions
    assert all(torch.equal(a, bits(b)) for a, b in zip(before, tensors, strict=True))


@by_path
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_same_bits_again(problem: Problem, dropout: float) -> None:
    problem = dataclasses.replace(problem, dropout=dropout)
    mask, made = problem_mask(problem), inputs(problem)
    assert_same_bits(lambda: attend(problem, mask, *made), sized(3, 100))


@by_path
def test_only_gradients_that_are_asked_for(problem: Problem) -> None:
    mask, (q, k, v, dout) = problem_mask(problem), inputs(problem)
    expected = attend(problem, mask, q, k, v, dout)

    def run(*which: bool) -> tuple[Tensor, Tensor | None, list[Any]]:
        leaves = [
            x.detach().requires_grad_(wanted) for x, wanted in zip((q, k, v), which, strict=True)
        ]
        out, lse = attention_triton(
            *leaves, mask, scale=q.shape[2] ** -0.5, softcap=None, dropout=0.0, seed=None,
            deterministic=True, return_lse=False,
        )  # fmt: skip
        assert out.requires_grad == (any(which) and torch.is_grad_enabled())
        if out.requires_grad:
            out.backward(dout)
        return out, lse, [x.grad for x in leaves]

    for which in ((True, False, False), (False, True, False), (False, False, True)):
        out, lse, grads = run(*which)
        assert lse is None and torch.equal(out, expected[0])
        for wanted, got, want in zip(which, grads, expected[2:], strict=True):
            assert (got is not None) == wanted
            assert got is None or torch.equal(got, want)
    assert torch.equal(run(False, False, False)[0], expected[0])
    with torch.no_grad():
        assert torch.equal(run(True, True, True)[0], expected[0])


def test_saved_tensors_are_guarded() -> None:
    """Writing to an input between forward and backward is an error, not a wrong gradient."""
    problem = PROBLEMS["doc"]
    q, k, v, dout = inputs(problem)
    q.requires_grad_()
    out, _ = attention_triton(
        q, k, v, problem_mask(problem), scale=0.2, softcap=None, dropout=0.0, seed=None,
        deterministic=True, return_lse=False,
    )  # fmt: skip
    k.neg_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward(dout)
