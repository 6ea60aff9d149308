"""Rotary positions against fp64, the decoder's and Hugging Face's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import interpreter
from support.numerics import (
    DEVICE,
    ON_GPU,
    VIEWS,
    bits,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
    sized,
)
from support.row_ops import backend, compare, draw, run
from torch import Tensor

from kernels.reference import rotary_reference
from kernels.rows import rotary_triton
from kernels.rows.rotary import rotary, rotary_angles

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
MANY = sized(37, 16_384)
SHAPES = [
    (MANY, 4, 2, 64), (5, 3, 1, 24), (MANY, 12, 12, 8), (1, 2, 2, 2), (7, 5, 5, 80),
    (3, 9, 3, 128), (6, 2, 1, 20), (2, 17, 4, 256),
]  # fmt: skip


def angles(rows: int, dim: int, dtype: torch.dtype = FP32) -> tuple[Tensor, Tensor]:
    positions = torch.arange(rows, device=DEVICE).mul_(7).remainder_(1000).int()
    return rotary_angles(positions, dim, dtype=dtype)


def inputs(rows: int, heads: int, kv: int, dim: int, dtype: torch.dtype = FP32) -> list[Tensor]:
    return [draw(rows, n, dim, dtype=dtype, seed=n) for n in (heads, kv)]


def alone(q: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return rotary(q, None, cos, sin)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [FP32, FP16, BF16], ids=str)
def test_queries_and_keys(shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    q, k = inputs(*shape, dtype)
    turned = compare("rotary", rotary, [q, k], angles(shape[0], shape[3]))
    one = compare("rotary", alone, [q], angles(shape[0], shape[3]))
    assert torch.equal(one[0], turned[0])


def test_angles_in_half_precision() -> None:
    compare("rotary", rotary, inputs(MANY, 4, 2, 64, BF16), angles(MANY, 64, BF16))


def test_turning_back() -> None:
    """The gradient of a turned tensor, turned itself, is the tensor: lengths do not change."""
    q, k = inputs(9, 4, 2, 64)
    cos, sin = angles(9, 64)
    with backend("rotary", "triton"):
        turned = rotary(q.requires_grad_(), k.requires_grad_(), cos, sin)
        back = torch.autograd.grad(turned, (q, k), [x.detach() for x in turned])
    for x, y in zip((q, k), back, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["triton", "eager", "reference"])
def test_equals_hugging_face_llama(name: str) -> None:
    modeling = pytest.importorskip("transformers.models.llama.modeling_llama")
    q, k = inputs(11, 4, 2, 16)
    positions = torch.tensor([0, 1, 2, 3, 0, 1, 2, 900, 901, 5, 77], device=DEVICE)
    config = modeling.LlamaConfig(hidden_size=64, num_attention_heads=4, num_key_value_heads=2)
    embedding = modeling.LlamaRotaryEmbedding(config).to(DEVICE)
    theirs = modeling.apply_rotary_pos_emb(
        q.transpose(0, 1)[None], k.transpose(0, 1)[None], *embedding(q, positions[None])
    )
    with backend("rotary", name):
        ours = rotary(q, k, *rotary_angles(positions, 16))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b[0].transpose(0, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [FP32, torch.float64, BF16], ids=str)
def test_angles_are_those_of_the_definition(dtype: torch.dtype) -> None:
    positions = torch.tensor([0, 1, 5, 2047], device=DEVICE)
    cos, sin = rotary_angles(positions, 6, base=500.0, dtype=dtype)
    turn = positions.double()[:, None] * 500.0 ** (-torch.arange(3, device=DEVICE).double() / 3)
    assert cos.dtype == sin.dtype == dtype and cos.shape == (4, 3)
    atol = {FP32: 2e-4, torch.float64: 1e-12, BF16: 4e-3}[dtype]
    torch.testing.assert_close(cos.double(), turn.cos(), rtol=0, atol=atol)
    torch.testing.assert_close(sin.double(), turn.sin(), rtol=0, atol=atol)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dim", [64, 24, 20])
def test_any_layout(view: str, dim: int) -> None:
    """Also with NaN before, behind and between the rows."""
    q, k = inputs(5, 4, 2, dim, BF16)
    plain = run("rotary", "triton", rotary, [q, k], angles(5, dim))
    moved = run("rotary", "triton", rotary, [VIEWS[view](x) for x in (q, k)], angles(5, dim))
    assert all(torch.equal(bits(a), bits(b)) for a, b in zip(moved, plain, strict=True))


def test_slices_of_one_projection() -> None:
    """The usual caller: queries, keys and values lie side by side; angles are a view, too."""
    projected = draw(7, 4 + 2 + 2, 64, dtype=BF16)
    cos, sin = (x[:, None].expand(7, 3, 32)[:, 1] for x in angles(7, 64))
    q, k = projected[:, :4], projected[:, 4:6]
    with backend("rotary", "triton"):
        apart = rotary(q, k, cos, sin)
        together = rotary(projected[:, :6], None, cos, sin)
        whole = rotary(q.contiguous(), k.contiguous(), cos.contiguous(), sin.contiguous())
    assert torch.equal(torch.cat(apart, 1), together)
    assert all(torch.equal(a, b) for a, b in zip(apart, whole, strict=True))


def test_only_one_output_is_used_and_no_rows() -> None:
    for used in (0, 1):
        q, k = (x.requires_grad_() for x in inputs(5, 4, 2, 24))
        grads = []
        for name in ("triton", "eager"):
            with backend("rotary", name):
                out = rotary(q, k, *angles(5, 24))[used]
            grads.append(torch.autograd.grad(out.square().sum(), (q, k)[used])[0])
        torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-5)
    empty = inputs(0, 4, 2, 24)
    found = run("rotary", "triton", rotary, empty, angles(0, 24))
    assert [x.shape for x in found] == [x.shape for x in empty] * 2


def test_gradients_of_gradients() -> None:
    """A rotation is linear: its backward is an operator with a gradient."""
    q, k = (x.requires_grad_() for x in inputs(3, 2, 1, 8))
    second = []
    for name in ("triton", "eager"):
        with backend("rotary", name):
            a, b = rotary(q, k, *angles(3, 8))
            loss = a.pow(3).sum() + b.pow(3).sum()
            first = torch.autograd.grad(loss, (q, k), create_graph=True)
            second += torch.autograd.grad(sum(x.pow(2).sum() for x in first), (q,))
    torch.testing.assert_close(*second, rtol=1e-4, atol=1e-4)


def test_gradients_of_the_reference() -> None:
    """What everything is compared with, against finite differences."""
    q, k = (x.double().requires_grad_() for x in inputs(3, 2, 1, 6))
    cos, sin = angles(3, 6, torch.float64)
    assert torch.autograd.gradcheck(rotary_reference, (q, k, cos, sin))


def _must_not_launch(*_: object, **__: object) -> None:
    raise AssertionError("launched")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("q", {"q": lambda q: q[0]}),
        ("q", {"q": lambda q: q.int()}),
        ("q", {"q": lambda q: q[..., :23]}),
        ("q", {"q": lambda q: q[:, :0]}),
        ("k", {"k": lambda k: k[:-1]}),
        ("k", {"k": lambda k: k[..., :22]}),
        ("k", {"k": lambda k: k.half()}),
        ("cos", {"cos": lambda c: c[:-1]}),
        ("sin", {"sin": lambda s: s[:, :-1]}),
        ("sin", {"sin": lambda s: s.half()}),
        ("cos", {"cos": lambda c: c.to("meta")}),
        ("positions", {"positions": lambda _: torch.zeros(3)}),
        ("positions", {"positions": lambda _: torch.zeros(3, 1, dtype=torch.int64)}),
        ("dim", {"positions": lambda _: torch.arange(3), "dim": lambda _: 7}),
    ],
)
def test_bad_input_is_named_before_any_launch(
    name: str, change: dict[str, Callable[[Any], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotary_triton, "launch", _must_not_launch)
    q, k = inputs(5, 4, 2, 24)
    cos, sin = angles(5, 24)
    given: dict[str, Any] = {"q": q, "k": k, "cos": cos, "sin": sin}
    changed = {key: make(given.get(key)) for key, make in change.items()}
    with (
        backend("rotary", "triton"),
        pytest.raises(ValueError, match=f"^{name}: ") as caught,
    ):
        if "positions" in changed:
            rotary_angles(**({"dim": 8} | changed))
        else:
            rotary(**(given | changed))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(ON_GPU, reason="single programs, in the interpreter")
def test_more_than_2_to_the_31_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last programs of a grid, on memory of which only the touched pages exist."""
    rows = (1 << 31) // 1024 + 40

    def sampled(kernel: Any, grid: tuple[int, ...], of: Tensor, *args: Any, **options: Any) -> None:
        options = {k: v for k, v in options.items() if k != "num_warps"}
        interpreter.run_programs(kernel, grid[0], range(grid[0] - 3, grid[0]), args, options)

    monkeypatch.setattr(rotary_triton, "launch", sampled)
    q, k = torch.empty(rows, 16, 64, dtype=FP16), torch.empty(rows, 8, 64, dtype=FP16)
    cos, sin = torch.empty(2, rows, 32)
    small = inputs(2, 16, 8, 64, FP16)
    turn = angles(2, 64)
    for whole, part in zip((q, k, cos, sin), (*small, *turn), strict=True):
        whole[-2:] = part
    found = rotary_triton.turn(q, k, cos, sin, False)
    for a, b in zip(found, rotary_reference(*small, *turn), strict=True):
        assert a is not None and b is not None
        torch.testing.assert_close(a[-2:], b, rtol=2e-3, atol=2e-3)
