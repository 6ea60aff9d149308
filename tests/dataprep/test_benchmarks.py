"""The evaluation sets: official layouts, and no way to score without both picture and words."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataprep.benchmarks.contrasts import contrasts
from dataprep.benchmarks.items import Contrast, HeldOut
from dataprep.benchmarks.labeled import labeled_trials
from dataprep.benchmarks.two_word import two_word_rows
from dataprep.benchmarks.write import FILES, write_benchmarks

COLOURS = ("red", "green", "blue", "black")


def make_items(count: int = 30) -> list[HeldOut]:
    # the last five are second drawings of earlier groups; every seventh has no colour
    return [
        HeldOut(
            image=f"images/{i}.png",
            noun=f"thing{chr(97 + i % 25)}",
            group=f"group{i % 25}",
            colour=None if i % 7 == 0 else COLOURS[i % len(COLOURS)],
            caption=f"a thing{chr(97 + i % 25)}",
        )
        for i in range(count)
    ]


def recolour(item: HeldOut) -> list[HeldOut]:
    if item.colour == "black":
        return []
    others = [c for c in ("red", "green", "blue") if c != item.colour]
    return [replace(item, colour=c, image=item.image.replace(".png", f"_{c}.png")) for c in others]


def right_and_wrong(rows: list[tuple[str, str, str]]) -> tuple[Counter[str], Counter[str]]:
    return Counter(right for _, right, _ in rows), Counter(wrong for _, _, wrong in rows)


def naive_bayes_accuracy(
    rows: list[tuple[str, str, str]], *, folds_by: str, folds: int = 5
) -> float:
    """How often a naive Bayes on (place, word) tells which of two phrases is the right one."""
    texts = [t for _, right, wrong in rows for t in (right, wrong)]
    label = np.tile([1, 0], len(rows))
    features = sorted({f for t in texts for f in enumerate(t.split())})
    vocabulary = {f: i for i, f in enumerate(features)}
    x = np.zeros((len(texts), len(vocabulary)))
    for i, t in enumerate(texts):
        x[i, [vocabulary[f] for f in enumerate(t.split())]] = 1
    if folds_by == "phrase":
        number = {t: k for k, t in enumerate(dict.fromkeys(texts))}
        unit = np.array([number[t] for t in texts])
    else:
        unit = np.random.default_rng(0).permutation(len(rows)).repeat(2)
    score = np.zeros(len(texts))
    for fold in range(folds):
        test, train = unit % folds == fold, unit % folds != fold
        log_odds = [np.log((x[train & (label == k)].sum(0) + 1) / (train & (label == k)).sum())
                    for k in (1, 0)]
        score[test] = x[test] @ (log_odds[0] - log_odds[1])
    first, second = score[::2].round(9), score[1::2].round(9)
    return float(np.mean((first > second) + 0.5 * (first == second)))


def test_two_word_phrases_are_right_as_often_as_wrong() -> None:
    pairs = contrasts(make_items(), recolour, seed=0)
    rows = two_word_rows(pairs)
    right, wrong = right_and_wrong(rows)
    assert right == wrong and len(right) > 30
    assert all(len(phrase.split()) == 2 for phrase in right)
    # no fixed preference between phrases beats chance
    rng = np.random.default_rng(0)
    taste = {phrase: rng.random() for phrase in sorted(right)}
    assert np.mean([taste[a] > taste[b] for _, a, b in rows]) == 0.5
    assert len(set(rows)) == len(rows)


def test_contrasts_differ_where_they_say() -> None:
    pairs = contrasts(make_items(), recolour, seed=0)
    assert {p.kind for p in pairs} == {"noun", "colour", "both"}
    for pair in pairs:
        (colour, noun), (other_colour, other_noun) = (p.split() for p in pair.phrases)
        assert (colour != other_colour) == (pair.kind != "noun")
        assert (noun != other_noun) == (pair.kind != "colour")
        assert pair.images[0] != pair.images[1]
    # the same pictures from the same seed, others from another
    assert contrasts(make_items(), recolour, seed=0) == pairs
    assert contrasts(make_items(), recolour, seed=1) != pairs


def test_phrase_classifier_is_at_chance_with_folds_by_phrase() -> None:
    rows = two_word_rows(contrasts(make_items(), recolour, seed=0))
    assert naive_bayes_accuracy(rows, folds_by="phrase") == pytest.approx(0.5, abs=0.03)
    # with folds by row it learns the opposite of the truth, which is why nobody should do that
    assert naive_bayes_accuracy(rows, folds_by="row") < 0.45


def test_phrase_classifier_finds_a_bias_that_is_there() -> None:
    # the published kind of set: right phrases are typical, wrong ones made up
    rng = np.random.default_rng(0)
    rows = [(f"{i}", f"{rng.choice(['red', 'big'])} n{i}", f"{rng.choice(['odd', 'big'])} m{i}")
            for i in range(60)]
    assert naive_bayes_accuracy(rows, folds_by="phrase") > 0.7


def test_labelled_trials_favour_no_picture() -> None:
    items = make_items()
    trials = labeled_trials(items, draws=10, seed=0)
    targets = Counter(t.target.image for t in trials)
    foils = Counter(f.image for t in trials for f in t.foils)
    assert set(targets) == {i.image for i in items} and min(targets.values()) >= 10
    assert all(foils[image] == 3 * targets[image] for image in targets)
    for trial in trials:
        assert len({trial.target.group, *(f.group for f in trial.foils)}) == 4
    rng = np.random.default_rng(1)
    liking = {item.image: rng.random() for item in items}
    hits = [liking[t.target.image] > max(liking[f.image] for f in t.foils) for t in trials]
    assert np.mean(hits) == 0.25


def test_labelled_trials_need_four_groups() -> None:
    with pytest.raises(ValueError, match="4 groups; found 3"):
        labeled_trials(make_items(3), draws=1, seed=0)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_files_have_the_official_layouts(tmp_path: Path) -> None:
    items = make_items()
    written = write_benchmarks(items, recolour, lambda name: tmp_path / name, seed=0, draws=10)
    labeled, two_word, winoground, caption = (read(tmp_path / name) for name in FILES)
    assert list(labeled[0]) == ["trial_id", "target_category", "real_category", "image"]
    assert len(labeled) == 4 * written.counts["labeled.csv"]
    for start in range(0, len(labeled), 4):
        trial = labeled[start : start + 4]
        assert {row["trial_id"] for row in trial} == {str(start // 4)}
        same = [row["real_category"] == row["target_category"] for row in trial]
        assert same == [True, False, False, False]
    assert list(two_word[0]) == ["image", "positive_phrase", "negative_phrase"]
    assert len(two_word) == written.counts["two_word.csv"] == 2 * len(written.contrasts)
    assert list(winoground[0]) == [
        "instance_id", "positive_phrase", "negative_phrase", "image", "image_tag",
    ]
    said = {(c.images[i], c.phrases[i]) for c in written.contrasts for i in (0, 1)}
    for positive, negative in zip(winoground[::2], winoground[1::2], strict=True):
        assert (positive["image_tag"], negative["image_tag"]) == ("positive", "negative")
        assert positive["instance_id"] == negative["instance_id"]
        assert positive["positive_phrase"] == negative["positive_phrase"]
        assert (positive["image"], positive["positive_phrase"]) in said
        assert (negative["image"], negative["negative_phrase"]) in said
    assert list(caption[0]) == ["image", "text"]
    assert [row["image"] for row in caption] == [item.image for item in items]
    named = {row["image"] for rows in (labeled, two_word, winoground, caption) for row in rows}
    assert named == set(written.images)


def test_recoloured_pictures_are_positive_half_of_the_time(tmp_path: Path) -> None:
    write_benchmarks(make_items(), recolour, lambda name: tmp_path / name, seed=0, draws=1)
    tags = Counter(
        row["image_tag"] for row in read(tmp_path / "winoground.csv") if "_" in row["image"]
    )
    assert tags["positive"] == pytest.approx(tags["negative"], abs=3)


def test_words_that_are_not_phrases_are_passed_over() -> None:
    item = make_items()[1]
    assert replace(item, noun="ice cream").phrase is None
    assert replace(item, noun="orange", colour="orange").phrase is None
    assert replace(item, colour=None).phrase is None
    assert Contrast("noun", ("a", "b"), ("red a", "red b")) not in contrasts([item], recolour, 0)
