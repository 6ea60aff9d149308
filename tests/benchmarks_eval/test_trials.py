"""Trials: positions carry nothing, draws are reproducible, limits spread."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks_eval.data import Item
from benchmarks_eval.tasks import Task
from benchmarks_eval.trials import (
    all_label_trials,
    caption_trials,
    labeled_trials,
    picture_choice_trials,
    question_trials,
    spread,
    text_choice_trials,
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


def test_text_and_picture_choices_are_shuffled_evenly_and_keep_the_gold() -> None:
    task = Task(name="b", kind="text_choice", format="blimp", file="f")
    items = [Item(str(k), ("",), ("good", "bad", "worse"), 0, "c", k, (("field", "syntax"),))
             for k in range(600)]
    trials = text_choice_trials(task, items, 0)
    assert all(trial.texts[trial.gold] == "good" and trial.images == ("",) for trial in trials)
    assert all(sorted(trial.texts) == ["bad", "good", "worse"] for trial in trials)
    assert trials[0].tags == (("field", "syntax"),) and trials[0].choices == 3
    assert np.bincount([trial.gold for trial in trials]).min() > 150  # 200 expected, sd 12
    task = Task(name="d", kind="picture_choice", format="devbench", file="f")
    items = [Item(str(k), ("own", "a", "b", "c"), ("word",), 0, "c", k) for k in range(800)]
    trials = picture_choice_trials(task, items, 0)
    assert all(trial.images[trial.gold] == "own" for trial in trials)
    assert np.bincount([trial.gold for trial in trials], minlength=4).min() > 150


def test_all_labels_compete_once_for_each_distinct_target() -> None:
    items = [Item(str(k), (f"p{k % 5}", "x"), (f"T{k % 5}", "X"), 0, "t", k) for k in range(10)]
    trials = all_label_trials(LABELED, items, 0)
    assert [trial.id for trial in trials] == ["0", "1", "2", "3", "4"]
    for k, trial in enumerate(trials):
        assert sorted(trial.texts) == ["T0", "T1", "T2", "T3", "T4", "X"]
        assert trial.images == (f"p{k}",) and trial.texts[trial.gold] == f"T{k}"


@pytest.mark.parametrize(("fields", "images", "texts", "names"), [
    ({"kind": "labeled"}, 4, 4, {"image": 4, "text": 4}),
    ({"kind": "labeled", "directions": ("text",), "candidates": "all"}, 3, 3, {"text": 3}),
    ({"kind": "two_word"}, 1, 2, {"phrase": 2}),
    ({"kind": "winoground", "format": "devbench"}, 2, 2, {"group": 4}),
    ({"kind": "picture_choice", "format": "devbench"}, 4, 1, {"picture": 4}),
    ({"kind": "text_choice", "format": "sugarcrepe"}, 1, 3, {"choice": 3}),
])
def test_every_kind_gives_trials(fields: dict[str, str], images: int, texts: int,
                                 names: dict[str, int]) -> None:
    task = Task.model_validate({"name": "l", "file": "f", **fields})
    item = Item("0", tuple("abcd"[:images]), tuple("ABCD"[:texts]), 0, "c", 1, (("tag", "x"),))
    found = question_trials(task, [item], 0)
    assert {name: trials[0].choices for name, trials in found.items()} == names
    assert all(trials[0].tags == item.tags for trials in found.values())


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
