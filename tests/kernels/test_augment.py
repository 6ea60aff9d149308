"""Augmented pictures against fp64 and against torchvision's own functions, one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from support import interpreter
from support.numerics import (
    DEVICE,
    ON_GPU,
    assert_error_at_most_twice,
    bits,
    guarded_memory,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
    poisoned_memory,
    sized,
)
from support.row_ops import SEED, backend
from torch import Tensor

from kernels.augment import augment_triton
from kernels.augment.parameters import CHANGES, Parameters
from kernels.augment.public import augment_images, sample_parameters
from kernels.reference import augment_reference

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "grayscale": 0.3}
# Stored and wanted (height, width): growing, shrinking, either, odd, one pixel, many taps.
SHAPES = [
    ((40, 37), (32, 32)), ((64, 50), (20, 17)), ((13, 100), (16, 48)), ((32, 32), (32, 32)),
    ((5, 4), (1, 1)), ((1, 1), (5, 3)), ((35, 30), (7, 5)), ((21, 33), (3, 70)),
    *sized([], [((256, 256), (224, 224)), ((300, 400), (224, 224)), ((480, 640), (336, 336))]),
]  # fmt: skip
SMALL: dict[str, Any] = {"size": (20, 17), "mean": MEAN, "std": STD}


def pictures(n: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Noise over a slope of colours: neighbours differ, and so do the pictures' means."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 100, (n, height, width, 3), generator=generator)
    slope = torch.rand(n, 3, generator=generator)[:, None, None] * 155
    return (noise + slope).to(torch.uint8).to(DEVICE)


def drawn(images: Tensor, **options: Any) -> Parameters:
    index = torch.arange(images.shape[0], device=DEVICE)
    height, width = images.shape[1:3]
    return sample_parameters(index, seed=SEED, height=height, width=width, **options)


def by_torchvision(
    images: Tensor, parameters: Parameters, size: tuple[int, int], *, antialias: bool = True,
    dtype: torch.dtype = FP32,
) -> Tensor:  # fmt: skip
    """``[N, 3, H, W]`` in ``dtype``; torchvision computes in float32 or, with fp64, in that."""
    made = []
    wide = torch.float64 if dtype == torch.float64 else FP32
    for image, row in zip(images.permute(0, 3, 1, 2), parameters.table.tolist(), strict=True):
        top, left, h, w, flip = map(int, row[:5])
        brightness, contrast, saturation, hue, grey = row[5:]
        x = tv.to_dtype(image, wide, scale=True)
        x = tv.resized_crop(x, top, left, h, w, list(size), antialias=antialias)
        x = tv.horizontal_flip(x) if flip else x
        x = tv.adjust_brightness(x, brightness)
        x = tv.adjust_contrast(x, contrast)
        x = tv.adjust_saturation(x, saturation)
        x = tv.adjust_hue(x, hue) if hue else x
        x = tv.rgb_to_grayscale(x, num_output_channels=3) if grey else x
        made.append(tv.normalize(x, MEAN, STD))
    return torch.stack(made).to(dtype)


def exact(images: Tensor, parameters: Parameters, size: tuple[int, int], antialias: bool) -> Tensor:
    everything = (1 << len(CHANGES)) - 1
    return augment_reference(
        images, parameters.table, everything, *size, MEAN, STD, torch.float64, "nchw", 1, antialias
    )


def hold(
    images: Tensor, parameters: Parameters, size: tuple[int, int], *, antialias: bool = True,
    dtype: torch.dtype = FP32,
) -> Tensor:  # fmt: skip
    """Compare kernels and eager with fp64 and torchvision; return what the kernels gave."""
    truth = exact(images, parameters, size, antialias)
    path = by_torchvision(images, parameters, size, antialias=antialias, dtype=dtype)
    ours = []
    for name in ("eager", "triton"):
        with backend("augment_images", name):
            ours.append(
                augment_images(
                    images, size=size, mean=MEAN, std=STD, parameters=parameters,
                    antialias=antialias, dtype=dtype,
                )
            )  # fmt: skip
        # Sums of shares and of channels, of at most 1 / std before the mean is taken off.
        assert_error_at_most_twice(name, ours[-1], path, truth, terms=1 / min(STD))
    return ours[1]


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(("stored", "size"), SHAPES, ids=str)
def test_every_size(stored: tuple[int, int], size: tuple[int, int], antialias: bool) -> None:
    images = pictures(4, *stored)
    hold(images, drawn(images, scale=(0.2, 1.0), **JITTER), size, antialias=antialias)


@pytest.mark.parametrize("dtype", [FP16, BF16], ids=str)
def test_half_precision(dtype: torch.dtype) -> None:
    images = pictures(6, 40, 37)
    hold(images, drawn(images, **JITTER), (32, 32), dtype=dtype)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("extreme", [False, True])
def test_every_change_alone(name: str, extreme: bool) -> None:
    """Also beyond what is drawn: black, tripled, a hue turned half around."""
    images = pictures(5, 24, 24)
    parameters = drawn(images)
    rows = {"hue": (-0.5, -0.3, 0.1, 0.33, 0.5), "grey": (1.0, 0.0, 1.0, 0.0, 1.0)}
    values = rows.get(name, (0.0, 0.5, 1.0, 1.5, 3.0) if extreme else (0.7, 0.9, 1.0, 1.1, 1.3))
    parameters.table[:, 5 + CHANGES.index(name)] = torch.tensor(values, device=DEVICE)
    hold(images, Parameters(parameters.table, (name,)), (16, 16))


def test_flat_colours_keep_their_hue() -> None:
    """Grey, black, white and pure colours, where hue or saturation has no value."""
    colours = [(0, 0, 0), (255, 255, 255), (90, 90, 90), (255, 0, 0), (0, 255, 0), (0, 0, 255),
               (255, 255, 0), (0, 7, 7)]  # fmt: skip
    images = torch.tensor(colours, dtype=torch.uint8, device=DEVICE)[:, None, None]
    images = images.expand(-1, 4, 4, -1)
    parameters = drawn(images, hue=0.5, brightness=0.3)
    made = hold(images, parameters, (4, 4))
    assert torch.isfinite(made).all()


def test_reference_is_torchvision() -> None:
    images = pictures(5, 40, 37)
    for antialias in (True, False):
        parameters = drawn(images, brightness=0.6, contrast=0.6, saturation=0.6, grayscale=0.4)
        truth = exact(images, parameters, (24, 40), antialias)
        theirs = by_torchvision(
            images, parameters, (24, 40), antialias=antialias, dtype=torch.float64
        )
        torch.testing.assert_close(truth, theirs, rtol=1e-12, atol=1e-12)
    parameters = drawn(images, hue=0.5)  # torchvision turns hues in float32 only
    theirs = by_torchvision(images, parameters, (24, 40), dtype=torch.float64)
    truth = exact(images, parameters, (24, 40), True)
    torch.testing.assert_close(truth, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["triton", "eager"])
def test_nothing_drawn_is_normalisation(name: str) -> None:
    images = pictures(2, 16, 16)
    with backend("augment_images", name):
        made = augment_images(images, size=16, mean=MEAN, std=STD, dtype=FP32, train=False)
    expected = tv.normalize(images.permute(0, 3, 1, 2).float() / 255, MEAN, STD)
    torch.testing.assert_close(made, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["triton", "eager", "reference"])
@pytest.mark.parametrize(("size", "patch"), [((32, 48), 16), ((14, 28), 7), ((4, 6), 2)])
def test_layouts_hold_the_same_bits(name: str, size: tuple[int, int], patch: int) -> None:
    images = pictures(3, 30, 41)
    parameters, made = drawn(images, contrast=0.4), {}
    for layout in ("nchw", "nhwc", "patches"):
        with backend("augment_images", name):
            made[layout] = augment_images(
                images, size=size, mean=MEAN, std=STD, parameters=parameters, patch=patch,
                layout=layout,
            )  # fmt: skip
    planes = made["nchw"]
    assert planes.dtype == BF16 and planes.is_contiguous()
    assert made["nhwc"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(bits(planes), bits(made["nhwc"]))
    expected = torch.nn.functional.unfold(planes.float(), patch, stride=patch).mT
    assert made["patches"].is_contiguous()
    assert torch.equal(made["patches"].float(), expected)


def test_patches_times_weights_are_the_convolution() -> None:
    images = pictures(2, 40, 40)
    conv = torch.nn.Conv2d(3, 5, 8, stride=8).to(DEVICE)
    options: dict[str, Any] = {"mean": MEAN, "std": STD, "seed": 1, "dtype": FP32}
    rows = augment_images(images, size=32, layout="patches", patch=8, **options)
    embedded = rows @ conv.weight.flatten(1).T + conv.bias
    expected = conv(augment_images(images, size=32, **options)).flatten(2).mT
    torch.testing.assert_close(embedded, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["triton", "eager"])
def test_a_picture_does_not_depend_on_its_batch(name: str) -> None:
    images = pictures(18, 20, 27)
    number = torch.arange(18, device=DEVICE) * 1_000_003 + (1 << 40)
    options: dict[str, Any] = {**SMALL, **JITTER, "seed": SEED}
    with backend("augment_images", name):
        together = augment_images(images, index=number, **options)
        order = torch.randperm(18, generator=torch.Generator().manual_seed(0)).to(DEVICE)
        shuffled = augment_images(images[order], index=number[order], **options)
        alone = [augment_images(images[k : k + 1], index=number[k : k + 1], **options)
                 for k in (0, 7, 17)]  # fmt: skip
    assert torch.equal(bits(shuffled), bits(together[order]))
    for k, one in zip((0, 7, 17), alone, strict=True):
        assert torch.equal(bits(one[0]), bits(together[k]))


@pytest.mark.parametrize("name", ["triton", "eager"])
def test_only_the_window_counts(name: str) -> None:
    """Pixels beside the window change nothing, and the filled part bounds the window."""
    images = pictures(4, 30, 41)
    sizes = torch.tensor([[30, 41], [7, 41], [30, 3], [1, 1]], device=DEVICE)
    parameters = drawn(images, scale=(0.2, 0.5), sizes=sizes, contrast=0.4)
    other = 255 - images
    for k, (top, left, h, w) in enumerate(parameters.table[:, :4].int().tolist()):
        assert min(top, left) >= 0 and top + h <= sizes[k, 0] and left + w <= sizes[k, 1]
        other[k, top : top + h, left : left + w] = images[k, top : top + h, left : left + w]
    with backend("augment_images", name):
        made = [augment_images(x, parameters=parameters, **SMALL) for x in (images, other)]
    assert torch.equal(bits(made[0]), bits(made[1]))


@pytest.mark.parametrize("name", ["triton", "eager"])
def test_flip_is_a_mirror(name: str) -> None:
    images = pictures(2, 30, 41)
    plain, mirrored = drawn(images), drawn(images)
    plain.table[:, 4], mirrored.table[:, 4] = 0.0, 1.0
    with backend("augment_images", name):
        made = [augment_images(images, parameters=p, **SMALL) for p in (plain, mirrored)]
    assert torch.equal(made[0].flip(3), made[1])


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "rows apart": lambda x: _within(x, (0, 3, 0, 0)),
    "columns apart": lambda x: _within(x, (0, 0, 5, 0)),
    "a fourth channel": lambda x: _within(x, (0, 0, 0, 1)),
    "everywhere": lambda x: _within(x, (2, 1, 1, 1)),
    "planes": lambda x: x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
    "one byte on": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
    "one picture": lambda x: x[:1].clone().expand(x.shape),
}


def _within(x: Tensor, more: tuple[int, ...]) -> Tensor:
    """A view of ``x``'s values in a larger block, with ``more`` on either side."""
    block = torch.full([n + 2 * m for n, m in zip(x.shape, more, strict=True)], 77,
                       dtype=x.dtype, device=x.device)  # fmt: skip
    view = block[tuple(slice(m, m + n) for n, m in zip(x.shape, more, strict=True))]
    return view.copy_(x)


@pytest.mark.parametrize("view", VIEWS)
def test_any_layout_of_the_stored_pictures(view: str) -> None:
    images = pictures(3, 30, 41)
    moved = VIEWS[view](images)
    for name in ("triton", "eager"):
        with backend("augment_images", name):
            found = augment_images(moved, seed=SEED, **SMALL, **JITTER)
            expected = augment_images(moved.contiguous(), seed=SEED, **SMALL, **JITTER)
        assert torch.equal(bits(found), bits(expected))


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "patches"])
def test_same_bits_whatever_the_memory_holds(layout: str) -> None:
    """Memory full of NaN, nothing written outside of the result."""
    images = pictures(3, 30, 41)

    def once() -> Tensor:
        with backend("augment_images", "triton"), backend("sample_parameters", "triton"):
            return augment_images(
                images, seed=SEED, layout=layout, size=(14, 35), patch=7, mean=MEAN, std=STD,
                **JITTER,
            )  # fmt: skip

    first = once()
    for _ in range(sized(1, 100)):
        assert torch.equal(bits(once()), bits(first))
    with poisoned_memory():
        assert torch.equal(bits(once()), bits(first))
    with guarded_memory():
        assert torch.equal(bits(once()), bits(first))


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # of NaN, on purpose
def test_a_table_of_nonsense_reads_only_the_picture() -> None:
    """Windows beyond the picture, and no numbers at all: whatever lies around is not touched."""
    rows = torch.tensor(
        [[-5.0, -7, 9, 9], [28, 39, 30, 41], [0, 0, 1e9, 1e9], [1e9, 1e9, 5, 5], [0, 0, 0, -3],
         [torch.nan] * 4, [torch.inf] * 4]
    )  # fmt: skip
    table = torch.cat([rows, torch.tensor([1.0, 1, 1, 1, 0, 0]).expand(7, -1)], 1).to(DEVICE)
    images, made = pictures(7, 30, 41), []
    for around in (0, 255):
        block = torch.full((9, 40, 60, 3), around, dtype=torch.uint8, device=DEVICE)
        block[1:-1, 5:-5, 9:-10] = images
        with backend("augment_images", "triton"):
            view = block[1:-1, 5:-5, 9:-10]
            made.append(augment_images(view, parameters=Parameters(table, ("contrast",)), **SMALL))
    assert torch.equal(bits(made[0]), bits(made[1]))
    inside = hold(images[1:2], Parameters(torch.tensor([[20.0, 30, 10, 11, 1, 1, 1, 1, 0, 0]],
                                                       device=DEVICE)), (20, 17))  # fmt: skip
    assert torch.isfinite(inside).all()


def test_a_large_result_has_its_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """More tiles than one program adds up."""
    images = pictures(2, 8, 8)
    index = torch.arange(2, device=DEVICE)
    parameters = sample_parameters(
        index, seed=1, height=8, width=8, contrast=0.9, brightness=0.5, flip=0.0
    )
    parts = []

    def counted(*args: Any, **options: Any) -> None:
        parts.append(options.get("PARTS"))
        launch(*args, **options)

    launch = augment_triton.launch
    monkeypatch.setattr(augment_triton, "launch", counted)
    monkeypatch.setattr(augment_triton, "MOST_PARTS", 3)
    hold(images, parameters, (40, 40))
    assert parts == [None, 1]


@pytest.mark.skipif(ON_GPU, reason="single programs, in the interpreter")
def test_more_than_2_to_the_31_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last programs of a grid, on memory of which only the touched pages exist."""
    n = (1 << 31) // (64 * 64 * 3) + 2
    launched = []

    def sampled(kernel: Any, grid: tuple[int, ...], of: Tensor, *args: Any, **options: Any) -> None:
        options = {k: v for k, v in options.items() if k != "num_warps"}
        interpreter.run_programs(kernel, grid[0], range(grid[0] - 4, grid[0]), args, options)
        launched.append(grid[0])

    images = torch.empty(n, 64, 64, 3, dtype=torch.uint8)
    images[-1:] = pictures(1, 64, 64)
    table = torch.empty(n, 10)
    table[-1:] = drawn(images[-1:], **JITTER).table
    expected = augment_images(
        images[-1:], size=32, mean=MEAN, std=STD, parameters=Parameters(table[-1:]), dtype=FP16
    )
    monkeypatch.setattr(augment_triton, "launch", sampled)
    with backend("augment_images", "triton"):
        made = augment_images(
            images, size=32, mean=MEAN, std=STD, parameters=Parameters(table), dtype=FP16
        )
    assert launched[-1] == 2 * n  # two tiles a picture
    torch.testing.assert_close(made[-1:], expected, rtol=2e-3, atol=2e-3)
