"""Building the mask: cases and peers of ``intervals``, one mode (build), no backward.

What a training step pays before its first attention: document ends and prefix lengths lie on the
device already, the number of rows is known on the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.intervals import Intervals, intervals
from kernels.intervals_torch import row_vectors

from .attention_cases import Packed
from .cases import Case, Inputs, Op, Part, Scale, Work, register_case, register_op
from .cases import cases as cases_of
from .peers import Peer, Run, anywhere, register_peer

__all__ = ["IntervalInputs"]

_VECTORS = ("start", "stop", "q_start", "q_stop")


class IntervalInputs(Inputs):
    """Document ends ``[D + 1]`` and prefix lengths ``[D]``, int32 on the device."""

    def __init__(self, spec: Packed, device: torch.device) -> None:
        """Move the document lists of ``spec``."""
        super().__init__(spec, {}, None)
        self.ends = spec.ends().to(device)
        prefix_lens = spec.prefix_lens()
        self.prefix_lens = None if prefix_lens is None else prefix_lens.to(device)


def _build(spec: Packed, device: torch.device, dtype: torch.dtype, seed: int) -> IntervalInputs:
    return IntervalInputs(spec, device)


def _parts(inputs: IntervalInputs, everything: bool) -> Sequence[Part]:
    def truth(dtype: torch.dtype) -> dict[str, Tensor]:
        expected = inputs.spec.intervals()
        found = {name: getattr(expected, name) for name in _VECTORS}
        found |= {f"groups {tile}": group for tile, group in expected.groups.items()}
        return {name: x.to(inputs.ends.device) for name, x in found.items()}

    return [Part("the whole row", truth, lambda _, tensor: tensor)]


def _work(spec: Packed, dtype: torch.dtype) -> dict[str, Work]:
    """Read the document lists, write four int32 vectors."""
    read = 4 * (len(spec.lengths) + 1) + (0 if spec.prefix is None else 4 * len(spec.lengths))
    return {"build": Work(read + 4 * 4 * spec.total, 0)}


def _kernel(inputs: IntervalInputs) -> Run:
    spec = inputs.spec

    def build() -> Intervals:
        return intervals(
            inputs.ends,
            prefix_lens=inputs.prefix_lens,
            window=spec.window,
            total=spec.total,
            max_len=spec.longest,
        )

    def collect(out: Intervals, _: None) -> dict[str, Tensor]:
        found = {name: getattr(out, name) for name in _VECTORS}
        return found | {f"groups {tile}": group for tile, group in out.groups.items()}

    return Run(inputs, build, None, collect, build=build)


def _torch(inputs: IntervalInputs) -> Run:
    spec = inputs.spec

    def build() -> dict[str, Tensor]:
        made = row_vectors(inputs.ends, spec.total, inputs.prefix_lens, True, spec.window, None)
        return {name: getattr(made, name) for name in _VECTORS}

    return Run(inputs, build, None, lambda out, _: out, build=build)


register_op(
    Op(
        name="intervals",
        doc="building the mask of a packed row from its document ends",
        modes=("build",),
        build=_build,
        parts=_parts,
        work=_work,
    )
)


def _case(source: Case) -> Case:
    def described(scale: Scale) -> Packed:
        return source.spec(scale)

    return Case("intervals", source.name, source.doc, described)


for _source in cases_of("attention"):
    if _source.name in ("P1", "BABY", "8192x34"):
        register_case(_case(_source))
register_peer(
    Peer(
        "intervals",
        "intervals",
        "ours: one kernel on a GPU, torch on a CPU, groups of documents included",
        anywhere,
        _kernel,
        ours=True,
    )
)
register_peer(
    Peer(
        "intervals",
        "torch_ops",
        "the same vectors by a dozen torch operations, without the groups",
        anywhere,
        _torch,
    )
)
