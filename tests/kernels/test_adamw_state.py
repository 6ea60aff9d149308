"""AdamW's state: saved, loaded, copied, taken from torch's and given back; settings refused."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.adamw_cases import (
    LIMIT,
    LR,
    assert_close,
    backpropagate,
    each_implementation,  # noqa: F401  (a fixture)
    groups,
    model,
    torch_step,
)
from support.numerics import bits, kernels_as_on_hardware  # noqa: F401  (a fixture)

from kernels.optimizer import AdamW

FP32, BF16 = torch.float32, torch.bfloat16


@pytest.mark.parametrize("way", ["state dict", "file", "deepcopy"])
@pytest.mark.parametrize("masters", [False, True])
def test_goes_on_where_it_was(implementation: str, way: str, masters: bool) -> None:
    """Bit by bit, in half precision too: what torch would cast to it stays float32."""
    dtype = BF16 if masters else FP32
    net = model(dtype)
    ours = AdamW(groups(net), lr=LR, max_norm=LIMIT, skip_nonfinite=True, master_weights=masters)
    for number in range(2):
        backpropagate(net, number)
        ours.step()
    if way == "deepcopy":
        twin, other = copy.deepcopy((net, ours))
        assert (other.max_norm, other.skip_nonfinite) == (LIMIT, True)
    else:
        twin = copy.deepcopy(net)
        other = AdamW(groups(twin), lr=7.0, max_norm=LIMIT, master_weights=masters)
        state = copy.deepcopy(ours.state_dict())
        if way == "file":
            file = io.BytesIO()
            torch.save(state, file)
            file.seek(0)
            state = torch.load(file)
        other.load_state_dict(state)
        assert other.param_groups[0]["lr"] == LR
    for of, optimizer in ((net, ours), (twin, other)):
        backpropagate(of, 2)
        optimizer.step()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(bits(p), bits(q))
        for key, x in ours.state[p].items():
            assert torch.equal(x, other.state[q][key]), key
            assert x.dtype == FP32 and other.state[q][key].dtype == FP32


def test_state_of_torch_goes_either_way(implementation: str) -> None:
    net, other = model(), model()
    ours = AdamW(groups(net), lr=LR, max_norm=LIMIT)
    theirs = torch.optim.AdamW(groups(other), lr=LR)
    for number in range(4):
        for of in (net, other):
            backpropagate(of, number)
        torch_step(theirs)
        ours.step()
        if number == 1:
            states = [copy.deepcopy(x.state_dict()) for x in (ours, theirs)]
            ours = AdamW(groups(net), lr=1.0, max_norm=LIMIT)
            theirs = torch.optim.AdamW(groups(other), lr=1.0)
            theirs.load_state_dict(states[0])
            ours.load_state_dict(states[1])
    assert_close(net, other)


def test_masters_from_a_state_without(implementation: str) -> None:
    """Half-precision weights trained by torch's AdamW go on with masters made of them."""
    net = model(BF16)
    theirs = torch.optim.AdamW(net.parameters(), lr=LR)
    backpropagate(net, 0)
    theirs.step()
    ours = AdamW(net.parameters(), lr=LR, master_weights=True)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    for p in net.parameters():
        assert torch.equal(ours.state[p]["master"], p.detach().float())
        assert ours.state[p]["exp_avg"].dtype == FP32
    backpropagate(net, 1)
    ours.step()
    assert all(torch.equal(p, ours.state[p]["master"].to(BF16)) for p in net.parameters())
    plain = AdamW(net.parameters(), lr=LR)
    plain.load_state_dict(copy.deepcopy(ours.state_dict()))
    assert all("master" not in plain.state[p] for p in net.parameters())
    assert all(plain.state[p]["exp_avg"].dtype == BF16 for p in net.parameters())
    backpropagate(net, 2)
    plain.step()


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW])
def test_state_of_other_optimizers_is_refused(make: Callable[..., torch.optim.Optimizer]) -> None:
    leaf = torch.zeros(3, requires_grad=True)
    options = {"weight_decay": 0.1} if make is torch.optim.Adam else {"amsgrad": True}
    with pytest.raises(ValueError, match="^state_dict: "):
        AdamW([leaf]).load_state_dict(make([leaf], **options).state_dict())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lr", {"lr": -1.0}),
        ("betas", {"betas": (0.9, 1.0)}),
        ("eps", {"eps": -1.0}),
        ("weight_decay", {"weight_decay": -1.0}),
        ("max_norm", {"max_norm": 0.0}),
    ],
)
def test_bad_settings_are_named(name: str, options: dict[str, Any]) -> None:
    leaf = torch.zeros(3, requires_grad=True)
    with pytest.raises(ValueError, match=f"^{name}: "):
        AdamW([leaf], **options)
    if name != "max_norm":
        with pytest.raises(ValueError, match=f"^{name}: "):
            AdamW([{"params": [leaf], **options}])
