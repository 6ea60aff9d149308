"""BabyLLaVA: parameter counts, and a packed row gives each document what it has alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engine.models.babyllava import BabyLLaVA, build_generative
from engine.models.config import ModelConfig
from engine.models.connector import Connector, ConnectorConfig
from engine.models.row import Row

VOCAB = 40
TINY = ModelConfig.model_validate(
    {
        "image_size": 64,
        "vision": {
            "name": "resnet",
            "args": {"channels": (8, 8, 16, 16), "stem_type": "deep", "stem_width": 4},
        },
        "decoder": {
            "layers": 2, "width": 32, "heads": 4, "inner": 48, "positions": 64,
            "dropout": 0, "attention_dropout": 0, "embed_dropout": 0,
        },
    }
)  # fmt: skip
P = 4  # picture tokens of a 64-px picture at stride 32


def _row(documents: list[tuple[bool, list[int]]]) -> Row:
    """Pack (has picture, tokens) documents by hand."""
    tokens: list[int] = []
    positions: list[int] = []
    bounds, prefix, slots, rows, targets = [0], [], [], [], []
    for picture, text in documents:
        base = len(tokens)
        head = P if picture else 0
        slots += range(base, base + head)
        tokens += [0] * head + text
        positions += range(head + len(text))
        for i, token in enumerate(text):
            if head + i:
                rows.append(base + head + i - 1)
                targets.append(token)
        bounds.append(len(tokens))
        prefix.append(head)
    return Row(
        torch.tensor(tokens, dtype=torch.int64),
        torch.tensor(positions, dtype=torch.int32),
        torch.tensor(bounds, dtype=torch.int32),
        torch.tensor(prefix, dtype=torch.int32),
        torch.tensor(slots, dtype=torch.int64),
        torch.tensor(rows, dtype=torch.int64),
        torch.tensor(targets, dtype=torch.int64),
    )


def _model(prefix_attention: str = "causal") -> BabyLLaVA:
    torch.manual_seed(0)
    config = TINY.model_copy(update={"prefix_attention": prefix_attention})
    return build_generative(config, VOCAB).double().eval()


DOCUMENTS = [(True, [5, 6, 7]), (False, [2, 9, 8, 3]), (True, [4]), (True, [5, 6, 7, 8, 9, 3])]


def test_published_parameter_counts() -> None:
    model = build_generative(ModelConfig(), 2350)
    counts = {
        name: sum(p.numel() for p in part.parameters()) for name, part in model.parts().items()
    }
    assert counts == {"vision": 22_979_904, "connector": 590_336, "decoder": 7_182_336}
    assert sum(p.numel() for p in model.parameters()) == sum(counts.values())  # nothing besides


@pytest.mark.parametrize("prefix_attention", ["causal", "bidirectional"])
def test_packed_documents_are_what_they_are_alone(prefix_attention: str) -> None:
    model = _model(prefix_attention)
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    packed = model.hidden(_row(DOCUMENTS), images=images)
    base, picture = 0, 0
    for document in DOCUMENTS:
        row = _row([document])
        alone = model.hidden(row, images=images[picture : picture + 1] if document[0] else None)
        torch.testing.assert_close(packed[base : base + row.num_tokens], alone)
        base, picture = base + row.num_tokens, picture + document[0]


def test_prefix_attention_changes_what_pictures_see() -> None:
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    causal = _model("causal").hidden(_row(DOCUMENTS), images=images)
    both = _model("bidirectional").hidden(_row(DOCUMENTS), images=images)
    assert not torch.allclose(causal[0], both[0])
    assert torch.equal(causal[7:11], both[7:11])  # the text document


def test_loss_is_the_sum_over_targets() -> None:
    model = _model()
    row = _row(DOCUMENTS)
    assert row.num_targets == 3 + 3 + 1 + 6
    features = torch.randn(3, P, 16, dtype=torch.float64)
    loss = model(row, features=features, scale=0.25)
    logits = model.hidden(row, features=features) @ model.decoder.output_weight.T
    want = F.cross_entropy(logits[row.loss_rows], row.targets, reduction="sum") / 4
    torch.testing.assert_close(loss, want)
    assert loss.shape == ()


def test_images_and_their_features_give_the_same() -> None:
    model = _model()
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    assert torch.equal(
        model(_row(DOCUMENTS), images=images),
        model(_row(DOCUMENTS), features=model.vision(images)),
    )


def test_every_trained_parameter_gets_a_gradient() -> None:
    model = _model()
    model.vision.freeze()
    model(_row(DOCUMENTS), images=torch.randn(3, 3, 64, 64, dtype=torch.float64)).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (not name.startswith("vision.")), name
    # A row without pictures still reaches the connector when N = 0 is passed.
    model.zero_grad()
    model(_row([(False, [2, 3])]), features=torch.zeros(0, P, 16).double()).backward()
    assert all(p.grad is not None for p in model.connector.parameters())


def test_wrong_number_of_pictures_is_an_error() -> None:
    with pytest.raises(ValueError, match="images: 2 of 4 tokens do not fill the row's 12"):
        _model()(_row(DOCUMENTS), features=torch.zeros(2, P, 16).double())
    with pytest.raises(ValueError, match="images: the row holds pictures"):
        _model()(_row(DOCUMENTS))


def test_connector_positions() -> None:
    connector = Connector(ConnectorConfig(positions=True), dim=6, width=8, num_tokens=P)
    same = connector(torch.ones(2, P, 6))
    torch.testing.assert_close(same[:, 0], same[:, 1])
    with torch.no_grad():
        connector.positions[1] = 1.0
    assert torch.allclose(connector(torch.ones(2, P, 6))[:, 1], same[:, 1] + 1)
    linear = Connector(ConnectorConfig(kind="linear"), dim=6, width=8, num_tokens=P)
    assert sum(p.numel() for p in linear.parameters()) == 6 * 8 + 8
