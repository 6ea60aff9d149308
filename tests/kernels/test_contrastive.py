"""InfoNCE against the definition; on a CPU also how much memory and time it takes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.numerics import bits
from support.pair_cases import LargestTensor
from support.row_ops import backend
from torch import Tensor

from kernels import contrastive_loss, dispatch, resolve_group
from kernels.pairs import contrastive, contrastive_eager
from kernels.reference import contrastive_loss_reference

LABELS = torch.tensor([3, 1, 3, 2, 1, 3, 0])
TIES = [None, LABELS, torch.zeros(7, dtype=torch.int64), torch.arange(7) * -(2**40)]
every_tie = pytest.mark.parametrize("labels", TIES, ids=["none", "some", "all", "alone"])


@pytest.fixture(params=["whole", "blocks"])
def eager(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of the portable implementation; three rows a block."""
    if request.param == "blocks":
        monkeypatch.setattr(contrastive, "PLAIN_LOGITS", 0)
        monkeypatch.setattr(contrastive_eager, "BLOCK_LOGITS", 3 * 7)
    return request.param


def _case(dtype: torch.dtype = torch.float64, rows: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image, text = (
        F.normalize(torch.randn(rows, 5, generator=generator, dtype=torch.float64), dim=1)
        for _ in range(2)
    )
    scale = torch.tensor(1 / 0.07, dtype=dtype)
    return image.to(dtype).requires_grad_(), text.to(dtype).requires_grad_(), scale.requires_grad_()


@every_tie
@pytest.mark.parametrize("size", [1 / 0.07, 0.0, -3.0, 1e4])
def test_equals_definition(labels: Tensor | None, size: float, eager: str) -> None:
    image, text, scale = _case()
    leaves = (image, text, scale.detach().fill_(size).requires_grad_())
    got = contrastive_loss(*leaves, labels=labels)
    want = contrastive_loss_reference(*leaves, labels=labels)
    torch.testing.assert_close(got, want)
    upstream = torch.tensor(-2.5, dtype=torch.float64)
    for g, w in zip(
        torch.autograd.grad(got, leaves, upstream),
        torch.autograd.grad(want, leaves, upstream),
        strict=True,
    ):
        torch.testing.assert_close(g, w, rtol=1e-7, atol=1e-9 * max(abs(size), 1.0))


def test_known_value(eager: str) -> None:
    eye = torch.eye(2)
    expected = -torch.log_softmax(torch.tensor([2.0, 0.0]), 0)[0]
    torch.testing.assert_close(contrastive_loss(eye, eye, 2.0), expected)
    # With one label everything is a positive: cross-entropy to the uniform target.
    both = contrastive_loss(eye, eye, 2.0, labels=torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(both, expected + 1.0)


@every_tie
def test_gradcheck(labels: Tensor | None, eager: str) -> None:
    image, text, scale = _case()
    torch.autograd.gradcheck(lambda *x: contrastive_loss(*x, labels=labels), (image, text, scale))


@every_tie
def test_gradcheck_of_the_reference(labels: Tensor | None) -> None:
    torch.autograd.gradcheck(lambda *x: contrastive_loss_reference(*x, labels=labels), _case())


def test_a_learnt_row_keeps_its_small_loss(eager: str) -> None:
    """1e-5 beside logits of 100: the difference of two rounded log-sum-exps would lose it."""
    image = torch.cat([F.one_hot(torch.arange(7), 7) * 13**0.5, torch.full((7, 1), 10.0)], dim=1)
    loss = contrastive_loss(image, image, 1.0)
    want = contrastive_loss_reference(image.double(), image.double(), 1.0)
    assert 1e-5 < want < 2e-5
    torch.testing.assert_close(loss.double(), want, rtol=2e-2, atol=0)


def test_one_row_and_none(eager: str) -> None:
    image, text, scale = _case(rows=1)
    loss = contrastive_loss(image, text, scale)
    grads = torch.autograd.grad(loss, (image, text, scale))
    assert loss == 0 and all(x.abs().max() < 1e-15 for x in grads)
    empty = _case(rows=0)
    for labels in (None, LABELS[:0]):
        loss = contrastive_loss(*empty, labels=labels)
        grads = torch.autograd.grad(loss, empty)
        assert loss == 0 and grads[2] == 0 and grads[0].shape == grads[1].shape == (0, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtypes_and_forms_of_the_scale(dtype: torch.dtype, eager: str) -> None:
    """Computed in float32 whatever the features are; gradients have the leaves' own dtype."""
    image, text, _ = _case(dtype)
    scale = torch.tensor([14.0], requires_grad=True)
    loss = contrastive_loss(image, text, scale)
    grads = torch.autograd.grad(loss, (image, text, scale))
    wide = tuple(x.detach().float().requires_grad_() for x in (image, text))
    want = contrastive_loss_reference(*wide, scale)
    assert loss.shape == () and loss.dtype == torch.float32
    torch.testing.assert_close(loss, want.reshape(()))
    for got, other, leaf in zip(
        grads, torch.autograd.grad(want, (*wide, scale)), (image, text, scale), strict=True
    ):
        assert got.dtype == leaf.dtype and got.shape == leaf.shape
        torch.testing.assert_close(got, other.to(leaf.dtype), rtol=1e-2, atol=1e-5)
    torch.testing.assert_close(contrastive_loss(image, text, 14.0), loss.detach())


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_only_what_is_wanted(wanted: tuple[int, ...], eager: str) -> None:
    leaves = _case()
    every = torch.autograd.grad(contrastive_loss(*leaves), leaves)
    some = [x.detach().requires_grad_(at in wanted) for at, x in enumerate(leaves)]
    contrastive_loss(*some).backward()
    for at, (x, grad) in enumerate(zip(some, every, strict=True)):
        assert (x.grad is not None) == (at in wanted)
        assert x.grad is None or torch.allclose(x.grad, grad)
    with torch.no_grad():
        assert not contrastive_loss(*leaves).requires_grad


@every_tie
def test_compiled_is_eager(labels: Tensor | None, eager: str) -> None:
    leaves = _case(torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(contrastive_loss, fullgraph=True, backend="aot_eager")
    got, want = compiled(*leaves, labels=labels), contrastive_loss(*leaves, labels=labels)
    assert torch.equal(bits(got), bits(want))
    for a, b in zip(
        torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves), strict=True
    ):
        assert torch.equal(bits(a), bits(b))


def test_blocks_refuse_a_second_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrastive, "PLAIN_LOGITS", 0)
    image, text, scale = _case()
    loss = contrastive_loss(image, text, scale)
    with pytest.raises(RuntimeError, match="gradients of gradients"):
        torch.autograd.grad(loss, image, create_graph=True)


@pytest.mark.parametrize("ties", [False, True])
def test_the_matrix_is_never_made(ties: bool) -> None:
    """The largest tensor of a step over 2,500 pairs is a block of logits, not all 6 million."""
    leaves = [torch.randn(2500, 4, requires_grad=True) for _ in range(2)]
    labels = torch.arange(2500) // 3 if ties else None
    with LargestTensor() as seen:
        contrastive_loss(*leaves, 3.0, labels=labels).backward()
    assert 2500 * 4 < seen.elements <= contrastive_eager.BLOCK_LOGITS
    with LargestTensor() as seen:
        contrastive_loss(*(x[:100] for x in leaves), 3.0).backward()
    assert seen.elements == 100 * 100  # where it is small it is made: what the mode sees


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what runs on a CPU")
def test_a_cpu_takes_plain_torch() -> None:
    for op in ("contrastive_loss", "sigmoid_loss"):
        assert dispatch.describe()[op] == ["triton", "eager", "reference (on request)"]
    with backend("contrastive_loss", "eager"):
        named = contrastive_loss(*_case())
    assert torch.equal(contrastive_loss(*_case()), named)


def test_bad_input_names_the_argument() -> None:
    image, text, scale = _case()
    with pytest.raises(ValueError, match="^image:"):
        contrastive_loss(image[0], text, scale)
    with pytest.raises(ValueError, match="^image:"):
        contrastive_loss(image.long(), text.long(), scale)
    with pytest.raises(ValueError, match="^text:"):
        contrastive_loss(image, text[:3], scale)
    with pytest.raises(ValueError, match="^text:"):
        contrastive_loss(image, text.float(), scale)
    with pytest.raises(ValueError, match="^text: image's device"):
        contrastive_loss(image, text.to("meta"), scale)
    with pytest.raises(ValueError, match="^logit_scale:"):
        contrastive_loss(image, text, scale.expand(2))
    for labels in (LABELS.float(), LABELS[:3], LABELS[:, None]):
        with pytest.raises(ValueError, match="^labels:"):
            contrastive_loss(image, text, scale, labels=labels)
    with pytest.raises(ValueError, match="^labels: image's device"):
        contrastive_loss(image, text, scale, labels=LABELS.to("meta"))
    with pytest.raises(ValueError, match="^group:"):
        contrastive_loss(image, text, scale, group="everyone")
    assert resolve_group("world") is None
