"""InfoNCE against the definition; two processes against one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from kernels import contrastive_loss, resolve_group
from kernels.reference import contrastive_loss_reference

LABELS = torch.tensor([3, 1, 3, 2, 1, 3, 0])


def _case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image, text = (
        F.normalize(torch.randn(7, 5, generator=generator, dtype=torch.float64), dim=1)
        for _ in range(2)
    )
    scale = torch.tensor(1 / 0.07, dtype=torch.float64)
    return image.requires_grad_(), text.requires_grad_(), scale.requires_grad_()


@pytest.mark.parametrize("labels", [None, LABELS])
def test_equals_definition(labels: torch.Tensor | None) -> None:
    leaves = _case()
    got = contrastive_loss(*leaves, labels=labels)
    want = contrastive_loss_reference(*leaves, labels=labels)
    torch.testing.assert_close(got, want)
    for g, w in zip(
        torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves), strict=True
    ):
        torch.testing.assert_close(g, w)


def test_known_value() -> None:
    eye = torch.eye(2)
    expected = -torch.log_softmax(torch.tensor([2.0, 0.0]), 0)[0]
    torch.testing.assert_close(contrastive_loss(eye, eye, 2.0), expected)
    # With one label everything is a positive: cross-entropy to the uniform target.
    both = contrastive_loss(eye, eye, 2.0, labels=torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(both, expected + 1.0)


def _rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    mine = slice(0, 3) if rank == 0 else slice(3, 7)  # ranks hold different numbers of rows
    results = {}
    for name, labels in (("plain", None), ("labels", LABELS[mine])):
        image, text, scale = (x.detach().clone() for x in _case())
        image, text = image[mine].requires_grad_(), text[mine].requires_grad_()
        scale.requires_grad_()
        loss = contrastive_loss(image, text, scale, labels=labels, group="world")
        loss.backward()
        results[name] = (loss.detach(), image.grad, text.grad, scale.grad)
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_compute_what_one_would(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        for rank in range(2)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, labels in (("plain", None), ("labels", LABELS)):
        image, text, scale = _case()
        loss = contrastive_loss(image, text, scale, labels=labels)
        loss.backward()
        a, b = ranks[0][name], ranks[1][name]
        torch.testing.assert_close(a[0] + b[0], loss.detach())
        torch.testing.assert_close(torch.cat([a[1], b[1]]), image.grad)
        torch.testing.assert_close(torch.cat([a[2], b[2]]), text.grad)
        torch.testing.assert_close(a[3] + b[3], scale.grad)


def test_bad_input_names_the_argument() -> None:
    image, text, scale = _case()
    with pytest.raises(ValueError, match="^image:"):
        contrastive_loss(image[0], text, scale)
    with pytest.raises(ValueError, match="^text:"):
        contrastive_loss(image, text[:3], scale)
    with pytest.raises(ValueError, match="^labels:"):
        contrastive_loss(image, text, scale, labels=LABELS.float())
    with pytest.raises(ValueError, match="^group:"):
        contrastive_loss(image, text, scale, group="everyone")
    assert resolve_group("world") is None


if __name__ == "__main__":
    _rank(int(sys.argv[1]), sys.argv[2])
