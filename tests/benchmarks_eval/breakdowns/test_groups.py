"""Figures in parts: groups, their intervals, and the test that they do not differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from support.judged_runs import trial

from benchmarks_eval.breakdowns import (
    WordList,
    by_frequency,
    by_key,
    by_tag,
    by_vocabulary,
    deciding_words,
    read_counts,
    read_words,
    tags_of,
)
from benchmarks_eval.metrics import count_words
from benchmarks_eval.outcomes import Measured, Outcome
from benchmarks_eval.statistics import wilson


def measured(rows: Sequence[dict], unit: str = "share") -> Measured:
    outcomes = tuple(Outcome.from_json(row) for row in rows)
    return Measured("pairs", "phrase", "", "phrase", unit, 0.5, 0.5, 0.5, outcomes)


def asked(right: str, wrong: str = "", credit: float = 1.0, **more) -> Outcome:
    return Outcome.from_json(trial("0", credit, texts=(right, wrong) if wrong else (right,),
                                   images=("a",) if wrong else ("a", "b"), **more))


def test_groups_have_their_own_figures() -> None:
    rows = [trial(str(k), float(k % 4 > 0), tags={"difference": "noun"}) for k in range(40)]
    rows += [trial(f"v{k}", float(k % 2), tags={"difference": "verb"}, tie=k == 0)
             for k in range(20)]
    rows += [trial("none", 1.0)]
    made = by_tag(measured(rows), "difference", seed=0)
    noun, verb = made.groups
    assert (noun.name, noun.n, noun.value) == ("noun", 40, 0.75)
    assert (noun.low, noun.high) == (wilson(0.75, 40).low, wilson(0.75, 40).high)
    assert (verb.value, verb.ties, verb.chance, made.left_out) == (0.5, 1, 0.5, 1)
    assert made.p is not None and 0.01 < made.p < 0.2
    assert tags_of(measured(rows)) == ["difference"]


def test_chance_is_the_groups_own() -> None:
    rows = [trial("0", 1.0, texts=("a", "b"), tags={"k": "2"}),
            trial("1", 1.0, texts=("a", "b", "c", "d"), tags={"k": "4"})]
    assert [g.chance for g in by_tag(measured(rows), "k", seed=0).groups] == [0.5, 0.25]


def test_groups_that_do_not_differ_are_seldom_found_to() -> None:
    rng = np.random.default_rng(0)
    found = 0
    for seed in range(60):
        skill = rng.uniform(0.3, 0.9, size=40)  # toys differ, their classes do not
        rows = [trial(f"{toy}-{k}", float(rng.random() < skill[toy]), cluster=str(toy),
                      tags={"class": "ab"[toy % 2]}) for toy in range(40) for k in range(10)]
        p = by_key(measured(rows), "class", lambda o: o.tags["class"], seed=seed).p
        found += p is not None and p <= 0.05
    assert found <= 8


def test_a_class_that_is_easier_is_found() -> None:
    rng = np.random.default_rng(1)
    rows = [trial(str(k), float(rng.random() < (0.8 if k % 2 else 0.5)), tags={"c": "ab"[k % 2]})
            for k in range(200)]
    p = by_tag(measured(rows), "c", seed=0).p
    assert p is not None and p < 0.01
    mixed = [row | {"cluster": "one"} for row in rows]
    assert by_tag(measured(mixed), "c", seed=0).p is None


def test_nats_are_grouped_too() -> None:
    rows = [trial(str(k), k / 7, tags={"c": "a"}) for k in range(14)]
    (group,) = by_tag(measured(rows, "nats"), "c", seed=0).groups
    assert group.interval == "bootstrap" and group.low < group.value < group.high


@pytest.mark.parametrize(("outcome", "words"), [
    (asked("read book", "eat book"), {"read"}),
    (asked("look at the red ball"), {"red", "ball"}),
    (asked("see person", "touch pillow"), {"see", "person"}),
    (asked("ball ball", "ball"), {"ball"}),
    (Outcome.from_json(trial("0", 1.0, images=("a", "b"), texts=("happy bug", "sad bug"))),
     {"happy", "sad"}),
    (Outcome.from_json(trial("0", 1.0, texts=("car", "cat", "dog"), gold=1)), {"cat"}),
])
def test_deciding_words(outcome: Outcome, words: set[str]) -> None:
    assert deciding_words(outcome) == words


def test_vocabulary_groups() -> None:
    known = WordList.of("red ball blue cup the".split())
    rows = [trial("0", 1.0, texts=("red ball", "blue cup")),
            trial("1", 0.0, texts=("red zebra", "blue cup")),
            trial("2", 0.0, texts=("red ball", "green ball")),
            trial("3", 0.5, texts=("green ball", "grey ball"), tie=True),
            trial("4", 1.0, texts=("The ball.",), images=("a", "b"))]
    made = by_vocabulary(measured(rows), known, seed=0)
    assert {g.name: (g.n, g.ties) for g in made.groups} == {
        "all words known": (2, 0), "unknown word in the right text": (1, 0),
        "unknown word in a wrong text": (1, 0), "candidates read the same": (1, 1)}
    assert made.groups[0].name == "all words known"


def test_vocabulary_files(tmp_path) -> None:
    (tmp_path / "v.json").write_text('{"<pad>": 0, "<unk>": 1, "ball": 2, "\'s": 3}')
    mapped = read_words(tmp_path / "v.json")
    assert mapped.tokens("Ball 's zebra ball!") == [3, 4, 0, 3]
    assert mapped.unknown_words("Ball, zebra") == ["zebra"]
    (tmp_path / "v.txt").write_text("ball\nCup\n\n")
    assert read_words(tmp_path / "v.txt").unknown_words("ball cup hat") == ["hat"]
    (tmp_path / "l.json").write_text('["ball"]')
    assert read_words(tmp_path / "l.json").unknown_words("ball") == []
    for name, content in (("bad.json", "{"), ("odd.json", '{"a": "b"}'), ("none.txt", "\n")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=name):
            read_words(tmp_path / name)
    with pytest.raises(ValueError, match="no such vocabulary file"):
        read_words(tmp_path / "missing.txt")


def test_frequency_groups(tmp_path) -> None:
    counts = count_words(["the red ball"] * 12 + ["a cup"] * 3)
    rows = [trial("0", 1.0, texts=("red ball", "blue ball")),
            trial("1", 1.0, texts=("red cup", "red ball")),
            trial("2", 0.0, texts=("red zebra", "red ball")),
            trial("3", 0.0, texts=("the ?", "the !")),
            trial("4", 0.0, texts=("red cup",), images=("a", "b"))]  # the rarer word counts
    made = by_frequency(measured(rows), counts, seed=0)
    assert [(g.name, g.n) for g in made.groups] == [
        ("never heard", 1), ("1 to 9 times", 2), ("10 to 99 times", 2)]
    (tmp_path / "c.csv").write_text("word,count\nball,1200\nCup,3\nball,2\n")
    assert read_counts(tmp_path / "c.csv") == {"ball": 1202, "cup": 3}
    (tmp_path / "c.csv").write_text("ball,many\n")
    with pytest.raises(ValueError, match=r"c\.csv, line 1: needs a word and a whole number"):
        read_counts(tmp_path / "c.csv")
    with pytest.raises(ValueError, match="no such corpus folder"):
        read_counts(tmp_path / "none")
