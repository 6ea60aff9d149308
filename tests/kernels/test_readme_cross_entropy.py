"""The README's head without logits: its example gives the gradients of GPT-2's own loss."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.cross_entropy_cases import forced
from support.numerics import kernels_as_on_hardware  # noqa: F401  (a fixture)
from transformers import GPT2LMHeadModel

from kernels import dispatch
from kernels.cross_entropy.table import chunk_rows

README = (Path(__file__).parents[2] / "kernels" / "README.md").read_text(encoding="utf-8")
CLOSE = 1e-5
"""Largest difference allowed, beside the largest entry of the tensor: sums in another order."""


def _example() -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if "linear_cross_entropy(" in block]
    return found


@pytest.fixture(params=["chunked", "triton"])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Force one implementation; where it runs: Triton on the GPU if there is one."""
    with forced(request.param):
        yield "cuda" if request.param == "triton" and torch.cuda.is_available() else "cpu"


def _assert_close(got: torch.Tensor, wanted: torch.Tensor, name: str) -> None:
    error, largest = (got - wanted).abs().max().item(), wanted.abs().max().item()
    assert largest > 0.0, name
    assert error <= CLOSE * largest, f"{name}: off by {error:.2e} of {largest:.2e}"


def test_gpt2_has_the_gradients_of_its_own_loss(device: str) -> None:
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    with torch.device(device):
        exec(compile(_example(), "kernels/README.md", "exec"), names)
        model, tokens, labels = names["model"], names["tokens"], names["labels"]
        original = GPT2LMHeadModel(model.config).eval()
    original.load_state_dict(model.state_dict())
    for tied in (model, original):
        assert tied.lm_head.weight is tied.transformer.wte.weight
    assert 0 < (labels[:, 1:] != -100).sum() < 0.3 * labels.numel()
    wanted = original(tokens, labels=labels).loss
    wanted.backward()
    _assert_close(model(tokens, labels), wanted, "loss")
    expected = dict(original.named_parameters())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        _assert_close(parameter.grad, expected[name].grad, name)


def test_example_is_short_and_public() -> None:
    lines = [line for line in _example().splitlines() if line.strip() and line.strip()[0] != "#"]
    assert len(lines) <= 15 and max(map(len, lines)) <= 100
    assert re.findall(r"^.*\bkernels\b.*$", _example(), re.MULTILINE) == [
        "from kernels import linear_cross_entropy"
    ]


def _rows(title: str) -> list[list[str]]:
    """Return the cells of the table below the heading "Linear cross-entropy" with this title."""
    section = README.split("\n## Linear cross-entropy\n")[1].split("\n## ")[0]
    table = section[section.index(f"| {title} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table]


def test_implementations_are_those_of_the_dispatcher() -> None:
    rows = [f"{name} (on request)" if "asked" in when else name for name, _, when in _rows("name")]
    assert rows == dispatch.describe()["linear_cross_entropy"]


def test_memory_is_what_the_table_of_chunks_gives() -> None:
    rows = _rows("rows × H × V")
    assert len(rows) >= 3
    for shape, *cells in rows:
        kept, width, vocab = (int(number.replace(",", "")) for number in shape.split(" × "))
        logits = chunk_rows(kept, width, vocab, 2, "cuda") * (vocab + -vocab % 16) * 2
        parts = [logits, kept * width * 2, vocab * width * 4]
        sizes = [f"{size / 2**20:,.0f} MiB" for size in (*parts, sum(parts))]
        assert cells == [*sizes, f"{3 * kept * vocab * 4 / 2**30:.1f} GiB"]
