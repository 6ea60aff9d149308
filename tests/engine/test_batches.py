"""The stateless plan: every sample once, the same at any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batches import Plan, cut_by_budget, deal, epoch_order, stream_seed

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=300).map(np.array)


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.integers(60, 500), st.integers(0, 5))
def test_every_epoch_sees_every_sample_once_within_the_budget(lengths, budget, seed):
    plan = Plan(lengths, budget, 2, seed=seed, phase="p")
    seen: dict[int, list[int]] = {0: [], 1: []}
    for step in range(plan.num_steps):
        samples = plan.samples(step)
        assert lengths[samples].sum() <= budget
        seen[plan.locate(step).epoch] += samples.tolist()
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(len(lengths)))


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.integers(1, 8))
def test_shares_partition_the_step_and_are_balanced(lengths, shares):
    parts = deal(lengths, shares)
    assert np.concatenate([lengths[p] for p in parts]).tolist() == lengths.tolist()
    ceiling = lengths.sum() / shares + lengths.max()
    assert all(lengths[p].sum() <= ceiling for p in parts)


def test_the_samples_of_a_step_do_not_depend_on_the_number_of_ranks():
    lengths = np.random.default_rng(0).integers(5, 60, 5000)
    plan = Plan(lengths, 4096, 1, seed=3, phase="joint")
    for step in (0, 7, plan.num_steps - 1):
        for ranks in (1, 2, 3, 8):
            joined = np.concatenate([plan.share(step, r, ranks) for r in range(ranks)])
            assert joined.tolist() == plan.samples(step).tolist()


def test_a_row_of_8192_tokens_is_at_least_99_percent_full():
    lengths = np.random.default_rng(0).integers(55, 75, 20000)
    plan = Plan(lengths, 8192, 1, seed=0, phase="joint")
    sums = [lengths[plan.samples(s)].sum() for s in range(plan.num_steps - 1)]
    assert np.mean(sums) / 8192 >= 0.99


def test_order_depends_on_seed_phase_and_epoch_only():
    first = epoch_order(100, 0, "joint", "order", 0)
    assert first.tolist() == epoch_order(100, 0, "joint", "order", 0).tolist()
    others = [epoch_order(100, *labels).tolist() for labels in
              ((1, "joint", "order", 0), (0, "x", "order", 0), (0, "joint", "order", 1))]
    assert all(first.tolist() != other for other in others)
    # Known values: a new version of NumPy must not change anybody's data order.
    assert stream_seed(0, "joint", 3) == 8431211923750006705
    assert epoch_order(8, 0, "joint", "order", 0).tolist() == [5, 0, 2, 6, 7, 4, 3, 1]
    assert stream_seed("a", "b") != stream_seed("ab")


def test_one_sample_of_each_subset_and_another_one_in_another_epoch():
    pictures = np.repeat(np.arange(50), 4)
    plan = Plan(np.ones(200, np.int64), 10, 2, seed=0, phase="v", subsets=pictures)
    chosen = [np.concatenate([plan.samples(s) for s in range(plan.num_steps)
                              if plan.locate(s).epoch == e]) for e in (0, 1)]
    for epoch in chosen:
        assert sorted(pictures[epoch]) == list(range(50))
    assert sorted(chosen[0]) != sorted(chosen[1])


def test_drop_last_leaves_out_only_a_step_that_is_not_full():
    ones = np.ones(25, np.int64)
    assert Plan(ones, 10, 1, seed=0, phase="v", drop_last=True).num_steps == 2
    assert Plan(ones[:20], 10, 1, seed=0, phase="v", drop_last=True).num_steps == 2
    assert Plan(ones, 10, 1, seed=0, phase="v").num_steps == 3


def test_max_steps_and_last_of_epoch():
    plan = Plan(np.ones(20, np.int64), 5, 3, seed=0, phase="v", max_steps=6)
    assert plan.num_steps == 6
    assert [s for s in range(6) if plan.locate(s).last_of_epoch] == [3]


def test_a_sample_longer_than_the_budget_is_named():
    with pytest.raises(ValueError, match=r"phases\.joint: a sample of 90 tokens .* budget of 80"):
        Plan(np.array([10, 90]), 80, 1, seed=0, phase="joint")


def test_cut_by_budget():
    assert cut_by_budget(np.array([3, 3, 3, 7, 1]), 7).tolist() == [0, 2, 3, 4, 5]
