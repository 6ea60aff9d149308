"""Two-word trials: a language model proposes phrase pairs, filters and pruning choose.

Published (VTWT): 5,117 proposals by GPT-4o, 967 left after a review by hand. Here every proposal
is kept with the reason for which it was left out, the difference between the phrases is labelled
word by word, and what is left is pruned until no model that reads only phrases beats chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from dataprep.benchmarks.two_word import HEADER
from dataprep.evalsets.asking import Ask, asked_by, failures, put, stop_if_unanswered
from dataprep.evalsets.evalset import EvalSet, Finished, Record
from dataprep.evalsets.files import sha256
from dataprep.evalsets.frames import Frame, Pictures
from dataprep.evalsets.labeled import relative
from dataprep.evalsets.pruning import prune
from dataprep.evalsets.templates import CLASSES, TWO_WORD
from dataprep.evalsets.words import Synonyms, phrase_words, plain
from dataprep.provenance.version import code_version
from dataprep.similarity.scorers import Scorer

FILE = "two_word.csv"
DETAILS = "two_word_details.csv"


def kind_of(first: str, second: str) -> str:
    """``noun``, ``verb``, ``adjective`` or a combination (``adjective+noun``) from two labels."""
    return "+".join(sorted({label for label in (first, second) if label != "same"}))


def refusal(
    pair: dict[str, Any], utterance: str, vocabulary: frozenset[str] | None, synonyms: Synonyms
) -> str:
    """Why a proposed pair cannot be used (``kind: detail``); empty when it can.

    pair: ``positive``, ``negative``, ``first``, ``second`` as the template's schema has them.
    """
    positive, negative = (str(pair[name]).strip().lower() for name in ("positive", "negative"))
    labels = (pair["first"], pair["second"])
    right, wrong = positive.split(), negative.split()
    for phrase, words in ((positive, right), (negative, wrong)):
        if len(words) != 2 or phrase_words(phrase) != words:
            return f"two words: {phrase!r} is not two plain words"
    if right == wrong:
        return "same: both phrases are the same"
    for one, other, label in zip(right, wrong, labels, strict=True):
        if (one == other) != (label == "same") or label not in ("same", *CLASSES):
            return f"label: {one!r} to {other!r} is labelled {label!r}"
    if sorted(right) == sorted(wrong):
        return "order: the same words in another order"
    unknown = sorted({*right, *wrong} - vocabulary) if vocabulary is not None else []
    if unknown:
        return f"vocabulary: unknown {', '.join(unknown)}"
    changed = [(a, b) for a, b in zip(right, wrong, strict=True) if a != b]
    if all(synonyms.alike(a, b) for a, b in changed):
        return "synonym: " + ", ".join(f"{a}/{b}" for a, b in changed)
    said = {plain(word) for word in phrase_words(utterance)}
    if any(plain(b) in said for _, b in changed):
        return "said: the sentence says " + ", ".join(b for _, b in changed if plain(b) in said)
    return ""


def two_word_records(
    frames: Sequence[Frame],
    pictures: Pictures,
    ask: Ask,
    *,
    model: str,
    vocabulary: frozenset[str] | None,
    synonyms: Synonyms,
    seed: int = 0,
    with_images: bool = False,
    scorer: Scorer | None = None,
    min_margin: float | None = None,
    keep_utterances: bool = True,
) -> tuple[list[Record], dict[str, int]]:
    """Every proposal for these frames as a record, and failed requests by kind.

    Args:
        frames: the pictures with their utterances.
        pictures: where the pictures go.
        ask: the language model.
        model: its name.
        vocabulary: words that both phrases must consist of; None: any.
        synonyms: what is no contrast.
        seed: passed on to the model.
        with_images: send the pictures along (the question is then one for each picture).
        scorer: measures the margin: similarity to the right phrase minus that to the wrong one.
        min_margin: proposals below it are left out; None: none is.
        keep_utterances: whether records hold the utterance itself or its hash alone.
    """
    asked = put(
        TWO_WORD,
        [{"utterance": frame.utterance} for frame in frames],
        ask,
        model=model,
        seed=seed,
        images=[(pictures.stored(frame),) for frame in frames] if with_images else None,
    )
    stop_if_unanswered(asked)
    records: list[Record] = []
    owners: list[Frame] = []
    seen: set[tuple[int, frozenset[str]]] = set()
    for frame, one in zip(frames, asked, strict=True):
        for number, pair in enumerate((one.value or {"pairs": []})["pairs"]):
            positive, negative = (pair[n].strip().lower() for n in ("positive", "negative"))
            reason = refusal(pair, frame.utterance, vocabulary, synonyms)
            both = frame.image, frozenset((positive, negative))
            if not reason and both in seen:
                reason = "repeated: proposed twice for this picture"
            seen.add(both)
            image, image_hash = pictures.place(frame) if not reason else ("", "")
            records.append(
                Record(
                    id=f"{frame.pair:07d}-{number}",
                    images={"image": image} if image else {},
                    fields={"positive_phrase": positive, "negative_phrase": negative},
                    facts={
                        "kind": kind_of(pair["first"], pair["second"]),
                        **({"utterance": frame.utterance} if keep_utterances else {}),
                    },
                    provenance={
                        **origin(frame),
                        **({"image_sha256": image_hash} if image_hash else {}),
                        **asked_by(TWO_WORD, one),
                        "code_version": code_version(),
                    },
                    dropped=reason,
                )
            )
            owners.append(frame)
    if scorer is not None:
        _measure(records, owners, pictures, scorer, min_margin)
    return records, failures(asked)


def origin(frame: Frame) -> dict[str, Any]:
    """Where a frame comes from: ids, time stamp and hash, never its words."""
    return {
        "source": frame.source, "words_source": frame.words_source, "split": frame.split,
        "image": frame.image, "pair": frame.pair, "group": frame.group, "view": frame.view,
        "key": frame.key, "time_s": frame.time_s, "utterance_sha256": sha256(frame.utterance),
    }  # fmt: skip


def _measure(
    records: Sequence[Record],
    owners: Sequence[Frame],
    pictures: Pictures,
    scorer: Scorer,
    min_margin: float | None,
) -> None:
    """Write each candidate's similarity margin into its facts; reject those below the least."""
    chosen = [i for i, record in enumerate(records) if not record.dropped]
    if not chosen:
        return
    frames = {owners[i].image: owners[i] for i in chosen}
    phrases = sorted({p for i in chosen for p in records[i].fields.values()})
    seen = scorer.embed_images([pictures.pixels(frame) for frame in frames.values()])
    read = scorer.embed_texts(phrases)
    row = {image: k for k, image in enumerate(frames)}
    place = {phrase: k for k, phrase in enumerate(phrases)}
    for i in chosen:
        record = records[i]
        vector = seen[row[owners[i].image]]
        right, wrong = (
            float(np.dot(vector, read[place[record.fields[name]]])) for name in HEADER[1:]
        )
        record.facts |= {"margin": right - wrong, "scorer": scorer.name, "scorer_hash": scorer.hash}
        if min_margin is not None and right - wrong < min_margin:
            record.dropped = f"margin: {right - wrong:.3f} below {min_margin}"


def finish(evalset: EvalSet) -> Finished:
    """Prune what reviews left and write the official table, with one of details beside it."""
    info = evalset.info
    kept: list[Record] = []
    seen: set[tuple[str, ...]] = set()
    for record in evalset.kept():
        trial = (record.images["image"], *sorted(record.fields.values()))
        if trial not in seen:  # an edit may have made two alike
            seen.add(trial)
            kept.append(record)
    pairs = [(r.fields["positive_phrase"], r.fields["negative_phrase"]) for r in kept]
    facts: dict[str, Any] = {}
    lines: list[str] = []
    if info["made_by"]["prune"] and pairs:
        pruning = prune(pairs, seed=info["made_by"]["seed"])
        for record, stays in zip(kept, pruning.keep, strict=True):
            record.pruned = not stays
        kept = [record for record in kept if not record.pruned]
        lines = pruning.lines()
        reached: dict[str, Any] = {
            name: {f.model: round(f.accuracy, 4) for f in found}
            for name, found in (("before", pruning.before), ("after", pruning.after))
        }
        if kept:
            reached["chance_95"] = [
                round(pruning.after[0].chance_low, 4), round(pruning.after[0].chance_high, 4),
            ]  # fmt: skip
        facts["phrase_only"] = reached
    facts["kinds"] = dict(sorted(Counter(str(r.facts["kind"]) for r in kept).items()))
    root = info["image_root"]
    rows = [
        (relative(r.images["image"], root), *(r.fields[name] for name in HEADER[1:])) for r in kept
    ]
    details = [(r.id, r.facts["kind"], r.provenance["group"]) for r in kept]
    task = {"name": info["name"], "kind": "two_word", "file": FILE, "image_root": root}
    return Finished(
        {FILE: (HEADER, list(rows)), DETAILS: (("id", "kind", "group"), list(details))},
        [task] if kept else [],
        {"trials": len(kept), "images": len({r.images["image"] for r in kept})},
        facts,
        lines,
    )
