"""The contrastive model: CVCL's sizes, ragged texts, the loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engine.models.config import ModelConfig
from engine.models.contrastive import ContrastiveModel, build_contrastive
from kernels.reference import contrastive_loss_reference, sigmoid_loss_reference

VISION = {
    "name": "resnet",
    "args": {"channels": (8, 8, 16, 16), "stem_type": "deep", "stem_width": 4},
}
TOKENS = torch.tensor([4, 5, 6, 7, 5, 9])
OFFSETS = torch.tensor([0, 2, 3])


def _model(**contrastive: object) -> ContrastiveModel:
    torch.manual_seed(0)
    config = ModelConfig.model_validate(
        {"image_size": 64, "vision": VISION, "contrastive": {"dim": 12, **contrastive}}
    )
    return build_contrastive(config, 10).eval()


def test_published_sizes() -> None:
    model = build_contrastive(ModelConfig(), 2350)
    counts = {
        name: sum(p.numel() for p in part.parameters()) for name, part in model.parts().items()
    }
    assert counts == {
        "vision": 22_979_904, "projection": 2048 * 512 + 512, "words": 2350 * 512,
    }  # fmt: skip
    assert sum(p.numel() for p in model.parameters()) == sum(counts.values())


def test_embeddings() -> None:
    model = _model()
    words = model.words.weight
    texts = model.embed_texts(TOKENS, OFFSETS)
    want = torch.stack([words[[4, 5]].mean(0), words[6], words[[7, 5, 9]].mean(0)])
    torch.testing.assert_close(texts, F.normalize(want, dim=1))
    images = torch.randn(3, 3, 64, 64)
    pooled = model.vision(images).mean(1)
    torch.testing.assert_close(
        model.embed_images(images), F.normalize(model.projection.linear(pooled), dim=1)
    )
    # An empty text is no direction, not NaN.
    assert model.embed_texts(TOKENS, torch.tensor([0, 2, 2, 6]))[1].abs().sum() == 0


@pytest.mark.parametrize("labels", [None, torch.tensor([1, 0, 1])])
def test_loss(labels: torch.Tensor | None) -> None:
    model = _model()
    features = torch.randn(3, 4, 16)
    loss = model(TOKENS, OFFSETS, features=features, labels=labels)
    want = contrastive_loss_reference(
        model.embed_features(features), model.embed_texts(TOKENS, OFFSETS), 1 / 0.07, labels=labels
    )
    torch.testing.assert_close(loss, want)
    loss.backward()
    assert all(p.grad is not None for p in model.words.parameters())


def test_temperature_fixed_or_learned() -> None:
    assert "projection.temperature.log_scale" not in dict(_model().named_parameters())
    model = _model(learn_temperature=True, temperature=0.1)
    torch.testing.assert_close(model.projection.temperature(), torch.tensor(10.0))
    model(TOKENS, OFFSETS, images=torch.randn(3, 3, 64, 64)).backward()
    assert model.projection.temperature.log_scale.grad.abs() > 0
    with pytest.raises(ValueError, match="either images or features"):
        model(TOKENS, OFFSETS)


@pytest.mark.parametrize("labels", [None, torch.tensor([1, 0, 1])])
def test_sigmoid_loss_with_its_learned_bias(labels: torch.Tensor | None) -> None:
    assert _model().projection.bias is None
    model = _model(loss="sigmoid", temperature=0.1, initial_bias=-3.0)
    features = torch.randn(3, 4, 16)
    loss = model(TOKENS, OFFSETS, features=features, labels=labels)
    want = sigmoid_loss_reference(
        model.embed_features(features), model.embed_texts(TOKENS, OFFSETS), 10.0, -3.0,
        labels=labels,
    )  # fmt: skip
    torch.testing.assert_close(loss, want)
    loss.backward()
    assert model.projection.bias is not None
    assert model.projection.bias.value.grad.abs() > 0
    assert "bias.value" in dict(model.parts()["projection"].named_parameters())
