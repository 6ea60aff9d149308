"""open_clip models: local weights only, the library's own cosines, traps refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from support.small_models import CLIP_CONFIG

from benchmarks_eval.models import load_models
from benchmarks_eval.models import open_clip as ours
from benchmarks_eval.models.open_clip import load_open_clip

TEXTS = ["a red ball", "a cup", "look at the dog"]
WEIGHTS = "open_clip_pytorch_model.bin"


@pytest.fixture
def named(tmp_path: Path, clip_folder: Path) -> tuple[str, Path]:
    """The same weights under a name of open_clip's own list, and their file."""
    (tmp_path / "small-clip.json").write_text(json.dumps(CLIP_CONFIG), encoding="utf-8")
    quick = CLIP_CONFIG | {"quick_gelu": True}
    (tmp_path / "small-clip-quickgelu.json").write_text(json.dumps(quick), encoding="utf-8")
    open_clip.add_model_config(tmp_path)
    file = tmp_path / "weights.pt"
    shutil.copy(clip_folder / WEIGHTS, file)
    return "small-clip", file


def test_cosines_are_the_librarys(clip_folder: Path, noise_pictures: list[Path]) -> None:
    (model,) = load_models([f"open_clip:{clip_folder}"], "cpu")
    assert (model.kind, model.name) == ("contrastive", "clip")
    net, _, prepare = open_clip.create_model_and_transforms(
        f"local-dir:{clip_folder}", load_weights=False)
    net.load_state_dict(torch.load(clip_folder / WEIGHTS))
    pixels = torch.stack([prepare(Image.open(p)) for p in noise_pictures])
    tokens = open_clip.get_tokenizer(f"local-dir:{clip_folder}")(TEXTS)
    with torch.no_grad():
        net.eval()
        wanted = net.encode_image(pixels, normalize=True) @ net.encode_text(tokens,
                                                                           normalize=True).T
    handle = model.contrastive
    features = handle.image_features(noise_pictures)
    assert features.shape == (5, 1, 32)
    got = handle.embed_images(features) @ handle.embed_texts(TEXTS).T
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)
    from_array = handle.embed_images(features.numpy())
    torch.testing.assert_close(from_array, handle.embed_images(noise_pictures), atol=1e-6, rtol=0)
    assert wanted.std() > 0.01


def test_a_name_with_a_file(named: tuple[str, Path], noise_pictures: list[Path]) -> None:
    name, file = named
    (model,) = load_models([f"open_clip:{name}:{file}"], "cpu")
    assert model.name == name
    vectors = model.contrastive.embed_images(noise_pictures)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))
    quick = load_open_clip(f"{name}-quickgelu", file, "cpu")
    assert quick.tower_hash != model.handle.tower_hash  # same weights, another activation


def test_hashes_follow_what_decides(clip_folder: Path, tmp_path: Path) -> None:
    first = load_open_clip(str(clip_folder), None, "cpu")
    assert load_open_clip(str(clip_folder), None, "cpu").weights_hash == first.weights_hash
    other = tmp_path / "other"
    shutil.copytree(clip_folder, other)
    state = torch.load(other / WEIGHTS)
    state["text_projection"][0, 0] += 1
    torch.save(state, other / WEIGHTS)
    text = load_open_clip(str(other), None, "cpu")
    assert text.tower_hash == first.tower_hash and text.weights_hash != first.weights_hash
    state["visual.proj"][0, 0] += 1
    torch.save(state, other / WEIGHTS)
    visual = load_open_clip(str(other), None, "cpu")
    assert visual.tower_hash != first.tower_hash
    config = other / "open_clip_config.json"
    about = json.loads(config.read_text("utf-8"))
    about["preprocess_cfg"]["mean"] = [0.4] * 3
    config.write_text(json.dumps(about), encoding="utf-8")
    assert load_open_clip(str(other), None, "cpu").tower_hash != visual.tower_hash


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_openai_archives_need_quickgelu(named: tuple[str, Path], tmp_path: Path) -> None:
    name, _ = named
    archive = tmp_path / "openai.pt"
    module = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    torch.jit.save(module, str(archive))
    with pytest.raises(ValueError, match=r"trained with QuickGELU; accepted: open_clip:small-clip-"
                                         r"quickgelu:.*openai\.pt"):
        load_open_clip(name, archive, "cpu")


def test_a_published_file_decides_activation_and_preprocessing(
        named: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    name, file = named
    about = {"hash": ours.hash_file(file), "label": "X, y", "mean": (0.1,) * 3, "std": (0.2,) * 3,
             "interpolation": "bilinear", "resize_mode": "squash"}
    monkeypatch.setattr(ours, "_published", lambda: iter([about]))
    model = load_open_clip(name, file, "cpu")
    assert model.model.visual.preprocess_cfg["mean"] == (0.1,) * 3
    assert model.model.visual.preprocess_cfg["resize_mode"] == "squash"
    with pytest.raises(ValueError, match=r"\(X, y\) were trained with GELU; accepted: "
                                         r"open_clip:small-clip:"):
        load_open_clip(f"{name}-quickgelu", file, "cpu")


def test_open_clip_says_what_it_publishes() -> None:
    known = list(ours._published())
    assert len(known) > 20
    assert any(about.get("quick_gelu") for about in known)


def test_what_cannot_be_loaded_is_one_line(clip_folder: Path, named: tuple[str, Path],
                                           tmp_path: Path) -> None:
    name, file = named
    with pytest.raises(ValueError, match="open_clip has no such model; it has ViT-B-16"):
        load_open_clip("ViT-B-999", file, "cpu")
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="not weights of this model") as raised:
        load_open_clip(name, broken, "cpu")
    assert "\n" not in str(raised.value)
    state = torch.load(file)
    state.pop("logit_scale")
    torch.save(state, file)
    with pytest.raises(ValueError, match="logit_scale"):
        load_open_clip(name, file, "cpu")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="one file of weights expected, found weights: none"):
        load_open_clip(str(empty), None, "cpu")


def test_a_broken_picture_is_named(clip_folder: Path, tmp_path: Path) -> None:
    model = load_open_clip(str(clip_folder), None, "cpu")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.jpg: not a readable picture"):
        model.image_features([broken])
    with pytest.raises(ValueError, match=r"none\.jpg: no such picture"):
        model.image_features([tmp_path / "none.jpg"])


def test_the_same_tokens_embed_exactly_the_same(clip_folder: Path) -> None:
    model = load_open_clip(str(clip_folder), None, "cpu")
    vectors = model.embed_texts(["a cup", "the dog", "A  Cup", "a red ball"])
    assert (vectors[0] == vectors[2]).all() and (vectors[0] != vectors[1]).any()
    torch.testing.assert_close(vectors[3:], model.embed_texts(["a red ball"]))
