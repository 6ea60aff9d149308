"""The pairwise sigmoid loss against the definition; on a CPU also its memory and time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.numerics import bits
from support.pair_cases import LargestTensor
from support.row_ops import backend
from torch import Tensor

from kernels.pairs import contrastive_eager, sigmoid
from kernels.pairs.sigmoid import sigmoid_loss
from kernels.reference import sigmoid_loss_reference

LABELS = torch.tensor([3, 1, 3, 2, 1, 3, 0])
TIES = [None, LABELS, torch.zeros(7, dtype=torch.int64), torch.arange(7) * -(2**40)]
every_tie = pytest.mark.parametrize("labels", TIES, ids=["none", "some", "all", "alone"])
Leaves = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(params=["whole", "blocks"])
def eager(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of the portable implementation; three rows a block."""
    if request.param == "blocks":
        monkeypatch.setattr(sigmoid, "PLAIN_LOGITS", 0)
        monkeypatch.setattr(contrastive_eager, "BLOCK_LOGITS", 3 * 7)
    return request.param


def _case(
    dtype: torch.dtype = torch.float64, rows: int = 7, scale: float = 10.0, bias: float = -4.0
) -> Leaves:
    generator = torch.Generator().manual_seed(0)
    image, text = (
        F.normalize(torch.randn(rows, 5, generator=generator, dtype=torch.float64), dim=1)
        for _ in range(2)
    )
    scalars = (torch.tensor(x, dtype=dtype, requires_grad=True) for x in (scale, bias))
    return image.to(dtype).requires_grad_(), text.to(dtype).requires_grad_(), *scalars


@every_tie
@pytest.mark.parametrize(("scale", "bias"), [(10, -4), (0, 0), (-3, 2), (1e4, -1e4), (1, 500)])
def test_equals_definition(labels: Tensor | None, scale: float, bias: float, eager: str) -> None:
    leaves = _case(scale=scale, bias=bias)
    got = sigmoid_loss(*leaves, labels=labels)
    want = sigmoid_loss_reference(*leaves, labels=labels)
    torch.testing.assert_close(got, want)
    upstream = torch.tensor(-2.5, dtype=torch.float64)
    for g, w in zip(
        torch.autograd.grad(got, leaves, upstream),
        torch.autograd.grad(want, leaves, upstream),
        strict=True,
    ):
        torch.testing.assert_close(g, w, rtol=1e-7, atol=1e-9 * max(abs(scale), 1.0))


def test_known_value(eager: str) -> None:
    eye = torch.eye(2)
    # Two pairs at 2 - 1, two others at 0 - 1, over two rows.
    expected = -2 * torch.nn.functional.logsigmoid(torch.tensor(1.0))
    torch.testing.assert_close(sigmoid_loss(eye, eye, 2.0, -1.0), expected)


@every_tie
def test_gradcheck(labels: Tensor | None, eager: str) -> None:
    torch.autograd.gradcheck(lambda *x: sigmoid_loss(*x, labels=labels), _case())


@every_tie
def test_gradcheck_of_the_reference(labels: Tensor | None) -> None:
    torch.autograd.gradcheck(lambda *x: sigmoid_loss_reference(*x, labels=labels), _case())


def test_small_terms_are_kept(eager: str) -> None:
    """Of pairs at -30 and +30 in float32: ``1 - sigmoid`` would be zero."""
    image, text = torch.eye(7), torch.eye(7)
    leaves = image.requires_grad_(), text.requires_grad_(), torch.tensor(60.0), torch.tensor(-30.0)
    loss = sigmoid_loss(*leaves)
    want = sigmoid_loss_reference(*(x.detach().double() for x in leaves))
    assert 0 < want < 1e-11
    torch.testing.assert_close(loss.double(), want, rtol=1e-4, atol=0)
    (grad,) = torch.autograd.grad(loss, image)
    assert 0 < float(grad.abs().max()) < 1e-10


def test_one_row_and_none(eager: str) -> None:
    leaves = _case(rows=1)
    got, want = sigmoid_loss(*leaves), sigmoid_loss_reference(*leaves)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves))
    empty = _case(rows=0)
    for labels in (None, LABELS[:0]):
        loss = sigmoid_loss(*empty, labels=labels)
        grads = torch.autograd.grad(loss, empty)
        assert loss == grads[2] == grads[3] == 0
        assert grads[0].shape == grads[1].shape == (0, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtypes_and_forms_of_the_scalars(dtype: torch.dtype, eager: str) -> None:
    """Computed in float32 whatever the features are; gradients have the leaves' own dtype."""
    image, text, *_ = _case(dtype)
    scalars = torch.tensor([10.0], requires_grad=True), torch.tensor(-4.0, requires_grad=True)
    loss = sigmoid_loss(image, text, *scalars)
    grads = torch.autograd.grad(loss, (image, text, *scalars))
    wide = tuple(x.detach().float().requires_grad_() for x in (image, text))
    want = sigmoid_loss_reference(*wide, *scalars)
    assert loss.shape == () and loss.dtype == torch.float32
    torch.testing.assert_close(loss, want)
    for got, other, leaf in zip(
        grads,
        torch.autograd.grad(want, (*wide, *scalars)),
        (image, text, *scalars),
        strict=True,
    ):
        assert got.dtype == leaf.dtype and got.shape == leaf.shape
        torch.testing.assert_close(got, other.to(leaf.dtype), rtol=1e-2, atol=1e-5)
    torch.testing.assert_close(sigmoid_loss(image, text, 10.0, -4.0), loss.detach())


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (3,), (0, 2), (1, 3)])
def test_only_what_is_wanted(wanted: tuple[int, ...], eager: str) -> None:
    leaves = _case()
    every = torch.autograd.grad(sigmoid_loss(*leaves), leaves)
    some = [x.detach().requires_grad_(at in wanted) for at, x in enumerate(leaves)]
    sigmoid_loss(*some).backward()
    for at, (x, grad) in enumerate(zip(some, every, strict=True)):
        assert (x.grad is not None) == (at in wanted)
        assert x.grad is None or torch.allclose(x.grad, grad)
    with torch.no_grad():
        alone = sigmoid_loss(*leaves)
    assert not alone.requires_grad
    torch.testing.assert_close(alone, sigmoid_loss(*leaves).detach())


@every_tie
def test_compiled_is_eager(labels: Tensor | None, eager: str) -> None:
    leaves = _case(torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(sigmoid_loss, fullgraph=True, backend="aot_eager")
    got, want = compiled(*leaves, labels=labels), sigmoid_loss(*leaves, labels=labels)
    assert torch.equal(bits(got), bits(want))
    for a, b in zip(
        torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves), strict=True
    ):
        assert torch.equal(bits(a), bits(b))


@pytest.mark.parametrize("ties", [False, True])
def test_the_matrix_is_never_made(ties: bool) -> None:
    """The largest tensor of a step over 2,500 pairs is a block of logits, not all 6 million."""
    leaves = [torch.randn(2500, 4, requires_grad=True) for _ in range(2)]
    labels = torch.arange(2500) // 3 if ties else None
    with LargestTensor() as seen:
        sigmoid_loss(*leaves, 3.0, -1.0, labels=labels).backward()
    assert 2500 * 4 < seen.elements <= contrastive_eager.BLOCK_LOGITS
    with LargestTensor() as seen:
        sigmoid_loss(*(x[:100] for x in leaves), 3.0, -1.0).backward()
    assert seen.elements == 100 * 100  # where it is small it is made: what the mode sees


def test_the_reference_on_request() -> None:
    with backend("sigmoid_loss", "reference"):
        torch.testing.assert_close(sigmoid_loss(*_case()), sigmoid_loss_reference(*_case()))


def test_bad_input_names_the_argument() -> None:
    image, text, scale, bias = _case()
    with pytest.raises(ValueError, match="^image:"):
        sigmoid_loss(image[0], text, scale, bias)
    with pytest.raises(ValueError, match="^text:"):
        sigmoid_loss(image, text.float(), scale, bias)
    with pytest.raises(ValueError, match="^logit_scale:"):
        sigmoid_loss(image, text, scale.expand(2), bias)
    with pytest.raises(ValueError, match="^logit_bias:"):
        sigmoid_loss(image, text, scale, bias.expand(2))
    for labels in (LABELS.float(), LABELS[:3], LABELS[:, None]):
        with pytest.raises(ValueError, match="^labels:"):
            sigmoid_loss(image, text, scale, bias, labels=labels)
    with pytest.raises(ValueError, match="^group:"):
        sigmoid_loss(image, text, scale, bias, group="everyone")
