"""Splits: as published and by recording; the leak between them, measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.similar import run, scene, tiny_clip, utterance, video_corpus, writer

from dataprep.similarity.cli import add_commands
from dataprep.similarity.leaks import Leak, leak_table, measure_leaks
from dataprep.similarity.splits import SHARES, by_group, by_utterance, pooled, read_groups
from engine import Corpus, read_corpus


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return video_corpus(tmp_path_factory.mktemp("corpus") / "frames", recordings=12, scenes=3)


def test_utterances_are_shuffled_and_cut(video: Corpus) -> None:
    split_of = by_utterance(video, SHARES, 3)
    counts = {name: int((split_of == name).sum()) for name in SHARES}
    assert counts == {"train": 162, "val": 9, "test": 9}  # 180 utterances of a frame each
    assert (split_of == by_utterance(video, SHARES, 3)).all()
    assert (split_of != by_utterance(video, SHARES, 4)).any()
    group = pooled(video)[0].group
    assert set(group[split_of == "val"]) <= set(group[split_of == "train"])  # that is the leak


def test_an_utterance_and_a_picture_stay_whole(tmp_path: Path) -> None:
    """Frames of one utterance go together; so do utterances that share a picture."""
    with writer(tmp_path / "c") as out:
        for number in range(60):
            image = out.add_image("train", scene(number), view=f"v{number}", source="mine")
            said = number // 4
            out.add_pair(image, utterance(said), source="mine", group="R", time_s=float(said))
            if number % 8 == 0:  # this picture is of the next utterance, too
                out.add_pair(image, utterance(said + 1), source="mine", group="R",
                             time_s=float(said + 1))
    corpus = read_corpus(tmp_path / "c")
    for seed in range(5):
        split_of = by_utterance(corpus, {"train": 0.5, "test": 0.5}, seed)
        # Utterances 0 and 1 share a picture, 2 and 3, ...: eight frames make a unit.
        for unit in range(8):
            assert len(set(split_of[8 * unit : 8 * unit + 8])) == 1
        assert set(split_of) == {"train", "test"}


def test_recordings_stay_whole(video: Corpus) -> None:
    shares = {"train": 0.5, "val": 0.25, "test": 0.25}
    group = pooled(video)[0].group
    for seed in range(4):
        split_of = by_group(video, shares, seed)
        assert all(len(set(split_of[group == name])) == 1 for name in set(group))
        counts = {name: int((split_of == name).sum()) for name in shares}
        assert counts == {"train": 90, "val": 45, "test": 45}
        assert (split_of == by_group(video, shares, seed)).all()
    assert (by_group(video, shares, 0) != by_group(video, shares, 1)).any()


def test_groups_of_near_duplicates_stay_together(video: Corpus) -> None:
    frames, _ = pooled(video)
    together = np.arange(len(frames))
    together[0] = together[100]  # one frame of R0 looks like one of R6
    for seed in range(6):
        split_of = by_group(video, {"train": 0.5, "test": 0.5}, seed, [together])
        assert split_of[0] == split_of[100]
    apart = [by_group(video, {"train": 0.5, "test": 0.5}, seed) for seed in range(6)]
    assert any(split_of[0] != split_of[100] for split_of in apart)


@pytest.mark.parametrize("shares", [{}, {"train": 0.5}, {"train": 1.5, "test": -0.5}])
def test_wrong_shares(video: Corpus, shares: dict[str, float]) -> None:
    for way in (by_group, by_utterance):
        with pytest.raises(ValueError, match=r"--shares.*add up to 1"):
            way(video, shares, 0)


def test_leaks_are_counted() -> None:
    split_of = np.array(["train", "train", "test", "test", "test", "val"], object)
    group = np.array(["A", "B", "A", "C", "C", "D"], object)
    hashes = np.array([0, 0xFFFF, 0b111, 0b111111, 0xFFF0, 1 << 63], np.uint64)
    angles = np.array([0.0, 1.0, 0.1, 2.0, 1.02, 3.0])
    x = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    test, val = measure_leaks(split_of, group, hashes, x, hamming=4, cosine=0.99)
    assert test == Leak("test", 3, 2, 2, 1, 4, 0.99)
    assert val == Leak("val", 1, 1, 0, 0, 4, 0.99)
    assert measure_leaks(split_of, group, hashes, hamming=2)[0].by_cosine is None
    assert measure_leaks(split_of, group, hashes, hamming=2)[0].by_hash == 0
    text = leak_table({"random": [test]})
    assert "hash <= 4 bits  66.7%, cosine > 0.99  66.7%, same recording  33.3%" in text


def test_the_command(video: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = tiny_clip(tmp_path / "tiny")
    stores = tmp_path / "stores"
    for how in ("random", "group"):
        run(add_commands, "split", video.path, "--out", tmp_path / how, "--how", how, "--shares",
            "train=0.75", "test=0.25", "--seed", "1", "--scorer", f"clip:{clip}", "--cosine",
            "0.999", "--stores", stores)
    printed = capsys.readouterr().out
    assert "split by group: train 135, test 45 pictures" in printed
    assert "random       test           45 pictures: hash <= 4 bits" in printed
    made = {how: read_corpus(tmp_path / how) for how in ("random", "group")}
    leak = made["group"].info["made_by"]["split"]["leak"]
    assert made["random"].info["made_by"]["split"]["leak"] == leak
    assert leak["random"][0]["by_hash"] >= 40 and leak["random"][0]["same_recording"] == 45
    assert leak["group"][0]["by_hash"] == 0 and leak["group"][0]["same_recording"] == 0
    assert leak["random"][0]["by_cosine"] > leak["group"][0]["by_cosine"]
    for corpus in made.values():
        said = [text for split in corpus.splits for text in corpus.pairs(split).utterance]
        assert sorted(said) == sorted(video.pairs("train").utterance)
    assert not set(made["group"].pairs("train").group) & set(made["group"].pairs("test").group)
    # What was split can be split again: the splits are pooled.
    run(add_commands, "split", tmp_path / "group", "--out", tmp_path / "again", "--how", "random",
        "--shares", "train=0.9", "test=0.1")
    assert len(read_corpus(tmp_path / "again").pairs("test")) == 18


def test_near_duplicates_by_table(video: Corpus, tmp_path: Path) -> None:
    run(add_commands, "duplicates", video.path, "--out", tmp_path / "groups.parquet")
    groups = read_groups(tmp_path / "groups.parquet", video)
    assert 36 <= len(set(groups.tolist())) < 50 and (groups[:5] == 0).all()
    assert (groups // 5 == np.arange(180) // 5).all()  # no group of two scenes
    run(add_commands, "split", video.path, "--out", tmp_path / "out", "--how", "group",
        "--together", tmp_path / "groups.parquet")
    assert read_corpus(tmp_path / "out").info["made_by"]["split"]["near_duplicates_together"]
    other = video_corpus(tmp_path / "other", recordings=1)
    with pytest.raises(ValueError, match="lists other pictures"):
        read_groups(tmp_path / "groups.parquet", other)
    (tmp_path / "bad.parquet").write_text("x")
    with pytest.raises(ValueError, match=r"bad\.parquet: not a table of duplicates"):
        read_groups(tmp_path / "bad.parquet", video)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--shares", "train"], "--shares train: accepted: SPLIT=SHARE"),
        (["--shares", "train=much"], "--shares train=much: accepted"),
        (["--together", "t"], "--together: only with --how group"),
    ],
)
def test_wrong_requests(video: Corpus, tmp_path: Path, more: list[str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        run(add_commands, "split", video.path, "--out", tmp_path / "o", "--how", "random", *more)
    assert not (tmp_path / "o").exists()
