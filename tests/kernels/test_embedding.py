"""The embedding table and its gradient against fp64, for words that come once and all the time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import interpreter
from support.cuda_graphs import assert_nothing_waits_and_a_graph_holds
from support.numerics import (
    DEVICE,
    ON_GPU,
    assert_error_at_most_twice,
    assert_same_bits,
    bits,
    guarded_memory,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
    poisoned_memory,
    sized,
)
from support.row_ops import ROW_VIEWS, backend, compare, draw, run
from support.words import zipf
from torch import Tensor

from kernels.embedding import embedding_triton
from kernels.embedding.public import add_embedding_grad, embedding
from kernels.reference import embedding_reference

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
CHUNK = embedding_triton.config(64, 4).chunk
MANY = sized(3 * CHUNK + 5, 65_536)


IDS: dict[str, Callable[[], Tensor]] = {
    "one": lambda: torch.tensor([3], device=DEVICE),
    "each once": lambda: torch.randperm(9, generator=torch.Generator().manual_seed(1)).to(DEVICE),
    "text": lambda: zipf(MANY, 9),
    "one word": lambda: torch.full((MANY,), 4, device=DEVICE),
    "first and last": lambda: torch.tensor([0, 8], device=DEVICE).repeat(MANY // 2),
    "ends with its chunk": lambda: torch.arange(3, device=DEVICE).repeat_interleave(CHUNK),
    "begins before its chunk's end": lambda: torch.tensor([1, 2], device=DEVICE).repeat_interleave(
        torch.tensor([CHUNK - 1, 2 * CHUNK + 1], device=DEVICE)
    ),
}


def call(weight: Tensor, ids: Tensor, padding_idx: int | None = None) -> Tensor:
    return embedding(ids, weight, padding_idx=padding_idx)


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("dtype", [FP32, FP16, BF16], ids=str)
def test_gradient(kind: str, dtype: torch.dtype) -> None:
    ids = IDS[kind]()
    terms = float(ids.bincount().max()) ** 0.5
    compare("embedding", call, [draw(9, 40, dtype=dtype)], [ids], terms=terms)


@pytest.mark.parametrize("columns", [1, 8, 100, 255, 256, 300, 768])
@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
def test_widths(columns: int, dtype: torch.dtype) -> None:
    ids = zipf(sized(CHUNK + 3, 4096), 7)
    compare("embedding", call, [draw(7, columns, dtype=dtype)], [ids], terms=8.0)


@pytest.mark.parametrize("padding", [0, 2, -1])
@pytest.mark.parametrize("kind", ["text", "one word", "first and last"])
def test_padding_has_no_gradient(kind: str, padding: int) -> None:
    call_padded = partial(call, padding_idx=padding)
    _, grad = compare("embedding", call_padded, [draw(9, 24)], [IDS[kind]()], terms=8.0)
    assert not grad[padding].any()


def test_rows_of_padding_are_not_read() -> None:
    """NaN there changes nothing."""
    ids = IDS["text"]()
    grad = draw(MANY, 24)
    want = embedding_triton.backward(grad, ids, 9, 0)
    grad[ids == 0] = float("nan")
    assert torch.equal(embedding_triton.backward(grad, ids, 9, 0), want)


@pytest.mark.parametrize("shape", [(), (6,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_any_shape_of_ids(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    ids = torch.randint(0, 9, shape, generator=torch.Generator().manual_seed(0)).to(DEVICE, dtype)
    out, _ = compare("embedding", call, [draw(9, 24)], [ids], terms=3.0)
    assert out.shape == (*shape, 24)


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
@pytest.mark.parametrize("name", ["triton", "eager"])
def test_no_ids(shape: tuple[int, ...], name: str) -> None:
    ids = torch.zeros(shape, dtype=torch.int64, device=DEVICE)
    out, grad = run("embedding", name, call, [draw(9, 24)], [ids])
    assert out.shape == (*shape, 24) and grad.shape == (9, 24) and not grad.any()
    into = draw(9, 24)
    before = into.clone()
    with backend("add_embedding_grad", name):
        assert add_embedding_grad(out, ids, into) is into
    assert torch.equal(into, before)


@pytest.mark.parametrize("view", ROW_VIEWS)
@pytest.mark.parametrize("columns", [40, 255])
def test_any_layout_of_the_gradient(view: str, columns: int) -> None:
    grad, ids = draw(MANY, columns, dtype=BF16), IDS["text"]()
    plain = embedding_triton.backward(grad, ids, 9, -1)
    moved = embedding_triton.backward(ROW_VIEWS[view](grad), ids, 9, -1)
    assert torch.equal(bits(moved), bits(plain))


def test_expanded_gradient_and_strided_ids() -> None:
    weight, ids = draw(9, 24).requires_grad_(), zipf(2 * MANY, 9)[::2]
    with backend("embedding", "triton"):
        (grad,) = torch.autograd.grad(embedding(ids, weight).sum(), weight)
    assert torch.equal(grad, ids.bincount(minlength=9).float()[:, None].expand(9, 24))


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize(
    ("dtype", "into"), [(FP32, FP32), (FP16, FP16), (BF16, BF16), (BF16, FP32)], ids=str
)
@pytest.mark.parametrize("padding", [None, 4])
def test_added_to_a_gradient(
    kind: str, dtype: torch.dtype, into: torch.dtype, padding: int | None
) -> None:
    ids = IDS[kind]()
    grad, before = draw(*ids.shape, 40, dtype=dtype, seed=1), draw(9, 40, dtype=into, seed=2)
    added = {}
    for name in ("triton", "eager"):
        with backend("add_embedding_grad", name):
            added[name] = add_embedding_grad(grad, ids, before.clone(), padding_idx=padding)
    leaf = torch.zeros(9, 40, dtype=torch.float64, device=DEVICE, requires_grad=True)
    (sums,) = torch.autograd.grad(embedding_reference(ids, leaf, padding), leaf, grad.double())
    terms = float(ids.bincount().max()) ** 0.5
    assert_error_at_most_twice(
        kind, added["triton"], added["eager"], before.double() + sums, terms=terms
    )
    if padding is not None:
        assert all(torch.equal(x[padding], before[padding]) for x in added.values())


def test_added_to_rows_apart() -> None:
    """The gradient may be a view; what lies between its columns stays."""
    ids, grad = IDS["text"](), draw(MANY, 24)
    block = draw(9, 30)
    want, kept = block[:, 3:27].clone(), block.clone()
    with backend("add_embedding_grad", "triton"):
        add_embedding_grad(grad, ids, want)
        add_embedding_grad(grad, ids, block[:, 3:27])
    assert torch.equal(block[:, 3:27], want)
    assert torch.equal(block[:, :3], kept[:, :3]) and torch.equal(block[:, 27:], kept[:, 27:])


def test_a_tied_weight() -> None:
    """As in the docstring: output layer's gradient first, the embedding's added to it."""
    ids, weight = IDS["text"](), draw(9, 24)
    targets = ids.roll(1)

    def loss(x: Tensor, table: Tensor) -> Tensor:
        return F.cross_entropy(x.tanh() @ table.T, targets)

    both = weight.double().requires_grad_()
    (want,) = torch.autograd.grad(loss(F.embedding(ids, both), both), both)
    tied = weight.clone().requires_grad_()
    with backend("embedding", "triton"), backend("add_embedding_grad", "triton"):
        x = embedding(ids, tied.detach()).requires_grad_()
        loss(x, tied).backward()
        assert x.grad is not None and tied.grad is not None
        add_embedding_grad(x.grad, ids, tied.grad)
    torch.testing.assert_close(tied.grad.double(), want, rtol=1e-5, atol=1e-6)


def test_long_runs_are_cut() -> None:
    """A word with every row: as many programs as any other order, each with one chunk."""
    seen: dict[str, tuple[int, ...]] = {}

    def recorded(kernel: Any, grid: tuple[int, ...], *rest: Any, **options: Any) -> None:
        seen[kernel.__name__] = grid

    patch = pytest.MonkeyPatch()
    patch.setattr(embedding_triton, "launch", recorded)
    grad = torch.empty(65_536, 768, dtype=BF16, device=DEVICE)
    for ids in (torch.zeros(65_536, device=DEVICE).long(), torch.arange(65_536, device=DEVICE)):
        embedding_triton.backward(grad, ids, 65_536, -1)
        assert seen == {"embedding_sum_kernel": (2048, 3), "embedding_merge_kernel": (2047, 6)}
    patch.undo()


@pytest.mark.parametrize("kind", ["text", "one word"])
@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
def test_same_bits_whatever_the_memory_holds(kind: str, dtype: torch.dtype) -> None:
    ids, weight = IDS[kind](), draw(9, 40, dtype=dtype)
    once = partial(run, "embedding", "triton", call, [weight], [ids])
    first = [bits(x).clone() for x in once()]
    assert_same_bits(once, sized(2, 100))
    with poisoned_memory():
        assert all(torch.equal(bits(a), b) for a, b in zip(once(), first, strict=True))
    with guarded_memory():
        found = once()
    assert all(torch.equal(bits(a), b) for a, b in zip(found, first, strict=True))


@pytest.mark.skipif(ON_GPU, reason="single programs, in the interpreter")
def test_more_than_2_to_the_31_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last chunk and the last word, on memory of which only the touched pages exist."""
    columns = 256
    rows = words = (1 << 31) // columns + CHUNK
    rows -= rows % CHUNK
    assert (words - 1) * columns > 1 << 31

    def sampled(kernel: Any, grid: tuple[int, ...], of: Tensor, *args: Any, **options: Any) -> None:
        options = {k: v for k, v in options.items() if k != "num_warps"}
        if kernel is embedding_triton.embedding_sum_kernel:
            interpreter.run_programs(kernel, grid[0], [grid[0] - 1], args, options)

    def of_the_last(ids: Tensor, stable: bool) -> tuple[Tensor, Tensor]:
        return ids, torch.arange(rows)

    monkeypatch.setattr(embedding_triton, "launch", sampled)
    monkeypatch.setattr(torch, "sort", of_the_last)
    monkeypatch.setattr(
        embedding_triton, "config", lambda *_: embedding_triton.Config(256, 8, 4, 1)
    )
    ids = torch.zeros(rows, dtype=torch.int32)
    ids[-3:] = torch.tensor([words - 2, words - 1, words - 1])
    grad = torch.empty(rows, columns, dtype=FP16)
    grad[-3:] = draw(3, columns, dtype=FP16)
    out = embedding_triton.backward(grad, ids, words, -1)
    assert torch.equal(out[-2], grad[-3])
    assert torch.equal(out[-1], (grad[-2].float() + grad[-1].float()).half())


# On a GPU only.


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["text", "one word"])
def test_nothing_waits_for_the_gpu_and_a_graph_holds_it(kind: str) -> None:
    ids, weight = IDS[kind](), draw(9, 768, dtype=BF16).requires_grad_()
    up, into = draw(*ids.shape, 768, dtype=BF16), draw(9, 768, dtype=BF16)

    def step() -> list[Tensor]:
        out = embedding(ids, weight)
        (grad,) = torch.autograd.grad(out, weight, up)
        return [out, grad, add_embedding_grad(up, ids, into.clone())]

    def change() -> None:
        ids.copy_(ids.flip(0))
        up.neg_()

    assert_nothing_waits_and_a_graph_holds(step, change)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["text", "one word"])
def test_full_size(kind: str) -> None:
    """65,536 rows of 768, 50,304 words, against PyTorch's own in fp64."""
    words = 50_304
    ids = zipf(65_536, words) if kind == "text" else torch.full((65_536,), 7, device=DEVICE)
    grad = draw(65_536, 768, dtype=BF16)
    dense = torch.ops.aten.embedding_dense_backward
    ours, path = embedding_triton.backward(grad, ids, words, -1), dense(grad, ids, words, -1, False)
    exact = dense(grad.double(), ids, words, -1, False)
    assert_error_at_most_twice(kind, ours, path, exact, terms=256.0)


@pytest.mark.gpu
def test_added_without_a_second_table() -> None:
    from support.numerics import peak_memory

    ids, grad = zipf(4096, 50_304), draw(4096, 768, dtype=BF16)
    into = torch.zeros(50_304, 768, dtype=BF16, device=DEVICE)
    add_embedding_grad(grad, ids, into)
    assert peak_memory(lambda: add_embedding_grad(grad, ids, into)) < into.nbytes // 10
