"""The .beton container: FFCV reads what we write, we read what FFCV writes, errors are named."""

import io

import numpy as np
import pytest
from PIL import Image

from engine.beton import PAGE_BYTES, BetonReader, BetonWriter, check_jpeg, encode_jpeg


def picture(seed, size=32):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def write(path, count=5, size=32, first_id=100):
    jpegs = [encode_jpeg(picture(seed, size), 95) for seed in range(count)]
    with BetonWriter(path) as writer:
        for offset, jpeg in enumerate(jpegs):
            assert writer.add(jpeg, first_id + offset, size, size) == offset
    return jpegs


def test_round_trip(tmp_path):
    jpegs = write(tmp_path / "a.beton")
    reader = BetonReader(tmp_path / "a.beton")
    assert len(reader) == 5
    assert reader.image_ids.tolist() == [100, 101, 102, 103, 104]
    assert reader.heights.tolist() == reader.widths.tolist() == [32] * 5
    for row, jpeg in enumerate(jpegs):
        assert reader.stored(row).tobytes() == jpeg
        expected = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
        np.testing.assert_array_equal(reader.pixels(row), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.beton"]


def test_bytes_are_deterministic_and_pages_hold_whole_samples(tmp_path):
    big = np.random.default_rng(0).bytes(PAGE_BYTES // 2 + 1)
    for name in ("a", "b"):
        with BetonWriter(tmp_path / name) as writer:
            for image in range(3):
                writer.add(big, image, 8, 8)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    reader = BetonReader(tmp_path / "a")
    starts = reader._starts
    assert ((starts // PAGE_BYTES) == ((starts + reader.sizes - 1) // PAGE_BYTES)).all()
    assert (starts % PAGE_BYTES == 0).all()  # one such sample a page
    assert all(reader.stored(row).tobytes() == big for row in range(3))


def test_empty_file(tmp_path):
    with BetonWriter(tmp_path / "a.beton"):
        pass
    assert len(BetonReader(tmp_path / "a.beton")) == 0


def test_abandoned_writer_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), BetonWriter(tmp_path / "a.beton") as writer:
        writer.add(b"x", 0, 1, 1)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_refuses_what_does_not_fit(tmp_path):
    with BetonWriter(tmp_path / "a.beton") as writer:
        with pytest.raises(ValueError, match=r"image 7: .* page holds"):
            writer.add(bytes(PAGE_BYTES + 1), 7, 8, 8)
        with pytest.raises(ValueError, match="1 to 65535"):
            writer.add(b"x", 7, 70000, 8)


@pytest.mark.parametrize(
    ("cut", "message"),
    [(1000, "too short"), (2300, "cut short"), (PAGE_BYTES + 10, "cut short")],
)
def test_truncated_file_is_named(tmp_path, cut, message):
    path = tmp_path / "a.beton"
    write(path, count=20)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=message) as caught:
        BetonReader(path)
    assert str(path) in str(caught.value)


def test_other_file_is_refused(tmp_path):
    path = tmp_path / "a.beton"
    path.write_bytes(bytes(5000))
    with pytest.raises(ValueError, match=r"not a \.beton of version 2"):
        BetonReader(path)
    with pytest.raises(ValueError, match="no such"):
        BetonReader(tmp_path / "b.beton")


def test_corrupt_image_is_named(tmp_path):
    path = tmp_path / "a.beton"
    write(path)
    reader = BetonReader(path)
    start, size = int(reader._starts[2]), int(reader.sizes[2])
    data = bytearray(path.read_bytes())
    data[start + 150 : start + size] = bytes(size - 150)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.beton: image 102 \(row 2\) is corrupt"):
        BetonReader(path).pixels(2)
    BetonReader(path).pixels(1)


def test_check_jpeg():
    whole = encode_jpeg(picture(0, 48), 90)
    assert check_jpeg(whole) == (48, 48)
    with pytest.raises(ValueError, match="not a whole JPEG"):
        check_jpeg(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole JPEG"):
        check_jpeg(b"text")
    png = io.BytesIO()
    Image.fromarray(picture(0)).save(png, "PNG")
    with pytest.raises(ValueError, match="accepted: JPEG"):
        check_jpeg(png.getvalue())


def test_ffcv_reader_reads_ours(tmp_path):
    ffcv_reader = pytest.importorskip("ffcv.reader")
    jpegs = write(tmp_path / "a.beton")
    theirs = ffcv_reader.Reader(str(tmp_path / "a.beton"))
    assert theirs.field_names == ["image", "image_id"]
    assert theirs.num_samples == 5
    assert theirs.metadata["f1"].tolist() == [100, 101, 102, 103, 104]
    assert theirs.alloc_table["size"].tolist() == [len(jpeg) for jpeg in jpegs]


def test_ffcv_loader_reads_ours(tmp_path):
    loader = pytest.importorskip("ffcv.loader")
    torch = pytest.importorskip("torch")
    write(tmp_path / "a.beton")
    threads = torch.get_num_threads()
    try:
        batches = list(
            loader.Loader(
                str(tmp_path / "a.beton"),
                batch_size=5,
                num_workers=1,
                order=loader.OrderOption.SEQUENTIAL,
            )
        )
    finally:
        torch.set_num_threads(threads)
    ((images, ids),) = batches
    assert ids.flatten().tolist() == [100, 101, 102, 103, 104]
    ours = BetonReader(tmp_path / "a.beton")
    for row in range(5):
        difference = images[row].numpy().astype(int) - ours.pixels(row).astype(int)
        assert abs(difference).max() <= 24  # FFCV asks for the fast, less exact inverse DCT
        assert abs(difference).mean() < 2


def test_we_read_ffcvs_writer(tmp_path):
    writer = pytest.importorskip("ffcv.writer")
    fields = pytest.importorskip("ffcv.fields")
    samples = [(picture(seed), seed + 40) for seed in range(4)]
    for mode, tolerance in (("raw", 0), ("jpg", 40)):
        path = tmp_path / f"{mode}.beton"
        writer.DatasetWriter(
            str(path),
            {"image": fields.RGBImageField(mode, jpeg_quality=95), "image_id": fields.IntField()},
            page_size=1 << 21,
            num_workers=1,
        ).from_indexed_dataset(samples)
        reader = BetonReader(path)
        assert reader.image_ids.tolist() == [40, 41, 42, 43]
        for row, (pixels, _) in enumerate(samples):
            difference = reader.pixels(row).astype(int) - pixels.astype(int)
            assert abs(difference).max() <= tolerance


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    """Closing flushes, and so may fail once more while the first failure is being handled."""
    writer = BetonWriter(tmp_path / "a.beton")

    class Full:
        def close(self):
            raise OSError(28, "No space left on device")

    writer._spool.close()
    monkeypatch.setattr(writer, "_spool", Full())
    writer.abort()
    assert not list(tmp_path.iterdir())
