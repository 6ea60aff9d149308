"""From ``--model`` to loaded models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks_eval.models.names import display_names
from benchmarks_eval.models.protocols import KINDS, Model, file_name
from benchmarks_eval.models.spec import Spec, parse_all


def load_models(specs: Sequence[str], device: str) -> list[Model]:
    """Loads every model before any is scored, so that a wrong one costs nothing.

    Args:
        specs: `benchmarks_eval.models.spec.FORMS`.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:1``, ...

    Raises:
        ValueError: a spec is malformed or given twice, or holds no model that can be loaded.
    """
    parsed = parse_all(specs)
    names = display_names(specs)
    check_folders([file_name(name) for name in names], list(specs))
    return [named_model(_load(spec, device), name, spec.text)
            for spec, name in zip(parsed, names, strict=True)]


def check_folders(folders: Sequence[str], specs: Sequence[str]) -> None:
    """Two names may become one as folders.

    Raises:
        ValueError: two models would write into one folder.
    """
    for k, folder in enumerate(folders):
        first = folders.index(folder)
        if first != k:
            raise ValueError(f"--model {specs[first]} and {specs[k]} would write into one folder, "
                             f"'{folder}': evaluate them in two runs")


def named_model(handle: Any, name: str, path: str) -> Model:
    """Wraps a handle, checking that it is of a kind that can be scored."""
    if handle.kind not in KINDS:
        raise ValueError(f"{path}: model of kind '{handle.kind}'; "
                         f"{', '.join(KINDS)} models can be evaluated")
    return Model(name, path, handle.kind, handle)


def _load(spec: Spec, device: str) -> Any:
    load: dict[str, Callable[[Spec, str], Any]] = {
        "folder": _folder, "open_clip": _open_clip, "llava": _llava, "server": _server,
        "blind": _blind, "no-image": _wrapper, "noise": _wrapper, "shuffled": _wrapper}
    try:
        return load[spec.scheme](spec, device)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == "benchmarks_eval":
            raise
        raise ValueError(f"--model {spec.text}: the package '{error.name}' is not installed "
                         f"(pip install -e '.[eval]')") from None


def _folder(spec: Spec, device: str) -> Any:
    from benchmarks_eval.models.engine import load_engine

    return load_engine(Path(spec.target), device)


def _open_clip(spec: Spec, device: str) -> Any:
    from benchmarks_eval.models.open_clip import load_open_clip

    return load_open_clip(spec.target, Path(spec.file) if spec.file else None, device)


def _llava(spec: Spec, device: str) -> Any:
    from benchmarks_eval.models.llava import load_llava

    return load_llava(Path(spec.target), device, **spec.options)


def _server(spec: Spec, device: str) -> Any:
    from benchmarks_eval.models.server import load_server

    return load_server(spec.target, spec.file or "", **spec.options)


def _blind(spec: Spec, device: str) -> Any:
    from benchmarks_eval.models import blind

    if spec.target == "random":
        return blind.RandomModel(int(spec.file or 0))
    return {"constant": blind.ConstantModel, "unigram": blind.UnigramModel,
            "naive-bayes": blind.NaiveBayesModel}[spec.target]()


def _wrapper(spec: Spec, device: str) -> Any:
    from benchmarks_eval.models import wrappers

    assert spec.inner is not None
    inner = _load(spec.inner, device)
    try:
        return {"no-image": wrappers.NoImage, "noise": wrappers.NoiseImages,
                "shuffled": wrappers.ShuffledImages}[spec.scheme](inner)
    except ValueError as error:
        raise ValueError(f"--model {spec.text}: {error}") from None
