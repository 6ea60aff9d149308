"""AdamW's launches and tables, as compilers and tracers see it, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import interpreter
from support.adamw_cases import assert_as_good_as_torch, problem
from support.numerics import (
    DEVICE,
    ON_GPU,
    bits,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
)
from support.row_ops import backend, draw
from torch import Tensor
from torch._subclasses import FakeTensorMode

from kernels import dispatch
from kernels.optimizer import adamw_triton, ops, tables
from kernels.optimizer.ops import fused_adamw

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16


@pytest.mark.parametrize(("clip", "skip"), [(None, False), (1.0, False), (None, True), (1.0, True)])
def test_launches(clip: float | None, skip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One, and one for the norm; for each combination of dtypes. None grows with the tensors."""
    seen: list[tuple[str, tuple[int, ...]]] = []
    real = adamw_triton.launch

    def recorded(kernel: Any, grid: tuple[int, ...], *rest: Any, **options: Any) -> None:
        seen.append((kernel.__name__, grid))
        real(kernel, grid, *rest, **options)

    monkeypatch.setattr(adamw_triton, "launch", recorded)
    given = problem(shapes=[(6,)] * 40 + [(2 * tables.CHUNK + 1,)], steps=1)
    given.run("triton", max_norm=clip, skip_nonfinite=skip)
    norm = clip is not None or skip
    assert seen == [("adamw_norm_kernel", (43,))] * norm + [("adamw_kernel", (43,))]
    seen.clear()
    mixed = problem(shapes=[(6,)] * 4, steps=1)
    for xs in (mixed.params, mixed.exp_avgs, mixed.exp_avg_sqs, mixed.grads[0]):
        xs[1:3] = [x.bfloat16() for x in xs[1:3]]
    want = mixed.copy()
    mixed.run("triton", max_norm=clip, skip_nonfinite=skip)
    assert [name for name, _ in seen] == ["adamw_norm_kernel"] * 2 * norm + ["adamw_kernel"] * 2
    assert [float(x) for x in mixed.steps] == [1.0] * 4
    want.run("eager", max_norm=clip, skip_nonfinite=skip)
    for x, y in zip(mixed.params, want.params, strict=True):
        torch.testing.assert_close(x, y)


def test_partial_sums_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of the norm stop growing; few of them walk over many chunks."""
    grids: list[int] = []
    monkeypatch.setattr(adamw_triton, "launch", lambda _, grid, *rest, **__: grids.append(grid[0]))
    large = torch.empty(3000 * tables.CHUNK, dtype=BF16, device=DEVICE)
    lists = [[large]] * 4
    with backend("adamw", "triton"):
        fused_adamw(*lists, [torch.zeros((), device=DEVICE)], lr=0.1, max_norm=1.0)
    assert grids == [tables.PARTIALS, 3000]
    monkeypatch.undo()
    if not ON_GPU:  # two programs for five chunks
        monkeypatch.setattr(tables, "PARTIALS", 2)
        monkeypatch.setattr(adamw_triton, "PARTIALS", 2)
        assert_as_good_as_torch(problem(shapes=[(4 * tables.CHUNK,), (5,)], steps=1), max_norm=1.0)


def test_learning_rate_on_the_device() -> None:
    rate = torch.tensor(1e-2, device=DEVICE)
    given, want = problem(), problem()
    given.run("triton", lr=rate)
    want.run("triton", lr=1e-2)
    for x, y in zip(given.params, want.params, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-7)
    rate.zero_()
    before = [x.clone() for x in given.params]
    given.run("triton", lr=rate, weight_decay=0.0)
    assert all(map(torch.equal, given.params, before))


def test_tables_are_made_once() -> None:
    given = problem(steps=4)
    given.grads = given.grads[:1] * 3 + given.grads[1:2]
    tables._kept.clear()
    given.run("triton")
    assert len(tables._kept) == 2  # for two sets of gradients
    for _ in range(tables.KEPT + 3):
        problem(shapes=[(2,)], steps=1).run("triton")
    assert len(tables._kept) <= tables.KEPT


@pytest.mark.parametrize("options", [{}, {"max_norm": 1.0, "skip_nonfinite": True}], ids=str)
@pytest.mark.parametrize("kind", ["float32", "bfloat16 masters"])
def test_compiled_is_eager_bit_by_bit(kind: str, options: dict[str, Any]) -> None:
    given = problem(kind, shapes=[(5, 7), (3,)], steps=1)
    want = given.copy()
    norm = want.run("triton", **options)

    def step(*lists: Any) -> Tensor | None:
        return fused_adamw(*lists[:5], masters=lists[5], lr=1e-2, weight_decay=0.1, **options)

    torch.compiler.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    with backend("adamw", "triton"):
        found = compiled(
            given.params, given.grads[0], given.exp_avgs, given.exp_avg_sqs, given.steps,
            given.masters,
        )  # fmt: skip
    assert (found is None) == (norm is None) and (found is None or torch.equal(found, norm))  # type: ignore
    for x, y in zip(given.everything(), want.everything(), strict=True):
        assert torch.equal(bits(x), bits(y))


@pytest.mark.parametrize("kind", ["float32", "bfloat16 masters"])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("rate", [False, True])
def test_registered_operator(kind: str, clip: float | None, rate: bool) -> None:
    given = problem(kind, shapes=[(5, 7), (3,)], steps=1)
    operands = (
        given.params, given.grads[0], given.exp_avgs, given.exp_avg_sqs, given.steps,
        given.masters or [], torch.tensor(0.1, device=DEVICE) if rate else None,
        [0.1, 0.9, 0.99, 1e-8, 0.1], clip, clip is not None,
    )  # fmt: skip
    assert set(torch.library.opcheck(ops.adamw, operands).values()) == {"SUCCESS"}


def test_fake_tensors_launch_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adamw_triton, "launch", _must_not_launch)
    given = problem(shapes=[(5, 7)], steps=1)
    with FakeTensorMode() as mode, backend("adamw", "triton"):
        lists = [
            [mode.from_tensor(x) for x in xs]
            for xs in (given.params, given.grads[0], given.exp_avgs, given.exp_avg_sqs, given.steps)
        ]
        norm = fused_adamw(*lists, lr=0.1, max_norm=1.0)
        assert norm is not None and norm.shape == () and norm.dtype == FP32
        assert fused_adamw(*lists, lr=0.1) is None


def _must_not_launch(*_: object, **__: object) -> None:
    raise AssertionError("launched")


def _with(at: int, change: Callable[[Tensor], Tensor]) -> Callable[[list[Tensor]], list[Tensor]]:
    return lambda xs: [change(x) if n == at else x for n, x in enumerate(xs)]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("grads", {"grads": lambda xs: xs[1:]}),
        (r"grads\[1\]", {"grads": _with(1, lambda x: x[1:])}),
        (r"grads\[0\]", {"grads": _with(0, lambda x: x.bfloat16())}),
        (r"grads\[0\]", {"grads": _with(0, lambda x: x.to_sparse())}),
        (r"grads\[0\]", {"grads": _with(0, lambda x: x.to("meta"))}),
        (r"params\[1\]", {"params": _with(1, lambda x: x.int())}),
        (r"params\[1\]", {"params": _with(1, lambda x: x.to("meta"))}),
        ("exp_avgs", {"exp_avgs": lambda xs: xs + xs}),
        (r"exp_avgs\[1\]", {"exp_avgs": _with(1, lambda x: x.bfloat16())}),
        (r"exp_avg_sqs\[0\]", {"exp_avg_sqs": _with(0, lambda x: x.T)}),
        (r"steps\[0\]", {"steps": _with(0, lambda x: x.long())}),
        (r"steps\[1\]", {"steps": _with(1, lambda x: x.expand(2))}),
        (r"masters\[0\]", {"masters": lambda _: [torch.zeros(2, device=DEVICE)] * 2}),
        ("masters", {"masters": lambda _: []}),
        ("lr", {"lr": lambda _: -1.0}),
        ("lr", {"lr": lambda _: torch.zeros(2)}),
        ("betas", {"betas": lambda _: (0.9, 1.0)}),
        ("betas", {"betas": lambda _: (-0.1, 0.9)}),
        ("eps", {"eps": lambda _: -1e-8}),
        ("weight_decay", {"weight_decay": lambda _: -1.0}),
        ("max_norm", {"max_norm": lambda _: 0.0}),
    ],
)
@pytest.mark.parametrize("implementation", ["triton", "eager"])
def test_bad_input_is_named_before_any_launch(
    name: str, change: dict[str, Any], implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adamw_triton, "launch", _must_not_launch)
    given = problem(shapes=[(5, 7), (3,)], steps=1)
    lists: dict[str, Any] = {
        "params": given.params, "grads": given.grads[0], "exp_avgs": given.exp_avgs,
        "exp_avg_sqs": given.exp_avg_sqs, "steps": given.steps, "lr": 0.1,
    }  # fmt: skip
    lists |= {key: make(lists.get(key)) for key, make in change.items()}
    with (
        backend("adamw", implementation),
        pytest.raises(ValueError, match=f"^{name}: ") as caught,
    ):
        fused_adamw(**lists)
    assert "\n" not in str(caught.value)


def test_what_the_kernels_refuse() -> None:
    given = problem(shapes=[(5, 8)], steps=1)
    for xs in (given.params, given.exp_avgs, given.exp_avg_sqs, given.grads[0]):
        xs[0] = xs[0][:, ::2]
    want = given.copy()
    with pytest.raises(ValueError, match=r"^params\[0\]: elements without gaps"):
        given.run("triton")
    given.run("eager")
    want.params[0], want.grads[0][0] = want.params[0].contiguous(), want.grads[0][0].contiguous()
    want.run("reference")
    torch.testing.assert_close(given.params[0], want.params[0])
    with pytest.raises(RuntimeError, match="float64"):
        problem(shapes=[(3,)]).copy(torch.float64).run("triton")
    with backend("adamw", "triton"):
        assert fused_adamw([], [], [], [], [], lr=0.1, max_norm=1.0) is None


@pytest.mark.skipif(ON_GPU, reason="says what runs on a CPU")
def test_a_cpu_takes_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adamw_triton, "launch", _must_not_launch)
    assert dispatch.describe()["adamw"] == ["triton", "eager", "reference (on request)"]
    given = problem(steps=1)
    fused_adamw(
        given.params, given.grads[0], given.exp_avgs, given.exp_avg_sqs, given.steps, lr=0.1
    )
    assert given.steps[0] == 1.0


@pytest.mark.skipif(ON_GPU, reason="a single program, in the interpreter")
def test_more_than_2_to_the_31_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last chunk of a tensor of which only the touched pages exist."""
    count = (1 << 31) + tables.CHUNK + 40

    def sampled(kernel: Any, grid: tuple[int, ...], of: Tensor, *args: Any, **options: Any) -> None:
        options = {k: v for k, v in options.items() if k not in ("num_warps", "maxnreg")}
        interpreter.run_programs(kernel, grid[0], [grid[0] - 1], args, options)

    monkeypatch.setattr(adamw_triton, "launch", sampled)
    lists = [[torch.empty(count, dtype=FP16)] for _ in range(4)]
    small = [draw(40, dtype=FP16, seed=at) for at in range(2)]
    for (whole,), part in zip(lists, [*small, torch.zeros(40), torch.zeros(40)], strict=True):
        whole[-40:] = part
    with backend("adamw", "triton"):
        fused_adamw(*lists, [torch.zeros(())], lr=1e-2)
    p = small[0].float().requires_grad_()
    p.grad = small[1].float()
    torch.optim.AdamW([p], lr=1e-2).step()
    torch.testing.assert_close(lists[0][0][-40:].float(), p.detach(), rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(lists[2][0][-40:].float(), 0.1 * p.grad, rtol=2e-3, atol=1e-4)
