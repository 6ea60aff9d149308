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


LONGEST = ("test_kill.py", "test_run.py", "test_kernels.py", "test_attention_triton.py",
           "test_demo.py")
"""Files that go first, so that no worker is left alone with them at the end."""


MEASURED = (Path(__file__).parent / "engine", Path(__file__).parent / "dataprep")
"""Whose tests are traced for coverage. Tracing the others tells nothing and doubles their time."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` where there is none; put the longest files first."""
    for item in items:
        measured = any(item.path.is_relative_to(folder) for folder in MEASURED)
        if not measured and config.pluginmanager.has_plugin("pytest_cov"):
            item.add_marker(pytest.mark.no_cover)
        if not HAS_GPU and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST
               else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def _remove_torch_extensions() -> Iterator[None]:
    yield
    shutil.rmtree(TORCH_EXTENSIONS, ignore_errors=True)
