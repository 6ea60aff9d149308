"""Linear cross-entropy as PyTorch sees it: opcheck, compilation, graphs, memory."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from support.cross_entropy_cases import (
    OPTIONS,
    Problem,
    compare,
    forced,
    inputs,
    loss_and_grads,
    options_of,
)
from support.cuda_graphs import capture, warm_up
from support.numerics import (
    DEVICE,
    bits,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
    peak_memory,
)

from kernels import linear_cross_entropy, linear_logprobs
from kernels.cross_entropy import ops

# The kernels divide by the sum of a row that they skip, and throw the quotient away.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")
BF16, FP32 = torch.bfloat16, torch.float32
BACKENDS = ("triton", "chunked")


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> None:
    torch._dynamo.reset()


def _arguments(
    problem: Problem, triton: bool, wants: tuple[bool, bool, bool]
) -> tuple[list[Any], list[Any]]:
    """Return the tensors and the scalars of an operator's call."""
    x, weight, bias, targets, _ = inputs(problem)
    options = options_of(problem, bias, FP32)
    leaves = [y.requires_grad_(want) for y, want in zip((x, weight, bias), wants, strict=True)]
    tensors = [*leaves[:2], targets, options.get("bias"), options.get("class_weight")]
    scalars = [
        -100, options.get("softcap", 0.0), options.get("z_loss", 0.0),
        options.get("label_smoothing", 0.0),
    ]  # fmt: skip
    return tensors, scalars


@pytest.mark.parametrize("triton", [True, False], ids=["triton", "torch"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("options", ["none", "all"])
def test_opcheck(options: str, reduction: str, triton: bool) -> None:
    problem = Problem(4, 16, 20, FP32, OPTIONS[options], reduction, ignored=(1,))
    wants = (True, True, "bias" in OPTIONS[options])
    tensors, scalars = _arguments(problem, triton, wants)
    torch.library.opcheck(
        ops.linear_cross_entropy_op, (*tensors, *scalars, reduction, triton, *wants)
    )


@pytest.mark.parametrize("triton", [True, False], ids=["triton", "torch"])
def test_opcheck_of_what_it_is_made_of(triton: bool) -> None:
    wants = (True, False, True)
    tensors, scalars = _arguments(Problem(4, 16, 20, FP32, OPTIONS["all"]), triton, wants)
    upstream = torch.rand(4, device=DEVICE)
    with torch.no_grad():
        torch.library.opcheck(
            ops.linear_cross_entropy_backward_op,
            (upstream, *tensors, *scalars, triton, *wants),
        )
        factor = torch.rand((), device=DEVICE)
        torch.library.opcheck(ops.linear_cross_entropy_scaled_op, (upstream, factor, BF16, triton))
        torch.library.opcheck(ops.linear_logprobs_op, (*tensors[:3], triton))


def test_shapes_of_fakes_are_those_of_results() -> None:
    """For every combination of wanted gradients, dtypes among them."""
    for wants, reduction, dtype in itertools.product(
        itertools.product((True, False), repeat=3), ("none", "sum"), (BF16, torch.float64)
    ):
        problem = Problem(3, 16, 5, dtype, {"bias": True}, reduction)
        tensors, scalars = _arguments(problem, False, wants)
        arguments = (*tensors, *scalars, reduction, False, *wants)
        real = ops.linear_cross_entropy_op(*arguments)
        with torch._subclasses.FakeTensorMode() as mode:
            fakes = [mode.from_tensor(y) if isinstance(y, torch.Tensor) else y for y in arguments]
            fake = ops.linear_cross_entropy_op(*fakes)
        for a, b in zip(real, fake, strict=True):
            assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
def test_compiled_is_eager(dtype: torch.dtype, reduction: str, name: str) -> None:
    """One graph, the same bits: loss, gradients (under a negative upstream too), no gradient."""
    problem = Problem(5, 16, 33, dtype, OPTIONS["all"], reduction, ignored=(1,))
    made = inputs(problem)
    made = (*made[:4], -made[4].abs())

    def step(x: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, **o: Any) -> Any:
        return linear_cross_entropy(2 * x, weight, targets, **o) * 3

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    with forced(name):
        for a, b in zip(
            loss_and_grads(step, problem, made),
            loss_and_grads(compiled, problem, made),
            strict=True,
        ):
            assert torch.equal(bits(a), bits(b))
        x, weight, _, targets, _ = made
        plain = linear_logprobs(x, weight, targets.clamp(min=0))
        scored = torch.compile(linear_logprobs, fullgraph=True, backend="aot_eager")
        assert torch.equal(plain, scored(x, weight, targets.clamp(min=0)))
        with torch.no_grad():
            assert torch.equal(step(x, weight, targets), compiled(x, weight, targets))


def test_compiled_for_any_number_of_rows() -> None:
    compiled = torch.compile(
        linear_cross_entropy, fullgraph=True, backend="aot_eager", dynamic=True
    )
    for rows in (5, 9, 17):
        problem = Problem(rows, 16, 33, FP32, {}, "mean", ignored=(1,))
        made = inputs(problem)
        for a, b in zip(
            loss_and_grads(compiled, problem, made),
            loss_and_grads(linear_cross_entropy, problem, made),
            strict=True,
        ):
            assert torch.equal(a, b)


@pytest.mark.parametrize("traced", [False, True], ids=["function", "operator"])
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_second_derivative_is_refused(reduction: str, traced: bool) -> None:
    """Not left out in silence; the definition has it."""
    x, weight, _, targets, _ = inputs(Problem(4, 16, 20))
    x, weight = x.requires_grad_(), weight.requires_grad_()

    def loss() -> torch.Tensor:
        if traced:
            call = (x, weight, targets, None, None, -100, 0.0, 0.0, 0.0, reduction, False)
            return ops.linear_cross_entropy_op(*call, True, True, False)[0]
        return linear_cross_entropy(x, weight, targets, reduction=reduction)  # type: ignore[arg-type]

    with pytest.raises(RuntimeError, match="gradients of gradients"):
        torch.autograd.grad(loss().sum(), x, create_graph=True)
    torch.autograd.grad(loss().sum(), x)
    with forced("reference"):
        total = linear_cross_entropy(x, weight, targets)
    (grad,) = torch.autograd.grad(total, x, create_graph=True)
    assert torch.autograd.grad(grad.square().sum(), weight)[0].ne(0).all()


@pytest.mark.gpu
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_cuda_graph(reduction: str) -> None:
    """Captured once, replayed on other values and with other rows ignored."""
    problem = Problem(300, 64, 700, BF16, OPTIONS["all"], reduction, ignored=(3, 4))
    made = [y.clone() for y in inputs(problem)]

    def run() -> list[torch.Tensor]:
        return loss_and_grads(linear_cross_entropy, problem, tuple(made))

    warm_up(run, times=1)
    graph, captured = capture(run)
    other = problem.but(seed=1, ignored=(0, 7, 9))
    for held, new in zip(made, inputs(other), strict=True):
        held.copy_(new)
    graph.replay()
    for a, b in zip(captured, compare(other), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=1e-3)


@pytest.mark.gpu
def test_inductor() -> None:
    problem = Problem(3000, 256, 2350, BF16, {"z_loss": 1e-4}, "sum", ignored=(3, 4))
    made = inputs(problem)
    compiled = torch.compile(linear_cross_entropy, fullgraph=True)
    for a, b in zip(
        loss_and_grads(compiled, problem, made),
        loss_and_grads(linear_cross_entropy, problem, made),
        strict=True,
    ):
        assert torch.equal(bits(a), bits(b))


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("rows", "width", "vocab"), [(65_536, 768, 50_304), (65_536, 256, 50_304), (65_536, 256, 2350)]
)
def test_extra_memory(rows: int, width: int, vocab: int) -> None:
    x = torch.randn(rows, width, device=DEVICE, dtype=BF16, requires_grad=True)
    weight = torch.randn(vocab, width, device=DEVICE, dtype=BF16, requires_grad=True)
    targets = torch.randint(vocab, (rows,), device=DEVICE)

    def step() -> None:
        loss = linear_cross_entropy(x, weight, targets, ignore_index=None)
        torch.autograd.grad(loss, (x, weight))

    step()
    assert peak_memory(step) <= 1 << 30
    assert peak_memory(lambda: linear_logprobs(x, weight, targets)) <= 16 << 20


@pytest.mark.gpu
@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize(("width", "vocab"), [(256, 2350), (768, 50_257)])
def test_full_size(width: int, vocab: int, reduction: str) -> None:
    """dW of 65,536 rows in bf16 among the rest: no worse than PyTorch's one float32 sum."""
    compare(Problem(65_536, width, vocab, BF16, {}, reduction))
    compare(Problem(10_000, width, vocab, BF16, OPTIONS["all"], reduction, ignored=(5, 77)))
