"""Triton cross-entropy against fp64: rows in chunks, the fused forward, every option."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from support.cross_entropy_cases import (
    OPTIONS,
    Problem,
    compare,
    forced,
    inputs,
    options_of,
    torch_path,
)
from support.numerics import (
    DEVICE,
    assert_error_at_most_twice,
    bits,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
    sized,
)

from kernels import linear_cross_entropy, linear_logprobs
from kernels.cross_entropy import chunks, run
from kernels.cross_entropy.chunks import kept_rows
from kernels.cross_entropy.fused import refuse_fused
from kernels.cross_entropy.kernel import row_step, scaled
from kernels.cross_entropy.table import fused_config, row_frozen, splits
from kernels.reference import linear_cross_entropy_reference

# The kernels divide by the sum of a row that they skip, and throw the quotient away.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")
FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
DTYPES = (FP32, FP16, BF16)
MANY = sized(1, 40)
"""Rows are multiplied by this on a GPU."""


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows a chunk."""
    monkeypatch.setattr(chunks, "chunk_rows", lambda rows, *_: min(rows, 3))


@pytest.fixture
def nothing_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows without loss are computed and left out, as while a CUDA graph is captured."""
    monkeypatch.setattr(run, "kept_rows", lambda _, ignored: (None, ignored))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS)
def test_every_option(options: str, dtype: torch.dtype, reduction: str) -> None:
    rows = 7 * MANY
    compare(Problem(rows, 16, 33, dtype, OPTIONS[options], reduction, ignored=(0, 4)))


@pytest.mark.parametrize(
    "options",
    [
        dict(itertools.chain.from_iterable(OPTIONS[name].items() for name in names))
        for names in itertools.combinations(("bias", "softcap", "z_loss", "class smoothing"), 2)
    ],
    ids=str,
)
def test_products_of_options(options: dict[str, Any]) -> None:
    compare(Problem(5 * MANY, 32, 70, BF16, options))
    compare(Problem(5 * MANY, 32, 70, FP32, options, "mean", (1, 2)))


@pytest.mark.parametrize("vocab", [1, 2, 31, 511, 512, 513, 2350, 5000, 16_385, 50_257])
@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
def test_vocabularies(vocab: int, dtype: torch.dtype) -> None:
    rows = 8 if vocab < 3000 else sized(2, 80)
    compare(Problem(rows, 16, vocab, dtype, {"label_smoothing": 0.1, "bias": True}))
    if vocab < 20_000 or sized(False, True):
        compare(Problem(rows, 16, vocab, dtype))


def test_every_row_of_the_table_is_among_those() -> None:
    assert {most for most, _ in row_frozen()} == {4_096, 16_384, 1 << 31}


@pytest.mark.parametrize("rows", [1, 31, 129])
@pytest.mark.parametrize(("width", "vocab"), [(16, 1), (48, 129), (64, 700), (208, 130)])
def test_fused_shapes(rows: int, width: int, vocab: int) -> None:
    """Tiles of 128 x 128 x 64: ends of rows, columns and depth; several parts of a vocabulary."""
    problem = Problem(rows, width, vocab, BF16)
    x, weight, _, targets, _ = inputs(problem)
    assert refuse_fused(_as_problem(x, weight, targets)) is None
    compare_forward(problem)
    compare_forward(
        problem.but(dtype=FP16, options=OPTIONS["all"], ignored=tuple(range(0, rows, 3)))
    )


def test_fused_parts_cover_the_vocabulary() -> None:
    config = fused_config(False)
    for rows, vocab in itertools.product((1, 100, 5_000, 65_536), (1, 128, 2_350, 50_304, 256_000)):
        parts, each = splits(rows, vocab, config)
        tiles = -(-vocab // config.columns)
        assert (parts - 1) * each < tiles <= parts * each and parts <= 128
    assert splits(65_536, 50_304, config)[0] == 8


def _as_problem(x: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> Any:
    options = chunks.Options()
    return chunks.Problem(x, weight, targets, None, None, None, options)


def compare_forward(problem: Problem) -> None:
    """Compare losses alone, which on a large problem saves the interpreter the rest."""
    x, weight, bias, targets, _ = inputs(problem)
    wide = [y.double() for y in (x, weight, bias)]
    exact = linear_cross_entropy_reference(
        *wide[:2], targets, **options_of(problem, wide[2], torch.float64)
    )
    path = torch_path(x, weight, targets, **options_of(problem, bias, FP32))
    with forced("triton"), torch.no_grad():
        ours = linear_cross_entropy(x, weight, targets, **options_of(problem, bias, FP32))
    assert_error_at_most_twice("loss alone", ours, path, exact, terms=1.0)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_chunks(dtype: torch.dtype, reduction: str, small_chunks: None) -> None:
    compare(Problem(11, 16, 33, dtype, OPTIONS["all"], reduction, ignored=(3, 9)))
    compare(Problem(11, 16, 33, dtype, {}, reduction))


def test_rows_do_not_depend_on_each_other() -> None:
    """Whatever program takes a row, and with whatever others: the same bits."""
    logits = torch.randn(300, 48, device=DEVICE)
    targets = torch.arange(300, device=DEVICE) % 40
    options = chunks.Options(z_loss=0.1, smoothing=0.1)
    ways = []
    for count in (300, 1, 7):
        out, losses = logits.clone(), torch.empty(300, device=DEVICE)
        for first in range(0, 300 if count == 300 else 21, count):
            rows = slice(first, first + count)
            row_step(
                out[rows, :40], targets[rows], None, None, None, None, losses[rows], options, True
            )
        ways.append((out[:21, :40], losses[:21]))
    for out, losses in ways[1:]:
        assert torch.equal(out, ways[0][0]) and torch.equal(losses, ways[0][1])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("options", OPTIONS)
def test_rows_left_out_while_computing(options: str, reduction: str, nothing_dropped: None) -> None:
    for dtype in (FP32, BF16):
        compare(Problem(6, 16, 33, dtype, OPTIONS[options], reduction, ignored=(0, 5)))


@pytest.mark.parametrize("dtype", [FP16, BF16], ids=str)
def test_common_offset_in_the_fused_forward(dtype: torch.dtype) -> None:
    """Its logits are float32: as exact as float32 logits of the same inputs."""
    x, weight, _, targets, _ = inputs(Problem(5, 32, 70, dtype))
    x[:, -1], weight[:, -1] = 1.0, 1024.0
    logits = x.double() @ weight.double().T
    want = torch.log_softmax(logits, -1).gather(1, targets[:, None]).squeeze(1)
    with forced("triton"):
        got = linear_logprobs(x, weight, targets)
    assert (got - want).abs().max() < 4 * 1024 * torch.finfo(FP32).eps


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
def test_target_out_of_range_is_seen(dtype: torch.dtype) -> None:
    """A wrong index must not pass for a loss. 2**32 would be 0 in 32 bits."""
    x, weight, _, _, _ = inputs(Problem(4, 16, 33, dtype))
    targets = torch.tensor([33, -1, 2**32, 1], device=DEVICE)
    for graded in (True, False):
        with forced("triton"):
            loss = linear_cross_entropy(
                x.requires_grad_(graded), weight, targets, reduction="none", ignore_index=None
            )
        assert loss.isnan().tolist() == [True, True, True, False]
        assert linear_cross_entropy(x, weight, targets[3:].expand(4)).isfinite()


def test_rows_further_apart_than_32_bits_count() -> None:
    """Memory that is never touched costs nothing: 17 rows in 4.6 GB."""
    hop = 1 << 27
    x, weight, _, targets, _ = inputs(Problem(17, 16, 33, BF16))
    far = torch.empty(16 * hop + 16, dtype=BF16, device=DEVICE).as_strided((17, 16), (hop, 1))
    far.copy_(x)
    with forced("triton"):
        assert torch.equal(
            linear_logprobs(far, weight, targets), linear_logprobs(x, weight, targets)
        )
        wide = torch.empty(16 * hop + 16, dtype=BF16, device=DEVICE)
        wide = wide.as_strided((17, 16), (hop, 1)).copy_(weight[:17])
        few = targets % 17
        assert torch.equal(linear_logprobs(x, wide, few), linear_logprobs(x, weight[:17], few))


def test_scaled_rounds_once_and_keeps_zeros() -> None:
    source = torch.tensor([0.0, 1.0, -3.0], device=DEVICE)
    factor = torch.tensor(-1 / 3, device=DEVICE)
    got = scaled(source, factor, BF16)
    assert torch.equal(bits(got), bits(torch.tensor([0.0, -1 / 3, 1.0], device=DEVICE).to(BF16)))
    assert scaled(source[:0], factor, FP32).shape == (0,)


def test_kept_rows() -> None:
    targets = torch.tensor([3, -100, 5], device=DEVICE)
    kept, ignored = kept_rows(targets, -100)
    assert kept is not None and kept.tolist() == [0, 2] and ignored is None
    assert kept_rows(targets, 7) == (None, None) and kept_rows(targets, None) == (None, None)
