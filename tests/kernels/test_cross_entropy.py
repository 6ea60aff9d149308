"""Linear cross-entropy against the definition, whole and in chunks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from support.cross_entropy_cases import forced

from kernels import linear_cross_entropy, linear_logprobs
from kernels.cross_entropy import chunks, run
from kernels.cross_entropy.table import chunk_rows
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


@pytest.fixture(params=[100, 3], ids="{} rows a chunk".format)
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows are computed at a time."""
    monkeypatch.setattr(chunks, "chunk_rows", lambda n, *_: min(n, request.param))


@pytest.mark.parametrize("dropped", [True, False], ids=["dropped", "masked"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("ignored", [[], [0, 4, 5], list(range(11))])
def test_equals_definition(
    options: dict, reduction: str, ignored: list[int], dropped: bool, chunked: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if not dropped:  # as while a CUDA graph is captured
        monkeypatch.setattr(run, "kept_rows", lambda _, ignore: (None, ignore))
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


def test_logprobs(chunked: None) -> None:
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
        ("weight", {"weight": torch.ones(0, 3)}),
        ("weight", {"weight": torch.ones(5, 3, device="meta")}),
        ("targets", {"targets": torch.zeros(2, dtype=torch.int64, device="meta")}),
        ("bias", {"bias": torch.ones(5, device="meta")}),
        ("class_weight", {"class_weight": torch.ones(5, device="meta")}),
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


@pytest.mark.parametrize("function", [linear_cross_entropy, linear_cross_entropy_reference])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradcheck(function: Callable[..., torch.Tensor], reduction: str, chunked: None) -> None:
    """Of the gradients written out by hand and of the definition, in fp64; all options at once."""
    x, weight, bias, targets = _case(5, 3, 4)
    targets[1] = -100
    filled = _fill(OPTIONS[-1], bias) | {"reduction": reduction}
    del filled["bias"]

    def loss(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return function(x, weight, targets, bias=bias, **filled)

    assert torch.autograd.gradcheck(loss, (x, weight, bias))


@pytest.mark.parametrize("target", [7, -1, 1 << 40])
def test_target_out_of_range_is_an_error_on_a_cpu(target: int) -> None:
    x, weight, _, targets = _case()
    targets[3] = target
    for score in (linear_cross_entropy, linear_logprobs):
        with pytest.raises(RuntimeError, match="out of bounds"):
            score(x, weight, targets)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_reference_by_name(dtype: torch.dtype) -> None:
    """The definition as an implementation: float32 inside, the dtypes of the others outside."""
    x, weight, bias, targets = (y.to(dtype) if y.is_floating_point() else y for y in _case())
    options = _fill(OPTIONS[-1], bias)
    found = []
    for name in ("reference", "chunked"):
        with forced(name):
            found.append([
                linear_cross_entropy(x, weight, targets, **options),
                linear_logprobs(x, weight, targets),
            ])  # fmt: skip
    for a, b in zip(*found, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b)


def test_chunks_of_a_gpu() -> None:
    """Under a GiB beside inputs, whole waves of the product that has fewest tiles."""
    assert chunk_rows(65_536, 768, 50_304, 2, "cuda") == 44 * 128
    assert chunk_rows(65_536, 256, 2_350, 2, "cuda") == 65_536
    for width, vocab in [(256, 50_304), (512, 50_304), (768, 50_304), (1024, 32_000)]:
        rows = chunk_rows(65_536, width, vocab, 2, "cuda")
        gradients = vocab * width * 4 + 65_536 * width * 2
        assert rows % 128 == 0 and rows * vocab * 2 + gradients <= 896 << 20
    assert 0 < chunk_rows(65_536, 4096, 256_000, 2, "cuda") * 256_000 * 2 <= 512 << 20
    assert chunk_rows(1, 8, 1 << 30, 4, "cuda") == 1
