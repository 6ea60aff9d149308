"""The one mask form against masks written out by hand, its transpose, and groups of documents."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.masks import by_hand, cu_seqlens, forms, packed

from kernels import intervals
from kernels.intervals import GROUP_TILES, SEGMENT, Intervals


def _cu(*ends: int) -> torch.Tensor:
    return torch.tensor(ends, dtype=torch.int32)


def _inside(start: torch.Tensor, stop: torch.Tensor) -> torch.Tensor:
    """Return bool ``[n, T]``: which of T places each of n intervals holds."""
    place = torch.arange(start.shape[0])[None, :]
    return (place >= start[:, None]) & (place < stop[:, None])


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
    form: dict[str, Any] = {"causal": causal}
    if any(prefix):
        form["prefix_lens"] = torch.tensor(prefix)
    if window is not None:
        form["window"] = window
    if max(branches) >= 0:
        form["branches"] = torch.tensor(branches)
    made = intervals(_cu(0, 4, 6, 7, 7, 12), **form)
    assert torch.equal(made.dense_mask(), by_hand([4, 2, 1, 0, 5], form))


@settings(max_examples=150, deadline=None)
@given(packed())
def test_rows_and_columns_of_the_mask(case: tuple[list[int], dict[str, Any]]) -> None:
    lengths, form = case
    made = intervals(cu_seqlens(lengths), **form)
    assert torch.equal(made.dense_mask(), by_hand(lengths, form))
    first = _inside(made.start, made.stop)
    assert torch.equal(_inside(made.q_start, made.q_stop), first.T)
    for vector in (made.start, made.stop, made.q_start, made.q_stop):
        assert vector.dtype == torch.int32 and vector.is_contiguous()
        assert (vector.diff() >= 0).all()
    if "branches" not in form:
        assert made.start2 is None and made.q_stop2 is None
        return
    assert made.start2 is not None and made.stop2 is not None
    assert made.q_start2 is not None and made.q_stop2 is not None
    second = _inside(made.start2, made.stop2)
    assert not (first & second).any()  # so no key counts twice
    assert (made.start2[made.start2 >= made.stop2] == 0).all()
    for j in range(made.num_rows):
        rows = second[:, j].nonzero()[:, 0].tolist()
        hull = (int(made.q_start2[j]), int(made.q_stop2[j]))
        assert hull == ((rows[0], rows[-1] + 1) if rows else (0, 0))


def test_second_columns_of_interleaved_branches() -> None:
    made = intervals(_cu(0, 2, 3, 5, 6, 8, 8), branches=torch.tensor([-1, -1, 0, 1, 0, 1]))
    assert made.q_start2 is not None and made.q_stop2 is not None
    assert made.q_start2.tolist() == [3, 3, 5, 0, 0, 0, 0, 0]
    assert made.q_stop2.tolist() == [8, 8, 6, 0, 0, 0, 0, 0]


def test_drawn_columns() -> None:
    made = intervals(_cu(0, 4, 6), prefix_lens=torch.tensor([2, 0]))
    assert made.q_start.tolist() == [0, 0, 2, 3, 4, 5]
    assert made.q_stop.tolist() == [4, 4, 4, 4, 6, 6]


def test_empty_row() -> None:
    for cu in (_cu(0), _cu(0, 0)):
        made = intervals(cu)
        assert made.num_rows == 0 and made.num_documents == cu.shape[0] - 1
        assert made.max_len == 0
        assert {tile: tuple(made.groups[tile].shape) for tile in GROUP_TILES} == {
            tile: (0, 2) for tile in GROUP_TILES
        }
    made = intervals(_cu(0, 0), branches=torch.tensor([-1]))
    assert made.q_start2 is not None and made.q_start2.shape == (0,)


def _check_groups(made: Intervals, lengths: list[int]) -> None:
    """Check what a path that owns whole documents relies on."""
    ends = cu_seqlens(lengths).tolist()
    total = ends[-1]
    for tile in GROUP_TILES:
        groups = made.groups[tile]
        slots = 2 * SEGMENT // tile + 1
        assert groups.dtype == torch.int32 and groups.is_contiguous()
        assert groups.shape == (-(-total // SEGMENT) * slots, 2)
        owner = [0] * total
        for slot, (begin, end) in enumerate(groups.tolist()):
            if begin == end:
                assert (begin, end) == (0, 0)
                continue
            assert 0 < end - begin <= tile
            assert begin in ends and end in ends
            assert slot // slots == begin // SEGMENT
            for row in range(begin, end):
                owner[row] += 1
        for d, length in enumerate(lengths):
            expected = 1 if length <= tile else 0
            assert set(owner[ends[d] : ends[d + 1]]) <= {expected}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 3), st.integers(0, 400)), max_size=60))
def test_groups_hold_whole_documents_once(lengths: list[int]) -> None:
    _check_groups(intervals(cu_seqlens(lengths)), lengths)


@pytest.mark.parametrize(
    "lengths",
    [
        [60] * 100 + [16],
        [1, 64] * 80,  # each in a group of its own: the most groups a segment can have
        [1, 128] * 40,
        [1, 256, 0] * 20,
        [0, 0, 1, 0] * 1100 + [0] * 50,
        [2048, 2048, 64, 1984, 3000, 5],
        [5000],
    ],
)
def test_groups_at_their_limits(lengths: list[int]) -> None:
    made = intervals(cu_seqlens(lengths))
    _check_groups(made, lengths)
    for tile, groups in made.groups.items():
        # Greedy: two neighbours that touch would not fit into one tile, unless a segment ends.
        used = groups[groups[:, 1] > groups[:, 0]].tolist()
        for (begin, end), (after, last) in pairwise(used):
            first = after // SEGMENT != begin // SEGMENT
            assert end != after or first or last - begin > tile


def test_groups_of_branches_are_none() -> None:
    assert intervals(_cu(0, 2, 4), branches=torch.tensor([-1, 0])).groups == {}


@settings(max_examples=20, deadline=None)
@given(packed(), st.integers(0, 5))
def test_moving_keeps_what_the_host_knows(
    case: tuple[list[int], dict[str, Any]], slack: int
) -> None:
    lengths, form = case
    longest = max([0, *lengths])
    made = intervals(cu_seqlens(lengths), max_len=longest + slack, **form)
    # Without a GPU, the device that holds shapes only: reading back from it would fail.
    there = made.to("cuda" if torch.cuda.is_available() else "meta")
    assert there.device.type != "cpu"
    assert there.segments() is made.segments() and there.to("cpu") is made
    assert there.max_len == made.max_len == longest + slack
    assert (there.causal, there.window) == (made.causal, made.window)
    assert there.num_rows == sum(lengths) and there.num_documents == len(lengths)
    for name in ("start", "stop", "q_start", "q_stop", "start2", "q_stop2", "prefix_lens"):
        here, moved = getattr(made, name), getattr(there, name)
        assert (moved is None) == (here is None)
        if here is not None:
            assert moved.dtype == torch.int32 and moved.shape == here.shape
    assert {tile: groups.shape for tile, groups in there.groups.items()} == {
        tile: groups.shape for tile, groups in made.groups.items()
    }
    assert made.to("cpu") is made


def test_long_windows_and_bounds_do_not_overflow() -> None:
    made = intervals(_cu(0, 4, 6), window=2**31 - 1, max_len=2**31 - 1)
    assert torch.equal(made.dense_mask(), intervals(_cu(0, 4, 6)).dense_mask())
    assert made.q_stop.tolist() == [4, 4, 4, 4, 6, 6]


def test_longest_document_is_found() -> None:
    assert intervals(_cu(0, 4, 6)).max_len == 4
    assert intervals(_cu(0, 4, 6), max_len=9).max_len == 9


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_int64_gives_the_same(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, 9), max_size=6))
    form = data.draw(forms(lengths))
    wide = {
        name: value.long() if isinstance(value, torch.Tensor) else value
        for name, value in form.items()
    }
    cu = cu_seqlens(lengths)
    made, other = intervals(cu, **form), intervals(cu.long(), **wide, total=sum(lengths))
    assert torch.equal(made.dense_mask(), other.dense_mask())
    for name in ("start", "cu_seqlens", "branches", "prefix_lens"):
        if getattr(made, name) is not None:
            assert getattr(other, name).dtype == torch.int32


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("cu_seqlens", {"cu_seqlens": _cu(1, 4)}),
        ("cu_seqlens", {"cu_seqlens": _cu(0, 4, 3)}),
        ("cu_seqlens", {"cu_seqlens": torch.tensor([0.0, 4.0])}),
        ("cu_seqlens", {"cu_seqlens": torch.zeros(2, 2, dtype=torch.int32)}),
        ("cu_seqlens", {"cu_seqlens": torch.zeros(0, dtype=torch.int32)}),
        ("cu_seqlens", {"cu_seqlens": _cu(0, 4), "total": 5}),
        ("cu_seqlens", {"cu_seqlens": torch.tensor([0, 2**31])}),
        ("total", {"cu_seqlens": _cu(0, 4), "total": -1}),
        ("total", {"cu_seqlens": _cu(0, 4), "total": 2**31}),
        ("max_len", {"cu_seqlens": _cu(0, 4, 6), "max_len": 3}),
        ("max_len", {"cu_seqlens": _cu(0), "max_len": -1}),
        ("prefix_lens", {"cu_seqlens": _cu(0, 4), "prefix_lens": torch.tensor([5])}),
        ("prefix_lens", {"cu_seqlens": _cu(0, 4), "prefix_lens": torch.tensor([-1])}),
        ("prefix_lens", {"cu_seqlens": _cu(0, 4), "prefix_lens": torch.tensor([1, 1])}),
        ("prefix_lens", {"cu_seqlens": _cu(0, 4), "prefix_lens": torch.tensor([0.5])}),
        ("window", {"cu_seqlens": _cu(0, 4), "prefix_lens": torch.tensor([1]), "window": 2}),
        ("window", {"cu_seqlens": _cu(0, 4), "causal": False, "window": 2}),
        ("window", {"cu_seqlens": _cu(0, 4), "window": 0}),
        ("window", {"cu_seqlens": _cu(0, 4), "window": 2**31}),
        ("branches", {"cu_seqlens": _cu(0, 2, 4), "branches": torch.tensor([-1, 1])}),
        ("branches", {"cu_seqlens": _cu(0, 2, 4), "branches": torch.tensor([-1])}),
        ("branches", {"cu_seqlens": _cu(0, 1, 2, 3), "branches": torch.tensor([-1, 0, 1])}),
    ],
)
def test_bad_input_names_the_argument(name: str, kwargs: dict) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        intervals(**kwargs)
