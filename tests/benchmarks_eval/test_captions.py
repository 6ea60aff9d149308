"""Figures of captions: values, intervals, floors that see nothing, retrieval from a caption."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks_eval import caption_metrics, captions, meteor
from benchmarks_eval.captions import CaptionFigure, caption_figures
from benchmarks_eval.data import Item

THINGS = ["ball", "cat", "truck", "book", "chair", "apple", "spoon", "flower", "window", "puzzle",
          "basket", "kitten"]
PLACES = ["on the floor", "by the door", "in the garden"]


def item(number: int, image: str, text: str, cluster: str | None = None) -> Item:
    return Item(str(number), (image,), (text,), 0, cluster or image, number + 2)


@pytest.fixture
def items() -> list[Item]:
    """36 pictures of 12 things in 3 places, one cluster a thing."""
    return [item(n, f"{thing}{k}.png", f"look , there is a {thing} {place} .", thing)
            for n, (thing, k, place) in enumerate(
                (thing, k, place) for thing in THINGS for k, place in enumerate(PLACES))]


def named(figures: Sequence[CaptionFigure]) -> dict[str, CaptionFigure]:
    assert len({figure["name"] for figure in figures}) == len(figures)
    return {figure["name"]: figure for figure in figures}


def oracle(items: Sequence[Item]) -> dict[str, str]:
    return {i.images[0]: i.texts[0] for i in items}


def test_names_say_which_variant(items: list[Item]) -> None:
    assert list(named(caption_figures(items, oracle(items), 0))) == [
        "word_recall", "exact", "meteor_nltk310", "meteor_nltk310_gap", "bleu4", "rouge_l",
        "cider_d"]
    old = named(caption_figures(items, oracle(items), 0, meteor="3.8"))
    assert "meteor_nltk38" in old and "meteor_nltk310" not in old


def test_an_oracle_is_perfect(items: list[Item]) -> None:
    got = named(caption_figures(items, oracle(items), 0))
    for name in ("word_recall", "exact", "bleu4", "rouge_l"):
        assert got[name]["value"] == pytest.approx(1), name
    assert got["cider_d"]["value"] == pytest.approx(10)
    assert got["meteor_nltk310"]["value"] == pytest.approx(1, abs=0.01)
    assert got["meteor_nltk310_gap"]["value"] > 0.1
    for figure in got.values():
        assert figure["low"] - 1e-9 <= figure["value"] <= figure["high"] + 1e-9
        assert (figure["n"], figure["clusters"], len(figure["values"])) == (36, 12, 36)
        assert figure["name"].endswith("_gap") or max(figure["floors"].values()) < figure["low"]


def test_one_caption_for_all_lies_on_its_floor(items: list[Item]) -> None:
    said = dict.fromkeys(oracle(items), "look , there is a ball on the floor .")
    got = named(caption_figures(items, said, 0))
    for name in ("meteor_nltk310", "rouge_l", "cider_d", "word_recall"):
        assert got[name]["floors"]["shuffled"] == pytest.approx(got[name]["value"], rel=0.1), name
    gap = got["meteor_nltk310_gap"]
    assert gap["value"] == gap["low"] == gap["high"] == 0  # no rounding above the floor


def test_captions_of_other_pictures_have_no_gap(items: list[Item]) -> None:
    moved = np.random.default_rng(5).permutation(len(items))
    said = {i.images[0]: items[j].texts[0] for i, j in zip(items, moved, strict=True)}
    got = named(caption_figures(items, said, 0))["meteor_nltk310_gap"]
    assert got["low"] < 0 < got["high"] and abs(got["value"]) < 0.05


def test_constants_are_chosen_on_the_other_half() -> None:
    # Every cluster has its own nonsense word: a constant chosen on the same data would get the
    # share of one cluster, one chosen on the other half gets nothing.
    items = [item(n, f"{n}.png", f"w{n // 4}", f"c{n // 4}") for n in range(40)]
    floors = named(caption_figures(items, oracle(items), 0))["word_recall"]["floors"]
    assert floors == {"shuffled": 0.0, "constant": 0.0, "bag": 0.0}
    shared = [item(n, f"{n}.png", f"ball w{n}", f"c{n // 4}") for n in range(40)]
    floors = named(caption_figures(shared, oracle(shared), 0))["word_recall"]["floors"]
    assert floors["constant"] == floors["bag"] == pytest.approx(0.5)


def test_a_bag_of_frequent_words_can_win_and_is_shown(items: list[Item]) -> None:
    said = dict.fromkeys(oracle(items), "a bear")
    got = named(caption_figures(items, said, 0))["meteor_nltk310"]
    assert got["value"] < got["floors"]["bag"] and got["value"] < got["floors"]["constant"]


def test_nothing_said_is_nothing_scored(items: list[Item]) -> None:
    got = named(caption_figures(items, dict.fromkeys(oracle(items), ""), 0))
    assert {figure["value"] for figure in got.values()} == {0.0}


def test_references_of_one_picture_belong_together() -> None:
    items = [item(0, "a.png", "a cat"), item(1, "a.png", "the kitty sits"),
             item(2, "b.png", "a truck"), item(3, "b.png", "vehicles")]
    said = {"a.png": "the kitty sits", "b.png": "a truck"}
    got = named(caption_figures(items, said, 0))
    assert got["exact"]["values"] == [1, 1, 1, 1]
    assert got["meteor_nltk310"]["values"][0] == meteor.score(
        ["a cat", "the kitty sits"], "the kitty sits")


def test_one_cluster_has_no_floors_but_values() -> None:
    items = [item(n, f"{n}.png", text, "one") for n, text in enumerate(["a cat", "a dog", "a cow"])]
    for figure in caption_figures(items, oracle(items), 0):
        assert figure["floors"] == {} and not figure["name"].endswith("_gap")


def test_a_missing_caption_is_named(items: list[Item]) -> None:
    said = oracle(items)
    del said["cat1.png"]
    with pytest.raises(ValueError, match="no caption for picture 'cat1.png'"):
        caption_figures(items, said, 0)


def test_same_seed_same_figures(items: list[Item]) -> None:
    said = {i.images[0]: f"a {THINGS[n % 5]} on the floor" for n, i in enumerate(items)}
    captions._task.cache_clear()
    first = caption_figures(items, said, 3)
    captions._task.cache_clear()
    assert first == caption_figures(items, said, 3)
    assert first != caption_figures(items, said, 4)


# --- single metrics -------------------------------------------------------------------------


def test_bleu_is_sacrebleus_corpus_score(items: list[Item]) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    said = {i.images[0]: f"there is a {THINGS[n % 5]} on the floor ." for n, i in enumerate(items)}
    got = named(caption_figures(items, said, 0))["bleu4"]
    plain = [" ".join(w for w in said[i.images[0]].split() if w.isalpha()) for i in items]
    wanted = [" ".join(w for w in i.texts[0].split() if w.isalpha()) for i in items]
    reference = sacrebleu.corpus_bleu(plain, [wanted], tokenize="none", force=True)
    assert got["value"] == pytest.approx(reference.score / 100, abs=1e-12)
    assert got["values"][0] == pytest.approx(
        sacrebleu.sentence_bleu(plain[0], [wanted[0]], tokenize="none").score / 100, abs=1e-12)
    # The interval is that of the corpus figure, not of the mean of sentences.
    assert got["low"] < got["value"] < got["high"]
    assert got["value"] != pytest.approx(np.mean(got["values"]), abs=1e-3)


def test_bleu_4_needs_four_words() -> None:
    items = [item(0, "a.png", "a cat"), item(1, "b.png", "a truck")]
    assert "bleu4" not in named(caption_figures(items, oracle(items), 0))


def test_rouge_l_is_the_longest_common_subsequence() -> None:
    metric = caption_metrics.rouge_l()
    pair = (("the cat sat on the mat",), "The cat is on a mat!")  # the, cat, on, mat: 4 of 6
    assert metric.measure([pair])[0, 0] == pytest.approx(4 / 6)
    best = (("nothing alike", "the cat sat on the mat"), "the cat sat on the mat")
    assert metric.measure([best])[0, 0] == 1


def test_punctuation_and_case_do_not_count_but_for_meteor() -> None:
    assert caption_metrics.plain_words("There's a Cat, isn't it? 3.5!") == (
        "there", "'s", "a", "cat", "is", "n't", "it", "3.5")
    items = [item(0, "a.png", "a cat ."), item(1, "b.png", "a truck !")]
    got = named(caption_figures(items, {"a.png": "A cat", "b.png": "a truck"}, 0))
    assert got["rouge_l"]["value"] == 1
    assert got["meteor_nltk310"]["value"] < 0.9


def test_what_is_needed_is_asked_for_first() -> None:
    caption_metrics.require()
    with pytest.raises(ValueError, match=r"none\.jar: no such file; METEOR 1\.5"):
        caption_metrics.require("none.jar")
    program = ("import sys\nsys.modules['sacrebleu'] = None\n"
               "from benchmarks_eval.caption_metrics import require\n"
               "try: require()\nexcept ValueError as error: print(error)\n"
               "assert 'torch' not in sys.modules\n")
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=True, timeout=120).stdout
    assert said == ("caption metrics need the package sacrebleu: "
                    "pip install 'babyvlm-engine[eval]'\n")


def test_meteor_15_stands_beside_nltks(items: list[Item],
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Program:
        def __init__(self, jar: str) -> None:
            assert jar == "some.jar"

        def score(self, wanted: Sequence[Sequence[str]],
                  said: Sequence[str]) -> tuple[np.ndarray, float]:
            assert len(set(zip(map(tuple, wanted), said, strict=True))) == len(said)
            asked.append(len(said))
            return np.array([float(text in texts) for texts, text in
                             zip(wanted, said, strict=True)]), 0.5

    monkeypatch.setattr(caption_metrics, "Meteor15", Program)
    got = named(caption_figures(items, oracle(items), 0, meteor_jar="some.jar"))["meteor_1.5"]
    assert got["value"] == 1 and set(got["floors"]) == {"shuffled", "constant", "bag"}
    assert len(asked) == 4  # one start of the program for each: itself and three floors


# --- retrieval of the picture from its caption ----------------------------------------------


def by_word(text: str, pictures: Sequence[str]) -> list[float]:
    return [float(picture.rstrip("012.png") in text) for picture in pictures]


def test_retrieval(items: list[Item]) -> None:
    got = caption_figures(items, oracle(items), 0, scorer=by_word)[-1]
    assert got["name"] == "retrieval_from_caption"
    assert (got["value"], got["chance"], got["n"], got["ties"]) == (1.0, 0.25, 36, 0)
    said = dict.fromkeys(oracle(items), "what is it")
    lost = caption_figures(items, said, 0, scorer=by_word)[-1]
    assert (lost["value"], lost["ties"]) == (0.25, 36)
    assert lost["high"] < 1 and lost["low"] < 0.25


def test_silence_finds_nothing_and_nan_is_counted(items: list[Item]) -> None:
    said = oracle(items) | {"ball0.png": " ", "cat0.png": "nan"}

    def scorer(text: str, pictures: Sequence[str]) -> list[float]:
        assert text.strip()
        return [float("nan")] * len(pictures) if text == "nan" else by_word(text, pictures)

    got = caption_figures(items, said, 0, scorer=scorer)[-1]
    assert (got["ties"], got["nonfinite"]) == (1, 1)
    assert got["value"] == pytest.approx((34 + 0.25) / 36)


def test_foils_are_of_other_scenes_and_gold_has_no_place(items: list[Item]) -> None:
    trials = captions.retrieval_trials(items, oracle(items), 3, 0)
    golds = [trial.gold for trial in trials]
    assert len(set(golds)) == 4
    for trial in trials:
        scenes = [picture.rstrip("012.png") for picture in trial.images]
        assert len(scenes) == 4 and scenes.count(scenes[trial.gold]) == 1
        assert trial.texts[0] == oracle(items)[trial.images[trial.gold]]
    with pytest.raises(ValueError, match="no picture of another cluster"):
        captions.retrieval_trials(items[:3], oracle(items), 3, 0)
