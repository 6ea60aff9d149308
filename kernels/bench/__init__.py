"""The workbench: every op against its peers and its floor, ``python -m kernels.bench``.

Cases and peers are registries; `cases`, `peers` hold them, `measure` takes times, `correct` refuses
what is wrong, `roofline` and `counts` say what is possible, `results`, `tables`, `gates` and `plot`
what came out. A new op is a module named in `load_ops` that registers itself:

    register_op(Op("norm", "...", ("fwd", "bwd", "fwd+bwd"), build, parts, work))
    register_case(Case("norm", "N768", "...", spec))
    register_peer(Peer("norm", "triton", "...", available, make, ours=True))

and its targets are a tuple ``TARGETS`` in a module that `gates.targets` names.
"""

from __future__ import annotations

import importlib

__all__ = ["load_ops"]

_OPS = (
    "attention_cases", "attention_peers", "sdpa_peers", "interval_cases",
    "cross_entropy_cases", "cross_entropy_peers", "pairs_cases", "pairs_peers",
    "row_op_cases", "row_op_peers", "augment_cases", "augment_peers",
    "embedding_cases", "embedding_peers", "adamw_cases", "adamw_peers",
)  # fmt: skip


def load_ops() -> None:
    """Import the modules that register ops, cases and peers."""
    for name in _OPS:
        importlib.import_module(f"{__name__}.{name}")
