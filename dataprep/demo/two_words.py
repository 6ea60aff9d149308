"""What phrases alone give away of the two-word set that was built: before pruning, and after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dataprep.evalsets.evalset import Record, read_evalset
from dataprep.evalsets.phrase_models import Floor, floor

__all__ = ["Phrases", "check_phrases"]

MODEL = "words"
"""Naive Bayes over words."""


@dataclass(frozen=True)
class Phrases:
    """A naive Bayes over the words of phrases, cross-validated with folds grouped by phrase.

    Attributes: ``proposed``, pairs that passed the filters, and ``kept``, trials after pruning;
    what the model reaches on each.
    """

    proposed: int
    kept: int
    before: Floor
    after: Floor

    @property
    def at_chance(self) -> bool:
        """Whether it does not beat one half beyond the 95 % interval around it."""
        return self.after.accuracy <= self.after.chance_high

    def lines(self) -> list[str]:
        """The result, to print."""
        verdict = "does not beat" if self.at_chance else "BEATS"
        found = [
            f"two-word set: naive Bayes on phrases alone, folds grouped by phrase, {verdict} chance"
        ]
        for name, count, one in (
            ("proposed", self.proposed, self.before), ("kept", self.kept, self.after),
        ):  # fmt: skip
            found.append(
                f"  {name:8} {count:4} trials: {one.accuracy:.1%} right, 95 % interval "
                f"{one.low:.1%} to {one.high:.1%}; chance {one.chance_low:.1%} to "
                f"{one.chance_high:.1%}"
            )
        return found


def check_phrases(folder: Path, seed: int) -> Phrases:
    """Measure a finished two-word set.

    Raises:
        ValueError: no trial is left in it.
    """
    evalset = read_evalset(folder)
    candidates = evalset.kept()
    kept = [record for record in candidates if not record.pruned]
    if not kept:
        raise ValueError(f"{folder}: no trial is left in it")
    return Phrases(
        len(candidates), len(kept),
        floor(_pairs(candidates), MODEL, seed=seed), floor(_pairs(kept), MODEL, seed=seed),
    )  # fmt: skip


def _pairs(records: list[Record]) -> list[tuple[str, str]]:
    return [(r.fields["positive_phrase"], r.fields["negative_phrase"]) for r in records]
