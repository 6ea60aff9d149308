"""What linear cross-entropy allocates, counted at full size on tensors that store nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.allocations import Allocations
from torch import Tensor
from torch._subclasses import FakeTensorMode

from kernels.cross_entropy import kernel, run
from kernels.cross_entropy.run import Scalars
from kernels.cross_entropy.table import chunk_rows, fused_config, splits

BF16 = torch.bfloat16
GIB = 1 << 30


def _inputs(rows: int, width: int, vocab: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.empty(rows, width, dtype=BF16, device=device, requires_grad=True)
    weight = torch.empty(vocab, width, dtype=BF16, device=device, requires_grad=True)
    return x, weight, torch.empty(rows, dtype=torch.int64, device=device)


@pytest.mark.parametrize("kept", [None, 9_830])
@pytest.mark.parametrize(
    ("rows", "width", "vocab"),
    [
        (65_536, 768, 50_304), (65_536, 768, 50_257), (65_536, 256, 50_304), (65_536, 256, 2_350),
        (16_384, 1024, 128_256),
    ],
)  # fmt: skip
def test_training_stays_within_a_gib(
    rows: int, width: int, vocab: int, kept: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits of a chunk, dX, the float32 sum of dW: nothing else that is large, whatever T x V."""
    monkeypatch.setattr(kernel, "row_step", lambda *_: None)
    monkeypatch.setattr(kernel, "scaled", lambda x, _, dtype: torch.empty_like(x, dtype=dtype))
    with FakeTensorMode():
        x, weight, targets = _inputs(rows, width, vocab, "cuda")
        index = None if kept is None else torch.empty(kept, dtype=torch.int64, device="cuda")
        monkeypatch.setattr(run, "kept_rows", lambda *_: (index, None))
        count = Allocations(x, weight, targets, *([] if index is None else [index]))
        scalars = Scalars(reduction="sum", triton=True)
        with count:
            found = run.forward(x, weight, targets, None, None, scalars, (True, True, False))
            training = count.peak
            assert found.grads is not None and found.grads.x is not None
            held = count.live
            dx = run.spread(run.scaled(found.grads.x, found.loss, BF16, True), index, rows)
            assert found.grads.weight is not None
            dw = run.scaled(found.grads.weight, found.loss, BF16, True)
            backward = count.peak
    n = rows if kept is None else kept
    chunk = chunk_rows(n, width, vocab, 2, "cuda")
    sums = vocab * width * 4 + n * width * 2
    logits = chunk * (vocab + -vocab % 16) * 2
    picked = 0 if kept is None else chunk * (width * 2 + 8)
    assert 0 <= training - (sums + logits + picked) <= 4 * n + 4096  # losses a row, scalars
    assert 0 <= held - sums <= 4 * n + 4096
    assert dx.shape == x.shape and dw.shape == weight.shape
    if sums <= GIB // 2:
        assert max(training, backward) <= GIB
    else:
        assert training <= sums + GIB // 2 + 4 * n + picked


def test_plain_torch_takes_forty_times_as_much() -> None:
    """What is spared: float32 logits, their log-softmax, and the gradients of both."""
    rows, width, vocab = 65_536, 768, 50_304
    with FakeTensorMode():
        x, weight, targets = _inputs(rows, width, vocab, "cpu")
        with Allocations(x, weight, targets) as count:
            loss = F.cross_entropy(F.linear(x, weight).float(), targets)
            held = count.live
            torch.autograd.grad(loss, (x, weight))
    logits = rows * vocab * 4
    assert 0 <= held - logits <= 1 << 20  # the log-softmax waits for the backward
    assert 0 <= count.peak - 3 * logits <= 1 << 20
    assert count.peak > 36 * GIB


def test_scoring_keeps_four_numbers_a_row_and_part() -> None:
    for rows, vocab in ((65_536, 50_304), (65_536, 2_350), (1, 256_000)):
        parts, _ = splits(rows, vocab, fused_config(False))
        assert 16 * parts * rows <= 16 << 20


def test_the_count_follows_what_is_held() -> None:
    with FakeTensorMode():
        given = torch.empty(10)
        with Allocations(given) as count:
            a: Any = given.view(5, 2) + 1
            b = a.t()[1:]
            del a
            assert count.live == 40  # a view holds all of it
            b = b.clone()
            assert (count.live, count.peak) == (20, 60)
            del b
    assert (count.live, count.peak) == (0, 60)
