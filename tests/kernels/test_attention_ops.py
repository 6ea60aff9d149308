"""Triton attention as PyTorch's compiler, exporter, tracers and autograd see it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.attention_cases import SEED, Problem, attend, inputs, mask_of, problem_mask
from support.masks import cu_seqlens
from support.numerics import (
    DEVICE,
    bits,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
    sized,
)
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from kernels import attention, dispatch, intervals
from kernels.attention_ops import attention_triton, refuse_triton
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


def _call(problem: Problem, q: Tensor, k: Tensor, v: Tensor, mask: Intervals) -> Any:
    seed = torch.tensor([SEED], device=DEVICE) if problem.dropout else None
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
    seed = torch.tensor([SEED], device=DEVICE) if problem.dropout else None
    spans = tuple(
        getattr(mask, name)
        for name in (
            "start", "stop", "start2", "stop2", "q_start", "q_stop", "q_start2", "q_stop2"
        )
    )  # fmt: skip
    options = (seed, 0.3, problem.options.get("softcap", 0.0), problem.dropout)
    forward = (*leaves, *spans, groups, groups, *options, tile, tile)
    out, lse = FORWARD(*forward)
    detached = [x.detach() for x in (dout, *leaves, out)]
    return forward, (*detached, lse, *spans, groups, *options, tile)


@by_path
def test_opcheck(problem: Problem) -> None:
    """Schema, autograd registration, fake tensors and dispatch through AOT autograd."""
    for operator, operands in zip(
        (FORWARD, BACKWARD), _operands(problem, problem_mask(problem)), strict=True
    ):
        assert set(torch.library.opcheck(operator, operands).values()) == {"SUCCESS"}


@by_path
def test_registered_operator_is_the_eager_path(problem: Problem) -> None:
    mask = problem_mask(problem)
    forward, _ = _operands(problem, mask)
    leaves, dout = _leaves(problem)
    eager_out, eager_lse = _call(problem, *leaves, mask)
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
        out, lse = function(problem, *leaves, mask)
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
        return _call(PROBLEMS["tiled"], q, k, v, mask)[0]


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
    out, lse = _call(problem, *leaves, mask)
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
        out, lse = _call(problem, *leaves, mask)
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
            out, _ = _call(problem, *leaves, mask)
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


# The public function in front of these kernels.


@pytest.fixture
def triton_chosen() -> Iterator[None]:
    dispatch.set_backend("attention", "triton")
    yield
    dispatch.set_backend("attention", None)


def _must_not_launch(*_: object, **__: object) -> None:
    raise AssertionError("launched")


@by_path
def test_public_function(problem: Problem, triton_chosen: None) -> None:
    mask, (leaves, dout) = problem_mask(problem), _leaves(problem)
    options = {"dropout": problem.dropout, "seed": SEED, **problem.options}
    out, lse = attention(*leaves, mask, **options, return_lse=True)
    found = [out, lse, *torch.autograd.grad(out, leaves, dout)]
    expected = attend(problem, mask, *inputs(problem))
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
    alone = attention(*leaves, mask, **options)
    assert isinstance(alone, Tensor) and torch.equal(alone, out)


def test_seed_is_drawn_from_the_global_generator(triton_chosen: None) -> None:
    problem = PROBLEMS["doc"]
    mask, (q, k, v, _) = problem_mask(problem), inputs(problem)
    torch.manual_seed(3)
    first, second = (attention(q, k, v, mask, dropout=0.4) for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(attention(q, k, v, mask, dropout=0.4), first)
    assert not torch.equal(first, second)


def test_public_function_compiles(triton_chosen: None) -> None:
    torch.compiler.reset()
    problem = PROBLEMS["doc"]
    mask, (leaves, dout) = problem_mask(problem), _leaves(problem)
    _ = mask.groups

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v, mask, dropout=0.2, seed=SEED)  # type: ignore[return-value]

    results = []
    for function in (torch.compile(step, fullgraph=True, backend="aot_eager"), step):
        out = function(*leaves)
        results.append([out, *torch.autograd.grad(out, leaves, dout)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("q", dict.fromkeys("qkv", lambda x: x[..., :12])),
        ("q", {"q": lambda q: q[0]}),
        ("q", {"q": lambda q: q.int()}),
        ("k", {"k": lambda k: k.half()}),
        ("v", {"v": lambda v: v.bfloat16()}),
        ("k", {"k": lambda k: k[:-1]}),
        ("v", {"v": lambda v: v[..., :8]}),
        ("k", {"v": lambda v: v[:, :1]}),
        ("k", {"k": lambda k: k.repeat(1, 2, 1)[:, :3], "v": lambda v: v.repeat(1, 2, 1)[:, :3]}),
        ("k", {"k": lambda k: k[:, :0], "v": lambda v: v[:, :0]}),
        ("intervals", {"intervals": lambda _: mask_of((5, 9), "causal")}),
        ("softcap", {"softcap": lambda _: 0.0}),
        ("softcap", {"softcap": lambda _: -1.0}),
        ("dropout", {"dropout": lambda _: 1.0}),
        ("dropout", {"dropout": lambda _: -0.1}),
        ("seed", {"dropout": lambda _: 0.1, "seed": lambda _: torch.zeros(2, dtype=torch.int64)}),
        ("seed", {"dropout": lambda _: 0.1, "seed": lambda _: 1 << 63}),
    ],
)
def test_bad_input_is_named_before_any_launch(
    name: str, change: dict[str, Any], triton_chosen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_launch", _must_not_launch)
    problem = dataclasses.replace(PROBLEMS["doc"], heads=4, kv_heads=2)
    q, k, v, _ = inputs(problem)
    arguments: dict[str, Any] = {"q": q, "k": k, "v": v, "intervals": problem_mask(problem)}
    attempted = {n: f(arguments.get(n)) for n, f in change.items()}
    with pytest.raises(ValueError, match=f"^{name}: ") as caught:
        attention(**(arguments | attempted))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("prefix_lens", {"cu_seqlens": [0, 5, 9], "prefix_lens": [6, 0]}),
        ("cu_seqlens", {"cu_seqlens": [0, 5, 9], "total": 10}),
        ("cu_seqlens", {"cu_seqlens": [0, 5, 4]}),
        ("window", {"cu_seqlens": [0, 5, 9], "prefix_lens": [1, 1], "window": 3}),
        ("branches", {"cu_seqlens": [0, 5, 9], "branches": [-1, 1]}),
    ],
)
def test_bad_masks_are_named(name: str, arguments: dict[str, Any]) -> None:
    made = {
        key: torch.tensor(value, dtype=torch.int32) if isinstance(value, list) else value
        for key, value in arguments.items()
    }
    with pytest.raises(ValueError, match=f"^{name}: "):
        intervals(**made)


def test_what_the_kernels_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    q = torch.zeros(4, 2, 16, device=DEVICE)
    assert refuse_triton(q) is None
    assert "float64" in str(refuse_triton(q.double()))
    assert "128" in str(refuse_triton(torch.zeros(4, 2, 136, device=DEVICE)))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "CUDA" in str(refuse_triton(q.cpu()))


# On a GPU only.


def _step(problem: Problem, mask: Intervals, leaves: list[Tensor], dout: Tensor) -> list[Tensor]:
    out, lse = _call(problem, *leaves, mask)
    return [out, lse, *torch.autograd.grad(out, leaves, dout)]


@pytest.mark.gpu
@by_path
def test_inductor_is_eager_bit_by_bit(problem: Problem) -> None:
    torch.compiler.reset()
    compiled = torch.compile(_call, fullgraph=True)
    _assert_compiled_equals_eager(problem, problem_mask(problem), compiled)


@pytest.mark.gpu
@by_path
def test_nothing_waits_for_the_gpu(problem: Problem) -> None:
    mask, (leaves, dout) = problem_mask(problem), _leaves(problem)
    _step(problem, mask, leaves, dout)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        _step(problem, mask, leaves, dout)
    finally:
        torch.cuda.set_sync_debug_mode("default")


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

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    fresh = inputs(problem, seed=9)
    with torch.no_grad():
        for leaf, new in zip((*leaves, dout), fresh, strict=True):
            leaf.copy_(new)
    cu.copy_(cu_seqlens(two + [0] * (26 - len(two))))
    seed.fill_(77)
    graph.replay()
    for a, b in zip(captured, step(), strict=True):
        assert torch.equal(bits(a), bits(b))
