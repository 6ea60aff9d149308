"""The review page, and decisions taken over from its CSV."""

from __future__ import annotations

import csv
import datetime
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dataprep.evalsets.asking import Ask
from dataprep.evalsets.build import build_captions, build_two_word
from dataprep.evalsets.evalset import read_evalset
from dataprep.evalsets.review import apply_review, write_page
from dataprep.evalsets.words import read_synonyms
from engine import Corpus

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
HEADER = ["set", "id", "decision", "reviewer", "time", "note", "positive_phrase", "negative_phrase"]


@pytest.fixture
def two_word(tmp_path: Path, corpus: Corpus, ask: Ask) -> Path:
    build_two_word(corpus, "test", tmp_path / "set", ask, model="rules", vocabulary=None,
                   synonyms=read_synonyms(), prune=False)
    return tmp_path / "set"


def decisions(folder: Path, rows: list[list[str]], name: str = "d.csv") -> Path:
    path = folder.parent / name
    digest = read_evalset(folder).info["digest"]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *([digest, *row] for row in rows)])
    return path


class Page(HTMLParser):
    """Checks that tags close, and collects what the page would load."""

    VOID = ("meta", "input", "link", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data


def test_the_page_holds_every_candidate_and_loads_nothing(two_word: Path) -> None:
    page = Page(write_page(two_word).read_text())
    assert page.open == [] and page.loads == []
    data = json.loads(page.scripts[0])
    evalset = read_evalset(two_word)
    assert [item["id"] for item in data["items"]] == [r.id for r in evalset.candidates()]
    assert data["editable"] == ["positive_phrase", "negative_phrase"]
    for item in data["items"]:
        assert (two_word / item["images"][0]["path"]).is_file()
    text = (two_word / "review.html").read_text()
    assert "base64" not in text and not re.search(r"https?://", text)


def test_text_cannot_break_out_of_the_page(tmp_path: Path, two_word: Path) -> None:
    records = (two_word / "records.jsonl").read_text()
    (two_word / "records.jsonl").write_text(records.replace("look ,", "</script><b>"))
    page = Page(write_page(two_word).read_text())
    assert page.open == [] and len(page.scripts) == 2
    items = json.loads(page.scripts[0])["items"]
    assert any("</script><b>" in item["facts"]["utterance"] for item in items)


def test_decisions_are_applied_and_recorded(two_word: Path) -> None:
    first, second, third, *rest = read_evalset(two_word).candidates()
    old = dict(second.fields)
    done = apply_review(
        two_word,
        decisions(two_word, [
            [first.id, "accept", "ada", "2026-01-01T00:00:00Z", "fine", *first.fields.values()],
            [second.id, "edit", "ada", "", "", "tiny boat", "tiny plane"],
            [third.id, "reject", "", "", "both fit", *third.fields.values()],
            [rest[0].id, "", "", "", "", *rest[0].fields.values()],
        ]),
        reviewer="grace", now=NOW,
    )
    assert done.counts["trials"] == 2  # what nobody looked at is left out
    with (two_word / "two_word.csv").open(newline="") as file:
        rows = [(row["positive_phrase"], row["negative_phrase"]) for row in csv.DictReader(file)]
    assert rows == [tuple(first.fields.values()), ("tiny boat", "tiny plane")]
    evalset = read_evalset(two_word)
    (review,) = evalset.info["reviews"]
    assert review["decisions"] == {"accept": 1, "reject": 1, "edit": 1}
    assert review["reviewers"] == ["ada", "grace"] and review["undecided"] == len(rest)
    assert review["applied"] == "2026-01-02T03:04:05+00:00" and len(review["file_sha256"]) == 64
    edited = next(r for r in evalset.records if r.id == second.id)
    assert edited.review is not None and json.loads(edited.review["before"]) == old
    assert edited.facts["kind"] in ("edited", second.facts["kind"])
    assert evalset.info["counts"]["reviewed"] == {"accept": 1, "edit": 1, "reject": 1}
    # a second review adds to the first
    more = decisions(two_word, [[rest[1].id, "accept", "ada", "", "", *rest[1].fields.values()]])
    assert apply_review(two_word, more, now=NOW).counts["trials"] == 3
    assert len(read_evalset(two_word).info["reviews"]) == 2


def test_unreviewed_may_be_kept(two_word: Path) -> None:
    candidates = read_evalset(two_word).candidates()
    file = decisions(two_word, [
        [candidates[0].id, "reject", "ada", "", "", *candidates[0].fields.values()]
    ])
    done = apply_review(two_word, file, unreviewed="keep", now=NOW)
    assert done.counts["trials"] == len(candidates) - 1


def test_bad_decisions_change_nothing(two_word: Path) -> None:
    first, second = read_evalset(two_word).candidates()[:2]
    good = [first.id, "accept", "ada", "", "", *first.fields.values()]
    before = {p: p.read_bytes() for p in two_word.rglob("*") if p.is_file()}
    bad: list[tuple[list[list[str]], str]] = [
        ([good, ["nobody", "accept", "ada", "", "", "", ""]], "line 3: no candidate 'nobody'"),
        ([good, [second.id, "maybe", "ada", "", "", "", ""]], "decision 'maybe'; accepted: accept"),
        ([good, good], "was decided on line 2 already"),
        ([[first.id, "accept", "", "", "", "", ""]], "nobody is named as the reviewer"),
        ([[first.id, "edit", "ada", "", "", "one", "two words"]], "'one' is not two plain"),
        ([[first.id, "edit", "ada", "", "", "a b", "a b"]], "both phrases are the same"),
        ([], "holds no decision"),
    ]
    for rows, message in bad:
        with pytest.raises(ValueError, match=re.escape(message)):
            apply_review(two_word, decisions(two_word, rows), now=NOW)
    other = decisions(two_word, [good])
    other.write_text(other.read_text().replace(read_evalset(two_word).info["digest"], "f" * 64))
    with pytest.raises(ValueError, match="line 2: a decision on another set"):
        apply_review(two_word, other)
    other.write_text("id,decision\n")
    with pytest.raises(ValueError, match="line 1: no column 'set'; found id, decision"):
        apply_review(two_word, other)
    with pytest.raises(ValueError, match="no finished evaluation set"):
        apply_review(two_word.parent, other)
    assert {p: p.read_bytes() for p in two_word.rglob("*") if p.is_file()} == before


def test_captions_can_be_edited(tmp_path: Path, corpus: Corpus) -> None:
    build_captions(corpus, "test", tmp_path / "set", count=5)
    evalset = read_evalset(tmp_path / "set")
    record = evalset.candidates()[0]
    path = tmp_path / "d.csv"
    for text, message in ((" ", "the caption is empty"), ("a better caption", "")):
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([
                [*HEADER[:6], "text"],
                [evalset.info["digest"], record.id, "edit", "ada", "", "", text],
            ])
        if message:
            with pytest.raises(ValueError, match=message):
                apply_review(tmp_path / "set", path)
        else:
            assert apply_review(tmp_path / "set", path).counts["captions"] == 1


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to read the script")
def test_the_script_is_valid(two_word: Path, tmp_path: Path) -> None:
    import subprocess

    page: Any = Page(write_page(two_word).read_text())
    file = tmp_path / "page.js"
    file.write_text(page.scripts[1])
    run = subprocess.run(["node", "--check", str(file)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
