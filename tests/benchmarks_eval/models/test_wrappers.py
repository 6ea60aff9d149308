"""Pictures taken away from models that could see: LLaVA, open_clip and the engine's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks_eval.models import Material, Model, load_models, prepare
from benchmarks_eval.trials import Trial

TEXTS = ["a red ball", "cup"]


def material(root: Path, tasks: dict[str, list[str]]) -> Material:
    return Material({task: [Trial(image, (image,), ("a", "b"), 0, image) for image in images]
                     for task, images in tasks.items()}, root)


def sums(model: Model, features: object, texts: list[str]) -> list[float]:
    return [one.logprob_sum for row in
            model.generative.score_candidates(features, [texts] * (
                1 if features is None else len(features)))  # type: ignore[arg-type]
            for one in row]


def test_no_image_is_the_text_prior(llava_folder: Path, noise_pictures: list[Path],
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    seeing, blind = load_models([f"llava:{llava_folder}", f"no-image:llava:{llava_folder}"], "cpu")
    assert blind.name == "no-image-llava" and blind.kind == "generative"
    monkeypatch.setattr(blind.handle.inner, "image_features",
                        lambda images: pytest.fail("the tower ran"))
    features = blind.handle.image_features(noise_pictures)
    got = sums(blind, features, TEXTS)
    prior = sums(seeing, None, TEXTS)
    assert got == pytest.approx(prior * 5, abs=1e-5)
    asked: list[list[list[str]]] = []
    inner = blind.handle.inner.score_candidates
    monkeypatch.setattr(blind.handle.inner, "score_candidates", lambda f, c, **rest: (
        asked.append(c), inner(f, c, **rest))[1])
    sums(blind, features, [*TEXTS, "dog"])
    # Once for all pictures of the batch, and the same whatever was asked before.
    assert asked == [[sorted([*TEXTS, "dog"])]]
    assert len(set(blind.generative.generate(features, max_new_tokens=4))) == 1
    assert blind.handle.tower_hash != seeing.handle.tower_hash
    assert blind.handle.weights_hash != seeing.handle.weights_hash


def test_a_contrastive_model_has_no_text_prior(clip_folder: Path) -> None:
    spec = f"no-image:open_clip:{clip_folder}"
    with pytest.raises(ValueError, match="accepted: noise:SPEC, shuffled:SPEC") as raised:
        load_models([spec], "cpu")
    assert str(raised.value).startswith(f"--model {spec}: ")


def test_noise_is_fixed_and_has_nothing_of_the_picture(
        clip_folder: Path, noise_pictures: list[Path], tmp_path: Path) -> None:
    (model,) = load_models([f"noise:open_clip:{clip_folder}"], "cpu")
    noise = [np.asarray(model.handle.noise(p)) for p in noise_pictures]
    assert (noise[0] == np.asarray(model.handle.noise(noise_pictures[0]))).all()
    assert (noise[0] != noise[1]).mean() > 0.9
    assert abs(noise[0].mean() - 127.5) < 1 and 50 < noise[0].std() < 64
    copy = tmp_path / "copy.png"
    shutil.copy(noise_pictures[0], copy)
    assert (np.asarray(model.handle.noise(copy)) == noise[0]).all()
    handle = model.contrastive
    features = handle.image_features(noise_pictures)
    wanted = model.handle.inner.embed_images([model.handle.noise(p) for p in noise_pictures])
    torch.testing.assert_close(handle.embed_images(features), wanted)
    torch.testing.assert_close(handle.embed_images(noise_pictures), wanted)
    plain = model.handle.inner
    assert handle.tower_hash != plain.tower_hash and handle.weights_hash != plain.weights_hash


def test_shuffled_is_a_derangement_within_tasks(clip_folder: Path,
                                                noise_pictures: list[Path]) -> None:
    (model,) = load_models([f"shuffled:open_clip:{clip_folder}"], "cpu")
    before = model.handle.weights_hash
    names = [p.name for p in noise_pictures]
    root = noise_pictures[0].parent
    prepare([model], material(root, {"one": names[:3], "two": [*names[3:], names[0]]}))
    other = {p.name: Path(model.handle.stand_in(p)).name for p in noise_pictures}
    assert all(own != stands for own, stands in other.items())
    assert sorted(other.values()) == sorted(names)
    assert {other[n] for n in names[:3]} == set(names[:3])
    assert {other[n] for n in names[3:]} == set(names[3:])
    plain = model.handle.inner
    got = model.handle.image_features(noise_pictures)
    wanted = plain.image_features([root / other[n] for n in names])
    torch.testing.assert_close(got, wanted)
    hashes = {before, model.handle.weights_hash, plain.weights_hash}
    assert len(hashes) == 3
    (again,) = load_models([f"shuffled:open_clip:{clip_folder}"], "cpu")
    prepare([again], material(root, {"one": names[:3], "two": [*names[3:], names[0]]}))
    assert again.handle.tower_hash == model.handle.tower_hash


def test_single_pictures_are_pooled(clip_folder: Path, noise_pictures: list[Path]) -> None:
    (model,) = load_models([f"shuffled:open_clip:{clip_folder}"], "cpu")
    names = [p.name for p in noise_pictures]
    root = noise_pictures[0].parent
    prepare([model], material(root, {"a": names[:1], "b": names[1:3], "c": names[3:4]}))
    other = {n: Path(model.handle.stand_in(root / n)).name for n in names[:4]}
    assert sorted(other.values()) == sorted(names[:4])
    assert all(own != stands for own, stands in other.items())
    with pytest.raises(ValueError, match=r"4\.png: not among the pictures that were shuffled"):
        model.handle.image_features([noise_pictures[4]])
    with pytest.raises(ValueError, match="at least two different pictures") as raised:
        prepare([model], material(root, {"a": names[:1]}))
    assert str(raised.value).startswith("--model shuffled:open_clip:")


def test_equal_pictures_count_as_one(clip_folder: Path, noise_pictures: list[Path],
                                     tmp_path: Path) -> None:
    for name, own in (("a.png", 0), ("copy.png", 0), ("b.png", 1)):
        shutil.copy(noise_pictures[own], tmp_path / name)
    (model,) = load_models([f"shuffled:open_clip:{clip_folder}"], "cpu")
    prepare([model], material(tmp_path, {"t": ["a.png", "copy.png", "b.png"]}))
    assert Path(model.handle.stand_in(tmp_path / "a.png")).name == "b.png"
    assert Path(model.handle.stand_in(tmp_path / "copy.png")).name == "b.png"


def test_shuffled_captions_belong_to_other_pictures(llava_folder: Path,
                                                    noise_pictures: list[Path]) -> None:
    seeing, model = load_models([f"llava:{llava_folder}", f"shuffled:llava:{llava_folder}"], "cpu")
    root = noise_pictures[0].parent
    prepare([model, seeing], material(root, {"t": [p.name for p in noise_pictures]}))
    own = seeing.generative.generate(seeing.handle.image_features(noise_pictures),
                                     max_new_tokens=5)
    got = model.generative.generate(model.handle.image_features(noise_pictures), max_new_tokens=5)
    stands = [noise_pictures.index(Path(model.handle.stand_in(p))) for p in noise_pictures]
    assert got == [own[k] for k in stands]
    model.handle.record_scores({"never": "written"})
