"""SAYCam's transcripts: one CSV a video, read by the published rules.

Columns ``Time``, ``Speaker``, ``Utterance``, ``Video Name``; others are ignored. The rules are
those of CVCL's preprocessing: lines of the mother (eight spellings) are kept; a line lasts until
the next line begins, whoever speaks, and the last one for no time; its sentences share its time
evenly, in whole seconds; each gives ``min(5 * seconds, 32)`` frames, at least one, at 5 frames a
second from its beginning. A line without a time, or before one without, is left out. BabyVLM uses
every fifth frame: one a second.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from dataprep.sources.speech import SPLITTERS, Splitter, sentences
from dataprep.sources.stamps import seconds
from dataprep.sources.write import Dead

__all__ = ["SPEAKERS", "Rules", "Said", "Transcript", "read_transcript", "stem_of"]

COLUMNS = ("Time", "Speaker", "Utterance", "Video Name")
SPEAKERS = ("M", "Mom", "mom", "m", "mother", "Mother", "papa", "the mom")
"""The published spellings of who speaks to the child."""


@dataclass(frozen=True)
class Rules:
    """How transcripts become utterances and times; the defaults are the published values.

    Attributes: ``speakers``, spellings of the speakers that are kept; ``fps``, frames a second of
    an utterance; ``max_frames``, most frames of one; ``every``, which of them are kept (5: 0, 5,
    10, ..., BabyVLM's one a second; 1: all, CVCL's); ``splitter``, see `dataprep.sources.speech`;
    ``inaudible``, what is written for what could not be heard.
    """

    speakers: tuple[str, ...] = SPEAKERS
    fps: float = 5.0
    max_frames: int = 32
    every: int = 5
    splitter: Splitter = "rules"
    inaudible: str = "<unk>"

    def __post_init__(self) -> None:
        if not (0 < self.fps <= 1000 and self.max_frames >= 1 and self.every >= 1):
            raise ValueError(
                f"fps {self.fps}, max-frames {self.max_frames}, every {self.every}: accepted are "
                "above 0, 1 and above, 1 and above"
            )
        if self.splitter not in SPLITTERS:
            raise ValueError(f"splitter {self.splitter!r}: accepted are {', '.join(SPLITTERS)}")

    def frames(self, begin_s: int, end_s: int) -> list[tuple[int, float]]:
        """Number and time of the frames of an utterance."""
        # published: int(duration / 0.2); the product is exact where the quotient is not
        count = max(min(int(round((end_s - begin_s) * self.fps, 6)), self.max_frames), 1)
        return [(k, begin_s + k / self.fps) for k in range(0, count, self.every)]


@dataclass(frozen=True)
class Said:
    """One utterance: its number in the recording (from 1), words, and frames (number, time_s)."""

    number: int
    text: str
    frames: list[tuple[int, float]]


@dataclass
class Transcript:
    """A transcript that was read.

    Attributes: ``stem``, the recording's name; ``file``, its file; ``said``, its utterances;
    ``dead``, lines left out; ``backwards``, lines whose next begins earlier than they do (they
    get one frame); ``others``, how often every other speaker was left out.
    """

    stem: str
    file: Path
    said: list[Said] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)
    backwards: int = 0
    others: Counter[str] = field(default_factory=Counter)


def stem_of(path: Path) -> str:
    """The recording's name; sheets called ``..._part 2`` are ``..._02``, as published."""
    return re.sub(r"_part (\d+)$", lambda match: f"_{int(match[1]):02}", path.stem)


def read_transcript(path: Path, rules: Rules) -> Transcript:
    """Read one transcript.

    Lines that cannot be used are listed in ``dead``. So is the whole transcript when it names
    no video or several, or another recording's.

    Raises:
        ValueError: a column is missing, or the file is no UTF-8 CSV.
    """
    transcript = Transcript(stem_of(path), path)
    rows = _rows(path)

    def dead(where: str, key: str, reason: str) -> None:
        transcript.dead.append(Dead(path.name, where, key, reason))

    if len(rows) <= 1:
        dead("file", transcript.stem, "transcript of one line or none")
        return transcript
    videos = {row["Video Name"].strip() for _, row in rows} - {""}
    videos = {video for video in videos if "part" not in video}
    if len(videos) != 1:
        dead("file", transcript.stem, f"transcript names {len(videos)} videos ({_few(videos)})")
        return transcript
    video = PurePosixPath(videos.pop()).stem
    if video != transcript.stem:
        dead("file", transcript.stem, f"transcript names another recording's video ({video})")
        return transcript
    starts = [seconds(row["Time"]) for _, row in rows]
    for k, (line, row) in enumerate(rows):
        speaker = row["Speaker"]
        if speaker not in rules.speakers:
            transcript.others[speaker] += 1
            continue
        begin = starts[k]
        end = starts[k + 1] if k + 1 < len(rows) else begin
        where, stamp = f"line {line}", row["Time"].strip()
        if begin is None:
            dead(where, stamp, f"time stamp cannot be read ({stamp!r})")
            continue
        if end is None:
            dead(where, stamp, "the next line's time stamp cannot be read")
            continue
        if end < begin:
            transcript.backwards += 1
            end = begin
        texts = sentences(row["Utterance"], rules.splitter, rules.inaudible)
        if not texts:
            dead(where, stamp, "no words left after the clean-up")
            continue
        edges = [int(edge) for edge in np.linspace(begin, end, len(texts) + 1)]
        for text, first, last in zip(texts, edges[:-1], edges[1:], strict=True):
            number = len(transcript.said) + 1
            transcript.said.append(Said(number, text, rules.frames(first, last)))
    return transcript


def _few(names: Sequence[str] | set[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (", ..." if len(ordered) > 3 else "")


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and columns of every row that is not blank."""
    found = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        try:
            header = [name.strip() for name in next(reader, [])]
            missing = [name for name in COLUMNS if name not in header]
            if missing:
                raise ValueError(
                    f"{path}, line 1: no column {', '.join(map(repr, missing))}; found "
                    f"{', '.join(header) or 'nothing'}; needed {', '.join(COLUMNS)}"
                )
            place = {name: header.index(name) for name in COLUMNS}
            before = reader.line_num
            for row in reader:
                line, before = before + 1, reader.line_num
                if any(cell.strip() for cell in row):
                    padded = row + [""] * (len(header) - len(row))
                    found.append((line, {name: padded[k] for name, k in place.items()}))
        except UnicodeDecodeError:
            raise ValueError(f"{path}, after line {reader.line_num}: not UTF-8 text") from None
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
    return found
