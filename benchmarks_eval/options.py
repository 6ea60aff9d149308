"""What a run records, and how figures are made of its records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from benchmarks_eval.meteor import Version
from benchmarks_eval.tasks import Normalise, Task

Ties = Literal["share", "strict", "first"]
"""What equal scores are worth: ``share`` (1/k, what a fair coin would make of it), ``strict``
(nothing: SugarCrepe, Winoground) or ``first`` (the published BabyVLM scorer: argmax of a file whose
first candidate is the right one; there a model that always says the same scores 100 %)."""

Ends = Literal["task", "no", "yes", "both"]
"""Whether the end-of-sequence token is scored: as the task file says, never, always, or recorded
both ways so that ``rescore`` can choose."""


@dataclass(frozen=True)
class Rule:
    """How the candidates of one task are compared: everything is decided."""

    normalise: Normalise
    alpha: float
    score_eos: bool

    @property
    def unit(self) -> str:
        """Unit of a difference between two log-likelihood scores."""
        return {"mean": "nats/token", "sum": "nats", "char": "nats/char",
                "pmi": "nats (pmi)"}[self.normalise]


@dataclass(frozen=True)
class ScoreOptions:
    """How figures are made of records; None leaves it to the task file. No model is needed."""

    normalise: Normalise | None = None
    """Log-likelihoods: ``mean`` per token (paper), ``sum``, per ``char``, or ``pmi``, the sum less
    ``alpha`` times the text's own without a picture. Cosines are compared as they are."""
    alpha: float | None = None
    """pmi: weight of the text's own log-likelihood; 0 is ``sum``."""
    ties: Ties = "share"
    score_eos: bool | None = None
    meteor: Version = "3.10"
    """Which NLTK's METEOR generated captions get: releases differ."""
    meteor_jar: str | None = None
    """``meteor-1.5.jar``, to report METEOR 1.5 as well."""

    def rule(self, task: Task) -> Rule:
        """What holds for one task."""
        return Rule(
            normalise=self.normalise or task.normalise,
            alpha=task.alpha if self.alpha is None else self.alpha,
            score_eos=task.score_eos if self.score_eos is None else self.score_eos)


@dataclass(frozen=True)
class Options:
    """What the command line decides about a run. All but ``score`` decides what is recorded."""

    seed: int = 0
    limit: int | None = None
    """At most so many questions a task."""
    batch_size: int | None = None
    """Pictures a batch; None: by a token budget."""
    prior: bool = False
    """Also record every text without a picture, for ``pmi``."""
    ends: Ends = "task"
    score: ScoreOptions = field(default_factory=ScoreOptions)

    def recorded_ends(self, task: Task) -> tuple[bool, ...]:
        """With which values of ``score_eos`` a task's texts are recorded."""
        return {"task": (task.score_eos,), "no": (False,), "yes": (True,),
                "both": (False, True)}[self.ends]

    def needs_prior(self, task: Task) -> bool:
        """Whether a task's texts are also recorded without a picture."""
        return self.prior or self.score.rule(task).normalise == "pmi"
