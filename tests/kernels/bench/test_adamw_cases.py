"""AdamW on the workbench: cases meant, truth, work, targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.bench import adamw_gates, adamw_peers  # noqa: F401  (registers the peers)
from kernels.bench.adamw_cases import HYPER, OP, TAKEN, Model, StepInputs
from kernels.bench.cases import cases, find_op, select_cases
from kernels.bench.correct import Judge
from kernels.bench.peers import Run, peers

CPU = torch.device("cpu")
EVERY = [case.name for case in cases(OP)]


def _inputs(name: str) -> StepInputs:
    (case,) = select_cases([OP], [name])
    made = case.inputs(CPU, torch.bfloat16, 0, "smoke")
    assert isinstance(made, StepInputs)
    return made


def _run(name: str, inputs: StepInputs) -> Run:
    (peer,) = (peer for peer in peers(OP) if peer.name == name)
    return peer.make(inputs)


def test_full_sizes_and_work() -> None:
    """GPT-2 small, as published: 124,439,808 parameters in 148 tensors."""
    specs = {name: select_cases([OP], [name])[0].spec("full") for name in EVERY}
    for spec in specs.values():
        assert spec.parameters == 124_439_808 and len(spec.shapes) == 148
    work = {n: find_op(OP).work(s, torch.bfloat16)["fwd"].bytes for n, s in specs.items()}
    each = {name: found / 124_439_808 for name, found in work.items()}
    assert each == {
        "ADAMW-124M": 28, "ADAMW-124M-clip": 32, "ADAMW-124M-bf16": 28, "ADAMW-124M-bf16-clip": 30
    }  # fmt: skip
    small = select_cases([OP], ["ADAMW-124M"])[0].spec("small")
    assert len(small.shapes) == 148 and small.parameters < 10**6


def test_gradients_are_clipped() -> None:
    for name in EVERY:
        norm = torch.stack([g.float().square().sum() for g in _inputs(name).grads]).sum().sqrt()
        assert norm == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("name", EVERY)
def test_truth_is_torch_s_own(name: str) -> None:
    inputs = _inputs(name)
    (part,) = find_op(OP).parts(inputs, True)
    truth = part.truth(torch.float64)
    leaves = [x.double().requires_grad_() for x in inputs.leaves]
    theirs = torch.optim.AdamW(
        [{"params": [p for p in leaves if p.dim() > 1], "weight_decay": 0.1},
         {"params": [p for p in leaves if p.dim() < 2], "weight_decay": 0.0}], **HYPER,
    )  # fmt: skip
    for at, p in enumerate(leaves):
        p.grad = inputs.grads[at].double()
        theirs.state[p] = {
            "step": torch.tensor(float(TAKEN)),
            "exp_avg": inputs.exp_avgs[at].double(),
            "exp_avg_sq": inputs.exp_avg_sqs[at].double(),
        }
    if inputs.spec.clip:
        torch.nn.utils.clip_grad_norm_(leaves, inputs.spec.clip)
    theirs.step()
    weights = torch.cat([p.detach().flatten() for p in leaves])
    torch.testing.assert_close(truth["weights"], weights, rtol=1e-12, atol=1e-14)
    squares = torch.cat([theirs.state[p]["exp_avg_sq"].flatten() for p in leaves])
    torch.testing.assert_close(truth["exp_avg_sqs"], squares, rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("name", EVERY)
def test_who_is_here_passes(name: str) -> None:
    inputs, judge = _inputs(name), Judge(find_op(OP))
    before = [x.clone() for x in (*inputs.leaves, *inputs.grads, *inputs.exp_avgs)]
    ran = []
    for peer in peers(OP):
        if peer.name == "triton" or peer.available(CPU):
            continue  # the kernels have tests of their own
        gate = judge.verdict(peer.make(inputs), everything=True)
        assert gate.open, f"{peer.name}: {gate.detail}"
        ran.append(peer.name)
    assert ran == ["eager", "torch_fused", "torch_foreach"]
    after = (*inputs.leaves, *inputs.grads, *inputs.exp_avgs)
    assert all(map(torch.equal, before, after))  # each had its own


@pytest.mark.parametrize("wrong", ["weights", "exp_avgs", "exp_avg_sqs", "narrow"])
def test_a_wrong_peer_is_red(wrong: str) -> None:
    inputs = _inputs("ADAMW-124M-bf16-clip")
    run = _run("eager", inputs)
    collect = run.collect

    def spoilt(*given: Any) -> dict[str, Tensor]:
        found = collect(*given)
        return found | {wrong: found[wrong] * 1.01}

    run.collect = spoilt
    gate = Judge(find_op(OP)).verdict(run, everything=True)
    assert not gate.open and wrong in gate.detail


def test_spot_check_reaches_both_ends_of_each_tensor() -> None:
    inputs = find_op(OP).build(Model(1, 32, 100, 40), CPU, torch.float32, 0)
    (part,) = find_op(OP).parts(inputs, False)
    sizes = [x.numel() for x in inputs.leaves]
    numbers = torch.arange(sum(sizes))
    seen = part.pick("weights", numbers)
    assert len(seen) < len(numbers)
    at = 0
    for size in sizes:
        assert {at, at + size - 1} <= set(seen.tolist())
        at += size
    assert len(part.truth(torch.float32)["weights"]) == len(seen)


def test_targets_name_what_there_is() -> None:
    targets = {target.name: target for target in adamw_gates.TARGETS}
    assert len(targets) == len(adamw_gates.TARGETS)
    for target in targets.values():
        select_cases([target.op], [target.case])
        assert target.mode in find_op(OP).modes
        assert target.peer in ("", "best", *(peer.name for peer in peers(OP)))
    assert targets["ADAMW-124M, ms"].gate == 1.0
    assert targets["ADAMW-124M-clip, ms"].gate == 1.15


def test_absent_ones_say_so() -> None:
    absent = {peer.name: peer.available(CPU) for peer in peers(OP)}
    assert absent["torch_compile"] == "needs an NVIDIA GPU"
