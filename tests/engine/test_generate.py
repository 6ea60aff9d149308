"""Generation: greedy against a plain loop, sampling, the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine import scoring
from engine.export import export_model
from engine.generate import main
from engine.loading import GenerativeModel, load
from engine.models.babyllava import build_generative
from engine.models.config import ModelConfig
from engine.models.contrastive import build_contrastive
from engine.tokens import TokenizerConfig, build_tokenizer

CONFIG = ModelConfig.model_validate(
    {
        "image_size": 64,
        "vision": {
            "name": "resnet",
            "args": {"channels": (8, 8, 16, 16), "stem_type": "deep", "stem_width": 4},
        },
        "decoder": {
            "layers": 2,
            "width": 32,
            "heads": 4,
            "inner": 48,
            "positions": 40,
            "tie_embeddings": False,
        },
        "contrastive": {"dim": 12},
        "prefix_attention": "bidirectional",
    }
)
WORDS = build_tokenizer(TokenizerConfig(min_count=1), ["a red blue apple car dog look at the ball"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for kind, build in (("generative", build_generative), ("contrastive", build_contrastive)):
        torch.manual_seed(1)
        model = build(CONFIG, WORDS.vocab_size)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.3)
        export_model(
            root / kind, model, kind=kind, config=CONFIG, tokenizer=WORDS, card={}  # type: ignore[arg-type]
        )  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3)).astype(np.uint8)
    for index, picture in enumerate(pixels):
        Image.fromarray(picture).save(root / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def model(folder: Path) -> GenerativeModel:
    loaded = load(folder / "generative", device="cpu")
    assert isinstance(loaded, GenerativeModel)
    return loaded


def _features(model: GenerativeModel, folder: Path) -> torch.Tensor:
    return model.image_features([folder / f"{i}.png" for i in range(5)])


@pytest.mark.parametrize("prompt", ["", "look at"])
def test_greedy_is_the_likeliest_word_each_time(
    model: GenerativeModel, folder: Path, prompt: str
) -> None:
    """Each step again, by scoring every word of the vocabulary after what was said so far."""
    features = _features(model, folder)
    texts = model.generate(features, prompt=prompt, max_new_tokens=6)
    vocabulary = [w for w in WORDS.vocabulary if not w.startswith("<")]
    for index, text in enumerate(texts):
        said: list[str] = []
        for word in [*text.split(), None][:6]:
            if word == "<unk>":
                break  # the next prompt cannot be written
            before = " ".join([*prompt.split(), *said])
            one = features[index : index + 1]
            (records,) = model.score_candidates(one, [vocabulary], prompt=before)
            (end,) = model.score_candidates(one, [[""]], prompt=before, score_eos=True)
            best = int(np.argmax([r.logprob_sum for r in records]))
            if word is None:
                assert end[0].logprob_sum > records[best].logprob_sum
            else:
                assert vocabulary[best] == word
                said.append(word)
    assert len(set(texts)) > 1  # the pictures matter


def test_batches_change_nothing(model: GenerativeModel, folder: Path) -> None:
    features = _features(model, folder)
    for temperature in (0.0, 1.5):
        whole = scoring.generate(model.model, WORDS, features, temperature=temperature, seed=4)
        parts = scoring.generate(
            model.model, WORDS, features, temperature=temperature, seed=4, batch=2
        )
        assert whole == parts and len(whole) == 5


def test_sampling(model: GenerativeModel, folder: Path) -> None:
    features = _features(model, folder)
    greedy = model.generate(features)
    assert model.generate(features, temperature=1e-4) == greedy
    assert model.generate(features, temperature=2.0, top_p=1e-6) == greedy
    hot = model.generate(features, temperature=2.0, seed=1)
    assert hot != greedy and hot == model.generate(features, temperature=2.0, seed=1)
    assert hot != model.generate(features, temperature=2.0, seed=2)


def test_sampling_has_the_right_frequencies() -> None:
    logits = torch.tensor([0.5, 0.2, 0.25, 0.05]).log().repeat(20_000, 1)
    draw = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    counts = scoring._sample(logits, 1.0, draw).bincount(minlength=4) / 20_000
    torch.testing.assert_close(counts, torch.tensor([0.5, 0.2, 0.25, 0.05]), atol=0.01, rtol=0)
    counts = scoring._sample(logits, 0.7, draw).bincount(minlength=4) / 20_000
    torch.testing.assert_close(counts, torch.tensor([2 / 3, 0.0, 1 / 3, 0]), atol=0.01, rtol=0)


def test_text_alone_and_limits(model: GenerativeModel, folder: Path) -> None:
    assert len(model.generate(None, max_new_tokens=3)) == 1
    features = _features(model, folder)
    for options, name in [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 38}, "max_new_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
    ]:
        with pytest.raises(ValueError, match=f"^{name}:"):
            model.generate(features, **options)


def test_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, a, b = str(folder / "generative"), str(folder / "0.png"), str(folder / "1.png")
    assert main(["--model", model, "--image", a, b, "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [a, b]
    assert all(line.count("\t") == 1 for line in lines)


@pytest.mark.parametrize(
    ("model", "image", "message"),
    [
        ("generative", "missing.png", "missing.png: no such picture"),
        ("nothing", "0.png", "nothing: not a model directory"),
        ("contrastive", "0.png", "a contrastive model has no text to give"),
    ],
)
def test_command_mistakes(
    folder: Path, capsys: pytest.CaptureFixture[str], model: str, image: str, message: str
) -> None:
    assert main(["--model", str(folder / model), "--image", str(folder / image)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and message in captured.err
    assert captured.err.count("\n") == 1
