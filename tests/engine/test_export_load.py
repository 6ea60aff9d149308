"""Exported models come back equal; likelihoods against a plain loop, one candidate at a time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from engine import load
from engine.augment import normalise
from engine.export import export_model
from engine.loading import ContrastiveModelHandle, GenerativeModel
from engine.models.babyllava import build_generative
from engine.models.config import ModelConfig
from engine.models.contrastive import build_contrastive
from engine.models.row import Row
from engine.models.vision import tower_hash
from engine.scoring import FEWEST, score_candidates
from engine.tokens import Tokenizer, TokenizerConfig, build_tokenizer

WORDS = "a red blue apple car dog look at the big little ball"
CARD = {
    "name": "tiny",
    "seed": 3,
    "corpus": {
        "name": "shapes",
        "version": "1",
        "splits": {"train": {"images": 5, "pairs": 9}},
        "sources": [{"name": "mine", "licence": "CC0-1.0", "url": "", "notes": ""}],
    },
    "phases": [{"name": "joint", "objective": "generative", "epochs": 2, "validation_loss": 1.5}],
}


def tokenizer() -> Tokenizer:
    return build_tokenizer(TokenizerConfig(min_count=1), [WORDS])


def config(**changes: object) -> ModelConfig:
    tree: dict = {
        "image_size": 64,
        "vision": {
            "name": "resnet",
            "args": {"channels": (8, 8, 16, 16), "stem_type": "deep", "stem_width": 4},
        },
        "decoder": {"layers": 2, "width": 32, "heads": 4, "inner": 48, "positions": 40},
        "contrastive": {"dim": 12},
    }
    return ModelConfig.model_validate({**tree, **changes})


def export(directory: Path, kind: str = "generative", **changes: object) -> Path:
    torch.manual_seed(0)
    made, words = config(**changes), tokenizer()
    build = build_generative if kind == "generative" else build_contrastive
    model = build(made, words.vocab_size)
    for parameter in model.parameters():  # far from uniform, so that mistakes show
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return export_model(
        directory, model, kind=kind, config=made, tokenizer=words, card=CARD  # type: ignore[arg-type]
    )  # fmt: skip


def pictures(count: int = 3, size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def generative(tmp_path_factory: pytest.TempPathFactory) -> GenerativeModel:
    model = load(export(tmp_path_factory.mktemp("generative") / "model"), device="cpu")
    assert isinstance(model, GenerativeModel)
    return model


@pytest.fixture(scope="module")
def contrastive(tmp_path_factory: pytest.TempPathFactory) -> ContrastiveModelHandle:
    model = load(export(tmp_path_factory.mktemp("c") / "model", "contrastive"), device="cpu")
    assert isinstance(model, ContrastiveModelHandle)
    return model


@pytest.mark.parametrize("kind", ["generative", "contrastive"])
def test_round_trip(tmp_path: Path, kind: str) -> None:
    path = export(tmp_path / "deep" / "model", kind)
    loaded = load(path)
    assert loaded.kind == kind
    state = load_file(path / "model.safetensors")
    assert all(torch.equal(state[k], v.cpu()) for k, v in loaded.model.state_dict().items())
    assert loaded.tower_hash == tower_hash(loaded.model.vision)
    assert not loaded.model.training
    assert sorted(p.name for p in path.parent.iterdir()) == ["model"]
    again = export(path, kind)  # replaces
    assert sorted(p.name for p in again.parent.iterdir()) == ["model"]


def test_failed_export_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = export(tmp_path / "model")
    before = (path / "model.safetensors").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("engine.export.save_file", full)
    with pytest.raises(OSError, match="No space"):
        export(path)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    monkeypatch.undo()
    rename = os.rename

    def no_second(a: os.PathLike, b: os.PathLike) -> None:
        if Path(b).name == "model" and "old" not in Path(a).name:
            raise OSError("gone")
        rename(a, b)

    monkeypatch.setattr(os, "rename", no_second)
    with pytest.raises(OSError, match="gone"):
        export(path)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (path / "model.safetensors").read_bytes() == before


def test_card_and_scores(tmp_path: Path) -> None:
    path = export(tmp_path / "model")
    card = (path / "README.md").read_text()
    assert card.startswith("---\n") and "CC0-1.0" in card and "None recorded yet." in card
    assert "| joint | generative | 2 | 1.5 |" in card and "## Limits" in card
    model = load(path)
    figures = {"labeled/accuracy": {"value": 0.61234, "low": 0.5, "high": 0.7, "n": 1000}}
    model.record_scores({"picturebook": {"version": 1, "figures": figures}})
    model.record_scores({"other": {"version": 2, "figures": {"x/y": {"value": 1.0}}}})
    card = (path / "README.md").read_text()
    assert "| labeled/accuracy | 0.6123 | 0.5 | 0.7 | 1,000 |" in card and "other" in card
    assert "None recorded" not in card and card.count("## Scores") == 1 and "## Limits" in card
    assert set(json.loads((path / "scores.json").read_text())) == {"picturebook", "other"}
    assert not list(path.glob(".tmp*"))


def _plain(model: GenerativeModel, features: torch.Tensor | None, ids: list[int]) -> list[float]:
    """Log-probabilities of ``ids`` after one picture (or <sos>), nothing shared or packed."""
    inner = model.model
    tokens = torch.tensor(ids)
    if features is None:
        prefix = inner.decoder.embed(torch.tensor([model.tokenizer.sos_id]))
    else:
        prefix = inner.connector(features[None])[0]
    x = torch.cat([prefix, inner.decoder.embed(tokens)])
    total = x.shape[0]
    mask = torch.ones(total, total, dtype=torch.bool).tril()

    def attend(_: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = torch.einsum("ihd,jhd->hij", q, k) * q.shape[-1] ** -0.5
        return torch.einsum("hij,jhd->ihd", scores.masked_fill(~mask, -1e30).softmax(-1), v)

    hidden = inner.decoder.run(x, torch.arange(total), attend)
    table = (hidden @ inner.decoder.output_weight.T).log_softmax(-1)
    first = prefix.shape[0] - 1
    return table[first : first + len(ids)].gather(1, tokens[:, None])[:, 0].tolist()


CANDIDATES = [["red apple", "blue car", "dog"], [], ["look at the big ball", "a"]]


@pytest.mark.parametrize("score_eos", [False, True])
@pytest.mark.parametrize("prompt", ["", "look at the"])
@pytest.mark.parametrize("budget", [16_384, 1])
def test_likelihoods(
    generative: GenerativeModel, score_eos: bool, prompt: str, budget: int
) -> None:
    features = generative.image_features(list(pictures()))
    words = generative.tokenizer
    got = score_candidates(
        generative.model, words, features, CANDIDATES,
        prompt=prompt, score_eos=score_eos, token_budget=budget,
    )  # fmt: skip
    assert [len(records) for records in got] == [3, 0, 2]
    head = words.encode(prompt, eos=False)
    for row, texts, records in zip(features, CANDIDATES, got, strict=True):
        for text, record in zip(texts, records, strict=True):
            ids = words.encode(text, eos=score_eos)
            want = _plain(generative, row, head + ids)[len(head) :]
            assert record.token_logprobs == pytest.approx(want, abs=1e-5)
            assert record.num_tokens == len(ids)
            assert record.logprob_sum == pytest.approx(sum(want), abs=1e-4)


def test_how_pictures_are_cut_into_batches_changes_nothing(
    generative: GenerativeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = list(pictures(5))
    seen: list[tuple[int, int]] = []
    hidden = generative.model.hidden
    monkeypatch.setattr(generative.model, "hidden", lambda row, **kwargs: (
        seen.append((row.tokens.numel(), row.loss_rows.numel())), hidden(row, **kwargs))[1])
    towers: list[int] = []
    generative.model.vision.register_forward_hook(
        lambda module, args, out: towers.append(len(args[0])))
    texts = [["dog"], ["red apple", "dog"], ["look at the big ball"], ["a"], ["blue car"]]
    whole = generative.score_candidates(generative.image_features(images), texts)
    for size in (1, 2, 3):
        parts = [record for first in range(0, 5, size) for record in generative.score_candidates(
            generative.image_features(images[first:first + size]), texts[first:first + size])]
        for one, other in zip(whole, parts, strict=True):
            for a, b in zip(one, other, strict=True):
                assert a.num_tokens == b.num_tokens
                assert a.logprob_sum == pytest.approx(b.logprob_sum, abs=1e-6)
    # What makes it so: neither a lone picture nor a product of a few rows.
    assert min(towers) >= 2 and set(towers) == {2, 3, 5}
    assert min(positions for positions, _ in seen) >= FEWEST


def test_text_only_prior(generative: GenerativeModel) -> None:
    (records,) = generative.score_candidates(None, [["red apple", "dog"]])
    for text, record in zip(["red apple", "dog"], records, strict=True):
        want = _plain(generative, None, generative.tokenizer.encode(text, eos=False))
        assert record.token_logprobs == pytest.approx(want, abs=1e-5)


def test_bidirectional_prefix_scores_as_it_trains(tmp_path: Path) -> None:
    both = load(export(tmp_path / "both", prefix_attention="bidirectional"), device="cpu")
    causal = load(export(tmp_path / "causal"), device="cpu")
    assert isinstance(both, GenerativeModel) and isinstance(causal, GenerativeModel)
    features = both.image_features(list(pictures(1)))
    first = both.score_candidates(features, [["red apple"]])[0][0]
    assert first.logprob_sum != pytest.approx(
        causal.score_candidates(features, [["red apple"]])[0][0].logprob_sum, abs=1e-4
    )
    # The same document through the training path: 4 picture tokens and 2 words.
    ids = both.tokenizer.encode("red apple", eos=False)
    row = Row(
        tokens=torch.tensor([0, 0, 0, 0, *ids]),
        positions=torch.arange(6, dtype=torch.int32),
        cu_seqlens=torch.tensor([0, 6], dtype=torch.int32),
        prefix_lens=torch.tensor([4], dtype=torch.int32),
        image_slots=torch.arange(4),
        loss_rows=torch.tensor([3, 4]),
        targets=torch.tensor(ids),
    )
    assert first.logprob_sum == pytest.approx(-both.model(row, features=features).item(), abs=1e-4)


def test_too_long_is_an_error(generative: GenerativeModel) -> None:
    features = generative.image_features(list(pictures(1)))
    long = " ".join(["dog"] * 25)
    with pytest.raises(ValueError, match="exceeds the model's 40"):
        generative.score_candidates(features, [[long]], prompt=long)
    with pytest.raises(ValueError, match="candidates: one list a picture"):
        generative.score_candidates(features, [])
    with pytest.raises(ValueError, match=r"features: \[N, 4, 16\]"):
        generative.score_candidates(features[:, :2], [["dog"]])


def test_pictures_of_any_form(generative: GenerativeModel, tmp_path: Path) -> None:
    array = pictures(1)[0]
    Image.fromarray(array).save(tmp_path / "a.png")
    tower = generative.model.vision
    want = tower(normalise(torch.from_numpy(array)[None], tower.mean, tower.std))
    forms = [array, Image.fromarray(array), tmp_path / "a.png", str(tmp_path / "a.png")]
    for features in generative.image_features(forms):
        torch.testing.assert_close(features, want[0])
    large = np.repeat(np.repeat(array, 2, 0), 2, 1)
    torch.testing.assert_close(generative.image_features([large]), want)
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    white = np.full((64, 64, 3), 255, np.uint8)
    assert torch.equal(generative.image_features([clear]), generative.image_features([white]))
    assert generative.image_features([]).shape == (0, 4, 16)
    with pytest.raises(ValueError, match=r"missing\.png: no such picture"):
        generative.image_features([tmp_path / "missing.png"])
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"bad\.png: not a readable picture"):
        generative.image_features([tmp_path / "bad.png"])
    with pytest.raises(ValueError, match="images: .*float64"):
        generative.image_features([np.zeros((4, 4, 3))])


def test_contrastive(contrastive: ContrastiveModelHandle) -> None:
    images = list(pictures())
    vectors = contrastive.embed_images(images)
    assert vectors.shape == (3, 12)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(
        contrastive.embed_images(contrastive.image_features(images)), vectors
    )
    texts = contrastive.embed_texts(["red apple", "", "dog"])
    words = contrastive.model.words.weight
    mean = words[contrastive.tokenizer.encode("red apple", eos=False)].mean(0)
    torch.testing.assert_close(texts[0], mean / mean.norm())
    assert texts[1].abs().sum() == 0


def test_sos_and_eos_in_the_mean(tmp_path: Path) -> None:
    path = export(
        tmp_path / "model", "contrastive", contrastive={"dim": 12, "include_sos_eos": True}
    )
    model = load(path)
    assert isinstance(model, ContrastiveModelHandle)
    words = model.model.words.weight
    ids = [2, *model.tokenizer.encode("dog", eos=False), 3]
    mean = words[ids].mean(0)
    torch.testing.assert_close(model.embed_texts(["dog"])[0], mean / mean.norm())


def _edit(path: Path, **changes: object) -> None:
    tree = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**tree, **changes}))


def test_bad_directories_give_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a model directory"):
        load(tmp_path)
    path = export(tmp_path / "model")
    state = load_file(path / "model.safetensors")
    for change, message in [
        ({"format": 9}, "layout 1"),
        ({"kind": "other"}, "kind must be"),
        ({"vocab_size": 5}, "names 5 tokens"),
        ({"model": {"decoder": {"layer": 3}}}, r"model\.decoder\.layer"),
    ]:
        export(path)
        _edit(path, **change)
        with pytest.raises(ValueError, match=message) as caught:
            load(path)
        assert "\n" not in str(caught.value)
    export(path)
    save_file({k: v for k, v in state.items() if "final_norm" not in k}, path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors: 2 tensors .*final_norm"):
        load(path)
    (path / "model.safetensors").write_bytes(b"0" * 50)
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot be read"):
        load(path)
    (path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        load(path)
