"""Norms, activations and rotary positions on the workbench: cases meant, truth, work, targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.bench import row_op_gates, row_op_peers
from kernels.bench.cases import cases, find_op, select_cases
from kernels.bench.correct import Judge
from kernels.bench.peers import Peer, Run, installed, peers
from kernels.bench.row_op_cases import OPS, Heads, RowInputs, Rows, grads_of_all, named

CPU = torch.device("cpu")
EVERY = [(op, case.name) for op in OPS for case in cases(op)]


def _inputs(op: str, name: str, dtype: torch.dtype = torch.float32) -> RowInputs:
    (case,) = select_cases([op], [name])
    made = case.inputs(CPU, dtype, 0, "smoke")
    assert isinstance(made, RowInputs)
    return made


def _run(peer: Peer, inputs: RowInputs) -> Run:
    assert peer.available(CPU) is None and peer.supports(inputs.spec) is None
    return peer.make(inputs)


def test_full_sizes_and_work() -> None:
    specs = {name: select_cases([op], [name])[0].spec("full") for op, name in EVERY}
    assert specs["LN-1024"] == Rows(65_536, 1024, True)
    assert specs["LN-768-dropout"].dropout == 0.15
    assert specs["ROPE-32/4"] == Heads(65_536, 32, 4, 64)

    def moved(op: str, name: str) -> tuple[int, int]:
        work = find_op(op).work(specs[name], torch.bfloat16)
        assert work["fwd+bwd"].bytes == work["fwd"].bytes + work["bwd"].bytes
        return work["fwd"].bytes, work["bwd"].bytes

    matrix, stats = 65_536 * 768 * 2, 65_536 * 8
    row = 768 * 2
    assert moved("layer_norm", "LN-768") == (4 * matrix + stats + 2 * row,
                                             4 * matrix + stats + 3 * row)  # fmt: skip
    assert moved("layer_norm", "LN-768-alone")[1] == 3 * matrix + stats + 3 * row
    assert moved("layer_norm", "LN-768-dropout")[1] == 5 * matrix + stats + 3 * row
    assert moved("rms_norm", "RMS-1024")[0] == 4 * 65_536 * 2048 + stats // 2 + 2048
    assert moved("bias_gelu", "GELU-1024") == (2 * 65_536 * 2048 + 2048, 3 * 65_536 * 2048 + 4096)
    assert moved("swiglu", "SwiGLU-5632") == (3 * 16_384 * 11_264, 5 * 16_384 * 11_264)
    heads, angles = 65_536 * 36 * 64 * 2, 65_536 * 64 * 4
    assert moved("rotary", "ROPE-32/4") == (2 * heads + angles,) * 2


@pytest.mark.parametrize(("op", "name"), EVERY)
def test_truth_is_torch_s_own(op: str, name: str) -> None:
    """In fp64 the plain operations give what the truth says; with dropout, our reference does."""
    inputs = _inputs(op, name)
    (part,) = find_op(op).parts(inputs, True)
    truth = part.truth(torch.float64)
    wide = RowInputs(
        inputs.spec,
        {key: x.detach().double().requires_grad_() for key, x in inputs.tensors.items()},
        None,
        tuple(x.double() for x in inputs.upstreams),
        tuple(x.double() for x in inputs.fixed),
    )
    if getattr(inputs.spec, "dropout", 0.0):
        with row_op_peers.forced(op, "reference"):
            outs = row_op_peers.call_of(op, inputs.spec)(*wide.leaves)
    else:
        outs = row_op_peers.plain(op)(inputs.spec)(*wide.leaves, *wide.fixed)
    found = named(wide, op, outs, grads_of_all(wide)(outs))
    assert truth.keys() == found.keys() and {f"d{key}" for key in inputs.tensors} < truth.keys()
    for key, x in truth.items():
        torch.testing.assert_close(x, found[key].detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("op", "name"), EVERY)
def test_who_is_here_passes(op: str, name: str, dtype: torch.dtype) -> None:
    inputs, judge = _inputs(op, name, dtype), Judge(find_op(op))
    ran = []
    for peer in peers(op):
        if peer.name == "triton" or peer.available(CPU) or peer.supports(inputs.spec):
            continue  # the kernels have tests of their own
        gate = judge.verdict(_run(peer, inputs), everything=True)
        assert gate.open, f"{peer.name}: {gate.detail}"
        ran.append(peer.name)
    assert ran == (["eager"] if getattr(inputs.spec, "dropout", 0.0) else ["eager", "torch"])


@pytest.mark.parametrize("op", OPS)
def test_a_wrong_peer_is_red(op: str) -> None:
    inputs = _inputs(op, cases(op)[0].name)
    run = _run(peers(op)[1], inputs)
    collect = run.collect

    def spoilt(outs: Any, grads: Any) -> dict[str, Tensor]:
        found = collect(outs, grads)
        last = list(found)[-1]
        return found | {last: found[last] * 1.001}

    run.collect = spoilt
    assert not Judge(find_op(op)).verdict(run, everything=True).open


def test_spot_check_reaches_both_ends() -> None:
    inputs = find_op("swiglu").build(Rows(3000, 8), CPU, torch.float32, 0)
    seen = torch.zeros(3000)
    for part in find_op("swiglu").parts(inputs, False):
        part.pick("y", seen).add_(1)
    assert seen[0] == seen[-1] == 1 and seen.max() == 1
    norm = find_op("layer_norm").build(Rows(3000, 8), CPU, torch.float32, 0)
    assert len(find_op("layer_norm").parts(norm, False)) == 1


def test_targets_name_what_there_is() -> None:
    targets = {target.name: target for target in row_op_gates.TARGETS}
    assert len(targets) == len(row_op_gates.TARGETS)
    for target in targets.values():
        (case,) = select_cases([target.op], [target.case])
        assert target.mode in find_op(target.op).work(case.spec("full"), torch.bfloat16)
        assert target.peer in ("", "best", *(peer.name for peer in peers(target.op)))
    forward = targets["LN-1024 fwd, ms (3.5 to 3.9 TB/s)"]
    assert forward.gate == pytest.approx(0.1535, rel=1e-3)
    assert forward.stretch == pytest.approx(0.1378, rel=1e-3)
    backward = targets["LN-256 bwd, ms (2.8 to 3.5 TB/s)"]
    assert backward.gate == pytest.approx(0.0481, rel=1e-2)


def test_absent_libraries_say_so() -> None:
    for op in OPS:
        for peer in peers(op):
            if peer.name in ("liger", "quack", "torch_compile"):
                assert peer.available(CPU) == "needs an NVIDIA GPU"
    why = installed("no_such_package", torch.device("cuda"))
    assert why == "no_such_package is not installed"
