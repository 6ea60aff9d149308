"""The correctness gate: no time is reported for a result that is not right.

The truth is the op's reference in fp64 on the same inputs. An implementation may be at most twice
as far from it as the reference in the implementation's own dtype is, per element and in norm, plus
half a rounding of the output. Outputs that are not floating point must be equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .cases import Op, Part
from .peers import Run

__all__ = ["GREEN", "Gate", "Judge", "compare"]

Status = Literal["green", "red", "unavailable", "unsupported", "failed"]
_POISON_BYTES = 1 << 30


@dataclass(frozen=True)
class Gate:
    """What became of a peer on a case, and why."""

    status: Status
    detail: str = ""

    @property
    def open(self) -> bool:
        """Whether times may be reported."""
        return self.status == "green"


GREEN = Gate("green")


def compare(name: str, got: Tensor, truth: Tensor, baseline: Tensor | None) -> str | None:
    """Return what is wrong with ``got``, or None.

    Args:
        name: for the message.
        got: the result, any dtype.
        truth: the same in fp64, or an integer tensor to be equal to.
        baseline: the reference's result in the dtype of ``got``; None for integers.
    """
    if got.shape != truth.shape:
        return f"{name}: shape {tuple(got.shape)}, expected {tuple(truth.shape)}"
    if not truth.dtype.is_floating_point:
        wrong = int((got != truth).sum())
        return f"{name}: {wrong} of {truth.numel()} entries differ" if wrong else None
    assert baseline is not None
    if not bool(torch.isfinite(got).all()):
        return f"{name}: not finite"
    rounding = torch.finfo(got.dtype).eps / 2
    error, allowed = got.double() - truth, baseline.double() - truth
    largest = float(truth.abs().max()) if truth.numel() else 0.0
    worst, limit = _largest(error), 2 * _largest(allowed) + rounding * largest
    if worst > limit:
        return f"{name}: largest error {worst:.2e}, at most {limit:.2e} allowed"
    norm = float(truth.norm())
    off, limit = float(error.norm()), 2 * float(allowed.norm()) + rounding * norm
    if off > limit:
        return f"{name}: error {off / norm:.2e} of its norm, at most {limit / norm:.2e} allowed"
    return None


def _largest(x: Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 0.0


class Judge:
    """Compares runs of one op with the truth, which it computes once for each problem."""

    def __init__(self, op: Op) -> None:
        """Judge the runs of ``op``."""
        self._op = op
        self._known: dict[Any, list[tuple[Part, dict[str, Tensor], dict[str, Tensor]]]] = {}

    def verdict(self, run: Run, *, everything: bool) -> Gate:
        """Run once and compare.

        Args:
            run: the implementation; only small problems should be compared in everything.
            everything: all of the result, else a spot check of some parts.

        Returns:
            Green, red with the first difference, or unsupported with the peer's own words when
            it refuses.
        """
        self._poison(run)
        try:
            with run.around():
                out = run.forward()
                grads = None if run.backward is None else run.backward(out)
                got = {name: x.detach() for name, x in run.collect(out, grads).items()}
        except (RuntimeError, ValueError, NotImplementedError, TypeError, AssertionError) as error:
            return Gate("unsupported", first_line(error))
        dtype = next(iter(run.inputs.tensors.values())).dtype if run.inputs.tensors else None
        for part, truth, baseline in self._truths(run, everything, dtype):
            for name, expected in truth.items():
                if name not in got:
                    continue
                why = compare(name, part.pick(name, got[name]), expected, baseline.get(name))
                if why is not None:
                    return Gate("red", f"{part.name}: {why}")
            missing = [name for name in got if name not in truth]
            assert not missing, f"{self._op.name}: no truth for {missing}"
        assert got, f"{self._op.name}: nothing to compare"
        return GREEN

    def _truths(
        self, run: Run, everything: bool, dtype: torch.dtype | None
    ) -> list[tuple[Part, dict[str, Tensor], dict[str, Tensor]]]:
        key = (run.inputs.spec, everything)
        if key not in self._known:
            self._known[key] = [
                (part, part.truth(torch.float64), {} if dtype is None else part.truth(dtype))
                for part in self._op.parts(run.inputs, everything)
            ]
        return self._known[key]

    def _poison(self, run: Run) -> None:
        """Leave NaN in the memory that the run will be given, so that unwritten output shows."""
        tensors = run.inputs.leaves
        if tensors and tensors[0].is_cuda:
            free, _ = torch.cuda.mem_get_info()
            size = min(_POISON_BYTES, free // 2) // 4
            blocks = [torch.full((size,), math.nan, device=tensors[0].device)]
            blocks += [torch.full_like(x, math.nan) for x in tensors for _ in range(3)]
            del blocks


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, cut to a readable length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
