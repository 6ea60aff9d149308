"""Linear cross-entropy against the definition, whole and in chunks."""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F

from kernels import cross_entropy, linear_cross_entropy, linear_logprobs
from kernels.reference import linear_cross_entropy_reference

OPTIONS: list[dict] = [
    {},
    {"softcap": 2.0},
    {"z_loss": 0.1},
    {"label_smoothing": 0.2},
    {"class_weight": True},
    {"bias": True, "softcap": 3.0, "z_loss": 0.01, "label_smoothing": 0.1, "class_weight": True},
]


def _case(rows: int = 11, width: int = 6, vocab: int = 7) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocab, width, generator=generator, dtype=torch.float64)
    bias = torch.randn(vocab, generator=generator, dtype=torch.float64)
    targets = torch.randint(vocab, (rows,), generator=generator)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), targets


def _fill(options: dict, bias: torch.Tensor) -> dict:
    options = dict(options)
    if options.pop("bias", False):
        options["bias"] = bias
    if options.pop("class_weight", False):
        options["class_weight"] = torch.linspace(0.5, 2, bias.shape[0], dtype=torch.float64)
    return options


@pytest.mark.parametrize("budget", [10**6, 21])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("ignored", [[], [0, 4, 5], list(range(11))])
def test_equals_definition(
    options: dict, reduction: str, budget: int, ignored: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "LOGITS_BUDGET", budget)
    x, weight, bias, targets = _case()
    targets[ignored] = -100
    filled = _fill(options, bias)
    leaves = [x, weight] + ([bias] if "bias" in filled else [])
    got = linear_cross_entropy(x, weight, targets, reduction=reduction, **filled)  # type: ignore[arg-type]
    want = linear_cross_entropy_reference(x, weight, targets, reduction=reduction, **filled)  # type: ignore[arg-type]
    torch.testing.assert_close(got, want)
    # Any upstream gradient, one per row for reduction="none".
    upstream = torch.linspace(-1, 2, got.numel(), dtype=torch.float64).reshape(got.shape)
    for g, w in zip(
        torch.autograd.grad(got, leaves, upstream),
        torch.autograd.grad(want, leaves, upstream),
        strict=True,
    ):
        torch.testing.assert_close(g, w)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_torch(smoothing: float) -> None:
    x, weight, _, targets = _case()
    targets[2] = -100
    class_weight = torch.linspace(0.5, 2, 7, dtype=torch.float64)
    torch.testing.assert_close(
        linear_cross_entropy(
            x, weight, targets, class_weight=class_weight, label_smoothing=smoothing
        ),
        F.cross_entropy(x @ weight.T, targets, class_weight, label_smoothing=smoothing),
    )


def test_weight_tied_to_an_embedding() -> None:
    _, weight, _, targets = _case()
    tokens = torch.arange(11) % 7
    loss = linear_cross_entropy(weight[tokens], weight, targets)
    want = F.cross_entropy(weight[tokens] @ weight.T, targets)
    torch.testing.assert_close(
        torch.autograd.grad(loss, weight)[0], torch.autograd.grad(want, weight)[0]
    )


def test_large_common_offset() -> None:
    x = torch.full((3, 1), 1000.0)
    weight = torch.ones(5, 1) + torch.arange(5)[:, None] * 1e-4
    loss = linear_cross_entropy(x, weight, torch.tensor([0, 1, 4]))
    want = F.cross_entropy(x.double() @ weight.double().T, torch.tensor([0, 1, 4]))
    assert abs(loss - want) < 1e-3


def test_no_row_kept_is_zero_and_one_row_works() -> None:
    x, weight, _, targets = _case()
    loss = linear_cross_entropy(x, weight, torch.full_like(targets, -100))
    assert loss == 0
    assert torch.autograd.grad(loss, weight)[0].abs().sum() == 0
    torch.testing.assert_close(
        linear_cross_entropy(x[:1], weight, targets[:1]),
        F.cross_entropy(x[:1] @ weight.T, targets[:1]),
    )


def test_bfloat16_is_computed_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 32, generator=generator).bfloat16()
    weight = torch.randn(100, 32, generator=generator).bfloat16()
    targets = torch.randint(100, (64,), generator=generator)
    loss = linear_cross_entropy(x, weight, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        loss.double(), F.cross_entropy(x.double() @ weight.double().T, targets)
    )


def test_logprobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "LOGITS_BUDGET", 21)
    x, weight, _, targets = _case()
    got = linear_logprobs(x, weight, targets)
    want = torch.log_softmax(x @ weight.T, -1)[torch.arange(11), targets]
    torch.testing.assert_close(got, want.float())
    assert not got.requires_grad
    assert linear_logprobs(x[:0], weight, targets[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("x", {"x": torch.ones(2, 3, dtype=torch.int64)}),
        ("weight", {"weight": torch.ones(5, 4)}),
        ("weight", {"weight": torch.ones(5, 3, dtype=torch.float64)}),
        ("targets", {"targets": torch.zeros(2)}),
        ("targets", {"targets": torch.zeros(3, dtype=torch.int64)}),
        ("bias", {"bias": torch.ones(4)}),
        ("class_weight", {"class_weight": torch.ones(4)}),
        ("reduction", {"reduction": "average"}),
        ("softcap", {"softcap": -1.0}),
        ("label_smoothing", {"label_smoothing": 1.0}),
    ],
)
def test_bad_input_names_the_argument(name: str, kwargs: dict) -> None:
    good = {
        "x": torch.ones(2, 3),
        "weight": torch.ones(5, 3),
        "targets": torch.zeros(2, dtype=torch.int64),
    }
    with pytest.raises(ValueError, match=f"^{name}:"):
        linear_cross_entropy(**{**good, **kwargs})


def test_not_slower_than_plain_torch_at_baby_size() -> None:
    """The bound leaves room for a noisy machine; the measured ratio is about 1.0."""
    x = torch.randn(2000, 256, requires_grad=True)
    weight = torch.randn(2350, 256, requires_grad=True)
    targets = torch.randint(2350, (2000,))

    def seconds(plain: bool) -> float:
        begin = time.perf_counter()
        loss = (
            F.cross_entropy(x @ weight.T, targets)
            if plain
            else linear_cross_entropy(x, weight, targets)
        )
        loss.backward()
        return time.perf_counter() - begin

    pairs = [(seconds(True), seconds(False)) for _ in range(6)]
    assert min(b for _, b in pairs) < 1.5 * min(a for a, _ in pairs)
