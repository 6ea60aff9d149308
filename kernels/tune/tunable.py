"""What an op tells about its frozen configurations, so that others can be compiled and timed.

Neither this module nor an op's that builds on it imports Triton before a row is asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, replace
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import mock

import torch

if TYPE_CHECKING:
    from ..bench.cases import Inputs, Scale
    from ..bench.peers import Run
    from ..offline import CompileCase

__all__ = ["Problem", "Tunable", "half_and_double", "neighbours"]


@dataclass(frozen=True)
class Problem:
    """What a row is timed on: a case of the workbench, in one of its modes."""

    op: str
    """Of `kernels.bench`, as `case`."""
    case: str
    mode: str
    itemsize: int = 2
    """2: bfloat16; 4: float32."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """What is different from the case."""
    spec: Any = None
    """In place of a case's."""
    make: Callable[[Any], Run] | None = None
    """In place of our Triton peer, where it does not take the row."""

    def __str__(self) -> str:
        """Name it."""
        changed = [f"{name}={value}" for name, value in self.changes.items()]
        return " ".join([self.op, self.case or str(self.spec), *changed, self.mode])

    def inputs(self, device: torch.device, scale: Scale = "full") -> Inputs:
        """Build the tensors that all candidates share."""
        from ..bench import load_ops
        from ..bench.cases import find_op, select_cases

        load_ops()
        spec = self.spec
        if spec is None:
            (case,) = select_cases([self.op], [self.case])
            spec = replace(case.spec(scale), **self.changes)
        dtype = torch.float32 if self.itemsize == 4 else torch.bfloat16
        return find_op(self.op).build(spec, device, dtype, 0)

    def run(self, inputs: Inputs) -> Run:
        """Make a run of our kernels, with tensors of its own where it writes to some."""
        if self.make is not None:
            return self.make(inputs)
        from ..bench.peers import peers

        (peer,) = (peer for peer in peers(self.op) if peer.name == "triton")
        return peer.make(inputs)


class Tunable(ABC):
    """The frozen rows of an op. A key is what its launch code looks a row up by."""

    op: ClassVar[str]
    kernels: ClassVar[tuple[str, ...]]
    """What the part "kernel" of a row may be."""

    @abstractmethod
    def table(self) -> MutableMapping[Any, Any]:
        """Return what launches look rows up in: key to configuration."""

    @abstractmethod
    def frozen(self) -> dict[Any, Any]:
        """Return the rows to be tuned, as launches take them now."""

    @abstractmethod
    def parts(self, key: Any) -> dict[str, str | int]:
        """Name the parts of a key: "kernel", "dim", "bytes", "tile" are those of the options."""

    @abstractmethod
    def alternatives(self, key: Any, config: Any) -> list[Any]:
        """Return the configurations worth trying for a row; its own comes first."""

    @abstractmethod
    def cases(self, key: Any, config: Any) -> list[CompileCase]:
        """Return what launches compile for a row that is now ``config``, the plainest first.

        Recorded from the launch code (`kernels.offline`), so under `override` it is the override's.
        """

    @abstractmethod
    def problem(self, key: Any) -> Problem | None:
        """Return what the row is timed on; None: the workbench has nothing that takes it."""

    @contextmanager
    def override(self, rows: Mapping[Any, Any]) -> Iterator[None]:
        """Let launches take these rows in place of the frozen ones."""
        with mock.patch.dict(self.table(), rows):
            yield

    def name(self, key: Any) -> str:
        """Name a row for people."""
        return " ".join(str(part) for part in self.parts(key).values())

    def key_text(self, key: Any) -> str:
        """Return a key as its table has it."""
        if not isinstance(key, tuple) or hasattr(key, "_fields"):
            return repr(key)
        return f"({', '.join(_text(part) for part in key)})"

    def paste(self, key: Any, config: Any) -> str:
        """Return the line of the op's table that makes ``config`` the row."""
        shown = []
        for item in fields(config):
            value = getattr(config, item.name)
            if item.default is MISSING:
                shown.append(_text(value))
            elif value != item.default:
                shown.append(f"{item.name}={_text(value)}")
        return f"{self.key_text(key)}: {type(config).__name__}({', '.join(shown)}),"


def _text(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def neighbours(
    config: Any, allowed: Callable[[Any], bool] = lambda _: True, **choices: Any
) -> list[Any]:
    """Return ``config``, then it with every combination of the fields in ``choices`` that may be.

    Args:
        config: a frozen dataclass.
        allowed: says of a combination whether it makes sense; the first is not asked about.
        choices: values of each field to try.
    """
    found = [config]
    for values in product(*choices.values()):
        one = replace(config, **dict(zip(choices, values, strict=True)))
        if one not in found and allowed(one):
            found.append(one)
    return found


def half_and_double(value: int, least: int, most: int) -> list[int]:
    """Return half of it, itself and its double, as far as they lie within the bounds."""
    return [one for one in (value // 2, value, 2 * value) if least <= one <= most]
