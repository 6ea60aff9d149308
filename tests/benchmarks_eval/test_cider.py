"""CIDEr-D against values of the two libraries that compute it."""

from __future__ import annotations

import pytest

from benchmarks_eval.cider import CiderD

REFERENCES = [
    ["a red ball on the floor", "the ball is red"],
    ["a cat sleeps on the couch", "kitty is sleeping"],
    ["look at the big truck", "there is a truck in the sand"],
    ["we read a book", "mama reads the book to you"],
]
CAPTIONS = ["a red ball is on the floor", "the cat is on the couch",
            "look there is a truck in the sand", "a red ball"]
# pycocoevalcap 1.2 and aac-metrics 0.6.0 give the same numbers.
EXPECTED = [3.7710061563421293, 1.7323450717871403, 4.9642850960545415, 0.0]


def split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


@pytest.fixture
def scorer() -> CiderD:
    return CiderD([[split(text) for text in texts] for texts in REFERENCES])


def test_values_of_the_libraries(scorer: CiderD) -> None:
    got = [scorer.score([split(text) for text in texts], split(caption))
           for texts, caption in zip(REFERENCES, CAPTIONS, strict=True)]
    assert got == pytest.approx(EXPECTED, abs=1e-12)


def test_the_reference_itself_scores_ten(scorer: CiderD) -> None:
    text = split("a red ball on the floor")
    assert scorer.score([text], text) == pytest.approx(10)


def test_empty_and_strange_texts_score_nothing(scorer: CiderD) -> None:
    assert scorer.score([split("a red ball")], ()) == 0
    assert scorer.score([split("a red ball")], split("x y z")) == 0


def test_repeating_a_word_is_clipped(scorer: CiderD) -> None:
    wanted = [split("the ball is red")]
    assert scorer.score(wanted, split("red red red red")) < scorer.score(wanted, split("red"))


def test_words_of_every_picture_weigh_nothing() -> None:
    scorer = CiderD([[split("the dog")], [split("the cat")]])
    assert scorer.score([split("the dog")], split("the")) == 0
    assert scorer.score([split("the dog")], split("dog")) > 0
