"""The cases are the ones that were meant; their truth covers everything; their work is counted."""

from __future__ import annotations

import pytest
import torch

from kernels.attention import attention
from kernels.bench import load_ops
from kernels.bench.attention_cases import ROW, AttentionInputs, Packed
from kernels.bench.cases import Case, cases, find_op, ops, register_case, select_cases
from kernels.bench.peers import peers, select_peers
from kernels.bench.roofline import Ceilings, floor_ms, measure_ceilings, shares
from kernels.reference import attention_reference

load_ops()
CPU = torch.device("cpu")
NAMES = [case.name for case in cases("attention")]


def _spec(name: str, scale: str = "full") -> Packed:
    (case,) = select_cases(["attention"], [name])
    return case.spec(scale)  # type: ignore[arg-type]


def test_full_sizes() -> None:
    short = {name: _spec(name) for name in ("P1", "P1-causal", "BABY", "P2")}
    assert all(spec.total == ROW == 65_536 for spec in short.values())
    assert short["P1"].lengths == (230,) * 284 + (216,)
    assert (short["P1"].heads, short["P1"].dim, short["P1"].prefix) == (12, 64, 196)
    assert short["P1-causal"] == short["P1"].causal() != short["P1"]
    assert short["BABY"].lengths == (60,) * 1092 + (16,)
    assert (short["BABY"].heads, short["BABY"].dim) == (32, 8)
    prefix_lens = short["BABY"].prefix_lens()
    assert prefix_lens is not None
    assert prefix_lens.tolist() == [49] * 1092 + [16]
    assert min(short["P2"].lengths) >= 16 and max(short["P2"].lengths) <= 128
    assert len(set(short["P2"].lengths)) > 100 and short["P2"].heads == 6
    assert _spec("8192x34").lengths == (34,) * 8192
    for name, length, dim in (("L64", 4096, 64), ("L128", 8192, 128), ("W", 16_384, 64)):
        spec = _spec(name)
        assert (set(spec.lengths), spec.heads, spec.dim) == ({length}, 16, dim)
        assert spec.total == 32_768
    assert _spec("W").window == 1024


@pytest.mark.parametrize("name", NAMES)
def test_small_ones_keep_the_mask_and_are_small(name: str) -> None:
    full = _spec(name)
    for scale in ("small", "smoke"):
        spec = _spec(name, scale)
        assert spec.total <= 1000 and 2 <= len(spec.lengths) <= 4
        assert (spec.prefix is None, spec.window is None) == (
            full.prefix is None, full.window is None,
        )  # fmt: skip
        assert spec.dim == full.dim
        assert spec.window is None or spec.window < spec.longest  # else it would be causal
        prefix_lens = spec.prefix_lens()
        if prefix_lens is not None:
            assert int(prefix_lens[0]) < spec.lengths[0]


@pytest.mark.parametrize("name", NAMES)
def test_parts_cover_every_row_and_head_once(name: str) -> None:
    (case,) = select_cases(["attention"], [name])
    inputs = case.inputs(CPU, torch.bfloat16, 0, "small")
    spec = inputs.spec
    seen = torch.zeros(spec.total, spec.kv, dtype=torch.int64)
    for part in find_op("attention").parts(inputs, True):
        part.pick("dk", seen).add_(1)
    assert bool((seen == 1).all())


def test_spot_check_reaches_both_ends() -> None:
    spec = Packed((3,) * 50, heads=2, dim=8)
    inputs = find_op("attention").build(spec, CPU, torch.float32, 0)
    seen = torch.zeros(spec.total, spec.kv, dtype=torch.int64)
    parts = find_op("attention").parts(inputs, False)
    for part in parts:
        part.pick("dk", seen).add_(1)
    assert int(seen.max()) == 1
    assert bool(seen[:6].all()) and bool(seen[-6:].all()) and 4 <= len(parts) <= 6


def test_truth_of_the_parts_is_the_dense_reference() -> None:
    spec = Packed((5, 300, 40, 700, 1, 400), heads=4, kv_heads=2, dim=8, prefix=33)
    inputs = find_op("attention").build(spec, CPU, torch.float32, 0)
    assert isinstance(inputs, AttentionInputs)
    q, k, v = leaves = [x.detach().double().requires_grad_() for x in inputs.leaves]
    out = attention_reference(q, k, v, inputs.intervals)
    assert isinstance(out, torch.Tensor)
    grads = torch.autograd.grad(out, leaves, inputs.upstream.double())
    whole = dict(zip(("out", "dq", "dk", "dv"), (out.detach(), *grads), strict=True))
    parts = find_op("attention").parts(inputs, True)
    assert len(parts) > 2
    for part in parts:
        truth = part.truth(torch.float64)
        assert set(truth) == set(whole)
        for name, x in truth.items():
            torch.testing.assert_close(x, part.pick(name, whole[name]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "spec",
    [
        Packed((3, 9, 1), heads=2, dim=16),
        Packed((3, 9, 1), heads=4, kv_heads=2, dim=8, prefix=5),
        Packed((20, 5), heads=1, dim=8, window=4),
    ],
)
def test_work_is_pairs_and_tensors(spec: Packed) -> None:
    work = find_op("attention").work(spec, torch.bfloat16)
    pairs = int(spec.intervals().dense_mask().sum()) * spec.heads
    assert work["fwd"].flops == 4 * spec.dim * pairs
    assert work["bwd"].flops == 10 * spec.dim * pairs
    q, k = spec.total * spec.heads * spec.dim * 2, spec.total * spec.kv * spec.dim * 2
    other = spec.total * (spec.heads * 4 + 8)  # log-sum-exp, two ends
    assert work["fwd"].bytes == (q + k + k + q) + other  # q, k, v, out
    assert work["bwd"].bytes == (q + k + k + q + q) + (q + k + k) + other  # and dout; dq, dk, dv
    assert work["fwd+bwd"].bytes == work["fwd"].bytes + work["bwd"].bytes


def test_builder_is_seeded_and_normal() -> None:
    (case,) = select_cases(["attention"], ["P2"])
    one, same, other = (case.inputs(CPU, torch.bfloat16, seed, "small") for seed in (0, 0, 1))
    assert torch.equal(one.tensors["q"], same.tensors["q"])
    assert not torch.equal(one.tensors["q"], other.tensors["q"])
    assert one.tensors["q"].dtype == torch.bfloat16 and one.tensors["q"].requires_grad
    assert abs(float(one.tensors["k"].detach().float().std()) - 1.0) < 0.02
    assert not torch.equal(one.tensors["q"], one.tensors["k"])
    assert isinstance(one, AttentionInputs)
    assert isinstance(attention(*one.leaves, one.intervals), torch.Tensor)  # type: ignore[arg-type]


def test_select() -> None:
    assert [case.op for case in select_cases(None, ["P1"])] == ["attention", "intervals"]
    assert len(select_cases(None, None)) == sum(len(cases(op.name)) for op in ops())
    with pytest.raises(ValueError, match="--case: one of .*P1, .* got 'P9'"):
        select_cases(["attention"], ["P9"])
    with pytest.raises(ValueError, match="--case: .* got 'L64'"):
        select_cases(["intervals"], ["L64"])
    with pytest.raises(ValueError, match="--op: one of .*attention.* expected"):
        select_cases(["tension"], None)
    with pytest.raises(AssertionError, match="registered twice"):
        register_case(Case("attention", "P1", "", lambda _: None))


def test_select_peers() -> None:
    ops = ["attention", "intervals"]
    everyone = select_peers("all", ops)
    assert everyone == {op: peers(op) for op in ops}
    assert [p.name for p in everyone["attention"]][:2] == ["triton", "padded_sdpa"]
    less = select_peers("all,-flex,-varlen", ops)["attention"]
    assert {p.name for p in everyone["attention"]} - {p.name for p in less} == {"flex", "varlen"}
    assert select_peers("-flex", ops) == select_peers("all,-flex", ops)
    ours = select_peers("ours, flex", ops)
    assert [p.name for p in ours["attention"]] == ["triton", "padded_sdpa", "flex"]
    assert [p.name for p in ours["intervals"]] == ["intervals"]
    with pytest.raises(ValueError, match="--peers: all, ours or some of triton.* got 'flax'"):
        select_peers("triton,flax", ops)


def test_floor_and_shares() -> None:
    ceilings = Ceilings(1e12, 1e14)
    work = find_op("attention").work(Packed((10,), heads=1, dim=8), torch.bfloat16)["fwd"]
    assert floor_ms(work, ceilings) == pytest.approx(1e3 * work.bytes / 1e12)
    assert floor_ms(work, Ceilings(1e30, 1e3)) == pytest.approx(work.flops)
    copy, matmul = shares(work, 2 * floor_ms(work, ceilings), ceilings)
    assert copy == pytest.approx(0.5)
    assert matmul == pytest.approx(0.5 * work.flops / 1e14 / (work.bytes / 1e12))


def test_ceilings_are_measured() -> None:
    found = measure_ceilings(CPU, torch.float32)
    assert 1e8 < found.copy_bytes_per_s < 1e13
    assert 1e7 < found.matmul_flops_per_s < 1e14
