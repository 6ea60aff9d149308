"""The gate lets right results pass and no wrong one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from kernels.bench import attention_peers, load_ops, sdpa_peers
from kernels.bench.attention_cases import AttentionInputs, Packed
from kernels.bench.cases import cases, find_op
from kernels.bench.correct import Gate, Judge, compare
from kernels.bench.peers import Run, grads_of
from kernels.reference import attention_reference

load_ops()
CPU = torch.device("cpu")
SPEC = Packed((9, 30, 1, 17), heads=4, kv_heads=2, dim=16, prefix=5)


def _inputs(spec: Packed = SPEC, dtype: torch.dtype = torch.bfloat16) -> AttentionInputs:
    found = find_op("attention").build(spec, CPU, dtype, 3)
    assert isinstance(found, AttentionInputs)
    return found


def _run(inputs: AttentionInputs, bend: Callable[[Tensor], Tensor] = lambda x: x) -> Run:
    """The reference in float32, bent in one place."""
    q, k, v = inputs.leaves

    def forward() -> Tensor:
        out = attention_reference(q.float(), k.float(), v.float(), inputs.intervals)
        assert isinstance(out, Tensor)
        return bend(out.to(q.dtype))

    return Run(inputs, forward, grads_of(inputs), attention_peers.named)


def _verdict(run: Run, everything: bool = True) -> Gate:
    return Judge(find_op("attention")).verdict(run, everything=everything)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_right_run_passes(dtype: torch.dtype) -> None:
    assert _verdict(_run(_inputs(dtype=dtype))) == Gate("green")
    assert _verdict(_run(_inputs(dtype=dtype)), everything=False) == Gate("green")


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize(
    ("bend", "word"),
    [
        (lambda x: x * 1.02, "error"),
        (lambda x: torch.cat([x[:-1], x[-1:] + 0.1]), "error"),
        (lambda x: x.masked_fill(torch.zeros_like(x).bool().index_fill(0, torch.tensor(0), True),
                                 float("nan")), "not finite"),
        (lambda x: x.flip(0), "error"),
    ],
)  # fmt: skip
def test_a_wrong_run_does_not(
    bend: Callable[[Tensor], Tensor], word: str, everything: bool
) -> None:
    gate = _verdict(_run(_inputs(), bend), everything)
    assert gate.status == "red" and not gate.open
    assert word in gate.detail and "out" in gate.detail


def test_another_mask_is_wrong_unless_it_says_so() -> None:
    inputs = _inputs()
    causal = inputs.with_spec(inputs.spec.causal())
    run = _run(causal)
    assert _verdict(run).open
    run.inputs = inputs  # now it pretends to be prefix-LM
    assert _verdict(run).status == "red"


def test_wrong_gradients_are_seen() -> None:
    inputs = _inputs()
    run = _run(inputs)
    right = run.backward
    assert right is not None
    run.backward = lambda out: tuple(g * (1.0 if i else 0.5) for i, g in enumerate(right(out)))
    gate = _verdict(run)
    assert gate.status == "red" and "dq" in gate.detail
    run.backward = lambda out: tuple(reversed(right(out)))
    assert _verdict(run).status == "red"


def test_a_refusal_is_no_error() -> None:
    run = _run(_inputs())

    def refuse() -> Tensor:
        raise NotImplementedError("head dimension 16 is beneath me\nsee the manual")

    run.forward = refuse
    assert _verdict(run) == Gate("unsupported", "head dimension 16 is beneath me")


def test_twice_the_references_own_error_and_no_more() -> None:
    truth = torch.linspace(-1, 1, 64, dtype=torch.float64)
    baseline = (truth + 0.01).to(torch.float32)
    rounding = torch.finfo(torch.float32).eps
    assert compare("x", (truth + 0.0199).float(), truth, baseline) is None
    assert compare("x", (truth + 0.0201 + rounding).float(), truth, baseline) is not None
    one_off = truth.clone()
    one_off[3] += 0.021
    assert "largest error" in str(compare("x", one_off.float(), truth, baseline))
    exact = truth.float()
    assert compare("x", exact, exact.double(), exact) is None
    assert compare("x", exact[1:], truth, baseline) is not None


def test_integers_must_be_equal() -> None:
    x = torch.arange(5, dtype=torch.int32)
    assert compare("x", x, x.clone(), None) is None
    assert compare("x", x, x.flip(0), None) == "x: 4 of 5 entries differ"


@pytest.mark.parametrize("case", [case.name for case in cases("attention")])
def test_padded_batches_compute_the_case(case: str) -> None:
    """The glue of the SDPA peers, with the one backend that takes masks on a CPU."""
    (found,) = [one for one in cases("attention") if one.name == case]
    inputs = found.inputs(CPU, torch.bfloat16, 1, "smoke")
    assert isinstance(inputs, AttentionInputs)
    run = sdpa_peers.sdpa_run(SDPBackend.MATH, True, inputs)
    window = inputs.spec.window is not None
    assert run.computes == ""
    assert _verdict(run).status == ("red" if window else "green")  # windows are not offered
    assert (sdpa_peers._no_window(inputs.spec) is not None) == window


def test_padded_batch_with_unequal_prefixes_and_shared_key_heads() -> None:
    run = sdpa_peers.sdpa_run(SDPBackend.MATH, True, _inputs())
    assert _verdict(run) == Gate("green")
    causal = sdpa_peers.sdpa_run(SDPBackend.MATH, False, _inputs())
    assert causal.computes == attention_peers.CAUSAL_INSTEAD
    assert _verdict(causal) == Gate("green")
