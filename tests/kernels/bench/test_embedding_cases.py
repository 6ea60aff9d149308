"""The embedding gradient on the workbench: cases meant, truth, work, targets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.bench import embedding_gates, embedding_peers  # noqa: F401  (registers the peers)
from kernels.bench.cases import cases, find_op, select_cases
from kernels.bench.correct import Judge
from kernels.bench.embedding_cases import OP, Words, WordsInputs, probabilities
from kernels.bench.peers import Run, peers

CPU = torch.device("cpu")
EVERY = [case.name for case in cases(OP)]


def _inputs(name: str, dtype: torch.dtype = torch.float32) -> WordsInputs:
    (case,) = select_cases([OP], [name])
    made = case.inputs(CPU, dtype, 0, "smoke")
    assert isinstance(made, WordsInputs)
    return made


def test_full_sizes_and_work() -> None:
    specs = {name: select_cases([OP], [name])[0].spec("full") for name in EVERY}
    assert specs["EMB-768"] == Words(65_536, 768, 50_304)
    work = {
        name: find_op(OP).work(spec, torch.bfloat16)["bwd"].bytes for name, spec in specs.items()
    }
    given = 65_536 * (768 * 2 + 8)
    assert work["EMB-768"] == work["EMB-768-one"] == given + 50_304 * 768 * 2
    assert given + 2 * 10_000 * 1536 < work["EMB-768-tied"] < given + 2 * 30_000 * 1536
    one = Words(65_536, 768, 50_304, "one word", tied=True)
    assert find_op(OP).work(one, torch.bfloat16)["bwd"].bytes == given + 2 * 1536


def test_words_are_those_of_text() -> None:
    inputs = find_op(OP).build(Words(20_000, 8, 1000), CPU, torch.float32, 0)
    assert isinstance(inputs, WordsInputs)
    counts = inputs.ids.bincount(minlength=1000).sort(descending=True).values
    share = probabilities(inputs.spec)[0]
    assert counts[0] / 20_000 == pytest.approx(float(share), rel=0.1) and share > 0.1
    assert (counts > 0).sum() > 800
    assert len(_inputs("EMB-768-one").ids.unique()) == 1


@pytest.mark.parametrize("name", EVERY)
def test_truth_is_a_sum_word_by_word(name: str) -> None:
    inputs = _inputs(name)
    (part,) = find_op(OP).parts(inputs, True)
    truth = part.truth(torch.float64)["dweight"]
    want = inputs.before.double() if inputs.spec.tied else torch.zeros_like(truth)
    assert inputs.upstream is not None
    for word, row in zip(inputs.ids.tolist(), inputs.upstream, strict=True):
        want[word] += row
    torch.testing.assert_close(truth, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", EVERY)
def test_who_is_here_passes(name: str, dtype: torch.dtype) -> None:
    inputs, judge = _inputs(name, dtype), Judge(find_op(OP))
    ran = []
    for peer in peers(OP):
        if peer.name == "triton" or peer.available(CPU) or peer.supports(inputs.spec):
            continue  # the kernels have tests of their own
        gate = judge.verdict(peer.make(inputs), everything=True)
        assert gate.open, f"{peer.name}: {gate.detail}"
        ran.append(peer.name)
    assert ran == ["eager", "torch", "index_add"]


@pytest.mark.parametrize("name", ["EMB-768", "EMB-768-tied"])
def test_a_wrong_peer_is_red(name: str) -> None:
    inputs = _inputs(name)
    (eager,) = (peer for peer in peers(OP) if peer.name == "eager")
    run: Run = eager.make(inputs)
    collect = run.collect

    def spoilt(out: Tensor, grad: Tensor) -> dict[str, Tensor]:
        return {key: x * 1.001 for key, x in collect(out, grad).items()}

    run.collect = spoilt
    assert not Judge(find_op(OP)).verdict(run, everything=True).open


def test_targets_name_what_there_is() -> None:
    names = [target.name for target in embedding_gates.TARGETS]
    assert len(set(names)) == len(names)
    for target in embedding_gates.TARGETS:
        select_cases([target.op], [target.case])
        assert target.mode in find_op(target.op).modes
        assert target.peer in ("best", *(peer.name for peer in peers(OP)))
    first = embedding_gates.TARGETS[0]
    assert (first.case, first.peer, first.gate, first.stretch) == ("EMB-768", "torch", 2.0, 4.0)


def test_absent_ones_say_so() -> None:
    absent = {peer.name: peer.available(CPU) for peer in peers(OP)}
    assert absent["torch_compile"] == "needs an NVIDIA GPU"
