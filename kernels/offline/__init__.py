"""The offline compile gate: every kernel, in every frozen configuration, compiled without a GPU.

Triton compiles for a named architecture anywhere; ptxas then says how many registers a thread
takes, what it spilled and which tensor-core instructions were made. ``python -m kernels.offline``
prints that for all ops and fails where a kernel spills or lost its instruction.
"""

from .cases import CompileCase, case_of, record
from .compiled import Compiled, compile_case, occupancy, offences
from .providers import PROVIDERS, all_cases

__all__ = [
    "PROVIDERS",
    "CompileCase",
    "Compiled",
    "all_cases",
    "case_of",
    "compile_case",
    "occupancy",
    "offences",
    "record",
]
