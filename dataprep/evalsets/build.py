"""Making each kind of set: from a corpus, from category folders, from a set of another kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataprep.evalsets import captions, labeled, two_word, winoground
from dataprep.evalsets.asking import Ask, Asked, failures, stop_if_unanswered
from dataprep.evalsets.candidates import Candidates
from dataprep.evalsets.evalset import EvalSet, Finished, Record, begin, manifest, read_evalset, save
from dataprep.evalsets.frames import (
    Frame,
    Pictures,
    choose_frames,
    frames_of,
    path_from,
    restricted_sources,
)
from dataprep.evalsets.kinds import KINDS
from dataprep.evalsets.words import Synonyms
from dataprep.provenance.version import code_version, package_versions
from dataprep.similarity.scorers import Scorer
from engine import Corpus

PACKAGES = ("numpy", "pillow")


def _made_by(command: str, seed: int, **more: Any) -> dict[str, Any]:
    return {
        "command": command,
        "seed": seed,
        "code_version": code_version(),
        "packages": package_versions(PACKAGES),
        **more,
    }


def build_labeled(
    images: Path,
    out: Path,
    *,
    per_category: int = labeled.PER_CATEGORY,
    seed: int = 0,
    mirrored: bool = False,
    exclude: Sequence[str] = labeled.EXCLUDED,
    licence: str = "",
    restricted: bool = True,
    force: bool = False,
) -> Finished:
    """Labelled trials from category folders, which stay where they are.

    licence: the pictures' licence, for the records; restricted: whether pages and documents must
    not show them.
    """
    begin(out, force=force)
    records, problems = labeled.labeled_records(
        images, out, per_category=per_category, seed=seed, mirrored=mirrored, exclude=exclude,
        code=code_version(),
    )  # fmt: skip
    info = manifest(
        "labeled",
        out.resolve().name,
        "One word, four pictures of four categories: which one shows it?",
        sources=[
            {
                "name": images.resolve().name, "licence": licence or "not stated", "url": "",
                "notes": "category folders", "restricted": restricted,
            }
        ],
        corpus=None,
        made_by=_made_by(
            "build labeled", seed, per_category=per_category, mirrored=mirrored,
            excluded=sorted(exclude), left_out=len(problems),
        ),
    )  # fmt: skip
    info["image_root"] = path_from(out, images)
    done = save(EvalSet(out, info, records), KINDS["labeled"])
    done.lines += [f"left out: {problem}" for problem in problems]
    return done


def _sources(corpus: Corpus, records: Sequence[Record]) -> list[Mapping[str, Any]]:
    """The corpus's sources that these records come from."""
    used = {str(r.provenance[k]) for r in records for k in ("source", "words_source")}
    return [source for source in corpus.info["sources"] if source["name"] in used]


def _corpus(corpus: Corpus) -> dict[str, Any]:
    return {"name": corpus.name, "digest": corpus.digest, "path": corpus.path.as_posix()}


def _image_root(out: Path, pictures_from: Path | None) -> str:
    return "." if pictures_from is None else path_from(out, pictures_from)


def pick(
    corpus: Corpus,
    split: str,
    *,
    per_utterance: int,
    per_picture: int = 1,
    limit: int | None,
    seed: int,
) -> list[Frame]:
    """The frames of a split that a set is made of."""
    if per_picture < 1:
        raise ValueError(f"--per-picture {per_picture}: accepted are 1 and above")
    if per_utterance < 1:
        raise ValueError(f"--per-utterance {per_utterance}: accepted are 1 and above")
    if limit is not None and limit < 1:
        raise ValueError(f"--limit {limit}: accepted are 1 and above")
    frames = frames_of(corpus, split)
    return choose_frames(
        frames, per_utterance=per_utterance, per_picture=per_picture, limit=limit, seed=seed
    )


def build_two_word(
    corpus: Corpus,
    split: str,
    out: Path,
    ask: Ask,
    *,
    model: str,
    vocabulary: frozenset[str] | None,
    synonyms: Synonyms,
    per_utterance: int = 1,
    per_picture: int = 1,
    limit: int | None = None,
    seed: int = 0,
    prune: bool = True,
    with_images: bool = False,
    scorer: Scorer | None = None,
    min_margin: float | None = None,
    pictures_from: Path | None = None,
    allow_restricted: bool = False,
    force: bool = False,
) -> Finished:
    """Two-word trials from the utterances of a split.

    Raises:
        ValueError: a source is restricted and nothing allows its words (or, with `with_images`, its
            frames) to go to the language model, or its frames to be copied.
    """
    frames = pick(
        corpus, split, per_utterance=per_utterance, per_picture=per_picture, limit=limit, seed=seed
    )
    restricted = set(restricted_sources(corpus.info))
    sent = sorted({f.words_source for f in frames} & restricted)
    if with_images:
        sent = sorted({*sent, *({f.source for f in frames} & restricted)})
    if sent and not allow_restricted:
        raise ValueError(
            f"{corpus.path}: {', '.join(sent)} is restricted, and its content would be sent to the "
            "language model; --allow-restricted allows it (with a server of your own, for example)"
        )
    begin(out, force=force)
    pictures = Pictures(corpus, out, pictures_from, allow_restricted)
    for frame in frames if pictures_from is None else ():
        pictures.check(frame)
    records, failed = two_word.two_word_records(
        frames, pictures, ask, model=model, vocabulary=vocabulary, synonyms=synonyms, seed=seed,
        with_images=with_images, scorer=scorer, min_margin=min_margin,
        keep_utterances=not sent,
    )  # fmt: skip
    info = manifest(
        "two_word",
        out.resolve().name,
        "One picture, two phrases of two words: which one fits?",
        sources=_sources(corpus, records),
        corpus=_corpus(corpus),
        made_by=_made_by(
            "build two-word", seed, prune=prune, split=split, per_utterance=per_utterance,
            per_picture=per_picture, limit=limit, model=model, failed_requests=failed,
            synonyms_sha256=synonyms.hash,
            vocabulary_words=None if vocabulary is None else len(vocabulary),
            min_margin=min_margin, scorer=None if scorer is None else dict(scorer.facts),
        ),
    )  # fmt: skip
    info["image_root"] = _image_root(out, pictures_from)
    return save(EvalSet(out, info, records), KINDS["two_word"])


def build_captions(
    corpus: Corpus,
    split: str,
    out: Path,
    *,
    train: Sequence[str] = ("train",),
    near: float = 1.0,
    count: int | None = captions.COUNT,
    seed: int = 0,
    pictures_from: Path | None = None,
    allow_restricted: bool = False,
    force: bool = False,
) -> Finished:
    """Captions of a split, de-duplicated against training."""
    if split in train:
        raise ValueError(f"--split {split}: is also a training split (--train)")
    if near <= 0:
        raise ValueError(f"--near {near}: accepted are numbers above 0 (2: off)")
    frames = pick(corpus, split, per_utterance=1, limit=None, seed=seed)
    begin(out, force=force)
    pictures = Pictures(corpus, out, pictures_from, allow_restricted)
    records = captions.caption_records(
        _shuffled(frames, seed), corpus, train, pictures, near=near, count=count
    )
    info = manifest(
        "caption",
        out.resolve().name,
        "One picture, one utterance that training has never said.",
        sources=_sources(corpus, records),
        corpus=_corpus(corpus),
        made_by=_made_by(
            "build captions", seed, split=split, train=list(train), near=near, count=count
        ),
    )
    info["image_root"] = _image_root(out, pictures_from)
    return save(EvalSet(out, info, records), KINDS["caption"])


def _shuffled(frames: Sequence[Frame], seed: int) -> list[Frame]:
    """The frames in an order of chance."""
    return [frames[k] for k in np.random.default_rng([seed, 22]).permutation(len(frames))]


def build_winoground(
    two_word_folder: Path,
    out: Path,
    ask: Ask,
    paint: Callable[[Path], Candidates],
    scorer: Scorer,
    *,
    model: str,
    min_margin: float = 0.0,
    seed: int = 0,
    limit: int | None = None,
    allow_restricted: bool = False,
    force: bool = False,
    progress: bool = True,
) -> Finished:
    """Winoground instances from the trials of a two-word set.

    paint: gives the candidates of a folder (called once the prompts are there, because it loads
    the diffusion model).
    """
    source = read_evalset(two_word_folder)
    if source.restricted and not allow_restricted:
        raise ValueError(
            f"{two_word_folder}: has restricted sources, from which prompts and pictures would be "
            "made; --allow-restricted allows it"
        )
    trials = winoground.trials_of(source)
    if limit is not None:
        source.records = trials = trials[:limit]
    begin(out, force=force)
    asked: list[Asked] = winoground.ask_prompts(trials, ask, model=model, seed=seed)
    stop_if_unanswered(asked)
    candidates = paint(out / winoground.FOLDER)
    records, _ = winoground.winoground_records(
        source, out, asked, candidates, scorer, min_margin=min_margin, progress=progress
    )
    info = manifest(
        "winoground",
        out.resolve().name,
        "Two pictures, two phrases: which belongs to which? Negatives are generated.",
        sources=[
            *source.info["sources"],
            {
                "name": str(candidates.painter.facts["model"]), "licence": "see the model's",
                "url": "", "notes": "generated pictures", "restricted": source.restricted,
            },
        ],
        corpus=source.info["corpus"],
        made_by=_made_by(
            "build winoground", seed, two_word=source.info["digest"], model=model,
            failed_requests=failures(asked), attempts=candidates.attempts, min_margin=min_margin,
            scorer=dict(scorer.facts), diffusion=candidates.painter.facts, safety_checker=None,
        ),
    )  # fmt: skip
    info["image_root"] = "."
    return save(EvalSet(out, info, records), KINDS["winoground"])
