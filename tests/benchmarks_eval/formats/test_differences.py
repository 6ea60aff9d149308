"""The word that phrases differ in, its part of speech, and the table behind it."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks_eval.formats.differences import class_weights, common_class, difference_tags

SCRIPT = Path(__file__).parents[3] / "scripts" / "build_word_classes.py"


@pytest.mark.parametrize(("one", "other", "kind"), [
    ("red", "blue", "adjective"), ("sunny", "rainy", "adjective"), ("dog", "cat", "noun"),
    ("throws", "kicking", "verb"), ("ate", "drank", "verb"), ("kitties", "children", "noun"),
    ("bigger", "smaller", "adjective"), ("inside", "outside", "adverb"), ("Cup", "ball", "noun"),
    ("open", "close", "verb"), ("bed", "floor", "noun"), ("xqzt", "dog", "unknown"),
])
def test_the_class_is_the_one_both_words_can_have(one: str, other: str, kind: str) -> None:
    assert common_class(one, other) == common_class(other, one) == kind


def test_a_short_word_is_no_form_of_a_shorter_one() -> None:
    assert class_weights("bed")["n"] > 10 * class_weights("bed").get("v", 0)  # no "be" + "ed"


@pytest.mark.parametrize(("phrases", "tags"), [
    (("red cup", "blue cup"),
     {"difference": "adjective", "classes": "adjective", "shared_word": "second"}),
    (("eat apple", "eat banana"),
     {"difference": "noun", "classes": "noun", "shared_word": "first"}),
    (("see person", "touch pillow"),
     {"difference": "both", "classes": "noun+verb", "shared_word": "none"}),
    (("dog cat", "cat dog"), {"difference": "order", "classes": "noun", "shared_word": "none"}),
    (("a dog", "dog"), {"difference": "length"}),
])
def test_tags_of_phrase_pairs(phrases: tuple[str, str], tags: dict[str, str]) -> None:
    assert dict(difference_tags(*phrases)) == tags


def test_the_table_is_built_from_wordnet_files_and_is_the_same_each_time(tmp_path: Path) -> None:
    folder = tmp_path / "wordnet"
    folder.mkdir()
    (folder / "cntlist").write_text("7 run%2:38:00:: 1\n2 run%1:04:00:: 1\n3 wet%3:00:01:: 1\n"
                                    "1 wet%5:00:00:dry:00 2\n5 ice_cream%1:13:00:: 1\n")
    header = "  1 a licence line that starts with spaces\n"
    (folder / "index.noun").write_text(header + "ice_cream n 1\nrun n 1\nmouse n 1\n")
    (folder / "index.verb").write_text(header + "run v 1\n")
    (folder / "index.adj").write_text(header + "wet a 1\n")
    (folder / "index.adv").write_text(header)
    (folder / "noun.exc").write_text("mice mouse\n")
    (folder / "verb.exc").write_text("ran run\nwent go\n")
    for name in ("adj", "adv"):
        (folder / f"{name}.exc").write_text("")

    def build(out: Path) -> bytes:
        subprocess.run([sys.executable, SCRIPT, folder, "--out", out], check=True,
                       capture_output=True)
        return out.read_bytes()

    made = build(tmp_path / "a.gz")
    assert made == build(tmp_path / "b.gz")
    lines = gzip.decompress(made).decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "mice n", "mouse n", "ran v1", "run n2 v7", "wet a4"]
    assert "Princeton" in lines[2]
    (folder / "verb.exc").unlink()
    failed = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True)
    assert failed.returncode == 2 and "verb.exc: no such file" in failed.stderr
