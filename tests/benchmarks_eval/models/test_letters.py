"""Letters: every option stands in every place, and answers are read without guessing."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from benchmarks_eval.models.letters import average, letter_shares, orders, question, read_letter


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 22])
def test_every_option_stands_in_every_place_equally_often(count: int) -> None:
    shown = orders(count)
    assert len(shown) == (math.factorial(count) if count <= 4 else count)
    for place in range(count):
        times = Counter(order[place] for order in shown)
        assert set(times) == set(range(count)) and len(set(times.values())) == 1


def test_more_options_than_letters() -> None:
    with pytest.raises(ValueError, match="up to 26"):
        orders(27)


def test_a_liking_for_a_place_averages_out() -> None:
    for count in (2, 4, 6):
        shown = orders(count)
        likes_the_first = [[1.0] + [0.0] * (count - 1)] * len(shown)
        assert average(shown, likes_the_first) == pytest.approx([1 / count] * count)


def test_average_undoes_the_order() -> None:
    shown = orders(3)
    right = [[float(option == 2) for option in order] for order in shown]
    assert average(shown, right) == [0.0, 0.0, 1.0]
    some = [right[0], *[None] * 5]
    assert average(shown, some) == [0.0, 0.0, 1.0]
    assert all(math.isnan(value) for value in average(shown, [None] * 6))


@pytest.mark.parametrize(("answer", "place"), [
    ("B", 1), (" b\n", 1), ("(B)", 1), ("B.", 1), ("**B**", 1), ("B. the red cup", 1),
    ("B) cup", 1), ("Answer: B", 1), ("The answer is B.", 1), ("Option C", 2), ("Picture A", 0),
    ("A: a dog", 0), ("a", 0), ("The correct answer is (D).", 3), ("\"C\"", 2),
    ("A dog sits there", None), ("I think so", None), ("", None), ("the red cup", None),
    ("E", None), ("Both", None), ("I'm not sure", None), ("AB", None), ("?", None),
    ("answer is a dog", None),
])
def test_reading_an_answer(answer: str, place: int | None) -> None:
    assert read_letter(answer, 4) == place


def test_shares_of_the_first_token() -> None:
    shares = letter_shares({"A": math.log(0.3), " A": math.log(0.1), "B": math.log(0.4),
                            "The": math.log(0.15), "a": math.log(0.05)}, 2)
    assert shares == pytest.approx([0.5, 0.5])
    assert letter_shares({"The": -0.1, "C": -3.0, "": -4.0}, 2) is None
    assert letter_shares({"C": -1.0}, 3) == [0.0, 0.0, 1.0]


def test_the_words_of_a_question() -> None:
    assert question(["a cup", "a dog"], "", True) == (
        "Which of these fits the picture best?\nA. a cup\nB. a dog\nAnswer with the letter alone.")
    assert question(["x", "y"], "What is it?", True).startswith("What is it?\nA. x\nB. y\n")
    assert "sentence" in question(["x", "y"], "", False)
