"""The published evaluation sets' CSVs: the official files where they are, and malformed ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dataprep.tools.labels import read_labels
from dataprep.tools.vocabulary import count_unknown, open_tokenisers

OFFICIAL = Path(os.environ.get("BABYVLM_CSVS",
                               Path(__file__).parents[4] / "shared" / "data" / "babyvlm"))
needs_official = pytest.mark.skipif(not (OFFICIAL / "vtwt.csv").is_file(),
                                    reason="the official CSVs are not here (BABYVLM_CSVS)")


@needs_official
@pytest.mark.parametrize(("name", "kind", "questions", "rows", "images"), [
    ("labeled_s.csv", "labeled", 2200, 8800, 6846), ("vtwt.csv", "two-word", 967, 967, 967),
    ("baby_winoground.csv", "winoground", 365, 730, 730),
    ("SAYCam_caption.csv", "caption", 294, 294, 294),
])
def test_the_official_files_load(name, kind, questions, rows, images):
    found = read_labels(OFFICIAL / name)
    assert (found.kind, found.questions, found.rows, found.images) == (
        kind, questions, rows, images)


@needs_official
@pytest.mark.parametrize(("name", "blanks", "marks"), [
    # unknown tokens, unknown types, texts with one: at blanks and at marks
    ("labeled_s.csv", (0, 0, 0), (0, 0, 0)), ("vtwt.csv", (236, 104, 227), (236, 104, 227)),
    ("baby_winoground.csv", (100, 53, 95), (100, 53, 95)),
    ("SAYCam_caption.csv", (72, 68, 58), (72, 65, 56)),
])
def test_unknown_words_of_the_official_files_by_tokeniser(name, blanks, marks):
    texts = read_labels(OFFICIAL / name).texts
    tokenisers = open_tokenisers(OFFICIAL / "saycam_vocab.json")
    for tokeniser, wanted in zip(tokenisers, (blanks, marks), strict=True):
        found = count_unknown(texts, tokeniser)
        assert (found.unknown_tokens, found.unknown_types, found.unknown_texts) == wanted


@needs_official
def test_notes_of_the_official_files():
    assert read_labels(OFFICIAL / "vtwt.csv").notes == [
        "phrases: 500 share the second word, 383 share none, 84 share the first word"]
    assert read_labels(OFFICIAL / "labeled_s.csv").notes == [
        "22 categories; pictures a trial: 2,200 of 4"]


@pytest.mark.parametrize(("content", "said"), [
    ("", r"columns \(none\); accepted: labeled: "),
    ("image,phrase\na,b\n", "line 1: columns image, phrase; accepted"),
    ("image,text\n", "no rows under the header"),
    ("image,text\na.jpg,\n", "line 2: column 'text' is empty"),
    ("image,text\na.jpg,b,c\n", "line 2: too many columns"),
    ("trial_id,target_category,real_category,image\n0,a,a,1\n0,a,a,2\n", "trial 0 has 2 pictures"),
    ("instance_id,positive_phrase,negative_phrase,image,image_tag\n0,a b,c b,i,positive\n",
     "instance 0 has pictures tagged positive; accepted"),
    (b"image,text\n\xff,b\n", "not UTF-8"),
])
def test_malformed_files_are_one_clear_line(tmp_path, content, said):
    path = tmp_path / "set.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"set\.csv.*{said}") as error:
        read_labels(path)
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_labels(tmp_path / "x.csv")
