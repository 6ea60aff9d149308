"""The engine's models under the evaluation's protocols: hashes, cards, features from a store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks_eval.__main__ import main
from benchmarks_eval.models import load_models
from engine.export import export_model
from engine.models.babyllava import build_generative
from engine.models.config import ModelConfig
from engine.models.contrastive import build_contrastive
from engine.tokens import TokenizerConfig, build_tokenizer

CONFIG = ModelConfig.model_validate({
    "image_size": 32,
    "vision": {"name": "resnet", "args": {"channels": (8, 8, 16, 16), "stem_type": "deep",
                                          "stem_width": 4}},
    "decoder": {"layers": 2, "width": 32, "heads": 4, "inner": 48, "positions": 64, "dropout": 0,
                "attention_dropout": 0, "embed_dropout": 0},
    "contrastive": {"dim": 16},
})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A contrastive and a generative model with one tower, random weights."""
    root = tmp_path_factory.mktemp("exported")
    tokenizer = build_tokenizer(TokenizerConfig.model_validate({"min_count": 1}),
                                ["a red green blue ball cup thing look at the what is it ?"])
    torch.manual_seed(0)
    contrastive = build_contrastive(CONFIG, tokenizer.vocab_size)
    generative = build_generative(CONFIG, tokenizer.vocab_size)
    generative.vision.load_state_dict(contrastive.vision.state_dict())
    models = {"contrastive": contrastive, "generative": generative}
    for kind, model in models.items():
        export_model(root / kind / "model", model, kind=kind,  # type: ignore[arg-type]
                     config=CONFIG, tokenizer=tokenizer, card={})
    return {kind: root / kind / "model" for kind in models}


def test_hashes_follow_what_decides(folders: dict[str, Path], tmp_path: Path) -> None:
    one, two = load_models([str(folder) for folder in folders.values()], "cpu")
    assert one.handle.tower_hash == two.handle.tower_hash
    assert one.handle.weights_hash != two.handle.weights_hash
    folder = tmp_path / "model"
    shutil.copytree(folders["generative"], folder)
    (same,) = load_models([str(folder)], "cpu")
    same.handle.record_scores({"s": {"version": 1, "figures": {}}})
    assert json.loads((folder / "scores.json").read_text("utf-8")) == {
        "s": {"version": 1, "figures": {}}}
    (same,) = load_models([str(folder)], "cpu")
    assert same.handle.weights_hash == two.handle.weights_hash  # the card is no weight
    state = load_file(folder / "model.safetensors")
    key = next(k for k in state if k.startswith("decoder"))
    state[key].view(-1)[0] += 1
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (changed,) = load_models([str(folder)], "cpu")
    assert changed.handle.weights_hash != two.handle.weights_hash
    assert changed.handle.tower_hash == two.handle.tower_hash


def test_features_may_come_from_a_store(folders: dict[str, Path],
                                        noise_pictures: list[Path]) -> None:
    contrastive, generative = load_models([str(folder) for folder in folders.values()], "cpu")
    features = generative.handle.image_features(noise_pictures)
    assert features.shape[1] == generative.handle.prefix_tokens
    texts = [["a red ball", "cup"]] * 5
    from_array = generative.generative.score_candidates(features.numpy(), texts)
    assert from_array == generative.generative.score_candidates(features, texts)
    torch.testing.assert_close(contrastive.contrastive.embed_images(features.numpy()),
                               contrastive.contrastive.embed_images(noise_pictures))
    assert generative.generative.generate(features.numpy(), max_new_tokens=3) == \
        generative.generative.generate(features, max_new_tokens=3)


def test_wrappers_leave_the_card_alone(folders: dict[str, Path]) -> None:
    for wrapper in ("no-image", "noise", "shuffled"):
        (model,) = load_models([f"{wrapper}:{folders['generative']}"], "cpu")
        model.handle.record_scores({"s": {}})
    assert not (folders["generative"] / "scores.json").exists()


def test_a_checkpoint_without_tokeniser_is_one_line(folders: dict[str, Path], book: Path,
                                                    tmp_path: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["generative"], folder)
    gone = [file for file in folder.iterdir() if "token" in file.name]
    assert gone
    for file in gone:
        file.unlink()
    for spec in (str(folder), f"noise:{folder}"):
        assert main(["run", "--model", spec, "--tasks", str(book / "tasks.yaml"), "--out",
                     str(tmp_path / "out"), "--device", "cpu"]) == 2
        shown = capsys.readouterr().err.strip().splitlines()
        assert len(shown) == 1 and shown[0].startswith("error: ")
        assert str(folder) in shown[0] and "token" in shown[0]
    assert not (tmp_path / "out").exists()
