"""Near-duplicates: hashes, both passes beside naive ones, the record, and dropping on request."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.similar import jitter, run, scene, tiny_clip, video_corpus, writer

from dataprep.similarity import duplicates
from dataprep.similarity.cli import add_commands
from dataprep.similarity.dhash import dhash, hamming, hash_corpus, nearest
from dataprep.similarity.duplicates import cosine_leaders, time_leaders
from engine import read_corpus


def test_the_hash_is_that_of_its_definition() -> None:
    grey = np.zeros((8, 9), np.uint8)
    grey[0, 1] = 9  # brighter than its left neighbour, and brighter than its right one
    picture = np.repeat(grey[..., None], 3, axis=2)
    assert dhash(picture) == np.uint64(1 << 63)
    grey[0, 1] = 2  # brighter, but within noise
    assert dhash(np.repeat(grey[..., None], 3, axis=2)) == 0
    wide = np.kron(picture, np.ones((5, 4, 1), np.uint8))
    assert dhash(wide) == dhash(picture)


def test_near_duplicates_have_near_hashes() -> None:
    same, other = [], []
    for seed in range(30):
        picture = scene(seed, 128)
        buffer = io.BytesIO()
        Image.fromarray(picture).resize((90, 90)).save(buffer, "JPEG", quality=60)
        with Image.open(buffer) as small:
            same.append(hamming(dhash(picture), dhash(np.asarray(small))))
        same.append(hamming(dhash(picture), dhash(jitter(picture, seed))))
        other.append(hamming(dhash(picture), dhash(scene(seed + 1, 128))))
    assert np.mean(np.array(same) <= 4) > 0.95 and min(other) > 4


def test_distances() -> None:
    draw = np.random.default_rng(0)
    a, b = (draw.integers(0, 2**64, size, np.uint64) for size in (37, 501))
    naive = np.array([[(int(x) ^ int(y)).bit_count() for y in b] for x in a])
    np.testing.assert_array_equal(hamming(a[:, None], b[None]), naive)
    np.testing.assert_array_equal(nearest(a, b, rows=5, columns=64), naive.min(axis=1))
    assert (nearest(a, b[:0]) == 255).all()


@pytest.mark.parametrize("seed", range(8))
def test_time_pass(seed: int) -> None:
    draw = np.random.default_rng(seed)
    bits = draw.integers(0, 2**64, 400, np.uint64)
    # Most frames differ from the last one in one bit or none: a slow pan.
    for at in range(1, 400):
        if draw.random() < 0.95:
            bits[at] = bits[at - 1] ^ np.uint64(int(draw.random() < 0.5) << int(draw.integers(64)))
    recording = np.sort(draw.integers(0, 5, 400))
    expected = np.arange(400)
    for at in range(1, 400):
        kept = expected[at - 1]
        near = (int(bits[at]) ^ int(bits[kept])).bit_count() <= 4
        if recording[at] == recording[at - 1] and near:
            expected[at] = kept
    np.testing.assert_array_equal(time_leaders(bits, recording, 4), expected)
    assert 10 < len(set(expected.tolist())) < 390


@pytest.mark.parametrize("seed", range(8))
def test_cosine_pass(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", 16)
    monkeypatch.setattr(duplicates, "TILE", 7)
    draw = np.random.default_rng(seed)
    middles = draw.normal(size=(25, 12))
    x = middles[draw.integers(0, 25, 150)] + draw.normal(size=(150, 12)) * draw.choice([0.05, 0.6])
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    alike = x.astype(float) @ x.T.astype(float)
    expected, kept = np.arange(150), []
    for at in range(150):
        best = max(kept, key=lambda other: alike[at, other], default=None)
        if best is not None and alike[at, best] > 0.9:
            expected[at] = best
        else:
            kept.append(at)
    leader, cosine = cosine_leaders(x, 0.9, progress=False)
    # A picture found near one of an earlier block is not compared with its own block any more.
    np.testing.assert_array_equal(leader == np.arange(150), expected == np.arange(150))
    moved = leader != np.arange(150)
    assert (alike[moved, leader[moved]] > 0.9).all() and set(leader) == set(kept)
    np.testing.assert_allclose(cosine[moved], alike[moved, leader[moved]], atol=1e-5)
    assert np.isnan(cosine[~moved]).all()


def test_cosine_pass_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", 16)
    monkeypatch.setattr(duplicates, "SAVE_EVERY_S", 0.0)
    draw = np.random.default_rng(0)
    x = draw.normal(size=(120, 3)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    whole = cosine_leaders(x, 0.95, progress=False)
    within, asked = duplicates._within, []

    def killed(block: np.ndarray, first: int, *rest: object) -> None:
        asked.append(first)
        if asked == [0, 16, 32, 48]:
            raise KeyboardInterrupt
        within(block, first, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(duplicates, "_within", killed)
    with pytest.raises(KeyboardInterrupt):
        cosine_leaders(x, 0.95, state=tmp_path / "s.npz", progress=False)
    again = cosine_leaders(x, 0.95, state=tmp_path / "s.npz", progress=False)
    assert asked[4:] == [48, 64, 80, 96, 112] and not list(tmp_path.iterdir())
    for one, other in zip(whole, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_they_are_recorded_and_nothing_is_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = video_corpus(tmp_path / "frames", recordings=3)
    run(add_commands, "duplicates", corpus.path)
    printed = capsys.readouterr().out
    table = pq.read_table(tmp_path / "frames.duplicates.parquet").to_pydict()
    assert len(table["image"]) == 60 and sum(table["kept"]) == 12  # 12 scenes of 5 frames
    for at in range(60):
        scene_of = table["view"][at].rsplit("_", 1)[0]
        assert table["group"][at] == table["image"][at] // 5 * 5
        assert table["kept"][at] == table["view"][at].endswith("_0")
        if not table["kept"][at]:
            assert table["near_view"][at] == f"{scene_of}_0" and table["method"][at] == "dhash"
            assert 0 <= table["hamming"][at] <= 4 and table["cosine"][at] is None
    assert "nothing dropped (48 pictures could be: --drop)" in printed
    assert "by hash 48, by cosine 0" in printed
    assert read_corpus(corpus.path).digest == corpus.digest


def test_held_out_pictures_stay_and_their_doubles_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Across recordings only the exact pass sees them."""
    with writer(tmp_path / "c") as out:
        for split, recording in (("train", "A"), ("test", "B")):
            for number in range(6):
                picture = scene(number + 3 * (split == "test"))
                image = out.add_image(split, picture, view=f"{recording}{number}", source="mine")
                out.add_pair(image, f"{recording} {number}", source="mine", group=recording,
                             time_s=number)
    clip = tiny_clip(tmp_path / "tiny")
    run(add_commands, "duplicates", tmp_path / "c", "--scorer", f"clip:{clip}", "--cosine",
        "0.99999", "--drop", tmp_path / "d", "--out", tmp_path / "groups.parquet")
    made = read_corpus(tmp_path / "d")
    # Scenes 3, 4, 5 are in both.
    assert sorted(made.pairs("test").utterance) == [f"B {number}" for number in range(6)]
    assert sorted(made.pairs("train").utterance) == ["A 0", "A 1", "A 2"]
    about = made.info["made_by"]["duplicates"]
    assert about["dropped_by_cosine"] == {"test": 0, "train": 3} and about["order"][-1] == "train"
    assert (tmp_path / "d" / "duplicates" / "groups.parquet").read_bytes() == (
        tmp_path / "groups.parquet").read_bytes()
    rows = {row["view"]: row for row in pq.read_table(tmp_path / "groups.parquet").to_pylist()}
    assert rows["A3"]["near_view"] == "B0" and rows["A3"]["method"] == "cosine"
    assert "without 3 pictures" in capsys.readouterr().out


def test_both_passes_chain_to_a_kept_picture(tmp_path: Path) -> None:
    corpus = video_corpus(tmp_path / "frames", recordings=2, scenes=1, frames=3)
    frames = [duplicates.Frames("train", np.arange(4), np.array(list("abcd"), object),
                                np.array(["R", "R", "S", "S"], object), np.arange(4.0))]
    hashes = [np.array([0, 1 << 40, 0, 1], np.uint64)]
    x = np.array([[1, 0], [0, 1], [1, 0], [0.6, 0.8]], np.float32)
    found = duplicates.find_duplicates(frames, hashes, [x], hamming_limit=1, progress=False)
    assert found.near.tolist() == [0, 0, 0, 2] and found.group.tolist() == [0, 0, 0, 0]
    assert found.bits.tolist() == [-1, 1, -1, 1] and found.kept.tolist() == [True] + 3 * [False]
    hashes = hash_corpus(corpus, "train", tmp_path / "s", progress=False)
    assert hashes[0] == dhash(corpus.images("train").pixels(0))


@pytest.mark.parametrize(("option", "value"), [("--hamming", "65"), ("--cosine", "1.5")])
def test_limits_out_of_range(tmp_path: Path, option: str, value: str) -> None:
    corpus = video_corpus(tmp_path / "frames", recordings=1)
    with pytest.raises(ValueError, match=f"{option} {value}.*: accepted are"):
        run(add_commands, "duplicates", corpus.path, option, value)
    assert not list(tmp_path.glob("*.parquet"))
