"""SAYCam as Databrary gives it: videos and one transcript CSV each.

Frames are taken from the videos into a folder beside the corpus that is being made (``OUT.frames``;
a killed run goes on from there), then written with their utterances; the folder is removed once
the corpus is whole. SAYCam is restricted: its frames stay in those two places.

Recordings of another source that come in the same layout are read alike; they are named and
licensed as theirs, and groups and views begin with that source's name.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dataprep.frames.extract import Job, Pictures, extract, load_pictures
from dataprep.frames.video import Way
from dataprep.frames.view import View
from dataprep.sources.splits import RULES, deal
from dataprep.sources.transcripts import Rules, Transcript, read_transcript
from dataprep.sources.write import Dead, Ingest, Origin, check_out, no_space_named, summary
from engine import Source

__all__ = ["SAYCAM", "ingest_saycam"]

SAYCAM = Source(
    "saycam",
    "restricted: by agreement with Databrary",
    "https://databrary.org/volume/564",
    "egocentric videos of three children (Sullivan et al. 2021); frames must not be passed on",
)


@dataclass(frozen=True)
class _Row:
    """A frame that was found: recording, place of its utterance and of its picture, its number."""

    stem: str
    said: int
    stamp: int
    number: int


def ingest_saycam(
    videos: Path,
    transcripts: Path,
    out: Path,
    *,
    source: Source = SAYCAM,
    rules: Rules | None = None,
    view: View | None = None,
    split: str = "random",
    seed: int = 0,
    way: Way = "auto",
    workers: int | None = None,
    skip_unreadable: bool = False,
    force: bool = False,
    progress: bool = True,
) -> None:
    """Make a corpus of every recording that has a video and a transcript.

    Args:
        videos: folder of ``NAME.mp4`` (searched through).
        transcripts: folder of ``NAME.csv``, NAME being ``S_YYYYMMDD_MMDD_PP``.
        out: corpus directory to make.
        source: whose recordings they are, and under which licence.
        rules: how transcripts become utterances and times (published values by default).
        view: how frames become pictures (published values by default).
        split: ``random`` (by utterance, as published), ``recording`` or ``train``.
        seed: of the split.
        way: how videos are read; the frames are the same.
        workers: videos at a time (null: one a processor).
        skip_unreadable: list videos that cannot be read as left out instead of stopping.
        force: replace an existing corpus.
        progress: show bars.

    Raises:
        ValueError: nothing to read, a malformed transcript, an unreadable video.
        OSError: a full disk; the frames taken so far are kept.
    """
    rules, view = rules or Rules(), view or View()
    check_out(out, force)
    if split not in RULES:
        raise ValueError(f"--split {split}: accepted are {', '.join(RULES)}")
    read = [read_transcript(path, rules) for path in _files(transcripts, ".csv", "transcripts")]
    found = _videos(videos)
    dead = [item for transcript in read for item in transcript.dead]
    usable = [t for t in read if t.said and t.stem in found]
    dead += [
        Dead(t.file.name, "file", t.stem, f"no video ({t.stem}.mp4)")
        for t in read if t.said and t.stem not in found
    ]  # fmt: skip
    jobs = [
        Job(t.stem, found[t.stem], tuple(time_s for said in t.said for _, time_s in said.frames))
        for t in usable
    ]
    folder = out.with_name(f"{out.name}.frames")
    with no_space_named(folder, "finished videos are kept; free some and run the same again"):
        wrong = extract(jobs, folder, view, way=way, workers=workers, progress=progress)
    if wrong and not skip_unreadable:
        first = wrong[min(wrong)]
        more = f", and {len(wrong) - 1} other videos" if len(wrong) > 1 else ""
        raise ValueError(
            f"{first}{more}; the frames of the other {len(jobs) - len(wrong)} videos are kept in "
            f"{folder}; mend it and run again, or leave it out with --skip-unreadable"
        )
    dead += [
        Dead(job.video.name, "file", job.name, f"unreadable video ({wrong[job.name]})")
        for job in jobs if job.name in wrong
    ]  # fmt: skip
    facts = {
        "rules": asdict(rules), "view": view.facts(), "split": split, "seed": seed,
        "backwards": sum(t.backwards for t in read),
        "other_speakers": dict(sorted(sum((t.others for t in read), Counter[str]()).items())),
    }  # fmt: skip
    with no_space_named(out, f"the frames are kept in {folder}; free some and run the same again"):
        ingest = _write(
            out, folder, usable, jobs, wrong, dead, source, view, split, seed, facts, force
        )
    shutil.rmtree(folder)
    print(_told(read, facts))
    print(f"{out}: {summary(ingest)}")


def _files(folder: Path, suffix: str, what: str) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of {what}")
    found = sorted(path for path in folder.rglob(f"*{suffix}") if path.is_file())
    if not found:
        raise ValueError(f"{folder}: no {what} in it (*{suffix})")
    return found


def _videos(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in _files(folder, ".mp4", "videos"):
        if path.stem in found:
            first = found[path.stem]
            raise ValueError(f"{path}: a second video of that name; the first is {first}")
        found[path.stem] = path
    return found


def _told(read: Sequence[Transcript], facts: dict[str, Any]) -> str:
    said = sum(len(t.said) for t in read)
    line = f"{len(read)} transcripts, {said:,} utterances"
    if facts["backwards"]:
        line += f"; {facts['backwards']} lines end before they begin (one frame each)"
    others = facts["other_speakers"]
    if others:
        most = sorted(others.items(), key=lambda item: (-item[1], item[0]))[:5]
        named = ", ".join(f"{name or '(none)'} {count}" for name, count in most)
        line += f"; {sum(others.values()):,} lines of other speakers ({named})"
    return line


def _rows(transcript: Transcript, pictures: Pictures, dead: list[Dead]) -> list[_Row]:
    """The frames of a recording that were found; the others are listed as left out."""
    have = {int(stamp): k for k, stamp in enumerate(pictures.stamps)}
    rows, place = [], 0
    for k, said in enumerate(transcript.said):
        for number, time_s in said.frames:
            if place in have:
                rows.append(_Row(transcript.stem, k, have[place], number))
            else:
                name = _name(transcript.stem, said.number, number)
                reason = f"no whole frame at that time ({time_s:.1f} s)"
                dead.append(Dead(f"{transcript.stem}.mp4", f"{time_s:.1f} s", name, reason))
            place += 1
    return rows


def _name(stem: str, utterance: int, frame: int) -> str:
    """CVCL's name of a frame."""
    return f"{stem}_{utterance:03}_{frame:02}.jpg"


def _write(
    out: Path, folder: Path, usable: Sequence[Transcript], jobs: Sequence[Job],
    wrong: dict[str, str], dead: list[Dead], source: Source, view: View, split: str, seed: int,
    facts: dict[str, Any], force: bool,
) -> Ingest:  # fmt: skip
    recordings = [(t, job) for t, job in zip(usable, jobs, strict=True) if t.stem not in wrong]
    rows_of: dict[str, list[_Row]] = {}
    for transcript, job in recordings:
        pictures = load_pictures(folder, job, view)
        assert pictures is not None  # `extract` made them
        rows_of[transcript.stem] = _rows(transcript, pictures, dead)
    # Utterances are dealt, not frames; only those of which there is a frame, as published.
    spoken = list(
        dict.fromkeys((row.stem, row.said) for rows in rows_of.values() for row in rows)
    )
    dealt = deal([stem for stem, _ in spoken], split, seed)
    split_of = dict(zip(spoken, dealt, strict=True))
    notes = "Group: the recording. View: the frame."
    if source.name == SAYCAM.name:
        notes += " Frames are restricted; do not pass them on."
    ingest = Ingest(
        out, name=source.name, image_size=view.size, sources=[source],
        command="python -m dataprep ingest --kind saycam", facts=facts, force=force, notes=notes,
        jpeg_quality=view.jpeg_quality,
    )  # fmt: skip
    with ingest:
        for item in dead:
            ingest.leave_out(item)
        for transcript, job in recordings:
            pictures = load_pictures(folder, job, view)
            assert pictures is not None
            ingest.add_input(job.video.name, pictures.sha256, pictures.size_bytes)
            for row in rows_of[transcript.stem]:
                said = transcript.said[row.said]
                name = _name(transcript.stem, said.number, row.number)
                time_s = float(pictures.time_s[row.stamp])
                image = ingest.add_image(
                    split_of[transcript.stem, row.said], pictures.jpeg(row.stamp),
                    view=f"{source.name}/{name.removesuffix('.jpg')}", source=source.name, key=name,
                    origin=Origin(job.video.name, pictures.sha256, time_s=time_s),
                )  # fmt: skip
                ingest.add_pair(
                    image, said.text, source=source.name, group=f"{source.name}/{transcript.stem}",
                    time_s=said.frames[0][1],
                )  # fmt: skip
    return ingest
