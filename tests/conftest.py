"""What holds for every test: few threads, no network, nothing left outside temporary folders."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# These are read once, when a library is first imported, so they are set before any of ours is.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
# DeepSpeed compiles into this folder. A private one: the lock that a killed build leaves in a
# shared one would stop every later run.
TORCH_EXTENSIONS = tempfile.mkdtemp(prefix="torch-extensions-")
os.environ["TORCH_EXTENSIONS_DIR"] = TORCH_EXTENSIONS

import pytest
import torch

HAS_GPU = torch.cuda.is_available()
if not HAS_GPU:  # Triton decides when it is first imported, too.
    os.environ["TRITON_INTERPRET"] = "1"
if not HAS_GPU:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


HERE = Path(__file__).parent
APART = (HERE / "benchmarks_eval", HERE / "dataprep", HERE / "kernels")
"""Their files may run side by side: nothing is shared, no runs of several ranks..."""
RANKS = (HERE / "benchmarks_eval" / "test_resume.py",)
"""...but for these."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` where there is none; say which tests must not run side by side.

    Those of kernels, data preparation and evaluation may, file by file. The others launch runs of
    several ranks, which meet at ports and count processes: all in one worker.
    """
    for item in items:
        if not HAS_GPU and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
        apart = any(item.path.is_relative_to(folder) for folder in APART)
        apart = apart and item.path not in RANKS
        group = str(item.path) if apart else "engine"
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session", autouse=True)
def _remove_torch_extensions() -> Iterator[None]:
    yield
    shutil.rmtree(TORCH_EXTENSIONS, ignore_errors=True)
