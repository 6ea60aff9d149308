"""The image op as PyTorch's compiler, tracers, the dispatcher and careless callers see it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from support.cuda_graphs import assert_nothing_waits_and_a_graph_holds
from support.launch import ROOT
from support.numerics import (
    DEVICE,
    ON_GPU,
    bits,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
)
from support.row_ops import SEED, backend
from torch import Tensor
from torch._subclasses import FakeTensorMode

from kernels import dispatch
from kernels.augment import augment_triton, sample_triton
from kernels.augment.ops import augment_table
from kernels.augment.parameters import Parameters
from kernels.augment.public import augment_images, sample_parameters
from kernels.augment.resize import resized_by_products, resized_one_by_one

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPTIONS: dict[str, Any] = {
    "size": (16, 24), "mean": MEAN, "std": STD, "seed": SEED, "patch": 8, "contrast": 0.4,
    "hue": 0.1,
}  # fmt: skip
LAYOUTS = ("nchw", "nhwc", "patches")
both = pytest.mark.parametrize("name", ["triton", "eager"])
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def pictures(n: int, height: int = 20, width: int = 30) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    shape = (n, height, width, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(DEVICE)


def augmented(images: Tensor, name: str, **options: Any) -> Tensor:
    with backend("augment_images", name), backend("sample_parameters", name):
        return augment_images(images, **(OPTIONS | options))


def _must_not_launch(*_: object, **__: object) -> None:
    raise AssertionError("launched")


@both
@layouts
def test_compiled_is_eager_bit_by_bit(name: str, layout: str) -> None:
    """Draws and pictures in one graph."""
    torch.compiler.reset()
    compiled = torch.compile(
        lambda x, k: augment_images(x, index=k, layout=layout, **OPTIONS),
        fullgraph=True, backend="aot_eager",
    )  # fmt: skip
    images, index = pictures(5), torch.arange(5, device=DEVICE) + 3
    with backend("augment_images", name), backend("sample_parameters", name):
        found = compiled(images, index)
    expected = augmented(images, name, index=index, layout=layout)
    assert found.stride() == expected.stride() and torch.equal(bits(found), bits(expected))


@both
@layouts
def test_fake_tensors_have_the_shapes_and_launch_nothing(
    name: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = augmented(pictures(5), name, layout=layout)
    monkeypatch.setattr(augment_triton, "launch", _must_not_launch)
    monkeypatch.setattr(sample_triton, "launch", _must_not_launch)
    with FakeTensorMode() as mode:
        made = augmented(mode.from_tensor(pictures(5)), name, layout=layout)
    assert (made.shape, made.dtype, made.stride()) == (real.shape, real.dtype, real.stride())


@layouts
@pytest.mark.parametrize("n", [3, 0])
def test_registered_operators(layout: str, n: int) -> None:
    """Schema, fake tensors and dispatch through AOT autograd."""
    table = sample_parameters(torch.arange(n, device=DEVICE), seed=1, height=20, width=30).table
    operands = (
        pictures(n), table, 31, 16, 24, list(MEAN), list(STD), torch.bfloat16, layout, 8, True,
    )  # fmt: skip
    assert set(torch.library.opcheck(augment_table, operands).values()) == {"SUCCESS"}
    operands = (pictures(n), table, 16, 24, True)
    assert set(torch.library.opcheck(resized_one_by_one, operands).values()) == {"SUCCESS"}


@pytest.mark.parametrize("antialias", [True, False])
def test_both_ways_to_resize_agree(antialias: bool) -> None:
    """The eager one of CPUs and the eager one of GPUs."""
    images = pictures(5)
    for size in ((16, 24), (40, 7), (3, 90)):
        table = sample_parameters(torch.arange(5, device=DEVICE), seed=1, height=20, width=30).table
        found = [
            f(images, table, *size, antialias) for f in (resized_by_products, resized_one_by_one)
        ]
        torch.testing.assert_close(*found, rtol=1e-5, atol=2e-3)  # of 255
        torch.compiler.reset()
        compiled = torch.compile(resized_by_products, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(images, table, *size, antialias), found[0])


@both
def test_no_pictures_and_no_gradient(name: str) -> None:
    made = augmented(pictures(0), name)
    assert made.shape == (0, 3, 16, 24) and made.dtype == torch.bfloat16
    assert augmented(pictures(0), name, layout="patches").shape == (0, 6, 192)
    assert not augmented(pictures(2), name).requires_grad


def test_autocast_changes_nothing() -> None:
    images = pictures(2)
    expected = augmented(images, "eager")
    index = torch.arange(2, device=DEVICE)
    table = sample_parameters(index, seed=1, height=20, width=30).table
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        found = augmented(images, "eager")
        by_products = resized_by_products(images, table, 8, 8, True)
    assert torch.equal(bits(found), bits(expected)) and by_products.dtype == torch.float32


def test_given_parameters_are_those_that_are_drawn() -> None:
    images, index = pictures(4), torch.arange(4, device=DEVICE) + 9
    parameters = sample_parameters(index, seed=SEED, height=20, width=30, contrast=0.4, hue=0.1)
    given = {k: v for k, v in OPTIONS.items() if k not in ("seed", "contrast", "hue")}
    found = augment_images(images, parameters=parameters, **given)
    assert torch.equal(bits(found), bits(augment_images(images, index=index, **OPTIONS)))
    first = augment_images(images, **OPTIONS)  # no index: places in the batch
    again = augment_images(images, index=torch.arange(4, device=DEVICE), **OPTIONS)
    assert torch.equal(bits(first), bits(again))
    assert not torch.equal(bits(first), bits(found))
    # What is not among the changes is not read.
    spoilt = parameters.table.clone()
    spoilt[:, 5:] = torch.nan
    spoilt[:, 6], spoilt[:, 8] = parameters.table[:, 6], parameters.table[:, 8]
    for name in ("triton", "eager", "reference"):
        with backend("augment_images", name):
            made = [
                augment_images(images, parameters=Parameters(x, ("hue", "contrast")), **given)
                for x in (spoilt, parameters.table)
            ]
        assert torch.equal(bits(made[0]), bits(made[1]))


TABLE = torch.zeros(3, 10)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("images", {"images": torch.zeros(3, 20, 30, 3)}),
        ("images", {"images": torch.zeros(3, 3, 20, 30, dtype=torch.uint8)}),
        ("images", {"images": torch.zeros(20, 30, 3, dtype=torch.uint8)}),
        ("images", {"images": torch.zeros(3, 0, 30, 3, dtype=torch.uint8)}),
        ("images", {"images": torch.zeros(1, 1, 16_385, 3, dtype=torch.uint8)}),
        ("size", {"size": 0}),
        ("size", {"size": (5, -1)}),
        ("size", {"size": 20_000}),
        ("mean", {"mean": (0.5,)}),
        ("std", {"std": (0.5, 0.5)}),
        ("std", {"std": (0.5, 0.0, 0.5)}),
        ("dtype", {"dtype": torch.float64}),
        ("layout", {"layout": "hwc"}),
        ("patch", {"layout": "patches", "patch": 7}),
        ("patch", {"layout": "patches", "patch": 0}),
        ("seed", {"seed": None}),
        ("seed", {"seed": 2**70}),
        ("index", {"index": torch.arange(4)}),
        ("index", {"index": torch.zeros(3, dtype=torch.int32)}),
        ("index", {"index": torch.arange(3, device="meta")}),
        ("sizes", {"sizes": torch.ones(4, 2, dtype=torch.int64)}),
        ("scale", {"scale": (2.0, 3.0)}),
        ("hue", {"hue": 0.7}),
        ("parameters", {"parameters": Parameters(TABLE)}),
        ("parameters", {"seed": None, "parameters": Parameters(TABLE[:2])}),
        ("parameters", {"seed": None, "parameters": Parameters(TABLE.double())}),
        ("parameters", {"seed": None, "parameters": Parameters(TABLE.to("meta"))}),
        ("parameters", {"seed": None, "parameters": Parameters(TABLE, ("blur",))}),
    ],
)
def test_bad_input_is_named_before_any_launch(
    name: str, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (augment_triton, sample_triton):
        monkeypatch.setattr(module, "launch", _must_not_launch)
    given = {"images": pictures(3).cpu()} | OPTIONS | change
    with (
        backend("augment_images", "triton"),
        backend("sample_parameters", "triton"),
        pytest.raises(ValueError, match=f"^{name}: ") as caught,
    ):
        augment_images(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(ON_GPU, reason="says what runs on a CPU")
def test_a_cpu_takes_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dispatch.describe()["augment_images"] == ["triton", "eager", "reference (on request)"]
    monkeypatch.setattr(augment_triton, "launch", _must_not_launch)
    augment_images(pictures(2), **OPTIONS)


def test_lanes_lie_along_the_rows_of_a_picture() -> None:
    """In every layout of the result; else a warp's load touches many lines of the cache.

    It is the compiler's choice, so it is asked, in a process that does not interpret.
    """
    code = """if True:
        import re, triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource
        from kernels.augment import offline
        from kernels.offline.cases import TARGET, record

        for layout in ("nhwc", "nchw", "patches"):
            for found in record(lambda: offline._launch(offline.Variant(layout=layout))):
                source = ASTSource(fn=found.fn, signature=found.signature, attrs=found.attrs,
                                   constexprs=found.constexprs)
                made = triton.compile(source, target=GPUTarget(*TARGET), options=found.options)
                text = made.asm["ttgir"]
                of_bytes = set(re.findall(r"tt.load .*x!tt.ptr<i8>, (#\\w+)>", text))
                for name in of_bytes:
                    (lanes,) = re.findall(name + r" = .*threadsPerWarp = (\\[[^]]*\\])", text)
                    print(found.fn.__name__, layout, lanes)
    """
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    expected = [
        f"{kernel}_kernel {layout} [32, 1]"
        for layout in ("nhwc", "nchw", "patches")
        for kernel in ("grey", "augment")
    ]
    assert done.stdout.splitlines() == expected


# On a GPU only.


@pytest.mark.gpu
@layouts
def test_inductor_is_eager_bit_by_bit(layout: str) -> None:
    images = pictures(64, 256, 256)
    torch.compiler.reset()
    options: dict[str, Any] = OPTIONS | {"size": 224, "layout": layout}
    compiled = torch.compile(lambda x: augment_images(x, **options), fullgraph=True)
    assert torch.equal(bits(compiled(images)), bits(augment_images(images, **options)))


@pytest.mark.gpu
@layouts
def test_nothing_waits_for_the_gpu_and_a_graph_holds_it(layout: str) -> None:
    images, index = pictures(64, 256, 256), torch.arange(64, device=DEVICE)
    options: dict[str, Any] = OPTIONS | {"size": 224, "layout": layout, "index": index}

    def next_batch() -> None:  # other draws
        index.add_(64)

    assert_nothing_waits_and_a_graph_holds(lambda: [augment_images(images, **options)], next_batch)
