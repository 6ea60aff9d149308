"""The schedule at its corners, and which parameters decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.optim import OptimConfig, learning_rate, parameter_groups


def rates(config: OptimConfig, num_steps: int) -> list[float]:
    return [learning_rate(config, step, num_steps) for step in range(num_steps)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_warm_up_rises_in_equal_steps_to_the_peak(schedule):
    found = rates(OptimConfig(lr=2.0, warmup=0.1, schedule=schedule), 100)
    assert found[:10] == pytest.approx([0.2 * (k + 1) for k in range(10)])
    assert max(found) == found[9] == found[10] == 2.0


def test_cosine_equals_torchs_and_linear_is_a_line():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90, eta_min=0.2)
    expected = []
    for _ in range(90):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    config = OptimConfig(lr=2.0, warmup=0.1, final=0.1)
    assert rates(config, 100)[10:] == pytest.approx(expected)
    line = rates(config.model_copy(update={"schedule": "linear"}), 100)[10:]
    assert line == pytest.approx([2.0 - 1.8 * k / 90 for k in range(90)])


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_last_step_still_moves_and_the_end_is_the_final_share(schedule):
    config = OptimConfig(lr=1.0, warmup=0.0, final=0.0, schedule=schedule)
    assert 0 < learning_rate(config, 99, 100) < learning_rate(config, 98, 100) < 0.05
    assert learning_rate(config, 100, 100) == pytest.approx(0.0)
    floor = config.model_copy(update={"final": 0.25})
    assert learning_rate(floor, 100, 100) == pytest.approx(0.25)


def test_plateaus_multiply_and_short_phases_have_a_rate():
    config = OptimConfig(lr=1.0, warmup=0.0, schedule="plateau", plateau_factor=0.5)
    assert [learning_rate(config, 50, 100, falls) for falls in (0, 1, 2)] == [1.0, 0.5, 0.25]
    assert learning_rate(OptimConfig(lr=1.0), 0, 1) == 1.0
    assert learning_rate(OptimConfig(lr=1.0, warmup=1.0), 0, 1) == 1.0


def parts() -> dict[str, nn.Module]:
    return {
        "vision": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
        "connector": nn.Linear(4, 5),
        "decoder": nn.ModuleDict({"words": nn.Embedding(7, 5), "norm": nn.LayerNorm(5)}),
    }


def test_matrices_decay_and_biases_and_norms_do_not():
    groups = parameter_groups(parts(), ["vision", "decoder"], OptimConfig(weight_decay=0.1))
    assert {g["part"] for g in groups} == {"vision", "decoder"}
    for group in groups:
        dims = {p.ndim >= 2 for p in group["params"]}
        assert dims == {group["weight_decay"] == 0.1}
        assert group["weight_decay"] in (0.0, 0.1)
    assert sum(p.numel() for g in groups for p in g["params"]) == 3 * 4 * 9 + 4 + 8 + 35 + 10


def test_the_rate_is_scaled_per_part():
    config = OptimConfig(lr=0.5, lr_scale={"decoder": 0.1})
    groups = parameter_groups(parts(), ["connector", "decoder"], config)
    assert {(g["part"], g["lr_scale"], g["lr"]) for g in groups} == {
        ("connector", 1.0, 0.5), ("decoder", 0.1, 0.05)}


def test_a_shared_parameter_is_in_one_group():
    shared = parts()
    shared["connector"] = nn.Sequential(shared["connector"], shared["decoder"])
    groups = parameter_groups(shared, ["connector", "decoder"], OptimConfig())
    ids = [id(p) for g in groups for p in g["params"]]
    assert len(ids) == len(set(ids)) == 5
    assert {g["part"] for g in groups} == {"connector"}
