"""The losses over all pairs on two ranks: their shares add up to what one process computes.

The ranks are processes of their own that run this file; gloo connects them.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from support.row_ops import backend
from torch import Tensor

from kernels import contrastive_loss, dispatch
from kernels.pairs import contrastive, contrastive_eager, sigmoid
from kernels.pairs.sigmoid import sigmoid_loss
from kernels.reference import contrastive_loss_reference, sigmoid_loss_reference

LABELS = torch.tensor([3, 1, 3, 2, 1, 3, 0, 0, 3, 2, 7])
ROWS, DIM = len(LABELS), 6
SPLITS = {"uneven": 4, "nobody": ROWS}
"""Rows of rank 0; rank 1 has the others."""
WAYS = ("whole", "blocks", "triton")
LOSSES = ("contrastive", "sigmoid")
CASES = list(itertools.product(LOSSES, WAYS, SPLITS, (False, True)))
Results = dict[str, list[Tensor]]


def _dtype(way: str) -> torch.dtype:
    return torch.float32 if way == "triton" else torch.float64


def _case(loss: str, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = [
        F.normalize(torch.randn(ROWS, DIM, generator=generator, dtype=torch.float64), dim=1)
        for _ in range(2)
    ]
    scalars = [14.0] if loss == "contrastive" else [10.0, -4.0]
    scalars = [torch.tensor(x, dtype=torch.float64) for x in scalars]
    return [x.to(dtype).requires_grad_() for x in (*features, *scalars)]


def _name(loss: str, way: str, split: str, labels: bool) -> str:
    return f"{loss} {way} {split} {'labels' if labels else 'pairs'}"


# What the ranks do -------------------------------------------------------------------------------


def _choose(way: str) -> None:
    """Make everything whole, everything in blocks of two rows, or let the kernels do it."""
    contrastive.PLAIN_LOGITS = sigmoid.PLAIN_LOGITS = 0 if way == "blocks" else 2**20
    contrastive_eager.BLOCK_LOGITS = 2 * ROWS
    for loss in LOSSES:
        dispatch.set_backend(f"{loss}_loss", "triton" if way == "triton" else "eager")


def _step(
    loss: str, mine: slice, dtype: torch.dtype, labels: bool, upstream: float
) -> list[Tensor]:
    image, text, *scalars = (x.detach() for x in _case(loss, dtype))
    leaves = [x.clone().requires_grad_() for x in (image[mine], text[mine], *scalars)]
    function = contrastive_loss if loss == "contrastive" else sigmoid_loss
    own = LABELS[mine] if labels else None
    found = function(*leaves, labels=own, group="world")  # type: ignore[arg-type]
    grads = torch.autograd.grad(found, leaves, torch.full_like(found, upstream))
    with torch.no_grad():
        alone = function(*leaves, labels=own, group="world")  # type: ignore[arg-type]
    assert torch.equal(alone, found) and not alone.requires_grad
    return [found.detach(), *grads]


def _rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results: Results = {}
    for loss, way, split, labels in CASES:
        _choose(way)
        mine = slice(0, SPLITS[split]) if rank == 0 else slice(SPLITS[split], ROWS)
        name = _name(loss, way, split, labels)
        results[name] = _step(loss, mine, _dtype(way), labels, 1.0)
        if split == "uneven" and not labels:
            results[f"{name} weighed"] = _step(loss, mine, _dtype(way), False, (-0.5, 3.0)[rank])
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Results]]:
    """What each rank found."""
    root, folder = Path(__file__).parents[2], tmp_path_factory.mktemp("ranks")
    paths = f"{root}{os.pathsep}{root / 'tests'}"
    env = {**os.environ, "PYTHONPATH": paths, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    workers = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(folder)], env=env)
        for rank in range(2)
    ]
    try:
        assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    yield [torch.load(folder / f"{rank}.pt") for rank in range(2)]


# What one process finds --------------------------------------------------------------------------


def _compare(ranks: list[Results], name: str, want: list[Tensor], exact: bool) -> None:
    first, second = (x[name] for x in ranks)
    got = [
        first[0] + second[0],
        *(torch.cat([a, b]) for a, b in zip(first[1:3], second[1:3], strict=True)),
    ]
    got += [a + b for a, b in zip(first[3:], second[3:], strict=True)]
    for a, b in zip(got, want, strict=True):
        close = {"rtol": 1e-9, "atol": 1e-12} if exact else {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(a.double(), b, **close)


@pytest.mark.parametrize(("loss", "way", "split", "labels"), CASES)
def test_two_ranks_compute_what_one_would(
    ranks: list[Results], loss: str, way: str, split: str, labels: bool
) -> None:
    """Loss and all gradients, against the float64 definition; a rank without rows included."""
    leaves = _case(loss)
    reference = contrastive_loss_reference if loss == "contrastive" else sigmoid_loss_reference
    found = reference(*leaves, labels=LABELS if labels else None)  # type: ignore[arg-type]
    want = [found.detach(), *torch.autograd.grad(found, leaves)]
    _compare(ranks, _name(loss, way, split, labels), want, way != "triton")


def _shares(loss: str, image: Tensor, text: Tensor, *scalars: Tensor) -> Tensor:
    """Each row's part of the loss: both of its cross-entropies, or its image's pairs."""
    logits = scalars[0] * (image @ text.T)
    if loss == "contrastive":
        lse = logits.logsumexp(1) + logits.logsumexp(0)
        return (lse - 2 * logits.diagonal()) / (2 * ROWS)
    sign = 2 * torch.eye(ROWS, dtype=logits.dtype) - 1
    return -F.logsigmoid(sign * (logits + scalars[1])).sum(1) / ROWS


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loss", LOSSES)
def test_ranks_may_weigh_their_shares_differently(
    ranks: list[Results], loss: str, way: str
) -> None:
    """As gradient scaling by a rank's own count does."""
    leaves = _case(loss)
    shares = _shares(loss, *leaves)
    weights = torch.full((ROWS,), 3.0, dtype=torch.float64)
    weights[: SPLITS["uneven"]] = -0.5
    grads = torch.autograd.grad((shares * weights).sum(), leaves)
    name = f"{_name(loss, way, 'uneven', False)} weighed"
    _compare(ranks, name, [shares.sum().detach(), *grads], way != "triton")


@pytest.mark.parametrize("loss", LOSSES)
def test_the_reference_wants_one_rank(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = contrastive if loss == "contrastive" else sigmoid
    function: Callable[..., Tensor] = contrastive_loss if loss == "contrastive" else sigmoid_loss
    with backend(f"{loss}_loss", "reference"):
        assert function(*_case(loss), group="world") > 0  # a world of one
        monkeypatch.setattr(module, "resolve_group", lambda group: group)
        with pytest.raises(ValueError, match="^group: the reference"):
            function(*_case(loss), group="world")


if __name__ == "__main__":
    from support.interpreter import repaired

    with nullcontext() if torch.cuda.is_available() else repaired():
        _rank(int(sys.argv[1]), sys.argv[2])
