"""The tuning command: what it tries, what it leaves as it was, how it ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.attention_triton import table
from kernels.attention_triton.alternatives import alternatives, override
from kernels.attention_triton.table import Config, frozen
from kernels.offline import Compiled
from kernels.tune import Candidate, main, paste, problem, rank

ROOT = Path(__file__).parents[2]


def test_override_is_what_launches_see_and_ends() -> None:
    key = next(key for key in frozen() if key[0] == "tiled_fwd")
    before, other = frozen(), Config(16, 16, 4, heads=3)
    with override({key: other}):
        assert frozen() == {**before, key: other}
        assert table._TABLE[key] is other
    assert frozen() == before


@pytest.mark.parametrize("key", frozen(), ids=lambda key: " ".join(map(str, key)))
def test_alternatives(key: tuple[str, int, int, int]) -> None:
    row = frozen()[key]
    found = alternatives(key, row)
    assert found[0] == row and len(set(found)) == len(found) > 1
    for one in found:
        assert one.expect == row.expect and one.softcap == row.softcap
        assert key[3] < 2 or (one.block_q <= key[3] and one.block_k <= key[3])


def test_problem_takes_the_row() -> None:
    for key in frozen():
        packed = problem(key)
        assert packed.dim == key[1]
        tile = key[3]
        if tile > 1:
            below = [t for t in (64, 128, 256) if t < tile]
            assert max(below, default=0) < packed.longest <= tile
        else:
            assert packed.longest > 256


def _candidate(block: int, registers: int, warps: int, worst: int) -> Candidate:
    counts = Compiled(registers=registers, warps_per_sm=warps)
    return Candidate(Config(block, 64, 4), counts, worst)


def test_rank() -> None:
    slow, few, many = (
        _candidate(64, 96, 20, 8),
        _candidate(32, 64, 32, 4),
        _candidate(32, 90, 20, 16),
    )
    wrong = _candidate(128, 90, 64, 64)
    wrong.refused = "spills"
    assert rank([slow, few, many, wrong]) == [many, slow, few]
    slow.times_ms, few.times_ms, many.times_ms = [3.0, 1.0, 1.1], [2.0], [1.5]
    assert rank([slow, few, many, wrong]) == [slow, many, few]


def test_paste_is_a_line_of_the_table() -> None:
    key = ("heads_fwd", 8, 2, 64)
    one = Candidate(Config(32, 64, 4, 2, heads=4, expect="mma.sync"), Compiled(), 12)
    line = paste(key, one)
    assert eval(f"{{{line}\n}}", {"Config": Config}) == {key: one.config}
    one.times_ms = [0.5]
    assert "0.500 ms" in paste(key, one)


def test_refusals_are_one_line(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("kernels.tune: TRITON_INTERPRET: ")
    monkeypatch.delenv("TRITON_INTERPRET")
    assert main(["--kernel", "nothing"]) == 2
    assert "'nothing'" in capsys.readouterr().err


@pytest.mark.slow
def test_command_ranks_by_counts_without_a_gpu(tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    env |= {"CUDA_VISIBLE_DEVICES": "", "XDG_CACHE_HOME": str(tmp_path)}
    row = "--kernel doc_fwd --dim 32 --tile 64 --top 2".split()
    done = subprocess.run(
        [sys.executable, "-m", "kernels.tune", *row],
        capture_output=True, text=True, cwd=ROOT, env=env, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "nothing was timed" in done.stdout
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    assert 2 <= len(lines) <= 3 and sum("(frozen)" in line for line in lines) == 1
    for line in lines:
        ((key, config),) = eval(f"{{{line}\n}}", {"Config": Config}).items()
        assert key == ("doc_fwd", 32, 2, 64) and config in alternatives(key, frozen()[key])
