"""Triton attention against fp64: every frozen row, mask form, option and head dimension."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.attention_cases import (
    BRANCHED,
    FORMS,
    Problem,
    attend,
    compare,
    inputs,
    mask_of,
    problem_mask,
)
from support.masks import packed
from support.numerics import (
    DEVICE,
    DIMS,
    HEADS,
    LENGTHS,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
    sized,
)

from kernels import dropout
from kernels.attention_triton import launch
from kernels.attention_triton.table import Config, frozen

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
# Whole documents on two kinds of kernel, and the general one. Documents fill tiles exactly, leave
# rests, are empty or one token long; the tiled path also meets tiles that need no mask.
PATHS = {
    "doc": Problem((5, 1, 0, 30, 20, 64, 7), dim=32),
    "heads": Problem((5, 1, 0, 30, 20, 64, 7), dim=8),
    "tiled": Problem((5, 1, 0, 100, 20, 3), dim=32, tiled=True),
}
BY_TILE = {
    0: (70, 1, 0, 60, 3),
    64: (64, 5, 1, 0, 30, 20, 3),
    128: (128, 28, 1, 0, 100, 65),
    256: (256, 3, 0, 200, 56),
}
if sized(False, True):
    BY_TILE = {tile: lengths * 12 for tile, lengths in BY_TILE.items()}


def _on(path: str, **changes: Any) -> Problem:
    return dataclasses.replace(PATHS[path], **changes)


def _frozen_problems() -> list[Problem]:
    """One problem for each dtype and tile of every padded head dimension of the frozen table.

    "Tiles" 0 and 1 are rows of the tiled path, 1 for scores with a soft cap (or grouped queries).
    """
    problems: list[Problem] = []
    for dim, itemsize, tile in sorted({(dim, size, tile) for _, dim, size, tile in frozen()}):
        for dtype in (FP32,) if itemsize == 4 else (FP16, BF16):
            heads, kv = {FP32: (2, 1 if tile else 2), FP16: (4, 4), BF16: (4, 2)}[dtype]
            form = "window" if dtype == FP16 else "prefix"
            options = {"softcap": 2.0} if tile == 1 else {}
            lengths = BY_TILE[tile if tile > 1 else 0]
            problems.append(
                Problem(lengths, form, heads, kv, dim, dtype, tile < 2, 0.0, options)
            )  # fmt: skip
    return problems


def _name(value: object) -> str | None:
    if isinstance(value, Problem):
        path = "tiled" if value.tiled else str(max(value.lengths))
        capped = "-softcap" if value.options else ""
        return f"{str(value.dtype)[6:]}-{value.dim}-{path}{capped}"
    return None


@pytest.mark.parametrize("problem", _frozen_problems(), ids=_name)
def test_every_frozen_row(problem: Problem) -> None:
    compare(problem)


def test_no_frozen_row_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Config] = []
    monkeypatch.setattr(launch, "_launch", lambda _, __, row, *___, **____: used.append(row))
    for problem in _frozen_problems():
        attend(problem, problem_mask(problem), *inputs(problem))
    reached = {key for key, row in frozen().items() if any(row is one for one in used)}
    assert reached == set(frozen())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", PATHS)
def test_every_mask_form(path: str, form: str) -> None:
    compare(_on(path, form=form))


@pytest.mark.parametrize("form", BRANCHED)
def test_every_branched_form(form: str) -> None:
    compare(Problem((30, 50, 1, 0, 20, 33, 9), form, dim=16))


def test_branches_far_from_their_parent() -> None:
    """Between a parent and its branches lie tiles that must be stepped over."""
    parents = torch.tensor([-1, -1, -1, 0, 2, 0], dtype=torch.int32)
    compare(Problem((20, 150, 10, 30, 1, 17), {"branches": parents}, dim=16))


@pytest.mark.parametrize(
    "problem",
    [
        Problem((200, 20), {"window": 90}, 2, 1, 16, FP32, tiled=True),
        Problem((3, 120, 20), "causal", 2, 2, 24, FP32, tiled=True),
        Problem((3, 400, 20), "causal", 2, 1, 64, FP16, dropout=0.3),
        Problem((3, 400, 20), "full", 1, 1, 40, BF16, options={"softcap": 2.0}),
        Problem((3, 400, 20), "causal", 1, 1, 128, BF16),
    ],
    ids=_name,
)
def test_tiles_that_need_no_mask(problem: Problem) -> None:
    """Documents long enough that whole tiles are seen by all rows of another tile."""
    compare(problem)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("heads", "kv"), HEADS)
def test_head_groups(path: str, heads: int, kv: int) -> None:
    compare(_on(path, form="prefix", heads=heads, kv_heads=kv))


@pytest.mark.parametrize(
    "options",
    [{"softcap": 1.5}, {"scale": 0.7}, {"softcap": 30.0, "scale": 1.3}, {"scale": -0.2}],
    ids=str,
)
@pytest.mark.parametrize("path", PATHS)
def test_scale_and_softcap(path: str, options: dict[str, float]) -> None:
    compare(_on(path, form="prefix", options=options), conditioned=True)


@pytest.mark.parametrize(
    "problem",
    [Problem(BY_TILE[256], "prefix", 1, 1, 32, BF16), Problem(BY_TILE[128], "full", 1, 1, 8, FP16)],
    ids=_name,
)
def test_softcap_where_the_whole_document_kernel_would_spill(problem: Problem) -> None:
    compare(dataclasses.replace(problem, options={"softcap": 2.0}))


@pytest.mark.parametrize("p", [0.15, 0.7])
@pytest.mark.parametrize("path", PATHS)
def test_dropout(path: str, p: float) -> None:
    """The mask is the definition's, so the error bound is that without dropout."""
    compare(_on(path, form="prefix", dropout=p))


@pytest.mark.parametrize(
    "problem",
    [
        _on("doc", dropout=0.15, options={"softcap": 1.5}, heads=4, kv_heads=1),
        _on("heads", dropout=0.15, options={"softcap": 1.5}, dtype=BF16, heads=6),
        _on("tiled", dropout=0.15, options={"softcap": 1.5}, heads=4, form="window"),
        Problem((30, 50, 1, 0, 20), "interleaved", 4, 2, 16, dropout=0.15),
        Problem(BY_TILE[256], "prefix", 4, 2, 64, BF16, dropout=0.15),
        Problem(BY_TILE[128], "prefix", 4, 2, 8, BF16, dropout=0.15),
    ],
    ids=_name,
)
def test_dropout_with_everything_else(problem: Problem) -> None:
    compare(problem)


@pytest.mark.parametrize(("dim", "tiled"), [(64, False), (16, False), (64, True)])
def test_dropout_mask_entry_by_entry(dim: int, tiled: bool) -> None:
    """With equal scores and v = 1, out is the mask; with an identity upstream so is dv."""
    total, heads, p = dim, 3, 0.4
    problem = Problem((total,), "full", heads, heads, dim, FP32, tiled, dropout=p)
    zero = torch.zeros(total, heads, dim, device=DEVICE)
    eye = torch.eye(dim, device=DEVICE)[:, None, :].expand(total, heads, dim).contiguous()
    out, _, _, _, dv = attend(problem, problem_mask(problem), zero, zero, eye, eye)
    rows = torch.arange(total, device=DEVICE)
    kept = dropout.keep(dropout.row_keys(0x1234_5678_9ABC_DEF, rows, heads), rows, p)  # [i, h, j]
    weight = kept / (total * (1 - p))
    torch.testing.assert_close(out, weight, rtol=1e-6, atol=0)
    torch.testing.assert_close(dv, weight.permute(2, 1, 0), rtol=1e-6, atol=0)
    assert 0.5 < kept.float().mean() < 0.7


@pytest.mark.parametrize("dim", DIMS)
def test_every_head_dimension(dim: int) -> None:
    compare(Problem((40, 1, 25), "prefix", 4, 2, dim, BF16))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda x: "-".join(map(str, x[:6])))
def test_odd_lengths(path: str, lengths: list[int]) -> None:
    compare(_on(path, lengths=tuple(lengths), dtype=FP16, form="prefix"))


@pytest.mark.parametrize("lengths", [(), (0,), (0, 0, 0)])
@pytest.mark.parametrize("path", PATHS)
def test_no_rows(path: str, lengths: tuple[int, ...]) -> None:
    problem = _on(path, lengths=lengths)
    found = attend(problem, problem_mask(problem), *inputs(problem))
    assert [tuple(x.shape) for x in found] == [(0, 2, problem.dim), (0, 2)] + [
        (0, 2, problem.dim)
    ] * 3


@pytest.mark.parametrize(("dim", "p"), [(8, 0.3), (16, 0.0), (32, 0.3), (64, 0.0)])
def test_paths_agree(dim: int, p: float) -> None:
    whole = Problem((5, 1, 0, 30, 20, 7), "prefix", 2, 1, dim, dropout=p)
    made = inputs(whole)
    mask = mask_of(whole.lengths, "prefix")
    one = attend(whole, mask, *made)
    two = attend(whole, dataclasses.replace(mask, max_len=None), *made)
    for a, b in zip(one, two, strict=True):
        assert (a - b).norm() <= 1e-6 * b.norm()
    assert not torch.equal(one[2], two[2])  # it was another path


def test_a_loose_bound_on_the_length_is_only_slower() -> None:
    problem = Problem((5, 1, 0, 30), "prefix", 2, 1, 16)
    made, mask = inputs(problem), mask_of(problem.lengths, "prefix")
    for bound in (64, 65, 1000):
        other = dataclasses.replace(mask, max_len=bound)
        for a, b in zip(attend(problem, other, *made), attend(problem, mask, *made), strict=True):
            assert (a - b).norm() <= 1e-6 * b.norm()


@settings(max_examples=sized(9, 80), deadline=None, derandomize=True)
@given(
    packed(max_length=sized(30, 300), max_documents=sized(8, 25)),
    st.sampled_from([8, 16, 24]),
    st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    st.sampled_from([0.0, 0.0, 0.3]),
    st.booleans(),
)
def test_random_documents(
    case: tuple[list[int], dict[str, Any]],
    dim: int,
    heads: tuple[int, int],
    p: float,
    tiled: bool,
) -> None:
    lengths, form = case
    if sum(lengths):
        compare(Problem(tuple(lengths), form, *heads, dim, FP32, tiled, dropout=p))


@pytest.mark.parametrize("offset", [1e4, -1e4])
@pytest.mark.parametrize("path", PATHS)
def test_large_common_offset_of_scores(path: str, offset: float) -> None:
    problem = _on(path, form="prefix")
    q, k, v, dout = inputs(problem)
    root = abs(offset) ** 0.5 * problem.dim**0.25
    q[..., 0], k[..., 0] = root, root if offset > 0 else -root
    found = compare(problem, (q, k, v, dout), conditioned=True)
    assert found[1].abs().min() > 0.99e4


@pytest.mark.parametrize("path", PATHS)
def test_scores_beyond_half_precision(path: str) -> None:
    """Products of 200 * 200 leave fp16's range; the kernels' scores are fp32."""
    problem = _on(path, form="full", dtype=FP16)
    q, k, v, dout = inputs(problem)
    q, k = 200 * q.sign(), 200 * k.sign()
    out, lse, *grads = attend(problem, problem_mask(problem), q, k, v, dout)
    wide = dataclasses.replace(problem, dtype=FP32)
    for a, b in zip(
        (out, lse, *grads),
        attend(wide, problem_mask(wide), *(x.float() for x in (q, k, v, dout))),
        strict=True,
    ):
        assert torch.isfinite(a).all()
        assert (a.float() - b).norm() <= 2 * torch.finfo(FP16).eps * b.norm()


@pytest.mark.parametrize("path", PATHS)
def test_equal_rows(path: str) -> None:
    """Ties everywhere: uniform weights, and gradients of q and k that cancel."""
    problem = _on(path, form="full")
    q, k, v, dout = inputs(problem)
    compare(problem, (torch.ones_like(q), torch.ones_like(k), v, dout))
    compare(problem, (torch.zeros_like(q), torch.zeros_like(k), torch.ones_like(v), dout))


@pytest.mark.parametrize("path", PATHS)
def test_one_token_documents_give_back_v(path: str) -> None:
    problem = _on(path, lengths=(1,) * 70)
    q, k, v, dout = inputs(problem)
    out, lse, dq, dk, dv = compare(problem, conditioned=True)
    assert torch.equal(out, v)
    torch.testing.assert_close(dv, dout, rtol=1e-5, atol=0)
    torch.testing.assert_close(lse, (q * k).sum(-1) * problem.dim**-0.5)
    assert dq.abs().max() < 1e-5 and dk.abs().max() < 1e-5
