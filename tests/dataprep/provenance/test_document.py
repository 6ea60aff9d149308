"""Croissant metadata that mlcroissant reads, and datasheets that keep restricted words."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import mlcroissant
import numpy as np
import pytest

from dataprep.evalsets.build import build_captions
from dataprep.evalsets.frames import is_restricted
from dataprep.provenance.croissant import croissant, validate
from dataprep.provenance.describe import describe
from dataprep.provenance.document import document
from dataprep.provenance.version import code_version, package_versions
from engine import Corpus, CorpusWriter, Source, read_corpus

SECTIONS = (
    "Motivation", "Composition", "Collection process", "Preprocessing, cleaning, labeling", "Uses",
    "Distribution", "Maintenance",
)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    rng = np.random.default_rng(0)
    sources = [
        Source("homes", "use agreement", "https://homes.example", "films of homes"),
        Source("open", "CC-BY-4.0", "https://open.example", "drawings | of things"),
    ]
    with CorpusWriter(
        tmp_path / "corpus", name="mixed", version="2", image_size=32, sources=sources,
        made_by={"command": "mix", "seed": 1}, notes="How it was mixed.",
    ) as writer:
        for split in ("train", "test"):
            for k in range(3):
                picture = rng.integers(0, 256, (32, 32, 3), np.uint8)
                name = "homes" if k else "open"
                image = writer.add_image(split, picture, view=f"{split}{k}", source=name,
                                         key=f"{split}{k}.jpg")
                made = json.dumps({"model": "m-1", "template": "t-1", "request_key": f"{k}"})
                writer.add_pair(image, f"{name} words of {split} {k}", source=name,
                                group=f"{split}{k}", similarity=0.2 + k / 10,
                                provenance="" if k else made)
    return read_corpus(tmp_path / "corpus")


def test_croissant_is_valid_and_its_records_can_be_read(
    corpus: Corpus, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert document(corpus.path) == []
    assert not caplog.records
    dataset = mlcroissant.Dataset(jsonld=corpus.path / "croissant.json")
    assert dataset.metadata.name == "mixed" and dataset.metadata.version == "2.0.0"
    rows = list(dataset.records("pairs"))
    assert [row["pairs/utterance"].decode() for row in rows] == [
        text for split in ("train", "test") for text in corpus.pairs(split).utterance
    ]
    listed = {one.id: one.sha256 for one in dataset.metadata.distribution}
    assert listed.keys() == {*corpus.info["files"], "corpus.json"}
    assert all(listed[n] == facts["sha256"] for n, facts in corpus.info["files"].items())


def test_same_corpus_same_bytes(corpus: Corpus) -> None:
    document(corpus.path)
    first = [(corpus.path / n).read_bytes() for n in ("croissant.json", "datasheet.md")]
    document(corpus.path)
    assert [(corpus.path / n).read_bytes() for n in ("croissant.json", "datasheet.md")] == first


def test_datasheet_has_every_section_and_what_the_manifest_knows(corpus: Corpus) -> None:
    document(corpus.path)
    text = (corpus.path / "datasheet.md").read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(SECTIONS)
    for known in (corpus.digest, "How it was mixed.", '"command": "mix"', "drawings \\| of things",
                  "| homes | use agreement | restricted |", "model m-1, template t-1 | 2 |",
                  "| split train | 3 pictures, 3 utterances, 15 words, 3 groups |",
                  "| groups that test shares with train | 0 |", "0.200, 0.300, 0.400"):
        assert known in text, known


def test_nothing_of_restricted_sources_is_shown(corpus: Corpus) -> None:
    document(corpus.path)
    texts = [(corpus.path / n).read_text() for n in ("croissant.json", "datasheet.md")]
    assert all("homes words" not in text for text in texts)
    assert "open words of train 0" in texts[1] and "open words" not in texts[0]
    assert "No: homes may not be." in texts[1]
    assert "use agreement" in texts[0] and "restricted" in texts[0]


def test_who_is_restricted() -> None:
    for licence, restricted in (("CC0-1.0", False), ("GPL-2.0", False), ("MIT", False),
                                ("use agreement", True), ("", True), ("Databrary", True)):
        assert is_restricted({"name": "x", "licence": licence}) is restricted
    assert is_restricted({"name": "x", "licence": "MIT", "restricted": True})
    assert not is_restricted({"name": "x", "licence": "own", "restricted": False})


def test_an_evaluation_set(tmp_path: Path, corpus: Corpus) -> None:
    out = tmp_path / "set"
    build_captions(corpus, "test", out, count=2, allow_restricted=True)
    document(out)
    dataset = mlcroissant.Dataset(jsonld=out / "croissant.json")
    rows = list(dataset.records("caption"))
    assert len(rows) == 2 and set(rows[0]) == {"caption/image", "caption/text"}
    text = (out / "datasheet.md").read_text()
    assert "homes words" not in text and "No review by people is recorded" in text
    assert "words of" not in (out / "croissant.json").read_text()


def test_bad_metadata_is_refused(tmp_path: Path, corpus: Corpus) -> None:
    about = croissant(describe(corpus.path))
    about["recordSet"][0]["field"][0]["source"]["fileObject"]["@id"] = "nowhere.parquet"
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"bad.json: .*nowhere.parquet"):
        validate(path)
    with pytest.raises(ValueError, match="no corpus at"):
        document(tmp_path)


def test_code_version_names_installed_version_and_sources() -> None:
    installed, _, digest = code_version().partition("+")
    assert installed and len(digest) == 12 and int(digest, 16) >= 0
    assert package_versions(["numpy", "no-such-package"]) == {"numpy": np.__version__}
