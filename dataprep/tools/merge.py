"""Mixing corpora into one: their pictures' bytes, sources, licences and provenance stay."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from dataprep.sources.write import ORIGINS, check_out, no_space_named, write_rows
from engine import Corpus, CorpusWriter, Pairs, Source, read_corpus

__all__ = ["LEAKS", "Mix", "merge"]

LEAKS = ("refuse", "drop", "keep")
_OWN = ("origins.parquet", "inputs.csv", "dead.csv", "pairs.parquet", "images.parquet")


@dataclass(frozen=True)
class Mix:
    """How much of each source goes in.

    Attributes: ``weights``, how often a source's pairs of train are taken (0.5: a random half,
    2: all of them twice; 1 where nothing is said); ``caps``, most of its pairs in train, after
    the weight, as evenly as can be; ``seed``, of the choice; ``leaks``, what to do where a group or
    view would be in train by one corpus and in another split by another: ``refuse``, ``drop`` the
    pairs of train, or ``keep``. Other splits are taken whole.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    caps: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    leaks: str = "refuse"

    def __post_init__(self) -> None:
        for source, weight in self.weights.items():
            if not 0 <= weight <= 1000:
                raise ValueError(f"--weight {source}={weight}: accepted are 0 to 1000")
        for source, cap in self.caps.items():
            if cap < 0:
                raise ValueError(f"--cap {source}={cap}: accepted are 0 and above")
        if self.leaks not in LEAKS:
            raise ValueError(f"--leaks {self.leaks}: accepted are {', '.join(LEAKS)}")


def merge(
    paths: Sequence[Path], out: Path, *, mix: Mix | None = None, name: str = "mixed",
    force: bool = False, progress: bool = True,
) -> dict[str, dict[str, int]]:  # fmt: skip
    """Mix corpora of one image size; returns pairs by split and source.

    Splits of one name become one. A source that two corpora declare must have one licence. Extra
    files are kept under their own path, under ``CORPUS/path`` where two corpora have the same.

    Raises:
        ValueError: sizes or licences differ, an unknown source is weighed, or a leak is refused.
        OSError: a full disk; nothing is left behind.
    """
    mix = mix or Mix()
    check_out(out, force)
    if len(paths) < 1:
        raise ValueError("nothing to merge")
    corpora = [read_corpus(path) for path in paths]
    size = corpora[0].image_size
    for corpus in corpora[1:]:
        if corpus.image_size != size:
            raise ValueError(
                f"{corpus.path}: pictures of {corpus.image_size} pixels, {corpora[0].path} has "
                f"{size}; accepted is one size"
            )
    sources = _sources(corpora)
    for source in [*mix.weights, *mix.caps]:
        if source not in sources:
            raise ValueError(f"no source {source!r}; there are {', '.join(sorted(sources))}")
    leaked, dropped = _leaks(corpora, mix.leaks)
    taken = _taken(corpora, mix, leaked if mix.leaks == "drop" else [set()] * len(corpora))
    made_by = {
        "command": "python -m dataprep merge", "seed": mix.seed, "weights": dict(mix.weights),
        "caps": dict(mix.caps), "leaks": mix.leaks, "leaking_pairs": dropped,
        "inputs": [
            {"name": c.name, "version": c.info.get("version", ""), "digest": c.digest,
             "made_by": c.info.get("made_by", {}), "notes": c.info.get("notes", "")}
            for c in corpora
        ],
    }  # fmt: skip
    writer = CorpusWriter(
        out, name=name, version="1", image_size=size, sources=list(sources.values()),
        made_by=made_by, overwrite=force,
        notes="A mixture; the notes of its inputs stand in made_by.",
    )  # fmt: skip
    with no_space_named(out, "nothing was left half-written; free some and run again"), writer:
        counts, ids = _write(writer, corpora, taken, progress)
        _extras(writer, corpora, ids)
    return counts


def _sources(corpora: Sequence[Corpus]) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for corpus in corpora:
        for about in corpus.info["sources"]:
            source = Source(**about)
            known = found.setdefault(source.name, source)
            if known.licence != source.licence:
                raise ValueError(
                    f"{corpus.path}: source {source.name!r} has the licence {source.licence!r} "
                    f"here and {known.licence!r} in another corpus; accepted is one"
                )
    return found


def _leaks(corpora: Sequence[Corpus], rule: str) -> tuple[list[set[int]], int]:
    """Pairs of train (their ids, by corpus) that another corpus holds out; refuses or counts."""
    held: list[dict[str, set[str]]] = []
    for corpus in corpora:
        mine: dict[str, set[str]] = {"group": set(), "view": set()}
        for split in corpus.splits:
            if split != "train":
                pairs = corpus.pairs(split)
                mine["group"] |= set(pairs.group)
                mine["view"] |= set(pairs.view)
        held.append(mine)
    found: list[set[int]] = []
    example = ""
    for k, corpus in enumerate(corpora):
        leaking: set[int] = set()
        if "train" in corpus.splits:
            pairs = corpus.pairs("train")
            for what in ("group", "view"):
                theirs = set().union(*(h[what] for j, h in enumerate(held) if j != k))
                hit = np.isin(getattr(pairs, what), list(theirs))
                leaking |= set(pairs.id[hit].tolist())
                if hit.any() and not example:
                    example = f"{what} {getattr(pairs, what)[hit][0]!r} of {corpus.path}"
        found.append(leaking)
    total = sum(map(len, found))
    if total and rule == "refuse":
        raise ValueError(
            f"{total:,} pairs of train show what another corpus holds out (first: {example}); "
            "--leaks drop leaves them out, --leaks keep keeps them"
        )
    return found, total


def _taken(
    corpora: Sequence[Corpus], mix: Mix, left_out: Sequence[set[int]]
) -> list[NDArray[np.int64]]:
    """How often each pair of train is taken, by corpus (int64, in the order of the pairs)."""
    times: list[NDArray[np.int64]] = []
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for k, corpus in enumerate(corpora):
        if "train" not in corpus.splits:
            times.append(np.empty(0, np.int64))
            continue
        pairs = corpus.pairs("train")
        times.append(np.zeros(len(pairs), np.int64))
        for place, (pair, source) in enumerate(zip(pairs.id.tolist(), pairs.source, strict=True)):
            if pair not in left_out[k]:
                places[source].append((k, place))
    for number, source in enumerate(sorted(places)):
        rng = np.random.default_rng([mix.seed, 19, number])
        mine = places[source]
        total = round(mix.weights.get(source, 1.0) * len(mine))
        total = min(total, mix.caps.get(source, total))
        whole, extra = divmod(total, len(mine))
        each = np.full(len(mine), whole, np.int64)
        each[rng.permutation(len(mine))[:extra]] += 1
        for (k, place), count in zip(mine, each.tolist(), strict=True):
            times[k][place] = count
    return times


def _rows(corpora: Sequence[Corpus], taken: Sequence[NDArray[np.int64]]) -> Iterator[
    tuple[int, str, Pairs, int, int]
]:  # fmt: skip
    """Corpus, split, pairs, place and how often, splits in the order of their first corpus."""
    splits = list(dict.fromkeys(split for corpus in corpora for split in corpus.splits))
    for split in splits:
        for k, corpus in enumerate(corpora):
            if split in corpus.splits:
                pairs = corpus.pairs(split)
                for place in range(len(pairs)):
                    count = int(taken[k][place]) if split == "train" else 1
                    if count:
                        yield k, split, pairs, place, count


def _write(
    writer: CorpusWriter, corpora: Sequence[Corpus], taken: Sequence[NDArray[np.int64]],
    progress: bool,
) -> tuple[dict[str, dict[str, int]], list[dict[int, int]]]:  # fmt: skip
    """Copy pairs and the pictures they need; returns counts and new image ids by corpus."""
    ids: list[dict[int, int]] = [{} for _ in corpora]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    total = sum(
        int((taken[k] > 0).sum()) if split == "train" else corpus.info["splits"][split]["pairs"]
        for k, corpus in enumerate(corpora)
        for split in corpus.splits
    )
    with tqdm(total=total, unit="pair", desc="merge", disable=not progress) as bar:
        for k, split, pairs, place, count in _rows(corpora, taken):
            corpus, old = corpora[k], int(pairs.image[place])
            if old not in ids[k]:
                table = corpus.image_table
                beton = corpus.images(split)
                row = int(pairs.row[place])
                raw = beton.modes[row] != 0  # pixels: they are encoded, JPEGs copied
                ids[k][old] = writer.add_image(
                    split, beton.pixels(row) if raw else beton.stored(row).tobytes(),
                    view=table["view"][old], source=table["source"][old], key=table["key"][old],
                )  # fmt: skip
            for _ in range(count):
                writer.add_pair(
                    ids[k][old], pairs.utterance[place], source=pairs.source[place],
                    group=pairs.group[place], time_s=_or_none(pairs.time_s[place]),
                    similarity=_or_none(pairs.similarity[place]),
                    provenance=pairs.provenance[place],
                )  # fmt: skip
            counts[split][pairs.source[place]] += count
            bar.update()
    return {split: dict(sorted(found.items())) for split, found in counts.items()}, ids


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _extras(
    writer: CorpusWriter, corpora: Sequence[Corpus], ids: Sequence[dict[int, int]]
) -> None:
    """Origins with their new ids, the lists of inputs and of what was left out, other files."""
    tables: list[pa.Table] = []
    for corpus, new in zip(corpora, ids, strict=True):
        file = corpus.path / "origins.parquet"
        if file.is_file():
            table = pq.read_table(file).select(ORIGINS.names)
            old: list[Any] = table["image"].to_pylist()
            kept = [k for k, image in enumerate(old) if image in new]
            table = table.take(pa.array(kept, pa.int64()))
            images = pa.array([new[old[k]] for k in kept], pa.int64())
            tables.append(table.set_column(0, "image", images).cast(ORIGINS))
    if tables:
        whole = pa.concat_tables(tables).sort_by("image")
        pq.write_table(whole, writer.add_file("origins.parquet"))
    for name in ("inputs.csv", "dead.csv"):
        lines = [
            (corpus.path / name).read_text("utf-8").splitlines(keepends=True)
            for corpus in corpora if (corpus.path / name).is_file()
        ]  # fmt: skip
        if lines:
            joined = [lines[0][0], *(line for part in lines for line in part[1:])]
            writer.add_file(name).write_text("".join(dict.fromkeys(joined)), "utf-8")
    own = {*_OWN, *(f"{split}.beton" for corpus in corpora for split in corpus.splits)}
    files = [(c, file) for c in corpora for file in c.info.get("files", {}) if file not in own]
    often = Counter(file for _, file in files)
    table_rows: list[tuple[str, str]] = []
    for corpus, file in files:
        target = file if often[file] == 1 else f"{corpus.name}/{file}"
        writer.add_file(target).write_bytes((corpus.path / file).read_bytes())
        table_rows.append((target, corpus.name))
    if table_rows:
        write_rows(writer.add_file("files_of_inputs.csv"), ("file", "corpus"), table_rows)
