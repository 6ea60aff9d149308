"""The eager path's own promises: its blocks, its hand-written gradient, its threads and memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.attention_cases import BRANCHED, FORMS, mask_of
from support.masks import packed
from support.numerics import (
    VIEWS,
    assert_error_at_most_twice,
    assert_same_bits,
    poisoned_memory,
)
from torch import Tensor

from kernels import attention_blocks, attention_eager, layout
from kernels.attention_eager import attention_padded
from kernels.intervals import Intervals
from kernels.reference import attention_reference

ALL_FORMS = (*FORMS, *BRANCHED)
# Several blocks of queries, several buckets, padding, empty and one-token documents.
LENGTHS = [7, 1, 0, 200, 3, 150, 12, 190, 30]
HARD: dict[str, Any] = {"scale": 0.3, "softcap": 1.5, "dropout": 0.3}
SEED = 0x1234_5678_9ABC


@pytest.fixture
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _inputs(
    total: int, heads: int = 4, kv: int = 2, dim: int = 8, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """q, k, v that want gradients, and an upstream gradient."""
    generator = torch.Generator().manual_seed(total * 31 + heads)
    made = [
        torch.randn(total, h, dim, generator=generator, dtype=torch.float64).to(dtype)
        for h in (heads, kv, kv, heads)
    ]
    return [*(x.requires_grad_() for x in made[:3]), made[3]]


def _run(inputs: list[Tensor], mask: Intervals, **options: Any) -> list[Tensor]:
    """out, lse and the gradients of q, k and v."""
    options = {"scale": inputs[0].shape[2] ** -0.5, "softcap": None, "dropout": 0.0} | options
    seed = torch.tensor([SEED]) if options["dropout"] else None
    q, k, v, upstream = inputs
    out, lse = attention_padded(
        q, k, v, mask, seed=seed, deterministic=True, return_lse=True, **options
    )
    assert lse is not None and lse.dtype == torch.float32 and not lse.requires_grad
    return [out.detach(), lse, *torch.autograd.grad(out, (q, k, v), upstream)]


def _reference(inputs: list[Tensor], mask: Intervals, **options: Any) -> list[Tensor]:
    q, k, v, upstream = inputs
    out, lse = attention_reference(q, k, v, mask, seed=SEED, return_lse=True, **options)
    return [out.detach(), lse, *torch.autograd.grad(out, (q, k, v), upstream)]


def _assert_equal(inputs: list[Tensor], mask: Intervals, **options: Any) -> None:
    for got, want in zip(
        _run(inputs, mask, **options), _reference(inputs, mask, **options), strict=True
    ):
        if got.dtype == torch.float64:
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)
        else:
            torch.testing.assert_close(got, want)  # the log-sum-exp


# Values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"softcap": 1.5}, {"dropout": 0.3}, HARD], ids=str)
@pytest.mark.parametrize("form", ALL_FORMS)
def test_equals_reference(form: str, options: dict[str, Any]) -> None:
    _assert_equal(_inputs(sum(LENGTHS)), mask_of(LENGTHS, form), **options)


@pytest.mark.parametrize("dim", [8, 16, 40, 80, 128])  # either side of D_FIRST
@pytest.mark.parametrize(("heads", "kv"), [(6, 6), (6, 3), (5, 1)])
def test_heads_and_dimensions(heads: int, kv: int, dim: int) -> None:
    _assert_equal(_inputs(170, heads, kv, dim), mask_of([100, 70], "prefix"), dropout=0.2)


@pytest.mark.parametrize("scores", [1, 3_000, 40_000])
def test_any_cut_into_pieces_is_the_same_attention(
    scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One document and one head at a time; some heads of a document; some documents at a time.
    monkeypatch.setattr(attention_blocks, "SCORES", scores)
    for form in ("causal", "prefix", "prefix_branches"):
        _assert_equal(_inputs(sum(LENGTHS)), mask_of(LENGTHS, form), **HARD)


@settings(max_examples=40, deadline=None)
@given(packed(max_length=40), st.sampled_from([(2, 1), (4, 2), (3, 3)]), st.booleans())
def test_any_documents(
    case: tuple[list[int], dict[str, Any]], heads: tuple[int, int], hard: bool
) -> None:
    lengths, form = case
    if sum(lengths):
        _assert_equal(_inputs(sum(lengths), *heads), mask_of(lengths, form), **HARD if hard else {})


@pytest.mark.parametrize("form", ALL_FORMS)
def test_gradcheck_of_the_reference(form: str) -> None:
    mask, (q, k, v, _) = mask_of([3, 1, 0, 3], form), _inputs(7, 2, 1)
    assert torch.autograd.gradcheck(
        lambda q, k, v: attention_reference(q, k, v, mask, seed=SEED, **HARD), (q, k, v)
    )


@pytest.mark.parametrize("form", ["prefix", "branches"])  # others: by equality with the reference
def test_gradcheck(form: str) -> None:
    mask, (q, k, v, _) = mask_of([3, 1, 0, 3], form), _inputs(7, 2, 1)
    options = {**HARD, "deterministic": True, "return_lse": False}
    assert torch.autograd.gradcheck(
        lambda q, k, v: attention_padded(q, k, v, mask, seed=torch.tensor([SEED]), **options)[0],
        (q, k, v),
    )


@pytest.mark.parametrize("options", [{}, HARD], ids=["plain", "hard"])
@pytest.mark.parametrize("form", ["causal", "prefix", "branches"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_error_is_at_most_twice_that_of_the_dense_path(
    dtype: torch.dtype, form: str, options: dict[str, Any]
) -> None:
    lengths = [33, 12, 150, 60]
    mask, inputs = mask_of(lengths, form), _inputs(sum(lengths), 4, 2, 32, dtype)
    ours, path = _run(inputs, mask, **options), _reference(inputs, mask, **options)
    exact = _reference([x.detach().double().requires_grad_() for x in inputs], mask, **options)
    # The log-sum-exp is float32 whatever the dtype.
    path[1] = _reference([x.detach().float().requires_grad_() for x in inputs], mask, **options)[1]
    for name, a, b, c in zip(("out", "lse", "dq", "dk", "dv"), ours, path, exact, strict=True):
        assert_error_at_most_twice(name, a, b, c.double(), terms=float(c.abs().max()))


def test_scores_of_any_size() -> None:
    inputs = _inputs(90, dtype=torch.float32)
    with torch.no_grad():
        inputs[0] *= 1e4
    mask = mask_of([60, 30], "causal")
    got, want = _run(inputs, mask), _reference(inputs, mask)
    assert all(torch.isfinite(x).all() for x in got)
    torch.testing.assert_close(got[0], want[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("view", VIEWS)
def test_views(view: str) -> None:
    inputs = _inputs(sum(LENGTHS), dtype=torch.float32)
    mask = mask_of(LENGTHS, "prefix")
    views = [VIEWS[view](x.detach()).requires_grad_() for x in inputs]
    for got, want in zip(_run(views, mask, **HARD), _run(inputs, mask, **HARD), strict=True):
        assert torch.equal(got, want)


# What is never read ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["causal", "full", "prefix", "window"])
@pytest.mark.parametrize("length", [30, 100])  # in one bucket with the others and alone
def test_no_document_reads_another_not_even_its_nan(form: str, length: int) -> None:
    lengths = [length, 31, 29, 0, 1]
    clean, sick = (
        _inputs(sum(lengths), dtype=torch.float32),
        _inputs(sum(lengths), dtype=torch.float32),
    )
    with torch.no_grad():
        for x in sick:
            x[:length] = float("nan")
    mask = mask_of(lengths, form)
    for got, want in zip(_run(sick, mask, **HARD), _run(clean, mask, **HARD), strict=True):
        assert got[:length].isnan().any() and torch.equal(got[length:], want[length:])


@pytest.mark.parametrize("form", ALL_FORMS)
def test_poisoned_memory(form: str) -> None:
    inputs, mask = _inputs(sum(LENGTHS), dtype=torch.float32), mask_of(LENGTHS, form)
    want = _run(inputs, mask, **HARD)
    attention_blocks._scratch.kept.clear()
    with poisoned_memory():
        got = _run(inputs, mask, **HARD)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


# Empty and tiny ----------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]])
def test_no_rows(lengths: list[int]) -> None:
    inputs = _inputs(0)
    out, lse, *grads = _run(inputs, mask_of(lengths, "causal"), dropout=0.1)
    assert out.shape == (0, 4, 8) and lse.shape == (0, 4)
    assert [x.shape for x in grads] == [x.shape for x in inputs[:3]]


@pytest.mark.parametrize("form", ["causal", "full", "prefix", "window"])
def test_one_token_documents_return_their_value(form: str) -> None:
    q, k, v, upstream = _inputs(5, 4, 4)
    out, _, dq, dk, dv = _run([q, k, v, upstream], mask_of([1, 0, 1, 1, 1, 1], form))
    torch.testing.assert_close(out, v)
    torch.testing.assert_close(dv, upstream)
    assert dq.abs().max() < 1e-12 and dk.abs().max() < 1e-12


# Work and memory ---------------------------------------------------------------------------------


def _visited(mask: Intervals, monkeypatch: pytest.MonkeyPatch, heads: int = 1) -> int:
    """Run a forward and return how many scores were computed."""
    computed = []
    weights = attention_blocks._weights

    def counted(*arguments: Any) -> Any:
        made = weights(*arguments)
        computed.append(made.p.numel())
        return made

    monkeypatch.setattr(attention_blocks, "_weights", counted)
    q, k, v, _ = _inputs(mask.num_rows, heads, heads, dtype=torch.float32)
    attention_padded(
        q.detach(), k.detach(), v.detach(), mask,
        scale=1.0, softcap=None, dropout=0.0, seed=None, deterministic=True, return_lse=False,
    )  # fmt: skip
    return sum(computed)


@pytest.mark.parametrize("form", ["causal", "prefix"])
def test_many_documents_visit_their_own_blocks_only(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With every document against every other it would be 77 billion.
    assert _visited(mask_of([34] * 8192, form), monkeypatch) == 8192 * 34 * 34


def test_what_no_row_sees_is_not_visited(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, rows = 1024 * 1024, layout.QUERY_ROWS
    causal = _visited(mask_of([1024], "causal"), monkeypatch)
    assert causal == (dense + 1024 * rows) // 2  # half of it, and half a block of each row's
    window = _visited(mask_of([1024], {"window": 100}), monkeypatch)
    assert window <= 1024 * (100 + rows)
    full = _visited(mask_of([1024], "full"), monkeypatch, heads=3)
    assert full == 3 * dense


def test_padding_is_a_small_part(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = torch.randint(16, 129, (500,), generator=torch.Generator().manual_seed(0)).tolist()
    full = _visited(mask_of(lengths, "full"), monkeypatch)
    assert full < 1.35 * sum(length * length for length in lengths)


def test_only_inputs_are_kept_for_the_gradient() -> None:
    q, k, v, _ = _inputs(300, dtype=torch.float32)
    kept: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        attention_padded(
            q, k, v, mask_of([300], "causal"), scale=1.0, softcap=2.0, dropout=0.1,
            seed=torch.tensor([1]), deterministic=True, return_lse=True,
        )  # fmt: skip
    assert sum(x.numel() for x in kept) == q.numel() + k.numel() + v.numel() + 1


# Determinism and threads -------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["prefix", "prefix_branches"])
def test_same_bits_over_100_runs(form: str) -> None:
    mask, inputs = mask_of([17, 4, 9, 70], form), _inputs(100, dtype=torch.float32)
    assert_same_bits(lambda: _run(inputs, mask, **HARD), runs=100)


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("form", ["causal", "prefix_branches"])
def test_same_bits_on_any_number_of_threads(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_blocks, "SCORES", 30_000)  # many pieces
    mask, inputs = mask_of(LENGTHS, form), _inputs(sum(LENGTHS), dtype=torch.float32)
    two = _run(inputs, mask, **HARD)
    torch.set_num_threads(1)
    for a, b in zip(two, _run(inputs, mask, **HARD), strict=True):
        assert torch.equal(a, b)


@pytest.mark.usefixtures("_two_threads")
def test_threads_take_over_the_callers_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_blocks, "SCORES", 30_000)
    mask, inputs = mask_of(LENGTHS, "causal"), _inputs(sum(LENGTHS), dtype=torch.float32)
    want = _run(inputs, mask)[0]
    options = {"scale": 8**-0.5, "softcap": None, "dropout": 0.0, "seed": None,
               "deterministic": True, "return_lse": False}  # fmt: skip
    with torch.inference_mode():
        out, _ = attention_padded(*inputs[:3], mask, **options)  # type: ignore[arg-type]
        assert out.is_inference() and torch.equal(out, want)
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = attention_padded(*inputs[:3], mask, **options)  # type: ignore[arg-type]
    assert out.dtype == torch.float32 and torch.equal(out, want)


# Traced code, and the path of plain attention on a GPU --------------------------------------------


@pytest.mark.parametrize("form", ["prefix", "branches"])
def test_compiled_whole(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    build = layout.build_layout
    monkeypatch.setattr(attention_eager, "build_layout", lambda *a: built.append(1) or build(*a))
    mask, inputs = mask_of([5, 0, 30, 1], form), _inputs(36, dtype=torch.float32)
    seed = torch.tensor([SEED])

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor | None]:
        return attention_padded(
            q, k, v, mask, seed=seed, deterministic=True, return_lse=True, **HARD
        )

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    q, k, v, upstream = inputs
    for _ in range(3):
        out, lse = compiled(q, k, v)
        got = [out, lse, *torch.autograd.grad(out, (q, k, v), upstream)]
        assert all(torch.equal(a, b) for a, b in zip(got, _run(inputs, mask, **HARD), strict=True))
    assert len(built) == 1  # for traced code; eager code keeps its own with the intervals


@pytest.mark.parametrize("form", ["causal", "branches"])
def test_opcheck(form: str) -> None:
    mask, (q, k, v, _) = mask_of([5, 0, 9], form), _inputs(14, dtype=torch.float32)
    torch.library.opcheck(
        attention_eager.attention_forward,
        (q, k, v, mask.cu_seqlens, mask.start, mask.stop, mask.branches, torch.tensor([SEED]),
         0.3, 1.5, 0.3, True),
    )  # fmt: skip


@pytest.mark.parametrize("form", ALL_FORMS)
def test_sdpa_by_buckets(form: str) -> None:
    mask, (q, k, v, upstream) = mask_of(LENGTHS, form), _inputs(sum(LENGTHS))
    out = attention_eager._sdpa(q, k, v, mask.layout(), 0.3)
    got = [out, *torch.autograd.grad(out, (q, k, v), upstream)]
    want = _reference([q, k, v, upstream], mask, scale=0.3)
    for a, b in zip(got, (want[0], *want[2:]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
