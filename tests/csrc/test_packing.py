"""Best-fit packing against a plain O(n * bins) reference, its bounds, and its errors."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import _native
from engine import packing
from engine.packing import caption_lengths, pack_best_fit


def reference(lengths: Sequence[int], capacity: int) -> tuple[list[int], int]:
    """One sequence at a time, every bin looked at, as the definition reads."""
    free: list[int] = []
    touched: list[int] = []  # when a bin was last added to
    bin_of = [-1] * len(lengths)
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for clock, i in enumerate(order):
        fitting = [b for b in range(len(free)) if free[b] >= lengths[i]]
        if fitting:
            best = min(fitting, key=lambda b: (free[b], -touched[b]))
        else:
            best = len(free)
            free.append(capacity)
            touched.append(clock)
        free[best] -= lengths[i]
        touched[best] = clock
        bin_of[i] = best
    return bin_of, len(free)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], int]:
    # Capacities on both sides of the bitmap's word borders; short lengths make many ties.
    capacity = draw(st.sampled_from([1, 2, 7, 62, 63, 64, 65, 127, 128, 129, 200, 512]))
    longest = draw(st.integers(1, capacity))
    return draw(st.lists(st.integers(1, longest), max_size=60)), capacity


@settings(max_examples=400, deadline=None)
@given(cases(), st.sampled_from([np.int32, np.int64]))
def test_equals_reference(case: tuple[list[int], int], dtype: type) -> None:
    lengths, capacity = case
    bin_of, num_bins = pack_best_fit(np.array(lengths, dtype=dtype), capacity)
    assert bin_of.dtype == np.int32
    assert (bin_of.tolist(), num_bins) == reference(lengths, capacity)


@pytest.mark.parametrize("capacity", [111, 512, 2048])
def test_equals_reference_on_caption_lengths(capacity: int) -> None:
    lengths = caption_lengths(1500, seed=capacity)
    bin_of, num_bins = pack_best_fit(lengths, capacity)
    assert (bin_of.tolist(), num_bins) == reference(lengths.tolist(), capacity)


def test_large_case_is_a_packing_near_the_bound() -> None:
    lengths = caption_lengths(300_000)
    bin_of, num_bins = pack_best_fit(lengths, 2048)
    filled = np.bincount(bin_of, weights=lengths, minlength=num_bins)
    assert filled.shape == (num_bins,)
    assert filled.min() > 0
    assert filled.max() <= 2048
    assert lengths.sum() / (num_bins * 2048) > 0.985  # 0.989 in a trial on like lengths


def test_ties_are_as_documented() -> None:
    # 6 and 6 leave two bins with 4 free; the second was used last, so the first 4 goes there.
    bin_of, num_bins = pack_best_fit([4, 6, 6, 4], 10)
    assert bin_of.tolist() == [1, 0, 1, 0]
    assert num_bins == 2


def test_the_fullest_bin_that_fits_is_taken() -> None:
    # When the 2 comes, bin 0 has 4 free and bin 1 has 2: first-fit would take bin 0.
    assert pack_best_fit([16, 13, 5, 2], 20).bin_of.tolist() == [0, 1, 1, 1]


def test_accepts_lists_views_and_nothing() -> None:
    lengths = np.arange(1, 101, dtype=np.int64)
    view = lengths[::-2]
    assert not view.flags.c_contiguous
    expected = pack_best_fit(view.tolist(), 100)
    got = pack_best_fit(view, 100)
    assert got.bin_of.tolist() == expected.bin_of.tolist()
    assert got.num_bins == expected.num_bins
    empty = pack_best_fit([], 8)
    assert (empty.bin_of.shape, empty.num_bins) == ((0,), 0)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize(
    ("bad", "index"), [([3, 9, 2, 10], 1), ([3, 0], 1), ([-1, 2], 0), ([8, 8, -(2**31)], 2)]
)
def test_a_length_that_does_not_fit_is_named(bad: list[int], index: int, dtype: type) -> None:
    line = f"lengths[{index}] is {bad[index]}; accepted: 1 to 8 (the capacity)"
    with pytest.raises(ValueError, match=re.escape(line)):
        pack_best_fit(np.array(bad, dtype=dtype), 8)


def test_int64_is_not_cut_to_32_bits() -> None:
    with pytest.raises(ValueError, match=r"lengths\[0\] is 4294967297"):
        pack_best_fit(np.array([2**32 + 1]), 8)


@pytest.mark.parametrize("capacity", [0, -5, 2**20 + 1, 2**40])
def test_capacity_out_of_range(capacity: int) -> None:
    with pytest.raises(ValueError, match=f"capacity is {capacity}; accepted: 1 to 1048576"):
        pack_best_fit([1], capacity)
    assert pack_best_fit([2**20], 2**20).num_bins == 1


@pytest.mark.parametrize("lengths", [np.ones(3), np.ones((2, 2), np.int32), np.ones(3, np.uint8)])
def test_other_arrays_are_refused(lengths: np.ndarray) -> None:
    with pytest.raises(ValueError, match="accepted: one dimension of int32 or int64"):
        _native.pack_best_fit(lengths, 8)


def test_the_gil_is_released() -> None:
    # In the middle half of the call this thread gets turns: none could happen if the GIL were held.
    lengths = caption_lengths(16_000_000)
    for _ in range(5):  # a busy machine may withhold every turn once
        span: list[float] = []

        def work(span: list[float] = span) -> None:
            span.append(time.perf_counter())
            pack_best_fit(lengths, 2048)
            span.append(time.perf_counter())

        turns: list[float] = []
        thread = threading.Thread(target=work)
        thread.start()
        while thread.is_alive():
            time.sleep(0)
            turns.append(time.perf_counter())
        thread.join()
        quarter = (span[1] - span[0]) / 4
        if any(span[0] + quarter < turn < span[1] - quarter for turn in turns):
            return
    pytest.fail("no other Python thread ran while sequences were packed")


def test_benchmark_command_prints_both_rates() -> None:
    command = [sys.executable, "-m", "engine.packing", "--bench", "--sequences", "500000"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    rates = [float(rate) for rate in re.findall(r"([\d.]+) million sequences/s", run.stdout)]
    assert len(rates) == 2, run.stdout
    assert min(rates) > 0


def test_command_line_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert packing.main(["--bench", "--sequences", "10", "--capacity", "50"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: lengths[") and error.count("\n") == 1
    assert packing.main(["--bench", "--sequences", "0"]) == 2
    assert "--sequences is 0" in capsys.readouterr().err


def test_a_missing_extension_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_native", None)  # type: ignore[arg-type]
    with pytest.raises(ImportError, match="the C\\+\\+ extension _native is not built"):
        pack_best_fit([1], 8)
