"""Padded attention against the dense fp64 reference, forward and backward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import attention, dispatch, intervals
from kernels.intervals import Intervals
from kernels.reference import attention_reference

FORMS = ["causal", "full", "prefix", "window", "branches", "prefix_branches"]


def _mask(form: str, lengths: list[int]) -> Intervals:
    cu = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0).to(torch.int32)
    half = torch.tensor(lengths) // 2
    first = torch.tensor([-1] + [0] * (len(lengths) - 1))
    if form == "full":
        return intervals(cu, causal=False)
    if form == "prefix":
        return intervals(cu, prefix_lens=half)
    if form == "window":
        return intervals(cu, window=3)
    if form == "branches":
        return intervals(cu, branches=first)
    if form == "prefix_branches":
        return intervals(cu, prefix_lens=half * (first < 0), branches=first)
    return intervals(cu)


def _inputs(
    total: int, heads: int, kv: int, dim: int, dtype: torch.dtype = torch.float64
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(total * 31 + heads)
    return [
        torch.randn(total, h, dim, generator=generator, dtype=dtype).requires_grad_()
        for h in (heads, kv, kv)
    ]


def _compare(lengths: list[int], form: str, kv: int = 2, **options: float) -> None:
    mask = _mask(form, lengths)
    inputs = _inputs(sum(lengths), 4, kv, 8)
    out = attention(*inputs, mask, **options)  # type: ignore[arg-type]
    expected = attention_reference(*inputs, mask, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-11)
    upstream = torch.randn_like(expected)
    got = torch.autograd.grad(out, inputs, upstream)
    want = torch.autograd.grad(expected, inputs, upstream)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lengths", [[5], [1], [7, 1, 0, 30, 3, 64, 12], [9, 9, 9], [0, 4, 0]])
def test_equals_reference(form: str, lengths: list[int]) -> None:
    _compare(lengths, form)


@pytest.mark.parametrize("form", FORMS)
def test_softcap_and_scale(form: str) -> None:
    _compare([7, 1, 20, 5], form, softcap=1.5, scale=0.7)


@pytest.mark.parametrize("kv", [1, 4])
def test_head_groups(kv: int) -> None:
    _compare([7, 1, 20, 5], "causal", kv=kv)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.sampled_from(FORMS))
def test_any_documents(lengths: list[int], form: str) -> None:
    if sum(lengths):
        _compare(lengths, form)


def test_gradcheck() -> None:
    mask = _mask("prefix", [3, 1, 4])
    inputs = _inputs(8, 2, 1, 8)
    assert torch.autograd.gradcheck(lambda *x: attention(*x, mask), inputs)


def test_lse() -> None:
    mask = _mask("branches", [4, 9, 2])
    inputs = _inputs(15, 4, 2, 8)
    _, lse = attention(*inputs, mask, return_lse=True)
    _, expected = attention_reference(*inputs, mask, return_lse=True)
    torch.testing.assert_close(lse, expected)
    assert lse.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_error_is_at_most_twice_that_of_the_dense_path(dtype: torch.dtype) -> None:
    lengths = [33, 12, 5, 60]
    mask = _mask("causal", lengths)
    inputs = _inputs(sum(lengths), 4, 4, 16, dtype)
    exact = attention_reference(*[x.double() for x in inputs], mask)
    dense = attention_reference(*inputs, mask)
    ours = attention(*inputs, mask)
    norm = torch.linalg.vector_norm
    assert norm(ours.double() - exact) <= 2 * norm(dense.double() - exact)


def test_no_document_reads_another_not_even_its_nan() -> None:
    inputs = [x.detach() for x in _inputs(20, 2, 2, 8, torch.float32)]
    for x in inputs:
        x[:7] = float("nan")
    out = attention(*inputs, _mask("prefix", [7, 4, 9]))
    assert torch.isfinite(out[7:]).all()


def test_non_contiguous_views() -> None:
    packed = torch.randn(12, 3, 4, 8, dtype=torch.float64)
    q, k, v = packed.unbind(1)
    mask = _mask("causal", [5, 7])
    torch.testing.assert_close(attention(q, k, v, mask), attention_reference(q, k, v, mask))


def test_dropout() -> None:
    mask = _mask("full", [64, 64])
    q, k, v = (x.detach().float() for x in _inputs(128, 8, 8, 8))
    one = attention(q, k, v, mask, dropout=0.3, seed=5)
    assert torch.equal(one, attention(q, k, v, mask, dropout=0.3, seed=5))
    assert not torch.equal(one, attention(q, k, v, mask, dropout=0.3, seed=6))
    torch.manual_seed(1)
    first = attention(q, k, v, mask, dropout=0.3)
    torch.manual_seed(1)
    assert torch.equal(first, attention(q, k, v, mask, dropout=0.3))
    # Dropped weights are made up for: with v = 1 the mean stays 1.
    ones = attention(q, k, torch.ones_like(v), mask, dropout=0.3, seed=1)
    assert abs(ones.mean() - 1) < 0.01 and ones.std() > 0.01


def test_same_bits_again() -> None:
    mask = _mask("prefix_branches", [17, 4, 9, 30])
    inputs = _inputs(60, 4, 2, 8, torch.float32)
    runs = []
    for _ in range(5):
        out = attention(*inputs, mask)
        runs.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_masks_are_not_stored_when_documents_agree() -> None:
    assert all(b.mask is None for b in _mask("causal", [3, 50, 7, 9]).layout().buckets)
    cu = torch.tensor([0, 20, 45, 60])
    shared = intervals(cu, prefix_lens=torch.tensor([16, 16, 15])).layout().buckets
    assert [b.mask.shape[0] for b in shared if b.mask is not None] == [2, 1] or len(shared) == 1


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("k", lambda q, k, v: (q, k.float(), v)),
        ("v", lambda q, k, v: (q, k, v[:, :, :4])),
        ("q", lambda q, k, v: (q[:, :, :4], k[:, :, :4], v[:, :, :4])),
        ("k", lambda q, k, v: (q, k[:, :1].repeat(1, 3, 1), v[:, :1].repeat(1, 3, 1))),
        ("intervals", lambda q, k, v: (q[:-1], k[:-1], v[:-1])),
        ("q", lambda q, k, v: (q.long(), k, v)),
    ],
)
def test_bad_input_names_the_argument(name: str, change: object) -> None:
    inputs = _inputs(9, 4, 2, 8)
    with pytest.raises(ValueError, match=f"^{name}:"):
        attention(*change(*inputs), _mask("causal", [4, 5]))  # type: ignore[operator]
    with pytest.raises(ValueError, match="^dropout:"):
        attention(*inputs, _mask("causal", [4, 5]), dropout=1.0)


def test_backend_by_name() -> None:
    mask, inputs = _mask("causal", [4, 5]), _inputs(9, 4, 2, 8)
    dispatch.set_backend("attention", "reference")
    try:
        torch.testing.assert_close(
            attention(*inputs, mask), attention_reference(*inputs, mask), rtol=0, atol=0
        )
        assert dispatch.describe()["attention"] == ["reference"]
    finally:
        dispatch.set_backend("attention", None)
    with pytest.raises(ValueError, match=r"padded_sdpa.*'nothing'"):
        dispatch.set_backend("attention", "nothing")
