"""Attention problems for tests, and the comparison of our kernels with the references on them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from support.masks import cu_seqlens
from support.numerics import DEVICE, assert_error_at_most_twice
from torch import Tensor

from kernels import intervals
from kernels.attention_ops import attention_triton
from kernels.intervals import Intervals
from kernels.reference import attention_reference

__all__ = [
    "BRANCHED",
    "FORMS",
    "Problem",
    "attend",
    "compare",
    "inputs",
    "mask_of",
    "problem_mask",
    "reference",
]

FORMS = ("causal", "full", "prefix", "full_prefix", "window")
BRANCHED = ("branches", "interleaved", "prefix_branches", "window_branches", "full_branches")
"""Mask forms with one interval a row, and with two."""
SEED = 0x1234_5678_9ABC_DEF


@dataclass(frozen=True)
class Problem:
    """Documents, a mask form over them, and what attention is asked."""

    lengths: tuple[int, ...]
    form: str | dict[str, Any] = "causal"
    """One of `FORMS` and `BRANCHED`, or arguments of `kernels.intervals`."""
    heads: int = 2
    kv_heads: int = 2
    dim: int = 32
    dtype: torch.dtype = torch.float32
    tiled: bool = False
    """Take the tiled path whatever the lengths."""
    dropout: float = 0.0
    options: dict[str, float] = field(default_factory=dict)
    """``scale``, ``softcap``."""
    spread: float = 1.0
    """Standard deviation of q and k."""


def _arguments(lengths: tuple[int, ...], form: str) -> dict[str, Any]:
    count = len(lengths)
    half = torch.tensor(lengths, dtype=torch.int32) // 2
    arguments: dict[str, Any] = {"causal": not form.startswith("full")}
    if form == "interleaved":  # two parents whose branches take turns
        parents = [-1, -1, *(d % 2 for d in range(count - 2))][:count]
    else:
        parents = [-1, *[0] * (count - 1)][:count]
    if form == "interleaved" or "branches" in form:
        arguments["branches"] = torch.tensor(parents, dtype=torch.int32)
    if "prefix" in form:
        arguments["prefix_lens"] = half
    if "window" in form:
        arguments["window"] = 7
    return arguments


def mask_of(lengths: tuple[int, ...] | list[int], form: str | dict[str, Any]) -> Intervals:
    """Return the intervals on the device under test; what the host knows is told."""
    arguments = _arguments(tuple(lengths), form) if isinstance(form, str) else dict(form)
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            arguments[name] = value.to(DEVICE)
    cu = cu_seqlens(list(lengths)).to(DEVICE)
    return intervals(cu, **arguments, total=sum(lengths), max_len=max(lengths, default=0))


def problem_mask(problem: Problem) -> Intervals:
    """Return the intervals of a problem."""
    mask = mask_of(problem.lengths, problem.form)
    return dataclasses.replace(mask, max_len=None) if problem.tiled else mask


def inputs(problem: Problem, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return q, k, v and the upstream gradient: random, but for rounding the same in any dtype."""
    generator = torch.Generator().manual_seed(seed)
    total, spread = sum(problem.lengths), problem.spread
    made = [
        torch.randn(total, heads, problem.dim, generator=generator) * size
        for heads, size in (
            (problem.heads, spread), (problem.kv_heads, spread), (problem.kv_heads, 1.0),
            (problem.heads, 1.0),
        )
    ]  # fmt: skip
    q, k, v, dout = (x.to(DEVICE, problem.dtype) for x in made)
    return q, k, v, dout


def _seed(problem: Problem) -> Tensor | None:
    return torch.tensor([SEED], device=DEVICE) if problem.dropout else None


def attend(
    problem: Problem,
    mask: Intervals,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dout: Tensor | None = None,
) -> list[Tensor]:
    """Run our kernels: out, lse and, with ``dout``, the gradients of q, k and v."""
    q, k, v = (x.detach().requires_grad_(dout is not None) for x in (q, k, v))
    out, lse = attention_triton(
        q, k, v, mask, scale=problem.options.get("scale", q.shape[2] ** -0.5),
        softcap=problem.options.get("softcap"), dropout=problem.dropout, seed=_seed(problem),
        deterministic=True, return_lse=True,
    )  # fmt: skip
    assert lse is not None and not lse.requires_grad
    if dout is None:
        return [out, lse]
    return [out.detach(), lse, *torch.autograd.grad(out, (q, k, v), dout)]


def reference(
    problem: Problem, mask: Intervals, q: Tensor, k: Tensor, v: Tensor, dout: Tensor
) -> list[Tensor]:
    """Run the reference in the inputs' dtype: out, lse and the gradients of q, k and v."""
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    drop = {"dropout": problem.dropout, "seed": _seed(problem)} if problem.dropout else {}
    out, lse = attention_reference(q, k, v, mask, **problem.options, **drop, return_lse=True)
    return [out.detach(), lse, *torch.autograd.grad(out, (q, k, v), dout)]


def compare(
    problem: Problem,
    given: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    conditioned: bool = False,
) -> list[Tensor]:
    """Hold our out, lse and gradients against fp64 and PyTorch's own in the same dtype.

    Args:
        problem: what is computed.
        given: q, k, v and the upstream gradient; None: `inputs`.
        conditioned: scores are so large that their own rounding to fp32 shows in the weights; it
            is allowed for.

    Returns:
        What our kernels gave.
    """
    mask, (q, k, v, dout) = problem_mask(problem), given or inputs(problem)
    ours = attend(problem, mask, q, k, v, dout)
    path = reference(problem, mask, q, k, v, dout)
    exact = reference(problem, mask, *(x.double() for x in (q, k, v, dout)))
    scale = problem.options.get("scale", problem.dim**-0.5)

    def longest(x: Tensor) -> float:
        return float(torch.linalg.vector_norm(x.double(), dim=-1).max()) if x.numel() else 0.0

    def largest(x: Tensor) -> float:
        return float(x.abs().max()) if x.numel() else 0.0

    keep = 1.0 / (1.0 - problem.dropout)
    dscore = abs(scale) * longest(dout) * longest(v) * keep  # of one score's gradient
    worse = 1.0
    if conditioned:
        shared = k.double().repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        worse = max(1.0, abs(scale) * largest(torch.einsum("ihd,jhd->hij", q.double(), shared)))
    terms = {
        "out": keep * largest(v),
        "lse": largest(exact[1]),
        "dq": dscore * largest(k),
        "dk": dscore * largest(q),
        "dv": keep * largest(dout),
    }
    if problem.dtype != torch.float32:  # the log-sum-exp is fp32 whatever the dtype
        path[1] = reference(problem, mask, *(x.float() for x in (q, k, v, dout)))[1]
    for (name, size), a, b, c in zip(terms.items(), ours, path, exact, strict=True):
        size *= 1.0 if name == "lse" else worse
        assert_error_at_most_twice(f"{name} of {problem}", a, b, c.double(), terms=size)
    return ours
