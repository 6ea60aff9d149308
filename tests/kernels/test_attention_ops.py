"""Triton attention as PyTorch's compiler, exporter, tracers and autograd see it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from support.attention_cases import SEED, Problem, inputs, mask_of, problem_mask
from support.cuda_graphs import capture, nothing_waits, warm_up
from support.masks import cu_seqlens
from support.numerics import (
    DEVICE,
    VIEWS,
    bits,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
    sized,
)
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from kernels import intervals
from kernels.attention_ops import attention_triton
from kernels.attention_triton import launch
from kernels.intervals import Intervals
from kernels.reference import attention_reference

LENGTHS = sized((5, 0, 9, 1), (5, 0, 9, 1, 200, 64) * 30)
PROBLEMS = {
    "doc": Problem(LENGTHS, "prefix", 2, 1, 24),
    "heads": Problem(LENGTHS, "prefix", 2, 1, 8, dropout=0.2),
    "tiled": Problem(LENGTHS, "causal", 2, 1, 16, tiled=True, options={"softcap": 2.0}),
    "branches": Problem(LENGTHS, "branches", 2, 2, 16, dropout=0.2),
}
by_path = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
FORWARD = torch.ops.babyvlm.attention_forward.default
BACKWARD = torch.ops.babyvlm.attention_backward.default


def _must_not_launch(*_: object, **__: object) -> None:
    raise AssertionError("launched")


def _seed(problem: Problem) -> Tensor | None:
    return torch.tensor([SEED], device=DEVICE) if problem.dropout else None


def _call(
    problem: Problem, mask: Intervals, seed: Tensor | None, q: Tensor, k: Tensor, v: Tensor
) -> Any:
    return attention_triton(
        q, k, v, mask, scale=0.3, softcap=problem.options.get("softcap"), dropout=problem.dropout,
        seed=seed, deterministic=True, return_lse=True,
    )  # fmt: skip


def _leaves(problem: Problem) -> tuple[list[Tensor], Tensor]:
    *leaves, dout = inputs(problem)
    return [x.requires_grad_() for x in leaves], dout


def _operands(problem: Problem, mask: Intervals) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the operands of the two registered operators."""
    leaves, dout = _leaves(problem)
    whole = not problem.tiled and mask.branches is None
    tile = 64 if whole and max(problem.lengths) <= 64 else 0
    groups = mask.groups[tile] if tile else None
    spans = tuple(
        getattr(mask, name)
        for name in (
            "start", "stop", "start2", "stop2", "q_start", "q_stop", "q_start2", "q_stop2"
        )
    )  # fmt: skip
    options = (_seed(problem), 0.3, problem.options.get("softcap", 0.0), problem.dropout)
    forward = (*leaves, *spans, groups, groups, *options, tile, tile)
    out, lse = FORWARD(*forward)
    detached = [x.detach() for x in (dout, *leaves, out)]
    return forward, (*detached, lse, *spans, groups, *options, tile)


@pytest.mark.parametrize("path", ["doc", "branches"])
def test_opcheck(path: str) -> None:
    """Schema, autograd registration, fake tensors and dispatch through AOT autograd."""
    problem = PROBLEMS[path]
    for operator, operands in zip(
        (FORWARD, BACKWARD), _operands(problem, problem_mask(problem)), strict=True
    ):
        assert set(torch.library.opcheck(operator, operands).values()) == {"SUCCESS"}


@by_path
def test_registered_operator_is_the_eager_path(problem: Problem) -> None:
    mask = problem_mask(problem)
    forward, _ = _operands(problem, mask)
    leaves, dout = _leaves(problem)
    eager_out, eager_lse = _call(problem, mask, _seed(problem), *leaves)
    out, lse = FORWARD(*forward)
    assert torch.equal(out, eager_out) and torch.equal(lse.T, eager_lse)
    assert not lse.requires_grad and not eager_lse.requires_grad
    for a, b in zip(
        torch.autograd.grad(out, forward[:3], dout),
        torch.autograd.grad(eager_out, leaves, dout),
        strict=True,
    ):
        assert torch.equal(a, b)


def _assert_compiled_equals_eager(problem: Problem, mask: Intervals, compiled: Any) -> None:
    leaves, dout = _leaves(problem)
    results = []
    for function in (compiled, _call):
        out, lse = function(problem, mask, _seed(problem), *leaves)
        results.append([out, lse, *torch.autograd.grad(out, leaves, dout)])
    for a, b in zip(*results, strict=True):
        assert torch.equal(bits(a), bits(b))


@by_path
def test_compiled_is_eager_bit_by_bit(problem: Problem) -> None:
    torch.compiler.reset()
    mask = problem_mask(problem)
    _ = mask.groups  # read back from the host once on a CPU, built at once on a GPU
    compiled = torch.compile(_call, fullgraph=True, backend="aot_eager")
    _assert_compiled_equals_eager(problem, mask, compiled)


def test_compiled_takes_another_mask() -> None:
    """The mask is an input of the graph: nothing of the first one is baked in."""
    torch.compiler.reset()
    compiled = torch.compile(_call, fullgraph=True, backend="aot_eager")
    for lengths, form in (
        ((5, 0, 9, 1), "causal"),
        ((9, 1, 4, 1), "causal"),
        ((5, 0, 9, 1), "prefix"),
        ((7, 20, 4), "full"),
        ((80, 3), "causal"),
    ):
        problem = dataclasses.replace(PROBLEMS["doc"], lengths=lengths, form=form)
        mask = problem_mask(problem)
        _ = mask.groups
        _assert_compiled_equals_eager(problem, mask, compiled)


def test_symbolic_trace_holds_for_other_lengths() -> None:
    """A trace with symbolic shapes contains the two operators and serves another T."""

    def step(q: Tensor, k: Tensor, v: Tensor, dout: Tensor, *spans: Tensor) -> tuple[Tensor, ...]:
        out, _ = FORWARD(
            q, k, v, spans[0], spans[1], None, None, spans[2], spans[3], None, None, None, None,
            None, 0.3, 0.0, 0.0, 0, 0,
        )  # fmt: skip
        return (out, *torch.autograd.grad(out, (q, k, v), dout))

    def operands(lengths: tuple[int, ...]) -> list[Tensor]:
        problem = Problem(lengths, "causal", 2, 1, 16)
        mask, (leaves, dout) = problem_mask(problem), _leaves(problem)
        return [*leaves, dout, mask.start, mask.stop, mask.q_start, mask.q_stop]

    traced = make_fx(step, tracing_mode="symbolic")(*operands((6, 5)))
    called = {str(node.target) for node in traced.graph.nodes if node.op == "call_function"}
    assert {"babyvlm.attention_forward.default", "babyvlm.attention_backward.default"} <= called
    for lengths in ((6, 5), (7, 1, 12)):
        for a, b in zip(traced(*operands(lengths)), step(*operands(lengths)), strict=True):
            assert torch.equal(a, b)


class _Layer(torch.nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *spans: Tensor) -> Tensor:
        start, stop, q_start, q_stop, cu_seqlens = spans
        mask = Intervals(
            start, stop, q_start, q_stop, None, None, None, None, cu_seqlens, None, None, True,
            None, None,
        )  # fmt: skip
        return _call(PROBLEMS["tiled"], mask, None, q, k, v)[0]


def test_export_with_any_number_of_rows() -> None:
    def operands(lengths: tuple[int, ...]) -> tuple[Tensor, ...]:
        problem = dataclasses.replace(PROBLEMS["tiled"], lengths=lengths)
        m = problem_mask(problem)
        return (*inputs(problem)[:3], m.start, m.stop, m.q_start, m.q_stop, m.cu_seqlens)

    rows, documents = torch.export.Dim("rows", min=2), torch.export.Dim("documents", min=2)
    shapes = tuple({0: documents if at == 7 else rows} for at in range(8))
    program = torch.export.export(
        _Layer(), operands((6, 5)), dynamic_shapes={"q": shapes[0], "k": shapes[1],
        "v": shapes[2], "spans": shapes[3:]},
    )  # fmt: skip
    for lengths in ((6, 5), (7, 1, 12)):
        assert torch.equal(program.module()(*operands(lengths)), _Layer()(*operands(lengths)))


@by_path
def test_fake_tensors_have_the_shapes_and_launch_nothing(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask, (leaves, dout) = problem_mask(problem), _leaves(problem)
    leaves = [VIEWS["heads_first"](x.detach()).requires_grad_() for x in leaves]
    out, lse = _call(problem, mask, _seed(problem), *leaves)
    real = [out, lse, *torch.autograd.grad(out, leaves, dout)]
    monkeypatch.setattr(launch, "_launch", _must_not_launch)
    groups = mask.groups
    with FakeTensorMode() as mode:
        fake = {
            name: mode.from_tensor(value)
            for name, value in vars(mask).items()
            if isinstance(value, Tensor)
        }
        ranges = {tile: mode.from_tensor(value) for tile, value in groups.items()}
        mask = dataclasses.replace(mask, **fake, _groups=ranges)
        leaves, dout = [mode.from_tensor(x) for x in leaves], mode.from_tensor(dout)
        out, lse = _call(problem, mask, _seed(problem), *leaves)
        made = [out, lse, *torch.autograd.grad(out, leaves, dout)]
    for a, b in zip(made, real, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
        assert a.stride() == b.stride()


@pytest.mark.parametrize("through_operator", [False, True])
def test_second_derivative_is_refused(through_operator: bool) -> None:
    """Not left out in silence, however it is asked for."""
    problem = PROBLEMS["doc"]
    mask = problem_mask(problem)

    def penalty() -> tuple[Tensor, list[Tensor]]:
        leaves, _ = _leaves(problem)
        if through_operator:
            operands = _operands(problem, mask)[0]
            out, _ = FORWARD(*leaves, *operands[3:])
        else:
            out, _ = _call(problem, mask, _seed(problem), *leaves)
        grads = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
        return sum(g.square().sum() for g in grads) + leaves[0].sum(), leaves  # type: ignore[return-value]

    loss, leaves = penalty()
    with pytest.raises(RuntimeError, match=r"no autograd formula|twice"):
        torch.autograd.grad(loss, leaves)
    loss, _ = penalty()
    with pytest.raises(RuntimeError, match=r"no autograd formula|twice"):
        loss.backward()


def test_gradients_of_the_reference() -> None:
    """What everything is compared with, against finite differences."""
    mask = mask_of((3, 1, 4), "prefix_branches")
    generator = torch.Generator().manual_seed(0)
    leaves = [
        torch.randn(8, heads, 8, generator=generator, dtype=torch.float64).to(DEVICE)
        for heads in (2, 1, 1)
    ]

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = attention_reference(q, k, v, mask, softcap=1.5, scale=0.7, dropout=0.3, seed=SEED)
        assert isinstance(out, Tensor)
        return out

    assert torch.autograd.gradcheck(run, [x.requires_grad_() for x in leaves])


# On a GPU only.


@pytest.mark.gpu
@by_path
def test_inductor_is_eager_bit_by_bit(problem: Problem) -> None:
    torch.compiler.reset()
    compiled = torch.compile(_call, fullgraph=True)
    _assert_compiled_equals_eager(problem, problem_mask(problem), compiled)


@pytest.mark.gpu
@by_path
def test_nothing_waits_for_the_gpu(problem: Problem) -> None:
    mask, seed, (leaves, dout) = problem_mask(problem), _seed(problem), _leaves(problem)

    def step() -> None:
        out, _ = _call(problem, mask, seed, *leaves)
        torch.autograd.grad(out, leaves, dout)

    step()  # compiles
    with nothing_waits():
        step()


@pytest.mark.gpu
@pytest.mark.parametrize("max_len", [64, None])
def test_cuda_graph_with_its_mask_inside(max_len: int | None) -> None:
    """Captured once; replayed for other documents, other inputs and another dropout seed."""
    total, dim = 640, 64
    one, two = [60] * 10 + [40], [64, 1, 0, 30] * 6 + [33, 37]
    seed = torch.tensor([1], device=DEVICE)
    cu = torch.zeros(27, dtype=torch.int32, device=DEVICE)
    cu.copy_(cu_seqlens(one + [0] * (26 - len(one))))
    problem = Problem((total,), "causal", 2, 1, dim, torch.bfloat16)
    leaves, dout = _leaves(problem)

    def step() -> list[Tensor]:
        mask = intervals(cu, total=total, max_len=max_len)
        out, lse = attention_triton(
            *leaves, mask, scale=0.125, softcap=None, dropout=0.2, seed=seed, deterministic=True,
            return_lse=True,
        )  # fmt: skip
        return [out, lse, *torch.autograd.grad(out, leaves, dout)]

    warm_up(step)
    graph, captured = capture(step)
    fresh = inputs(problem, seed=9)
    with torch.no_grad():
        for leaf, new in zip((*leaves, dout), fresh, strict=True):
            leaf.copy_(new)
    cu.copy_(cu_seqlens(two + [0] * (26 - len(two))))
    seed.fill_(77)
    graph.replay()
    for a, b in zip(captured, step(), strict=True):
        assert torch.equal(bits(a), bits(b))
