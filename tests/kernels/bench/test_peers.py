"""The glue between the workbench and the libraries, with stand-ins where a GPU is needed."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels import dispatch, intervals
from kernels.bench import attention_peers, load_ops
from kernels.bench.attention_cases import AttentionInputs, Packed
from kernels.bench.cases import cases, find_op
from kernels.bench.correct import Gate, Judge
from kernels.bench.interval_cases import IntervalInputs
from kernels.bench.peers import Run, peers
from kernels.reference import attention_reference

load_ops()
CPU = torch.device("cpu")
NAMES = [case.name for case in cases("attention")]


def _inputs(name: str) -> AttentionInputs:
    (case,) = [case for case in cases("attention") if case.name == name]
    found = case.inputs(CPU, torch.bfloat16, 1, "smoke")
    assert isinstance(found, AttentionInputs)
    return found


def _verdict(run: Run) -> Gate:
    return Judge(find_op("attention")).verdict(run, everything=True)


def _causal(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, window: int | None) -> Tensor:
    found = attention_reference(q.float(), k.float(), v.float(), intervals(ends, window=window))
    assert isinstance(found, Tensor)
    return found.to(q.dtype)


@pytest.mark.parametrize("name", NAMES)
def test_libraries_without_prefix_compute_causal_and_say_so(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = _inputs(name)
    asked: list[tuple[str | None, bool]] = []

    def run(q: Tensor, k: Tensor, v: Tensor, mask: Any, **options: Any) -> tuple[Tensor, None]:
        assert options["scale"] == q.shape[2] ** -0.5 and options["dropout"] == 0.0
        return _causal(q, k, v, mask.cu_seqlens, mask.window), None

    def choose(op: str, *args: Any, **options: Any) -> Any:
        asked.append((dispatch._forced.get(op), args[3].prefix_lens is None))
        return run

    monkeypatch.setattr(dispatch, "choose", choose)
    found = attention_peers._dispatched("varlen", inputs)
    assert asked == [("varlen", True)] and "attention" not in dispatch._forced
    assert found.computes == ("" if inputs.spec.prefix is None else "causal on the same documents")
    assert _verdict(found) == Gate("green")


@pytest.mark.parametrize("name", NAMES)
def test_flash_attn_4(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = _inputs(name)

    def varlen(
        q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
        max_seqlen_q: int, max_seqlen_k: int, causal: bool, window_size: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        assert causal and cu_seqlens_q is cu_seqlens_k and cu_seqlens_q.dtype == torch.int32
        assert max_seqlen_q == max_seqlen_k == int(cu_seqlens_q.diff().max())
        back, ahead = window_size
        assert ahead == (None if back is None else 0)
        return _causal(q, k, v, cu_seqlens_q, None if back is None else back + 1), None

    module = ModuleType("flash_attn.cute")
    module.flash_attn_varlen_func = varlen  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", ModuleType("flash_attn"))
    monkeypatch.setitem(sys.modules, "flash_attn.cute", module)
    found = attention_peers._flash_attn_4(inputs)
    assert bool(found.computes) == (inputs.spec.prefix is not None)
    assert _verdict(found) == Gate("green")


@pytest.mark.parametrize("name", ["P1", "BABY", "W"])
def test_flex_computes_the_case_itself(name: str) -> None:
    """Its forward; on a CPU it has no other."""
    inputs = _inputs(name)
    for x in inputs.leaves:
        x.requires_grad_(False)
    run = attention_peers._flex(inputs)
    out = run.forward()
    expected = attention_reference(*(x.detach().double() for x in inputs.leaves), inputs.intervals)  # type: ignore[misc]
    assert isinstance(expected, Tensor) and run.computes == ""
    if inputs.spec.dim == 8:
        assert out.shape[2] == 16 and bool((out[..., 8:] == 0).all())
        assert run.note == "head dimension padded to 16"
    got = run.collect(out, (out, out, out))["out"]
    torch.testing.assert_close(got.double(), expected, rtol=0.02, atol=0.02)
    assert run.build is not None
    blocks = run.build()
    assert blocks is not run.build()  # made anew, not kept
    assert blocks.shape == (1, 1, inputs.spec.total, inputs.spec.total)


@pytest.mark.parametrize("name", ["triton", "padded_sdpa"])
def test_ours_builds_what_its_mask_needs(name: str) -> None:
    inputs = _inputs("P1")
    run = attention_peers.ours_run(name, inputs)
    assert run.build is not None
    made = run.build()
    if name == "padded_sdpa":
        assert made.query_slot.shape[0] == inputs.spec.total
    else:
        assert torch.equal(made.stop, inputs.intervals.stop) and made.max_len == inputs.spec.longest


def test_backends_are_forced_inside_and_free_outside() -> None:
    run = attention_peers.ours_run("padded_sdpa", _inputs("P2"))
    with run.around():
        assert dispatch._forced["attention"] == "padded_sdpa"
    assert "attention" not in dispatch._forced
    assert _verdict(run) == Gate("green")


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="the interpreter's; measured runs gate the compiled kernels"
)
def test_our_kernels_pass_the_gate_in_the_interpreter() -> None:
    assert attention_peers._triton(CPU) is None  # the tests' own environment asks for it
    assert _verdict(attention_peers.ours_run("triton", _inputs("BABY"))) == Gate("green")


def test_what_is_not_there_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    reasons = {peer.name: peer.available(CPU) for peer in peers("attention")}
    assert reasons["padded_sdpa"] is None and reasons["sdpa_flash"] is None
    for name in ("triton", "varlen", "flex", "sdpa_cudnn", "flash_attn", "flash_attn_4"):
        assert reasons[name] == "needs an NVIDIA GPU"
    gpu = torch.device("cuda")
    reasons = {peer.name: peer.available(gpu) for peer in peers("attention")}
    assert reasons["varlen"] is None and reasons["flex"] is None
    assert reasons["flash_attn_4"] == "flash-attn-4 is not installed"
    assert reasons["flash_attn"] == "flash_attn.flash_attn_interface is not installed"
    assert attention_peers._registered("nobody") == "not part of this build"


@pytest.mark.parametrize("peer", ["intervals", "torch_ops"])
@pytest.mark.parametrize("window", [None, 4])
def test_intervals_are_compared(peer: str, window: int | None) -> None:
    spec = Packed((30, 1, 100), heads=1, dim=8, prefix=None if window else 9, window=window)
    (found,) = [one for one in peers("intervals") if one.name == peer]
    run = found.make(IntervalInputs(spec, CPU))
    judge = Judge(find_op("intervals"))
    assert judge.verdict(run, everything=True) == Gate("green")
    right = run.collect
    run.collect = lambda out, _: {n: x + (n == "q_stop") for n, x in right(out, _).items()}
    gate = judge.verdict(run, everything=True)
    assert gate.status == "red" and "q_stop: 131 of 131 entries differ" in gate.detail
