"""The fused operations over rows as memory, PyTorch's compiler, tracers and autograd see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from support.cuda_graphs import assert_nothing_waits_and_a_graph_holds
from support.numerics import (
    DEVICE,
    ON_GPU,
    assert_same_bits,
    bits,
    guarded_memory,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
    poisoned_memory,
    sized,
)
from support.row_ops import (
    SEED,
    assert_compiled_is_eager,
    backend,
    draw,
    few_launches,  # noqa: F401  (a fixture)
    run,
)
from torch import Tensor
from torch._subclasses import FakeTensorMode

from kernels import dispatch
from kernels.rows import activations_triton, norm_triton, rotary_triton
from kernels.rows.activations import (
    bias_gelu,
    bias_gelu_backward,
    bias_gelu_forward,
    swiglu,
    swiglu_backward,
    swiglu_forward,
)
from kernels.rows.norm import layer_norm, norm_backward, norm_forward, rms_norm
from kernels.rows.rotary import rotary, rotary_angles, rotary_turn

FP32, BF16 = torch.float32, torch.bfloat16
Leaves = list[Tensor | None]


@dataclass(frozen=True)
class Case:
    """One form of an operation; ``leaves(rows, dtype)`` and ``fixed(rows)`` make its inputs."""

    op: str
    call: Callable[..., Any]
    leaves: Callable[[int, torch.dtype], Leaves]
    fixed: Callable[[int], Sequence[Tensor]] = lambda _: ()


def _rows(n: int, columns: int, dtype: torch.dtype, *, seed: int = 0) -> Tensor:
    return draw(n, columns, dtype=dtype, seed=seed)


def _norm(dtypes: bool, *given: str) -> Callable[[int, torch.dtype], Leaves]:
    def leaves(rows: int, dtype: torch.dtype) -> Leaves:
        own = FP32 if dtypes else dtype
        made = {"weight": draw(40, dtype=own, seed=2), "bias": draw(40, dtype=own, seed=3)}
        made |= {"residual": _rows(rows, 40, dtype, seed=1)}
        return [_rows(rows, 40, dtype), *(made[name] for name in given)]

    return leaves


def _fused(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> Any:
    return layer_norm(x, weight, bias, residual=residual, dropout=0.2, seed=SEED)


def _summed(x: Tensor, weight: Tensor, residual: Tensor) -> Any:
    return rms_norm(x, weight, residual=residual)


def _heads(count: int) -> Callable[[int, torch.dtype], Leaves]:
    return lambda rows, dtype: [
        draw(rows, heads, 24, dtype=dtype, seed=heads) for heads in (4, 2)[:count]
    ]


def _angles(rows: int) -> Sequence[Tensor]:
    return rotary_angles(torch.arange(rows, device=DEVICE), 24)


def _wide(count: int) -> Callable[[int, torch.dtype], Leaves]:
    return lambda rows, dtype: [_rows(rows, 200, dtype, seed=at) for at in range(count)]


CASES = {
    "layer_norm": Case("layer_norm", layer_norm, _norm(False, "weight", "bias")),
    "layer_norm fused": Case("layer_norm", _fused, _norm(True, "weight", "bias", "residual")),
    "rms_norm": Case("rms_norm", rms_norm, _norm(False, "weight")),
    "rms_norm fused": Case("rms_norm", _summed, _norm(False, "weight", "residual")),
    "gelu": Case("bias_gelu", partial(bias_gelu, approximate="none"), _wide(1)),
    "bias_gelu": Case(
        "bias_gelu",
        partial(bias_gelu, dropout=0.2, seed=SEED),
        lambda rows, dtype: [_rows(rows, 200, dtype), draw(200, dtype=dtype, seed=1)],
    ),
    "swiglu packed": Case("swiglu", swiglu, _wide(1)),
    "swiglu": Case("swiglu", swiglu, _wide(2)),
    "rotary": Case("rotary", rotary, _heads(2), _angles),
    "rotary alone": Case(
        "rotary", lambda q, cos, sin: rotary(q, None, cos, sin), _heads(1), _angles
    ),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@every_case
def test_same_bits_whatever_the_memory_holds(case: Case) -> None:
    """Memory full of NaN, nothing written outside of a result, and the same bits again."""
    rows = sized(37, 65_536)
    once = partial(run, case.op, "triton", case.call, case.leaves(rows, BF16), case.fixed(rows))
    first = [bits(x).clone() for x in once()]
    assert_same_bits(once, sized(2, 100))
    with poisoned_memory():
        assert all(torch.equal(bits(a), b) for a, b in zip(once(), first, strict=True))
    with guarded_memory():
        found = once()
    assert all(torch.equal(bits(a), b) for a, b in zip(found, first, strict=True))


@every_case
def test_compiled_is_eager_bit_by_bit(case: Case) -> None:
    """The public function, in one graph."""
    assert_compiled_is_eager(case.op, case.call, case.leaves(5, FP32), case.fixed(5))


@every_case
def test_fake_tensors_have_the_shapes_and_launch_nothing(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, fixed = case.leaves(5, BF16), case.fixed(5)
    real = run(case.op, "triton", case.call, given, fixed)
    for module in (norm_triton, activations_triton, rotary_triton):
        monkeypatch.setattr(module, "launch", _must_not_launch)
    with FakeTensorMode() as mode, backend(case.op, "triton"):
        leaves = [mode.from_tensor(x).requires_grad_() for x in given if x is not None]
        found = case.call(*leaves, *(mode.from_tensor(x) for x in fixed))
        outs = found if isinstance(found, tuple) else (found,)
        made = [*outs, *torch.autograd.grad(outs, leaves, [torch.ones_like(x) for x in outs])]
    for a, b in zip(made, real, strict=True):
        assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())


def _must_not_launch(*_: object, **__: object) -> None:
    raise AssertionError("launched")


def _operators() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    x, up, other = (draw(5, 24, seed=at) for at in (0, 1, 4))
    w, b = draw(24, seed=2), draw(24, seed=3)
    seed, stats = torch.tensor([SEED], device=DEVICE), draw(2, 5)
    (q, k), turn = _heads(2)(5, FP32), _angles(5)
    return {
        "norm": (norm_forward, (x, w, b, None, None, 1e-5, 0.0, True)),
        "norm fused": (norm_forward, (x, w, b, other, seed, 1e-5, 0.2, True)),
        "norm rms": (norm_forward, (x, w, None, other, None, 1e-6, 0.0, False)),
        "norm back": (norm_backward, (up, None, x, w, stats, None, 0.0, False, True)),
        "norm fused back": (norm_backward, (up, other, x, w, stats, seed, 0.2, True, True)),
        "gelu": (bias_gelu_forward, (x, None, None, 0.0, False)),
        "bias_gelu": (bias_gelu_forward, (x, b, seed, 0.2, True)),
        "gelu back": (bias_gelu_backward, (up, x, None, None, 0.0, False)),
        "bias_gelu back": (bias_gelu_backward, (up, x, b, seed, 0.2, True)),
        "swiglu packed": (swiglu_forward, (x, None)),
        "swiglu": (swiglu_forward, (x, other)),
        "swiglu packed back": (swiglu_backward, (up[:, :12], x, None)),
        "swiglu back": (swiglu_backward, (up, x, other)),
        "rotary": (rotary_turn, (q, k, *turn, False)),
        "rotary alone back": (rotary_turn, (q, None, *turn, True)),
    }


@pytest.mark.parametrize("name", _operators())
def test_registered_operators(name: str) -> None:
    """Schema, autograd registration, fake tensors and dispatch through AOT autograd."""
    operator, operands = _operators()[name]
    if not name.endswith("back") or name.startswith("rotary"):
        operands = tuple(
            x.requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x
            for x in operands
        )
        if name.startswith("rotary"):  # angles have no gradient
            operands = (*operands[:2], *(x.detach() for x in operands[2:4]), operands[4])
    assert set(torch.library.opcheck(operator, operands).values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("rotary")])
def test_second_derivative_is_refused(name: str) -> None:
    """Not left out in silence."""
    case = CASES[name]
    leaves = [x.requires_grad_() for x in case.leaves(5, FP32) if x is not None]
    with backend(case.op, "triton"):
        found = case.call(*leaves)
    y = found[0] if isinstance(found, tuple) else found
    (grad,) = torch.autograd.grad(y.square().sum(), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match=r"no autograd formula|twice"):
        grad.square().sum().backward()


@pytest.mark.skipif(ON_GPU, reason="says what runs on a CPU")
@pytest.mark.parametrize("op", sorted({case.op for case in CASES.values()}))
def test_a_cpu_takes_plain_torch(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dispatch.describe()[op] == ["triton", "eager", "reference (on request)"]
    for module in (norm_triton, activations_triton, rotary_triton):
        monkeypatch.setattr(module, "launch", _must_not_launch)
    for case in (case for case in CASES.values() if case.op == op):
        case.call(*case.leaves(5, FP32), *case.fixed(5))


# On a GPU only.


@pytest.mark.gpu
@every_case
def test_inductor_is_eager_bit_by_bit(case: Case) -> None:
    rows = 4096
    assert_compiled_is_eager(
        case.op, case.call, case.leaves(rows, BF16), case.fixed(rows), engine="inductor"
    )


@pytest.mark.gpu
@every_case
def test_nothing_waits_for_the_gpu_and_a_graph_holds_it(case: Case) -> None:
    rows = 4096
    leaves = [x.requires_grad_() for x in case.leaves(rows, BF16) if x is not None]
    fixed = case.fixed(rows)

    def step() -> list[Tensor]:
        found = case.call(*leaves, *fixed)
        outs = found if isinstance(found, tuple) else (found,)
        return [*outs, *torch.autograd.grad(outs, leaves, [x.detach() for x in outs])]

    assert_nothing_waits_and_a_graph_holds(step, lambda: [x.neg_() for x in leaves])
