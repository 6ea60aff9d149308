"""What the evaluation asks of a model, whoever made it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable

from benchmarks_eval.trials import Trial

Kind = Literal["contrastive", "generative", "letters"]
"""``contrastive``: cosines. ``generative``: log-likelihoods. ``letters``: shares among the options
of a trial, as of a chat model that names options by letters: another kind of measurement."""

KINDS: tuple[Kind, ...] = ("contrastive", "generative", "letters")


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


@dataclass(frozen=True)
class Scored:
    """A `Likelihood` as the models of this package return it."""

    logprob_sum: float
    num_tokens: int


class Handle(Protocol):
    """Common to all kinds of model."""

    kind: str

    @property
    def tower_hash(self) -> str:
        """SHA-256 of what decides the features of a picture: weights and preprocessing."""
        ...

    @property
    def weights_hash(self) -> str:
        """SHA-256 of what decides a score: weights, tokeniser, preprocessing, options."""
        ...

    def image_features(self, images: Sequence[Any]) -> Any:
        """Vision tower once per picture (paths or PIL images): features [N, P, C]."""
        ...

    def record_scores(self, scores: dict[str, Any]) -> Any:
        """Puts the figures on the model card; models of others have none that is ours to write."""
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
        """Log-likelihood of each picture's candidates after the prompt; None: no picture."""
        ...

    def generate(self, features: Any, *, prompt: str = "", max_new_tokens: int = 25) -> list[str]:
        """One greedy caption per picture."""
        ...


class LettersHandle(Handle, Protocol):
    """A model that is shown a whole trial: a chat model that names an option by its letter.

    A score holds for these options only, so it is asked and kept trial by trial.
    """

    def choose(self, images: Sequence[Path], texts: Sequence[str], *,
               prompt: str = "") -> list[list[float]]:
        """Share of the answers [I, J] over the orders of the options; NaN: no usable answer.

        With several texts each picture is shown with all of them (rows sum to 1); with one text
        all pictures are shown together (the column sums to 1).
        """
        ...

    def generate(self, features: Any, *, prompt: str = "", max_new_tokens: int = 25) -> list[str]:
        """One caption per picture; ``features`` are what ``image_features`` gave: the paths."""
        ...


@dataclass(frozen=True)
class Material:
    """What a run is about to ask: some models are made from it, some may not see it."""

    trials: Mapping[str, Sequence[Trial]]
    """Task name -> its trials (of all measures)."""
    root: Path
    """Folder that picture keys start from."""
    texts: Sequence[str] = ()
    """Training utterances for word counts; without any the trials' own texts are counted."""
    show_pictures: bool = True
    """False: the suite's pictures may not be passed on."""
    allow_upload: bool = False
    """The user's word (``--allow-upload``) that the pictures may go to a server all the same."""


@runtime_checkable
class Prepared(Protocol):
    """A handle that has to know the run's material before it is asked anything."""

    def prepare(self, material: Material) -> None:
        """Takes what it needs. Its hashes are right only afterwards.

        Raises:
            ValueError: the model cannot serve this run.
        """
        ...


@dataclass(frozen=True)
class Model:
    """A loaded model under the name that tables give it."""

    name: str
    path: str
    kind: Kind
    handle: Any = field(repr=False)

    @property
    def contrastive(self) -> ContrastiveHandle:
        """The handle, typed."""
        return cast(ContrastiveHandle, self.handle)

    @property
    def generative(self) -> GenerativeHandle:
        """The handle, typed."""
        return cast(GenerativeHandle, self.handle)

    @property
    def letters(self) -> LettersHandle:
        """The handle, typed."""
        return cast(LettersHandle, self.handle)

    @property
    def file_name(self) -> str:
        """The name as a folder name."""
        return file_name(self.name)


def file_name(name: str) -> str:
    """A model's name as a folder name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-") or "model"


def prepare(models: Sequence[Model], material: Material) -> None:
    """Gives every model that asks for it the run's material: before hashes are read or pictures
    scored. Run it once for each run.

    Raises:
        ValueError: a model cannot serve this run (which and why).
    """
    for model in models:
        if isinstance(model.handle, Prepared):
            try:
                model.handle.prepare(material)
            except ValueError as error:
                raise ValueError(f"--model {model.path}: {error}") from None
