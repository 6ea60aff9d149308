"""The file that measurements are kept in: JSON, one report a process, one row a number.

    {"schema": 1, "reports": [{"header": {...}, "rows": [{...}, ...]}, ...]}

A file is rewritten whole after every case, so that a run that is killed loses one case at most.
Ratios are taken within a report only: one process, one set of clocks.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch

from .cases import MODES
from .correct import Status
from .measure import CACHES
from .roofline import Ceilings

__all__ = ["METRICS", "SCHEMA", "Report", "Row", "header", "load", "save"]

SCHEMA = 1
METRICS = {"time": "ms", "host": "us", "memory": "bytes", "none": ""}
"""Metrics and their units; ``none`` is the row of a peer that was not timed, and says why."""
_PEER_PACKAGES = (
    "flash-attn", "flash-attn-4", "nvidia-cutlass-dsl", "nvidia-cudnn-frontend", "liger-kernel",
    "cut-cross-entropy", "quack-kernels", "open_clip_torch", "inf-cl", "torchvision",
)  # fmt: skip


@dataclass
class Row:
    """One number: percentiles over ``n`` samples of one metric."""

    op: str
    case: str
    provider: str
    mode: str
    """fwd, bwd, fwd+bwd or build; of a ``none`` row empty."""
    cache: str
    """cold or warm; empty where it has no meaning."""
    metric: str
    unit: str
    gate: str
    """green, red, unavailable, unsupported, failed."""
    detail: str = ""
    """Why there is no number."""
    p20: float | None = None
    p50: float | None = None
    p80: float | None = None
    n: int = 0
    ours: bool = False
    computes: str = ""
    """What the peer computes where it is not the case itself."""
    note: str = ""
    """How the peer was given the data, where that matters."""
    floor_ms: float | None = None
    bytes: int | None = None
    flops: int | None = None
    share_of_copy: float | None = None
    share_of_matmul: float | None = None
    smoke: bool = False
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    """What one process measured."""

    header: dict[str, Any]
    rows: list[Row] = field(default_factory=list)

    @property
    def smoke(self) -> bool:
        """Whether these are tiny problems, which say nothing about speed."""
        return bool(self.header["smoke"])

    @property
    def ceilings(self) -> Ceilings:
        """The measured copy and product rates."""
        return Ceilings(self.header["copy_bytes_per_s"], self.header["matmul_flops_per_s"])

    def find(self, **wanted: Any) -> list[Row]:
        """Return the rows whose fields have these values."""
        return [
            row
            for row in self.rows
            if all(getattr(row, name) == value for name, value in wanted.items())
        ]


# Header ------------------------------------------------------------------------------------------


def header(
    device: torch.device, dtype: torch.dtype, *, seed: int, smoke: bool, ceilings: Ceilings
) -> dict[str, Any]:
    """Return who measured what with which versions."""
    commit, dirty = _commit()
    return {
        "commit": commit,
        "dirty": dirty,
        "sources_sha256": _sources_sha256(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "smoke": smoke,
        "device": _device_name(device),
        "device_type": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "seed": seed,
        "copy_bytes_per_s": ceilings.copy_bytes_per_s,
        "matmul_flops_per_s": ceilings.matmul_flops_per_s,
        "versions": _versions(),
        "gpu": _gpu(device),
        "argv": sys.argv[1:],
        "elapsed_s": 0.0,
        "finished": False,
    }


def _commit() -> tuple[str, bool | None]:
    """The commit of this checkout, or of ``BENCH_COMMIT`` where the files travelled without it."""
    given = os.environ.get("BENCH_COMMIT")
    if given:
        return given.removesuffix("-dirty"), given.endswith("-dirty")
    here = Path(__file__).resolve().parent
    commit = _said(["git", "-C", str(here), "rev-parse", "HEAD"])
    if commit is None:
        return "unknown", None
    return commit, bool(_said(["git", "-C", str(here), "status", "--porcelain", "--", ".."]))


def _sources_sha256() -> str:
    """One hash over the files of this package: says which code ran even without git."""
    root = Path(__file__).resolve().parents[1]
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        total.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    if torch.backends.cudnn.is_available():
        found["cudnn"] = str(torch.backends.cudnn.version())
    for package in ("triton", *_PEER_PACKAGES):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _gpu(device: torch.device) -> dict[str, Any]:
    """Size, driver and clocks as found; empty on a CPU, without clocks where none are readable."""
    if device.type != "cuda":
        return {}
    props = torch.cuda.get_device_properties(device)
    facts: dict[str, Any] = {
        "capability": f"{props.major}.{props.minor}",
        "multiprocessors": props.multi_processor_count,
        "l2_bytes": props.L2_cache_size,
        "memory_bytes": props.total_memory,
    }
    names = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.limit")
    said = _said(
        ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader", "--id=0"]
    )
    if said is not None:
        facts |= dict(zip(names, (value.strip() for value in said.split(",")), strict=False))
    return facts


def _said(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


# The file ----------------------------------------------------------------------------------------


def save(path: Path, reports: list[Report]) -> None:
    """Write the file; a reader never sees half of it.

    Raises:
        ValueError: a value that JSON does not have, such as NaN.
    """
    tree = {
        "schema": SCHEMA,
        "reports": [
            {"header": report.header, "rows": [dataclasses.asdict(row) for row in report.rows]}
            for report in reports
        ],
    }
    text = json.dumps(tree, indent=1, allow_nan=False, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


def load(path: Path) -> list[Report]:
    """Read and check a file.

    Raises:
        ValueError: the file is missing, damaged or of another schema; says where.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(tree, dict) or tree.get("schema") != SCHEMA:
        raise ValueError(f"{path}: not results of schema {SCHEMA}")
    reports = tree.get("reports")
    if not isinstance(reports, list) or not reports:
        raise ValueError(f"{path}: reports: at least one expected")
    return [_report(report, f"{path}: reports[{k}]") for k, report in enumerate(reports)]


_HEADER = {
    "commit": str,
    "date": str,
    "smoke": bool,
    "device": str,
    "dtype": str,
    "copy_bytes_per_s": float,
    "matmul_flops_per_s": float,
    "versions": dict,
}
_NUMBERS = ("p20", "p50", "p80", "floor_ms", "share_of_copy", "share_of_matmul", "bytes", "flops")
_TEXTS = ("op", "case", "provider", "mode", "cache", "metric", "unit", "gate", "detail")
_TEXTS += ("computes", "note")


def _report(tree: Any, where: str) -> Report:
    if not isinstance(tree, dict) or not isinstance(tree.get("header"), dict):
        raise ValueError(f"{where}: a header and rows expected")
    head = tree["header"]
    for key, kind in _HEADER.items():
        value = head.get(key)
        wanted = (int, float) if kind is float else kind
        if not isinstance(value, wanted) or (kind is float and isinstance(value, bool)):
            raise ValueError(f"{where}.header.{key}: {kind.__name__} expected, got {value!r}")
    if not isinstance(tree.get("rows"), list):
        raise ValueError(f"{where}.rows: a list expected")
    return Report(head, [_row(row, f"{where}.rows[{k}]") for k, row in enumerate(tree["rows"])])


def _row(tree: Any, where: str) -> Row:
    known = {item.name for item in dataclasses.fields(Row)}
    if not isinstance(tree, dict):
        raise ValueError(f"{where}: a mapping expected, got {tree!r}")
    if set(tree) - known:
        raise ValueError(f"{where}: unknown {', '.join(sorted(set(tree) - known))}")
    try:
        row = Row(**tree)
    except TypeError as error:
        raise ValueError(f"{where}: {str(error).split('() ')[-1]}") from None
    for name in _TEXTS:
        if not isinstance(getattr(row, name), str):
            raise ValueError(f"{where}.{name}: text expected, got {getattr(row, name)!r}")
    for name in _NUMBERS:
        value = getattr(row, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{where}.{name}: a number expected, got {value!r}")
    for name, allowed in (
        ("metric", tuple(METRICS)),
        ("mode", ("", *MODES)),
        ("cache", ("", *CACHES)),
        ("gate", get_args(Status)),
    ):
        if getattr(row, name) not in allowed:
            expected = ", ".join(word for word in allowed if word)
            raise ValueError(
                f"{where}.{name}: one of {expected} expected, got {getattr(row, name)!r}"
            )
    if row.unit != METRICS[row.metric]:
        raise ValueError(f"{where}.unit: {METRICS[row.metric]!r} expected, got {row.unit!r}")
    if row.metric != "none":
        if row.p20 is None or row.p50 is None or row.p80 is None:
            raise ValueError(f"{where}: p20, p50 and p80 expected")
        if not 0 <= row.p20 <= row.p50 <= row.p80:
            raise ValueError(f"{where}: 0 <= p20 <= p50 <= p80 expected")
        if row.gate != "green":
            raise ValueError(f"{where}: a number needs a green gate, got {row.gate!r}")
    return row
