"""Captions: none that training has said or shown."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dataprep.evalsets.build import build_captions
from dataprep.evalsets.captions import Near, normal
from dataprep.evalsets.evalset import read_evalset
from engine import Corpus, CorpusWriter, Source, read_corpus

SAID = (
    ("a new thing to see here", ""),
    ("Look , a ball !", "train text: training says the same"),
    ("the dog runs over the grass now", "train text: training says nearly the same"),
    ("hello", "short"),
    ("something else entirely", "train view"),
    ("a picture seen before", "train picture"),
)


@pytest.fixture
def leaky(tmp_path: Path) -> Corpus:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (12, 32, 32, 3), np.uint8)
    with CorpusWriter(tmp_path / "leaky", name="leaky", version="1", image_size=32,
                      sources=[Source("s", "CC0-1.0", "")], made_by={}) as writer:
        for k, text in enumerate(("look a ball", "the dog runs over the grass", "one more thing")):
            image = writer.add_image("train", pictures[k], view=f"view{k}", source="s")
            writer.add_pair(image, text, source="s", group=f"g{k}")
        for k, (text, reason) in enumerate(SAID):
            seen = pictures[1] if reason == "train picture" else pictures[k + 4]
            view = "view0" if reason == "train view" else f"new{k}"
            image = writer.add_image("test", seen, view=view, source="s")
            writer.add_pair(image, text, source="s", group=f"h{k}")
        image = writer.add_image("test", pictures[11], view="late", source="s")
        writer.add_pair(image, "A new thing, to see here.", source="s", group="h")
    return read_corpus(tmp_path / "leaky")


def test_what_training_has_said_or_shown_is_left_out(tmp_path: Path, leaky: Corpus) -> None:
    done = build_captions(leaky, "test", tmp_path / "set", near=0.8)
    records = read_evalset(tmp_path / "set").records
    assert done.counts["captions"] == 1 and len(records) == 7
    reasons = Counter(record.dropped.split(" (")[0].split(":")[0] for record in records)
    assert reasons == {"": 1, "train text": 2, "short": 1, "train view": 1, "train picture": 1,
                       "repeated": 1}
    with (tmp_path / "set" / "caption.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "text"]
    assert normal(rows[0]["text"]) == "a new thing to see here"
    assert (tmp_path / "set" / rows[0]["image"]).is_file()
    # without the near comparison the sentence with one word more stays
    assert build_captions(leaky, "test", tmp_path / "b").counts["captions"] == 2
    assert build_captions(leaky, "test", tmp_path / "c", count=1).counts["captions"] == 1


def test_near_finds_what_comparing_all_pairs_finds() -> None:
    rng = np.random.default_rng(0)
    words = [f"{a}{b}" for a in "abcdef" for b in "xyz"]
    texts = [" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(300)]
    for least in (0.4, 0.6, 0.75, 1.0):
        near = Near(least)
        for text in texts[:200]:
            near.add(text)
        for text in texts[200:]:
            one = set(text.split())
            best = max(len(one & set(t.split())) / len(one | set(t.split())) for t in texts[:200])
            assert near.near(text) == pytest.approx(best if best >= least else 0.0)


def test_bad_input(tmp_path: Path, leaky: Corpus) -> None:
    with pytest.raises(ValueError, match="--split train: is also a training split"):
        build_captions(leaky, "train", tmp_path / "set")
    with pytest.raises(ValueError, match="no split 'dev'; it has train, test"):
        build_captions(leaky, "dev", tmp_path / "set")
    with pytest.raises(ValueError, match="--near 0: accepted are numbers above 0"):
        build_captions(leaky, "test", tmp_path / "set", near=0)


def test_restricted_frames_are_not_copied(tmp_path: Path, restricted: Corpus) -> None:
    with pytest.raises(ValueError, match="source 'drawn' are restricted and are not copied"):
        build_captions(restricted, "test", tmp_path / "set")
    assert not list((tmp_path / "set").rglob("*.jpg"))
