"""The public function in front of the Triton kernels: options, seeds, refusals, bad input."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.attention_cases import SEED, Problem, attend, inputs, mask_of, problem_mask
from support.numerics import (
    DEVICE,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
)
from torch import Tensor

from kernels import attention, dispatch, intervals
from kernels.attention_ops import refuse_triton
from kernels.attention_triton import launch

LENGTHS = (5, 0, 9, 1)
PROBLEMS = {
    "doc": Problem(LENGTHS, "prefix", 2, 1, 24),
    "heads": Problem(LENGTHS, "prefix", 2, 1, 8, dropout=0.2),
    "capped": Problem(LENGTHS, "causal", 2, 1, 16, options={"softcap": 2.0, "scale": 0.3}),
    "branches": Problem(LENGTHS, "branches", 2, 2, 16, dropout=0.2),
}


@pytest.fixture
def triton_chosen() -> Iterator[None]:
    dispatch.set_backend("attention", "triton")
    yield
    dispatch.set_backend("attention", None)


def _leaves(problem: Problem) -> tuple[list[Tensor], Tensor]:
    *leaves, dout = inputs(problem)
    return [x.requires_grad_() for x in leaves], dout


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
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
    launches: list[object] = []
    monkeypatch.setattr(launch, "_launch", lambda *_, **__: launches.append(_))
    problem = dataclasses.replace(PROBLEMS["doc"], heads=4, kv_heads=2)
    q, k, v, _ = inputs(problem)
    arguments: dict[str, Any] = {"q": q, "k": k, "v": v, "intervals": problem_mask(problem)}
    attempted = {n: f(arguments.get(n)) for n, f in change.items()}
    with pytest.raises(ValueError, match=f"^{name}: ") as caught:
        attention(**(arguments | attempted))
    assert "\n" not in str(caught.value) and not launches


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


def test_what_the_kernels_refuse() -> None:
    q = torch.zeros(4, 2, 16, device=DEVICE)
    assert refuse_triton(q) is None
    assert "float64" in str(refuse_triton(q.double()))
    assert "128" in str(refuse_triton(torch.zeros(4, 2, 136, device=DEVICE)))


def test_without_interpreter_a_cpu_is_refused_and_triton_not_imported() -> None:
    code = (
        "import sys, torch; from kernels.attention_ops import refuse_triton;"
        "print(refuse_triton(torch.zeros(1, 1, 8)), 'triton' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    ).stdout  # fmt: skip
    assert "CUDA" in said and said.endswith("False\n")
