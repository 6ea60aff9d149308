"""What each op tells the tuning command: rows, alternatives, cases, problems, lines to paste."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from kernels.bench.cases import Inputs
from kernels.bench.peers import Run
from kernels.offline import Compiled
from kernels.optimizer.tables import Kind
from kernels.tune import Candidate, main, measure, paste, rank
from kernels.tune.providers import PROVIDERS, tunable
from kernels.tune.tunable import Problem

ROOT = Path(__file__).parents[2]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OPS = [op for op in PROVIDERS if op != "attention"]  # whose rows are tested in test_tune


def _rows() -> list[Any]:
    return [
        pytest.param(op, key, id=f"{op} {tunable(op).name(key)}")
        for op in OPS
        for key in tunable(op).frozen()
    ]


@pytest.mark.parametrize(("op", "key"), _rows())
def test_alternatives_and_their_lines(op: str, key: Any) -> None:
    of = tunable(op)
    row = of.frozen()[key]
    found = of.alternatives(key, row)
    assert found[0] == row and len(set(found)) == len(found) > 1
    assert of.parts(key)["kernel"] in of.kernels
    names = {type(row).__name__: type(row), "torch": torch, "Kind": Kind}
    own_key = {"rows": key[1:], "fused": key[-1]}[key[0]] if op == "cross_entropy" else key
    for one in found:
        candidate = Candidate(one, Compiled(registers=64, warps_per_sm=32), 32)
        assert eval(f"{{{paste(key, candidate, of=of)}\n}}", names) == {own_key: one}


class Taken(Exception):
    """A launch looked at the row."""


class Trap:
    def __getattr__(self, name: str) -> Any:
        raise Taken(name)


@pytest.mark.parametrize(("op", "key"), _rows())
def test_problem_takes_the_row(op: str, key: Any) -> None:
    """In its mode, through the launch code."""
    of = tunable(op)
    problem = of.problem(key)
    if problem is None:
        assert op == "adamw"
        return
    inputs = problem.inputs(DEVICE, "smoke")
    run = problem.run(inputs)
    with run.around():
        out = None
        if problem.mode == "bwd":  # the forward is another row's
            out = run.forward()
        with of.override({key: Trap()}), pytest.raises(Taken):
            out = run.forward() if out is None else out
            assert run.backward is not None
            run.backward(out)


def test_rank_of_what_memory_bounds() -> None:
    """More bytes under way go before more warps, but only where nothing is multiplied."""
    config = type(tunable("embedding").frozen()[256, 2])
    few, many = (
        Candidate(one, Compiled(registers=64, warps_per_sm=warps), warps, streams=True)
        for one, warps in ((config(256, 8, 4, 1), 20), (config(256, 4, 2, 2), 40))
    )
    assert (few.under_way, many.under_way) == (20 * 2048, 20 * 1024)
    assert rank([many, few]) == [few, many]
    few.streams = many.streams = False
    assert rank([few, many]) == [many, few]
    few.refused = "spills"
    assert rank([few, many]) == [many]


# Times -------------------------------------------------------------------------------------------

FP32 = Kind(torch.float32, torch.float32, False)


def test_measure_times_what_runs_and_is_right() -> None:
    """A small step of AdamW, in the interpreter where there is no GPU."""
    of = tunable("adamw")
    row = of.frozen()[FP32]
    other = next(one for one in of.alternatives(FP32, row) if one.block != row.block)
    broken = type(row)(1000, 8, 64)  # no power of two
    candidates = [Candidate(config, Compiled(), 1) for config in (row, other, broken)]
    few = {"layers": 0, "words": 70, "positions": 4}
    problem = Problem("adamw", "ADAMW-124M", "fwd", 4, few)
    assert measure(of, FP32, candidates, 0.0, DEVICE, "smoke", problem)
    for candidate in candidates[:2]:
        assert not candidate.refused and len(candidate.times_ms) == 10
    assert candidates[2].refused and not candidates[2].times_ms
    assert set(rank(candidates)) == set(candidates[:2])


class _Fixed(Problem):
    """Whose result is what the row says."""

    def inputs(self, device: torch.device, scale: Any = "full") -> Inputs:
        return Inputs(None, {}, None)

    def run(self, inputs: Inputs) -> Run:
        table = tunable("adamw").table()
        return Run(
            inputs,
            lambda: torch.tensor([1.0, float(table[FP32].registers)]),
            None,
            lambda out, _: {"sum": out[:1], "result": out},
        )


@pytest.mark.parametrize("wrong", [60.0, float("nan"), float("inf")])
def test_measure_refuses_another_result(wrong: float) -> None:
    of = tunable("adamw")
    row = of.frozen()[FP32]
    same = type(row)(512, 4, row.registers)
    other = type(row)(512, 4, wrong)
    candidates = [Candidate(config, Compiled(), 1) for config in (row, same, other)]
    assert measure(of, FP32, candidates, 0.0, "cpu", problem=_Fixed("", "", "fwd"))
    assert [bool(c.times_ms) for c in candidates] == [True, True, False]
    assert candidates[2].refused.startswith("result differs from the frozen row's by ")
    assert not of.table()


def test_a_row_without_a_problem_is_not_timed() -> None:
    of = tunable("adamw")
    key = Kind(torch.bfloat16, torch.bfloat16, False)
    candidate = Candidate(of.frozen()[key], Compiled(), 1)
    assert not measure(of, key, [candidate], 0.0, DEVICE)
    assert not candidate.times_ms and not candidate.refused


# Commands ----------------------------------------------------------------------------------------


def test_list_names_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--bytes", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split(":")[0] for line in lines} == set(PROVIDERS)
    assert any(line.startswith("norm: bwd 768 2: Config(rows=4, warps=8") for line in lines)
    assert main(["--list", "--op", "pairs", "norm", "--kernel", "bwd", "--dim", "768"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(" | layer_norm LN-768 columns=768 bwd")
    assert main(["--list", "--op", "pairs", "--kernel", "bwd"]) == 2


# In a process that compiles. Cases as launches make them, of the frozen row and of others.
RECORDED = """
import json, sys
from kernels.tune.providers import tunable

def seen(of, key, config):
    return [[c.variant, repr(c.constexprs), repr(c.options)] for c in of.cases(key, config)]

found = []
for op in sys.argv[1:]:
    of = tunable(op)
    rows = {of.parts(key)["kernel"]: (key, row) for key, row in of.frozen().items()}
    for key, row in rows.values():
        before = seen(of, key, row)
        others = []
        every = of.alternatives(key, row)
        for one in (every[1], every[-1]):
            with of.override({key: one}):
                others.append([repr(one), seen(of, key, one)])
        assert seen(of, key, row) == before
        found.append([op, of.name(key), before, others])
print(json.dumps(found))
"""
COUNTED = """
import json
from kernels.optimizer.tables import Kind
from kernels.tune import count, rank
from kernels.tune.providers import tunable
import torch

of = tunable("adamw")
key = Kind(torch.float32, torch.float32, False)
every = of.cases
type(of).cases = lambda self, key, config: every(key, config)[:1]
row = of.frozen()[key]
found = count(of, key, [row, type(row)(4096, 4, 32)], jobs=1)
print(json.dumps([[c.refused, c in rank(found), c.worst_warps] for c in found]))
"""


def _run(tmp_path: Path, *command: str) -> str:
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    env |= {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, env=env, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_launches_take_what_overrides_say(tmp_path: Path) -> None:
    found = json.loads(_run(tmp_path, "-c", RECORDED, *OPS))
    assert {op for op, *_ in found} == set(OPS)
    compared = 0
    for op, name, before, others in found:
        for config, after in others:
            # Variant, constants and options; how many programs there are is none of these.
            assert [x[0] for x in before] == [x[0] for x in after], (op, name, config)
            changed = [x[1:] != y[1:] for x, y in zip(before, after, strict=True)]
            assert all(changed) or "per_sm" in config, (op, name, config)
            compared += sum(changed)
    assert compared > 150


FROZEN = """
import sys
from kernels.tune import count
from kernels.tune.providers import tunable
of = tunable(sys.argv[1])
for key, row in of.frozen().items():
    (candidate,) = count(of, key, [row], quick=True)
    print(f"{of.name(key)}: {candidate.refused or 'good'}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
def test_frozen_rows_and_exceptions_to_rules_compile(op: str) -> None:
    """Those of the workbench's own widths, too, and whatever was pasted."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    lines = _run(Path(cache), "-c", FROZEN, op).splitlines()
    assert len(lines) == len(tunable(op).frozen())
    assert not [line for line in lines if not line.endswith(": good")]


def test_what_spills_is_refused(tmp_path: Path) -> None:
    frozen, spilling = json.loads(_run(tmp_path, "-c", COUNTED))
    assert frozen[:2] == ["", True] and frozen[2] > 0
    assert "spills " in spilling[0] and not spilling[1]
