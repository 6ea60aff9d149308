"""The transferred corpus: the right pictures, their words, whose frames they answer, and proof."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.optimize import linear_sum_assignment
from support.similar import pool_corpus, run, tiny_clip, video_corpus

from dataprep.matching import solve as matching_solve
from dataprep.similarity import Scorer, embed_corpus, open_scorer
from dataprep.similarity.cli import add_commands as similarity_commands
from dataprep.transfer import Options, Transferred, methods, stage, transfer
from dataprep.transfer.cli import add_commands
from dataprep.transfer.methods import Method
from dataprep.transfer.write import provenance
from engine import Corpus, read_corpus

Ask = Callable[..., tuple[Transferred, Corpus]]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def scorer(clip: Path) -> Scorer:
    return open_scorer(f"clip:{clip}", "cpu")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return video_corpus(tmp_path_factory.mktemp("frames") / "frames", 4, 3, 3)  # 36 frames


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return pool_corpus(tmp_path_factory.mktemp("pool") / "pool")  # 60 pictures, 30 a source


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("stores")
    return place / "frames", place / "pool"


@pytest.fixture
def ask(
    frames: Corpus, pool: Corpus, scorer: Scorer, stores: tuple[Path, Path], tmp_path: Path
) -> Ask:
    def asked(
        out: str = "out", sheet: Path | None = None, **how: Any
    ) -> tuple[Transferred, Corpus]:
        settings = {key: how.pop(key) for key in list(how) if key in Method.__dataclass_fields__}
        done = transfer(frames, pool, scorer, tmp_path / out, stores=stores, sheet=sheet,
                        work=tmp_path / f"{out}.work", progress=False,
                        options=Options(method=Method(**settings), threads=1, device="cpu", **how))
        return done, read_corpus(tmp_path / out)

    return asked


def cosines(frames: Corpus, pool: Corpus, scorer: Scorer, place: Path) -> np.ndarray:
    a, b = (embed_corpus(corpus, "train", scorer, place / corpus.name, progress=False).vectors
            for corpus in (frames, pool))
    return np.asarray(a, float) @ np.asarray(b, float).T


def matches(corpus: Corpus) -> list[dict[str, Any]]:
    return [json.loads(text)["match"] for text in corpus.pairs("train").provenance]


def test_the_best_pictures_with_their_words(
    ask: Ask, frames: Corpus, pool: Corpus, scorer: Scorer, tmp_path: Path
) -> None:
    done, made = ask(name="exact", verify=True)
    matrix = cosines(frames, pool, scorer, tmp_path)
    best = matrix[linear_sum_assignment(matrix, maximize=True)].sum()
    found = matches(made)
    assert len(found) == len(made.images("train")) == 36 and made.splits == ("train",)
    assert [match["frame"] for match in found] == list(range(36))
    assert len({match["picture"] for match in found}) == 36
    assert sum(match["similarity"] for match in found) == pytest.approx(best, abs=1e-4)
    ranked = sorted(found, key=lambda match: match["rank"])
    assert [match["rank"] for match in ranked] == list(range(1, 37))
    assert np.all(np.diff([match["similarity"] for match in ranked]) <= 1e-6)
    pairs, theirs = made.pairs("train"), pool.pairs("train")
    for at, match in enumerate(found):
        was = match["picture"]
        assert match["similarity"] == pytest.approx(matrix[at, was], abs=1e-5)
        assert match["frame_view"] == frames.pairs("train").view[at]
        assert match["frames"] == frames.digest and match["pool"] == pool.digest
        assert match["method"] == "auction and augmenting paths"
        assert (pairs.utterance[at], pairs.source[at], pairs.group[at], pairs.view[at]) == (
            theirs.utterance[was], theirs.source[was], theirs.group[was], theirs.view[was])
        assert pairs.similarity[at] == 0.25  # of picture and words, as the pool had it
        before, after = theirs.provenance[was], json.loads(pairs.provenance[at])
        assert (after["words"] == before if before == "plain"
                else after["request"] == json.loads(before)["request"])
        assert (made.images("train").stored(int(pairs.row[at])).tobytes()
                == pool.images("train").stored(was).tobytes())
    origins = pq.read_table(made.path / "origins.parquet").to_pydict()
    assert origins["image"] == list(range(36))
    assert origins["sha256"] == [f"{match['picture']:064x}" for match in found]
    proof = made.info["made_by"]["match"]["certificate"]
    assert proof["total"] == pytest.approx(best, abs=1e-4) and proof["matched"] == 36
    assert proof["bound"] == pytest.approx(best, abs=1e-4) and proof["gap"] < 1e-5
    assert proof["verified_bound"] == pytest.approx(best, abs=1e-3)
    assert done.random_mean < proof["mean_similarity"]
    assert made.info["made_by"]["frames"]["digest"] == frames.digest
    assert made.info["made_by"]["from"]["digest"] == pool.digest
    assert made.info["made_by"]["match"]["scorer"]["hash"] == scorer.hash
    assert not (tmp_path / "out.work").exists()


def test_the_auction_is_within_its_bound(ask: Ask) -> None:
    exact = ask("exact", name="exact")[0].matching.total
    done, made = ask("auction", epsilon=1e-3, verify=True)
    proof = made.info["made_by"]["match"]["certificate"]
    assert exact - 36e-3 <= proof["total"] <= exact + 1e-5 and proof["epsilon"] == 1e-3
    assert proof["bound"] >= exact - 1e-5 and proof["verified_bound"] >= exact - 1e-3
    assert 0 <= proof["gap"] == done.matching.gap


@pytest.mark.parametrize("name", ["dense", "sparse", "blockwise", "greedy", "random"])
def test_baselines(ask: Ask, name: str) -> None:
    best = ask("exact", name="exact")[0].matching.total
    made = ask(name=name, verify=True, blocks=2)[1]
    proof = made.info["made_by"]["match"]["certificate"]
    assert proof["method"] == name == matches(made)[0]["method"]
    assert proof["total"] <= best + 1e-4
    assert (proof["total"] == pytest.approx(best, abs=1e-4)) or name not in ("dense", "sparse")
    assert (proof["bound"] is None) == (name != "dense")
    assert len(made.images("train")) == 36 and proof["verified"] is True


def test_the_random_control_depends_on_its_seed(ask: Ask) -> None:
    found = [[match["picture"] for match in matches(ask(f"o{number}", name="random", seed=seed)[1])]
             for number, seed in enumerate((0, 0, 1))]
    assert found[0] == found[1] != found[2]


def test_a_limit_of_similarity(ask: Ask) -> None:
    whole = ask("whole")[1]
    cut = float(np.median([match["similarity"] for match in matches(whole)]))
    done, made = ask(reject_below=cut)
    found = matches(made)
    assert 0 < len(found) < 36 and min(match["similarity"] for match in found) >= cut - 1e-6
    assert done.certificate["matched"] == len(found) and done.certificate["reject_below"] == cut
    with pytest.raises(ValueError, match="no frame got a picture; lower --reject-below"):
        ask("none", reject_below=1.0)


def test_quotas(ask: Ask) -> None:
    free = ask("free")[1]
    assert sum(source == "cc" for source in free.pairs("train").source) > 9
    made = ask(quota={"cc": 9})[1]
    source = made.pairs("train").source.tolist()
    assert source.count("cc") <= 9 and source.count("sbu") == 36 - source.count("cc") <= 30
    assert made.info["made_by"]["match"]["certificate"]["quota"] == {"cc": 9}
    with pytest.raises(ValueError, match=r"--quota laion: no picture .* accepted: cc, sbu"):
        ask("no", quota={"laion": 3})


def test_three_pictures_a_frame(
    pool: Corpus, scorer: Scorer, stores: tuple[Path, Path], tmp_path: Path
) -> None:
    few = video_corpus(tmp_path / "few", 2, 2, 2)  # 8 frames
    transfer(few, pool, scorer, tmp_path / "out", stores=stores, work=tmp_path / "w",
             options=Options(method=Method(per_row=3), verify=True, device="cpu"), progress=False)
    found = matches(read_corpus(tmp_path / "out"))
    assert [match["frame"] for match in found] == [frame for frame in range(8) for _ in range(3)]
    assert len({match["picture"] for match in found}) == 24


def test_the_most_similar_only(ask: Ask) -> None:
    whole, made = ask("whole")[1], ask(most=10)[1]
    ranks = [match["rank"] for match in matches(made)]
    assert sorted(ranks) == list(range(1, 11))
    assert [m["picture"] for m in matches(whole) if m["rank"] <= 10] == [
        m["picture"] for m in matches(made)]


@pytest.mark.parametrize("by", ["texts", "image-text"])
def test_by_words(
    ask: Ask, by: str, frames: Corpus, pool: Corpus, scorer: Scorer, tmp_path: Path
) -> None:
    made = ask(by=by, name="exact")[1]
    sides = [embed_corpus(corpus, "train", scorer, tmp_path / corpus.name, what, progress=False)
             for corpus, what in zip((frames, pool), stage.BY[by], strict=True)]
    matrix = np.asarray(sides[0].vectors, float) @ np.asarray(sides[1].vectors, float).T
    best = matrix[linear_sum_assignment(matrix, maximize=True)].sum()
    found = matches(made)
    assert sum(match["similarity"] for match in found) == pytest.approx(best, abs=1e-4)
    assert made.info["made_by"]["match"]["by"] == by


def test_killed_after_matching_it_does_not_match_again(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ask("whole", name="exact")[1]

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "write_pairs", killed)
        with pytest.raises(KeyboardInterrupt):
            ask(name="exact")
    assert not (tmp_path / "out").exists() and list((tmp_path / "out.work").glob("result-*.npz"))
    with monkeypatch.context() as patch:
        patch.setattr(methods, "match", killed)
        made = ask(name="exact")[1]
        with pytest.raises(KeyboardInterrupt):  # another problem is not answered by that result
            ask("other", name="auction")
    assert digests(made) == digests(whole)
    assert not (tmp_path / "out.work").exists()


def test_killed_while_matching_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scenes of near-duplicates, which take many rounds; the process is killed between them."""
    monkeypatch.setattr(matching_solve, "SAVE_EVERY_S", 0.0)
    draw = np.random.default_rng(2)
    rows = np.repeat(draw.normal(size=(12, 24)), 100, axis=0) + 0.05 * draw.normal(size=(1200, 24))
    columns = draw.normal(size=(6000, 24))
    rows, columns = (
        (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (rows, columns))

    def solve(work: Path) -> Any:
        return methods.solved(rows, columns, Method(epsilon=1e-5), None, key="k" * 64, work=work,
                              memory_bytes=4 << 20, threads=1, device="cpu", progress=False)

    whole = solve(tmp_path / "whole")
    state, kills = tmp_path / "work" / f"state-{'k' * 16}" / "matching.npz", 0
    for _ in range(3):
        before = state.stat().st_mtime_ns if state.exists() else 0
        child = multiprocessing.get_context("fork").Process(target=solve, args=(tmp_path / "work",))
        child.start()
        deadline = time.monotonic() + 20
        while child.is_alive() and time.monotonic() < deadline and not (
            state.exists() and state.stat().st_mtime_ns > before
        ):
            time.sleep(0.001)
        child.kill()
        child.join()
        kills += child.exitcode == -signal.SIGKILL and state.exists()
    assert kills >= 2
    found = solve(tmp_path / "work")
    np.testing.assert_array_equal(found.columns, whole.columns)
    assert (found.total, found.bound, found.rounds) == (whole.total, whole.bound, whole.rounds)
    assert whole.rounds > 3


def test_a_folder_with_other_things_is_left_alone(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "out.work").mkdir()
    (tmp_path / "out.work" / "mine.txt").write_text("kept")
    ask()
    assert [path.name for path in (tmp_path / "out.work").iterdir()] == ["mine.txt"]


def digests(corpus: Corpus) -> dict[str, str]:
    return {str(file.relative_to(corpus.path)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(corpus.path.rglob("*")) if file.is_file()}


def test_same_input_same_bytes_and_no_frame_in_them(
    ask: Ask, frames: Corpus, tmp_path: Path
) -> None:
    one, two = (ask(name, sheet=tmp_path / f"{name}.png")[1] for name in ("one", "two"))
    assert digests(one) == digests(two)
    assert set(digests(one)) == {"corpus.json", "images.parquet", "match/similarity.png",
                                 "pairs.parquet", "train.beton", "origins.parquet", "inputs.csv"}
    content = (one.path / "train.beton").read_bytes()
    beton = frames.images("train")
    assert not any(beton.stored(row).tobytes() in content for row in range(len(beton)))
    assert str(tmp_path) not in (one.path / "corpus.json").read_text()
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_the_sheet_shows_both_sides(ask: Ask, frames: Corpus, tmp_path: Path) -> None:
    from dataprep.transfer.sheet import HEAD, MARGIN, SIDE

    made = ask(sheet=tmp_path / "sheet.png")[1]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1200 and sheet.height > 1000
        box = (MARGIN, MARGIN + HEAD, MARGIN + SIDE, MARGIN + HEAD + SIDE)
        shown = np.asarray(sheet.crop(box), float)[4:-4, 4:-4]
        box = (box[0] + SIDE + 6, box[1], box[2] + SIDE + 6, box[3])
        right = np.asarray(sheet.crop(box), float)
    best = min(matches(made), key=lambda match: match["rank"])
    for corpus, image, pixels in ((frames, best["frame"], shown),
                                  (made, None, right[4:-4, 4:-4])):
        row = image if image is not None else [
            match["rank"] for match in matches(made)].index(1)
        picture = corpus.images("train").picture(row).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(picture, float)[4:-4, 4:-4] - pixels).max() < 2


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ({"name": "magic"}, "--method magic: accepted: auction, exact, dense"),
        ({"name": "greedy", "quota": {"cc": 3}}, "--quota: not with --method greedy"),
        ({"name": "random", "reject_below": 0.1}, "--reject-below: not with --method random"),
        ({"name": "dense", "per_row": 2}, "--per-row: not with --method dense"),
        ({"name": "exact", "quota": {"cc": 3}}, "exact: not with a quota"),
        ({"by": "sound"}, "--by sound: accepted: images, texts, image-text"),
        ({"most": 0}, "--most 0: accepted are 1 and above"),
        ({"frames_split": "val"}, "no split 'val'; it has train"),
        ({"per_row": 0}, "per_row: at least 1"),
    ],
)
def test_wrong_requests(ask: Ask, tmp_path: Path, how: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ask(**how)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.tmp-*"))


def test_provenance_keeps_what_was_known() -> None:
    assert json.loads(provenance("", {"rank": 1})) == {"match": {"rank": 1}}
    assert json.loads(provenance("a: {noun}", {})) == {"words": "a: {noun}", "match": {}}
    assert json.loads(provenance("[1]", {})) == {"words": "[1]", "match": {}}
    assert json.loads(provenance('{"model": "m"}', {})) == {"model": "m", "match": {}}


@pytest.mark.parametrize("command", ["match", "embed", "filter", "duplicates", "split"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run(add_commands if command == "match" else similarity_commands, command, "--help")
    assert left.value.code == 0 and "--scorer" in capsys.readouterr().out


def test_the_command(
    frames: Corpus, pool: Corpus, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["match", frames.path, pool.path, "--out", tmp_path / "out", "--scorer", f"clip:{clip}",
             "--device", "cpu", "--frames-stores", tmp_path / "a", "--pool-stores", tmp_path / "b",
             "--verify", "--quota", "cc=20", "--threads", "1", "--mixed", tmp_path / "mixed"]
    run(add_commands, *words)
    printed = capsys.readouterr().out
    assert "36 frames x 60 pictures by auction" in printed and "gap at most 0." in printed
    assert "verified by NumPy over all pairs: bound" in printed
    assert f"{tmp_path / 'out.sheet.png'}: pairs side by side" in printed
    assert (tmp_path / "out.sheet.png").exists()
    mixed, made = read_corpus(tmp_path / "mixed"), read_corpus(tmp_path / "out")
    assert len(mixed.pairs("train")) == len(frames.pairs("train")) + len(made.pairs("train"))
    with pytest.raises(ValueError, match="mixed exists already; --force replaces it"):
        run(add_commands, *words)
    with pytest.raises(ValueError, match="out exists already; --force replaces it"):
        run(add_commands, *words[:-2])
    with pytest.raises(ValueError, match="--quota cc: accepted: SOURCE=N"):
        run(add_commands, *words, "--force", "--quota", "cc")
