"""Both loaders: any order, exact chunks, crops, memory, and corrupt pictures named, not decoded."""

import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from engine import bench_loader, images
from engine.beton import encode_jpeg
from engine.corpus import CorpusWriter, Source, read_corpus
from engine.corpus_read import IMAGES
from engine.images import DataConfig, open_images

SIDE, NUM = 48, 23
LOADERS = ["torch"]
try:
    import ffcv  # noqa: F401

    LOADERS.append("ffcv")
except ImportError:
    pass
needs_ffcv = pytest.mark.skipif("ffcv" not in LOADERS, reason="FFCV is not installed")


def picture(number):
    """A smooth picture that tells its number by its mean colour."""
    ramp = np.linspace(-30, 30, SIDE)
    base = np.array([40 + 7 * number, 200 - 6 * number, 60 + (37 * number) % 120.0])
    pixels = base + ramp[:, None, None] + ramp[None, :, None] * [1, -1, 0.5]
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "c"
    with CorpusWriter(
        path, name="c", version="1", image_size=SIDE, sources=[Source("m", "CC0", "")], made_by={}
    ) as writer:
        for number in range(NUM):
            writer.add_image("train", picture(number), view="v", source="m", key=f"k{number}.png")
    return read_corpus(path)


def open_stream(corpus, loader, size=SIDE, **options):
    options = {"batch": 4, "ram_cache_bytes": 0, **options}
    return open_images(corpus, "train", size=size, config=DataConfig(loader=loader, **options))


@pytest.fixture(params=LOADERS)
def loader(request):
    return request.param


def reference(corpus, rows):
    return np.stack([corpus.images("train").pixels(row) for row in rows]).astype(int)


def close_to(found, expected, most=8, mean=2.0):
    difference = np.abs(np.asarray(found).astype(int) - expected)
    assert difference.max() <= most
    assert difference.mean() <= mean


@pytest.mark.parametrize("workers", [1, 2])
def test_order_and_chunks(corpus, loader, workers):
    rows = np.random.default_rng(0).permutation(NUM)
    rows = np.concatenate([rows, rows[:5], [3, 3, 3]])  # repeated pictures too
    sizes = [1, 9, 0, 4, 16, 1]
    with open_stream(corpus, loader, workers=workers) as stream:
        assert stream.name == loader
        for _ in range(2):
            chunks = list(stream.stream(rows, sizes))
            assert [len(chunk) for chunk in chunks] == sizes
            assert all(chunk.dtype == torch.uint8 for chunk in chunks)
            close_to(torch.cat(chunks), reference(corpus, rows))
        assert list(stream.stream(np.array([], np.int64), [])) == []
        (empty,) = stream.stream(np.array([], np.int64), [0])
        assert empty.shape == (0, SIDE, SIDE, 3)


def test_result_does_not_depend_on_batch_or_chunks(corpus, loader):
    rows = np.random.default_rng(1).permutation(NUM)
    whole = []
    for batch, sizes in ((64, [NUM]), (3, [5, 18]), (1, [1] * NUM)):
        with open_stream(corpus, loader, batch=batch, size=32) as stream:
            whole.append(torch.cat(list(stream.stream(rows, sizes))))
    assert torch.equal(whole[0], whole[1])
    assert torch.equal(whole[0], whole[2])


def test_chunks_are_the_callers_to_keep(corpus, loader):
    with open_stream(corpus, loader) as stream:
        kept = []
        for chunk in stream.stream(np.arange(20), [4] * 5):
            kept.append((chunk, chunk.clone()))
    assert all(torch.equal(chunk, copy) for chunk, copy in kept)


def test_resized(corpus, loader):
    with open_stream(corpus, loader, size=24) as stream:
        found = torch.cat(list(stream.stream(np.arange(NUM), [NUM])))
    small = [
        np.asarray(Image.fromarray(p.astype(np.uint8)).resize((24, 24), Image.Resampling.BOX))
        for p in reference(corpus, range(NUM))
    ]
    close_to(found, np.stack(small))


@pytest.mark.parametrize("cache", [0, 1 << 30])
def test_crops(corpus, loader, cache):
    """The same picture with different windows: each window belongs to its position."""
    generator = np.random.default_rng(2)
    rows = np.array([5, 5, 0, 22, 5, 13])
    high, wide = generator.integers(10, SIDE, 6), generator.integers(10, SIDE, 6)
    y, x = generator.integers(0, SIDE - high + 1), generator.integers(0, SIDE - wide + 1)
    crops = np.stack([y, x, high, wide], axis=1).astype(np.int32)
    with open_stream(corpus, loader, size=24, ram_cache_bytes=cache) as stream:
        found = torch.cat(list(stream.stream(rows, [4, 2], crops)))
        with pytest.raises(ValueError, match=r"window \[40, 0, 20, 8\] .* leaves the 48x48"):
            stream.stream(np.array([1]), [1], np.array([[40, 0, 20, 8]]))
    for row, (y0, x0, h, w), pixels in zip(rows, crops.tolist(), found, strict=True):
        whole = Image.fromarray(reference(corpus, [row])[0].astype(np.uint8))
        expected = whole.resize((24, 24), Image.Resampling.BILINEAR, (x0, y0, x0 + w, y0 + h))
        close_to(pixels, np.asarray(expected).astype(int), most=10)


def test_both_loaders_agree(corpus):
    if len(LOADERS) < 2:
        pytest.skip("FFCV is not installed")
    found = []
    for name in LOADERS:
        with open_stream(corpus, name, size=32) as stream:
            found.append(torch.cat(list(stream.stream(np.arange(NUM), [NUM]))))
    close_to(found[0], found[1].numpy().astype(int))


def test_memory_keeps_decoded_pictures(corpus, loader, caplog):
    with caplog.at_level(logging.INFO, "babyvlm"):
        stream = open_stream(corpus, loader, ram_cache_bytes=NUM * SIDE * SIDE * 3)
    assert "kept in memory" in caplog.text
    with stream:
        decoded = []
        inner = stream._decode

        def counting(windows, sizes):
            decoded.extend(windows[:, 0].tolist())
            return inner(windows, sizes)

        stream._decode = counting
        for rows in ([3, 1, 3, 2], list(range(NUM)), [0, 22, 22, 4]):
            (found,) = stream.stream(np.array(rows), [len(rows)])
            close_to(found, reference(corpus, rows))
        assert sorted(decoded) == list(range(NUM))  # each once, over three streams
        (found,) = stream.stream(np.array([7]), [1])
        found.zero_()  # a chunk is a copy
        (again,) = stream.stream(np.array([7]), [1])
        close_to(again, reference(corpus, [7]))
    with open_stream(corpus, loader, ram_cache_bytes=NUM * SIDE * SIDE * 3 - 1) as stream:
        assert stream._cache is None  # does not fit


def test_abandoned_streams_leave_nothing_running(corpus, loader):
    before = psutil.Process().children()  # Helpers of Python's own, from other tests.
    with open_stream(corpus, loader, batch=2) as stream:
        for _ in range(3):
            part = stream.stream(np.arange(NUM), [1] * NUM)
            next(part)
            part.close()
        threads = threading.active_count()
        for _ in range(3):
            part = stream.stream(np.arange(NUM), [1] * NUM)
            next(part)
            part.close()
        assert threading.active_count() == threads
        (found,) = stream.stream(np.arange(NUM)[::-1], [NUM])  # and the next stream is right
        close_to(found, reference(corpus, range(NUM))[::-1])
        children = [c for c in psutil.Process().children() if c not in before]
    deadline = time.monotonic() + 5
    while any(child.is_running() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(child.is_running() for child in children)
    assert not [t for t in threading.enumerate() if t.name.startswith("pictures-train")]


def damaged(corpus, tmp_path, row, change, *, fix_tables=False):
    """A copy of the corpus whose picture in ``row`` has its stored bytes changed."""
    path = tmp_path / "d"
    path.mkdir()
    for name in ("corpus.json", "pairs.parquet", "images.parquet", "train.beton"):
        (path / name).write_bytes((corpus.path / name).read_bytes())
    reader = corpus.images("train")
    start, size = int(reader._starts[row]), int(reader.sizes[row])
    data = bytearray((path / "train.beton").read_bytes())
    data[start : start + size] = change(bytes(data[start : start + size]))
    (path / "train.beton").write_bytes(data)
    if fix_tables:  # as if the picture had been stored like this
        rows = pq.read_table(path / "images.parquet").to_pylist()
        import zlib

        rows[row]["crc32"] = zlib.crc32(data[start : start + size])
        pq.write_table(pa.Table.from_pylist(rows, IMAGES), path / "images.parquet")
    return read_corpus(path)


def truncate(jpeg):
    return jpeg[: len(jpeg) // 2] + bytes(len(jpeg) - len(jpeg) // 2)


@pytest.mark.parametrize("fix_tables", [False, True])
def test_truncated_jpeg_is_named(corpus, loader, tmp_path, fix_tables):
    bad = damaged(corpus, tmp_path, 6, truncate, fix_tables=fix_tables)
    with open_stream(bad, loader, workers=2) as stream:
        (found,) = stream.stream(np.array([5, 7, 8]), [3])  # the others are fine
        close_to(found, reference(corpus, [5, 7, 8]))
        wanted = r"d/train\.beton: image 6 \(row 6, key 'k6\.png'\) is corrupt"
        for _ in range(2):
            with pytest.raises(ValueError, match=wanted) as caught:
                list(stream.stream(np.arange(NUM), [3] * 7 + [2]))
            assert "\n" not in str(caught.value)
        (found,) = stream.stream(np.array([4]), [1])  # and the loader still works
        close_to(found, reference(corpus, [4]))


def test_silent_garbage_is_caught(corpus, loader, tmp_path):
    """A whole JPEG of another picture in its place: decodable, but not what was stored."""

    def other(jpeg):
        for quality in range(40, 96):
            found = encode_jpeg(picture(1), quality)
            if len(found) <= len(jpeg):
                best = found
        return best + bytes(len(jpeg) - len(best))

    bad = damaged(corpus, tmp_path, 9, other)
    with open_stream(bad, loader) as stream, pytest.raises(ValueError, match="image 9 .*corrupt"):
        list(stream.stream(np.arange(NUM), [NUM]))


def test_bad_arguments(corpus, loader):
    with open_stream(corpus, loader) as stream:
        with pytest.raises(ValueError, match="add up to 3, but 2 rows"):
            stream.stream(np.array([0, 1]), [3])
        with pytest.raises(ValueError, match="row 23 of 23"):
            stream.stream(np.array([0, 23]), [2])
        with pytest.raises(ValueError, match="row -1 of 23"):
            stream.stream(np.array([0, -1]), [2])
    with pytest.raises(ValueError, match="no split 'test'"):
        open_images(corpus, "test", size=8, config=DataConfig(loader=loader))


def test_auto_and_missing_ffcv(corpus, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "engine.images_ffcv", None)  # import raises ImportError
    monkeypatch.setattr(images, "_said", set())
    with caplog.at_level(logging.INFO, "babyvlm"):
        for _ in range(2):
            with open_stream(corpus, "auto") as stream:
                assert stream.name == "torch"
    assert caplog.text.count("FFCV is missing") == 1
    with pytest.raises(ValueError, match=r"data\.loader=ffcv: .*pip install -e '\.\[ffcv\]'"):
        open_stream(corpus, "ffcv")


@needs_ffcv
def test_auto_takes_ffcv(corpus):
    with open_stream(corpus, "auto") as stream:
        assert stream.name == "ffcv"


@needs_ffcv
def test_ffcv_leaves_torchs_threads_alone(corpus):
    code = (
        "import torch; torch.set_num_threads(3)\n"
        "import numpy as np\n"
        "from engine.corpus import read_corpus\n"
        "from engine.images import DataConfig, open_images\n"
        f"corpus = read_corpus({str(corpus.path)!r})\n"
        "with open_images(corpus, 'train', size=48, config=DataConfig(loader='ffcv')) as s:\n"
        "    list(s.stream(np.arange(4), [4]))\n"
        "assert torch.get_num_threads() == 3, torch.get_num_threads()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@needs_ffcv
def test_ffcv_that_hangs_is_an_error(corpus, monkeypatch):
    with open_stream(corpus, "ffcv", timeout_s=1) as stream:
        release = threading.Event()
        monkeypatch.setattr(stream._stages, "run", lambda *arguments: release.wait(10))
        began = time.monotonic()
        with pytest.raises(RuntimeError, match=r"train\.beton: FFCV gave no pictures for 1 s"):
            list(stream.stream(np.arange(4), [4]))
        assert time.monotonic() - began < 5
        release.set()


def test_grey_picture(tmp_path):
    """A grey JPEG decodes to three equal channels; a split may have one picture only."""
    grey = io.BytesIO()
    Image.fromarray(picture(3)).convert("L").save(grey, "JPEG", quality=95)
    with CorpusWriter(
        tmp_path / "g",
        name="g",
        version="1",
        image_size=SIDE,
        sources=[Source("m", "CC0", "")],
        made_by={},
    ) as writer:
        writer.add_image("train", grey.getvalue(), view="v", source="m")
    stored = read_corpus(tmp_path / "g")
    for name in LOADERS:
        with open_stream(stored, name) as stream:
            (found,) = stream.stream(np.array([0]), [1])
        close_to(found, reference(stored, [0]))


def test_worker_processes_ignore_signals_and_die_with_the_parent(corpus):
    code = (
        "import sys, time, numpy as np\n"
        "from engine.corpus import read_corpus\n"
        "from engine.images import DataConfig, open_images\n"
        f"corpus = read_corpus({str(corpus.path)!r})\n"
        "s = open_images(corpus, 'train', size=48,\n"
        "    config=DataConfig(loader='torch', ram_cache_bytes=0))\n"
        "next(s.stream(np.arange(4), [4]))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n"
    workers = psutil.Process(parent.pid).children()
    assert workers
    for worker in workers:
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    time.sleep(0.3)
    assert all(worker.is_running() for worker in workers)
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive


@needs_ffcv
def test_benchmark_prints_both_loaders_and_the_ratio(tmp_path, capsys):
    out = tmp_path / "rows.json"
    arguments = ["--num", "24", "--workers", "1", "--repeat", "1", "--out", str(out)]
    threads = torch.get_num_threads()
    try:
        assert bench_loader.main(arguments) == 0
        assert bench_loader.main(["--corpus", str(tmp_path / "none")]) == 2
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr()
    assert "FFCV" in printed.out and "DataLoader+PIL" in printed.out and "ratio" in printed.out
    assert printed.err.splitlines()[-1].startswith("error: no corpus at")
    import json

    assert [row["loader"] for row in json.loads(out.read_text())] == ["FFCV", "DataLoader+PIL"]
