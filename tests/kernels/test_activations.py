"""Bias + GELU + dropout and SwiGLU against fp64, in every form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import interpreter
from support.numerics import (
    DEVICE,
    ON_GPU,
    bits,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
    sized,
)
from support.row_ops import (
    ROW_VIEWS,
    SEED,
    backend,
    compare,
    draw,
    few_launches,  # noqa: F401  (a fixture)
    run,
)
from torch import Tensor

from kernels import dropout
from kernels.reference import bias_gelu_reference, swiglu_reference
from kernels.rows import activations_triton
from kernels.rows.activations import (
    bias_gelu,
    swiglu,
)

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
MANY = sized(37, 16_384)
SHAPES = [(1, 8), (3, 1), (MANY, 256), (5, 1000), (40, 129), (9, 768), (3, 1537)]
FORMS = ["tanh", "none"]


def call(x: Tensor, bias: Tensor | None = None, *, form: str = "tanh", p: float = 0.0) -> Tensor:
    seed = SEED if p else None
    return bias_gelu(x, bias, approximate=form, dropout=p, seed=seed)  # type: ignore[arg-type]


def inputs(rows: int, columns: int, dtype: torch.dtype = FP32) -> list[Tensor]:
    return [(2 * draw(rows, columns)).to(dtype), draw(columns, dtype=dtype, seed=1)]


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("dtype", [FP32, FP16, BF16], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_gelu_with_bias(rows: int, columns: int, dtype: torch.dtype, form: str) -> None:
    compare("bias_gelu", partial(call, form=form), inputs(rows, columns, dtype), terms=4.0)


@pytest.mark.parametrize("p", [0.0, 0.15])
@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_gelu_alone_and_with_dropout(p: float, dtype: torch.dtype, form: str) -> None:
    x, bias = inputs(MANY, 256, dtype)
    compare("bias_gelu", partial(call, form=form, p=p), [x, None])
    compare("bias_gelu", partial(call, form=form, p=p), [x[:5, :129], bias[:129]], terms=4.0)


def test_gelu_with_a_float32_bias() -> None:
    x, bias = inputs(MANY, 256, BF16)
    found = compare("bias_gelu", call, [x, bias.float()], terms=4.0)
    assert [y.dtype for y in found] == [BF16, BF16, FP32]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["triton", "eager", "reference"])
def test_gelu_is_torch_s_everywhere(form: str, name: str) -> None:
    """Also far out, where the exponential leaves float32's range, and at NaN."""
    far = torch.tensor([0.0, -0.0, 1e-30, 50.0, 1e4, 1e15, -50.0, -1e4, -1e15], device=DEVICE)
    x = torch.cat([torch.linspace(-12, 12, 1015, device=DEVICE), far])[None].requires_grad_()
    with backend("bias_gelu", name):
        y = call(x, form=form)
        (dx,) = torch.autograd.grad(y.sum(), x)
    want = F.gelu(x.double(), approximate=form)
    (dwant,) = torch.autograd.grad(want.sum(), x)
    torch.testing.assert_close(y.double(), want, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(dx, dwant, rtol=2e-6, atol=2e-6)
    with backend("bias_gelu", name):
        assert call(torch.full((1, 8), torch.nan, device=DEVICE), form=form).isnan().all()


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (MANY, 512), (5, 2000), (3, 26), (2, 1538)])
@pytest.mark.parametrize("dtype", [FP32, FP16, BF16], ids=str)
def test_swiglu(rows: int, columns: int, dtype: torch.dtype) -> None:
    both = inputs(rows, columns, dtype)[0]
    packed = compare("swiglu", swiglu, [both])
    apart = compare("swiglu", swiglu, [x.contiguous() for x in both.chunk(2, -1)])
    assert torch.equal(packed[0], apart[0])
    assert torch.equal(packed[1], torch.cat(apart[1:], dim=-1))
    halves = run("swiglu", "triton", swiglu, both.chunk(2, -1))
    assert all(torch.equal(a, b) for a, b in zip(halves, apart, strict=True))


@pytest.mark.parametrize("name", ["triton", "eager", "reference"])
def test_swiglu_far_out(name: str) -> None:
    gate = torch.tensor([[0.0, 1e-30, 90.0, 1e15, -90.0, -1e15, 1.0, -1.0]], device=DEVICE)
    gate.requires_grad_()
    up = torch.full_like(gate, 2.0)
    with backend("swiglu", name):
        y = swiglu(gate, up)
        (grad,) = torch.autograd.grad(y.sum(), gate)
    want = 2 * F.silu(gate.double())
    (dwant,) = torch.autograd.grad(want.sum(), gate)
    torch.testing.assert_close(y.double(), want, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(grad, dwant, rtol=1e-6, atol=1e-6)


def test_leading_dimensions_and_no_rows() -> None:
    x, bias = inputs(24, 40)
    flat = run("bias_gelu", "triton", partial(call, p=0.2), [x, bias])
    shaped = compare("bias_gelu", partial(call, p=0.2), [x.view(2, 3, 4, 40), bias], terms=4.0)
    assert torch.equal(shaped[0].view(24, 40), flat[0])
    assert compare("swiglu", swiglu, [x.view(2, 12, 40)])[0].shape == (2, 12, 20)
    for shape in ((0, 40), (2, 0, 40)):
        none = torch.empty(shape, device=DEVICE)
        found = run("bias_gelu", "triton", partial(call, p=0.2), [none, bias])
        assert found[0].shape == found[1].shape == shape and not found[2].any()
        found = run("swiglu", "triton", swiglu, [none])
        assert found[0].shape == (*shape[:-1], 20) and found[1].shape == shape


@pytest.mark.parametrize("view", ROW_VIEWS)
@pytest.mark.parametrize("columns", [256, 40, 130])
def test_any_layout(view: str, columns: int) -> None:
    """Also with NaN before, behind and between the rows."""
    x, bias = inputs(9, columns, BF16)
    moved = ROW_VIEWS[view](x)
    for op, function, given, other in (
        ("bias_gelu", partial(call, p=0.2), [x, bias], [moved, bias]),
        ("swiglu", swiglu, [x], [moved]),
        ("swiglu", swiglu, [x, x.flip(0)], [moved, ROW_VIEWS[view](x.flip(0))]),
    ):
        found = zip(
            run(op, "triton", function, given), run(op, "triton", function, other), strict=True
        )
        assert all(torch.equal(bits(a), bits(b)) for a, b in found)


def test_gradient_of_a_sum() -> None:
    """Its strides are zero."""
    x, bias = (y.requires_grad_() for y in inputs(6, 64))
    apart = bias.detach()[:, None].expand(64, 3).contiguous()[:, 1]  # every third number
    with backend("bias_gelu", "triton"):
        assert torch.equal(call(x, apart), call(x, bias))
    ones = torch.ones(6, 32, device=DEVICE)
    with backend("bias_gelu", "triton"), backend("swiglu", "triton"):
        for y, up in ((call(x, bias), torch.ones_like(x)), (swiglu(x), ones)):
            (a,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
            (b,) = torch.autograd.grad(y, x, up)
            assert torch.equal(a, b)


@pytest.mark.parametrize("frozen", [0, 1])
def test_inputs_without_gradient(frozen: int) -> None:
    leaves = [x.requires_grad_(at != frozen) for at, x in enumerate(inputs(9, 64))]
    grads = []
    for name in ("triton", "eager"):
        with backend("bias_gelu", name):
            grads += torch.autograd.grad(call(*leaves).sum(), leaves[1 - frozen])
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-5)


def test_dropout_mask_entry_by_entry() -> None:
    """The definition's mask, row and column; the backward has the same one."""
    rows, columns, p = 13, 72, 0.4
    keys = dropout.row_keys(SEED, torch.arange(rows, device=DEVICE), 1)
    kept = dropout.keep(keys, torch.arange(columns, device=DEVICE), p)[:, 0]
    for name in ("triton", "eager", "reference"):
        x = torch.ones(rows, columns, device=DEVICE, requires_grad=True)
        with backend("bias_gelu", name):
            y = call(x, p=p)
            (dx,) = torch.autograd.grad(y.sum(), x)
        assert torch.equal(y != 0, kept) and torch.equal(dx != 0, kept), name
        want = F.gelu(torch.ones(()), approximate="tanh").item() / (1 - p)
        torch.testing.assert_close(y[kept], torch.full_like(y[kept], want))


def test_seed_is_drawn_from_the_global_generator() -> None:
    x, bias = inputs(9, 64)
    with backend("bias_gelu", "triton"):
        torch.manual_seed(3)
        first, second = (bias_gelu(x, bias, dropout=0.3) for _ in range(2))
        torch.manual_seed(3)
        assert torch.equal(bias_gelu(x, bias, dropout=0.3), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("columns", [8, 512, 11_264, 200_000])
def test_partial_sums_are_bounded(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs and partial sums depend on N alone once M is large."""
    seen: list[int] = []

    def recorded(kernel: Any, grid: tuple[int, ...], of: Tensor, *rest: Any, **_: Any) -> None:
        c = activations_triton.config("bwd", columns, 2)
        blocks = -(-columns // c.columns)
        assert grid[0] == blocks * rest[7] and rest[5].shape == (1, rest[7], columns)
        seen.append(grid[0])

    monkeypatch.setattr(activations_triton, "launch", recorded)
    monkeypatch.setattr(activations_triton, "column_sums", lambda *_: None)
    for rows in (1 << 18, 1 << 20):
        x = torch.empty(1, dtype=BF16, device=DEVICE).expand(rows, columns)
        monkeypatch.setattr(activations_triton, "ready", lambda x: x)
        monkeypatch.setattr(torch, "empty", _meta_if_large(torch.empty))
        bias = torch.zeros(columns, dtype=BF16, device=DEVICE)
        activations_triton.gelu_backward(x, x, bias, None, 0.0, True)
        monkeypatch.undo()
        monkeypatch.setattr(activations_triton, "launch", recorded)
        monkeypatch.setattr(activations_triton, "column_sums", lambda *_: None)
    assert seen[0] == seen[1] <= max(activations_triton.PROGRAMS, -(-columns // 128))


def _meta_if_large(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def empty(shape: Any, **options: Any) -> Tensor:
        large = torch.Size(shape).numel() > 1 << 26
        return real(shape, **(options | ({"device": "meta"} if large else {})))

    return empty


@pytest.mark.skipif(ON_GPU, reason="fewer programs, in the interpreter")
def test_a_program_walks_over_many_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations_triton, "PROGRAMS", 6)
    compare("bias_gelu", partial(call, p=0.1), inputs(170, 768), terms=4.0)


GELU = [(SEED, 0.2, True), (None, 0.0, False)]


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_the_references(form: str) -> None:
    """What everything is compared with, against finite differences."""
    x, bias = (y.double().requires_grad_() for y in inputs(3, 6))
    seed = torch.tensor([SEED], device=DEVICE)

    def definition(x: Tensor, bias: Tensor) -> Tensor:
        return bias_gelu_reference(x, bias, approximate=form, dropout=0.3, seed=seed)

    assert torch.autograd.gradcheck(definition, (x, bias))
    assert torch.autograd.gradcheck(swiglu_reference, (x,))
    assert torch.autograd.gradcheck(swiglu_reference, (x, x.detach().flip(0).requires_grad_()))


def _must_not_launch(*_: object, **__: object) -> None:
    raise AssertionError("launched")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("x", {"x": lambda x: x.long()}),
        ("x", {"x": lambda x: x[:, :0]}),
        ("bias", {"bias": lambda b: b[:-1]}),
        ("bias", {"bias": lambda b: b.half()}),
        ("bias", {"bias": lambda b: b.to("meta")}),
        ("approximate", {"approximate": lambda _: "erf"}),
        ("dropout", {"dropout": lambda _: 1.0}),
        ("seed", {"dropout": lambda _: 0.1, "seed": lambda _: 1 << 63}),
        ("gate", {"gate": lambda x: x[:, :23]}),
        ("gate", {"gate": lambda x: x.int()}),
        ("up", {"gate": lambda x: x, "up": lambda x: x[:, 1:]}),
        ("up", {"gate": lambda x: x, "up": lambda x: x.half()}),
    ],
)
def test_bad_input_is_named_before_any_launch(
    name: str, change: dict[str, Callable[[Any], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations_triton, "launch", _must_not_launch)
    x, bias = inputs(5, 24)
    given: dict[str, Any] = {"x": x, "bias": bias}
    changed = {key: make(bias if key == "bias" else x) for key, make in change.items()}
    with (
        backend("bias_gelu", "triton"), backend("swiglu", "triton"),
        pytest.raises(ValueError, match=f"^{name}: ") as caught,
    ):  # fmt: skip
        swiglu(**changed) if "gate" in changed else bias_gelu(**(given | changed))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(ON_GPU, reason="single programs, in the interpreter")
def test_more_than_2_to_the_31_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last programs of a grid, on memory of which only the touched pages exist."""
    rows, columns = (1 << 31) // 1024 + 40, 1024

    def sampled(kernel: Any, grid: tuple[int, ...], of: Tensor, *args: Any, **options: Any) -> None:
        options = {k: v for k, v in options.items() if k not in ("num_warps", "maxnreg")}
        interpreter.run_programs(kernel, grid[0], range(grid[0] - 2, grid[0]), args, options)

    monkeypatch.setattr(activations_triton, "launch", sampled)
    monkeypatch.setattr(activations_triton, "PROGRAMS", 1 << 30)
    monkeypatch.setattr(activations_triton, "MOST_PARTIALS", 1 << 30)
    x, dy = torch.empty(rows, columns, dtype=FP16), torch.empty(rows, columns, dtype=FP16)
    part, up = draw(2, columns, dtype=FP16), draw(2, columns, dtype=FP16, seed=1)
    x[-2:], dy[-2:] = part, up
    part.requires_grad_()
    for want, y, dx in (
        (
            F.gelu(part.float(), approximate="tanh"),
            activations_triton.gelu_forward(x, None, None, 0.0, True),
            activations_triton.gelu_backward(dy, x, None, None, 0.0, True)[0],
        ),
        (
            F.silu(part.float()) * up.float(),
            activations_triton.swiglu_forward(x, dy),
            activations_triton.swiglu_backward(dy, x, dy)[0],
        ),
    ):
        torch.testing.assert_close(y[-2:].float(), want, rtol=2e-3, atol=2e-3)
        (grad,) = torch.autograd.grad(want, part, up.float())
        torch.testing.assert_close(dx[-2:], grad, rtol=2e-3, atol=2e-3)


# On a GPU only.
