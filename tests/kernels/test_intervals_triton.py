"""The kernel that makes intervals on a GPU against torch (without a GPU, interpreted)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cuda_graphs import capture, nothing_waits
from support.masks import FORMS, cu_seqlens, forms, packed

from kernels import intervals
from kernels.intervals import GROUP_TILES, SEGMENT, Intervals
from kernels.intervals_torch import pack
from kernels.intervals_triton import build

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BRANCHES = ("start2", "stop2", "q_start2", "q_stop2")
VECTORS = ("start", "stop", "q_start", "q_stop", *BRANCHES)


def _there(form: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.to(DEVICE) if isinstance(value, torch.Tensor) else value
        for name, value in form.items()
    }


def _compare(lengths: list[int], form: dict[str, Any], block: int = 1024) -> None:
    """Compare every tensor with the torch construction on the CPU, bit by bit."""
    cu = cu_seqlens(lengths)
    expected = intervals(cu, **form)
    vectors, groups = build(cu.to(DEVICE), sum(lengths), **_there(form), block=block)
    for name in VECTORS:
        got, want = getattr(vectors, name), getattr(expected, name)
        assert (got is None) == (want is None), name
        if want is not None:
            assert got.dtype == torch.int32 and got.is_contiguous()
            assert got.data_ptr() % 128 == vectors.start.data_ptr() % 128  # aligned alike
            assert torch.equal(got.cpu(), want), name
    assert groups.keys() == expected.groups.keys()
    for tile, got in groups.items():
        assert got.is_contiguous()
        assert torch.equal(got.cpu(), expected.groups[tile]), tile


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "lengths",
    [[5], [1], [0, 0], [], [7, 1, 0, 30, 3, 64, 12], [0, 0, 4, 0], [1] * 70, [130, 61, 200, 5]],
)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(data=st.data())
def test_every_form(form: str, lengths: list[int], data: st.DataObject) -> None:
    _compare(lengths, data.draw(forms(lengths, form)), block=64)


@settings(max_examples=40, deadline=None)
@given(packed(max_length=40, max_documents=40), st.sampled_from([16, 256]))
def test_random_documents(case: tuple[list[int], dict[str, Any]], block: int) -> None:
    lengths, form = case
    _compare(lengths, form, block)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 300), st.integers(0, 3)), min_size=8, max_size=60))
def test_random_groups(lengths: list[int]) -> None:
    _compare(lengths, {})


@pytest.mark.parametrize(
    "lengths",
    [
        [1, 64] * 40,  # each in a group of its own: the most groups a segment can have
        [1, 256, 0] * 12,
        [1] * 200 + [0] * 40 + [64] + [0] * 70,  # more documents than one step looks at
        [2] * 32 + [100],  # one step's documents fill a tile exactly
        [1] * 32 + [300] + [1] * 33,
        [SEGMENT - 4, 4, 4, SEGMENT - 4, 3 * SEGMENT, 5],  # at and across segments
        [SEGMENT - 32] + [1] * 32 + [40] * 3,  # the last step of a segment takes all it sees
        [0] * 100 + [3] + [0] * 200,
    ],
)
def test_groups_at_their_limits(lengths: list[int]) -> None:
    _compare(lengths, {})


def test_picture_books() -> None:
    """Pictures of 49 tokens with 11 of text: four segments of the longest row used."""
    lengths = [60] * 136 + [16]
    prefix = torch.tensor([49] * 136 + [5], dtype=torch.int32)
    _compare(lengths, {"prefix_lens": prefix}, block=8192)


def test_many_short_documents() -> None:
    """8,192 documents of 34 tokens: the search takes log2(D) steps, not D."""
    lengths = [34] * 8192
    if DEVICE.type == "cuda":
        _compare(lengths, {"prefix_lens": torch.full((8192,), 17, dtype=torch.int32)})
        return
    # Interpreted, packing alone would take half a minute, so rows only: with branches there are
    # no groups.
    branches = torch.full((8192,), -1, dtype=torch.int32)
    branches[8000:8100] = torch.arange(100, dtype=torch.int32) % 7
    _compare(lengths, {"branches": branches}, block=65536)
    _compare(lengths[:300], {})


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-5, 300), min_size=1, max_size=80),
    st.integers(1, 400),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_wrong_values_stay_inside_the_row(
    values: list[int], total: int, causal: bool, branched: bool, data: st.DataObject
) -> None:
    """On a GPU values are not checked: they must not lead any kernel out of its tensors."""
    documents = len(values) - 1
    number = st.lists(st.integers(-9, 500), min_size=documents, max_size=documents)

    def draw() -> torch.Tensor:
        return torch.tensor(data.draw(number), dtype=torch.int32, device=DEVICE)

    vectors, groups = build(
        torch.tensor(values, dtype=torch.int32, device=DEVICE),
        total,
        prefix_lens=draw(),
        causal=causal,
        branches=draw() if branched and documents else None,
        block=512,
    )
    for vector in vectors:
        if vector is not None:
            assert ((vector >= 0) & (vector <= total)).all()
    for tile, ranges in groups.items():
        assert ((ranges >= 0) & (ranges <= total)).all()
        length = ranges[:, 1] - ranges[:, 0]
        assert ((length >= 0) & (length <= tile)).all()


def test_every_slot_is_written() -> None:
    """Memory is not zeroed first: whatever stood there must be gone."""
    lengths = [70, 3, 500, 60, 60]
    cu = cu_seqlens(lengths).to(DEVICE)
    before = torch.utils.deterministic.fill_uninitialized_memory
    strict = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # with the largest integer
    try:
        assert torch.empty(1, dtype=torch.int32).item() == 2**31 - 1
        _, groups = build(cu, sum(lengths), block=1024)
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.utils.deterministic.fill_uninitialized_memory = before
    for tile in GROUP_TILES:
        assert torch.equal(groups[tile].cpu(), pack(cu.tolist(), tile))


@pytest.mark.gpu
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_synchronisation_and_a_graph(form: str, data: st.DataObject) -> None:
    lengths = [61, 0, 1, 230, 17, 17, 300, 40]
    arguments = data.draw(forms(lengths, form))
    expected = intervals(cu_seqlens(lengths), **arguments)
    there, cu = _there(arguments), cu_seqlens(lengths[::-1]).to(DEVICE)

    def step() -> Intervals:
        return intervals(cu, **there, total=sum(lengths))

    step()  # compiles
    with nothing_waits():
        step()
    graph, made = capture(step)
    cu.copy_(cu_seqlens(lengths))
    graph.replay()
    for name in VECTORS:
        want = getattr(expected, name)
        assert want is None or torch.equal(getattr(made, name).cpu(), want), name
    for tile, want in expected.groups.items():
        assert torch.equal(made.groups[tile].cpu(), want)
