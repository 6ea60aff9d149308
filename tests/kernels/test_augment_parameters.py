"""The draws: one function of (seed, number), torchvision's law, the same bits everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from support.numerics import (
    DEVICE,
    ON_GPU,
    guarded_memory,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
)
from support.row_ops import SEED, backend
from torch import Tensor
from torchvision.transforms import v2

from kernels import dispatch
from kernels.augment import parameters as draws
from kernels.augment import sample_triton
from kernels.augment.parameters import CHANGES, COLUMNS, sample_parameters, sample_table

EVERY: dict[str, Any] = {
    "height": 256, "width": 200, "seed": SEED, "brightness": 0.4, "contrast": 0.5,
    "saturation": 1.5, "hue": 0.1, "grayscale": 0.2,
}  # fmt: skip


PINNED = [
    [131.0, 54.0, 93.0, 112.0, 0.0, 0.7566964, 0.7638658, 2.474161, 0.050547, 0.0],
    [7.0, 7.0, 211.0, 193.0, 1.0, 0.7863268, 1.211847, 1.309006, 0.061234, 0.0],
    [37.0, 15.0, 191.0, 153.0, 1.0, 1.049588, 1.432584, 0.5767031, -0.0686534, 0.0],
]


def numbers(n: int) -> Tensor:
    odd = torch.tensor([-1, 2**40 + 5, 5, 2**63 - 1, -(2**63), 2**32, 0])
    return torch.cat([odd, torch.arange(n - 7)]).to(DEVICE)


def filled(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 200, (n, 2), generator=generator).to(DEVICE)


def table(index: Tensor, **options: Any) -> Tensor:
    return sample_parameters(index, **(EVERY | options)).table


def column(rows: Tensor, name: str) -> Tensor:
    return rows[:, COLUMNS.index(name)]


OPTIONS: dict[str, Callable[[int], dict[str, Any]]] = {
    "everything": lambda n: {},
    "no crop": lambda n: {"scale": None},
    "sizes": lambda n: {"sizes": filled(n)},
    "sizes, int32": lambda n: {"sizes": filled(n).int().T.contiguous().T},
    "often the centre": lambda n: {"scale": (0.9, 1.0), "ratio": (2.9, 3.0)},
    "extreme ratios": lambda n: {"scale": (0.001, 0.01), "ratio": (0.02, 50.0)},
    "negative seed": lambda n: {"seed": -(2**62) - 12345},
    "seed on the device": lambda n: {"seed": torch.tensor([SEED], device=DEVICE)},
    "one pixel": lambda n: {"height": 1, "width": 1},
    "nothing": lambda n: {"train": False},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_kernel_and_host_draw_the_same_bits(name: str) -> None:
    n = 700
    found = []
    for implementation in ("triton", "eager"):
        guard = guarded_memory if implementation == "triton" else nullcontext
        with backend("sample_parameters", implementation), guard():
            found.append(table(numbers(n), **OPTIONS[name](n)))
    assert torch.equal(*found) and found[0].shape == (n, 10) and found[0].dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.parametrize("name", OPTIONS)
def test_cpu_and_gpu_draw_the_same_bits(name: str) -> None:
    def on(device: str) -> Tensor:
        options = OPTIONS[name](100_000)
        moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in options.items()}
        return table(numbers(100_000).to(device), **moved).cpu()

    assert torch.equal(on("cpu"), on("cuda"))


def test_draws_stay_what_they_are() -> None:
    """A run that is resumed after an upgrade sees the same pictures."""
    rows = table(torch.tensor([0, 1, 2**33], device=DEVICE), seed=-123456789012)
    expected = torch.tensor(PINNED, device=DEVICE)
    torch.testing.assert_close(rows, expected, rtol=0, atol=1e-6)


def test_a_row_depends_on_its_number_and_the_seed_alone() -> None:
    index = torch.arange(500, device=DEVICE)
    together = table(index)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    assert torch.equal(table(index[order]), together[order])
    assert torch.equal(table(index[77:78]), together[77:78])
    assert torch.equal(table(index[::5]), together[::5])  # not contiguous
    for other in (table(index, seed=SEED + 1), table(index, seed=SEED + 2**32),
                  table(index + 2**32), table(index + 2**40)):  # fmt: skip
        same = (other == together).all(1).float().mean()
        assert same < 0.01


def test_switching_one_off_leaves_the_others() -> None:
    index = torch.arange(50, device=DEVICE)
    everything = sample_parameters(index, **EVERY)
    assert everything.changes == CHANGES
    for name, option in zip(CHANGES, (*CHANGES[:4], "grayscale"), strict=True):
        less = sample_parameters(index, **(EVERY | {option: 0.0}))
        assert less.changes == tuple(x for x in CHANGES if x != name)
        kept = [at for at, x in enumerate(COLUMNS) if x != name]
        assert torch.equal(less.table[:, kept], everything.table[:, kept])
        neutral = dict(zip(COLUMNS[4:], draws.NEUTRAL, strict=True))[name]
        assert (column(less.table, name) == neutral).all()
    assert sample_parameters(index, **EVERY, train=False).changes == ()


def test_draws_are_uniform_and_independent() -> None:
    index = torch.arange(20_000, device=DEVICE)
    seed = torch.tensor([SEED], device=DEVICE)
    u = draws.uniforms(index, seed, draws.DRAWS).cpu()
    assert u.min() >= 0 and u.max() < 1
    n = u.shape[0]
    steps = torch.arange(n, dtype=torch.float64)[:, None] / n
    distance = (u.sort(0).values - steps).abs().max(0).values  # Kolmogorov and Smirnov's
    assert distance.max() < 2.2 / math.sqrt(n)  # p = 1e-4 for each of 48
    correlation = torch.corrcoef(u.T) - torch.eye(draws.DRAWS)
    assert correlation.abs().max() < 5 / math.sqrt(n)
    follows = torch.corrcoef(torch.cat([u[:-1].T, u[1:].T]))[: draws.DRAWS, draws.DRAWS :]
    assert follows.abs().max() < 5 / math.sqrt(n)


@pytest.mark.parametrize(
    ("stored", "scale", "ratio"),
    [((256, 256), (0.2, 1.0), (3 / 4, 4 / 3)), ((100, 300), (0.08, 1.0), (0.5, 2.0)),
     ((60, 40), (0.9, 1.0), (0.9, 1.1))],
)  # fmt: skip
def test_windows_have_torchvision_s_law(
    stored: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    n = 3000
    theirs = v2.RandomResizedCrop(8, scale=scale, ratio=ratio)
    torch.manual_seed(0)
    image = torch.empty(3, *stored)
    made = [theirs.make_params([image]) for _ in range(n)]
    rows = sample_parameters(
        torch.arange(4 * n, device=DEVICE), seed=3, height=stored[0], width=stored[1], scale=scale,
        ratio=ratio,
    ).table.cpu()  # fmt: skip
    for name in ("top", "left", "height", "width"):
        a = torch.tensor([float(p[name]) for p in made]).sort().values
        b = column(rows, name).sort().values
        at = torch.cat([a, b]).unique()
        gap = torch.searchsorted(a, at, right=True) / n - torch.searchsorted(b, at, right=True) / (
            4 * n
        )
        assert gap.abs().max() < 2.2 * math.sqrt(1 / n + 1 / (4 * n)), name
    top, left, h, w = rows[:, :4].unbind(1)
    assert (top >= 0).all() and (left >= 0).all() and (h >= 1).all() and (w >= 1).all()
    assert (top + h <= stored[0]).all() and (left + w <= stored[1]).all()
    assert (rows[:, :4] == rows[:, :4].round()).all()


@pytest.mark.parametrize("stored", [(10, 100), (100, 10), (50, 50), (1, 9)])
def test_the_centre_when_none_fits_is_torchvision_s(stored: tuple[int, int]) -> None:
    """Windows of 99 % of the area, and a ratio at which they are too long."""
    ratio = (3 / 4, 4 / 3) if stored != (50, 50) else (2.0, 3.0)
    theirs = v2.RandomResizedCrop(8, scale=(0.99, 1.0), ratio=ratio)
    params = theirs.make_params([torch.empty(3, *stored)])
    row = sample_parameters(
        torch.tensor([4], device=DEVICE), seed=3, height=stored[0], width=stored[1],
        scale=(0.99, 1.0), ratio=ratio,
    ).table[0]  # fmt: skip
    assert row[:4].tolist() == [params[name] for name in ("top", "left", "height", "width")]


def test_factors_and_chances() -> None:
    index = torch.arange(20_000, device=DEVICE)
    rows = table(index, flip=0.3)
    for name, low, high in (("brightness", 0.6, 1.4), ("contrast", 0.5, 1.5),
                            ("saturation", 0.0, 2.5), ("hue", -0.1, 0.1)):  # fmt: skip
        values = column(rows, name)
        assert low <= values.min() < low + 0.01 and high - 0.01 < values.max() <= high
        assert abs(float(values.mean()) - (low + high) / 2) < 0.01 * (high - low)
    for name, chance in (("flip", 0.3), ("grey", 0.2)):
        values = column(rows, name)
        assert set(values.unique().tolist()) == {0.0, 1.0}
        assert abs(float(values.mean()) - chance) < 0.015
    assert (column(table(index, flip=1.0), "flip") == 1).all()
    assert (column(table(index, flip=0.0), "flip") == 0).all()


def test_exponential() -> None:
    t = torch.linspace(math.log(0.02), math.log(50), 1001, dtype=torch.float64)
    torch.testing.assert_close(draws._exp(t), t.exp(), rtol=1e-14, atol=0)


def test_compiled_and_registered() -> None:
    index = torch.arange(40, device=DEVICE)
    for name in ("triton", "eager"):
        with backend("sample_parameters", name):
            torch.compiler.reset()
            compiled = torch.compile(
                lambda x: sample_parameters(x, **EVERY), fullgraph=True, backend="aot_eager"
            )
            found, expected = compiled(index), sample_parameters(index, **EVERY)
        assert found.changes == expected.changes and torch.equal(found.table, expected.table)
    operands = (
        index, torch.tensor([SEED], device=DEVICE), filled(40), 256, 200, [0.2, 1.0], [0.75, 1.5],
        0.5, [0.4, 0.4, 0.4], 0.1, 0.2,
    )  # fmt: skip
    assert set(torch.library.opcheck(sample_table, operands).values()) == {"SUCCESS"}
    none = sample_parameters(index[:0], **EVERY)
    with backend("sample_parameters", "triton"):
        assert sample_parameters(index[:0], **EVERY).table.shape == none.table.shape == (0, 10)


def _must_not_launch(*_: object, **__: object) -> None:
    raise AssertionError("launched")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("index", {"index": torch.zeros(3)}),
        ("index", {"index": torch.zeros(3, dtype=torch.int32)}),
        ("index", {"index": torch.zeros(3, 1, dtype=torch.int64)}),
        ("seed", {"seed": 2**63}),
        ("seed", {"seed": torch.zeros(2, dtype=torch.int64)}),
        ("height", {"height": 0}),
        ("width", {"width": -1}),
        ("sizes", {"sizes": torch.ones(3, dtype=torch.int64)}),
        ("sizes", {"sizes": torch.ones(3, 2)}),
        ("sizes", {"sizes": torch.ones(3, 2, dtype=torch.int64, device="meta")}),
        ("scale", {"scale": (0.0, 1.0)}),
        ("scale", {"scale": (0.5, 0.4)}),
        ("scale", {"scale": (0.5, 1.1)}),
        ("ratio", {"ratio": (0.0, 1.0)}),
        ("ratio", {"ratio": (2.0, 1.0)}),
        ("flip", {"flip": 1.5}),
        ("brightness", {"brightness": -0.1}),
        ("contrast", {"contrast": math.nan}),
        ("saturation", {"saturation": math.inf}),
        ("hue", {"hue": 0.6}),
        ("grayscale", {"grayscale": -0.5}),
    ],
)
def test_bad_input_is_named_before_any_launch(
    name: str, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_triton, "launch", _must_not_launch)
    given = {"index": torch.arange(3)} | EVERY | change
    with (
        backend("sample_parameters", "triton"),
        pytest.raises(ValueError, match=f"^{name}: ") as caught,
    ):
        sample_parameters(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(ON_GPU, reason="says what runs on a CPU")
def test_a_cpu_takes_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dispatch.describe()["sample_parameters"] == ["triton", "eager"]
    monkeypatch.setattr(sample_triton, "launch", _must_not_launch)
    table(torch.arange(3))
