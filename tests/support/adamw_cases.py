"""AdamW as a function and as an optimizer: problems, a small model, and runs of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from support.numerics import DEVICE, assert_error_at_most_twice
from support.row_ops import backend, draw
from torch import Tensor, nn

from kernels.optimizer import tables
from kernels.optimizer.ops import fused_adamw

__all__ = [
    "KINDS", "LIMIT", "LR", "SHAPES", "Problem", "assert_as_good_as_torch", "assert_close",
    "backpropagate", "each_implementation", "every_kind", "groups", "model", "problem",
    "torch_step",
]  # fmt: skip

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
SHAPES = [(5, 7), (3,), (), (0, 4), (40, 300), (2048,), (tables.CHUNK + 9,)]
KINDS = {
    "float32": (FP32, FP32, False),
    "float16": (FP16, FP16, False),
    "bfloat16": (BF16, BF16, False),
    "bfloat16 masters": (BF16, BF16, True),
    "bfloat16 masters, float32 gradients": (BF16, FP32, True),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
LR, LIMIT = 1e-2, 0.5


@dataclass
class Problem:
    """Parameters, moments after some steps, and gradients of the next ones."""

    params: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    steps: list[Tensor]
    masters: list[Tensor] | None
    grads: list[list[Tensor]]

    def copy(self, dtype: torch.dtype | None = None) -> Problem:
        """Another one with the same numbers, all in ``dtype`` and without masters if given."""

        def moved(xs: Sequence[Tensor]) -> list[Tensor]:
            return [x.clone() if dtype is None else x.to(dtype, copy=True) for x in xs]

        main = self.params if dtype is None or self.masters is None else self.masters
        masters = self.masters if dtype is None else None
        return Problem(
            moved(main), moved(self.exp_avgs), moved(self.exp_avg_sqs),
            [x.clone() for x in self.steps], None if masters is None else moved(masters),
            [moved(xs) for xs in self.grads],
        )  # fmt: skip

    def run(self, name: str, **options: Any) -> Tensor | None:
        """Take all steps with one implementation."""
        norm = None
        with backend("adamw", name):
            for grads in self.grads:
                norm = fused_adamw(
                    self.params, grads, self.exp_avgs, self.exp_avg_sqs, self.steps,
                    masters=self.masters, **({"lr": 1e-2, "weight_decay": 0.1} | options),
                )  # fmt: skip
        return norm

    def everything(self) -> list[Tensor]:
        """All that a step writes."""
        return [
            *self.params, *self.exp_avgs, *self.exp_avg_sqs, *self.steps, *(self.masters or [])
        ]  # fmt: skip


def problem(
    kind: str = "float32",
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    steps: int = 3,
    taken: int = 0,
) -> Problem:
    param, grad, master = KINDS[kind]
    main = FP32 if master else param
    wide = [draw(*shape, seed=at) for at, shape in enumerate(shapes)]
    params = [x.to(param) for x in wide]
    moment = [draw(*shape, seed=50 + at) * (taken > 0) for at, shape in enumerate(shapes)]
    return Problem(
        params, [x.to(main) for x in moment], [x.square().to(main) for x in moment],
        [torch.full((), float(taken), device=DEVICE) for _ in shapes],
        wide if master else None,
        [[draw(*shape, dtype=grad, seed=100 * n + at) for at, shape in enumerate(shapes)]
         for n in range(1, steps + 1)],
    )  # fmt: skip


def assert_as_good_as_torch(given: Problem, **options: Any) -> None:
    ours, path, exact = given.copy(), given.copy(), given.copy(torch.float64)
    norms = [x.run(name, **options) for x, name in
             ((ours, "triton"), (path, "eager"), (exact, "reference"))]  # fmt: skip
    assert [float(x) for x in ours.steps] == [float(x) for x in path.steps]
    assert ours.steps[0] == given.steps[0] + len(given.grads)
    if "max_norm" in options or "skip_nonfinite" in options:
        torch.testing.assert_close(norms[0], norms[2].float(), rtol=1e-6, atol=0)  # type: ignore
    main = (ours.masters, path.masters) if given.masters else (ours.params, path.params)
    for name, lists in (
        ("params", (*main, exact.params)),
        ("exp_avgs", (ours.exp_avgs, path.exp_avgs, exact.exp_avgs)),
        ("exp_avg_sqs", (ours.exp_avg_sqs, path.exp_avg_sqs, exact.exp_avg_sqs)),
    ):
        for at, found in enumerate(zip(*lists, strict=True)):  # type: ignore[arg-type]
            assert_error_at_most_twice(f"{name}[{at}]", *found, terms=0.5)
    for at, p in enumerate(ours.params if given.masters else []):
        assert torch.equal(p, ours.masters[at].to(p.dtype))  # type: ignore[index]


@pytest.fixture(name="implementation", params=["triton", "eager"])
def each_implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    with backend("adamw", request.param):
        yield request.param


def model(dtype: torch.dtype = FP32) -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(30, 40), nn.LayerNorm(40), nn.Tanh(), nn.Linear(40, 3))
    return made.to(DEVICE, dtype)


def groups(of: nn.Module) -> list[dict[str, Any]]:
    """Two kinds, each with settings of its own."""
    matrices = [p for p in of.parameters() if p.dim() > 1]
    others = [p for p in of.parameters() if p.dim() < 2]
    return [
        {"params": matrices, "weight_decay": 0.1, "betas": (0.8, 0.99)},
        {"params": others, "weight_decay": 0.0, "lr": 3 * LR, "eps": 1e-6},
    ]


def backpropagate(of: nn.Module, number: int) -> Tensor:
    for p in of.parameters():
        p.grad = None
    dtype = next(of.parameters()).dtype
    loss = of(draw(8, 30, dtype=dtype, seed=number)).float().square().sum()
    loss.backward()
    return loss.detach()


def torch_step(optimizer: torch.optim.Optimizer) -> Tensor:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(params, LIMIT)
    optimizer.step()
    return norm


def assert_close(ours: nn.Module, theirs: nn.Module) -> None:
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q.to(p.dtype), rtol=1e-5, atol=1e-6)
