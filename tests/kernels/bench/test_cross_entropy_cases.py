"""Linear cross-entropy on the workbench: the cases meant, a truth that is one, work counted."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.bench_reports import header
from support.numerics import kernels_as_on_hardware  # noqa: F401  (a fixture)

from kernels import linear_cross_entropy, linear_logprobs
from kernels.bench import cross_entropy_cases, cross_entropy_gates, cross_entropy_peers, gates
from kernels.bench.cases import cases, find_op, select_cases
from kernels.bench.correct import Judge
from kernels.bench.cross_entropy_cases import LinearInputs, LinearLoss
from kernels.bench.peers import installed, peers
from kernels.bench.results import METRICS, Report, Row

CPU = torch.device("cpu")
OPS = ("linear_cross_entropy", "linear_logprobs")


def _inputs(op: str, name: str, dtype: torch.dtype = torch.float32) -> LinearInputs:
    (case,) = select_cases([op], [name])
    made = case.inputs(CPU, dtype, 0, "smoke")
    assert isinstance(made, LinearInputs)
    return made


def test_full_sizes_and_work() -> None:
    specs = {case.name: case.spec("full") for case in cases(OPS[0])}
    assert specs["GPT2"] == LinearLoss(65_536, 768, 50_304)
    assert specs["GPT2-15%"].kept == 9_830 and specs["NARROW"].width == 256
    assert specs["BABY"] == LinearLoss(65_536, 256, 2_350)
    count = find_op(OPS[0]).work
    every = count(specs["GPT2"], torch.bfloat16)["fwd+bwd"]
    some = count(specs["GPT2-15%"], torch.bfloat16)["fwd+bwd"]
    assert every.flops == 6 * 65_536 * 768 * 50_304 and some.flops == every.flops * 9_830 // 65_536
    assert every.bytes - some.bytes == (65_536 - 9_830) * 768 * 2
    once = find_op(OPS[1]).work(specs["GPT2"], torch.bfloat16)["fwd"]
    assert 3 * once.flops == every.flops


@pytest.mark.parametrize("name", ["GPT2", "GPT2-15%", "BABY"])
def test_truth_is_autograds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy_cases, "TRUTH_LOGITS", 7 * 512)  # seven rows at a time
    inputs = _inputs(OPS[0], name)
    assert int((inputs.targets >= 0).sum()) == inputs.spec.kept
    (part,) = find_op(OPS[0]).parts(inputs, True)
    x, weight = (y.detach().double().requires_grad_() for y in inputs.leaves)
    loss = F.cross_entropy(x @ weight.T, inputs.targets)
    dx, dw = torch.autograd.grad(loss, (x, weight), inputs.upstream.double())
    truth = part.truth(torch.float64)
    for name, want in (("loss", loss), ("dx", dx), ("dw", dw)):
        torch.testing.assert_close(truth[name], want.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_who_is_here_passes(op: str, dtype: torch.dtype) -> None:
    for case in cases(op):
        inputs, ran = _inputs(op, case.name, dtype), []
        for peer in peers(op):
            if peer.available(CPU) is not None or peer.supports(inputs.spec) is not None:
                continue
            if peer.name == "torch_compile":
                continue
            run = peer.make(inputs)
            verdict = Judge(find_op(op)).verdict(run, everything=True)
            assert verdict.open, f"{peer.name}: {verdict.detail}"
            assert bool(run.computes) == (peer.name in ("every_row", "one_product"))
            ran.append(peer.name)
        assert {"triton", "chunked", "torch"} <= {*ran}
        assert ("every_row" in ran) == (case.name == "GPT2-15%")


def test_what_is_wrong_is_refused() -> None:
    inputs = _inputs(OPS[0], "GPT2-15%")

    def doubled(x: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Right loss, gradients of twice the loss."""
        loss = linear_cross_entropy(x, weight, targets)
        return 2 * loss - loss.detach()

    def every_row(x: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return linear_cross_entropy(x, weight, targets.clamp(min=0))

    def shifted(x: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return linear_cross_entropy(x, weight, targets) + 0.01

    for wrong, where in ((doubled, "dx"), (every_row, "loss"), (shifted, "loss")):
        run = cross_entropy_peers._loss_run(lambda wrong=wrong: wrong, inputs)
        verdict = Judge(find_op(OPS[0])).verdict(run, everything=True)
        assert verdict.status == "red" and f": {where}: " in verdict.detail
    scores = _inputs(OPS[1], "BABY")
    run = cross_entropy_peers._scores(lambda: lambda *a: linear_logprobs(*a) + 1e-3, scores)
    assert Judge(find_op(OPS[1])).verdict(run, everything=True).status == "red"


def test_libraries_say_why_they_are_not_here() -> None:
    why = {peer.name: peer.available(CPU) for peer in peers(OPS[0])}
    assert why["liger"] == why["cce"] == why["quack"] == "needs an NVIDIA GPU"
    refused = {peer.name: peer.supports(LinearLoss(8, 8, 2_350, 0.5)) for peer in peers(OPS[0])}
    assert [name for name, reason in refused.items() if reason] == ["quack"]
    why_not = installed("no_such_package", torch.device("cuda"))
    assert why_not == "no_such_package is not installed"


def test_every_row_is_the_same_problem_with_more_losses() -> None:
    inputs = _inputs(OPS[0], "GPT2-15%")
    every = inputs.with_every_row()
    assert every.tensors is inputs.tensors and every.spec.kept == every.spec.rows == 60
    live = inputs.targets >= 0
    assert 0 < int(live.sum()) < 60 and every.targets.min() >= 0
    assert torch.equal(every.targets[live], inputs.targets[live])


def test_targets_name_what_there_is() -> None:
    targets = {target.name: target for target in cross_entropy_gates.TARGETS}
    assert len(targets) == len(cross_entropy_gates.TARGETS)
    for target in targets.values():
        (case,) = select_cases([target.op], [target.case])
        spec = case.spec("full")
        assert target.mode in find_op(target.op).work(spec, torch.bfloat16)
        assert target.peer in ("", "best", *(peer.name for peer in peers(target.op)))
        assert target.metric in METRICS
        for peer in peers(target.op):
            assert peer.name != target.peer or peer.supports(spec) is None
    floor = 3 * 2 * 65_536 * 768 * 50_304 / 790e9  # ms
    assert targets["GPT2 fwd+bwd, ms"].stretch == pytest.approx(1.17 * floor, rel=2e-3)


@pytest.mark.parametrize(
    ("metric", "ours", "others", "wanted"),
    [
        ("time", 24.0, {"liger": 80.0, "torch_compile": 24.0}, {
            "GPT2 cross-entropy against the best peer": "met",
            "GPT2 cross-entropy against Liger-Kernel": "met",
            "GPT2 fwd+bwd, ms": "stretch missed",
        }),
        ("time", 22.0, {"liger": 60.0, "torch_compile": 21.0}, {
            "GPT2 cross-entropy against the best peer": "missed",
            "GPT2 cross-entropy against Liger-Kernel": "missed",
            "GPT2 fwd+bwd, ms": "stretch met",
        }),
        ("memory", 9e8, {}, {"GPT2 fwd+bwd, extra bytes (1 GiB)": "met"}),
        ("memory", 1.1e9, {}, {"GPT2 fwd+bwd, extra bytes (1 GiB)": "missed"}),
    ],
)  # fmt: skip
def test_targets_are_read_from_a_report(
    metric: str, ours: float, others: dict[str, float], wanted: dict[str, str]
) -> None:
    report = Report(header())
    rows = {"triton": ours, **others}
    report.rows += [
        Row("linear_cross_entropy", "GPT2", provider, "fwd+bwd",
            "cold" if metric == "time" else "", metric, METRICS[metric], "green", "", 1, value,
            ours=provider == "triton")
        for provider, value in rows.items()
    ]  # fmt: skip
    chosen = [target for target in cross_entropy_gates.TARGETS if target.name in wanted]
    found = {target.name: gates._evaluate([report], target).verdict for target in chosen}
    assert found == wanted
