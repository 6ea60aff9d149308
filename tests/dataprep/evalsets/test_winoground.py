"""Winoground: pictures from a tiny random Stable Diffusion 3, ranked, recorded, resumed."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataprep.evalsets.asking import Ask
from dataprep.evalsets.build import build_two_word, build_winoground
from dataprep.evalsets.candidates import Candidates, Wanted
from dataprep.evalsets.diffusion import MODES, Painter, Settings, Start, box_of, seed_of
from dataprep.evalsets.evalset import read_evalset
from dataprep.evalsets.files import sha256
from dataprep.evalsets.review import apply_review
from dataprep.evalsets.tiny import SIDE, save_tiny_sd3
from dataprep.evalsets.words import read_synonyms
from engine import Corpus


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_sd3(tmp_path_factory.mktemp("sd3"))


def settings(**changes: Any) -> Settings:
    return Settings(**{"steps": 2, "size": SIDE, "batch_size": 2, **changes})


@pytest.fixture(scope="module")
def painter(weights: Path) -> Painter:
    return Painter(weights, settings(), device="cpu", name="tiny")


def frame() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (48, 60, 3), np.uint8)
    return Image.fromarray(noise)


@pytest.fixture
def two_word(tmp_path: Path, corpus: Corpus, ask: Ask) -> Path:
    folder = tmp_path / "two_word"
    build_two_word(corpus, "test", folder, ask, model="rules", vocabulary=None,
                   synonyms=read_synonyms(), limit=2, prune=False)
    return folder


@pytest.mark.parametrize("mode", MODES)
def test_every_way_of_painting(weights: Path, mode: Any) -> None:
    painter = Painter(weights, settings(mode=mode), device="cpu")
    start = Start(frame(), (0.25, 0.25, 0.75, 0.75))
    one, two = painter.paint("a red ball", [1, 2], start)
    assert one.shape == (SIDE, SIDE, 3) and one.dtype == np.uint8 and one.std() > 5
    assert not np.array_equal(one, two)
    # each picture has a seed of its own: its neighbours do not matter
    other, again = painter.paint("a red ball", [3, 1], start)
    assert np.abs(again.astype(int) - one).max() <= 1 and not np.array_equal(other, two)
    assert painter.facts["mode"] == mode and len(painter.facts["weights_sha256"]) == 64
    assert not painter.facts["text_encoder_3"] and painter.facts["versions"]["diffusers"]
    whole = np.asarray(frame().resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    changed = (one != whole).any(-1)
    if mode == "inpainting":
        left, top, right, bottom = box_of(start.region, SIDE)
        outside = np.ones((SIDE, SIDE), bool)
        outside[top:bottom, left:right] = False
        assert not changed[outside].any() and changed[~outside].mean() > 0.5
    if mode != "text-to-image":
        with pytest.raises(ValueError, match="starts from a picture"):
            painter.paint("a red ball", [1])


def test_seeds_name_sample_side_prompt_attempt_and_seed() -> None:
    base = ("s1", "negative", "a cat", 0, 0)
    seeds = {seed_of(*base)}
    for place, other in enumerate(("s2", "positive", "a dog", 1, 1)):
        changed = list(base)
        changed[place] = other
        seeds.add(seed_of(*changed))  # type: ignore[arg-type]
    assert len(seeds) == 6 and all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(*base) == 5500147513384707243


def test_boxes_stay_inside() -> None:
    assert box_of((0.25, 0.5, 0.75, 1.0), 64) == (16, 32, 48, 64)
    for region in ((1, 1, 1, 1), (0.9, 0.9, 0.1, 0.1), (0, 0, 0, 0), (-1, -1, 2, 2)):
        left, top, right, bottom = box_of(region, 64)
        assert left < right <= 64 and top < bottom <= 64


def test_candidates_resume_at_their_old_batches(tmp_path: Path, painter: Painter) -> None:
    wanted = Wanted("0001-0", "negative", "a blue dog")
    whole = Candidates(tmp_path / "whole", painter, attempts=5, seed=3)
    records, pictures = whole.get(wanted)
    assert whole.made == 5
    assert [r["batch"] for r in records] == [[0, 1], [0, 1], [2, 3], [2, 3], [4]]
    assert len({r["seed"] for r in records}) == 5
    # killed after three pictures, one of them from a batch of two
    shutil.copytree(tmp_path / "whole", tmp_path / "torn")
    for attempt in (3, 4):
        (tmp_path / "torn" / f"0001-0-negative-{attempt:02d}.json").unlink()
    (tmp_path / "torn" / "0001-0-negative-04.png").unlink()
    calls: list[int] = []
    paint = painter.paint

    class Counting:
        facts, settings = painter.facts, painter.settings

        def paint(self, prompt: str, seeds: list[int], start: Any = None) -> Any:
            calls.append(len(seeds))
            return paint(prompt, seeds, start)

    resumed = Candidates(tmp_path / "torn", Counting(), attempts=5, seed=3)  # type: ignore[arg-type]
    again, same = resumed.get(wanted)
    assert calls == [2, 1] and resumed.made == 2
    assert again == records and all(map(np.array_equal, same, pictures))
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "torn" / file.name).read_bytes() == file.read_bytes()


def test_candidates_of_other_settings_are_refused(tmp_path: Path, painter: Painter) -> None:
    wanted = Wanted("s", "negative", "a dog")
    Candidates(tmp_path, painter, attempts=2, seed=0).get(wanted)
    for other, seed, message in (
        (wanted, 1, "another seed"),
        (Wanted("s", "negative", "a cat"), 0, "another seed"),
    ):
        with pytest.raises(ValueError, match=f"s-negative-00.json: was made with {message}"):
            Candidates(tmp_path, painter, attempts=2, seed=seed).get(other)
    with pytest.raises(ValueError, match="was made with another batch"):
        Candidates(tmp_path, painter, attempts=1, seed=0).get(wanted)
    (tmp_path / "s-negative-01.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"s-negative-01.png: is not the picture of"):
        Candidates(tmp_path, painter, attempts=2, seed=0).get(wanted)


def paint_with(painter: Painter, attempts: int = 3) -> Callable[[Path], Candidates]:
    return lambda folder: Candidates(folder, painter, attempts, 0)


def test_a_set(tmp_path: Path, two_word: Path, ask: Ask, painter: Painter, scorer: Any) -> None:
    out = tmp_path / "set"
    done = build_winoground(two_word, out, ask, paint_with(painter), scorer, model="rules",
                            min_margin=-2, progress=False)
    evalset = read_evalset(out)
    trials = [r for r in read_evalset(two_word).records if not r.dropped]
    assert done.counts["instances"] == len(evalset.records) == len(trials) >= 2
    for name in ("winoground.csv", "winoground_synthetic.csv"):
        with (out / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == [
            "instance_id", "positive_phrase", "negative_phrase", "image", "image_tag",
        ]
        assert [row["image_tag"] for row in rows] == ["positive", "negative"] * len(trials)
        assert all((out / row["image"]).is_file() for row in rows)
        real = [row["image"].startswith("../two_word/images/") for row in rows]
        assert real == ([True, False] if name == "winoground.csv" else [False] * 2) * len(trials)
    for record in evalset.records:
        for side, own, other in (("negative", "negative", "positive"),
                                 ("positive", "positive", "negative")):
            pictures = [np.asarray(Image.open(out / p)) for p in record.facts[side]["candidates"]]
            texts = scorer.embed_texts([record.fields[f"{s}_phrase"] for s in (own, other)])
            margins = scorer.embed_images(pictures) @ (texts[0] - texts[1])
            assert np.allclose(margins, record.facts[side]["margins"], atol=1e-5)
            assert int(record.fields[f"{side}_attempt"]) == int(np.argmax(margins))
        made = record.provenance
        assert made["template"] == "winoground-1" and made["two_word"]["template"] == "two-word-1"
        assert made["scorer_hash"] == scorer.hash and made["negative"]["model"] == "tiny"
        one = json.loads((out / record.images["negative"]).with_suffix(".json").read_text())
        assert one["prompt"] == made["negative"]["prompt"] and one["batch_size"] == 2
        assert sha256((out / record.images["negative"]).read_bytes()) == one["picture_sha256"]
    # the same again from what is there: nothing is painted, every byte the same
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    made_again: list[Candidates] = []

    def keep(folder: Path) -> Candidates:
        made_again.append(paint_with(painter)(folder))
        return made_again[0]

    build_winoground(two_word, out, ask, keep, scorer, model="rules", min_margin=-2, force=True,
                     progress=False)
    assert made_again[0].made == 0
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_a_review_may_choose_another_candidate(
    tmp_path: Path, two_word: Path, ask: Ask, painter: Painter, scorer: Any
) -> None:
    out = tmp_path / "set"
    build_winoground(two_word, out, ask, paint_with(painter, 2), scorer, model="rules", limit=1,
                     min_margin=-2, progress=False)
    evalset = read_evalset(out)
    record = evalset.records[0]
    other = str(1 - int(record.fields["negative_attempt"]))
    path = tmp_path / "d.csv"
    for attempt, message in (("2", "negative_attempt '2' is none of 0 to 1"), (other, "")):
        rows = [
            ["set", "id", "decision", "reviewer", "time", "note", "negative_attempt",
             "positive_attempt"],
            [evalset.info["digest"], record.id, "edit", "ada", "", "", attempt, "0"],
        ]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        if message:
            with pytest.raises(ValueError, match=message):
                apply_review(out, path)
        else:
            apply_review(out, path)
    table = (out / "winoground.csv").read_text()
    assert f"candidates/{record.id}-negative-0{other}.png,negative" in table


def test_instances_below_the_margin_are_left_out(
    tmp_path: Path, two_word: Path, ask: Ask, painter: Painter, scorer: Any
) -> None:
    done = build_winoground(two_word, tmp_path / "set", ask, paint_with(painter, 1), scorer,
                            model="rules", min_margin=2, progress=False)
    records = read_evalset(tmp_path / "set").records
    assert done.counts["instances"] == 0 and done.tasks == []
    assert all(record.dropped.startswith("margin: best negative") for record in records)
    with pytest.raises(ValueError, match="a set of kind winoground; accepted: two_word"):
        build_winoground(tmp_path / "set", tmp_path / "x", ask, paint_with(painter), scorer,
                         model="rules")


def test_edited_frames_start_from_the_real_picture(
    tmp_path: Path, two_word: Path, ask: Ask, weights: Path, scorer: Any
) -> None:
    painter = Painter(weights, settings(mode="image-to-image", strength=0.5), device="cpu")
    out = tmp_path / "set"
    build_winoground(two_word, out, ask, paint_with(painter, 1), scorer, model="rules", limit=1,
                     min_margin=-2, progress=False)
    record = read_evalset(out).records[0]
    one = json.loads((out / record.images["negative"]).with_suffix(".json").read_text())
    real = Image.open(out / record.images["positive"]).convert("RGB")
    assert one["start_sha256"] == sha256(real.tobytes()) and one["mode"] == "image-to-image"
    assert one["region"] == [0.2, 0.2, 0.8, 0.8] and one["strength"] == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "sketch"}, "--mode sketch: accepted are text-to-image, image-to-image"),
        ({"size": 50}, "--size 50: accepted are multiples of 16"),
        ({"strength": 0.0}, "--strength 0.0: accepted are above 0, at most 1"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"dtype": "int8"}, "--dtype int8: accepted are float32, float16, bfloat16"),
    ],
)
def test_bad_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**changes).check()


def test_bad_weights(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(ValueError, match=r"no model_index.json; accepted is the local folder"):
        Painter(tmp_path, settings())
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    with pytest.raises(ValueError, match="describes StableDiffusionXLPipeline; accepted is Stable"):
        Painter(tmp_path, settings())
    broken = tmp_path / "broken"
    shutil.copytree(weights, broken)
    shutil.rmtree(broken / "vae")
    with pytest.raises(ValueError, match="broken"):
        Painter(broken, settings())
