"""The embedding as compilers, tracers and autograd see it, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.numerics import (
    ON_GPU,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
)
from support.row_ops import assert_compiled_is_eager, backend, draw
from support.words import zipf
from torch import Tensor
from torch._subclasses import FakeTensorMode

from kernels import dispatch
from kernels.embedding import embedding_triton
from kernels.embedding.public import add_embedding_grad, add_into, embedding, embedding_backward
from kernels.reference import embedding_reference

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16


def call(weight: Tensor, ids: Tensor, padding_idx: int | None = None) -> Tensor:
    return embedding(ids, weight, padding_idx=padding_idx)


@pytest.mark.parametrize("padding", [None, 0])
def test_compiled_is_eager_bit_by_bit(padding: int | None) -> None:
    assert_compiled_is_eager(
        "embedding", partial(call, padding_idx=padding), [draw(9, 24)], [zipf(50, 9)]
    )


def test_compiled_addition() -> None:
    grad, ids, into = draw(50, 24), zipf(50, 9), draw(9, 24)
    torch.compiler.reset()
    compiled = torch.compile(add_embedding_grad, fullgraph=True, backend="aot_eager")
    with backend("add_embedding_grad", "triton"):
        want = add_embedding_grad(grad, ids, into.clone())
        assert torch.equal(compiled(grad, ids, into), want) and torch.equal(into, want)


def test_fake_tensors_have_the_shapes_and_launch_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_triton, "launch", _must_not_launch)
    with FakeTensorMode() as mode, backend("embedding", "triton"):
        weight = mode.from_tensor(draw(9, 24, dtype=BF16)).requires_grad_()
        out = embedding(mode.from_tensor(zipf(5, 9)), weight)
        (grad,) = torch.autograd.grad(out, weight, torch.ones_like(out))
    assert (out.shape, grad.shape, grad.dtype) == ((5, 24), (9, 24), BF16)


def _must_not_launch(*_: object, **__: object) -> None:
    raise AssertionError("launched")


def test_registered_operators() -> None:
    """Schema, autograd registration, fake tensors and dispatch through AOT autograd."""
    ids = zipf(10, 5)
    operands = (draw(10, 8).requires_grad_(), ids, 5, 2)
    assert set(torch.library.opcheck(embedding_backward, operands).values()) == {"SUCCESS"}
    operands = (draw(10, 8), ids, draw(5, 8), -1)
    assert set(torch.library.opcheck(add_into, operands).values()) == {"SUCCESS"}


@pytest.mark.parametrize("padding", [None, 2])
def test_gradient_of_the_gradient(padding: int | None) -> None:
    """Linear in the upstream gradient: a gather of what comes back."""
    ids, weight, other = zipf(12, 5), draw(5, 8), draw(5, 8, seed=1)
    found = []
    for name in ("triton", "reference"):
        leaf, up = weight.clone().requires_grad_(), draw(12, 8, seed=2).requires_grad_()
        with backend("embedding", name):
            out = embedding(ids, leaf, padding_idx=padding)
            (grad,) = torch.autograd.grad(out, leaf, up, create_graph=True)
            found.append(torch.autograd.grad(grad, up, other)[0])
    torch.testing.assert_close(*found)


def test_gradients_of_the_reference() -> None:
    ids = zipf(6, 4)
    leaf = draw(4, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: embedding_reference(ids, w), leaf)
    padded = torch.autograd.grad(embedding_reference(ids, leaf, 1).sum(), leaf)[0]
    want = torch.autograd.grad(F.embedding(ids, leaf, 1).sum(), leaf)[0]
    assert torch.equal(padded, want)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ids", {"ids": lambda x: x.float()}),
        ("ids", {"ids": lambda x: x.to("meta")}),
        ("weight", {"weight": lambda x: x[0]}),
        ("weight", {"weight": lambda x: x.int()}),
        ("padding_idx", {"padding_idx": lambda _: 9}),
        ("padding_idx", {"padding_idx": lambda _: -10}),
    ],
)
@pytest.mark.parametrize("implementation", ["triton", "eager"])
def test_bad_input_is_named(
    name: str, change: dict[str, Callable[[Any], Any]], implementation: str
) -> None:
    given: dict[str, Any] = {"ids": zipf(5, 9), "weight": draw(9, 24)}
    given |= {key: make(given.get(key)) for key, make in change.items()}
    with backend("embedding", implementation), pytest.raises(ValueError, match=f"^{name}: "):
        embedding(**given)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ids", {"ids": lambda x: x.short()}),
        ("into", {"into": lambda x: x[0]}),
        ("into", {"into": lambda x: x.half()}),
        ("grad_output", {"grad_output": lambda x: x[1:]}),
        ("grad_output", {"grad_output": lambda x: x[:, 1:]}),
        ("grad_output", {"grad_output": lambda x: x.to("meta")}),
        ("padding_idx", {"padding_idx": lambda _: 9}),
    ],
)
def test_bad_addition_is_named_before_any_launch(
    name: str, change: dict[str, Callable[[Any], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_triton, "launch", _must_not_launch)
    given = {"grad_output": draw(5, 24), "ids": zipf(5, 9), "into": draw(9, 24)}
    given |= {key: make(given.get(key)) for key, make in change.items()}
    with (
        backend("add_embedding_grad", "triton"),
        pytest.raises(ValueError, match=f"^{name}: ") as caught,
    ):
        add_embedding_grad(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(ON_GPU, reason="there the process would end")
@pytest.mark.parametrize("implementation", ["triton", "eager"])
@pytest.mark.parametrize("bad", [-1, 9, 1 << 33])
def test_ids_out_of_range_on_a_cpu(implementation: str, bad: int) -> None:
    ids = torch.tensor([1, bad])
    with backend("embedding", implementation), pytest.raises(ValueError, match=f"{bad}$|to 1$"):
        embedding(ids, draw(9, 24))
    into = draw(9, 24)
    before = into.clone()
    with backend("add_embedding_grad", implementation), pytest.raises(ValueError, match="^ids: "):
        add_embedding_grad(draw(2, 24), ids, into)
    assert torch.equal(into, before)


@pytest.mark.skipif(ON_GPU, reason="says what runs on a CPU")
def test_a_cpu_takes_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_triton, "launch", _must_not_launch)
    assert dispatch.describe()["embedding"] == ["triton", "eager", "reference (on request)"]
    weight = draw(9, 24).requires_grad_()
    out = embedding(zipf(20, 9), weight)
    out.sum().backward()
    assert "EmbeddingBackward" in type(out.grad_fn).__name__
    add_embedding_grad(out, zipf(20, 9), draw(9, 24))
