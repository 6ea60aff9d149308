"""Trials: positions carry nothing, draws are reproducible, limits spread."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks_eval.data import Item
from benchmarks_eval.tasks import Task
from benchmarks_eval.trials import (
    caption_trials,
    labeled_trials,
    spread,
    two_word_trials,
)

LABELED = Task(name="l", kind="labeled", file="f")
PHRASE = Task(name="p", kind="two_word", file="f")
CAPTION = Task(name="c", kind="caption", file="f")


def _items(n: int) -> list[Item]:
    return [Item(str(k), ("t", "a", "b", "c"), ("T", "A", "B", "C"), 0, "t", k) for k in range(n)]


@pytest.mark.parametrize("direction", ["image", "text"])
def test_gold_position_is_uniform_and_right(direction: str) -> None:
    trials = labeled_trials(LABELED, _items(800), direction, 0)  # type: ignore[arg-type]
    for trial in trials:
        if direction == "image":
            assert trial.texts == ("T",) and trial.images[trial.gold] == "t"
        else:
            assert trial.images == ("t",) and trial.texts[trial.gold] == "T"
    counts = np.bincount([trial.gold for trial in trials], minlength=4)
    assert counts.min() > 150  # 200 expected, sd 12


def test_trials_depend_on_the_seed_and_the_item_alone() -> None:
    items = _items(50)
    full = labeled_trials(LABELED, items, "image", 3)
    assert labeled_trials(LABELED, items[20:], "image", 3) == full[20:]
    assert labeled_trials(LABELED, items, "image", 4) != full


def test_phrases_swap_places_half_the_time() -> None:
    items = [Item(str(k), ("i",), ("yes", "no"), 0, "i", k) for k in range(400)]
    trials = two_word_trials(PHRASE, items, 0)
    assert all(trial.texts[trial.gold] == "yes" for trial in trials)
    assert 150 < sum(trial.gold for trial in trials) < 250


def test_caption_foils_never_share_the_caption_or_the_picture() -> None:
    items = [Item(str(k), (f"p{k // 2}",), (f"text {k % 6}",), 0, "", k) for k in range(24)]
    said: dict[str, set[str]] = {}
    for item in items:
        said.setdefault(item.images[0], set()).add(item.texts[0])
    for item, trial in zip(items, caption_trials(CAPTION, items, 3, 0), strict=True):
        assert trial.images[trial.gold] == item.images[0]
        assert len(set(trial.images)) == 4
        for k, image in enumerate(trial.images):
            assert k == trial.gold or item.texts[0] not in said[image]


def test_caption_without_any_other_picture_is_refused() -> None:
    items = [Item(str(k), (f"p{k}",), ("the same",), 0, "", k) for k in range(3)]
    with pytest.raises(ValueError, match="'c': the caption 'the same' needs a picture"):
        caption_trials(CAPTION, items, 3, 0)


def test_limits_spread_over_the_file() -> None:
    items = _items(100)
    assert [item.line for item in spread(items, 4)] == [0, 25, 50, 75]
    assert spread(items, None) == items and spread(items, 1000) == items
