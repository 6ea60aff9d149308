"""Pictures in a folder or a zip, read in place, and made square for a corpus."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from PIL import Image, ImageOps

__all__ = ["FITS", "Fit", "PictureError", "Prepared", "Store", "made_square", "open_store"]

Fit = Literal["pad", "crop", "stretch"]
FITS = ("pad", "crop", "stretch")
PAD_COLOUR = (124, 116, 104)
"""What published padding is filled with: the mean of ImageNet."""


@dataclass(frozen=True)
class Prepared:
    """A picture as JPEG bytes of the corpus's size, and its source's SHA-256."""

    jpeg: bytes
    sha256: str


class PictureError(ValueError):
    """A picture that cannot be used; the message says why."""


class Store(Protocol):
    """Where pictures lie: ``label`` names it, without a folder of the machine; ``facts`` tell it
    from another of that name."""

    label: str
    facts: tuple[str | int, ...]

    def read(self, name: str) -> bytes:
        """The bytes of a picture. `PictureError` where there is none or it cannot be read."""
        ...


class Folder:
    """Pictures below a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.label = path.resolve().name
        self.facts: tuple[str | int, ...] = (str(self.path),)

    def read(self, name: str) -> bytes:
        """The bytes of the file at `name` below the folder."""
        file = Path(os.path.normpath(self.path / name))
        if not file.is_relative_to(self.path):
            raise PictureError("outside the pictures' folder")
        try:
            return file.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise PictureError("no such picture") from None
        except OSError as error:
            raise PictureError(f"cannot be read ({error.strerror})") from None


class Zip:
    """Pictures in a zip archive, which is never unpacked. May be read from several threads.

    A folder that the archive puts before every name is found out with the first picture.
    """

    def __init__(self, path: Path) -> None:
        self.label = path.name
        about = path.stat()
        self.facts: tuple[str | int, ...] = (
            str(path.resolve()), about.st_size, about.st_mtime_ns,
        )  # fmt: skip
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile:
            size = path.stat().st_size
            raise ValueError(
                f"{path}: no whole zip archive ({size:,} bytes): the list of its files, which is "
                "at its end, is missing; fetch it again, or give a folder of unpacked pictures"
            ) from None
        self._names = set(self._zip.namelist())
        self._before: str | None = None
        self._lock = threading.Lock()

    def read(self, name: str) -> bytes:
        """The bytes of an entry; its checksum is tested."""
        entry = self._entry(str(PurePosixPath(name)))
        if entry is None:
            raise PictureError("no such picture")
        try:
            return self._zip.read(entry)
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
            raise PictureError(f"damaged in the archive ({str(error) or 'cut short'})") from None
        except Exception as error:
            if type(error).__module__ != "zlib":
                raise
            raise PictureError(f"damaged in the archive ({error})") from None

    def _entry(self, name: str) -> str | None:
        if name in self._names:
            return name
        with self._lock:
            if self._before is None:
                ends = [entry for entry in self._names if entry.endswith(f"/{name}")]
                if not ends:
                    return None
                self._before = min(ends, key=len).removesuffix(name)
        entry = self._before + name
        return entry if entry in self._names else None


def open_store(path: Path) -> Store:
    """A folder or a zip archive of pictures (CVCL's ``frames.txt`` is a zip by another name).

    Raises:
        ValueError: neither, or half a zip.
    """
    if path.is_dir():
        return Folder(path)
    if path.is_file():
        return Zip(path)
    raise ValueError(f"{path}: no such folder or zip archive of pictures")


def made_square(data: bytes, size: int, fit: Fit, quality: int) -> bytes:
    """A picture as JPEG bytes of `size` x `size` pixels.

    A JPEG that is so already stays as it is. Transparent pixels become white; a camera's note of
    how it was held is heeded.

    Args:
        data: bytes of a picture in any format that Pillow reads.
        size: side in pixels.
        fit: ``pad`` to a square with ImageNet's mean, then resize (published); ``crop`` the
            middle; ``stretch``.
        quality: of the JPEG, 1 to 100.

    Raises:
        PictureError: no picture, or not a whole one.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            as_is = picture.format == "JPEG" and picture.mode in ("RGB", "L")
            if as_is and picture.size == (size, size) and picture.getexif().get(0x0112, 1) == 1:
                picture.load()
                return data
            # a JPEG decodes at a half, quarter or eighth; twice the size is left for resizing
            picture.draft("RGB", (2 * size, 2 * size))
            upright = ImageOps.exif_transpose(picture)
            upright.load()
            rgb = _opaque(upright)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "cannot identify" in said:
            said = "not a picture"
        raise PictureError(f"cannot be read as a picture ({said})") from None
    buffer = io.BytesIO()
    _square(rgb, size, fit).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def _opaque(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    over = picture.convert("RGBA")
    white = Image.new("RGBA", over.size, "white")
    return Image.alpha_composite(white, over).convert("RGB")


def _square(picture: Image.Image, size: int, fit: Fit) -> Image.Image:
    how = Image.Resampling.BICUBIC
    if fit == "stretch":
        return picture.resize((size, size), how)
    if fit == "crop":
        return ImageOps.fit(picture, (size, size), how)
    width, height = picture.size
    scale = size / max(width, height)
    inner = (max(round(width * scale), 1), max(round(height * scale), 1))
    square = Image.new("RGB", (size, size), PAD_COLOUR)
    square.paste(picture.resize(inner, how), ((size - inner[0]) // 2, (size - inner[1]) // 2))
    return square


def sha256(data: bytes) -> str:
    """SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()
