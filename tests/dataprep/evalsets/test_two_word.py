"""Two-word trials: what is proposed, what is refused and why, what is written."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataprep.evalsets.asking import Ask
from dataprep.evalsets.build import build_two_word
from dataprep.evalsets.evalset import read_evalset
from dataprep.evalsets.standin import propose
from dataprep.evalsets.templates import TEMPLATES
from dataprep.evalsets.two_word import kind_of, refusal
from dataprep.evalsets.words import (
    Synonyms,
    plain,
    read_synonyms,
    read_vocabulary,
    vocabulary_of,
)
from dataprep.llm import Reply, Request
from engine import Corpus

SYNONYMS = read_synonyms()
KNOWN = vocabulary_of(["red blue big small dog cat ball car throw kick couch sofa animal see"] * 3)
ANY: dict[str, Any] = {"model": "rules", "vocabulary": None, "synonyms": SYNONYMS}


def pair(positive: str, negative: str, first: str = "same", second: str = "noun") -> dict[str, str]:
    return {"positive": positive, "negative": negative, "first": first, "second": second}


@pytest.mark.parametrize(
    ("proposed", "reason"),
    [
        (pair("red dog", "red cat"), ""),
        (pair("Red dog", "red cat "), ""),
        (pair("red dog", "blue dog", "adjective", "same"), ""),
        (pair("throw ball", "kick car", "verb", "noun"), ""),
        (pair("red dog", "red"), "two words: 'red' is not two plain words"),
        (pair("red dog", "red cat 2"), "two words"),
        (pair("red dog", "red dog"), "same: both phrases are the same"),
        (pair("red dog", "blue dog"), "label: 'red' to 'blue' is labelled 'same'"),
        (pair("red dog", "red cat", "same", "same"), "label: 'dog' to 'cat' is labelled 'same'"),
        (pair("dog cat", "cat dog", "noun", "noun"), "order"),
        (pair("red dog", "red zebra"), "vocabulary: unknown zebra"),
        (pair("see couch", "see sofa"), "synonym: couch/sofa"),
        (pair("see dog", "see dogs"), "vocabulary"),
        (pair("see dog", "see animal"), "synonym: dog/animal"),
        (pair("big dog", "small sofa", "adjective", "noun"), "said: the sentence says sofa"),
        (pair("red dog", "red sofa"), "said: the sentence says sofa"),
    ],
)
def test_refusals(proposed: dict[str, str], reason: str) -> None:
    found = refusal(proposed, "the red dog is on the sofa", KNOWN, SYNONYMS)
    assert found.startswith(reason) and bool(found) == bool(reason)


def test_words_that_mean_the_same() -> None:
    for one, other in (("couch", "sofa"), ("big", "large"), ("dogs", "dog"), ("sitting", "sits"),
                       ("puppy", "dog"), ("cat", "animal"), ("bunnies", "rabbit")):
        assert SYNONYMS.alike(one, other) and SYNONYMS.alike(other, one), (one, other)
    for one, other in (("dog", "cat"), ("red", "blue"), ("throw", "kick"), ("cup", "ball")):
        assert not SYNONYMS.alike(one, other), (one, other)
    words = {"glass": "glass", "bus": "bus", "this": "this", "kisses": "kiss", "boxes": "box",
             "jumping": "jump", "running": "run"}
    assert {word: plain(word) for word in words} == words


def test_more_synonyms_and_vocabularies_from_files(tmp_path: Path) -> None:
    file = tmp_path / "more.txt"
    file.write_text("zebra stripy-horse # both\nkind: fruit kiwi\n")
    more: Synonyms = read_synonyms(file)
    assert more.alike("kiwi", "fruit") and not SYNONYMS.alike("kiwi", "fruit")
    assert more.hash != SYNONYMS.hash
    file.write_text("alone\n")
    with pytest.raises(ValueError, match=r"more.txt, line 1: 'alone' has one word"):
        read_synonyms(file)
    (tmp_path / "vocab.json").write_text('{"<pad>": 0, "dog": 4, "\'s": 5, "Cat": 6}')
    assert read_vocabulary(tmp_path / "vocab.json") == {"dog", "cat"}
    (tmp_path / "words.txt").write_text("dog\ncat\n")
    assert read_vocabulary(tmp_path / "words.txt") == {"dog", "cat"}
    (tmp_path / "vocab.json").write_text("{")
    for name, message in (("vocab.json", "not JSON"), ("none.txt", "no such vocabulary")):
        with pytest.raises(ValueError, match=message):
            read_vocabulary(tmp_path / name)


def test_kinds() -> None:
    assert kind_of("same", "noun") == "noun" and kind_of("verb", "noun") == "noun+verb"
    assert kind_of("noun", "noun") == "noun" and kind_of("adjective", "same") == "adjective"


def test_templates_ask_for_strict_objects() -> None:
    def objects(schema: dict[str, Any]) -> list[dict[str, Any]]:
        inner = [*schema.get("properties", {}).values(), *filter(None, [schema.get("items")])]
        own = [schema] if schema.get("type") == "object" else []
        return own + [found for one in inner for found in objects(one)]

    for template in TEMPLATES.values():
        for one in objects(template.schema):
            assert one["required"] == list(one["properties"]) and not one["additionalProperties"]
        text = json.dumps(template.messages(utterance="U", positive="P", negative="N"))
        assert not any("{" + field + "}" in text for field in ("utterance", "positive", "negative"))
    assert len({template.hash for template in TEMPLATES.values()}) == len(TEMPLATES)


def test_a_set_from_a_corpus(tmp_path: Path, corpus: Corpus, ask: Ask) -> None:
    out = tmp_path / "set"
    vocabulary = vocabulary_of(corpus.pairs("train").utterance)
    how: dict[str, Any] = {**ANY, "vocabulary": vocabulary, "per_picture": 2, "seed": 2}
    done = build_two_word(corpus, "test", out, ask, **how)
    evalset = read_evalset(out)
    with (out / "two_word.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "positive_phrase", "negative_phrase"]
    assert len(rows) == done.counts["trials"] > 5
    kept = [r for r in evalset.kept() if not r.pruned]
    assert len(kept) == len(rows)
    for row, record in zip(rows, kept, strict=True):
        assert (out / row["image"]).is_file() and record.images["image"] == row["image"]
        said = record.facts["utterance"]
        assert row["positive_phrase"].split()[1] in said
        made = record.provenance
        assert made["request_key"] and made["template"] == "two-word-1" and made["llm_seed"] == 2
        assert made["code_version"] and made["source"] == "drawn" and made["image_sha256"]
        assert record.facts["kind"] in ("noun", "adjective")
    dropped = [record for record in evalset.records if record.dropped]
    assert dropped and all(not record.images for record in dropped)
    assert evalset.info["counts"]["dropped"]["vocabulary"] == len(dropped)
    assert evalset.info["facts"]["phrase_only"]["after"]["words"] <= 0.8
    tasks = yaml.safe_load((out / "tasks.yaml").read_text())
    assert tasks["tasks"] == [
        {"name": "set", "kind": "two_word", "file": "two_word.csv", "image_root": "."}
    ]
    # the same again, byte for byte, and no new request
    asked: list[int] = []

    def counted(requests: Sequence[Request]) -> Any:
        replies = ask(requests)
        asked.append(len(requests))
        return replies

    build_two_word(corpus, "test", tmp_path / "again" / "set", counted, **how)
    for name in ("records.jsonl", "two_word.csv", "two_word_details.csv"):
        assert (tmp_path / "again" / "set" / name).read_bytes() == (out / name).read_bytes()
    assert asked == [len({r.provenance["request_key"] for r in evalset.records})]


def test_pictures_stay_where_they_are(tmp_path: Path, restricted: Corpus, ask: Ask) -> None:
    out = tmp_path / "set"
    with pytest.raises(ValueError, match="said is restricted, and its content would be sent"):
        build_two_word(restricted, "test", out, ask, **ANY)
    frames = tmp_path / "frames"
    frames.mkdir()
    with pytest.raises(ValueError, match=r"no picture 'test_\d\d.jpg' \(key of image \d+"):
        build_two_word(restricted, "test", out, ask, **ANY, allow_restricted=True,
                       pictures_from=frames)
    reader = restricted.images("test")
    for row in range(len(reader)):
        (frames / f"test_{row:02d}.jpg").write_bytes(reader.stored(row).tobytes())
    build_two_word(restricted, "test", out, ask, **ANY, allow_restricted=True, pictures_from=frames)
    assert not (out / "images").exists()
    with (out / "two_word.csv").open(newline="") as file:
        image = next(csv.DictReader(file))["image"]
    assert image.startswith("test_")  # the owner's name, as in the official table
    tasks = yaml.safe_load((out / "tasks.yaml").read_text())
    assert (out / tasks["tasks"][0]["image_root"] / image).is_file() and not tasks["show_pictures"]
    # words of restricted sources are not written, only their hashes
    text = (out / "records.jsonl").read_text()
    assert "look , the" not in text and "utterance_sha256" in text


def test_margins_decide_where_a_scorer_is_given(
    tmp_path: Path, corpus: Corpus, ask: Ask, scorer: Any
) -> None:
    build_two_word(corpus, "test", tmp_path / "set", ask, **ANY, scorer=scorer, min_margin=0.1,
                   prune=False)
    records = read_evalset(tmp_path / "set").records
    margins = {bool(r.dropped): r.facts["margin"] for r in records if "margin" in r.facts}
    assert set(margins) == {True, False}
    for record in records:
        if "margin" in record.facts:
            assert record.dropped.startswith("margin") == (record.facts["margin"] < 0.1)


def test_an_unanswered_request_stops_the_build(tmp_path: Path, corpus: Corpus) -> None:
    def down(requests: Sequence[Request]) -> dict[str, Reply]:
        return {r.key: Reply(r.key, None, "transport", "connection refused") for r in requests}

    with pytest.raises(OSError, match=r"requests are unanswered \(connection refused\)"):
        build_two_word(corpus, "test", tmp_path / "set", down, **ANY)
    assert not (tmp_path / "set" / "evalset.json").exists()

    def refuses(requests: Sequence[Request]) -> dict[str, Reply]:
        return {r.key: Reply(r.key, None, "refusal", "no") for r in requests}

    done = build_two_word(corpus, "test", tmp_path / "set", refuses, **ANY)
    assert done.counts["trials"] == 0
    assert read_evalset(tmp_path / "set").info["made_by"]["failed_requests"]["refusal"] > 0


def test_the_rules_propose_what_the_filters_accept() -> None:
    for sentence in ("look , the red dog !", "can you throw the ball ?", "eat apple", "a cat"):
        for proposed in propose(sentence):
            assert not refusal(proposed, sentence, None, SYNONYMS), (sentence, proposed)
    assert propose("oh yes !") == []
