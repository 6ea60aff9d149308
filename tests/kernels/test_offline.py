"""Every kernel compiled for sm_90 in every frozen configuration; what the gate must refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support import bad_kernels

from kernels.attention_triton.table import frozen
from kernels.offline import PROVIDERS, CompileCase, Compiled, occupancy, offences

ROOT = Path(__file__).parents[2]
# The gate as a command, with a folder of kernels that it must refuse in place of ours.
BAD = """
import sys
from kernels.offline import providers
from kernels.offline.__main__ import main
providers.PROVIDERS.clear()
providers.PROVIDERS["bad"] = "support.bad_kernels"
sys.exit(main())
"""


def _run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    env |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **environment}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, env=env, timeout=900
    )


ROWS = """
import json, sys
from kernels.offline import all_cases
print(json.dumps([(case.kernel, case.row) for case in all_cases(sys.argv[1])]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("op", PROVIDERS)
def test_frozen_configurations_compile_without_spills(op: str, tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    done = _run("-m", "kernels.offline", "--quick", "--op", op, "--json", str(file))
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert found and " 0 offences" in done.stdout
    for case in found:
        label = f"{case['kernel']} {case['row']} {case['variant']}"
        assert case["stack_bytes"] == case["spill_bytes"] == 0, label
        assert 0 < case["registers"] <= 255 and case["warps_per_sm"] > 0, label
        tensor_core = {"wgmma": case["wgmma"], "mma.sync": case["mma_sync"]}
        for instruction, count in tensor_core.items():
            assert (count > 0) == (case["expect"] == instruction), label
    every = _run("-c", ROWS, op)
    assert {(case["kernel"], str(case["row"])) for case in found} == {
        (kernel, str(row)) for kernel, row in json.loads(every.stdout)
    }, every.stderr
    if op == "attention":
        assert {tuple(case["row"]) for case in found} == set(frozen())
        expected = {key: config.expect for key, config in frozen().items()}
        assert all(case["expect"] == expected[tuple(case["row"])] for case in found)


def test_gate_names_what_it_refuses(tmp_path: Path) -> None:
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    first = _run("-c", BAD, "--jobs", "2", **cache)
    assert first.returncode == 1
    reasons = {
        "huge": "spills ",
        "fp32": "lost wgmma",
        "tensor": "4 wgmma where fma was expected",
        "wide": "does not fit",
        "broken": "does not compile: CompilationError",
    }
    lines = first.stderr.splitlines()
    for variant, reason in reasons.items():
        assert any(f"| {variant}: {reason}" in line for line in lines), (variant, first.stderr)
    assert not any("| good" in line for line in lines)
    assert {case["name"] for case in bad_kernels.offline_cases()} == {"good", *reasons}
    # From the cache the same counts. "good" and "tensor" are one compilation; no error is kept.
    assert len(list(tmp_path.rglob("*.json"))) == 4
    again = _run("-c", BAD, "--kernel", "product", **cache)
    table = [line for line in first.stdout.splitlines() if line.startswith("product")]
    squeeze = [" ".join(line.split()) for line in table]
    assert squeeze == [
        " ".join(line.split()) for line in again.stdout.splitlines() if line.startswith("product")
    ]


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        ([], {"TRITON_INTERPRET": "1"}, "kernels.offline: TRITON_INTERPRET: "),
        (["--kernel", "nothing"], {}, "kernels.offline: --kernel: one of "),
    ],
)
def test_what_cannot_be_compiled_is_one_line(
    arguments: list[str], environment: dict[str, str], line: str
) -> None:
    done = _run("-m", "kernels.offline", *arguments, **environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(line) and len(done.stderr.splitlines()) == 1


def test_occupancy() -> None:
    # By registers (255 are given out as 256), by warps, by blocks, by shared memory.
    assert [occupancy(255, 0, warps) for warps in (4, 8)] == [2, 1]
    assert [occupancy(r, 0, 8) for r in (128, 129, 64, 24)] == [2, 1, 4, 8]
    assert occupancy(16, 0, 1) == 32
    assert [occupancy(32, size, 4) for size in (113 * 1024, 113 * 1024 + 1, 227 * 1024)] == [
        2,
        1,
        1,
    ]
    # 96 registers are 3072 a warp: 5 of them in each quarter's 16,384, 20 in all.
    assert occupancy(96, 0, 4) == 5 and occupancy(96, 0, 8) == 2


def test_offences() -> None:
    case = CompileCase(
        "op", "k", None, {}, {}, {}, {"num_warps": 4}, expect="wgmma", row=("k", 64), variant="bf16"
    )
    good = Compiled(registers=128, wgmma=4, blocks_per_sm=2, warps_per_sm=8)
    assert offences(case, good) == []
    for change, said in (
        ({"spill_bytes": 8}, "spills 8 bytes"),
        ({"stack_bytes": 8}, "stack of 8 bytes"),
        ({"wgmma": 0}, "lost wgmma"),
        ({"mma_sync": 2}, "2 mma.sync where wgmma was expected"),
        ({"blocks_per_sm": 0}, "does not fit"),
        ({"wgmma_serialized": True}, "serialized"),
    ):
        (found,) = offences(case, replace(good, **change))
        assert said in found
    assert offences(replace(case, spill_budget_bytes=8), replace(good, spill_bytes=8)) == []
    assert offences(replace(case, expect="none"), good) == []
    assert case.label == "k | 64 | bf16"
