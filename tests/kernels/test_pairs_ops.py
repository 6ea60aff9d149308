"""The Triton losses over all pairs as PyTorch and the compile gate see them."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.cuda_graphs import assert_nothing_waits_and_a_graph_holds
from support.numerics import (
    DEVICE,
    kernels_as_on_hardware,  # noqa: F401  (a fixture)
)
from support.pair_cases import (
    LOSSES,
    Pairs,
    evaluate,
    features,
    labels_of,
    public,
    scalars_of,
)
from support.row_ops import assert_compiled_is_eager, backend
from torch import Tensor
from torch._subclasses import FakeTensorMode

from kernels.pairs import contrastive_launch, launch, sigmoid_launch
from kernels.pairs.common import ids_of
from kernels.pairs.ops import (
    contrastive_backward,
    contrastive_forward,
    sigmoid_backward,
    sigmoid_forward,
)

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
every_loss = pytest.mark.parametrize("loss", LOSSES)
every_dtype = pytest.mark.parametrize("dtype", [FP32, FP16, BF16], ids=str)
ROOT = Path(__file__).parents[2]


# As PyTorch sees it ------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("labels", [0, 3])
def test_compiled_is_eager_bit_by_bit(loss: str, labels: int) -> None:
    """The public function, in one graph."""
    pairs = Pairs(loss, 20, 24, FP32, labels=labels)
    leaves = [*features(pairs), *scalars_of(pairs)]
    known = labels_of(pairs)
    assert_compiled_is_eager(f"{loss}_loss", lambda *x: public(pairs, *x, known), leaves)


@every_loss
@pytest.mark.parametrize("labels", [0, 3])
def test_fake_tensors_have_the_shapes_and_launch_nothing(
    loss: str, labels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = Pairs(loss, 20, 24, BF16, labels=labels)
    real = evaluate(pairs, *features(pairs))
    for module in (contrastive_launch, sigmoid_launch, launch):
        monkeypatch.setattr(module, "launch", _must_not_launch)
    given, known = [*features(pairs), *scalars_of(pairs)], labels_of(pairs)
    with FakeTensorMode() as mode, backend(f"{loss}_loss", "triton"):
        leaves = [mode.from_tensor(x).requires_grad_() for x in given]
        out = public(pairs, *leaves, None if known is None else mode.from_tensor(known))
        made = [out, *torch.autograd.grad(out, leaves)]
    for a, b in zip(made, real, strict=True):
        assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())


def _must_not_launch(*_: object, **__: object) -> None:
    raise AssertionError("launched")


def _operators() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    pairs = Pairs(count=20, dim=24, labels=3)
    image, text = features(pairs)
    one, bias = (torch.tensor([x], device=DEVICE) for x in (3.0, -2.0))
    labels = labels_of(pairs)
    assert labels is not None
    ids, counts = ids_of(labels)
    shares = counts.float().reciprocal()
    stats = torch.rand(3, 20, device=DEVICE), torch.rand(2, 20, device=DEVICE)
    made = torch.rand_like(image), torch.rand_like(text), torch.rand(2, device=DEVICE)
    return {
        "contrastive": (contrastive_forward, (image, text, one, None, None)),
        "contrastive labels": (contrastive_forward, (image, text, one, ids, shares)),
        "contrastive back": (
            contrastive_backward, (one, image, text, one, None, None, *stats, True, True),
        ),
        "contrastive labels back": (
            contrastive_backward, (one, image, text, one, ids, shares, *stats, False, True),
        ),
        "sigmoid": (sigmoid_forward, (image, text, one, bias, None, True, True, True)),
        "sigmoid labels": (sigmoid_forward, (image, text, one, bias, ids, True, True, True)),
        "sigmoid alone back": (
            sigmoid_forward, (image, text, one, bias, None, False, False, False),
        ),
        "sigmoid back": (sigmoid_backward, (one, *made)),
    }  # fmt: skip


@pytest.mark.parametrize("name", _operators())
def test_registered_operators(name: str) -> None:
    """Schema, autograd registration, fake tensors and dispatch through AOT autograd."""
    operator, operands = _operators()[name]
    if not name.endswith("back"):
        operands = (*(x.requires_grad_() for x in operands[:3]), *operands[3:])
    assert set(torch.library.opcheck(operator, operands).values()) == {"SUCCESS"}


@every_loss
@pytest.mark.parametrize("traced", [False, True])
def test_second_derivative_is_refused(loss: str, traced: bool) -> None:
    """Not left out in silence."""
    pairs = Pairs(loss, 20, 24)
    leaves = [x.requires_grad_() for x in (*features(pairs), *scalars_of(pairs))]
    with backend(f"{loss}_loss", "triton"):
        loss_itself = public(pairs, *leaves, None)  # its upstream gradient is a constant
    with pytest.raises(RuntimeError, match=r"no autograd formula|gradients of gradients"):
        (grad,) = torch.autograd.grad(loss_itself, leaves[0], create_graph=True)
        grad.square().sum().backward()


def test_what_the_kernels_do_not_serve() -> None:
    pairs = Pairs()
    with (
        backend("contrastive_loss", "triton"),
        pytest.raises(RuntimeError, match="float16 or bfloat16 expected, got torch.float64"),
    ):
        public(pairs, *(x.double() for x in features(pairs)), *scalars_of(pairs), None)


def test_ids_of_labels() -> None:
    labels = torch.tensor([5, -(2**60), 5, 2**60, -1, 5], device=DEVICE)
    ids, counts = ids_of(labels)
    assert ids.dtype == counts.dtype == torch.int32
    assert counts.tolist() == [3, 1, 3, 1, 1, 3]
    assert torch.equal(ids[:, None] == ids[None], labels[:, None] == labels[None])


# Tables -----------------------------------------------------------------------------------------


def test_every_frozen_row_is_compiled_offline() -> None:
    """In a process that does not interpret; the gate then compiles what is listed here."""
    program = (
        "import json; from kernels.offline import all_cases\n"
        "print(json.dumps([[c.kernel, list(c.row), c.variant, c.expect, dict(c.options)]"
        " for c in all_cases('pairs')]))"
    )
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=env | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    cases = json.loads(done.stdout)
    rows = {tuple(row): expect for kernel, row, _, expect, _ in cases if len(row) > 1}
    assert rows == {key: config.expect for key, config in launch.frozen().items()}
    kernels = {"merge", "loss", "total", "rescale", *(key[0] for key in launch.frozen())}
    assert {kernel for kernel, *_ in cases} == kernels
    for kernel, row, variant, _, options in cases:
        config = launch.frozen().get(tuple(row))
        if config is not None:
            assert options["num_warps"] == config.warps, (kernel, variant)
            assert options["num_stages"] == config.stages, (kernel, variant)


@pytest.mark.parametrize("rows", [1, 127, 128, 500, 4096, 9000, 32_768, 131_072])
@pytest.mark.parametrize("columns", [1, 300, 32_768, 262_144])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_blocks_cover_all_pairs_once(rows: int, columns: int, itemsize: int) -> None:
    blocks = launch.blocks_of(rows, columns, 512, itemsize)
    assert sum((b.row_stop - b.row) * (b.column_stop - b.column) for b in blocks) == rows * columns
    assert blocks == sorted(blocks, key=lambda b: (b.row, b.column))
    first = blocks[0]
    for block in blocks:
        assert 0 < block.height <= first.height and 0 < block.span <= first.span
        assert block.height % 128 == block.span % 128 == 0
    assert first.height * first.span * itemsize < 2**31


def test_even_shares() -> None:
    for count, most in ((1, 1024), (1024, 1024), (1025, 1024), (32_768, 5000), (300, 100)):
        share = launch.even_share(count, most, 128)
        assert share % 128 == 0 and share <= max(most // 128 * 128, 128)
        assert math.ceil(count / share) == math.ceil(count / max(most // 128 * 128, 128))


# On a GPU only.


@pytest.mark.gpu
@every_loss
def test_inductor_is_eager_bit_by_bit(loss: str) -> None:
    pairs = Pairs(loss, 2000, 256, BF16)
    leaves = [*features(pairs), *scalars_of(pairs)]
    assert_compiled_is_eager(
        f"{loss}_loss", lambda *x: public(pairs, *x, None), leaves, engine="inductor"
    )


@pytest.mark.gpu
@every_loss
@pytest.mark.parametrize("labels", [0, 300])
def test_nothing_waits_for_the_gpu_and_a_graph_holds_it(loss: str, labels: int) -> None:
    pairs = Pairs(loss, 2048, 256, BF16, labels=labels)
    leaves = [x.requires_grad_() for x in (*features(pairs), *scalars_of(pairs))]
    known = labels_of(pairs)

    def step() -> list[Tensor]:
        out = public(pairs, *leaves, known)
        return [out, *torch.autograd.grad(out, leaves)]

    assert_nothing_waits_and_a_graph_holds(step, leaves[0].neg_)
