"""Confusions, hubs, and what the scores of a square are made of."""

from __future__ import annotations

import numpy as np
import pytest
from support.judged_runs import trial

from benchmarks_eval.breakdowns import attractions, confusion, picture_labels, square_bias
from benchmarks_eval.metrics import WINOGROUND
from benchmarks_eval.outcomes import Outcome


def outcomes(rows: list[dict]) -> list[Outcome]:
    return [Outcome.from_json(row) for row in rows]


def word_choice(id_: str, image: str, texts: list[str], gold: int, scores: list) -> dict:
    return trial(id_, 0.0, images=(image,), texts=texts, gold=gold, scores=[scores])


def test_words_for_a_picture() -> None:
    made = confusion(outcomes([
        word_choice("0", "a", ["cat", "car", "dog"], 0, [1.0, 0.0, 2.0]),   # cat taken for dog
        word_choice("1", "b", ["dog", "cat", "car"], 1, [2.0, 2.0, 0.0]),   # a tie
        word_choice("2", "c", ["car", "dog", "cat"], 0, [3.0, 1.0, 0.0]),   # right
        word_choice("3", "d", ["car", "dog", "cat"], 0, [None, 1.0, 0.0]),
    ]))
    assert made.labels == ("car", "cat", "dog")
    assert made.offered.tolist() == [[2, 2, 2], [2, 2, 2], [0, 0, 0]]
    assert made.chosen.tolist() == [[1, 0, 0], [0, 0.5, 1.5], [0, 0, 0]]
    assert made.nonfinite == 1 and made.unlabelled == 0
    assert np.isnan(made.rates[2, 0]) and made.rates[1, 2] == 0.75
    (worst,) = made.worst()
    assert (worst.asked, worst.taken, worst.offers, worst.share) == ("cat", "dog", 2, 0.75)
    assert worst.low < 0.75 < worst.high


def test_pictures_for_a_word_are_labelled_by_other_trials_and_folders() -> None:
    rows = [
        trial("0", 0.0, images=("x/1.png", "x/2.png", "cat/3.png"), texts=("dog",), gold=0,
              scores=[[0.0], [1.0], [0.0]]),
        trial("1", 1.0, images=("x/2.png", "x/9.png"), texts=("cat",), gold=0,
              scores=[[1.0], [0.0]]),
    ]
    assert picture_labels(outcomes(rows)) == {"x/1.png": "dog", "x/2.png": "cat",
                                              "cat/3.png": "cat"}
    made = confusion(outcomes(rows))
    assert made.labels == ("cat", "dog") and made.unlabelled == 1
    assert made.offered.tolist() == [[1, 0], [2, 1]] and made.chosen.tolist() == [[1, 0], [1, 0]]


def test_two_labels_for_one_picture_are_no_label() -> None:
    rows = [trial("0", 1.0, images=("1", "2"), texts=("dog",)),
            trial("1", 1.0, images=("1", "3"), texts=("puppy",))]
    assert picture_labels(outcomes(rows)) == {}
    made = confusion(outcomes(rows))  # in its own trial a picture's label is known
    assert made.chosen.tolist() == [[1, 0], [0, 1]] and made.unlabelled == 2
    with pytest.raises(ValueError, match="one picture or one text"):
        confusion(outcomes([trial("0", 1.0, images=("1", "2"), texts=("a", "b"))]))


def test_every_choice_is_counted_once() -> None:
    rng = np.random.default_rng(0)
    labels = [f"l{k}" for k in range(22)]
    rows = []
    for k in range(300):
        texts = list(rng.permutation(labels))
        rows.append(word_choice(str(k), f"p{k}", texts, int(rng.integers(22)),
                                list(rng.normal(size=22))))
    made = confusion(outcomes(rows))
    assert made.chosen.sum() == pytest.approx(300) and made.offered.sum() == 300 * 22
    assert made.chosen.diagonal().sum() / 300 == pytest.approx(1 / 22, abs=0.04)


def squares(rng: np.random.Generator, n: int, bias: float) -> list[Outcome]:
    """Scores of noise with additive biases of pictures and texts; nothing is understood."""
    s = (rng.normal(size=(n, 2, 2)) + bias * rng.normal(size=(n, 2, 1))
         + bias * rng.normal(size=(n, 1, 2)))
    return outcomes([trial(str(k), 0.0, images=("p", "n"), texts=("a", "b"), scores=one.tolist())
                     for k, one in enumerate(s)])


@pytest.mark.parametrize("bias", [0.0, 1.0, 3.0])
def test_chance_given_the_biases_is_what_a_blind_guesser_reaches(bias: float) -> None:
    made = square_bias(squares(np.random.default_rng(1), 4000, bias))
    assert made is not None
    rest = squares(np.random.default_rng(2), 4000, bias)
    for name, expected in (("text", made.chance_text), ("image", made.chance_image),
                           ("group", made.chance_group)):
        metric = WINOGROUND[name][0]
        reached = float(np.mean([metric(o.scores, 0) for o in rest]))
        assert expected == pytest.approx(reached, abs=0.02)
    # Simulated by 400,000 draws elsewhere: .1667, .080, .016.
    assert made.chance_group == pytest.approx({0.0: 0.1667, 1.0: 0.080, 3.0: 0.016}[bias],
                                              abs=0.012)


def test_parts_of_a_square_by_hand() -> None:
    rows = [trial("0", 1.0, images=("p", "n"), texts=("a", "b"), scores=[[4.0, 1.0], [2.0, 1.0]]),
            trial("1", 0.0, images=("p", "n"), texts=("a", "b"), scores=[[None, 1.0], [2.0, 1.0]])]
    made = square_bias(outcomes(rows))
    assert made is not None and (made.n, made.nonfinite) == (1, 1)
    assert (made.picture_mean, made.text_mean, made.match_sd) == (1.0, 2.0, 1.0)
    assert (made.chance_text, made.chance_image, made.chance_group) == (0.0, 0.0, 0.0)
    assert square_bias(outcomes([trial("0", 1.0)])) is None


def picture_choices(rng: np.random.Generator, hub: float) -> list[Outcome]:
    rows = []
    for k in range(600):
        images = [f"p{i}" for i in rng.choice(40, size=4, replace=False)]
        scores = rng.normal(size=4) + hub * np.array([image == "p7" for image in images])
        rows.append(trial(str(k), 0.0, images=images, texts=("x",), gold=int(rng.integers(4)),
                          scores=scores[:, None].tolist()))
    return outcomes(rows)


def test_a_hub_is_found_and_noise_is_none() -> None:
    calm = attractions(picture_choices(np.random.default_rng(3), 0.0))
    assert calm is not None and calm.pictures
    assert calm.concentration == pytest.approx(1.0, abs=0.35)
    assert calm.candidates[0].excess < 4
    hub = attractions(picture_choices(np.random.default_rng(3), 5.0))
    assert hub is not None and hub.candidates[0].candidate == "p7"
    assert hub.candidates[0].taken > 0.95 * hub.candidates[0].offers
    assert hub.candidates[0].excess > 8 and hub.concentration > 2


def test_phrases_that_attract_in_pairs() -> None:
    rows = [trial(str(k), 0.0, texts=("see person", "throw ball" if k < 10 else f"w{k}"),
                  scores=[[0.0, 1.0 if k < 10 else -1.0]]) for k in range(40)]
    made = attractions(outcomes(rows))
    assert made is not None and not made.pictures and made.errors == 10
    first = made.candidates[0]
    assert (first.candidate, first.offers, first.taken) == ("throw ball", 10, 10.0)
    assert first.expected == pytest.approx(2.5)
    assert attractions(outcomes([trial("0", 1.0)])) is None
