"""Metrics: rules, ties, chance of constant models, overlap of captions."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks_eval import metrics


def test_choice_counts_ties_by_their_share() -> None:
    assert metrics.choice(np.array([1.0, 3.0, 2.0]), 1) == 1
    assert metrics.choice(np.array([1.0, 3.0, 2.0]), 2) == 0
    assert metrics.choice(np.array([3.0, 3.0, 2.0]), 0) == 0.5
    assert metrics.choice(np.array([3.0, 3.0, 2.0]), 2) == 0
    assert metrics.choice(np.array([[3.0], [3.0], [3.0], [3.0]]), 2) == 0.25
    assert metrics.choice(np.array([3.0, 3.0 + 1e-8]), 0) == 0.5  # float32 noise is a tie


def test_gain_compares_with_the_mean_of_the_others() -> None:
    assert metrics.gain(np.array([[-1.0], [-2.0], [-4.0]]), 0) == pytest.approx(2.0)


@pytest.mark.parametrize(("matrix", "expected"), [
    # Thrush et al. 2022's rules by hand: rows are pictures, columns phrases.
    ([[2, 1], [1, 2]], {"text": 1, "image": 1, "group": 1, "positive_context": 1,
                        "negative_context": 1, "match": 1}),
    ([[9, 8], [1, 2]], {"text": 1, "image": 0, "group": 0, "positive_context": 1,
                        "negative_context": 0, "match": 1}),
    ([[9, 1], [8, 2]], {"text": 0, "image": 1, "group": 0, "positive_context": 1,
                        "negative_context": 0, "match": 1}),
    ([[1, 2], [2, 1.5]], {"text": 0, "image": 0, "group": 0, "positive_context": 0,
                          "negative_context": 0, "match": 0}),
    # A constant model is at chance on each.
    ([[1, 1], [1, 1]], {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6, "positive_context": 1 / 3,
                        "negative_context": 1 / 3, "match": 1 / 2}),
    # A model that never looks: the phrase is decided, the pictures tie.
    ([[2, 1], [2, 1]], {"text": 0, "image": 1 / 4, "group": 0, "positive_context": 1 / 2,
                        "negative_context": 0, "match": 1 / 2}),
])
def test_winoground_rules(matrix: list[list[float]], expected: dict[str, float]) -> None:
    scores = np.array(matrix, dtype=float)
    got = {name: metric(scores, 0) for name, (metric, _) in metrics.WINOGROUND.items()}
    assert got == pytest.approx(expected)


def test_winoground_chance_is_that_of_independent_scores() -> None:
    draws = np.random.default_rng(0).normal(size=(4000, 2, 2))
    for name, (metric, chance) in metrics.WINOGROUND.items():
        mean = np.mean([metric(scores, 0) for scores in draws])
        assert abs(mean - chance) < 4 * np.sqrt(chance * (1 - chance) / len(draws)), name


def test_match_ignores_what_is_liked_for_itself() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        scores = rng.normal(size=(2, 2))
        biased = scores + 5 * rng.normal(size=(2, 1)) + 5 * rng.normal(size=(1, 2))
        assert metrics.match(scores, 0) == metrics.match(biased, 0)


def test_caption_overlap() -> None:
    assert metrics.content_words("Look at the red apple!") == {"red", "apple"}
    assert metrics.word_recall("a red apple", "it is an apple") == 0.5
    assert metrics.word_recall("where is it ?", "it") == pytest.approx(1 / 3)
    assert metrics.exact_match("A red apple!", "a red apple .") == 1
    assert metrics.exact_match("a red apple", "a red apple tree") == 0
