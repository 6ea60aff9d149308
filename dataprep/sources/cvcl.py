"""CVCL's extracted frames: 600,285 pictures of 224 x 224 and JSON metadata, as Databrary has them.

Metadata: ``train.json``, ``val.json``, ``test.json``, each ``{"data": [{"utterance",
"video_filename", "utterance_num", "timestamps", "frame_filenames", ...}]}``. Pictures: a folder or
the archive (``frames.txt`` is a zip by another name), read in place and stored as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dataprep.sources.kept import Kept, kept_folder, kept_until_whole
from dataprep.sources.pictures import Prepared, open_store
from dataprep.sources.prepare import prepare, prepared_in_order
from dataprep.sources.saycam import SAYCAM
from dataprep.sources.splits import RULES, deal
from dataprep.sources.write import Dead, Ingest, Origin, check_out, no_space_named, summary

__all__ = ["ingest_cvcl"]

FILES = ("train", "val", "test")
_NEEDED = ("utterance", "video_filename", "frame_filenames", "timestamps")


@dataclass(frozen=True)
class _Frame:
    file: str
    where: str
    split: str
    name: str
    time_s: float | None
    frame_s: float | None
    text: str
    recording: str


@dataclass(frozen=True)
class _Utterance:
    file: str
    where: str
    split: str
    text: str
    recording: str
    begins_s: float | None
    frames: list[tuple[int, str, float | None]]
    """Number in the utterance (0, 1, ...: 5 a second), name and time of its frames."""


def ingest_cvcl(
    pictures: Path,
    metadata: Path,
    out: Path,
    *,
    split: str = "files",
    every: int = 5,
    image_size: int = 224,
    seed: int = 0,
    workers: int | None = None,
    force: bool = False,
    progress: bool = True,
) -> None:
    """Make a corpus of CVCL's frames.

    Args:
        pictures: folder or zip of the frames.
        metadata: folder of ``train.json``, ``val.json``, ``test.json``.
        out: corpus directory to make.
        split: ``files`` (the published random split itself), or a rule of `deal`.
        every: which of an utterance's frames are kept (5: one a second, as in BabyVLM's files;
            1: all, CVCL's).
        image_size: side of the pictures in pixels (the frames have 224).
        seed: of the split.
        workers: threads that read pictures.
        force: replace an existing corpus.
        progress: show a bar.

    Raises:
        ValueError: missing or malformed metadata, half a zip, nothing usable.
        OSError: a full disk; the frames made are kept for the next run of the same call.
    """
    if split != "files" and split not in RULES:
        raise ValueError(f"--split {split}: accepted are files, {', '.join(RULES)}")
    if every < 1 or not 1 <= image_size <= 4096:
        raise ValueError(
            f"--every {every}, --image-size {image_size}: accepted are 1 and above, 1 to 4096"
        )
    check_out(out, force)
    store = open_store(pictures)
    dead: list[Dead] = []
    inputs: list[tuple[str, str, int]] = []
    spoken = [u for name in FILES for u in _read(metadata / f"{name}.json", name, inputs, dead)]
    dealt = (
        [u.split for u in spoken]
        if split == "files"
        else deal([u.recording for u in spoken], split, seed)
    )
    ingest = Ingest(
        out, name="saycam", image_size=image_size, sources=[SAYCAM],
        command="python -m dataprep ingest --kind cvcl",
        facts={"split": split, "seed": seed, "every": every},
        notes="Group: the recording. View: the frame. Frames are restricted; do not pass them on.",
        force=force,
    )  # fmt: skip

    def work(frame: _Frame) -> Prepared | str:
        return prepare(lambda: store.read(frame.name), image_size, "pad", 95)

    frames = list(_frames(spoken, dealt, every))
    folder = kept_folder(out)
    advice = f"what is made is kept in {folder}; free some and run again"
    with no_space_named(out, advice), kept_until_whole(folder), ingest:
        for file in inputs:
            ingest.add_input(*file)
        for item in dead:
            ingest.leave_out(item)
        bar = tqdm(total=len(frames), unit="frame", desc="frames", disable=not progress)
        with bar, Kept(folder / "0.bin", [inputs, every, image_size, store.facts]) as kept:
            for frame, made in prepared_in_order(frames, work, workers, kept):
                bar.update()
                if not isinstance(made, Prepared):
                    reason = made or "cannot be read"
                    ingest.leave_out(Dead(frame.file, frame.where, frame.name, reason))
                    continue
                stem = frame.name.rpartition("/")[2].rpartition(".")[0]
                image = ingest.add_image(
                    frame.split, made.jpeg, view=f"saycam/{stem}", source=SAYCAM.name,
                    key=frame.name,
                    origin=Origin(store.label, made.sha256, frame.name, frame.frame_s),
                )  # fmt: skip
                ingest.add_pair(
                    image, frame.text, source=SAYCAM.name, group=f"saycam/{frame.recording}",
                    time_s=frame.time_s,
                )  # fmt: skip
    print(f"{out}: {summary(ingest)}")


def _frames(
    spoken: Sequence[_Utterance], dealt: Sequence[str], every: int
) -> Iterator[_Frame]:
    for said, split in zip(spoken, dealt, strict=True):
        for number, name, frame_s in said.frames:
            if number % every == 0:
                yield _Frame(
                    said.file, said.where, split, name, said.begins_s, frame_s, said.text,
                    said.recording,
                )  # fmt: skip


def _read(
    path: Path, split: str, inputs: list[tuple[str, str, int]], dead: list[Dead]
) -> Iterator[_Utterance]:
    """The utterances of one metadata file; malformed ones are listed in `dead`."""
    if not path.is_file():
        raise ValueError(f"{path}: no such metadata file; needed train.json, val.json, test.json")
    data = path.read_bytes()
    inputs.append((path.name, hashlib.sha256(data).hexdigest(), len(data)))
    try:
        tree: Any = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{path}: not JSON, or cut short ({error})") from None
    items = tree.get("data") if isinstance(tree, dict) else None
    if not isinstance(items, list):
        raise ValueError(f'{path}: needs {{"data": [...]}} at its top')
    for number, item in enumerate(items):
        where = f"item {number}"
        missing = [key for key in _NEEDED if not isinstance(item, dict) or key not in item]
        if missing:
            if number == 0:
                raise ValueError(
                    f"{path}, item 0: no {', '.join(missing)}; needed {', '.join(_NEEDED)}"
                )
            dead.append(Dead(path.name, where, "", f"item lacks fields ({', '.join(missing)})"))
            continue
        names, times, text = item["frame_filenames"], item["timestamps"], item["utterance"]
        if not isinstance(text, str) or not text.strip():
            dead.append(Dead(path.name, where, "", "no words"))
        elif not isinstance(names, list) or not names:
            dead.append(Dead(path.name, where, "", "no frames"))
        else:
            recording = Path(str(item["video_filename"])).stem
            frames = [_frame(str(name), place, times) for place, name in enumerate(names)]
            begins = _at(times, 0)
            yield _Utterance(path.name, where, split, text.strip(), recording, begins, frames)


def _frame(name: str, place: int, times: object) -> tuple[int, str, float | None]:
    """A frame's number, which stands in its name: names of frames never extracted are missing."""
    number = name.rpartition(".")[0].rpartition("_")[2]
    k = int(number) if number.isascii() and number.isdigit() else place
    return k, name, _at(times, k)


def _at(times: object, k: int) -> float | None:
    if isinstance(times, list) and k < len(times) and isinstance(times[k], int | float):
        return float(times[k])
    return None
