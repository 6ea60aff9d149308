"""Pieces of work on threads: every piece once, one torch thread each, errors and forks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kernels import workers


@pytest.fixture
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_threads")
def test_workers() -> None:
    done: list[int] = []
    threads: set[int] = set()

    def work(piece: int) -> None:
        threads.add(torch.get_num_threads())
        assert not torch.is_grad_enabled()
        done.append(piece)

    workers.run(work, range(50))
    assert sorted(done) == list(range(50))
    assert threads == {1} and torch.get_num_threads() == 2

    def fails(piece: int) -> None:
        if piece == 7:
            raise ArithmeticError("piece 7")

    with pytest.raises(ArithmeticError, match="piece 7"):
        workers.run(fails, range(50))
    workers.run(work, [])
    done.clear()
    workers.run(work, range(50), ordered=True)
    assert done == list(range(50))


FORKS = """
import os, torch
from kernels import attention, intervals
torch.set_num_threads(2)
q, mask = torch.randn(400, 4, 8), intervals(torch.tensor([0, 200, 400]))
from kernels import attention_blocks
attention_blocks.SCORES = 4096
want = attention(q, q, q, mask)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(attention(q, q, q, mask), want) else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_has_its_own_threads() -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    assert (
        subprocess.run([sys.executable, "-c", FORKS], env=environment, timeout=100).returncode == 0
    )
