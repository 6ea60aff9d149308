"""The losses over all pairs on the workbench: cases meant, truth, work, peers, targets, a run."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.bench import gates, pairs_cases, pairs_gates, pairs_peers
from kernels.bench.cases import cases, find_op, select_cases
from kernels.bench.correct import Judge
from kernels.bench.measure import Options
from kernels.bench.pairs_cases import OPS, PairInputs, Pairs
from kernels.bench.peers import Peer, installed, peers
from kernels.bench.results import Report, Row, load
from kernels.bench.run import Settings, measure_cases
from kernels.pairs.contrastive import contrastive_loss
from kernels.pairs.sigmoid import sigmoid_loss
from kernels.reference import contrastive_loss_reference, sigmoid_loss_reference

CPU = torch.device("cpu")
LOSS = dict(zip(OPS, (contrastive_loss, sigmoid_loss), strict=True))
REFERENCE = dict(zip(OPS, (contrastive_loss_reference, sigmoid_loss_reference), strict=True))
every_op = pytest.mark.parametrize("op", OPS)


def _inputs(op: str, dtype: torch.dtype = torch.float32) -> PairInputs:
    made = cases(op)[0].inputs(CPU, dtype, 0, "smoke")
    assert isinstance(made, PairInputs)
    return made


def _here(op: str) -> list[Peer]:
    """The peers that run without a GPU, but for the kernels, which have tests of their own."""
    found = [peer for peer in peers(op) if peer.name != "triton"]
    return [peer for peer in found if peer.available(CPU) is None]


def test_full_sizes_and_work() -> None:
    for op, name, products in zip(OPS, ("InfoNCE", "SigLIP"), (4, 3), strict=True):
        specs = {case.name: case.spec("full") for case in cases(op)}
        assert (
            specs[f"{name}-32k"] == Pairs(32_768, 512) == replace(specs[f"{name}-4k"], rows=2**15)
        )
        assert specs[f"{name}-131k"].rows == 131_072
        assert all(case.spec("smoke").rows < case.spec("small").rows <= 1000 for case in cases(op))
        work = find_op(op).work(specs[f"{name}-32k"], torch.bfloat16)["fwd+bwd"]
        assert work.flops == products * 2 * 32_768**2 * 512
        assert work.bytes == 4 * 32_768 * 512 * 2


@every_op
def test_inputs(op: str) -> None:
    inputs = _inputs(op, torch.bfloat16)
    image, text = (inputs.tensors[name] for name in ("image", "text"))
    for x in (image, text):
        assert x.shape == (70, 40) and x.dtype == torch.bfloat16 and x.requires_grad
        torch.testing.assert_close(x.float().norm(dim=1), torch.ones(70), rtol=1e-2, atol=0)
    own = (image * text).sum(1).mean()
    assert own > 0.15 > 2 * (image @ text.T).float().mean().abs()  # pairs match, a little
    scalars = {"scale": 1 / 0.07} if op == OPS[0] else {"scale": 10.0, "bias": -10.0}
    found = {name: inputs.tensors[name] for name in list(inputs.tensors)[2:]}
    assert {name: pytest.approx(float(x.detach())) for name, x in found.items()} == scalars
    assert all(x.dtype == torch.float32 and x.requires_grad for x in found.values())


@every_op
def test_truth_is_the_reference(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs_cases, "TRUTH_LOGITS", 9 * 70)  # nine rows at a time
    inputs = _inputs(op)
    (part,) = find_op(op).parts(inputs, True)
    leaves = [x.detach().double().requires_grad_() for x in inputs.leaves]
    loss = REFERENCE[op](*leaves)
    grads = torch.autograd.grad(loss, leaves, inputs.upstream.double())
    want = {
        "loss": loss.detach(),
        **{f"d{n}": x for n, x in zip(inputs.tensors, grads, strict=True)},
    }
    truth = part.truth(torch.float64)
    assert truth.keys() == want.keys()
    for name, x in truth.items():
        torch.testing.assert_close(x, want[name])
    assert part.truth(torch.bfloat16)["dimage"].dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@every_op
def test_who_is_here_passes(op: str, dtype: torch.dtype) -> None:
    inputs, judge = _inputs(op, dtype), Judge(find_op(op))
    for peer in _here(op):
        assert peer.supports(inputs.spec) is None
        gate = judge.verdict(peer.make(inputs), everything=True)
        assert gate.open, f"{peer.name}: {gate.detail}"
    assert {peer.name for peer in _here(op)} >= {"eager", "torch"}


def _doubled(loss: Tensor) -> Tensor:
    return 2 * loss - loss.detach()


WRONG: dict[str, tuple[Callable[[Callable[..., Tensor]], Callable[..., Tensor]], str]] = {
    "gradients of twice the loss": (lambda f: lambda *x: _doubled(f(*x)), "dimage"),
    "no gradient of the scale": (
        lambda f: lambda a, b, s, *x: f(a, b, s.detach(), *x) + 0 * s, "dscale",
    ),
    "a shifted loss": (lambda f: lambda *x: f(*x) + 0.05, "loss"),
    "another text's image": (lambda f: lambda a, *x: f(a.roll(1, 0), *x), "loss"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
@every_op
def test_what_is_wrong_is_red(op: str, wrong: str) -> None:
    inputs, (spoil, where) = _inputs(op), WRONG[wrong]
    run = pairs_peers._run(lambda _: spoil(LOSS[op]), inputs)
    gate = Judge(find_op(op)).verdict(run, everything=True)
    assert gate.status == "red" and f": {where}: " in gate.detail


def _rows_of_one_direction(q: Tensor, k: Tensor, labels: Tensor, head_dim: int) -> Tensor:
    """What Inf-CL's function gives: each row's cross-entropy, one direction."""
    assert q.shape[1] % head_dim == 0
    return F.cross_entropy(q @ k.T, labels, reduction="none")


def _one_direction(e: Tensor, c: Tensor, targets: Tensor, **options: object) -> Tensor:
    assert options in ({}, {"filter_eps": None})
    return F.cross_entropy(e @ c.T, targets)


@pytest.mark.parametrize("name", ["inf_cl", "cce", "cce_unfiltered"])
def test_libraries_of_one_direction_are_asked_for_both(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their functions replaced by definitions, since they need a GPU."""
    module = types.ModuleType("module")
    module.cal_flash_loss, module.linear_cross_entropy = _rows_of_one_direction, _one_direction
    for package in ("inf_cl", "cut_cross_entropy"):
        monkeypatch.setitem(sys.modules, package, module)
    (peer,) = (peer for peer in peers(OPS[0]) if peer.name == name)
    assert Judge(find_op(OPS[0])).verdict(peer.make(_inputs(OPS[0])), everything=True).open


def test_a_chunked_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where the installed one knows how; with one that does, its options arrive."""
    seen = []

    class Known:
        def __init__(self, chunk_size: int = 0) -> None:
            seen.append(chunk_size)

        def __call__(self, *leaves: Tensor) -> Tensor:
            return sigmoid_loss_reference(*leaves)

    class Unknown:
        def __init__(self, cache_labels: bool = False) -> None: ...

    module = types.ModuleType("module")
    for package in ("open_clip", "open_clip.loss"):
        monkeypatch.setitem(sys.modules, package, module)
    (peer,) = (peer for peer in peers(OPS[1]) if peer.name == "clip_chunked")
    module.SigLipLoss = Unknown
    assert peer.available(torch.device("cuda")) == "this open_clip has no chunk_size"
    module.SigLipLoss = Known
    assert peer.available(torch.device("cuda")) is None
    assert Judge(find_op(OPS[1])).verdict(peer.make(_inputs(OPS[1])), everything=True).open
    assert seen == [512]


def test_absent_libraries_and_sizes_say_why() -> None:
    known = {peer.name: peer for op in OPS for peer in peers(op)}
    for name in ("inf_cl", "cce", "cce_unfiltered", "torch_compile", "clip_chunked"):
        assert known[name].available(CPU) == "needs an NVIDIA GPU"
    why = installed("no_such_package", CPU, gpu=False)
    assert why == "no_such_package is not installed"
    large = cases(OPS[0])[2].spec("full")
    refused = {peer.name for peer in peers(OPS[0]) if peer.supports(large)}
    assert refused == {"torch", "torch_compile", "open_clip", "clip_compile"}
    assert known["inf_cl"].supports(Pairs(8, 300)) and not known["inf_cl"].supports(Pairs(8, 512))


def test_targets_name_what_there_is() -> None:
    targets = {target.name: target for target in pairs_gates.TARGETS}
    assert len(targets) == len(pairs_gates.TARGETS)
    for target in targets.values():
        (case,) = select_cases([target.op], [target.case])
        assert target.mode in find_op(target.op).work(case.spec("full"), torch.bfloat16)
        assert target.peer in ("", *(peer.name for peer in peers(target.op)))
    for op, name, peer, gate in (
        (OPS[0], "InfoNCE-32k against open_clip, compiled", "clip_compile", 2.0),
        (OPS[0], "InfoNCE-32k against Inf-CL", "inf_cl", 8.0),
        (OPS[1], "SigLIP-32k against open_clip, compiled", "clip_compile", 2.5),
    ):
        found = targets[name]
        assert (found.op, found.peer, found.gate, found.kind) == (op, peer, gate, "ratio")
    # 1.3 times 5.57 ms, 1.25 times 4.18 ms: four and three products at 790 TFLOP/s.
    for name, times, stretch in (("InfoNCE", "1.3", 7.24), ("SigLIP", "1.25", 5.22)):
        target = targets[f"{name}-32k, ms ({times} times the floor)"]
        assert target.stretch == pytest.approx(stretch, rel=1e-3)
        assert target.gate is not None and target.gate > target.stretch
        memory = targets[f"{name}-32k, peak bytes (64 MB beside the gradients)"]
        assert (memory.gate, memory.metric) == (64e6 + 4 * 32_768 * 512, "memory")


@pytest.mark.parametrize(("ours", "verdict"), [(4.9, "met"), (5.1, "missed")])
def test_a_target_is_judged(ours: float, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip compiled at 10 ms: twice as fast, or not."""
    target = pairs_gates.TARGETS[0]
    monkeypatch.setattr(gates, "targets", lambda: (target,))
    rows = [
        Row(target.op, target.case, name, "fwd+bwd", "cold", "time", "ms", "green",
            ours=name == "triton", p20=ms, p50=ms, p80=ms, n=3)
        for name, ms in (("triton", ours), ("clip_compile", 10.0))
    ]  # fmt: skip
    (outcome,) = gates.evaluate([Report({"device_type": "cuda", "smoke": False}, rows)])
    assert outcome.verdict == verdict


def test_a_smoke_run_on_a_cpu(tmp_path: Path) -> None:
    """Every case, everyone who is here, through the file and back."""
    options = Options(budget_s=0.05, min_rounds=2, max_rounds=2, warmup=1, caches=("cold",))
    settings = Settings(CPU, torch.float32, smoke=True, options=options)
    wanted = {op: [p for p in peers(op) if p.name != "triton"] for op in OPS}
    out = tmp_path / "results.json"
    chosen = [case for op in OPS for case in cases(op)]
    measure_cases(chosen, wanted, settings, out=out, say=lambda _: None)
    (report,) = load(out)
    for case in chosen:
        timed = report.find(op=case.op, case=case.name, metric="time", mode="fwd+bwd")
        names = {row.provider for row in timed if row.p50}
        assert names == {"canary", *(peer.name for peer in _here(case.op))} - {"canary"}
        missing = report.find(op=case.op, case=case.name, metric="none")
        assert {row.provider for row in missing} == {p.name for p in wanted[case.op]} - names
        assert all(row.gate == "unavailable" and row.detail for row in missing)
