"""One compilation and its counts; results are kept on disk under everything that made them.

Registers, stack and spills are ptxas's own words, instructions are counted in its input (PTX).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .cases import TARGET, CompileCase, require_compiler

__all__ = ["Compiled", "compile_case", "occupancy", "offences"]

# Of one streaming multiprocessor, compute capability 9.0 (CUDA C++ Programming Guide, tables
# "Technical Specifications per Compute Capability" and of the occupancy calculator).
REGISTERS = 65_536
MAX_WARPS = 64
MAX_BLOCKS = 32
SHARED_BYTES = 233_472
SHARED_BYTES_BLOCK = 232_448
SHARED_RESERVED_BYTES = 1024


@dataclass(frozen=True)
class Compiled:
    """Counts of one compiled kernel; of a thread where not said otherwise."""

    registers: int = 0
    stack_bytes: int = 0
    spill_bytes: int = 0
    """Written to and read from local memory for want of registers."""
    shared_bytes: int = 0
    """Of a block."""
    wgmma: int = 0
    """Instructions in the code, as all counts below: not how often they run."""
    mma_sync: int = 0
    cp_async: int = 0
    tma: int = 0
    loads_16b: int = 0
    """Global loads of 16 bytes."""
    wgmma_serialized: bool = False
    """ptxas found that it must wait after each product ("potential performance loss")."""
    blocks_per_sm: int = 0
    warps_per_sm: int = 0
    compile_s: float = 0.0
    """CPU time, ptxas included."""
    error: str = ""
    """First and last line of what stopped the compilation; all counts are 0 then."""


def occupancy(registers: int, shared_bytes: int, num_warps: int) -> int:
    """Return how many blocks one multiprocessor holds.

    Registers are given out 256 at a time to a warp, in four quarters; shared memory costs 1 KiB
    a block more than it asks for.
    """
    a_warp = -(-max(registers, 1) // 8) * 8 * 32
    by_registers = REGISTERS // 4 // a_warp * 4 // num_warps
    by_shared = SHARED_BYTES // (-(-shared_bytes // 128) * 128 + SHARED_RESERVED_BYTES)
    return min(by_registers, by_shared, MAX_WARPS // num_warps, MAX_BLOCKS)


def offences(case: CompileCase, compiled: Compiled) -> list[str]:
    """Return what is wrong with a compiled case, one phrase each; empty when it passes."""
    if compiled.error:
        return [f"does not compile: {compiled.error}"]
    found = []
    if compiled.stack_bytes or compiled.spill_bytes > case.spill_budget_bytes:
        found.append(
            f"spills {compiled.spill_bytes} bytes, stack of {compiled.stack_bytes} bytes "
            f"at {compiled.registers} registers"
        )
    if compiled.blocks_per_sm == 0:
        found.append(f"does not fit: {compiled.shared_bytes} bytes of shared memory")
    made = {"wgmma": compiled.wgmma, "mma.sync": compiled.mma_sync}
    if case.expect in made and made[case.expect] == 0:
        found.append(f"lost {case.expect}: none in its code")
    for name, count in made.items():
        if name != case.expect and count and case.expect != "none":
            found.append(f"{count} {name} where {case.expect} was expected")
    if compiled.wgmma_serialized:
        found.append("wgmma serialized: each product waits for the one before")
    return found


def compile_case(case: CompileCase, *, fresh: bool = False) -> Compiled:
    """Compile for sm_90, or read the counts of an identical compilation from the cache.

    Args:
        case: what to compile.
        fresh: compile in any case.

    Raises:
        RuntimeError: where Triton interprets (`require_compiler`).
    """
    require_compiler()
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler.compiler import make_backend

    target = GPUTarget(*TARGET)
    source = ASTSource(
        fn=case.fn,
        signature=dict(case.signature),
        constexprs=dict(case.constexprs),
        attrs=dict(case.attrs),
    )
    backend: Any = make_backend(target)
    options = backend.parse_options(dict(case.options))
    # Triton's own key: the kernel and all it calls, types, constants, alignment, options, the
    # compiler's files and ptxas's version. Ours: how this file reads the outcome.
    parts = (source.hash(), backend.hash(), options.hash(), _compiler_key(), _own_key())
    path = _cache_folder() / f"{hashlib.sha256('-'.join(parts).encode()).hexdigest()}.json"
    if not fresh:
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Compiled(**json.loads(path.read_text()))
    compiled = _compile(source, target, dict(case.options))
    if compiled.error:  # of memory or disk, maybe: try again next time
        return compiled
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(asdict(compiled)))
        scratch.replace(path)
    return compiled


def _compile(source: Any, target: Any, options: dict[str, Any]) -> Compiled:
    import triton
    from triton import knobs

    begin = _cpu_s()
    log = io.StringIO()
    # A folder of its own: Triton would keep a megabyte of every case, and skip ptxas next time.
    with (
        tempfile.TemporaryDirectory() as folder,
        knobs.cache.scope(),
        knobs.nvidia.scope(),
        contextlib.redirect_stdout(log),
    ):
        knobs.cache.dir = folder
        knobs.nvidia.dump_ptxas_log = True
        try:
            kernel: Any = triton.compile(source, target=target, options=options)
            ptx, shared = kernel.asm["ptx"], int(kernel.metadata.shared)
            warps = int(kernel.metadata.num_warps)
        except Exception as error:
            lines = [line.strip(" :") for line in str(error).splitlines() if line.strip(" :")]
            what = ": ".join(dict.fromkeys((*lines[:1], *lines[-1:]))) or repr(error)
            spent = round(_cpu_s() - begin, 2)
            return Compiled(compile_s=spent, error=f"{type(error).__name__}: {what}")
    said = log.getvalue()
    registers = _number(said, r"Used (\d+) registers")
    blocks = occupancy(registers, shared, warps) if shared <= SHARED_BYTES_BLOCK else 0
    return Compiled(
        registers=registers,
        stack_bytes=_number(said, r"(\d+) bytes stack frame"),
        spill_bytes=_number(said, r"(\d+) bytes spill stores")
        + _number(said, r"(\d+) bytes spill loads"),
        shared_bytes=shared,
        wgmma=ptx.count("wgmma.mma_async"),
        mma_sync=ptx.count("mma.sync"),
        cp_async=len(re.findall(r"cp\.async\.c[ag]", ptx)),
        tma=len(re.findall(r"cp\.async\.bulk\.tensor", ptx)),
        loads_16b=len(re.findall(r"ld\.global\S*\.(?:v4\.[buf]32|v2\.[buf]64)", ptx)),
        wgmma_serialized="wgmma.mma_async instructions are serialized" in said,
        blocks_per_sm=blocks,
        warps_per_sm=blocks * warps,
        compile_s=round(_cpu_s() - begin, 2),
    )


def _cpu_s() -> float:
    return sum(os.times()[:4])  # ptxas is a child


def _number(text: str, pattern: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"ptxas: its report has no {pattern!r}: {text[:200]!r}")
    return int(found[1])


@functools.cache
def _compiler_key() -> str:
    from triton.runtime.cache import triton_key

    return triton_key()


@functools.cache
def _own_key() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "babyvlm" / "offline"
