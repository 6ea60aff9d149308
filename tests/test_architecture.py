"""The arrows between packages, read with ``ast``, and the rules on names and sizes."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("kernels", "engine", "dataprep", "benchmarks_eval")
OURS = {*PACKAGES, "_native"}
MAX_LINES = 400
TRACKERS = {"tensorboard", "tensorboardX", "wandb", "mlflow", "aim", "comet_ml"}
# Packages that others import by these names; not all need be installed here.
TAKEN_NAMES = {
    "accelerate", "datasets", "deepspeed", "diffusers", "evaluate", "ffcv", "kernels", "numba",
    "numpy", "open_clip", "openai", "peft", "safetensors", "scipy", "tensorboard", "timm",
    "tokenizers", "torch", "torchvision", "tqdm", "transformers", "triton", "yaml",
}  # fmt: skip
# Folders of the repository whose text is the product's.
PRODUCT = (*PACKAGES, ".ci", "configs", "csrc", "docs", "scripts", "tests")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_of(path: Path) -> list[str]:
    return list(path.relative_to(ROOT).with_suffix("").parts)


def imports(module: ast.Module, path: Path) -> Iterator[tuple[int, str, str | None]]:
    """Yield (line, dotted module, name taken from it or None), lazy and dynamic ones included."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, None
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module_of(path)[: -node.level]
                base = ".".join([*parents, *([base] if base else [])])
            for alias in node.names:
                yield node.lineno, base, alias.name
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func)
            first = node.args[0]
            if called.split(".")[-1] in ("import_module", "__import__") and isinstance(
                first, ast.Constant
            ):
                yield node.lineno, str(first.value), None


def wheres(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def exported() -> set[str]:
    """Return the names listed in ``engine/__init__.py``'s ``__all__``."""
    assert (ROOT / "engine" / "__init__.py").exists(), "engine/__init__.py is missing"
    for node in tree(ROOT / "engine" / "__init__.py").body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            assert value is not None
            return set(ast.literal_eval(value))
    raise AssertionError("engine/__init__.py has no literal __all__")


def arrow_violations(module: ast.Module, path: Path, names: set[str]) -> list[str]:
    """Say what ``module`` at ``path`` imports and must not; ``names`` is what engine exports."""
    package, *rest = module_of(path)
    allowed = {
        "kernels": {"kernels"},
        "engine": {"engine", "kernels", "_native"},
        "dataprep": {"dataprep", "engine", "_native"},
        "benchmarks_eval": {"benchmarks_eval", "engine"},
    }[package]
    found = []
    for line, base, name in imports(module, path):
        top = base.split(".")[0]
        where, what = wheres(path, line), f"{base}.{name}" if name else base
        if (package, rest, top) == ("kernels", ["attention_peers"], "flash_attn"):
            continue  # The one library that users may put in our place, where it is installed.
        if top in OURS and top not in allowed:
            found.append(f"{where}: {package} must not import {what}")
        elif (
            package == "kernels"
            and rest[0] != "bench"  # which measures other libraries beside ours
            and top not in {"kernels", "torch", "triton", *sys.stdlib_module_names}
        ):
            found.append(f"{where}: kernels imports torch and triton only, not {what}")
        elif top == "engine" and package in ("dataprep", "benchmarks_eval"):
            if base != "engine":
                found.append(f"{where}: {package} imports from engine itself only, not {base}")
            elif name is not None and name not in names:
                found.append(f"{where}: {name} is not in engine.__all__")
        if top == "deepspeed" and (package, rest) != ("engine", ["zero"]):
            found.append(f"{where}: only engine/zero.py imports deepspeed")
        if TRACKERS & {*base.split("."), name} and (package, rest) != ("engine", ["metrics"]):
            found.append(f"{where}: only engine/metrics.py imports a tracker")
    if package in ("dataprep", "benchmarks_eval"):
        for node in ast.walk(module):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "engine"
                and imports_engine_whole(module)
                and node.attr not in names
            ):
                found.append(f"{wheres(path, node.lineno)}: {node.attr} is not in engine.__all__")
    return found


def imports_engine_whole(module: ast.Module) -> bool:
    return any(
        alias.name == "engine" and alias.asname is None
        for node in ast.walk(module)
        if isinstance(node, ast.Import)
        for alias in node.names
    )


def test_arrows_run_one_way() -> None:
    names = exported()
    found = [
        line for path in sources(*PACKAGES) for line in arrow_violations(tree(path), path, names)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("kernels/attention.py", "from engine import load"),
        ("kernels/attention.py", "import numpy"),
        ("kernels/attention.py", "import flash_attn"),
        ("engine/loop.py", "def f():\n    import dataprep.writer"),
        ("engine/loop.py", "from benchmarks_eval import run"),
        ("engine/loop.py", "import deepspeed"),
        ("engine/loop.py", "from deepspeed.ops import adam"),
        ("engine/loop.py", "from torch.utils.tensorboard import SummaryWriter"),
        ("engine/loop.py", "from torch.utils import tensorboard"),
        ("engine/models/vision.py", "from ...dataprep import writer"),
        ("dataprep/writer.py", "from engine.corpus import CorpusWriter"),
        ("dataprep/writer.py", "from engine import corpus"),
        ("dataprep/writer.py", "import engine\nengine.secret()"),
        ("dataprep/writer.py", "import kernels"),
        ("dataprep/llm/store.py", "import importlib\nimportlib.import_module('benchmarks_eval')"),
        ("benchmarks_eval/tasks.py", "import dataprep"),
        ("benchmarks_eval/tasks.py", "import _native"),
        ("benchmarks_eval/tasks.py", "from kernels import attention"),
    ],
)
def test_a_wrong_arrow_is_seen(path: str, source: str) -> None:
    assert arrow_violations(ast.parse(source), ROOT / path, {"load"})


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("kernels/attention.py", "import math, torch, triton.language\nfrom . import b"),
        ("kernels/bench/peers.py", "import numpy\nfrom kernels import attention"),
        ("kernels/attention_peers.py", "import flash_attn"),
        ("engine/zero.py", "import deepspeed"),
        ("engine/metrics.py", "from torch.utils.tensorboard import SummaryWriter"),
        ("engine/models/vision.py", "from ..schema import Section\nimport kernels, _native"),
        (
            "dataprep/writer.py",
            "import _native, engine\nfrom engine import load\nengine.load(1)",
        ),
        ("benchmarks_eval/tasks.py", "from engine import load\nfrom .records import Record"),
    ],
)
def test_a_right_arrow_passes(path: str, source: str) -> None:
    assert not arrow_violations(ast.parse(source), ROOT / path, {"load"})


def test_what_engine_lists_is_there() -> None:
    import engine

    names = exported()
    assert names == set(engine.__all__)
    missing = [name for name in sorted(names) if not hasattr(engine, name)]
    assert not missing


def test_names_in_engine_hide_nothing() -> None:
    # `deepspeed engine/train.py` puts engine/ first on sys.path.
    installed = {
        name
        for name, owners in importlib.metadata.packages_distributions().items()
        if set(owners) != {"babyvlm-engine"}
    }
    for path in (ROOT / "engine").iterdir():
        if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py"))):
            taken = {*sys.stdlib_module_names, *TAKEN_NAMES, *installed, *OURS}
            assert path.stem not in taken, f"{path.relative_to(ROOT)} hides another module"


def test_files_are_short() -> None:
    files = [*sources(*PACKAGES, "tests", "scripts"), ROOT / "setup.py"]
    files += [path for path in (ROOT / "csrc").iterdir() if path.is_file()]
    sizes = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in files}
    assert len(sizes) > 10
    assert {name: size for name, size in sizes.items() if size > MAX_LINES} == {}


def test_every_folder_of_modules_is_a_package() -> None:
    # Else an install without -e would leave it out.
    folders = {path.parent for path in sources(*PACKAGES)}
    bare = [str(f.relative_to(ROOT)) for f in sorted(folders) if not (f / "__init__.py").exists()]
    assert bare == []


def test_text_speaks_of_the_product_alone() -> None:
    outside = re.compile(r"\.\./shar" + r"ed\b|(?<![\w.])/wor" + r"k/")
    # .coverage: what this very run writes.
    texts = [p for p in ROOT.iterdir() if p.is_file() and not p.name.startswith(".coverage")]
    texts += [path for folder in PRODUCT for path in (ROOT / folder).rglob("*") if path.is_file()]
    found = []
    for path in texts:
        if "__pycache__" in path.parts or path.suffix in (".so", ".png", ".jpg", ".jpeg"):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if outside.search(line):
                found.append(f"{wheres(path, number)}: {line.strip()[:80]}")
    assert not found, "\n".join(found)


def test_hugging_face_works_beside_our_kernels_folder() -> None:
    # transformers and diffusers probe for a package called `kernels` and import what they find;
    # engine/ stands first on the path, as it does under `deepspeed engine/train.py`.
    program = (
        "import sys; sys.path.insert(0, 'engine')\n"
        "import transformers, diffusers\n"
        "from transformers import GPT2LMHeadModel\n"
        "from transformers.utils import is_kernels_available\n"
        "from diffusers.utils.import_utils import is_kernels_available as diffusers_finds\n"
        "import kernels\n"
        "print(kernels.__file__, is_kernels_available(), diffusers_finds())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-3:] == [str(ROOT / "kernels" / "__init__.py"), "False", "False"]
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("kernels")
