"""FFCV's ``.beton`` container in plain numpy: one RGB image and one integer id per sample.

The layout is FFCV 1.0.2's (``ffcv/types.py``): header, two field descriptors, one fixed-width
metadata record a sample, data pages, allocation table. Files written here are read by
``ffcv.Reader`` and ``ffcv.loader.Loader`` and the other way round, yet neither reading nor writing
needs FFCV. FFCV's own writer is not used because it re-encodes every picture, deals samples to
worker processes (so that its bytes differ from run to run) and needs its native library.
"""

from __future__ import annotations

import io
import os
import shutil
import zlib
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

VERSION = 2
PAGE_BYTES = 1 << 21
"""FFCV's smallest page (2 MiB). A sample must fit one page."""

JPEG, RAW = 0, 1
"""How the pixels of a sample are stored (``mode`` of its metadata)."""

HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)
FIELD = np.dtype(
    [("type_id", "<u1"), ("name", ("<u1", 16)), ("arguments", ("<u1", (1024,)))], align=True
)
IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
SAMPLE = np.dtype([("f0", IMAGE), ("f1", "<i8")], align=True)
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])

INT_FIELD, RGB_FIELD = 1, 2
FIELDS = (("image", RGB_FIELD), ("image_id", INT_FIELD))


def encode_jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """JPEG bytes of ``pixels`` (uint8 [H, W, 3]); chroma at half resolution (4:2:0)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def check_jpeg(data: bytes) -> tuple[int, int]:
    """Decode ``data`` once and return its (height, width).

    Raises ``ValueError`` when it is no whole JPEG in grey or RGB: what a faster decoder would
    turn into garbage is refused before it is stored.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            kind, mode, (width, height) = picture.format, picture.mode, picture.size
            picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"not a whole JPEG picture ({error})") from None
    if kind != "JPEG" or mode not in ("RGB", "L"):
        raise ValueError(f"{kind} picture in mode {mode}; accepted: JPEG in RGB or grey")
    return height, width


class BetonWriter:
    """Writes one ``.beton`` file; the same samples always give the same bytes.

    FFCV keeps the metadata before the pages, and its length is known only at the end: pages are
    spooled to ``<path>.pages`` and copied behind the metadata by :meth:`close`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._spool_path = self.path.with_name(self.path.name + ".pages")
        self._spool = self._spool_path.open("wb")
        self._samples: list[tuple[int, int, int, int]] = []  # (width, height, offset, image id)
        self._sizes: list[int] = []
        self._end = 0

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, jpeg: bytes, image_id: int, height: int, width: int) -> int:
        """Store JPEG bytes as they are under ``image_id`` and return the row they got."""
        if len(jpeg) > PAGE_BYTES:
            raise ValueError(
                f"image {image_id}: {len(jpeg)} bytes of JPEG; a .beton page holds {PAGE_BYTES}"
            )
        if not (0 < height < 1 << 16 and 0 < width < 1 << 16):
            raise ValueError(f"image {image_id}: {height}x{width} pixels; sides are 1 to 65535")
        left_in_page = -self._end % PAGE_BYTES
        if len(jpeg) > left_in_page:
            self._spool.write(bytes(left_in_page))
            self._end += left_in_page
        self._samples.append((width, height, self._end, image_id))
        self._sizes.append(len(jpeg))
        self._spool.write(jpeg)
        self._end += len(jpeg)
        return len(self._samples) - 1

    def close(self) -> None:
        """Assemble the file, flush it to the disk and remove the spool."""
        self._spool.write(bytes(-self._end % PAGE_BYTES))
        self._spool.close()
        count = len(self._samples)
        metadata_end = HEADER.itemsize + len(FIELDS) * FIELD.itemsize + count * SAMPLE.itemsize
        pages_start = -(-metadata_end // PAGE_BYTES) * PAGE_BYTES
        pages_bytes = -(-self._end // PAGE_BYTES) * PAGE_BYTES

        header = np.zeros(1, HEADER)
        header["version"], header["num_fields"] = VERSION, len(FIELDS)
        header["page_size"], header["num_samples"] = PAGE_BYTES, count
        header["alloc_table_ptr"] = pages_start + pages_bytes
        fields = np.zeros(len(FIELDS), FIELD)
        for record, (name, type_id) in zip(fields, FIELDS, strict=True):
            record["type_id"] = type_id
            record["name"][: len(name)] = np.frombuffer(name.encode("ascii"), "<u1")
        samples = np.zeros(count, SAMPLE)
        table = np.zeros(count, ALLOCATION)
        if count:
            width, height, offset, image_id = np.array(self._samples, np.int64).T
            samples["f0"]["mode"] = JPEG
            samples["f0"]["width"], samples["f0"]["height"] = width, height
            samples["f0"]["data_ptr"] = pages_start + offset
            samples["f1"] = image_id
            table["sample_id"] = np.arange(count)
            table["ptr"], table["size"] = pages_start + offset, self._sizes

        with self.path.open("wb") as out, self._spool_path.open("rb") as pages:
            for part in (header, fields, samples):
                out.write(part.tobytes())
            out.write(bytes(pages_start - metadata_end))
            shutil.copyfileobj(pages, out, 1 << 22)
            out.write(table.tobytes())
            out.flush()
            os.fsync(out.fileno())
        self._spool_path.unlink()

    def abort(self) -> None:
        """Close and remove what was spooled; the file itself was never begun."""
        with suppress(OSError):  # a full disk also refuses what was still to be flushed
            self._spool.close()
        self._spool_path.unlink(missing_ok=True)

    def __enter__(self) -> BetonWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close() if kind is None else self.abort()


class BetonReader:
    """Random access to a ``.beton`` file with one RGB image and one integer field.

    Attributes: ``path``; ``image_ids`` int64 [n]; ``heights``, ``widths`` int64 [n] in pixels;
    ``modes`` uint8 [n] (0 JPEG, 1 raw pixels); ``sizes`` int64 [n], stored bytes of each image.
    Raises ``ValueError`` when the file is not such a container or is cut short.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"{self.path}: no such .beton file")
        total = self.path.stat().st_size
        if total < HEADER.itemsize + len(FIELDS) * FIELD.itemsize:
            raise ValueError(f"{self.path}: {total} bytes is too short for a .beton file")
        self._bytes: np.memmap = np.memmap(self.path, np.uint8, "r")
        header = self._bytes[: HEADER.itemsize].view(HEADER)[0]
        if header["version"] != VERSION or header["num_fields"] != len(FIELDS):
            raise ValueError(
                f"{self.path}: not a .beton of version {VERSION} with the fields image, image_id "
                f"(version {header['version']}, {header['num_fields']} fields)"
            )
        start = HEADER.itemsize
        fields = self._bytes[start : start + len(FIELDS) * FIELD.itemsize].view(FIELD)
        if tuple(fields["type_id"]) != (RGB_FIELD, INT_FIELD):
            raise ValueError(f"{self.path}: its fields are not one RGB image and one integer")
        start += fields.nbytes
        count, table_start = int(header["num_samples"]), int(header["alloc_table_ptr"])
        if start + count * SAMPLE.itemsize > total or table_start + 24 * count > total:
            raise ValueError(f"{self.path}: cut short ({total} bytes, {count} samples announced)")
        samples = self._bytes[start : start + count * SAMPLE.itemsize].view(SAMPLE)
        self.image_ids: NDArray[np.int64] = samples["f1"].astype(np.int64)
        self.heights: NDArray[np.int64] = samples["f0"]["height"].astype(np.int64)
        self.widths: NDArray[np.int64] = samples["f0"]["width"].astype(np.int64)
        self.modes: NDArray[np.uint8] = np.array(samples["f0"]["mode"])
        self._starts: NDArray[np.int64] = samples["f0"]["data_ptr"].astype(np.int64)

        table_bytes = (total - table_start) // ALLOCATION.itemsize * ALLOCATION.itemsize
        table = np.array(self._bytes[table_start : table_start + table_bytes]).view(ALLOCATION)
        table = table[np.argsort(table["ptr"], kind="stable")]
        found = np.searchsorted(table["ptr"], self._starts.astype(np.uint64))
        known = table["ptr"][np.minimum(found, len(table) - 1)] if count else table["ptr"]
        if count and not np.array_equal(known, self._starts.astype(np.uint64)):
            raise ValueError(f"{self.path}: its allocation table does not list every image")
        self.sizes: NDArray[np.int64] = table["size"][found].astype(np.int64)
        if count and int((self._starts + self.sizes).max()) > table_start:
            raise ValueError(f"{self.path}: an image lies outside its data pages")

    def __len__(self) -> int:
        return len(self.image_ids)

    def stored(self, row: int) -> NDArray[np.uint8]:
        """The stored bytes of an image as a view of the mapped file, uint8 [sizes[row]]."""
        start = int(self._starts[row])
        return self._bytes[start : start + int(self.sizes[row])]

    def crc32(self, row: int) -> int:
        """CRC-32 of the stored bytes."""
        return zlib.crc32(self.stored(row).data)

    def picture(self, row: int) -> Image.Image:
        """The image as an RGB PIL picture.

        Raises ``ValueError`` naming file, row and image id when it cannot be decoded.
        """
        if self.modes[row] == RAW:
            shape = (int(self.heights[row]), int(self.widths[row]), 3)
            return Image.fromarray(np.array(self.stored(row)).reshape(shape))
        try:
            with Image.open(io.BytesIO(self.stored(row).tobytes())) as picture:
                return picture.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(
                f"{self.path}: image {self.image_ids[row]} (row {row}) is corrupt ({error})"
            ) from None

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """The image as uint8 [H, W, 3]; errors as for :meth:`picture`."""
        return np.asarray(self.picture(row))
