"""The dropout mask against its definition in Python integers, and its statistics."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.dropout import draw_keep, keep, key_words, row_keys, seed_tensor, threshold

WORD = (1 << 32) - 1
GOLDEN = 0x9E3779B1
INT32_MAX = (1 << 31) - 1


def _mix(x: int) -> int:
    x ^= x >> 16
    x = x * 0x7FEB352D & WORD
    x ^= x >> 15
    x = x * 0x846CA68B & WORD
    return x ^ x >> 16


def _word(seed: int, head: int, row: int, key: int) -> int:
    s0 = _mix(seed & WORD)
    s1 = _mix((seed >> 32) & WORD ^ s0)
    r1 = _mix(_mix((s0 + row) & WORD) ^ ((s1 + head * GOLDEN) & WORD))
    r2 = _mix((r1 + s1) & WORD)
    x = (key * GOLDEN & WORD) ^ r1
    x ^= x >> 16
    x = (x * 0x7FEB352D + r2) & WORD
    x ^= x >> 15
    x = x * 0x846CA68B & WORD
    return x ^ x >> 16


@settings(max_examples=60, deadline=None)
@given(
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.lists(st.integers(0, INT32_MAX), min_size=1, max_size=4),
    st.lists(st.integers(0, INT32_MAX), min_size=1, max_size=4),
    st.sampled_from([0.0, 1e-9, 0.15, 0.5, 0.9, 1 - 2**-32]),
)
def test_equals_the_definition(seed: int, rows: list[int], keys: list[int], p: float) -> None:
    got = keep(row_keys(seed, torch.tensor(rows), 3), torch.tensor(keys), p)
    want = [[[_word(seed, h, i, j) >= round(p * 2**32) for j in keys] for h in range(3)]
            for i in rows]  # fmt: skip
    assert got.tolist() == want


def test_a_word_equal_to_the_threshold_stays() -> None:
    word = _word(7, 1, 5, 9)
    at = row_keys(7, torch.tensor([5]), 2)
    for p, kept in ((word / 2**32, True), ((word + 1) / 2**32, False)):
        assert threshold(p) == round(p * 2**32)
        assert keep(at, torch.tensor([9]), p)[0, 1, 0].item() is kept


def test_threshold_is_a_word() -> None:
    assert threshold(0.0) == 0
    assert threshold(1 - 2**-53) == WORD


def test_seed_forms_agree() -> None:
    rows = torch.arange(5)
    for seed in (0, -3, 1 << 40):
        as_int, as_tensor = row_keys(seed, rows, 2), row_keys(torch.tensor([seed]), rows, 2)
        assert all(torch.equal(a, b) for a, b in zip(as_int, as_tensor, strict=True))


def test_seed_none_draws_from_the_global_generator() -> None:
    torch.manual_seed(3)
    first, second = (seed_tensor(None, torch.device("cpu")) for _ in range(2))
    assert first.dtype == torch.int64 and first.shape == (1,) and not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(first, seed_tensor(None, torch.device("cpu")))


@pytest.mark.parametrize(
    "seed", [1 << 63, -(1 << 63) - 1, torch.tensor([1.0]), torch.tensor([1, 2]),
             torch.tensor([1], dtype=torch.int32)],
)  # fmt: skip
def test_bad_seed(seed: int | torch.Tensor) -> None:
    with pytest.raises(ValueError, match="^seed:"):
        seed_tensor(seed, torch.device("cpu"))


def test_draws_in_place_what_keep_returns() -> None:
    rows, keys = torch.arange(40, 60), torch.arange(7, 50)
    first, second = row_keys(11, rows, 3)
    out, scratch = (torch.empty(20, 3, 43, dtype=torch.int32) for _ in range(2))
    drawn = draw_keep(first[..., None], second[..., None], key_words(keys), 0.3, out, scratch)
    assert drawn.data_ptr() == out.data_ptr() and drawn.unique().tolist() == [0, 1]
    assert torch.equal(drawn.bool(), keep((first, second), keys, 0.3))


# Statistics. Bounds are five standard deviations of the quantity for independent fair words: a
# false alarm once in two million, were the fixed seeds drawn anew. ------------------------------


def _masks(seed: int, p: float, size: int = 512, heads: int = 4, base: int = 0) -> torch.Tensor:
    rows = torch.arange(base, base + size)
    return keep(row_keys(seed, rows, heads), rows, p).permute(1, 0, 2)  # [h, i, j]


@pytest.mark.parametrize("p", [0.01, 0.15, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1, -1, 123_456_789_012])
def test_mean(seed: int, p: float) -> None:
    mask = _masks(seed, p).double()
    sigma = math.sqrt(p * (1 - p))
    assert abs(mask.mean() - (1 - p)) < 5 * sigma / math.sqrt(mask.numel())
    for axis in range(3):  # of each head, each row, each key
        means = mask.mean([d for d in range(3) if d != axis])
        off = (means - (1 - p)) * math.sqrt(mask.numel() / means.numel()) / sigma
        assert off.abs().max() < 5
        if axis:  # neither too far from each other nor, as an even pattern would be, too near
            assert abs(off.var() - 1) < 5 * math.sqrt(2 / means.numel())


def _correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """In standard deviations."""
    a, b = a.double().flatten(), b.double().flatten()
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).mean() / (a.std() * b.std())) * math.sqrt(a.numel())


@pytest.mark.parametrize("p", [0.15, 0.5])
def test_neighbours_are_independent(p: float) -> None:
    mask = _masks(1, p)
    for step in (1, 2, 3, 8, 64, 256):
        assert abs(_correlation(mask[:, step:], mask[:, :-step])) < 5  # rows
        assert abs(_correlation(mask[..., step:], mask[..., :-step])) < 5  # keys
        assert abs(_correlation(mask[:, step:, step:], mask[:, :-step, :-step])) < 5
    assert abs(_correlation(mask, mask.transpose(1, 2))) < 5  # rows and keys exchanged
    for a in range(4):
        for b in range(a):
            assert abs(_correlation(mask[a], mask[b])) < 5  # heads


def test_consecutive_seeds_are_independent() -> None:
    # A training step may well use seeds that count up, in either word.
    masks = [_masks(s, 0.5, size=256) for s in (*range(8), *(n << 32 for n in range(1, 8)))]
    for a in range(len(masks)):
        for b in range(a):
            assert abs(_correlation(masks[a], masks[b])) < 5, (a, b)


def test_pairs_of_neighbours_are_uniform() -> None:
    # The joint distribution of four neighbouring weights, not only their correlation: chi-square
    # over 16 cells of 15 degrees of freedom, whose five-sigma point is below 60.
    mask = _masks(5, 0.5, size=1024, heads=2).long().unflatten(1, (-1, 2)).unflatten(3, (-1, 2))
    cells = torch.einsum("hiajb,ab->hij", mask, torch.tensor([[8, 4], [2, 1]]))
    counts = torch.bincount(cells.flatten(), minlength=16).double()
    expected = counts.sum() / 16
    assert ((counts - expected).square() / expected).sum() < 60


def test_far_rows() -> None:
    # Rows of a packed row of millions: products wrap, nothing repeats.
    far = _masks(1, 0.5, size=256, base=(1 << 31) - 256)
    near = _masks(1, 0.5, size=256)
    assert abs(far.double().mean() - 0.5) < 5 * 0.5 / math.sqrt(far.numel())
    assert abs(_correlation(far, near)) < 5
