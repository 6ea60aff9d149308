"""METEOR against the values that NLTK's own documentation, tests and issues give."""

from __future__ import annotations

import pytest

from benchmarks_eval import meteor

GUIDE = ("It is a guide to action which ensures that the military always obeys the commands of "
         "the party")
TROOPS = ("It is to insure the troops forever hearing the activity guidebook that party direct")
REFERENCES = [
    "It is a guide to action that ensures that the military will forever heed Party commands",
    "It is the guiding principle which guarantees the military forces always being under the "
    "command of the Party",
    "It is the practical guide for the army always to heed the directions of the party",
]
MAT = "the cat sat on the mat"


@pytest.mark.parametrize(("references", "hypothesis", "expected"), [
    (REFERENCES[:1], GUIDE, 0.6944),  # NLTK's documentation
    (REFERENCES, GUIDE, 0.6944),
    (REFERENCES, TROOPS, 0.303539),  # measured with NLTK 3.10.4
    ([MAT], MAT, 0.9977),  # Wikipedia's three examples, which NLTK tests
    ([MAT], "on the mat sat the cat", 0.5),
    ([MAT], "the cat was sat on the mat", 0.9654),
    (["THIS Is a tEST"], "this is a test", 0.9921875),
    (["create or update a vm set"],  # NLTK's issue 2751, once above 1
     "creates or updates a virtual machine scale set", 0.7806),
    (["this is a cat"], "non matching hypothesis", 0.0),
    (["look at the red ball"], "look at the ball", 0.7653),
    (["cat is on the sofa"], "kitty is on the couch", 0.7938),
    (["a dog runs"], "a dog is running", 0.8244),
    (["ball"], "ball", 0.5),
    # The stem "happi" is no word, so its synonyms are not found; "playing" and "play" match.
    (["happy play"], "happily playing", 0.25),
])
def test_reference_values(references: list[str], hypothesis: str, expected: float) -> None:
    assert meteor.score(references, hypothesis) == pytest.approx(expected, abs=5e-5)


def test_tokens_decide_the_score() -> None:
    # NLTK's issue 2655: 0.4249 with METEOR 1.5. Split at white space alone, "centre." and
    # "centre," are no match.
    wanted = "There is a place in the city centre, Alimentum, that is not family-friendly."
    said = "Alimentum is located in the city centre. It is not family-friendly."
    assert meteor.score([wanted], said) == pytest.approx(0.616561, abs=1e-6)
    assert meteor.score_tokens(wanted.split(), said.split()) == pytest.approx(0.525351, abs=1e-6)


def test_words_are_matched_from_the_right() -> None:
    assert meteor.align(["the", "ball", "the"], ["the", "cat"]) == [(2, 0)]
    assert meteor.align(["a", "cat"], ["cat", "a", "cat"]) == [(0, 1), (1, 2)]


def test_the_rightmost_synonym_is_taken() -> None:
    synonyms = ["child", "tyke", "youngster", "minor"]
    for k in range(4):
        assert meteor.align(["kid"], synonyms[k:] + synonyms[:k]) == [(0, 3)]


def test_exact_words_then_stems_then_synonyms() -> None:
    # "dogs" would match "dog" by its stem, but the exact word is taken first.
    assert meteor.align(["dogs", "dog"], ["dog", "couch"]) == [(1, 0)]
    assert meteor.align(["dogs", "sofa"], ["couch", "dog"]) == [(0, 1), (1, 0)]


def test_no_words_no_score() -> None:
    assert meteor.score(["a cat"], "") == 0
    assert meteor.score([""], "a cat") == 0


def test_the_best_reference_counts() -> None:
    one, two = meteor.score(["a ball"], "a cat sits"), meteor.score(["the cat sits"], "a cat sits")
    assert meteor.score(["a ball", "the cat sits"], "a cat sits") == max(one, two) == two > one


def test_nltk_3_8_goes_on_cutting_endings() -> None:
    # The stemmer leaves "aidss"; one rule makes it "aids", no verb; 3.8 goes on to "aid".
    assert meteor.score(["help"], "aidsses", "3.8") == 0.5
    assert meteor.score(["help"], "aidsses") == 0


def test_every_variant_has_its_own_name() -> None:
    assert set(meteor.NAMES.values()) == {"meteor_nltk310", "meteor_nltk38", "meteor_1.5"}
