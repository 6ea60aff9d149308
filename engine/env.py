"""``python -m engine.env``: versions, devices, and what each op and loader would use."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

import psutil
import torch

from engine.flops import peak_flops
from engine.guard import gigabytes
from kernels.dispatch import describe

PACKAGES = (
    "torch", "triton", "deepspeed", "flash-attn", "ffcv", "transformers", "timm", "open_clip_torch",
    "diffusers", "openai", "scipy", "numpy", "pybind11",
)


def report() -> str:
    """The whole report, one fact a line."""
    lines = [f"python            {platform.python_version()} on {platform.platform()}"]
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        lines.append(f"{name:<17} {version}")
    memory = gigabytes(psutil.virtual_memory().total)
    lines.append(f"{'cpu':<17} {os.cpu_count()} cores, {memory}, {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        facts = torch.cuda.get_device_properties(device)
        peak = peak_flops(device)
        rate = f"{peak / 1e12:.0f} TFLOP/s bf16 peak" if peak else "peak not in the table: no MFU"
        lines.append(f"{f'gpu {index}':<17} {facts.name}, {gigabytes(facts.total_memory)}, {rate}")
    if not torch.cuda.is_available():
        lines.append(f"{'gpu':<17} none")
    try:
        import _native

        lines.append(f"{'_native':<17} {_native.__file__}")
    except ImportError:
        lines.append(f"{'_native':<17} not built (pip install -e .)")
    lines.append(f"{'loader':<17} {_loader()}")
    lines += [f"{op:<21} {', '.join(names)}" for op, names in describe().items()]
    return "\n".join(lines)


def _loader() -> str:
    """Which loader ``data.loader: auto`` takes."""
    try:
        import engine.images_ffcv  # noqa: F401
    except (ImportError, OSError) as error:
        return f"torch DataLoader + PIL (FFCV cannot be imported: {error})"
    return "ffcv"


if __name__ == "__main__":
    print(report())
    sys.exit(0)
