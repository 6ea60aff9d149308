"""The README of `kernels`: its example gives the padded original's gradients, its tables hold."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM

from kernels import dispatch, intervals
from kernels.attention_triton.table import document_tile
from kernels.bench import load_ops
from kernels.bench.cases import select_cases
from kernels.bench.counts import counts_table
from kernels.bench.tables import BEGIN, END

FOLDER = Path(__file__).parents[2] / "kernels"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
(EXAMPLE,) = [block for block in BLOCKS if "AttentionInterface" in block]
CLOSE = 1e-5
"""Largest difference allowed, beside the largest entry of the tensor: sums in another order."""


@pytest.fixture(params=["padded_sdpa", "triton"])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Force one implementation; where it runs: Triton on the GPU if there is one."""
    dispatch.set_backend("attention", request.param)
    on_gpu = request.param == "triton" and torch.cuda.is_available()
    yield "cuda" if on_gpu else "cpu"
    dispatch.set_backend("attention", None)


def _run_example(device: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    with torch.device(device):
        exec(compile(EXAMPLE, "kernels/README.md", "exec"), names)
    return names


def _padded_original(model: Any, documents: list[torch.Tensor]) -> tuple[Any, list[torch.Tensor]]:
    """Return the same model with transformers' attention after a backward, and its logits."""
    config = type(model.config).from_dict(model.config.to_dict())
    config._attn_implementation = "eager"
    original = type(model)(config).to(model.device).eval()
    original.load_state_dict(model.state_dict())
    assert original.config._attn_implementation == "eager"
    ids = pad_sequence(documents, batch_first=True)
    real = pad_sequence([torch.ones_like(document) for document in documents], batch_first=True)
    labels = ids.masked_fill(real == 0, -100)
    out = original(ids, attention_mask=real, labels=labels, use_cache=False)
    out.loss.backward()
    lengths = [document.shape[0] for document in documents]
    return original, [logits[:n] for logits, n in zip(out.logits, lengths, strict=True)]


def _assert_close(got: torch.Tensor, wanted: torch.Tensor, name: str) -> None:
    error, largest = (got - wanted).abs().max().item(), wanted.abs().max().item()
    assert largest > 0.0, name
    assert error <= CLOSE * largest, f"{name}: off by {error:.2e} of {largest:.2e}"


def _compare(model: Any, documents: list[torch.Tensor], logits: torch.Tensor) -> None:
    """Compare logits ``[1, T, V]`` and the gradients that ``model`` has with the original's."""
    original, expected = _padded_original(model, documents)
    assert min(piece.std().item() for piece in expected) > 0.01  # not all the same
    _assert_close(logits[0], torch.cat(expected), "logits")
    wanted = dict(original.named_parameters())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        _assert_close(parameter.grad, wanted[name].grad, name)


def test_gpt2_has_the_gradients_of_the_padded_original(device: str) -> None:
    names = _run_example(device)
    model, documents = names["model"], names["documents"]
    assert len(documents) > 2 and names["row"].shape == (1, sum(map(len, documents)))
    logits = model(
        names["row"], position_ids=names["positions"], mask=intervals(names["cu_seqlens"])
    ).logits
    _compare(model, documents, logits)


def test_grouped_queries_of_a_llama(device: str) -> None:
    _run_example(device)  # registers "packed"
    config = LlamaConfig(
        vocab_size=50, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        initializer_range=0.2,
    )  # fmt: skip
    with torch.device(device):
        model = LlamaForCausalLM(config).eval()
        model.set_attn_implementation("packed")
        documents = [torch.randint(50, (length,)) for length in (5, 33, 1, 18)]
        cu_seqlens = torch.tensor([0, 5, 38, 39, 57])
        positions = torch.cat([torch.arange(len(document)) for document in documents])[None]
    row = torch.cat(documents)[None]
    labels = row.masked_fill(positions == 0, -100)
    out = model(
        row,
        position_ids=positions,
        labels=labels,
        mask=intervals(cu_seqlens),
        use_cache=False,
    )
    out.loss.backward()
    _compare(model, documents, out.logits)


def test_example_is_short_and_public() -> None:
    lines = [line for line in EXAMPLE.splitlines() if line.strip() and line.strip()[0] != "#"]
    assert len(lines) <= 15
    assert max(map(len, lines)) <= 100
    assert re.findall(r"^.*\bkernels\b.*$", EXAMPLE, re.MULTILINE) == [
        "from kernels import attention, intervals"
    ]


def test_the_folder_works_alone(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    program = (
        "import sys, torch, triton\n"
        "before = set(sys.modules)\n"
        "from kernels import attention, intervals\n"
        "x = torch.randn(9, 2, 8, requires_grad=True)\n"
        "attention(x, x, x, intervals(torch.tensor([0, 4, 4, 9]))).sum().backward()\n"
        "assert x.grad.isfinite().all()\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sys.modules['kernels'].__file__, *sorted(new - set(sys.stdlib_module_names)))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    where, *new = run.stdout.split()
    assert where == str(tmp_path / "kernels" / "__init__.py")
    assert set(new) <= {"kernels", "torch", "triton"}


def test_results_stand_between_the_markers() -> None:
    assert README.count(BEGIN) == 1 and README.count(END) == 1
    assert README.index(BEGIN) < README.index(END)


def _table(title: str) -> list[list[str]]:
    """Return the cells of the table whose first column has this title, without its head."""
    lines = iter(README.splitlines())
    for line in lines:
        if line.startswith(f"| {title} |"):
            break
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip(" `") for cell in line.strip("|").split("|")])
    assert len(rows) > 1, f"no table begins with {title!r}"
    return rows[1:]


def test_implementations_are_those_of_the_dispatcher() -> None:
    rows = [
        f"{name} (on request)" if when == "only when asked for" else name
        for name, _, when in _table("name")
    ]
    known = dispatch.describe()["attention"]
    assert sorted(rows) == sorted(known)
    assert rows[:2] == known[:2] == ["triton", "padded_sdpa"]  # the order of preference


def test_document_lengths_are_those_of_the_frozen_table() -> None:
    for dims, *cells in _table("D"):
        first, _, last = dims.partition("–")
        for dim in range(int(first), int(last or first) + 1, 8):
            found = [
                max(
                    (n for n in (64, 128, 256) if document_tile(mode, dim, dtype, n, False)),
                    default=0,
                )
                for dtype in (torch.bfloat16, torch.float32)
                for mode in ("fwd", "bwd")
            ]
            assert found == [int(cell) if cell.isdigit() else 0 for cell in cells], dim


def test_counts_are_what_the_command_prints() -> None:
    load_ops()
    printed = counts_table(select_cases(["attention"], ["P1", "BABY"])).splitlines()
    wanted = [line for line in printed if line.startswith("|")]
    found = [line for line in README.splitlines() if line in wanted]
    assert found == wanted, "paste: python -m kernels.bench --counts --case P1 BABY"


def test_commands_exist() -> None:
    commands = re.findall(r"python -m (kernels[\w.]*)([^\n`#|]*)", README)
    assert len({module for module, _ in commands}) == 3
    makefile = (FOLDER.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)", README):
        assert f"\n{target}:" in makefile, target
    for module, arguments in commands:
        found = importlib.util.find_spec(module)
        assert found is not None and found.origin is not None, module
        path = Path(found.origin)
        source = path.with_name("__main__.py") if path.name == "__init__.py" else path
        text = source.read_text(encoding="utf-8")
        for flag in re.findall(r"--[a-z-]+", arguments):
            assert f'"{flag}"' in text, f"{module} {flag}"
