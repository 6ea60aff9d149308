"""Nouns, utterances and splits, on everything that is installed (nothing is drawn)."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataprep.picturebook.book import collect
from dataprep.picturebook.drawings import Drawing, Rendered
from dataprep.picturebook.splits import (
    closed_groups,
    content_words,
    own_words,
    split,
    words_out_of_place,
)
from dataprep.picturebook.stamp_nouns import STAMP_NOUNS
from dataprep.picturebook.tuxpaint import collect_stamps
from dataprep.picturebook.utterances import PLAIN, fill, phrase, utterances
from dataprep.picturebook.words import FAMILIES, NOUNS


@pytest.fixture(scope="module")
def drawings() -> list[Drawing]:
    return collect()


def said(drawing: Drawing, seed: int = 0, colour: str | None = "red") -> list[str]:
    blank = np.zeros((1, 1, 3), np.uint8)
    return [s.text for s in utterances(Rendered(drawing, blank, blank[..., 0], colour, ""), seed)]


def test_sources_are_complete(drawings: list[Drawing]) -> None:
    vendors = Counter(d.vendor for d in drawings)
    assert vendors["openmoji"] == vendors["twemoji"] == 835
    assert vendors["tuxpaint"] == 677
    assert len({d.key for d in drawings}) == len(drawings)
    keys = " ".join(d.key for d in drawings)
    assert not re.search(r"symbols/|military/|_mirror|grave|1f52b|1f4a3", keys)
    # PNG and SVG of one stamp are one drawing
    assert sum(len(d.files) == 2 for d in drawings) > 60


def test_tables_name_what_exists(drawings: list[Drawing]) -> None:
    concepts = {d.concept for d in drawings}
    assert set(NOUNS) <= concepts
    assert {f"tuxpaint/{name}" for name in STAMP_NOUNS} <= concepts
    assert not set(FAMILIES.values()) & set(FAMILIES), "families do not nest"


def test_nouns_are_what_a_caregiver_says(drawings: list[Drawing]) -> None:
    by_key = {d.key: d for d in drawings}
    assert by_key["twemoji/1f357"].noun == "meat"
    assert by_key["openmoji/1f429"].group == by_key["twemoji/1f436"].group == "dog"
    assert by_key["tuxpaint/food/cheese"].noun == "cheese"
    assert by_key["tuxpaint/animals/insects/cartoon/spider_fly"].noun == "spider"
    assert by_key["tuxpaint/seasonal/easter/bunny-head"].group == "rabbit"
    assert by_key["tuxpaint/animals/mammals/bovines/zebu"].group == "zebu"
    for d in drawings:
        assert re.fullmatch(r"[a-z]+(?:[ '-][a-z]+){0,2}", d.noun), d
    pairs = [d for d in drawings if d.vendor != "tuxpaint"]
    for one, other in zip(pairs[::2], pairs[1::2], strict=True):
        assert (one.concept, one.noun, one.group) == (other.concept, other.noun, other.group)


@pytest.mark.parametrize(
    ("noun", "colour", "expected"),
    [
        ("dog", None, "a dog"), ("apple", None, "an apple"), ("apple", "red", "a red apple"),
        ("car", "orange", "an orange car"), ("grapes", None, "some grapes"),
        ("milk", "white", "some white milk"), ("moon", None, "the moon"),
        ("hourglass", None, "an hourglass"), ("ufo", None, "a ufo"),
        ("umbrella", None, "an umbrella"),
    ],
)
def test_articles(noun: str, colour: str | None, expected: str) -> None:
    assert phrase(noun, colour) == expected


def test_plural_frames() -> None:
    assert fill("where is {the}?", "grapes") == "where are the grapes?"
    assert fill("where is {the}?", "milk") == "where is the milk?"
    assert fill("{the} is {colour}", "socks", "red") == "the socks are red"


def test_utterances(drawings: list[Drawing]) -> None:
    emoji = [d for d in drawings if d.vendor != "tuxpaint"]
    coloured = total = 0
    for d in emoji:
        texts = said(d)
        assert texts[0] == fill(PLAIN, d.noun) and 4 <= len(texts) <= 6
        assert len(set(texts)) == len(texts) and all(d.noun in t for t in texts)
        coloured += sum("red" in t.replace(d.noun, "").split() for t in texts)
        total += len(texts)
    assert 0.15 < coloured / total < 0.4, "colour words are in a minority of utterances"
    assert said(emoji[0], colour=None) != said(emoji[0], seed=1, colour=None)
    assert "a orange orange" not in said(replace(emoji[0], noun="orange"), colour="orange")
    stamp = next(d for d in drawings if d.key == "tuxpaint/food/bread")
    assert said(stamp) == ["Eat your bread!"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_split_holds_out_words_and_views(drawings: list[Drawing], seed: int) -> None:
    split_of = split(drawings, seed)
    by_split: dict[str, list[Drawing]] = {}
    for d in drawings:
        by_split.setdefault(split_of[d.key], []).append(d)
    train, views, vals = by_split["train"], by_split["test-view"], by_split["val"]
    new = by_split["test-concept"]
    emoji_groups = {d.group for d in drawings if d.vendor != "tuxpaint"}
    assert len({d.group for d in new}) == round(0.1 * len(emoji_groups))
    assert len(views) == round(0.1 * 835) and len(vals) == round(0.05 * 835)
    # groups of test-concept are nowhere else, with every vendor's drawings
    assert not {d.group for d in new} & {d.group for d in [*train, *views, *vals]}
    assert {d.vendor for d in new} == {"openmoji", "twemoji", "tuxpaint"}
    # a held-out view: this drawing never in train, the same concept and noun by another hand
    known = {(d.concept, d.noun) for d in train if d.vendor == "openmoji"}
    for d in [*views, *vals]:
        assert d.vendor == "twemoji" and (d.concept, d.noun) in known
    assert len({d.group for d in [*views, *vals]}) == len(views) + len(vals)
    # what is said about new concepts is said nowhere else
    pairs = [(d, t) for d in drawings for t in said(d)]
    assert words_out_of_place(pairs, split_of) == []
    words = set().union(*own_words(new).values())
    heard = set().union(*(content_words(t) for d, t in pairs if split_of[d.key] != "test-concept"))
    assert words and not words & heard
    assert split(list(reversed(drawings)), seed) == split_of, "the order of drawings is irrelevant"


def test_misplaced_words_are_found(drawings: list[Drawing]) -> None:
    split_of = split(drawings, 0)
    new = next(d for d in drawings if split_of[d.key] == "test-concept" and " " not in d.noun)
    old = next(d for d in drawings if split_of[d.key] == "train")
    pairs = [(new, phrase(new.noun)), (old, f"look, two {new.noun}s!")]
    found = words_out_of_place(pairs, split_of)
    assert len(found) == 1 and found[0][1].startswith("look, two")


def test_groups_that_share_a_word_are_not_closed() -> None:
    def drawing(key: str, noun: str, caption: str = "", vendor: str = "twemoji") -> Drawing:
        return Drawing(key, vendor, key, noun, noun, (), caption)

    drawings = [
        drawing("1", "hot dog"), drawing("2", "dog"), drawing("3", "kite"), drawing("4", "orange"),
        drawing("5", "flag"), drawing("6", "tower", "A tower with a flag.", "tuxpaint"),
    ]
    # "orange" is also a colour, the tower is drawn by no emoji vendor, "flag" is said of the tower
    assert closed_groups(drawings) == ["kite"]


def test_missing_stamps_name_the_package(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="apt-get install .* tuxpaint-stamps-default"):
        collect_stamps([], tmp_path / "stamps")
