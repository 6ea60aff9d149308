"""The one mask form against masks written out by hand."""

from __future__ import annotations

import pytest
import torch

from kernels import intervals


def _cu(*ends: int) -> torch.Tensor:
    return torch.tensor(ends, dtype=torch.int32)


def _by_hand(
    cu: list[int], prefix: list[int], causal: bool, window: int | None, branches: list[int]
) -> torch.Tensor:
    mask = torch.zeros(cu[-1], cu[-1], dtype=torch.bool)
    for d in range(len(cu) - 1):
        for i in range(cu[d], cu[d + 1]):
            for j in range(cu[d], cu[d + 1]):
                seen = j <= i if causal else True
                if window is not None:
                    seen = seen and i - j < window
                mask[i, j] = seen or j - cu[d] < prefix[d]
            if branches[d] >= 0:
                mask[i, cu[branches[d]] : cu[branches[d] + 1]] = True
    return mask


@pytest.mark.parametrize(
    ("prefix", "causal", "window", "branches"),
    [
        ([0, 0, 0, 0, 0], True, None, [-1] * 5),
        ([2, 0, 1, 0, 3], True, None, [-1] * 5),
        ([0, 0, 0, 0, 0], False, None, [-1] * 5),
        ([0, 0, 0, 0, 0], True, 2, [-1] * 5),
        ([0, 0, 0, 0, 0], True, None, [-1, 0, -1, 0, 2]),
        ([3, 0, 0, 0, 0], True, None, [-1, 0, 0, 0, 0]),
    ],
)
def test_masks(prefix: list[int], causal: bool, window: int | None, branches: list[int]) -> None:
    cu = [0, 4, 6, 7, 7, 12]
    made = intervals(
        _cu(*cu),
        prefix_lens=torch.tensor(prefix) if any(prefix) else None,
        causal=causal,
        window=window,
        branches=torch.tensor(branches) if max(branches) >= 0 else None,
    )
    assert torch.equal(made.dense_mask(), _by_hand(cu, prefix, causal, window, branches))
    assert made.start.dtype == torch.int32


def test_empty_row() -> None:
    assert intervals(_cu(0)).num_rows == 0
    assert intervals(_cu(0, 0)).num_documents == 1


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("cu_seqlens", {"cu_seqlens": _cu(1, 4)}),
        ("cu_seqlens", {"cu_seqlens": _cu(0, 4, 3)}),
        ("cu_seqlens", {"cu_seqlens": torch.tensor([0.0, 4.0])}),
        ("cu_seqlens", {"cu_seqlens": _cu(0, 4), "total": 5}),
        ("prefix_lens", {"cu_seqlens": _cu(0, 4), "prefix_lens": torch.tensor([5])}),
        ("prefix_lens", {"cu_seqlens": _cu(0, 4), "prefix_lens": torch.tensor([1, 1])}),
        ("window", {"cu_seqlens": _cu(0, 4), "prefix_lens": torch.tensor([1]), "window": 2}),
        ("window", {"cu_seqlens": _cu(0, 4), "causal": False, "window": 2}),
        ("window", {"cu_seqlens": _cu(0, 4), "window": 0}),
        ("branches", {"cu_seqlens": _cu(0, 2, 4), "branches": torch.tensor([-1, 1])}),
        ("branches", {"cu_seqlens": _cu(0, 1, 2, 3), "branches": torch.tensor([-1, 0, 1])}),
    ],
)
def test_bad_input_names_the_argument(name: str, kwargs: dict) -> None:
    with pytest.raises(ValueError, match=f"^{name}:"):
        intervals(**kwargs)
