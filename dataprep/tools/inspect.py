"""Showing what is in a corpus, or in a published evaluation set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataprep.tools.labels import read_labels
from dataprep.tools.tables import laid_out
from dataprep.tools.validate import straddling
from dataprep.tools.vocabulary import Tokeniser, unknown_table
from engine import Corpus, read_corpus

__all__ = ["corpus_report", "labels_report"]

_LEFT_LAST = (0, 6)


def corpus_report(path: Path, tokenisers: Sequence[Tokeniser], samples: int, seed: int) -> str:
    """Counts by split and source, licences, lengths, words and a few pairs, as text."""
    corpus = read_corpus(path)
    about = corpus.info
    parts = [
        f"{about['name']} {about.get('version', '')}: pictures of {corpus.image_size} pixels, "
        f"digest {corpus.digest[:12]}",
        _counts(corpus), _licences(corpus), _lengths(corpus), _words(corpus),
    ]  # fmt: skip
    if tokenisers:
        for split in corpus.splits:
            table = unknown_table(corpus.pairs(split).utterance, tokenisers)
            parts.append(f"out of vocabulary, {split}\n" + laid_out(table, _LEFT_LAST))
    leaks = [
        f"{count:,} {what}s are in {a} and in {b}"
        for what in ("group", "view")
        for (a, b), count in straddling(corpus, what).items()
    ]
    none = "no group and no view of train is in another split"
    parts.append(f"leaks: {'; '.join(leaks) or none}")
    dead = about.get("made_by", {}).get("counts", {}).get("dead_by_reason")
    if dead:
        rows = [("left out when it was made", "rows"), *sorted(dead.items(), key=lambda i: -i[1])]
        parts.append(laid_out(rows))
    if samples:
        parts.append(_samples(corpus, samples, seed))
    return "\n\n".join(parts)


def _counts(corpus: Corpus) -> str:
    rows: list[tuple[object, ...]] = [("split", "source", "pictures", "pairs", "groups", "views")]
    for split in corpus.splits:
        pairs = corpus.pairs(split)
        images = corpus.image_table["source"][corpus.image_rows(split)]
        sources = sorted(set(pairs.source) | set(images))
        for source in [*sources, *(["all"] if len(sources) > 1 else [])]:
            mine = pairs.source == source if source != "all" else np.ones(len(pairs), bool)
            pictures = int((images == source).sum()) if source != "all" else len(images)
            rows.append(
                (
                    split, source, pictures, int(mine.sum()), len(set(pairs.group[mine])),
                    len(set(pairs.view[mine])),
                )
            )  # fmt: skip
    return laid_out(rows, (0, 1))


def _licences(corpus: Corpus) -> str:
    rows = [("source", "licence", "from")]
    rows += [(s["name"], s["licence"], s["url"]) for s in corpus.info["sources"]]
    return laid_out(rows, (0, 1, 2))


def _lengths(corpus: Corpus) -> str:
    marks = (0, 25, 50, 75, 95, 100)
    rows: list[tuple[object, ...]] = [
        ("words an utterance", "mean", "least", "25 %", "median", "75 %", "95 %", "most")
    ]
    for split in corpus.splits:
        words = np.array([len(text.split()) for text in corpus.pairs(split).utterance] or [0])
        spread = (f"{np.percentile(words, mark):g}" for mark in marks)
        rows.append((split, f"{words.mean():.2f}", *spread))
    return laid_out(rows)


def _words(corpus: Corpus) -> str:
    rows: list[tuple[object, ...]] = [
        (
            "words", "all", "different", "once", "not in train", "utterances", "different",
            "commonest",
        )
    ]  # fmt: skip
    train = (
        {word for text in corpus.pairs("train").utterance for word in text.lower().split()}
        if "train" in corpus.splits
        else set()
    )
    for split in corpus.splits:
        texts = corpus.pairs(split).utterance
        counts = Counter(word for text in texts for word in text.lower().split())
        ordered = sorted(counts, key=lambda word: (-counts[word], word))
        rows.append(
            (
                split, counts.total(), len(counts), sum(n == 1 for n in counts.values()),
                sum(word not in train for word in counts), len(texts), len(set(texts)),
                " ".join(ordered[:8]),
            )
        )  # fmt: skip
    return laid_out(rows, (0, 7))


def _samples(corpus: Corpus, samples: int, seed: int) -> str:
    rng = np.random.default_rng([seed, 11])
    rows = [("split", "view", "utterance")]
    for split in corpus.splits:
        pairs = corpus.pairs(split)
        for k in sorted(rng.permutation(len(pairs))[:samples]):
            rows.append((split, str(pairs.view[k])[-48:], pairs.utterance[k][:72]))
    return laid_out(rows, (0, 1, 2))


def labels_report(path: Path, tokenisers: Sequence[Tokeniser]) -> str:
    """A published evaluation set: its questions, pictures and unknown words, as text."""
    labels = read_labels(path)
    words = {word for text in labels.texts for word in text.lower().split()}
    lines = [
        f"{path.name}: {labels.kind}, {labels.questions:,} questions in {labels.rows:,} rows, "
        f"{labels.images:,} pictures, {len(words):,} words",
        *labels.notes,
    ]
    if tokenisers:
        lines.append(laid_out(unknown_table(labels.texts, tokenisers), _LEFT_LAST))
    return "\n".join(lines)
