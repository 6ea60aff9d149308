"""The corpus format: written whole or not at all, read back, and mismatches named in one line."""

import json
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.beton import encode_jpeg
from engine.corpus import CorpusWriter, Source, read_corpus
from engine.corpus_read import IMAGES, PAIRS

MINE = Source("mine", "CC0-1.0", "https://example.org")


def pixels(seed, size=16):
    ramp = np.arange(size * size * 3).reshape(size, size, 3)
    return ((ramp * (seed + 3)) % 251).astype(np.uint8)


def writer(path, **options):
    arguments = {"name": "demo", "version": "1", "image_size": 16, "sources": [MINE]}
    return CorpusWriter(path, made_by={"seed": 0}, **{**arguments, **options})


def make(path, **options):
    with writer(path, **options) as out:
        for number in range(6):
            split = "val" if number % 3 == 2 else "train"
            image = out.add_image(
                split, pixels(number), view=f"v{number}", source="mine", key=f"k{number}"
            )
            out.add_pair(image, f"a thing {number}", source="mine", group=f"g{number}")
            if number == 0:
                out.add_pair(
                    image,
                    "again , that thing",
                    source="mine",
                    group="g0",
                    time_s=1.5,
                    similarity=0.25,
                    provenance="template:look",
                )
        out.add_file("sheets/contact.txt").write_text("sheet")
    return path


def test_round_trip(tmp_path):
    corpus = read_corpus(make(tmp_path / "c"))
    assert corpus.name == "demo"
    assert corpus.image_size == 16
    assert set(corpus.splits) == {"train", "val"}
    train, val = corpus.pairs("train"), corpus.pairs("val")
    assert train.utterance == [
        "a thing 0",
        "again , that thing",
        "a thing 1",
        "a thing 3",
        "a thing 4",
    ]
    assert train.image.tolist() == [0, 0, 1, 3, 4]
    assert train.row.tolist() == [0, 0, 1, 2, 3]
    assert train.group.tolist() == ["g0", "g0", "g1", "g3", "g4"]
    assert train.view.tolist() == ["v0", "v0", "v1", "v3", "v4"]
    assert val.image.tolist() == [2, 5]
    assert val.row.tolist() == [0, 1]
    assert train.time_s[1] == 1.5
    assert np.isnan(train.time_s[0])
    assert train.similarity[1] == 0.25
    assert train.provenance[1] == "template:look"
    assert corpus.images("val").image_ids.tolist() == [2, 5]
    for split in corpus.splits:
        reader = corpus.images(split)
        for row, entry in enumerate(corpus.image_rows(split)):
            assert reader.crc32(row) == corpus.image_table["crc32"][entry]


def test_manifest_counts_and_hashes(tmp_path):
    import hashlib

    path = make(tmp_path / "c")
    info = json.loads((path / "corpus.json").read_text())
    assert info["splits"] == {"train": {"images": 4, "pairs": 5}, "val": {"images": 2, "pairs": 2}}
    assert info["sources"][0]["licence"] == "CC0-1.0"
    assert set(info["files"]) == {
        "pairs.parquet",
        "images.parquet",
        "train.beton",
        "val.beton",
        "sheets/contact.txt",
    }
    for name, entry in info["files"].items():
        assert hashlib.sha256((path / name).read_bytes()).hexdigest() == entry["sha256"]


def test_same_calls_same_bytes(tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    for file in first.rglob("*.*"):
        assert file.read_bytes() == (second / file.relative_to(first)).read_bytes()


def test_jpeg_bytes_are_kept(tmp_path):
    jpeg = encode_jpeg(pixels(1), 80)
    with writer(tmp_path / "c") as out:
        out.add_image("train", jpeg, view="v", source="mine")
    corpus = read_corpus(tmp_path / "c")
    assert corpus.images("train").stored(0).tobytes() == jpeg
    assert corpus.image_table["crc32"][0] == zlib.crc32(jpeg)


def test_failure_leaves_nothing_and_overwrite_is_asked_for(tmp_path):
    with pytest.raises(RuntimeError), writer(tmp_path / "c") as out:
        out.add_image("train", pixels(0), view="v", source="mine")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    make(tmp_path / "c")
    with pytest.raises(ValueError, match="exists already"):
        writer(tmp_path / "c")
    with pytest.raises(RuntimeError), writer(tmp_path / "c", overwrite=True):
        raise RuntimeError
    assert len(read_corpus(tmp_path / "c").pairs("train")) == 5
    make(tmp_path / "c", overwrite=True, version="2")
    assert read_corpus(tmp_path / "c").info["version"] == "2"
    assert [entry.name for entry in tmp_path.iterdir()] == ["c"]


def test_stale_temporary_directory_of_a_dead_writer_goes(tmp_path):
    (tmp_path / "c.tmp-4194999").mkdir()  # above the kernel's highest process id
    (tmp_path / "c.tmp-1").mkdir()  # a live process: left alone
    make(tmp_path / "c")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["c", "c.tmp-1"]


def test_writer_errors_name_what_and_why(tmp_path):
    whole = encode_jpeg(pixels(1), 80)
    with writer(tmp_path / "c") as out:
        for picture, message in (
            (whole[:-200], "image 0 .*dog.png.*not a whole JPEG"),
            (encode_jpeg(pixels(1, 24), 80), "24x24 JPEG; accepted: 16x16"),
            (pixels(1, 24), r"shape \(24, 24, 3\); accepted: uint8 \(16, 16, 3\)"),
            (pixels(1).astype(np.float32), "float32 array"),
        ):
            with pytest.raises(ValueError, match=message):
                out.add_image("train", picture, view="v", source="mine", key="dog.png")
        with pytest.raises(ValueError, match="'theirs' is not declared; declared: mine"):
            out.add_image("train", whole, view="v", source="theirs")
        with pytest.raises(ValueError, match="split names have"):
            out.add_image("../train", whole, view="v", source="mine")
        with pytest.raises(ValueError, match="view is empty"):
            out.add_image("train", whole, view="", source="mine")
        image = out.add_image("train", whole, view="v", source="mine")
        assert image == 0  # what was refused left no trace
        with pytest.raises(ValueError, match="no such image; 1 were added"):
            out.add_pair(1, "hello", source="mine", group="g")
        with pytest.raises(ValueError, match="utterance is empty"):
            out.add_pair(0, "  ", source="mine", group="g")
        with pytest.raises(ValueError, match="group is empty"):
            out.add_pair(0, "hello", source="mine", group="")
        with pytest.raises(ValueError, match="inside the corpus"):
            out.add_file("../x")
    with (
        pytest.raises(ValueError, match=r"sheet\.png: announced with add_file but never written"),
        writer(tmp_path / "d") as out,
    ):
        out.add_file("sheet.png")
    assert [entry.name for entry in tmp_path.iterdir()] == ["c"]


def test_missing_corpus_names_directory_and_command(tmp_path):
    with pytest.raises(ValueError, match=r"no corpus at .*/nowhere .*python -m dataprep") as caught:
        read_corpus(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)


def rewrite(path, schema, change):
    rows = pq.read_table(path).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


def swap_betons(path):
    train, val = (path / "train.beton").read_bytes(), (path / "val.beton").read_bytes()
    (path / "train.beton").write_bytes(val)
    (path / "val.beton").write_bytes(train)


def other_order(path):
    make(path.with_name("other"), sources=[MINE])
    with writer(path.with_name("shuffled")) as out:
        for number in (3, 1, 0, 4):
            out.add_image("train", pixels(number), view="v", source="mine")
    (path / "train.beton").write_bytes((path.with_name("shuffled") / "train.beton").read_bytes())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (swap_betons, r"train\.beton: 2 images, but .*pairs\.parquet describe 4"),
        (other_order, r"train\.beton: row \d has .* does not belong"),
        (
            lambda path: rewrite(path / "pairs.parquet", PAIRS, lambda rows: rows.pop()),
            "should have 2 images and 2 pairs, the tables have 2 and 1",
        ),
        (
            lambda path: rewrite(
                path / "pairs.parquet", PAIRS, lambda rows: rows[0].update(image=99)
            ),
            "1 pairs name an image",
        ),
        (
            lambda path: rewrite(
                path / "pairs.parquet", PAIRS, lambda rows: rows[0].update(split="val")
            ),
            "in another split",
        ),
        (
            lambda path: rewrite(path / "images.parquet", IMAGES, lambda rows: rows.pop(1)),
            "image ids are not 0, 1, 2",
        ),
        (lambda path: (path / "val.beton").unlink(), r"val\.beton: no such"),
        (lambda path: (path / "pairs.parquet").unlink(), r"pairs\.parquet: missing"),
        (lambda path: (path / "pairs.parquet").write_bytes(b"PAR1junk"), "cannot be read"),
        (lambda path: (path / "corpus.json").write_text("{"), "not JSON"),
        (lambda path: (path / "corpus.json").write_text("{}"), "lacks format, name"),
    ],
)
def test_mismatch_is_one_clear_line(tmp_path, damage, message):
    path = make(tmp_path / "c")
    damage(path)
    with pytest.raises(ValueError, match=message) as caught:
        read_corpus(path)
    assert "\n" not in str(caught.value)


def test_unknown_split_lists_the_splits(tmp_path):
    corpus = read_corpus(make(tmp_path / "c"))
    for read in (corpus.pairs, corpus.images, corpus.image_rows):
        with pytest.raises(ValueError, match="no split 'test'; it has train, val"):
            read("test")
