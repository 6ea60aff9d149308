"""AdamW as an optimizer: equal to torch's with torch's clipping, whatever happens between steps."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
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
from support.cuda_graphs import capture, nothing_waits, warm_up
from support.numerics import (
    DEVICE,
    ON_GPU,
    assert_error_at_most_twice,
    bits,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
)
from support.row_ops import backend, draw

from kernels.optimizer import AdamW, adamw_triton, fused_adamw

FP32, BF16 = torch.float32, torch.bfloat16


def test_steps_of_torch_with_clipping(implementation: str) -> None:
    """Five steps with the error that torch's have, at most twice; the norms are the same."""
    nets = [model(), model(), model().double()]
    nets[2].load_state_dict(nets[0].state_dict())
    ours = AdamW(groups(nets[0]), lr=LR, max_norm=LIMIT)
    theirs, exact = (torch.optim.AdamW(groups(net), lr=LR) for net in nets[1:])
    for number in range(5):
        backpropagate(nets[2], number)
        for net in nets[:2]:  # the same gradients: errors are the steps' own
            for p, q in zip(net.parameters(), nets[2].parameters(), strict=True):
                p.grad = q.grad.float()  # type: ignore[union-attr]
        want = torch_step(exact)
        torch_step(theirs)
        assert ours.step() is None
        assert ours.grad_norm is not None
        torch.testing.assert_close(ours.grad_norm.double(), want, rtol=1e-6, atol=0)
    for at, found in enumerate(zip(*(net.parameters() for net in nets), strict=True)):
        assert_error_at_most_twice(str(at), *(x.detach() for x in found), terms=1.0)


def test_without_clipping_there_is_no_norm(implementation: str) -> None:
    net, other = model(), model()
    ours, theirs = AdamW(groups(net), lr=LR), torch.optim.AdamW(groups(other), lr=LR)
    for number in range(3):
        for of, optimizer in ((net, ours), (other, theirs)):
            backpropagate(of, number)
            optimizer.step()
    assert_close(net, other)
    assert ours.grad_norm is None


def test_closure_scheduler_and_empty_step(implementation: str) -> None:
    net, other = model(), model()
    ours, theirs = AdamW(net.parameters(), LR), torch.optim.AdamW(other.parameters(), LR)
    before = copy.deepcopy(net.state_dict())
    ours.step()
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())
    assert not ours.state
    pairs = [
        (of, optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5))
        for of, optimizer in ((net, ours), (other, theirs))
    ]
    for number in range(3):
        losses = []
        for of, optimizer, scheduler in pairs:
            losses.append(optimizer.step(lambda of=of, n=number: backpropagate(of, n)))
            scheduler.step()
        torch.testing.assert_close(*losses)
    assert ours.param_groups[0]["lr"] == LR / 8
    assert_close(net, other)


def test_parameters_that_come_and_go(implementation: str) -> None:
    """Each counts its own steps; gradients, parameters and state may move between steps."""
    net, other = model(), model()
    ours = AdamW(groups(net), lr=LR, max_norm=LIMIT)
    theirs = torch.optim.AdamW(groups(other), lr=LR)
    for number in range(6):
        for of in (net, other):
            backpropagate(of, number)
            if number in (1, 2):
                next(of.parameters()).grad = None
        if number == 3:
            for p in net.parameters():
                p.data = p.data.clone()
        if number == 4:
            for state in ours.state.values():
                state["exp_avg"] = state["exp_avg"].clone()
        if number == 5:
            bias = list(net.parameters())[-1]
            ours.state[bias] = {key: x.clone() for key, x in ours.state[bias].items()}
        torch_step(theirs)
        ours.step()
    assert_close(net, other)
    steps = {float(ours.state[p]["step"]) for p in net.parameters()}
    assert steps == {4.0, 6.0}


def test_groups_are_added_and_changed(implementation: str) -> None:
    net, other = model(), model()
    optimizers = []
    for of, make in ((net, AdamW), (other, torch.optim.AdamW)):
        first, second = groups(of)
        optimizer = make([first], lr=LR)
        for number in range(4):
            if number == 1:
                optimizer.add_param_group(second)
            if number == 3:
                optimizer.param_groups[0]["weight_decay"] = 0.7
                moved = optimizer.param_groups[1]["params"].pop()
                optimizer.param_groups[0]["params"].append(moved)
            backpropagate(of, number)
            optimizer.step()
        optimizers.append(optimizer)
    assert_close(net, other)


def test_masters_are_float32_training(implementation: str) -> None:
    """With the gradients of half-precision weights, masters move as float32 parameters would."""
    net = model(BF16)
    wide = [p.detach().float().requires_grad_() for p in net.parameters()]
    ours = AdamW(net.parameters(), lr=1e-4, master_weights=True)
    theirs = torch.optim.AdamW(wide, lr=1e-4)
    for number in range(4):
        backpropagate(net, number)
        for p, q in zip(net.parameters(), wide, strict=True):
            q.grad = p.grad.float()  # type: ignore[union-attr]
        ours.step()
        theirs.step()
    for p, q in zip(net.parameters(), wide, strict=True):
        torch.testing.assert_close(ours.state[p]["master"], q.detach(), rtol=1e-6, atol=1e-7)
        assert torch.equal(p, ours.state[p]["master"].to(BF16))


def test_bad_gradients_are_skipped(implementation: str) -> None:
    net = model()
    ours = AdamW(groups(net), lr=LR, max_norm=LIMIT, skip_nonfinite=True)
    backpropagate(net, 0)
    ours.step()
    before = copy.deepcopy((net.state_dict(), ours.state_dict()["state"]))
    backpropagate(net, 1)
    next(net.parameters()).grad[0, 0] = math.nan  # type: ignore[index]
    ours.step()
    assert ours.grad_norm is not None and ours.grad_norm.isnan()
    assert all(torch.equal(x, before[0][name]) for name, x in net.state_dict().items())
    for number, state in ours.state_dict()["state"].items():
        assert all(torch.equal(x, before[1][number][key]) for key, x in state.items())


def test_gradients_stay_as_they_are_on_the_device() -> None:
    net = model()
    ours = AdamW(net.parameters(), lr=LR, max_norm=1e-3)
    backpropagate(net, 0)
    before = [bits(p.grad).clone() for p in net.parameters()]  # type: ignore[arg-type]
    with backend("adamw", "triton"):
        ours.step()
    for p, x in zip(net.parameters(), before, strict=True):
        assert torch.equal(bits(p.grad), x)  # type: ignore[arg-type]


def test_tables_are_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same addresses: the host does not even look at the lists."""
    net = model()
    ours = AdamW(groups(net), lr=LR)
    backpropagate(net, 0)
    with backend("adamw", "triton"):
        ours.step()
        monkeypatch.setattr("kernels.optimizer.adamw.tables_for", _must_not_run)
        ours.step()
        ours.param_groups[0]["lr"] = 0.5
        ours.step()
        with pytest.raises(AssertionError, match="again"):
            next(net.parameters()).grad = draw(40, 30)
            ours.step()
    assert float(next(iter(ours.state.values()))["step"]) == 3.0


def _must_not_run(*_: object) -> None:
    raise AssertionError("again")


def test_a_tied_embedding_is_one_parameter(implementation: str) -> None:
    table = draw(9, 8).requires_grad_()
    other = table.detach().clone().requires_grad_()
    ours, theirs = AdamW([table], lr=LR), torch.optim.AdamW([other], lr=LR)
    ids = torch.tensor([1, 2, 2, 8], device=DEVICE)
    for _ in range(3):
        for weight, optimizer in ((table, ours), (other, theirs)):
            weight.grad = None
            F.cross_entropy(F.embedding(ids, weight) @ weight.T, ids).backward()
            optimizer.step()
    torch.testing.assert_close(table, other, rtol=1e-5, atol=1e-6)


def test_sparse_gradients_are_refused(implementation: str) -> None:
    leaf = torch.zeros(3, 2, device=DEVICE, requires_grad=True)
    leaf.grad = torch.ones(3, 2, device=DEVICE).to_sparse()
    with pytest.raises(ValueError, match=r"^grad: "):
        AdamW([leaf]).step()


# On a GPU only.


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
def test_nothing_waits_for_the_gpu_and_a_graph_holds_it(dtype: torch.dtype) -> None:
    """Learning rates change between replays; other addresses in the graph than before it."""
    nets = [model(dtype), model(dtype)]
    rates = [torch.tensor(LR, device=DEVICE), torch.tensor(2 * LR, device=DEVICE)]
    made = []
    for net in nets:
        first, second = groups(net)
        first["lr"], second["lr"] = rates
        made.append(
            AdamW([first, second], max_norm=LIMIT, skip_nonfinite=True, master_weights=True)
        )
    x = draw(8, 30, dtype=dtype)

    def step(at: int) -> None:
        for p in nets[at].parameters():
            p.grad = None
        nets[at](x).float().square().sum().backward()
        made[at].step()

    warm_up(lambda: step(0), times=2)
    step(1)
    with nothing_waits():
        step(1)
    graph, _ = capture(lambda: step(0))
    for number in range(3):
        x.copy_(draw(8, 30, dtype=dtype, seed=number))
        rates[0].fill_(LR / (number + 1))
        graph.replay()
        step(1)
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(bits(p), bits(q))
        assert made[0].state[p]["step"] == 5.0


@pytest.mark.gpu
def test_full_size() -> None:
    """GPT-2 small's largest tensor and a thousand small ones, against torch's fused AdamW."""
    shapes = [(50_257, 768), *[(768,)] * 1000]
    lists = [[draw(*shape, seed=at) for at, shape in enumerate(shapes)] for _ in range(2)]
    others = [p.clone().requires_grad_() for p in lists[0]]
    theirs = torch.optim.AdamW(others, lr=LR, fused=True)
    for p, g in zip(others, lists[1], strict=True):
        p.grad = g.clone()
    norm = torch_step(theirs)
    zeros = [[torch.zeros_like(p) for p in lists[0]] for _ in range(2)]
    steps = [torch.zeros((), device=DEVICE) for _ in shapes]
    found = fused_adamw(*lists, *zeros, steps, lr=LR, max_norm=LIMIT)
    assert found is not None
    torch.testing.assert_close(found, norm, rtol=1e-5, atol=0)
    for p, q in zip(lists[0], others, strict=True):
        torch.testing.assert_close(p, q.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(ON_GPU, reason="says what runs on a CPU")
def test_a_cpu_takes_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adamw_triton, "step", _must_not_run)
    net = model()
    backpropagate(net, 0)
    AdamW(net.parameters()).step()
