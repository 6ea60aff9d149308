"""Captioned pictures in each of the usual layouts, written for the tests."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = ((230, 20, 20), (20, 200, 20), (20, 40, 230), (220, 210, 20), (20, 200, 210))
NAMES = ("00000/red.jpg", "00000/green.png", "00001/blue.webp", "00001/yellow.jpg",
         "00002/cyan.gif")
TEXTS = ("a red picture", "a green, tall picture", "a \"blue\" picture", "a yellow picture",
         "a cyan picture")


def picture(k: int, size: tuple[int, int] = (90, 60)) -> Image.Image:
    """One colour, with a little noise that survives any format."""
    rng = np.random.default_rng(k)
    pixels = np.clip(np.array(COLOURS[k]) + rng.integers(-8, 9, (*size[::-1], 1)), 0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(k: int) -> bytes:
    """The k-th picture in the format of its name."""
    buffer = io.BytesIO()
    suffix = NAMES[k].rpartition(".")[2]
    picture(k).save(buffer, {"jpg": "JPEG"}.get(suffix, suffix.upper()))
    return buffer.getvalue()


def write_folder(folder: Path) -> Path:
    """The five pictures below `folder`."""
    for k, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(k))
    return folder


def write_zip(path: Path, before: str = "") -> Path:
    """The five pictures in a zip, under a folder if one is named."""
    with zipfile.ZipFile(path, "w") as archive:
        for k, name in enumerate(NAMES):
            archive.writestr(before + name, encoded(k))
    return path


def llava(names=NAMES, texts=TEXTS, *, listed=False):
    """Items as LLaVA has them."""
    return [
        {"id": name.rpartition("/")[2].partition(".")[0], "image": [name] if listed else name,
         "conversations": [
             {"from": "human", "value": "Describe the picture.\n<image>"},
             {"from": "gpt", "value": text}]}
        for name, text in zip(names, texts, strict=True)
    ]


def write_rows(folder: Path, kind: str) -> Path:
    """A file of rows about the five pictures, in the layout `kind`."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind.startswith("llava"):
        path = folder / "chat.json"
        path.write_text(json.dumps(llava(listed=kind == "llava-list")))
    elif kind == "webdataset":
        path = folder / "00000.tar"
        write_tar(path)
    else:
        path = folder / f"rows.{kind.partition('-')[0]}"
        with path.open("w", newline="", encoding="utf-8") as file:
            if kind == "tsv-bare":  # CC3M's: the caption first, no quotes, no header
                file.writelines(f"{t}\t{n}\n" for n, t in zip(NAMES, TEXTS, strict=True))
            else:
                writer = csv.writer(file, "excel-tab" if kind == "tsv" else "excel")
                writer.writerow(["image", "text"])
                writer.writerows(zip(NAMES, TEXTS, strict=True))
    return path


def write_tar(path: Path) -> Path:
    """A WebDataset shard of the five pictures; every other caption is in a JSON."""
    with tarfile.open(path, "w") as archive:
        for k, name in enumerate(NAMES):
            parts = {f".{name.rpartition('.')[2]}": encoded(k)}
            if k % 2:
                parts[".json"] = json.dumps({"caption": TEXTS[k], "url": "x"}).encode()
            else:
                parts[".txt"] = TEXTS[k].encode()
            for suffix, data in parts.items():
                info = tarfile.TarInfo(f"{k:09}{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path
