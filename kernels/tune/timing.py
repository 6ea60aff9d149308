"""Candidates on a GPU: through the launch code that users take, interleaved, results compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .search import Candidate
from .tunable import Problem, Tunable

if TYPE_CHECKING:
    from ..bench.cases import Scale
    from ..bench.peers import Run

__all__ = ["measure"]

MOST_APART = 0.02
"""Of a result's norm; rounding and the order of sums are less."""


def measure(
    of: Tunable,
    key: Any,
    candidates: Sequence[Candidate],
    budget_s: float,
    device: torch.device | str = "cuda",
    scale: Scale = "full",
    problem: Problem | None = None,
) -> bool:
    """Time candidates, interleaved and cold, each checked against the first one's result.

    Returns:
        Whether there is a problem to time the row on (``problem``, or the op's own).
    """
    from ..bench.measure import Options, interleave, launches_of, timer_for

    problem = problem or of.problem(key)
    if problem is None:
        return False
    device = torch.device(device)
    inputs = problem.inputs(device, scale)
    options = Options(budget_s=budget_s, caches=("cold",))
    expected: dict[str, Tensor] | None = None
    owners: list[Candidate] = []
    for candidate in candidates:
        run = problem.run(inputs)  # a fresh one: a step changes what it works on
        try:
            with _both(run.around, of, key, candidate.config):
                got = _results(run)
        except Exception as error:  # of the compiler's, too, which are of any kind
            candidate.refused = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        expected = expected or got
        apart = {name: _distance(got[name], expected[name]) for name in got}
        wrong = [name for name, distance in apart.items() if not distance < MOST_APART]
        if wrong:
            candidate.refused = (
                f"{wrong[0]} differs from the frozen row's by {apart[wrong[0]]:.3f} in norm"
            )
            continue
        owners.append(candidate)
    run = expected = None  # memory that the shared run may want
    shared = problem.run(inputs)
    launches = []
    for candidate in owners:
        around = partial(_both, shared.around, of, key, candidate.config)
        own = replace(shared, around=around)
        launches += launches_of(str(candidate.config), own, [problem.mode], options.caches)
    interleave(launches, timer_for(device), options)
    for candidate, launch in zip(owners, launches, strict=True):
        candidate.times_ms = launch.samples
        candidate.refused = launch.failed
    return True


def _results(run: Run) -> dict[str, Tensor]:
    out = run.forward()
    grads = None if run.backward is None else run.backward(out)
    named = run.collect(out, grads)
    return {name: x.detach() for name, x in named.items()}


@contextmanager
def _both(
    around: Callable[[], AbstractContextManager[Any]], of: Tunable, key: Any, config: Any
) -> Iterator[None]:
    with around(), of.override({key: config}):
        yield


def _distance(got: Tensor, expected: Tensor) -> float:
    norm = expected.float().norm().clamp(min=torch.finfo(torch.float32).tiny)
    return float((got.float() - expected.float()).norm() / norm)
