"""Metrics of one generated caption against a picture's references, each named for its variant.

``meteor_nltk310`` (the paper's) reads texts as they are; BLEU, ROUGE-L and CIDEr-D read lower-case
words without punctuation, which is what the COCO caption evaluation gives them. None loads torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks_eval import metrics
from benchmarks_eval.cider import CiderD
from benchmarks_eval.data import Item
from benchmarks_eval.meteor import NAMES, Meteor15, Version, score, word_tokenize

Pair = tuple[tuple[str, ...], str]
"""References of a picture, and a caption."""

Statistics = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A metric whose figure for many captions is a function of sums over them.

    ``measure`` gives statistics [pairs, S]; ``pool`` makes a figure of their sum [S] over so many
    captions. For most metrics S is 1 and the figure their mean; BLEU counts n-grams.
    """

    name: str
    label: str
    unit: str
    measure: Callable[[Sequence[Pair]], Statistics]
    pool: Callable[[Statistics, int], float]
    single: Callable[[Statistics], float]
    """Figure of one caption by itself."""
    is_mean: bool = True
    """Whether the figure of many captions is the mean of their own figures."""
    chooses: bool = True
    """Whether it is quick enough to look for the constant that it likes best."""


def _mean(total: Statistics, count: int) -> float:
    return float(total[0]) / count


def _first(statistics: Statistics) -> float:
    return float(statistics[0])


def _one_by_one(name: str, label: str, unit: str,
                measure: Callable[[tuple[str, ...], str], float]) -> Metric:
    # Floors ask for the same pair again and again.
    known = functools.lru_cache(maxsize=1 << 18)(measure)
    return Metric(name, label, unit,
                  lambda pairs: np.array([[known(*pair)] for pair in pairs], dtype=np.float64),
                  _mean, _first)


@functools.lru_cache(maxsize=1 << 16)
def plain_words(text: str) -> tuple[str, ...]:
    """Lower-case tokens of a text that hold a letter or a digit."""
    return tuple(token for token in word_tokenize(text.lower())
                 if any(letter.isalnum() for letter in token))


def word_recall() -> Metric:
    """Share of the reference's content words that are said (best reference)."""
    return _one_by_one("word_recall", "content words said", "share", lambda wanted, said: max(
        metrics.word_recall(text, said) for text in wanted))


def exact() -> Metric:
    """Share of captions that are a reference, case and punctuation aside."""
    return _one_by_one("exact", "exactly the reference", "share", lambda wanted, said: max(
        metrics.exact_match(text, said) for text in wanted))


def meteor_nltk(version: Version = "3.10") -> Metric:
    """METEOR as NLTK computes it, mean over captions (BabyVLM's)."""
    return _one_by_one(NAMES[version], f"METEOR, NLTK {version}", "score",
                       lambda wanted, said: score(wanted, said, version))


def meteor_15(jar: str | Path) -> Metric:
    """METEOR 1.5 by its authors' program, mean over captions.

    Raises:
        ValueError: the jar, its paraphrase table or Java is missing.
    """
    program = Meteor15(jar)

    def measure(pairs: Sequence[Pair]) -> Statistics:
        distinct = list(dict.fromkeys(pairs))
        scores, _ = program.score([wanted for wanted, _ in distinct],
                                  [said for _, said in distinct])
        found = dict(zip(distinct, scores, strict=True))
        return np.array([[found[pair]] for pair in pairs], dtype=np.float64)

    return Metric(NAMES["1.5"], "METEOR 1.5", "score", measure, _mean, _first, chooses=False)


def bleu4() -> Metric:
    """BLEU-4 of the whole set (sacrebleu, exponential smoothing), in [0, 1].

    Raises:
        ValueError: sacrebleu is not installed.
    """
    sacrebleu = _library("sacrebleu", "sacrebleu")
    # force: the texts are split into words already, and meant to be. effective_order keeps it
    # quiet about single sentences and changes none of the counts.
    scorer = sacrebleu.BLEU(tokenize="none", force=True, effective_order=True)

    @functools.lru_cache(maxsize=1 << 18)
    def count(wanted: tuple[str, ...], said: str) -> tuple[int, ...]:
        made = scorer.sentence_score(" ".join(plain_words(said)),
                                     [" ".join(plain_words(text)) for text in wanted])
        return (*made.counts, *made.totals, made.sys_len, made.ref_len)

    def figure(counts: Statistics, *, alone: bool) -> float:
        whole = [round(number) for number in counts]
        made = sacrebleu.BLEU.compute_bleu(
            correct=whole[:4], total=whole[4:8], sys_len=whole[8], ref_len=whole[9],
            smooth_method="exp", effective_order=alone)
        return made.score / 100

    return Metric("bleu4", "BLEU-4, sacrebleu", "score",
                  lambda pairs: np.array([count(*pair) for pair in pairs], dtype=np.float64),
                  lambda total, _: figure(total, alone=False), lambda one: figure(one, alone=True),
                  is_mean=False)


def rouge_l() -> Metric:
    """ROUGE-L F1 (rouge-score), best reference, mean over captions.

    Raises:
        ValueError: rouge-score is not installed.
    """
    rouge = _library("rouge_score.rouge_scorer", "rouge-score")
    scorer = rouge.RougeScorer(["rougeL"], tokenizer=_Words())
    return _one_by_one("rouge_l", "ROUGE-L F1, rouge-score", "score", lambda wanted, said: float(
        scorer.score_multi(list(wanted), said)["rougeL"].fmeasure))


class _Words:
    def tokenize(self, text: str) -> list[str]:
        return list(plain_words(text))


def cider_d(items: Sequence[Item]) -> Metric:
    """CIDEr-D with the rarity of n-grams among these items' references, mean over captions."""
    pictures = references(items)
    scorer = CiderD([[plain_words(text) for text in texts] for texts in pictures.values()])
    return _one_by_one("cider_d", "CIDEr-D (0 to 10)", "score", lambda wanted, said: scorer.score(
        [plain_words(text) for text in wanted], plain_words(said)))


def references(items: Sequence[Item]) -> dict[str, tuple[str, ...]]:
    """Picture -> every reference of it, in file order."""
    found: dict[str, tuple[str, ...]] = {}
    for item in items:
        found[item.images[0]] = (*found.get(item.images[0], ()), item.texts[0])
    return found


def caption_metrics(items: Sequence[Item], *, version: Version = "3.10",
                    meteor_jar: str | Path | None = None) -> list[Metric]:
    """All metrics of a caption task, in the order of the tables.

    BLEU-4 is left out where no reference has four words: even the reference itself would get 0.

    Raises:
        ValueError: a library, the jar or Java is missing.
    """
    made = [word_recall(), exact(), meteor_nltk(version)]
    if meteor_jar is not None:
        made.append(meteor_15(meteor_jar))
    if any(len(plain_words(item.texts[0])) >= 4 for item in items):
        made.append(bleu4())
    return [*made, rouge_l(), cider_d(items)]


def require(meteor_jar: str | Path | None = None) -> None:
    """Checks that every metric can be computed: call it before a model generates for hours.

    Raises:
        ValueError: a library, the jar or Java is missing; one line says what to install.
    """
    word_tokenize("One. Two.")
    bleu4()
    rouge_l()
    if meteor_jar is not None:
        Meteor15(meteor_jar)


def _library(module: str, package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(f"caption metrics need the package {package}: "
                         f"pip install 'babyvlm-engine[eval]'") from None
