"""Word frequency: is the model better at words that it heard more often?"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from benchmarks_eval.breakdowns.groups import Breakdown, by_key
from benchmarks_eval.breakdowns.wording import deciding_words
from benchmarks_eval.metrics import count_words
from benchmarks_eval.outcomes import Measured, Outcome

DECADES = ((0, "never heard"), (9, "1 to 9 times"), (99, "10 to 99 times"),
           (999, "100 to 999 times"))
OFTEN = "1,000 times or more"


def read_counts(path: str | Path) -> Counter[str]:
    """Word counts of a corpus folder's training utterances, or of a CSV or TSV ``word,count``.

    Raises:
        ValueError: neither, or a malformed row (file and line).
    """
    path = Path(path)
    if path.is_dir():
        from engine import read_corpus

        return count_words(read_corpus(path).pairs("train").utterance)
    if not path.is_file():
        raise ValueError(f"{path}: no such corpus folder or table of word counts")
    counts: Counter[str] = Counter()
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        for row in reader:
            if not row or (reader.line_num == 1 and row[:2] == ["word", "count"]):
                continue
            if len(row) < 2 or not row[1].strip().isdigit():
                raise ValueError(f"{path}, line {reader.line_num}: needs a word and a whole "
                                 f"number, has {row}")
            counts[row[0].strip().lower()] += int(row[1])
    if not counts:
        raise ValueError(f"{path}: no words in it")
    return counts


def frequency(outcome: Outcome, counts: Mapping[str, int]) -> int | None:
    """How often the rarest deciding word of a trial was heard; None for a trial without words."""
    return min((counts.get(word, 0) for word in deciding_words(outcome)), default=None)


def by_frequency(measured: Measured, counts: Mapping[str, int], *, seed: int) -> Breakdown:
    """Groups trials by the frequency of their rarest deciding word, in powers of ten."""

    def key(outcome: Outcome) -> str | None:
        heard = frequency(outcome, counts)
        if heard is None:
            return None
        return next((name for most, name in DECADES if heard <= most), OFTEN)

    return by_key(measured, "word frequency", key, seed=seed,
                  order=[*(name for _, name in DECADES), OFTEN])
