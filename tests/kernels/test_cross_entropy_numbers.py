"""Linear cross-entropy where numbers, labels, layouts or upstream gradients are awkward.

Our kernels and the torch operations alike, at most twice as far from fp64 as PyTorch's own path.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from support.cross_entropy_cases import (
    OPTIONS,
    Problem,
    compare,
    forced,
    inputs,
    loss_and_grads,
)
from support.numerics import (
    DEVICE,
    assert_same_bits,
    bits,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
    poisoned_memory,
    sized,
)
from torch import Tensor

from kernels import linear_cross_entropy, linear_logprobs
from kernels.cross_entropy import chunks, run

# The kernels divide by the sum of a row that they skip, and throw the quotient away.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")
FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
DTYPES = (FP32, FP16, BF16)
MANY = sized(1, 40)
"""Rows are multiplied by this on a GPU."""
ROUNDED_ALIKE = 1.05
"""Ratio of two errors of which one is not worse: the same roundings of other sums."""
Reduction = Literal["mean", "sum", "none"]


@pytest.fixture(params=["triton", "chunked"], autouse=True)
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each test runs with each implementation, and no other."""
    with forced(request.param):
        yield request.param


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows a chunk."""
    monkeypatch.setattr(chunks, "chunk_rows", lambda rows, *_: min(rows, 3))


# Upstream gradients ------------------------------------------------------------------------------

UPSTREAM: dict[str, Any] = {
    "zeros": torch.zeros,
    "ones": torch.ones,
    "mean": lambda n: torch.full((n,), 1 / n),
    "negative": lambda n: -torch.rand(n) - 0.1,
    "one row": lambda n: F.one_hot(torch.tensor(n - 1), n).float(),
    "twelve orders": lambda n: torch.logspace(-6, 6, n) * torch.tensor([1.0, -1.0]).repeat(n)[:n],
    "expanded": lambda n: torch.tensor(0.3).expand(n),
    "every other": lambda n: torch.randn(2 * n)[::2],
}


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
@pytest.mark.parametrize("options", ["none", "all"])
@pytest.mark.parametrize("kind", UPSTREAM)
def test_upstream_gradient_a_row(
    kind: str, options: str, dtype: torch.dtype, name: str, small_chunks: None
) -> None:
    problem = Problem(8 * MANY, 16, 33, dtype, OPTIONS[options], "none", ignored=(2,))
    *made, _ = inputs(problem)
    upstream = UPSTREAM[kind](problem.rows).to(DEVICE)
    before = upstream.clone()
    _, dx, dw, *_ = compare(problem, (*made, upstream), name)
    assert torch.equal(upstream, before)
    silent = upstream == 0
    silent[2] = True
    assert dx[silent].eq(0).all() and dx[~silent].ne(0).any(1).all()
    assert dw.ne(0).any() == (~silent).any()


@pytest.mark.parametrize("dropped", [True, False], ids=["dropped", "masked"])
def test_upstream_of_an_ignored_row_is_not_read(
    dropped: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch does not read it either; a mask of another loss may leave anything there."""
    if not dropped:
        monkeypatch.setattr(run, "kept_rows", lambda _, ignored: (None, ignored))
    for options in ({}, OPTIONS["all"]):
        problem = Problem(6, 16, 33, FP32, options, "none", ignored=(0, 5))
        made = inputs(problem)
        wanted = loss_and_grads(linear_cross_entropy, problem, made)
        made[4][0], made[4][5] = torch.nan, torch.inf
        for a, b in zip(loss_and_grads(linear_cross_entropy, problem, made), wanted, strict=True):
            assert torch.equal(a, b)


def test_reductions_agree() -> None:
    """Rows weighted by the caller give the gradient that sum and mean give."""
    for dtype, options in itertools.product((FP32, BF16), ({}, OPTIONS["class smoothing"])):
        problem = Problem(9, 16, 33, dtype, options, "none", ignored=(4,))
        *made, _ = inputs(problem)
        total = float((made[3] != -100).sum())
        if options:
            total = float(torch.linspace(0.5, 2, 33)[made[3][made[3] != -100].cpu()].sum())
        for reduction, share in (("sum", 1.0), ("mean", 1 / total)):
            one = torch.ones((), device=DEVICE)
            whole = problem.but(reduction=reduction)
            _, *summed = loss_and_grads(linear_cross_entropy, whole, (*made, one))
            each = torch.full((9,), share, device=DEVICE)
            _, *weighted = loss_and_grads(linear_cross_entropy, problem, (*made, each))
            for a, b in zip(summed, weighted, strict=True):
                loose = {} if dtype == FP32 else {"rtol": 2e-2, "atol": 1e-3}
                torch.testing.assert_close(a, b, **loose)


@pytest.mark.parametrize("wants", [w for w in itertools.product((True, False), repeat=3) if any(w)])
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_only_wanted_gradients(wants: tuple[bool, ...], reduction: Reduction, name: str) -> None:
    problem = Problem(5, 16, 33, FP32, {"bias": True}, reduction, ignored=(2,))
    made = inputs(problem)
    every = loss_and_grads(linear_cross_entropy, problem, made)[1:]
    leaves = [y.detach().requires_grad_(want) for y, want in zip(made[:3], wants, strict=True)]
    loss = linear_cross_entropy(*leaves[:2], made[3], bias=leaves[2], reduction=reduction)
    loss.backward(made[4])
    for leaf, want, grad in zip(leaves, wants, every, strict=True):
        assert torch.equal(leaf.grad, grad) if want else leaf.grad is None


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_backward_twice(reduction: Reduction) -> None:
    x, weight, _, targets, upstream = inputs(Problem(5, 16, 33, BF16, {}, reduction))
    leaves = (x.requires_grad_(), weight.requires_grad_())
    loss = linear_cross_entropy(*leaves, targets, reduction=reduction)
    first = torch.autograd.grad(loss, leaves, upstream, retain_graph=True)
    kept = [y.clone() for y in first]
    for y in first:
        y.zero_()  # whoever gets a gradient may change it
    for a, b in zip(kept, torch.autograd.grad(loss, leaves, upstream), strict=True):
        assert torch.equal(a, b)


# Labels and logits -------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
def test_everything_ignored(dtype: torch.dtype, reduction: str) -> None:
    problem = Problem(4, 16, 33, dtype, OPTIONS["all"], reduction, ignored=(0, 1, 2, 3))
    for found in loss_and_grads(linear_cross_entropy, problem, inputs(problem)):
        assert found.eq(0).all()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
def test_one_row_and_none(dtype: torch.dtype, reduction: str, name: str) -> None:
    compare(Problem(1, 16, 33, dtype, {}, reduction), name=name)
    compare(Problem(5, 16, 33, dtype, {}, reduction, ignored=(0, 1, 3, 4)), name=name)
    problem = Problem(0, 16, 33, dtype, OPTIONS["all"], reduction)
    loss, dx, dw, db = loss_and_grads(linear_cross_entropy, problem, inputs(problem))
    assert loss.sum() == 0 and dx.shape == (0, 16) and dw.eq(0).all() and db.eq(0).all()


@pytest.mark.parametrize("offset", [1000.0, -1000.0, 60_000.0])
@pytest.mark.parametrize("options", ["none", "smoothing", "class smoothing"])
def test_common_offset_of_logits(options: str, offset: float, name: str) -> None:
    """x's last column is one, the weight's is the offset: it is in every logit."""
    problem = Problem(5 * MANY, 17, 700, FP32, OPTIONS[options])
    x, weight, bias, targets, upstream = inputs(problem)
    x[:, -1], weight[:, -1] = 1.0, offset
    loss, *_ = compare(problem, (x, weight, bias, targets, upstream), name)
    assert loss.abs().max() < 20


def test_confident_rows(name: str) -> None:
    """Shares of all but one word underflow; z-loss still has something to say."""
    for dtype in DTYPES:
        compare(Problem(5, 16, 40, dtype, {"z_loss": 0.1}, spread=200.0), name=name)
        compare(Problem(5, 16, 40, dtype, {"label_smoothing": 0.1}, spread=200.0), name=name)


def test_equal_labels_and_equal_logits(name: str) -> None:
    for dtype in DTYPES:
        problem = Problem(6 * MANY, 16, 33, dtype)
        x, weight, bias, targets, upstream = inputs(problem)
        compare(problem, (x, weight, bias, targets.clamp(max=0), upstream), name)
        same = weight[:1].expand_as(weight).contiguous()
        loss, *_ = compare(problem, (x, same, bias, targets, upstream), name)
        torch.testing.assert_close(loss, torch.full_like(loss, 33).log())


@pytest.mark.parametrize("vocab", [1, 2, 31, 257, 2350])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_vocabulary(vocab: int, dtype: torch.dtype, name: str) -> None:
    """No multiple of anything; a single word has loss 0."""
    loss, *_ = compare(Problem(6 * MANY, 24, vocab, dtype, ignored=(1,)), name=name)
    assert vocab > 1 or loss.eq(0).all()


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
def test_weight_tied_to_an_embedding(dtype: torch.dtype) -> None:
    """Both uses add to one gradient."""
    weight = torch.randn(33, 16, device=DEVICE).to(dtype).requires_grad_()
    tokens = torch.arange(9, device=DEVICE)
    loss = linear_cross_entropy(weight[tokens], weight, tokens + 1)
    (got,) = torch.autograd.grad(loss, weight)
    grads = []
    for wide in (dtype, torch.float64):
        tied = weight.detach().to(wide).requires_grad_()
        plain = F.cross_entropy(
            (tied[tokens] @ tied.T).to(torch.promote_types(wide, FP32)), tokens + 1
        )
        grads.append(torch.autograd.grad(plain, tied)[0])
    path, exact = grads
    unit = torch.finfo(dtype).eps * float(exact.abs().max())
    assert (got - exact).abs().max() <= 2 * (path - exact).abs().max() + unit


@pytest.mark.parametrize("dtype", [FP16, BF16], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_weight_gradient_of_many_rows(
    dtype: torch.dtype, reduction: Reduction, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Added up in float32 over chunks and rounded once: no worse than PyTorch's one product."""
    rows = sized(512 if name == "triton" else 65_536, 65_536)
    monkeypatch.setattr(chunks, "chunk_rows", lambda n, *_: min(n, rows // 16))
    got, plain, exact = _weight_gradients(rows, 16, 24, dtype, reduction)
    assert got.dtype == dtype
    assert (got - exact).norm() <= ROUNDED_ALIKE * (plain - exact).norm()


@pytest.mark.gpu
@pytest.mark.parametrize(("width", "vocab"), [(768, 50_304), (256, 50_304), (256, 2_350)])
def test_weight_gradient_at_full_size(width: int, vocab: int) -> None:
    got, plain, exact = _weight_gradients(65_536, width, vocab, BF16, "mean")
    assert (got - exact).norm() <= ROUNDED_ALIKE * (plain - exact).norm()


def _weight_gradients(
    rows: int, width: int, vocab: int, dtype: torch.dtype, reduction: Reduction
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dW of the mean: ours, PyTorch's added up in float32 and rounded once, exact."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    x = torch.randn(rows, width, generator=generator, device=DEVICE).to(dtype)
    weight = torch.randn(vocab, width, generator=generator, device=DEVICE) * 4 * width**-0.5 + 1
    weight = weight.to(dtype).requires_grad_()
    targets = torch.randint(vocab, (rows,), generator=generator, device=DEVICE)
    loss = linear_cross_entropy(x, weight, targets, reduction=reduction)
    upstream = torch.full_like(loss, 1.0 if reduction == "mean" else 1 / rows)
    (got,) = torch.autograd.grad(loss, weight, upstream)
    sums = torch.zeros(vocab, width, device=DEVICE), torch.zeros_like(weight, dtype=torch.float64)
    for part in torch.arange(rows, device=DEVICE).split(4096):
        for wide, total in zip((dtype, torch.float64), sums, strict=True):
            own = x[part].to(wide)
            logits = F.linear(own, weight.detach().to(wide))
            logits = logits.to(torch.promote_types(wide, FP32)).requires_grad_()
            each = F.cross_entropy(logits, targets[part], reduction="sum")
            (dlogits,) = torch.autograd.grad(each, logits)
            total += dlogits.to(wide).to(total.dtype).T @ own.to(total.dtype)
    return got, (sums[0] / rows).to(dtype), sums[1] / rows


# Memory ------------------------------------------------------------------------------------------


def _views(dtype: torch.dtype) -> dict[str, Any]:
    """Ways in which callers happen to lay out a matrix."""

    def inside(x: Tensor) -> Tensor:
        block = torch.full((x.shape[0] + 3, x.shape[1] + 5), torch.nan, dtype=dtype, device=DEVICE)
        return block[2:-1, 3:-2].copy_(x)

    def misaligned(x: Tensor) -> Tensor:
        flat = torch.full((x.numel() + 1,), torch.nan, dtype=dtype, device=DEVICE)
        return flat[1:].view(x.shape).copy_(x)

    def every_other(x: Tensor) -> Tensor:
        wide = torch.full((x.shape[0], 2 * x.shape[1]), torch.nan, dtype=dtype, device=DEVICE)
        return wide[:, ::2].copy_(x)

    return {
        "inside": inside,
        "misaligned": misaligned,
        "every_other": every_other,
        "transposed": lambda x: x.t().contiguous().t(),
        "expanded": lambda x: x[:1].expand_as(x),
    }


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
@pytest.mark.parametrize("view", ["inside", "misaligned", "every_other", "transposed", "expanded"])
def test_views(view: str, dtype: torch.dtype, name: str) -> None:
    problem = Problem(5, 16, 33, dtype, OPTIONS["all"], ignored=(1,))
    x, weight, bias, targets, upstream = inputs(problem)
    move = _views(dtype)[view]
    targets = torch.stack((targets, targets), 1)[:, 0]
    bias = torch.stack((bias, bias), 1)[:, 0]
    upstream = upstream[:1].expand(5)
    compare(problem, (move(x), weight, bias, targets, upstream), name)
    compare(problem.but(options={}), (x, move(weight), bias, targets, upstream), name)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_poisoned_memory(dtype: torch.dtype, reduction: str, name: str, small_chunks: None) -> None:
    with poisoned_memory():
        compare(Problem(7, 16, 33, dtype, OPTIONS["all"], reduction, ignored=(1,)), name=name)
        compare(Problem(7, 16, 33, dtype), name=name)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_same_bits_every_time(reduction: str) -> None:
    problem = Problem(5 * MANY, 16, 600, BF16, OPTIONS["all"], reduction)
    made = inputs(problem)
    assert_same_bits(lambda: loss_and_grads(linear_cross_entropy, problem, made), sized(2, 100))
    assert_same_bits(lambda: [linear_logprobs(made[0], made[1], made[3])], sized(2, 100))


def test_autocast_changes_nothing() -> None:
    problem = Problem(5, 16, 33, FP32, OPTIONS["all"], "none")
    made = inputs(problem)
    plain = loss_and_grads(linear_cross_entropy, problem, made)
    with torch.autocast(DEVICE.type, dtype=BF16):
        cast = loss_and_grads(linear_cross_entropy, problem, made)
    for a, b in zip(plain, cast, strict=True):
        assert torch.equal(bits(a), bits(b))
