"""AdamW over lists of tensors against fp64 and torch's own, with clipping and bad gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.adamw_cases import assert_as_good_as_torch, every_kind, problem
from support.numerics import (
    DEVICE,
    assert_same_bits,
    bits,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
    poisoned_memory,
    sized,
)
from torch import Tensor


@every_kind
@pytest.mark.parametrize("clip", [False, True], ids=["free", "clipped"])
def test_several_steps(kind: str, clip: bool) -> None:
    options = {"max_norm": 1.0, "skip_nonfinite": True} if clip else {}
    assert_as_good_as_torch(problem(kind), **options)


@pytest.mark.parametrize("taken", [0, 1, 7, 100, 100_000])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.95), (0.0, 0.9), (0.5, 0.0)], ids=str)
def test_bias_correction(taken: int, betas: tuple[float, float]) -> None:
    """From zero the update is all of the parameter: its own error shows."""
    given = problem(shapes=[(300,)], steps=1, taken=taken)
    given.params[0].zero_()
    assert_as_good_as_torch(given, betas=betas, weight_decay=0.0)


@pytest.mark.parametrize(
    "options",
    [{"lr": 0.0}, {"weight_decay": 0.0}, {"eps": 0.1}, {"max_norm": 1e9}, {"skip_nonfinite": True}],
    ids=str,
)
def test_settings(options: dict[str, Any]) -> None:
    assert_as_good_as_torch(problem(shapes=[(300,), (7,)]), **options)


def test_reference_is_torch_s_own() -> None:
    given = problem().copy(torch.float64)
    leaves = [x.clone().requires_grad_() for x in given.params]
    theirs = torch.optim.AdamW(leaves, lr=1e-2, weight_decay=0.1)
    for grads in given.grads:
        for p, g in zip(leaves, grads, strict=True):
            p.grad = g.clone()
        want = torch.nn.utils.clip_grad_norm_(leaves, 0.5)
        theirs.step()
    norm = given.run("reference", max_norm=0.5)
    torch.testing.assert_close(norm, want, rtol=1e-12, atol=0)
    for p, q in zip(given.params, leaves, strict=True):
        torch.testing.assert_close(p, q.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["triton", "eager"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30], ids=str)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_bad_gradients_change_nothing(name: str, bad: float, clip: float | None) -> None:
    """1e30: its square is beyond float32."""
    given = problem(steps=1, taken=4)
    given.grads[0][4][-1, -1] = bad
    before = [bits(x).clone() for x in given.everything()]
    norm = given.run(name, skip_nonfinite=True, max_norm=clip)
    assert norm is not None and not torch.isfinite(norm)
    for x, y in zip(given.everything(), before, strict=True):
        assert torch.equal(bits(x), y)
    good = problem(steps=1, taken=4)
    given.grads = good.copy().grads
    assert torch.isfinite(given.run(name, skip_nonfinite=True, max_norm=clip))  # type: ignore
    good.run(name, skip_nonfinite=True, max_norm=clip)
    for x, y in zip(given.everything(), good.everything(), strict=True):
        assert torch.equal(bits(x), bits(y))  # nothing is left of the bad one


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
def test_bad_gradients_go_where_torch_s_go(bad: float, clip: float | None) -> None:
    found = []
    for name in ("triton", "eager"):
        given = problem(steps=1)
        given.grads[0][4][-1, -1] = bad
        given.run(name, max_norm=clip)
        found.append([torch.isnan(x) for x in given.params])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert found[0][4].any()


@every_kind
def test_same_bits_whatever_the_memory_holds(kind: str) -> None:
    def once() -> list[Tensor]:
        given = problem(kind, steps=2)
        norm = given.run("triton", max_norm=1.0, skip_nonfinite=True)
        assert norm is not None
        return [norm, *given.everything()]

    first = [bits(x).clone() for x in once()]
    assert_same_bits(once, sized(2, 100))
    with poisoned_memory():
        assert all(torch.equal(bits(a), b) for a, b in zip(once(), first, strict=True))


@pytest.mark.parametrize("gap", [8, 3])
@pytest.mark.parametrize("kind", ["float32", "bfloat16 masters"])
def test_tensors_of_a_flat_buffer(gap: int, kind: str) -> None:
    """Anywhere in larger ones (3: at no multiple of 16 bytes), NaN between them, which stays."""
    given = problem(kind)
    want = given.copy()
    want.run("triton", max_norm=1.0)

    def laid(xs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        size = sum(x.numel() + gap for x in xs) + gap
        flat, at, views = torch.full((size,), math.nan, dtype=xs[0].dtype, device=DEVICE), gap, []
        for x in xs:
            views.append(flat[at : at + x.numel()].view(x.shape).copy_(x))
            at += x.numel() + gap
        return flat, views

    names = ["params", "exp_avgs", "exp_avg_sqs", *["masters"] * (given.masters is not None)]
    flats = {name: laid(getattr(given, name)) for name in names}
    spread = replace(
        given, grads=[laid(xs)[1] for xs in given.grads],
        **{name: views for name, (_, views) in flats.items()},
    )  # fmt: skip
    spread.run("triton", max_norm=1.0)
    for x, y in zip(spread.everything(), want.everything(), strict=True):
        assert torch.equal(bits(x), bits(y))
    for flat, views in flats.values():
        assert int(flat.isnan().sum()) == flat.numel() - sum(x.numel() for x in views)


def test_memory_formats() -> None:
    """Channels last; a gradient laid out unlike its parameter is moved to lie like it."""
    given = problem(shapes=[(4, 3, 5, 6), (8, 6)])
    want = given.copy()
    want.run("triton", max_norm=1.0)
    for xs in (given.params, given.exp_avgs, given.exp_avg_sqs):
        xs[0] = xs[0].contiguous(memory_format=torch.channels_last)
    for xs in given.grads[:1]:
        xs[0] = xs[0].contiguous(memory_format=torch.channels_last)
    for xs in given.grads:
        xs[1] = xs[1].T.contiguous().T
    given.run("triton", max_norm=1.0)
    for x, y in zip(given.params, want.params, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-7)
