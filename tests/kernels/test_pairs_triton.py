"""The Triton losses over all pairs: error, memory, determinism, views, addresses."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from support import interpreter
from support.numerics import (
    DEVICE,
    ON_GPU,
    assert_same_bits,
    bits,
    guarded_memory,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
    peak_memory,
    poisoned_memory,
    sized,
)
from support.pair_cases import (
    LOSSES,
    Pairs,
    compare,
    evaluate,
    features,
    labels_of,
    public,
    reference,
    scalars_of,
)
from support.row_ops import ROW_VIEWS, backend
from torch import Tensor

from kernels.pairs import contrastive_launch, launch, sigmoid_launch

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
every_loss = pytest.mark.parametrize("loss", LOSSES)
every_dtype = pytest.mark.parametrize("dtype", [FP32, FP16, BF16], ids=str)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of weights and several stripes of statistics, in a small problem."""
    monkeypatch.setattr(launch, "sides", lambda rows, columns, *_: (128, 256))
    monkeypatch.setattr(contrastive_launch, "WORK_BYTES", 0)
    monkeypatch.setattr(contrastive_launch, "LEAST_STRIPE", 128)


# Error ------------------------------------------------------------------------------------------


@every_loss
@every_dtype
@pytest.mark.parametrize("count", sized([1, 2, 129], [1, 2, 63, 129, 1000, 4097]))
@pytest.mark.parametrize("dim", [8, 65])
def test_sizes(loss: str, dtype: torch.dtype, count: int, dim: int) -> None:
    compare(Pairs(loss, count, dim, dtype))
    compare(Pairs(loss, count, dim, dtype, labels=3))


@every_loss
@every_dtype
@pytest.mark.parametrize("dim", [1, 64, 128, 200, 257, 512])
def test_widths(loss: str, dtype: torch.dtype, dim: int) -> None:
    compare(Pairs(loss, sized(70, 700), dim, dtype))


@every_loss
@every_dtype
@pytest.mark.parametrize("labels", [1, 2, 40])
def test_several_positives(loss: str, dtype: torch.dtype, labels: int) -> None:
    compare(Pairs(loss, sized(150, 3000), 24, dtype, labels=labels))


@every_loss
@pytest.mark.parametrize("labels", [0, 9])
@pytest.mark.parametrize(
    ("dtype", "dim"), [(FP32, 24), (FP16, 128), (BF16, 24), (BF16, 512)], ids=str
)
def test_several_blocks(
    loss: str, dtype: torch.dtype, labels: int, dim: int, small_blocks: None
) -> None:
    """Gradients add up over 3 x 2 blocks, a column's statistics over 3 stripes."""
    assert len(launch.blocks_of(300, 300, 128, 2)) == 6
    compare(Pairs(loss, 300, dim, dtype, labels=labels))


@every_loss
@every_dtype
@pytest.mark.parametrize("scale", [0.0, -5.0, 100.0, 3000.0])
@pytest.mark.parametrize("match", [0.0, 0.9])
def test_scales(loss: str, dtype: torch.dtype, scale: float, match: float) -> None:
    """Untrained and trained, logits up to 3,000."""
    compare(Pairs(loss, 90, 24, dtype, scale=scale, match=match))


@every_dtype
@pytest.mark.parametrize("bias", [0.0, -60.0, 60.0, 1000.0])
def test_biases(dtype: torch.dtype, bias: float) -> None:
    compare(Pairs("sigmoid", 90, 24, dtype, bias=bias))


@every_loss
@pytest.mark.parametrize("upstream", [0.0, -3.0, 1e4])
def test_upstream_gradients(loss: str, upstream: float) -> None:
    for dtype in (FP32, BF16):
        compare(Pairs(loss, 70, 24, dtype, upstream=upstream))


@every_loss
def test_common_offset_of_all_logits(loss: str) -> None:
    """Around +1,000 for every pair: only differences count for InfoNCE."""
    pairs = Pairs(loss, 90, 32, BF16, scale=1.0, bias=-1000.0)
    image, text = features(pairs)
    image[:, 0], text[:, 0] = 32.0, 31.25
    compare(pairs, (image, text))


@every_loss
def test_small_losses_keep_their_digits(loss: str) -> None:
    """A learnt batch: the loss itself is 1e-5 beside logits of 100."""
    pairs = Pairs(loss, 70, 128, FP32, scale=1.0, bias=-107.0)
    image = torch.eye(70, 128) * 14.0**0.5
    image[:, 100] = 10.0
    found = compare(pairs, (image.to(DEVICE), image.to(DEVICE)))
    assert 0 < found[0] < 0.1


@every_loss
def test_small_weights_in_fp16(loss: str) -> None:
    """Every pair learnt, each weight 2e-6, where fp16 has two digits: they are held larger."""
    scale = 26.0 if loss == "sigmoid" else 13.0
    pairs = Pairs(loss, 70, 128, FP16, scale=scale, bias=-13.0, upstream=4096.0)
    image = torch.eye(70, 128, dtype=FP16, device=DEVICE)
    ours = evaluate(pairs, image, image)
    exact = reference(pairs, image, image, torch.float64, torch.float64)
    others = 1.0 - torch.eye(70, 128, device=DEVICE)  # from pairs that do not match
    for found, want in zip(ours[1:3], exact[1:3], strict=True):
        off = found.double() - want
        assert (off * others).norm() <= 1e-3 * (want * others).norm()
        assert off.norm() <= 1e-2 * want.norm()  # InfoNCE: 1 - p, in float32


@every_loss
@every_dtype
def test_no_pairs(loss: str, dtype: torch.dtype) -> None:
    for labels in (0, 2):
        found = evaluate(
            Pairs(loss, 0, 24, dtype, labels=labels), *features(Pairs(loss, 0, 24, dtype))
        )
        assert found[0] == 0 and found[1].shape == found[2].shape == (0, 24)
        assert all(x == 0 for x in found[3:])


# Memory -----------------------------------------------------------------------------------------


def _new_empty(x: Tensor, *size: Any, **options: Any) -> Tensor:
    given = {name: value for name, value in options.items() if value is not None}
    return torch.empty(*size, **({"dtype": x.dtype, "device": x.device} | given))


@every_loss
@pytest.mark.parametrize(("dtype", "labels"), [(FP32, 9), (BF16, 0), (BF16, 9)], ids=str)
def test_same_bits_whatever_the_memory_holds(
    loss: str, dtype: torch.dtype, labels: int, small_blocks: None
) -> None:
    """Memory full of NaN, nothing written outside of a result, and the same bits again."""
    pairs = Pairs(loss, sized(260, 3000), 40, dtype, labels=labels)
    once = partial(evaluate, pairs, *features(pairs))
    first = [bits(x).clone() for x in once()]
    assert_same_bits(once, sized(2, 100))
    with poisoned_memory():
        assert all(torch.equal(bits(a), b) for a, b in zip(once(), first, strict=True))
    with mock.patch.object(Tensor, "new_empty", _new_empty), guarded_memory():
        found = once()
    assert all(torch.equal(bits(a), b) for a, b in zip(found, first, strict=True))


@every_loss
@pytest.mark.parametrize("view", ROW_VIEWS)
@pytest.mark.parametrize(("dtype", "dim"), [(FP32, 64), (FP16, 40), (BF16, 128)], ids=str)
def test_views(loss: str, dtype: torch.dtype, view: str, dim: int) -> None:
    """Strided, misaligned, between NaN: the bits of the contiguous tensor."""
    pairs = Pairs(loss, 70, dim, dtype)
    given = features(pairs)
    seen = tuple(ROW_VIEWS[view](x) for x in given)
    for a, b in zip(evaluate(pairs, *seen), evaluate(pairs, *given), strict=True):
        assert torch.equal(bits(a), bits(b))


@pytest.mark.parametrize("view", ROW_VIEWS)
@pytest.mark.parametrize(("dim", "padded"), [(64, 64), (40, 64), (128, 128), (200, 256)])
def test_aligned(view: str, dim: int, padded: int) -> None:
    """What kernels are given: rows of whole 16-byte words, zeros to fill; no copy for nothing."""
    x = features(Pairs(count=5, dim=dim, dtype=BF16))[0]
    found = launch.aligned(ROW_VIEWS[view](x))
    assert found.shape == (5, padded) and torch.equal(found[:, :dim], x)
    assert not found[:, dim:].any()
    assert found.data_ptr() % 16 == 0 and found.stride(0) % 16 == 0 and found.stride(1) == 1
    assert (launch.aligned(found) is found) and (launch.aligned(x) is x) == (dim == padded)


@every_loss
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), (0, 1)])
@pytest.mark.parametrize("labels", [0, 3])
def test_only_what_is_wanted(loss: str, wanted: tuple[int, ...], labels: int) -> None:
    pairs = Pairs(loss, 70, 40, BF16, labels=labels)
    every = evaluate(pairs, *features(pairs))
    leaves = [*features(pairs), *scalars_of(pairs)]
    for at in wanted:
        leaves[at].requires_grad_()
    with backend(f"{loss}_loss", "triton"):
        found = public(pairs, *leaves, labels_of(pairs))
        found.backward()
        with torch.no_grad():
            alone = public(pairs, *leaves, labels_of(pairs))
    assert torch.equal(bits(found), bits(every[0])) and torch.equal(bits(alone), bits(every[0]))
    for at, leaf in enumerate(leaves):
        assert (leaf.grad is not None) == (at in wanted)
        assert leaf.grad is None or torch.equal(bits(leaf.grad), bits(every[1 + at]))


@every_loss
def test_a_graph_walked_twice(loss: str) -> None:
    pairs = Pairs(loss, 70, 40, FP16)
    leaves = [x.requires_grad_() for x in (*features(pairs), *scalars_of(pairs))]
    with backend(f"{loss}_loss", "triton"):
        found = public(pairs, *leaves, labels_of(pairs))
        upstream = torch.full_like(found, 3.0)
        first = torch.autograd.grad(found, leaves, upstream, retain_graph=True)
        first = [x.clone() for x in first]
        again = torch.autograd.grad(found, leaves, upstream)
    assert all(torch.equal(bits(a), bits(b)) for a, b in zip(first, again, strict=True))


@every_loss
@pytest.mark.parametrize("side", ["image", "text"])
def test_strides_beyond_32_bits(
    loss: str, side: str, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows almost 2**23 elements apart, read in place: a tile from row 384 on leaves int32."""
    monkeypatch.setattr(launch, "sides", lambda *_: (128, 128))
    pairs = Pairs(loss, 390, 64, FP16)
    image, text = features(pairs)
    stride = (1 << 23) - 16
    assert 384 * stride > 2**31
    block = torch.empty(390 * stride, dtype=FP16, device=DEVICE)
    far = block.as_strided((390, 64), (stride, 1)).copy_(image if side == "image" else text)
    assert launch.aligned(far).data_ptr() == far.data_ptr()
    given = (far, text) if side == "image" else (image, far)
    # A 32-bit offset ends here in an error, instead of in a segmentation fault.
    with nullcontext() if ON_GPU else interpreter.checked_overflow():
        found = evaluate(pairs, *given)
    for a, b in zip(found, evaluate(pairs, image, text), strict=True):
        assert torch.equal(bits(a), bits(b))


def test_sums_beyond_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last block of gradients of more than 2**31 elements: added to what is there."""
    rows, columns, dim = (1 << 22) + 100, 100, 512
    assert (rows - 100) * dim >= 2**31
    monkeypatch.setattr(launch, "sides", lambda *_: (1 << 22, 128))
    image = torch.zeros(rows, dim, dtype=FP16, device=DEVICE)
    image[-100:] = torch.randn(100, dim, device=DEVICE)
    text = torch.randn(columns, dim, device=DEVICE).to(FP16)
    weights = torch.zeros(128, 128, dtype=FP16, device=DEVICE)
    weights[:100, :100] = torch.randn(100, 100, device=DEVICE)
    with mock.patch.object(Tensor, "new_empty", _small_weights):
        made = launch.Gradients(image, text, True, True)
    block = made.blocks[-1]
    assert (block.row, block.row_stop) == (1 << 22, rows)
    made.weights = weights.flatten()
    made.dtext.fill_(1.0)
    assert made._text_low is not None
    made._text_low.zero_()
    with nullcontext() if ON_GPU else interpreter.checked_overflow():
        made.add(block, None, None, launch.boost(FP16))
    wide = weights[:100, :100].double()
    torch.testing.assert_close(
        made.dimage[-100:].double(), wide @ text.double(), rtol=2e-3, atol=2e-2
    )
    torch.testing.assert_close(
        made.dtext.double(), 1.0 + wide.T @ image[-100:].double(), rtol=2e-3, atol=2e-2
    )


def _small_weights(x: Tensor, *size: Any, **options: Any) -> Tensor:
    """Nothing in place of the weights of a whole block."""
    return _new_empty(x, 1 if size == ((1 << 22) * 128,) else size[0], *size[1:], **options)


def _extra_bytes(loss: str, count: int, dim: int) -> int:
    """Count what a step allocates beside both gradients, from the sizes that are asked for."""
    image = torch.empty(count, dim, dtype=BF16, device="meta")
    one, sizes = torch.empty(1, device="meta"), []
    original = Tensor.new_empty

    def counted(x: Tensor, *size: Any, **options: Any) -> Tensor:
        made = original(x, *size, **options)
        sizes.append(made.numel() * made.element_size())
        return made

    nothing = mock.Mock()
    with (
        mock.patch.object(Tensor, "new_empty", counted),
        mock.patch.object(contrastive_launch, "launch", nothing),
        mock.patch.object(sigmoid_launch, "launch", nothing),
        mock.patch.object(launch, "launch", nothing),
    ):
        if loss == "sigmoid":
            sigmoid_launch.forward(image, image, one, one, None, None, 0, count, True, True, True)
            return sum(sizes) - 2 * count * dim * 2
        rows, columns = contrastive_launch.statistics(image, image, one, None, 0)
        forward = sum(sizes)
        sizes.clear()
        contrastive_launch.gradients(
            one, image, image, one, None, rows, columns, 0, count, True, True
        )
    kept = (rows.numel() + columns.numel()) * 4
    return max(forward, kept + sum(sizes) - 2 * count * dim * 2)


@every_loss
def test_extra_memory(loss: str) -> None:
    """At 32,768 pairs of 512: under 64 MB beside the gradients; the matrix would take 2 GB."""
    assert 40e6 < _extra_bytes(loss, 32_768, 512) < 64e6
    assert _extra_bytes(loss, 131_072, 512) < 2**31


# On a GPU only.


@pytest.mark.gpu
@every_loss
def test_peak_memory_at_full_size(loss: str) -> None:
    pairs = Pairs(loss, 32_768, 512, BF16)
    given = features(pairs)
    gradients = 2 * 32_768 * 512 * 2
    evaluate(pairs, *given)  # compiles
    assert peak_memory(lambda: evaluate(pairs, *given)) - gradients < 64e6


@pytest.mark.gpu
@every_loss
def test_full_size(loss: str) -> None:
    compare(replace(Pairs(loss, 8192, 512, BF16), match=0.3))
