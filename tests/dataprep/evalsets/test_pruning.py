"""Phrase-only models, and pruning until none of them beats chance."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from dataprep.evalsets.phrase_models import MODELS, floor, floors, margins, right, wilson
from dataprep.evalsets.pruning import prune, symmetric

LABELS = Path(__file__).resolve().parents[4] / "shared/data/babyvlm"


def official() -> list[tuple[str, str]]:
    path = Path(os.environ.get("BABYVLM_LABELS", LABELS)) / "vtwt.csv"
    if not path.is_file():
        pytest.skip("the official two-word table is not here (BABYVLM_LABELS names its folder)")
    with path.open(newline="", encoding="utf-8") as file:
        return [(r["positive_phrase"], r["negative_phrase"]) for r in csv.DictReader(file)]


def biased(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Right phrases mostly about dogs and cups, wrong ones mostly about storms and kings."""
    rng = np.random.default_rng(seed)
    homely, odd = [f"dog{k}" for k in range(12)], [f"king{k}" for k in range(12)]
    out = []
    for _ in range(count):
        a, b = (homely, odd) if rng.random() < 0.8 else (odd, homely)
        one, two = (f"{rng.choice(['see', 'hold', 'big'])} {rng.choice(words)}" for words in (a, b))
        out.append((one, two))
    return out


@pytest.mark.parametrize("model", list(MODELS))
def test_a_bias_is_found_and_its_absence_too(model: str) -> None:
    assert floor(biased(300), model).accuracy > 0.7
    rng = np.random.default_rng(1)
    fair = [(a, b) if rng.random() < 0.5 else (b, a) for a, b in biased(300)]
    assert floor(fair, model).at_chance


def test_margins_are_held_out_by_phrase() -> None:
    # the one thing that could be learnt is which phrase is right, and that is what is held out
    pairs = [(f"a{k} b{k}", f"c{k} d{k}") for k in range(30)] * 4
    assert right(margins(pairs)) == 0.5 and np.allclose(margins(pairs), 0, atol=0.2)
    # by hand: two phrases a side, of which the judged trial's are left out
    pairs = [("red dog", "red king"), ("big dog", "big king")]
    found = margins(pairs, folds=4, seed=0)
    assert np.all(found > 0)  # the other trial says that dog is right and king is wrong
    swapped = margins([(b, a) for a, b in pairs], folds=4, seed=0)
    assert np.allclose(found, swapped)


def test_symmetric_keeps_as_many_on_either_side_in_every_bin() -> None:
    rng = np.random.default_rng(0)
    margin = rng.normal(0.7, 1, 1000)
    keep = symmetric(margin, bins=10, rng=rng)
    bins = np.minimum((np.abs(margin) / np.abs(margin).max() * 10).astype(int), 9)
    for number in range(10):
        inside = keep & (bins == number)
        both = np.sum(margin[inside] > 0), np.sum(margin[inside] < 0)
        assert both[0] == both[1] == min(np.sum((margin > 0) & (bins == number)),
                                         np.sum((margin < 0) & (bins == number)))
    assert symmetric(np.zeros(4), bins=10, rng=rng).all()


def test_pruning_brings_every_model_to_chance_and_is_the_same_each_time() -> None:
    pairs = biased(500)
    pruning = prune(pairs, seed=3)
    assert max(f.accuracy for f in pruning.before) > 0.7
    assert all(f.accuracy <= f.chance_high for f in pruning.after)
    assert 100 < pruning.keep.sum() < 260
    assert np.array_equal(pruning.keep, prune(pairs, seed=3).keep)
    assert f"500 trials shrink to {pruning.keep.sum()}" in pruning.lines()[0]


def test_nothing_is_dropped_where_nothing_is_given_away() -> None:
    rng = np.random.default_rng(1)
    fair = [(a, b) if rng.random() < 0.5 else (b, a) for a, b in biased(200)]
    pruning = prune(fair)
    assert pruning.keep.all() and "all 200 trials are kept" in pruning.lines()[0]
    assert prune([]).keep.shape == (0,)


def test_official_set_and_its_price(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = official()
    assert len(pairs) == 967
    pruning = prune(pairs)
    with capsys.disabled():
        print("\n" + "\n".join(pruning.lines()))
    assert max(f.accuracy for f in pruning.before) > 0.7
    assert 380 <= pruning.keep.sum() <= 580
    kept = [pair for pair, stays in zip(pairs, pruning.keep, strict=True) if stays]
    # on folds that nothing has seen
    for found in (*pruning.after, *floors(kept, seed=77)):
        assert found.accuracy <= found.chance_high, found


def test_wilson_interval() -> None:
    assert wilson(0.5, 967) == pytest.approx((0.4686, 0.5314), abs=1e-4)
    assert wilson(0.25, 2200) == pytest.approx((0.2324, 0.2685), abs=1e-4)
    with pytest.raises(ValueError, match="accepted are words, places, letters, ridge"):
        margins([("a b", "c d")], "vowels")
