"""Embedding a corpus: rows belong to their pictures and pairs; a killed run goes on."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from support.similar import run, tiny_clip, video_corpus

from dataprep.similarity import (
    Scorer,
    embed_corpus,
    open_scorer,
    pair_similarity,
    store,
    store_folder,
    stores_of,
)
from dataprep.similarity.cli import add_commands
from engine import Corpus, read_corpus


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return open_scorer(f"clip:{tiny_clip(tmp_path_factory.mktemp('clip') / 'tiny')}", "cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return video_corpus(tmp_path_factory.mktemp("corpus") / "frames", recordings=4)


def test_rows_are_those_of_their_pictures_and_pairs(
    corpus: Corpus, scorer: Scorer, tmp_path: Path
) -> None:
    images = embed_corpus(corpus, "train", scorer, tmp_path / "i", batch_size=7, progress=False)
    texts = embed_corpus(corpus, "train", scorer, tmp_path / "t", "texts", batch_size=9,
                         progress=False)
    beton, pairs = corpus.images("train"), corpus.pairs("train")
    for row in (0, 6, 7, 33, 79):
        alone = scorer.embed_images([beton.pixels(row)])[0]
        np.testing.assert_allclose(images.vectors[row], alone, atol=2e-5)
        alone = scorer.embed_texts([pairs.utterance[row]])[0]
        np.testing.assert_allclose(texts.vectors[row], alone, atol=2e-5)
    for batch_size, workers in ((1, 1), (64, 3)):
        other = embed_corpus(corpus, "train", scorer, tmp_path / f"i{batch_size}",
                             batch_size=batch_size, workers=workers, progress=False)
        np.testing.assert_allclose(other.vectors, images.vectors, atol=2e-5)
    cosine = pair_similarity(images, texts, pairs.row, chunk=11)
    expected = np.sum(images.vectors[pairs.row] * np.asarray(texts.vectors, float), axis=1)
    np.testing.assert_allclose(cosine, expected, atol=1e-6)
    assert images.facts["about"]["scorer"]["weights_sha256"] == scorer.facts["weights_sha256"]
    assert images.key == {"corpus": corpus.digest, "split": "train", "what": "images",
                          "scorer": scorer.hash}


def test_a_store_serves_one_corpus_and_scorer(
    corpus: Corpus, scorer: Scorer, tmp_path: Path
) -> None:
    other = video_corpus(tmp_path / "other", recordings=1)
    root = stores_of(corpus)
    assert store_folder(root, corpus, "train", "images", scorer.hash) != store_folder(
        root, other, "train", "images", scorer.hash)
    embed_corpus(other, "train", scorer, tmp_path / "a", progress=False)
    with pytest.raises(ValueError, match="holds another store"):
        embed_corpus(corpus, "train", scorer, tmp_path / "a", progress=False)
    images = embed_corpus(other, "train", scorer, tmp_path / "a", progress=False)
    texts = embed_corpus(corpus, "train", scorer, tmp_path / "t", "texts", progress=False)
    with pytest.raises(ValueError, match="corpus is not that of"):
        pair_similarity(images, texts, corpus.pairs("train").row)


def test_killed_it_goes_on_with_the_same_bytes(
    corpus: Corpus, scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SAVE_EVERY_S", 0.0)
    whole = embed_corpus(corpus, "train", scorer, tmp_path / "w", batch_size=4, progress=False)

    def slowly(folder: Path) -> None:
        embed = scorer.embed_images
        scorer.embed_images = lambda images: (time.sleep(0.03), embed(images))[1]  # type: ignore[method-assign]
        embed_corpus(corpus, "train", scorer, folder, batch_size=4, progress=False)

    seen = []
    for least in (8, 40):
        child = multiprocessing.get_context("fork").Process(target=slowly, args=(tmp_path / "k",))
        child.start()
        facts, deadline = tmp_path / "k" / "facts.json", time.monotonic() + 20
        while time.monotonic() < deadline and not (
            facts.exists() and json.loads(facts.read_text())["done"] >= least
        ):
            time.sleep(0.005)
        child.kill()
        child.join()
        seen.append(json.loads(facts.read_text())["done"])
    assert 8 <= seen[0] < 40 <= seen[1] < 80
    asked: list[int] = []
    embed = scorer.embed_images
    monkeypatch.setattr(scorer, "embed_images",
                        lambda images: (asked.append(len(images)), embed(images))[1])
    again = embed_corpus(corpus, "train", scorer, tmp_path / "k", batch_size=4, progress=False)
    assert sum(asked) == 80 - seen[1]
    assert again.facts["sha256"] == whole.facts["sha256"]


def test_a_corrupt_picture_is_named(corpus: Corpus, scorer: Scorer, tmp_path: Path) -> None:
    shutil.copytree(corpus.path, tmp_path / "bad")
    bad = read_corpus(tmp_path / "bad")
    beton = bad.images("train")
    start = int(beton._starts[13])
    with (tmp_path / "bad" / "train.beton").open("r+b") as file:
        file.seek(start)
        file.write(b"not a JPEG")
    with pytest.raises(ValueError, match=r"train\.beton: image 13 \(row 13\) is corrupt"):
        embed_corpus(bad, "train", scorer, tmp_path / "s", batch_size=4, progress=False)


def test_wrong_requests(corpus: Corpus, scorer: Scorer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no split 'val'; it has train"):
        embed_corpus(corpus, "val", scorer, tmp_path / "s", progress=False)
    with pytest.raises(ValueError, match="what 'words': accepted: images, texts"):
        embed_corpus(corpus, "train", scorer, tmp_path / "s", "words")  # type: ignore[arg-type]


def test_the_command(corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_clip(tmp_path / "tiny")
    run(add_commands, "embed", corpus.path, "--scorer", f"clip:{folder}", "--device", "cpu",
        "--stores", tmp_path / "stores")
    printed = capsys.readouterr()
    assert "scorer: clip tiny (" in printed.out and ", gelu, " in printed.out
    assert "80 images of train x 24" in printed.out and "80 texts of train x 24" in printed.out
    assert "frames train images: 100%" in printed.err and "picture/s" in printed.err
    assert len(list((tmp_path / "stores").rglob("vectors.npy"))) == 2
