"""What the evaluation asks of a model, and loading the models of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast


class Likelihood(Protocol):
    """What a generative model returns for one candidate text."""

    @property
    def logprob_sum(self) -> float:
        """Sum of the scored tokens' log-probabilities in nats."""
        ...

    @property
    def num_tokens(self) -> int:
        """How many tokens were scored (never the prompt's)."""
        ...


class Handle(Protocol):
    """Common to both kinds of model."""

    kind: str
    tower_hash: str

    def image_features(self, images: Sequence[Any]) -> Any:
        """Vision tower once per picture (paths): features [N, P, C]."""
        ...

    def record_scores(self, scores: dict[str, Any]) -> Any:
        """Puts the figures on the model card."""
        ...


class ContrastiveHandle(Handle, Protocol):
    """A model with one embedding space for pictures and texts."""

    def embed_images(self, images: Any) -> Any:
        """Unit vectors [N, D] of pictures or of their features."""
        ...

    def embed_texts(self, texts: list[str]) -> Any:
        """Unit vectors [N, D] of texts."""
        ...


class GenerativeHandle(Handle, Protocol):
    """A model that reads a picture and continues with text."""

    def score_candidates(self, features: Any, candidates: list[list[str]], *, prompt: str = "",
                         score_eos: bool = False) -> Sequence[Sequence[Likelihood]]:
        """Log-likelihood of each picture's candidates after the prompt."""
        ...

    def generate(self, features: Any, *, prompt: str = "", max_new_tokens: int = 25) -> list[str]:
        """One greedy caption per picture."""
        ...


@dataclass(frozen=True)
class Model:
    """A loaded model under the name that tables give it."""

    name: str
    path: str
    kind: Literal["contrastive", "generative"]
    handle: Any

    @property
    def contrastive(self) -> ContrastiveHandle:
        """The handle, typed."""
        return cast(ContrastiveHandle, self.handle)

    @property
    def generative(self) -> GenerativeHandle:
        """The handle, typed."""
        return cast(GenerativeHandle, self.handle)

    @property
    def file_name(self) -> str:
        """The name as a folder name."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-") or "model"


def load_models(paths: Sequence[str], device: str) -> list[Model]:
    """Loads every model before any is scored, so that a wrong path costs nothing.

    Raises:
        ValueError: a path holds no model, or the same path is given twice.
    """
    from engine import load  # torch loads here, after the cheap checks

    for path in paths:
        if list(paths).count(path) > 1:
            raise ValueError(f"--model {path} is given twice")
    names = display_names(paths)
    models: list[Model] = []
    for path, name in zip(paths, names, strict=True):
        models.append(named_model(load(path, device=device), name, path))
    return models


def named_model(handle: Any, name: str, path: str) -> Model:
    """Wraps a handle, checking that it is of a kind that can be scored."""
    if handle.kind not in ("contrastive", "generative"):
        raise ValueError(f"{path}: model of kind '{handle.kind}'; "
                         f"contrastive and generative models can be evaluated")
    return Model(name, path, handle.kind, handle)


def display_names(paths: Sequence[str]) -> list[str]:
    """Short distinct names: the folder parts that tell the paths apart, 'model' left out.

    Example: ``runs/a/contrastive/model`` and ``runs/a/generative/model`` become ``contrastive``
    and ``generative``.
    """
    split = [[p for p in Path(path).resolve().parts if p != "model"] for path in paths]
    for length in range(1, max((len(parts) for parts in split), default=1) + 1):
        names = ["/".join(parts[-length:]) for parts in split]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def output_folder(model_path: str, suite: str) -> Path:
    """Where results go unless told: ``<run>/eval/<suite>`` for ``<run>/<kind>/model``."""
    path = Path(model_path)
    run = path.parent.parent if path.name == "model" else path.parent
    return run / "eval" / suite


def card_scores(suite: str, version: int,
                figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``record_scores`` is given: suite -> version and figures by ``task/figure``."""
    kept = ("value", "low", "high", "n", "chance", "floor", "unit")
    rows = {f"{f['task']}/{f['figure']}": {key: f[key] for key in kept} for f in figures}
    return {suite: {"version": version, "figures": rows}}
