"""The image op on the workbench: cases meant, truth, work, peers, targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.bench import augment_gates, augment_peers
from kernels.bench.augment_cases import OP, AugmentInputs, Pictures, drawn, options
from kernels.bench.cases import cases, find_op, select_cases
from kernels.bench.correct import Judge
from kernels.bench.peers import peers

CPU = torch.device("cpu")
NAMES = [case.name for case in cases(OP)]


def _inputs(name: str, dtype: torch.dtype = torch.float32) -> AugmentInputs:
    (case,) = select_cases([OP], [name])
    made = case.inputs(CPU, dtype, 0, "smoke")
    assert isinstance(made, AugmentInputs)
    return made


def test_full_sizes_and_work() -> None:
    specs = {case.name: case.spec("full") for case in cases(OP)}
    assert specs["AUG"] == Pictures(1024, 256, 224)
    assert specs["AUG-patches"].layout == "patches" and specs["AUG-colours"].colours
    table = drawn(specs["AUG"]).table
    assert torch.equal(table, drawn(specs["AUG-patches"]).table)
    windows = int((table[:, 2] * table[:, 3]).double().sum())
    assert 0.5 < windows / (1024 * 256 * 256) < 0.65  # a fifth to all of a picture
    moved = find_op(OP).work(specs["AUG"], torch.bfloat16)["fwd"].bytes
    assert moved == 3 * windows + 1024 * 224 * 224 * 3 * 2
    assert find_op(OP).work(specs["AUG"], torch.float32)["fwd"].bytes > moved


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_who_is_here_passes(name: str, dtype: torch.dtype) -> None:
    inputs, judge = _inputs(name, dtype), Judge(find_op(OP))
    ran = []
    for peer in peers(OP):
        if peer.name == "triton" or peer.available(CPU) or peer.supports(inputs.spec):
            continue  # the kernels have tests of their own
        gate = judge.verdict(peer.make(inputs), everything=True)
        # Coordinates from -1 to 1 are rounded to some 1e-5 of a pixel: seen in float32 only.
        blurred = peer.name == "grid_sample" and dtype == torch.float32
        assert gate.open != blurred, f"{peer.name}: {gate.detail}"
        ran.append(peer.name)
    bilinear = ["grid_sample"] if name == "AUG-bilinear" else []
    assert ran == ["eager", "torchvision", *bilinear]


@pytest.mark.parametrize(
    "wrong",
    [
        {"antialias": False, "scale": (0.9, 1.0)}, {"seed": 2}, {"flip": 0.0}, {"contrast": 0.1},
        {"mean": (0.48, 0.456, 0.406)},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_peer_is_red(wrong: dict[str, Any]) -> None:
    inputs = _inputs("AUG")
    given = options(inputs) | wrong

    def forward() -> Tensor:
        return augment_peers.augment_images(inputs.images, **given)

    run = augment_peers._run(forward, inputs)
    assert not Judge(find_op(OP)).verdict(run, everything=True).open


def test_spot_check_reaches_both_ends() -> None:
    inputs = find_op(OP).build(Pictures(9, 20, 16), CPU, torch.float32, 0)
    seen = torch.zeros(9)
    for part in find_op(OP).parts(inputs, False):
        part.pick("out", seen).add_(1)
    assert seen.tolist() == [1, 1, 0, 0, 0, 0, 0, 1, 1]
    run = peers(OP)[1].make(inputs)
    assert Judge(find_op(OP)).verdict(run, everything=False).open


def test_targets_name_what_there_is() -> None:
    targets = {target.name: target for target in augment_gates.TARGETS}
    assert len(targets) == len(augment_gates.TARGETS)
    for target in targets.values():
        (case,) = select_cases([target.op], [target.case])
        assert target.mode in find_op(target.op).work(case.spec("full"), torch.bfloat16)
        assert target.peer in ("", "best", *(peer.name for peer in peers(target.op)))
    assert targets["AUG fwd against torchvision"].gate == 4.0
    assert targets["AUG fwd, ms (3.2 TB/s)"].stretch == pytest.approx(0.1305, rel=1e-3)


def test_who_is_absent_says_so() -> None:
    why = {peer.name: peer.available(CPU) for peer in peers(OP)}
    assert why["torch_compile"] == why["grid_compile"] == "needs an NVIDIA GPU"
    assert why["torchvision"] is None and why["eager"] is None
