"""The filter keeps exactly the pairs above its threshold, and says what it did."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.similar import pool_corpus, run, scene, tiny_clip, utterance, video_corpus, writer

from dataprep.similarity import Scorer, embed_corpus, open_scorer, pair_similarity
from dataprep.similarity.cli import add_commands
from dataprep.similarity.filter import filter_corpus
from engine import Corpus, read_corpus


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def scorer(clip: Path) -> Scorer:
    return open_scorer(f"clip:{clip}", "cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Two splits; pictures with one, two and no utterances."""
    path = tmp_path_factory.mktemp("corpus") / "small"
    with writer(path, sources=("a", "b")) as out:
        for number in range(40):
            split = "val" if number % 4 == 3 else "train"
            image = out.add_image(split, scene(number), view=f"v{number}", source="a")
            for more in range(number % 3):
                out.add_pair(image, utterance(10 * number + more), source="ab"[more],
                             group=f"g{number}", time_s=number + 0.5, provenance="said")
    return read_corpus(path)


def cosines(corpus: Corpus, split: str, scorer: Scorer, place: Path) -> np.ndarray:
    images, texts = (embed_corpus(corpus, split, scorer, place / f"{split}-{what}", what,
                                  progress=False) for what in ("images", "texts"))
    return pair_similarity(images, texts, corpus.pairs(split).row)


def test_pairs_above_the_threshold_are_kept(corpus: Corpus, scorer: Scorer, tmp_path: Path) -> None:
    known = {split: cosines(corpus, split, scorer, tmp_path) for split in corpus.splits}
    cut = float(np.sort(np.concatenate(list(known.values())))[17])  # one pair is exactly on it
    done = filter_corpus(corpus, scorer, tmp_path / "out", stores=tmp_path / "stores",
                         threshold=cut, progress=False)
    assert done.threshold == cut and sum(done.after.values()) == 39 - 18
    made = read_corpus(tmp_path / "out")
    for split in corpus.splits:
        before, after = corpus.pairs(split), made.pairs(split)
        keep = np.flatnonzero(known[split] > np.float32(cut))
        assert sorted(after.utterance) == sorted(before.utterance[at] for at in keep)
        where = {text: at for at, text in enumerate(before.utterance)}
        assert len(made.images(split)) == len(set(after.row))
        for at, text in enumerate(after.utterance):
            was = where[text]
            assert after.similarity[at] == pytest.approx(known[split][was], abs=1e-5)
            assert (after.group[at], after.time_s[at], after.view[at], after.source[at]) == (
                before.group[was], before.time_s[was], before.view[was], before.source[was])
            assert (made.images(split).stored(int(after.row[at])).tobytes()
                    == corpus.images(split).stored(int(before.row[was])).tobytes())
    about = made.info["made_by"]["filter"]
    assert about["threshold"] == cut and about["scorer"]["hash"] == scorer.hash
    assert about["scorer"]["weights_sha256"] == scorer.facts["weights_sha256"]
    assert made.info["made_by"]["from"]["digest"] == corpus.digest
    assert sum(entry["before"] for entry in about["by_source"].values()) == 39
    assert sum(entry["after"] for entry in about["by_source"].values()) == 21
    table = pq.read_table(tmp_path / "out" / "filter" / "similarity.parquet").to_pydict()
    assert len(table["id"]) == 39 and sum(table["kept"]) == 21
    with Image.open(tmp_path / "out" / "filter" / "similarity.png") as figure:
        assert figure.size[0] > 600 and len(figure.getcolors(1 << 24)) > 20


def test_a_quantile(corpus: Corpus, scorer: Scorer, tmp_path: Path) -> None:
    known = np.concatenate([cosines(corpus, split, scorer, tmp_path) for split in corpus.splits])
    done = filter_corpus(corpus, scorer, tmp_path / "out", stores=tmp_path / "stores",
                         quantile=0.7, progress=False)
    assert sum(done.after.values()) == (known > np.quantile(known, 0.7)).sum() == 12
    assert read_corpus(tmp_path / "out").info["made_by"]["filter"]["quantile"] == 0.7


def test_a_split_of_which_nothing_is_left(tmp_path: Path, scorer: Scorer) -> None:
    pool = pool_corpus(tmp_path / "pool", 20)
    with writer(tmp_path / "c") as out:
        for split in ("train", "val"):
            image = out.add_image(split, scene(len(split)), view=split, source="mine")
            out.add_pair(image, utterance(len(split)), source="mine", group=split)
    corpus = read_corpus(tmp_path / "c")
    known = [cosines(corpus, split, scorer, tmp_path) for split in ("train", "val")]
    done = filter_corpus(corpus, scorer, tmp_path / "out", stores=tmp_path / "s",
                         threshold=float(min(np.concatenate(known))), progress=False)
    made = read_corpus(tmp_path / "out")
    assert sum(done.after.values()) == 1 == len(made.splits)
    filter_corpus(pool, scorer, tmp_path / "p", stores=tmp_path / "s", quantile=0.5, progress=False)
    made = read_corpus(tmp_path / "p")
    origins = pq.read_table(tmp_path / "p" / "origins.parquet").to_pydict()
    assert origins["image"] == made.image_table["image"].tolist()
    assert origins["sha256"] == [f"{int(key[:5]):064x}" for key in made.image_table["key"]]


def test_same_input_same_bytes(corpus: Corpus, scorer: Scorer, tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        filter_corpus(corpus, scorer, tmp_path / name / "out", stores=tmp_path / name,
                      quantile=0.5, progress=False)
        digests.append({
            file.relative_to(tmp_path / name): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in (tmp_path / name / "out").rglob("*") if file.is_file()})
    assert digests[0] == digests[1] and len(digests[0]) == 7


def test_the_published_threshold_is_the_default(
    corpus: Corpus, clip: Path, scorer: Scorer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {split: cosines(corpus, split, scorer, tmp_path) for split in corpus.splits}
    if not any((values > 0.2).any() for values in known.values()):
        with pytest.raises(ValueError, match=r"none of 39 pairs is above 0\.2000"):
            run(add_commands, "filter", corpus.path, "--out", tmp_path / "out", "--scorer",
                f"clip:{clip}", "--stores", tmp_path / "stores")
        assert not (tmp_path / "out").exists()
    run(add_commands, "filter", corpus.path, "--out", tmp_path / "low", "--scorer",
        f"clip:{clip}", "--threshold=-1", "--stores", tmp_path / "stores", "--split", "val",
        "--name", "loose")
    printed = capsys.readouterr().out
    count = len(corpus.pairs("val"))
    assert f"val: {count} of {count} pairs kept (100.0%)" in printed
    assert read_corpus(tmp_path / "low").splits == ("val",)
    assert json.loads((tmp_path / "low" / "corpus.json").read_text())["name"] == "loose"


def test_wrong_requests(corpus: Corpus, scorer: Scorer, tmp_path: Path) -> None:
    def ask(out: str = "out", **how: object) -> None:
        filter_corpus(corpus, scorer, tmp_path / out, stores=tmp_path / "s", progress=False, **how)  # type: ignore[arg-type]

    for how, complaint in (
        ({"threshold": 0.1, "quantile": 0.1}, "not both"),
        ({"threshold": 20.0}, r"--threshold 20\.0: accepted are -1 to 1"),
        ({"quantile": 1.5}, r"--quantile 1\.5: accepted are 0 to 1"),
        ({"threshold": 1.0}, r"none of 39 pairs is above 1\.0000 .* --quantile"),
        ({"splits": ("test",)}, "no split 'test'; it has train, val"),
    ):
        with pytest.raises(ValueError, match=complaint):
            ask(**how)
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="there exists already; --force replaces it"):
        ask("there", quantile=0.5)
    with pytest.raises(ValueError, match="there is not a corpus"):
        ask("there", quantile=0.5, force=True)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.tmp-*"))


def test_nothing_restricted_travels(corpus: Corpus, scorer: Scorer, tmp_path: Path) -> None:
    frames = video_corpus(tmp_path / "frames", recordings=1)
    filter_corpus(frames, scorer, tmp_path / "out", stores=tmp_path / "s", quantile=0.2,
                  progress=False)
    manifest = (tmp_path / "out" / "corpus.json").read_text()
    assert str(tmp_path) not in manifest
