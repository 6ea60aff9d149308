"""Phases are data: which modules train, on which objective, for how long, at which rate."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from engine.augment import AugmentConfig
from engine.optim import OptimConfig
from engine.schema import Section

Objective = Literal["contrastive", "generative", "language"]

PARTS: dict[str, tuple[str, ...]] = {
    "contrastive": ("vision", "projection", "words"),
    "generative": ("vision", "connector", "decoder"),
    "language": ("decoder",),
}
"""Trainable parts per objective."""


class PhaseConfig(Section):
    """One phase of a run. BabyLLaVA's own are language, connector and joint (BabyVLM, §4)."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Name of the phase: lower-case letters, digits, ``-`` and ``_``."""

    objective: Objective
    """``contrastive``: symmetric InfoNCE of pictures and utterances (CVCL). ``generative``:
    next-token loss on the utterance given the picture. ``language``: next-token loss on text."""

    train: list[str]
    """Parts that train; all others are frozen. contrastive: vision, projection, words;
    generative: vision, connector, decoder; language: decoder."""

    epochs: int = Field(default=1, ge=1)
    """Passes over the training pairs (the utterances, in a language phase)."""

    max_steps: int | None = Field(default=None, ge=1)
    """End the phase after so many steps; the schedule is stretched over them."""

    tokens_per_step: int = Field(default=8192, ge=1)
    """Global token budget of one optimizer step, picture tokens included; ranks and accumulation
    steps share it out. Generative and language objectives."""

    pairs_per_step: int = Field(default=256, ge=2)
    """Global number of pairs in one contrastive step: every pair is contrasted with all others,
    whatever the number of ranks."""

    accumulate: int = Field(default=1, ge=1)
    """Rows each rank runs through before one optimizer step (generative and language)."""

    optim: OptimConfig = OptimConfig()
    """Optimizer, learning-rate schedule and clipping of this phase."""

    augment: AugmentConfig = AugmentConfig()
    """Augmentation of the pictures. With any, even a frozen tower runs in every step."""

    positives: Literal["pair", "group"] = "pair"
    """Contrastive positives: the pair itself (CVCL), or all pairs of the step that share its
    ``group`` (two drawings of a dog are both right for "a dog")."""

    one_pair_per_picture: bool = False
    """Contrastive: an epoch takes each picture once, with one of its utterances at random."""

    join_tokens: int = Field(default=0, ge=0)
    """Language: join consecutive utterances to documents of at most so many tokens (the paper
    chunks the concatenated transcript at 1,024); 0 = each utterance is a document."""

    skip_with_weights: bool = False
    """Skip this phase when ``model.vision.weights`` names a file (a published tower)."""

    validate_every: int = Field(default=0, ge=0)
    """Validation loss every so many steps; 0 = at the end of each epoch."""

    patience: int = Field(default=0, ge=0)
    """End the phase when the validation loss has not improved for so many validations
    (CVCL on BabyVLM data: 5); 0 = never."""

    keep: Literal["last", "best"] = "last"
    """Weights that the phase hands on and exports: those of the last step, or of the best
    validation loss."""

    @model_validator(mode="after")
    def _sound(self) -> PhaseConfig:
        allowed = PARTS[self.objective]
        wrong = [part for part in self.train if part not in allowed]
        if wrong or not self.train:
            raise ValueError(
                f"train: {wrong or 'empty'} in a {self.objective} phase; "
                f"accepted: {', '.join(allowed)}"
            )
        if len(set(self.train)) < len(self.train):
            raise ValueError(f"train: {self.train} names a part twice")
        wrong = [part for part in self.optim.lr_scale if part not in self.train]
        if wrong:
            raise ValueError(
                f"optim.lr_scale: {wrong} does not train in this phase; "
                f"accepted: {', '.join(self.train)}"
            )
        if self.objective == "contrastive" and self.accumulate > 1:
            raise ValueError(
                "accumulate: a contrastive step contrasts all its pairs at once; accepted: 1"
            )
        return self
