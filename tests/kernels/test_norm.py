"""LayerNorm and RMSNorm with the addition before them against fp64, in every form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import interpreter
from support.numerics import (
    DEVICE,
    ON_GPU,
    bits,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
    sized,
)
from support.row_ops import (
    ROW_VIEWS,
    SEED,
    backend,
    compare,
    draw,
    few_launches,  # noqa: F401  (a fixture)
    run,
)
from torch import Tensor

from kernels import dropout
from kernels.reference import norm_reference
from kernels.rows import norm_triton
from kernels.rows.norm import layer_norm, rms_norm

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
MANY = sized(37, 65_536)
SHAPES = [
    (1, 8), (3, 1), (MANY, 24), (5, 255), (MANY, 256), (9, 384), (3, 1000), (MANY, 1024),
    (2, 4093), (2, 4096), (2, 4104), (2, 8192),
]  # fmt: skip


def call(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    rms: bool = False,
    p: float = 0.0,
    eps: float = 1e-5,
) -> Any:
    options: dict[str, Any] = {"residual": residual, "eps": eps}
    if p:
        options |= {"dropout": p, "seed": SEED}
    return rms_norm(x, weight, **options) if rms else layer_norm(x, weight, bias, **options)


def inputs(
    rows: int, columns: int, dtype: torch.dtype = FP32, *, rms: bool = False,
    residual: bool = True, weight: torch.dtype | None = None, offset: float = 0.5,
) -> list[Tensor | None]:  # fmt: skip
    x, other = (draw(rows, columns, dtype=FP32, seed=at) for at in (0, 1))
    w, b = (draw(columns, dtype=weight or dtype, seed=at) for at in (2, 3))
    return [
        (2 * x + offset).to(dtype), w, None if rms else b, other.to(dtype) if residual else None
    ]  # fmt: skip


def op_of(rms: bool) -> str:
    return "rms_norm" if rms else "layer_norm"


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("dtype", [FP32, FP16, BF16], ids=str)
@pytest.mark.parametrize("rms", [False, True], ids=["layer", "rms"])
def test_with_a_residual(rows: int, columns: int, dtype: torch.dtype, rms: bool) -> None:
    compare(op_of(rms), partial(call, rms=rms), inputs(rows, columns, dtype, rms=rms), terms=9.0)


@pytest.mark.parametrize(("rows", "columns"), [(MANY, 256), (3, 1000), (5, 255)])
@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
@pytest.mark.parametrize("rms", [False, True], ids=["layer", "rms"])
def test_alone(rows: int, columns: int, dtype: torch.dtype, rms: bool) -> None:
    given = inputs(rows, columns, dtype, rms=rms, residual=False)
    compare(op_of(rms), partial(call, rms=rms), given, terms=9.0)
    if not rms:
        given[2] = None
        compare("layer_norm", call, given, terms=9.0)


@pytest.mark.parametrize(("rows", "columns"), [(MANY, 256), (3, 1000), (5, 255), (2, 8192)])
@pytest.mark.parametrize("dtype", [FP32, FP16, BF16], ids=str)
@pytest.mark.parametrize("rms", [False, True], ids=["layer", "rms"])
def test_with_dropout(rows: int, columns: int, dtype: torch.dtype, rms: bool) -> None:
    given = inputs(rows, columns, dtype, rms=rms)
    compare(op_of(rms), partial(call, rms=rms, p=0.3), given, terms=9.0)


@pytest.mark.parametrize("rms", [False, True], ids=["layer", "rms"])
def test_float32_weights_of_half_precision_rows(rms: bool) -> None:
    given = inputs(MANY, 256, BF16, rms=rms, weight=FP32)
    found = compare(op_of(rms), partial(call, rms=rms), given, terms=9.0)
    assert [x.dtype for x in found] == [BF16, BF16, BF16, FP32, *[FP32] * (not rms), BF16]


def test_is_torch_s_own() -> None:
    """The eager path and the reference, from the functions they stand for."""
    x, w, b, r = (y if y is None else y.double() for y in inputs(7, 40))
    assert x is not None and w is not None and b is not None and r is not None
    with backend("layer_norm", "eager"):
        torch.testing.assert_close(layer_norm(x, w, b), F.layer_norm(x, (40,), w, b))
        y, summed = layer_norm(x, w, b, residual=r)
        torch.testing.assert_close(y, F.layer_norm(x + r, (40,), w, b))
        assert torch.equal(summed, x + r)
    with backend("rms_norm", "reference"):
        torch.testing.assert_close(rms_norm(x, w), F.rms_norm(x, (40,), w, 1e-6))


@pytest.mark.parametrize("offset", [1e4, -1e4])
@pytest.mark.parametrize("columns", [256, 1000])
def test_large_common_offset(offset: float, columns: int) -> None:
    """The mean is taken off before anything is squared."""
    given = inputs(8, columns, offset=offset, residual=False)
    compare("layer_norm", call, given, terms=9.0)


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
def test_rows_that_are_all_the_same(dtype: torch.dtype) -> None:
    """Variance 0: eps alone is left."""
    x, w, b, _ = inputs(4, 64, dtype)
    same = torch.full_like(x, 3.0)  # type: ignore[arg-type]
    compare("layer_norm", call, [same, w, b, None], terms=1e3)
    compare("rms_norm", partial(call, rms=True), [torch.zeros_like(same), w, None, None], terms=1e3)


def test_half_precision_beyond_its_range() -> None:
    """Squares of 300 leave fp16; sums are float32."""
    x, w, b, _ = inputs(4, 256, FP16)
    assert x is not None
    compare("layer_norm", call, [300 * x, w, b, None], terms=9.0)


def test_leading_dimensions() -> None:
    x, w, b, r = inputs(24, 40)
    assert x is not None and r is not None
    dropped = partial(call, p=0.2)
    flat = run("layer_norm", "triton", dropped, [x, w, b, r])
    shaped = compare("layer_norm", dropped, [x.view(2, 3, 4, 40), w, b, r.view(2, 3, 4, 40)])
    assert shaped[0].shape == shaped[2].shape == (2, 3, 4, 40)
    assert torch.equal(shaped[0].view(24, 40), flat[0])
    assert compare("layer_norm", call, [x[0], w, b, None])[0].shape == (40,)


@pytest.mark.parametrize("shape", [(0, 64), (2, 0, 64)])
@pytest.mark.parametrize("rms", [False, True], ids=["layer", "rms"])
def test_no_rows(shape: tuple[int, ...], rms: bool) -> None:
    x = torch.empty(shape, device=DEVICE)
    w, b = draw(64), None if rms else draw(64)
    found = run(op_of(rms), "triton", partial(call, rms=rms, p=0.2), [x, w, b, x])
    assert [tuple(y.shape) for y in found] == [shape] * 3 + [(64,)] * (2 - rms) + [shape]
    for y in found[3:-1]:
        assert not y.any()


@pytest.mark.parametrize("view", ROW_VIEWS)
@pytest.mark.parametrize("columns", [256, 40, 255])
def test_any_layout(view: str, columns: int) -> None:
    """Also with NaN before, behind and between the rows; sums do not depend on where rows lie."""
    given = inputs(9, columns, BF16)
    layout = ROW_VIEWS[view]
    moved = [x if x is None else layout(x) if x.dim() == 2 else x for x in given]
    plain = run("layer_norm", "triton", partial(call, p=0.2), given)
    for a, b in zip(run("layer_norm", "triton", partial(call, p=0.2), moved), plain, strict=True):
        assert torch.equal(bits(a), bits(b))


def test_expanded_and_misaligned() -> None:
    """The gradient of a sum has strides of zero; weights may lie anywhere in a flat buffer."""
    x, w, b, r = inputs(6, 64)
    assert x is not None and w is not None and b is not None
    flat = torch.cat([w.new_zeros(1), w, b])
    leaves = [x.requires_grad_(), flat[1:65].detach().requires_grad_(), flat[65:].requires_grad_()]
    with backend("layer_norm", "triton"):
        got = torch.autograd.grad(layer_norm(*leaves, residual=r)[0].sum(), leaves)
        want = torch.autograd.grad(layer_norm(*leaves, residual=r)[0], leaves, torch.ones_like(x))
    assert all(torch.equal(p, q) for p, q in zip(got, want, strict=True))
    apart = torch.stack([w, b], 1)
    with backend("layer_norm", "triton"):
        assert torch.equal(layer_norm(x, apart[:, 0], apart[:, 1]), layer_norm(x, w, b))
    row = x.detach()[:1].expand(6, 64)
    with backend("layer_norm", "triton"):
        assert torch.equal(layer_norm(row, w, b), layer_norm(row.contiguous(), w, b))


@pytest.mark.parametrize("used", [0, 1])
def test_only_one_output_is_used(used: int) -> None:
    given = inputs(9, 64)
    leaves = [x if x is None else x.requires_grad_() for x in given]
    grads = []
    for name in ("triton", "eager"):
        with backend("layer_norm", name):
            out = call(*leaves, p=0.0)[used]  # type: ignore[arg-type]
        grads.append(torch.autograd.grad(out.square().sum(), leaves, allow_unused=True))  # type: ignore[arg-type]
    for at, (a, b) in enumerate(zip(*grads, strict=True)):
        if b is None:
            assert used == 1 and (a is None or not a.any())
        else:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, msg=str(at))


@pytest.mark.parametrize("frozen", range(4))
def test_inputs_without_gradient(frozen: int) -> None:
    leaves = [
        x.requires_grad_() if at != frozen else x
        for at, x in enumerate(inputs(9, 64))
        if x is not None
    ]
    with backend("layer_norm", "triton"):
        out, summed = call(*leaves)
    trained = [x for at, x in enumerate(leaves) if at != frozen]
    grads = torch.autograd.grad(out.sum() + summed.sum(), trained)
    assert all(torch.isfinite(x).all() for x in grads)
    with backend("layer_norm", "triton"), torch.no_grad():
        assert not call(*leaves)[0].requires_grad


def test_dropout_mask_entry_by_entry() -> None:
    """The definition's mask, row and column; the backward has the same one."""
    rows, columns, p = 13, 72, 0.4
    x, zero = torch.ones(rows, columns, device=DEVICE), torch.zeros(rows, columns, device=DEVICE)
    ones = torch.ones(columns, device=DEVICE)
    keys = dropout.row_keys(SEED, torch.arange(rows, device=DEVICE), 1)
    kept = dropout.keep(keys, torch.arange(columns, device=DEVICE), p)[:, 0]  # [M, N]
    assert 0.5 < kept.float().mean() < 0.7
    for name in ("triton", "eager", "reference"):
        x = x.detach().requires_grad_()
        with backend("layer_norm", name):
            _, summed = layer_norm(x, ones, residual=zero, dropout=p, seed=SEED)
            (dx,) = torch.autograd.grad(summed, x, torch.ones_like(summed))
        for found in (summed, dx):
            assert torch.equal(found != 0, kept), name
            torch.testing.assert_close(found[kept], torch.full_like(found[kept], 1 / (1 - p)))


@pytest.mark.parametrize("name", ["triton", "eager"])
def test_seeds(name: str) -> None:
    x, w, b, r = inputs(9, 64)
    assert x is not None and w is not None and r is not None

    def summed(seed: int | Tensor | None) -> Tensor:
        with backend("layer_norm", name):
            return layer_norm(x, w, b, residual=r, dropout=0.3, seed=seed)[1]

    assert torch.equal(summed(7), summed(torch.tensor([7], device=DEVICE)))
    assert not torch.equal(summed(7), summed(7 + (1 << 40)))
    torch.manual_seed(3)
    first, second = summed(None), summed(None)
    torch.manual_seed(3)
    assert torch.equal(summed(None), first) and not torch.equal(first, second)


def test_partial_sums_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs and partial sums stop growing with M; few programs walk over many tiles."""
    seen: list[tuple[str, tuple[int, ...]]] = []
    real = norm_triton.launch

    def recorded(kernel: Any, grid: tuple[int, ...], *rest: Any, **options: Any) -> None:
        seen.append((kernel.__name__, grid))
        if kernel is norm_triton.norm_bwd_kernel:
            assert rest[9].shape == (2, grid[0], 64)
        if rest[0].shape[0] < 10_000:
            real(kernel, grid, *rest, **options)

    monkeypatch.setattr(norm_triton, "launch", recorded)
    x = torch.zeros(1 << 20, 64, dtype=BF16, device=DEVICE)
    w = torch.zeros(64, dtype=BF16, device=DEVICE)
    _, _, stats = norm_triton.forward(x, w, w, None, None, 1e-5, 0.0, True)
    monkeypatch.setattr(norm_triton, "column_sums", lambda *_: None)
    norm_triton.backward(x, None, x, w, stats, None, 0.0, True, True)
    assert seen[-1] == ("norm_bwd_kernel", (norm_triton.PROGRAMS,))
    monkeypatch.undo()
    if not ON_GPU:  # three programs for eleven tiles
        monkeypatch.setattr(norm_triton, "PROGRAMS", 3)
        compare("layer_norm", partial(call, p=0.1), inputs(170, 256, FP32), terms=9.0)


@pytest.mark.parametrize("center", [True, False])
def test_gradients_of_the_reference(center: bool) -> None:
    """What everything is compared with, against finite differences."""
    leaves = [x.double().requires_grad_() for x in inputs(3, 5, rms=not center) if x is not None]
    seed = torch.tensor([SEED], device=DEVICE)

    def definition(x: Tensor, w: Tensor, *rest: Tensor) -> Any:
        b, r = rest if center else (None, rest[0])
        return norm_reference(x, w, b, r, center=center, eps=1e-3, dropout=0.3, seed=seed)

    assert torch.autograd.gradcheck(definition, leaves)


def _must_not_launch(*_: object, **__: object) -> None:
    raise AssertionError("launched")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("x", {"x": lambda x: x.int()}),
        ("x", {"x": lambda x: x[:, :0]}),
        ("x", {"x": lambda x: x[0, 0]}),
        ("weight", {"weight": lambda w: w[:-1]}),
        ("weight", {"weight": lambda w: w.half()}),
        ("bias", {"bias": lambda b: b[None]}),
        ("bias", {"bias": lambda b: b.bfloat16()}),
        ("residual", {"residual": lambda r: r[:-1]}),
        ("residual", {"residual": lambda r: r.bfloat16()}),
        ("residual", {"residual": lambda r: r.to("meta")}),
        ("dropout", {"dropout": lambda _: 1.0}),
        ("dropout", {"dropout": lambda _: -0.1}),
        ("dropout", {"dropout": lambda _: 0.1, "residual": lambda _: None}),
        ("seed", {"dropout": lambda _: 0.1, "seed": lambda _: 1 << 63}),
        ("seed", {"dropout": lambda _: 0.1, "seed": lambda _: torch.zeros(2)}),
        ("eps", {"eps": lambda _: -1.0}),
    ],
)
@pytest.mark.parametrize("implementation", ["triton", "eager"])
def test_bad_input_is_named_before_any_launch(
    name: str,
    change: dict[str, Callable[[Any], Any]],
    implementation: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(norm_triton, "launch", _must_not_launch)
    x, w, b, r = inputs(5, 24)
    given: dict[str, Any] = {"x": x, "weight": w, "bias": b, "residual": r}
    changed = {key: make(given.get(key)) for key, make in change.items()}
    with (
        backend("layer_norm", implementation),
        pytest.raises(ValueError, match=f"^{name}: ") as caught,
    ):
        layer_norm(**(given | changed))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("columns", "why"), [(8200, "8,192"), (5001, "multiple of 8")])
def test_what_the_kernels_refuse(columns: int, why: str) -> None:
    x, w, b, _ = inputs(2, columns, residual=False)
    assert x is not None and w is not None
    with backend("layer_norm", "triton"), pytest.raises(RuntimeError, match=why):
        layer_norm(x, w, b)
    assert torch.equal(layer_norm(x, w, b), F.layer_norm(x, (columns,), w, b))
    with backend("layer_norm", "triton"), pytest.raises(RuntimeError, match="float64"):
        layer_norm(x.double(), w, b)


@pytest.mark.skipif(ON_GPU, reason="single programs, in the interpreter")
def test_more_than_2_to_the_31_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last programs of a grid, on memory of which only the touched pages exist."""
    rows, columns = (1 << 31) // 1024 + 40, 1024
    last = slice(rows - 2, rows)

    def sampled(kernel: Any, grid: tuple[int, ...], of: Tensor, *args: Any, **options: Any) -> None:
        options = {k: v for k, v in options.items() if k not in ("num_warps", "maxnreg")}
        program = grid[0] - 1
        if kernel is norm_triton.norm_bwd_kernel:  # few programs: let the last tile be one's first
            tiles = -(-rows // options["ROWS"])
            grid, program = (tiles,), tiles - 1
        interpreter.run_programs(kernel, grid[0], [program], args, options)

    monkeypatch.setattr(norm_triton, "launch", sampled)
    monkeypatch.setattr(norm_triton, "column_sums", lambda *_: None)
    monkeypatch.setattr(norm_triton, "config", _one_partial_a_tile(norm_triton.config))
    x, r, dy = (torch.empty(rows, columns, dtype=FP16) for _ in range(3))
    small = [draw(2, columns, dtype=FP16, seed=at) for at in range(3)]
    for whole, part in zip((x, r, dy), small, strict=True):
        whole[last] = part
    w, b = draw(columns, dtype=FP16, seed=7), draw(columns, dtype=FP16, seed=8)
    y, summed, stats = norm_triton.forward(x, w, b, r, None, 1e-5, 0.0, True)
    assert summed is not None
    dsum, _, _, _ = norm_triton.backward(dy, None, summed, w, stats, None, 0.0, True, True)
    total = (small[0] + small[1]).requires_grad_()
    assert torch.equal(summed[last], total)
    want = F.layer_norm(total.float(), (columns,), w.float(), b.float())
    torch.testing.assert_close(y[last].float(), want, rtol=2e-3, atol=2e-3)
    (grad,) = torch.autograd.grad(want, total, small[2].float())
    torch.testing.assert_close(dsum[last], grad, rtol=4e-3, atol=4e-3)


def _one_partial_a_tile(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: dataclasses.replace(real(*args), programs=1 << 30)


# On a GPU only.
