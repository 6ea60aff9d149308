"""Scorers: real open_clip models of toy size, the engine's checkpoints, the stand-in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from support.similar import TINY, scene, tiny_clip, utterance

from dataprep.files import sha256_file
from dataprep.similarity import clip, open_scorer
from dataprep.similarity.scorers import Scorer, checked_vectors
from engine.export import export_model
from engine.models.babyllava import build_generative
from engine.models.config import ModelConfig
from engine.models.contrastive import build_contrastive
from engine.tokens import TokenizerConfig, build_tokenizer

PICTURES = [scene(seed, size) for seed, size in enumerate((32, 48, 40, 64, 32, 100, 33))]
TEXTS = [utterance(seed) for seed in range(7)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """Register ``toy`` and ``toy-quickgelu`` with open_clip; return a file of weights for both."""
    place = tmp_path_factory.mktemp("configs")
    (place / "toy.json").write_text(json.dumps(TINY))
    (place / "toy-quickgelu.json").write_text(json.dumps({**TINY, "quick_gelu": True}))
    open_clip.add_model_config(place)
    return folder / "open_clip_pytorch_model.bin"


def check_vectors(scorer: Scorer) -> None:
    """Unit rows; what a vector is depends neither on order nor on its neighbours in a batch."""
    for embed, given in ((scorer.embed_images, PICTURES), (scorer.embed_texts, TEXTS)):
        whole = checked_vectors(scorer, embed(given), len(given))
        assert whole.dtype == np.float32 and np.linalg.norm(whole, axis=1) == pytest.approx(1, 1e-5)
        assert np.abs(whole[0] - whole[1]).max() > 1e-3
        order = [4, 2, 6, 0, 5, 1, 3]
        np.testing.assert_allclose(embed([given[at] for at in order]), whole[order], atol=2e-5)
        parts = np.concatenate([embed(given[:3]), embed(given[3:4]), embed(given[4:])])
        np.testing.assert_allclose(parts, whole, atol=2e-5)
        assert embed([]).shape == (0, scorer.dim)


def test_a_folder_of_open_clip(folder: Path) -> None:
    scorer = open_scorer(f"clip:{folder}", "cpu")
    check_vectors(scorer)
    model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    with torch.no_grad():
        pixels = torch.stack([prepare(Image.fromarray(picture)) for picture in PICTURES])
        images = model.encode_image(pixels, normalize=True)
        tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
        words = model.encode_text(tokens, normalize=True)
    np.testing.assert_allclose(scorer.embed_images(PICTURES), images, atol=2e-5)
    np.testing.assert_allclose(scorer.embed_texts(TEXTS), words, atol=2e-5)


def test_the_hash_is_of_the_weights(folder: Path, tmp_path: Path) -> None:
    first, again = (open_scorer(f"clip:{folder}", "cpu") for _ in range(2))
    other = open_scorer(f"clip:{tiny_clip(tmp_path / 'tiny', seed=1)}", "cpu")
    assert first.hash == again.hash != other.hash
    assert first.facts["weights_sha256"] == sha256_file(folder / "open_clip_pytorch_model.bin")
    assert str(folder) not in json.dumps([first.name, first.facts])


def test_a_name_and_a_file(named: Path) -> None:
    plain, quick = (open_scorer(f"clip:{name}:{named}", "cpu") for name in ("toy", "toy-quickgelu"))
    check_vectors(plain)
    assert (plain.facts["activation"], quick.facts["activation"]) == ("gelu", "quick_gelu")
    assert plain.facts["weights_sha256"] == quick.facts["weights_sha256"]
    assert plain.hash != quick.hash
    # The trap: one file, two activations, other vectors, and open_clip says nothing.
    assert np.abs(plain.embed_images(PICTURES) - quick.embed_images(PICTURES)).max() > 1e-4


def test_published_weights_under_the_wrong_name(
    named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = open_clip.get_pretrained_cfg("ViT-B-32", "openai")
    assert about["quick_gelu"] is True
    known = clip._published()
    openai = [key for key, value in known.items() if "openaipublic" in value["url"]]
    assert "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af" in openai
    # Publish our file: by its whole hash as OpenAI does, by eight digits as others do.
    for key in (sha256_file(named), sha256_file(named)[:8]):
        ours = {key: {**about, "label": "ViT-B-32, openai", "mean": (0.1, 0.2, 0.3)}}
        monkeypatch.setattr(clip, "_published", lambda ours=ours: ours)
        with pytest.raises(ValueError, match=r"with QuickGELU; accepted: clip:toy-quickgelu"):
            open_scorer(f"clip:toy:{named}", "cpu")
        scorer = open_scorer(f"clip:toy-quickgelu:{named}", "cpu")
        assert scorer.facts["preprocess"]["mean"] == [0.1, 0.2, 0.3]


class Holder(torch.nn.Module):
    """Weights as OpenAI ships them: a TorchScript archive in half precision."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, value in state.items():
            place = self
            *parents, last = name.split(".")
            for parent in parents:
                if not hasattr(place, parent):
                    place.add_module(parent, torch.nn.Module())
                place = getattr(place, parent)
            place.register_buffer(last, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_openais_own_archive(named: Path, tmp_path: Path) -> None:
    state = torch.load(named, weights_only=True)
    halves = {key: value.half() for key, value in state.items() if key != "attn_mask"}
    extra = {key: torch.tensor(7) for key in ("input_resolution", "context_length", "vocab_size")}
    archive = tmp_path / "ViT.pt"
    torch.jit.script(Holder({**halves, **extra})).save(str(archive))
    with pytest.raises(ValueError, match=r"OpenAI's own archive.*accepted: clip:toy-quickgelu:"):
        open_scorer(f"clip:toy:{archive}", "cpu")
    scorer = open_scorer(f"clip:toy-quickgelu:{archive}", "cpu")
    wide = open_scorer(f"clip:toy-quickgelu:{named}", "cpu")
    np.testing.assert_allclose(
        scorer.embed_images(PICTURES), wide.embed_images(PICTURES), atol=5e-3)


def test_wrong_weights(named: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.bin"
    half.write_bytes(named.read_bytes()[:50_000])
    text = tmp_path / "text.pt"
    text.write_text("no weights")
    other = tiny_clip(tmp_path / "other", embed_dim=12) / "open_clip_pytorch_model.bin"
    for file in (half, text, other):
        with pytest.raises(ValueError, match=r"not weights of this model") as caught:
            open_scorer(f"clip:toy:{file}", "cpu")
        assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"nowhere\.pt: no such file of weights"):
        open_scorer("clip:toy:/nowhere.pt", "cpu")
    with pytest.raises(ValueError, match=r"open_clip has no such model; it has ViT-B-16"):
        open_scorer(f"clip:ViT-B-33:{named}", "cpu")
    with pytest.raises(ValueError, match=r"no open_clip_config\.json there"):
        open_scorer(f"clip:{tmp_path}", "cpu")
    (tmp_path / "other" / "second.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"one file of weights expected"):
        open_scorer(f"clip:{tmp_path / 'other'}", "cpu")


@pytest.mark.parametrize("spec", ["", "clip", "clip:", "clip:a:", "clip::b", "bert:x", "standin2"])
def test_unknown_specifications(spec: str) -> None:
    with pytest.raises(ValueError, match=r"accepted: clip:NAME:WEIGHTS .* standin"):
        open_scorer(spec)


def test_no_such_device(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"device 'tpu': accepted: auto, cpu, cuda"):
        open_scorer(f"clip:{folder}", "tpu")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a contrastive and a generative model of random weights."""
    config = ModelConfig.model_validate({
        "image_size": 32,
        "vision": {"name": "resnet", "args": {"channels": (8, 8, 16, 16), "stem_type": "deep",
                                              "stem_width": 4}},
        "decoder": {"layers": 1, "width": 16, "heads": 2, "inner": 16, "positions": 64},
        "contrastive": {"dim": 16},
    })
    tokenizer = build_tokenizer(TokenizerConfig.model_validate({"min_count": 1}), TEXTS)
    torch.manual_seed(0)
    run = tmp_path_factory.mktemp("runs") / "cvcl"
    for kind, build in (("contrastive", build_contrastive), ("generative", build_generative)):
        export_model(run / kind / "model", build(config, tokenizer.vocab_size), kind=kind,  # type: ignore[arg-type]
                     config=config, tokenizer=tokenizer, card={})
    return run


def test_a_checkpoint(exported: Path) -> None:
    scorer = open_scorer(f"checkpoint:{exported / 'contrastive' / 'model'}", "cpu")
    check_vectors(scorer)
    assert scorer.dim == 16 and scorer.name.startswith("checkpoint cvcl (")
    assert not scorer.embed_texts(["", "zzz"])[0].any()
    (exported / "contrastive" / "model" / "README.md").write_text("scores were added")
    again = open_scorer(f"checkpoint:{exported / 'contrastive' / 'model'}", "cpu")
    assert again.hash == scorer.hash


def test_only_contrastive_checkpoints(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a generative model; accepted: a contrastive one"):
        open_scorer(f"checkpoint:{exported / 'generative' / 'model'}", "cpu")
    with pytest.raises(ValueError, match="not a model directory"):
        open_scorer(f"checkpoint:{tmp_path}", "cpu")


def test_vectors_are_checked(folder: Path) -> None:
    scorer = open_scorer(f"clip:{folder}", "cpu")
    good = scorer.embed_texts(TEXTS)
    for change, complaint in ((np.nan, "vector 2 of a batch of 7 has length nan"),
                              (3.0, "vector 2 of a batch of 7 has length"),):
        bad = good.copy()
        bad[2] = change
        with pytest.raises(ValueError, match=complaint):
            checked_vectors(scorer, bad, 7)
    with pytest.raises(ValueError, match=r"vectors of shape \(7, 24\); \(6, 24\) expected"):
        checked_vectors(scorer, good, 6)
