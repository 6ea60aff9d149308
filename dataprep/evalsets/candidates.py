"""The generated candidates on disk: one record and one picture each, made batch by batch.

A candidate is named by (sample, side, attempt). The attempts of one sample and side are cut into
batches of the batch size; what is made after an interruption is made in the same batches.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from dataprep.evalsets.diffusion import Painter, Start, seed_of
from dataprep.evalsets.files import canonical, sha256
from dataprep.files import write_whole
from dataprep.provenance.version import code_version

Side = Literal["negative", "positive"]
MAY_CHANGE = ("versions", "device")
"""What may differ between records that were made earlier and now; each says its own."""


@dataclass(frozen=True)
class Wanted:
    """A picture to make, several times over."""

    sample: str
    side: Side
    prompt: str
    start: Start | None = None


class Candidates:
    """The folder ``candidates`` of a set.

    Args:
        folder: where it lies.
        painter: makes what is missing.
        attempts: candidates for each (sample, side).
        seed: enters every generator's seed.
    """

    def __init__(self, folder: Path, painter: Painter, attempts: int, seed: int) -> None:
        if attempts < 1:
            raise ValueError(f"--attempts {attempts}: accepted are 1 and above")
        self.folder, self.painter, self.attempts, self.seed = folder, painter, attempts, seed
        self.made = 0
        """Pictures that this object painted."""

    def name(self, wanted: Wanted, attempt: int) -> str:
        """File name without its ending."""
        return f"{wanted.sample}-{wanted.side}-{attempt:02d}"

    def batches(self) -> list[range]:
        """The attempts of each batch."""
        size = self.painter.settings.batch_size
        return [
            range(first, min(first + size, self.attempts))
            for first in range(0, self.attempts, size)
        ]

    def get(self, wanted: Wanted) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
        """Records and pictures (uint8 [S, S, 3]) of all attempts, painted where they are missing.

        Raises:
            ValueError: what is there was made with other settings.
        """
        records: list[dict[str, Any]] = []
        pictures: list[np.ndarray] = []
        for batch in self.batches():
            held = [self._read(wanted, attempt, batch) for attempt in batch]
            if any(one is None for one in held):
                seeds = [self._seed(wanted, attempt) for attempt in batch]
                painted = self.painter.paint(wanted.prompt, seeds, wanted.start)
                for place, attempt in enumerate(batch):
                    if held[place] is None:
                        held[place] = self._write(wanted, attempt, batch, painted[place])
            for one in held:
                assert one is not None
                records.append(one[0])
                pictures.append(one[1])
        return records, pictures

    def _seed(self, wanted: Wanted, attempt: int) -> int:
        return seed_of(wanted.sample, wanted.side, wanted.prompt, attempt, self.seed)

    def _facts(self, wanted: Wanted, attempt: int, batch: Sequence[int]) -> dict[str, Any]:
        start = wanted.start
        return {
            "sample": wanted.sample,
            "side": wanted.side,
            "attempt": attempt,
            "seed": self._seed(wanted, attempt),
            "batch": list(batch),
            "prompt": wanted.prompt,
            "start_sha256": None if start is None else sha256(start.picture.tobytes()),
            "region": None if start is None else list(start.region),
            **self.painter.facts,
        }

    def _read(
        self, wanted: Wanted, attempt: int, batch: Sequence[int]
    ) -> tuple[dict[str, Any], np.ndarray] | None:
        record_file = self.folder / f"{self.name(wanted, attempt)}.json"
        picture_file = record_file.with_suffix(".png")
        if not record_file.is_file():
            return None
        try:
            record = json.loads(record_file.read_text("utf-8"))
            data = picture_file.read_bytes()
        except (OSError, ValueError) as error:
            raise ValueError(f"{record_file}: cannot be read ({error}); delete it") from None
        expected = self._facts(wanted, attempt, batch)
        other = [
            key
            for key, value in expected.items()
            if key not in MAY_CHANGE and canonical(record.get(key)) != canonical(value)
        ]
        if other:
            raise ValueError(
                f"{record_file}: was made with another {other[0].replace('_', ' ')} "
                f"({_short(record.get(other[0]))}, now {_short(expected[other[0]])}); use the same "
                "settings or remove the folder"
            )
        if sha256(data) != record.get("picture_sha256"):
            raise ValueError(
                f"{picture_file}: is not the picture of {record_file.name}; delete both"
            )
        with Image.open(io.BytesIO(data)) as picture:
            return record, np.asarray(picture.convert("RGB"))

    def _write(
        self, wanted: Wanted, attempt: int, batch: Sequence[int], picture: np.ndarray
    ) -> tuple[dict[str, Any], np.ndarray]:
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "PNG")
        name = self.name(wanted, attempt)
        # the record last: where it is, the picture is whole
        write_whole(self.folder / f"{name}.png", out.getvalue())
        record = {
            **self._facts(wanted, attempt, batch),
            "picture_sha256": sha256(out.getvalue()),
            "code_version": code_version(),
        }
        write_whole(self.folder / f"{name}.json", json.dumps(record, ensure_ascii=False) + "\n")
        self.made += 1
        return record, picture


def _short(value: Any) -> str:
    text = canonical(value)
    return text if len(text) <= 60 else text[:57] + "..."
