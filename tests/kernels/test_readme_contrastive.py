"""The README's CLIP without logits: its example gives the gradients of open_clip's own loss."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.loss import ClipLoss
from support.numerics import kernels_as_on_hardware  # noqa: F401  (a fixture)
from support.row_ops import backend

from kernels import dispatch
from kernels.pairs import contrastive, sigmoid

README = (Path(__file__).parents[2] / "kernels" / "README.md").read_text(encoding="utf-8")
CLOSE = 1e-5
"""Largest difference allowed, beside the largest entry of the tensor: sums in another order."""


def _example() -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if "contrastive_loss(" in block]
    return found


@pytest.fixture(params=["eager", "triton"])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Force one implementation; where it runs: Triton on the GPU if there is one."""
    with backend("contrastive_loss", request.param):
        yield "cuda" if request.param == "triton" and torch.cuda.is_available() else "cpu"


def _assert_close(got: torch.Tensor, wanted: torch.Tensor, name: str, largest: float = 0) -> None:
    error, largest = (got - wanted).abs().max().item(), largest or wanted.abs().max().item()
    assert largest > 0.0, name
    assert error <= CLOSE * largest, f"{name}: off by {error:.2e} of {largest:.2e}"


def test_clip_has_the_gradients_of_open_clip(device: str) -> None:
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    with torch.device(device):
        exec(compile(_example(), "kernels/README.md", "exec"), names)
    model, inputs = names["model"], (names["images"], names["texts"])
    assert issubclass(names["Loss"], ClipLoss) and names["Loss"].forward is not ClipLoss.forward
    wanted = ClipLoss()(*model(*inputs))
    assert wanted > 0.5  # not learnt already
    _assert_close(names["Loss"]()(*model(*inputs)), wanted, "loss")
    named = dict(model.named_parameters())
    expected = torch.autograd.grad(wanted, list(named.values()))
    for (name, parameter), grad in zip(named.items(), expected, strict=True):
        assert parameter.grad is not None, name
        # What adds nothing (a bias of all keys) has gradients of rounding alone.
        _assert_close(parameter.grad, grad, name, max(float(grad.abs().max()), 1e-2))
    assert named["logit_scale"].grad.abs() > 1e-3


def test_example_is_short_and_public() -> None:
    lines = [line for line in _example().splitlines() if line.strip() and line.strip()[0] != "#"]
    assert len(lines) <= 15 and max(map(len, lines)) <= 100
    assert re.findall(r"^.*\bkernels\b.*$", _example(), re.MULTILINE) == [
        "from kernels import contrastive_loss"
    ]


def test_implementations_are_those_of_the_dispatcher() -> None:
    section = README.split("\n## Losses over all pairs\n")[1].split("\n## ")[0]
    table = section[section.index("| name |") :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table]
    names = [f"{name} (on request)" if "asked" in when else name for name, _, when in rows]
    for op in ("contrastive_loss", "sigmoid_loss"):
        assert names == dispatch.describe()[op]
    assert contrastive.PLAIN_LOGITS == 1024**2 and sigmoid.PLAIN_LOGITS == 512**2
    assert "up to 1,024 pairs (sigmoid: 512) the whole matrix" in section
