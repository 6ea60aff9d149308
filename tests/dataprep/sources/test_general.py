"""General pictures: every layout, folder or zip, dead rows, broken files."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.captioned import (
    COLOURS,
    NAMES,
    TEXTS,
    encoded,
    llava,
    picture,
    write_folder,
    write_rows,
    write_tar,
    write_zip,
)

from dataprep.sources.general import LLAVA, Layout, ingest_general
from dataprep.sources.layouts import items
from dataprep.sources.pictures import PAD_COLOUR, PictureError, made_square, open_store
from engine import Source, read_corpus

SOURCE = Source("pool", "CC-BY-4.0", "https://example.org")
SIZE = 32


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("pool") / "images")


def ingest(out, kind, rows, where=None, **changes):
    columns = changes.pop("columns", None)
    rule = changes.pop("rule", "train")
    files = rows if isinstance(rows, tuple) else (("", rows),)
    ingest_general(Layout(kind, files, rule, columns), where, out, source=SOURCE,
                   image_size=SIZE, progress=False, **changes)
    return read_corpus(out)


def colours(corpus, split="train"):
    """Which of the colours each pair's picture has in its middle, and what is said."""
    pairs, beton = corpus.pairs(split), corpus.images(split)
    found = []
    for k, text in enumerate(pairs.utterance):
        middle = beton.pixels(int(pairs.row[k]))[SIZE // 2 - 4 : SIZE // 2 + 4].mean((0, 1))
        found.append((int(np.abs(np.array(COLOURS) - middle).sum(1).argmin()), text))
    return found


def dead(out):
    return (out / "dead.csv").read_text().splitlines()[1:]


@pytest.mark.parametrize("kind", ["llava", "llava-list", "csv", "tsv", "tsv-bare", "webdataset"])
@pytest.mark.parametrize("where", ["folder", "zip", "zip-inside"])
def test_every_layout(tmp_path, pictures, kind, where):
    rows = write_rows(tmp_path, kind)
    stored = None
    if kind != "webdataset":
        stored = {"folder": lambda: pictures, "zip": lambda: write_zip(tmp_path / "i.zip"),
                  "zip-inside": lambda: write_zip(tmp_path / "i.zip", "images/deep/")}[where]()
    corpus = ingest(tmp_path / "out", kind.partition("-")[0], rows, stored, workers=3)
    assert colours(corpus) == list(enumerate(TEXTS))
    assert dead(tmp_path / "out") == []
    origins = pq.read_table(tmp_path / "out" / "origins.parquet").to_pylist()
    names = [f"{k:09}.{n.rpartition('.')[2]}" for k, n in enumerate(NAMES)]
    assert [o["member"] for o in origins] == (names if kind == "webdataset" else list(NAMES))
    assert len({o["sha256"] for o in origins}) == 5
    inputs = (tmp_path / "out" / "inputs.csv").read_text()
    assert rows.name in inputs and str(tmp_path) not in inputs
    # nothing of this machine is written down
    assert str(tmp_path) not in (tmp_path / "out" / "corpus.json").read_text()


def test_the_same_input_gives_the_same_bytes_with_any_number_of_threads(tmp_path, pictures):
    rows = write_rows(tmp_path, "csv")
    one = ingest(tmp_path / "one", "csv", rows, pictures, workers=1)
    two = ingest(tmp_path / "two", "csv", rows, pictures, workers=4)
    assert one.digest == two.digest


def test_dead_rows_are_counted_and_listed(tmp_path, pictures, capsys):
    broken = write_folder(tmp_path / "images")
    whole = encoded(0)
    (broken / "00000/red.jpg").write_bytes(whole[:-60])
    (broken / "00000/green.png").write_bytes(b"<html>gone</html>")
    tree = llava(("00000/red.jpg", "00000/green.png", "00001/blue.webp", "nowhere.jpg",
                  "../chat.json", "00001/yellow.jpg"), ("x",) * 6)
    tree[5]["conversations"][1]["value"] = "  "
    tree += [{"id": "7"}, "text", {"id": "8", "image": "00001/blue.webp", "conversations": []},
             {"id": "9", "image": [], "conversations": []}]
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(tree))
    corpus = ingest(tmp_path / "out", "llava", path, broken)
    assert len(corpus.pairs("train")) == 1
    lines = dead(tmp_path / "out")
    reasons = ["(image file is truncated", "(not a picture)", "no such picture",
               "outside the pictures' folder", "no words", "no image", "item is not an object",
               "no answer", "no image"]
    assert len(lines) == len(reasons)
    for line, reason in zip(lines, reasons, strict=True):
        assert reason in line and line.startswith("chat.json,item ")
    assert corpus.info["made_by"]["counts"]["dead"] == 9
    assert "9 rows left out (dead.csv lists them):" in capsys.readouterr().out


def test_rows_of_csv_and_tsv_that_cannot_be_used(tmp_path, pictures):
    path = tmp_path / "rows.csv"
    path.write_text("id,image,text\n1,00000/red.jpg,fine\n2,00000/red.jpg\n3,,none\n\n"
                    "4,https://example.org/a.jpg,far\n5,00000/red.jpg,again\n")
    corpus = ingest(tmp_path / "out", "csv", path, pictures)
    pairs = corpus.pairs("train")
    assert pairs.utterance == ["fine", "again"]
    assert pairs.image.tolist() == [0, 0]  # one picture, two pairs
    assert [line.split(",")[1] for line in dead(tmp_path / "out")] == ["line 3", "line 4", "line 6"]


def test_columns_and_splits_by_file(tmp_path, pictures):
    path = tmp_path / "a.csv"
    path.write_text("file,caption\n00000/red.jpg,red\n")
    other = tmp_path / "b.csv"
    other.write_text("file,caption\n00000/green.png,green\n")
    corpus = ingest(tmp_path / "out", "csv", (("val", path), ("test", other)), pictures,
                    columns=("file", "caption"))
    assert colours(corpus, "val") == [(0, "red")] and colours(corpus, "test") == [(1, "green")]


def test_a_picture_is_in_one_split_only(tmp_path):
    (tmp_path / "p").mkdir()
    for k in range(60):
        picture(k % 5).save(tmp_path / "p" / f"{k}.jpg")
    path = tmp_path / "rows.csv"
    path.write_text("image,text\n" + "".join(f"{k}.jpg,said {n}\n" for n in range(3)
                                             for k in range(60)))
    corpus = ingest(tmp_path / "out", "csv", path, tmp_path / "p", rule="random", seed=3)
    views = [set(corpus.pairs(s).view) for s in corpus.splits]
    assert sum(map(len, views)) == len(set.union(*views)) == 60
    assert len(corpus.splits) == 3 and len(corpus.pairs("train")) > 120


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
def test_half_a_zip_is_one_clear_line(tmp_path, cut):
    whole = write_zip(tmp_path / "images.zip").read_bytes()
    (tmp_path / "images.zip").write_bytes(whole[: int(len(whole) * cut)])
    rows = write_rows(tmp_path, "csv")
    with pytest.raises(ValueError, match=r"images\.zip: no whole zip archive \([\d,]+ bytes\)"):
        ingest(tmp_path / "out", "csv", rows, tmp_path / "images.zip")
    assert not list(tmp_path.glob("out*"))


def test_a_damaged_entry_of_a_zip_is_a_dead_row(tmp_path):
    path = write_zip(tmp_path / "images.zip")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(NAMES[3])
    at = info.header_offset + 30 + len(NAMES[3]) + 200
    data[at : at + 40] = bytes(40)
    path.write_bytes(data)
    corpus = ingest(tmp_path / "out", "csv", write_rows(tmp_path, "csv"), path)
    assert [k for k, _ in colours(corpus)] == [0, 1, 2, 4]
    assert "damaged in the archive (Bad CRC-32" in dead(tmp_path / "out")[0]


def test_half_a_tar_keeps_what_comes_before(tmp_path):
    whole = write_tar(tmp_path / "00000.tar").read_bytes()
    (tmp_path / "00000.tar").write_bytes(whole[: len(whole) * 6 // 10 // 512 * 512 + 700])
    write_tar(tmp_path / "00001.tar")
    corpus = ingest(tmp_path / "out", "webdataset", (("", tmp_path / "00000.tar"),
                                                    ("", tmp_path / "00001.tar")))
    kept = len(corpus.pairs("train")) - 5
    assert 2 <= kept < 5 and colours(corpus)[:kept] == list(enumerate(TEXTS))[:kept]
    assert len(dead(tmp_path / "out")) == 1 and "archive cut short" in dead(tmp_path / "out")[0]


def test_samples_without_picture_or_text(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in (("1.txt", b"no picture"), ("2.jpg", encoded(0)), ("3.jpg", encoded(0)),
                           ("3.json", b"{half"), ("4.jpg", encoded(0)), ("4.json", b'{"x": 1}'),
                           ("5.JPG", encoded(0)), ("5.txt", b"fine")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    corpus = ingest(tmp_path / "out", "webdataset", path)
    assert corpus.pairs("train").utterance == ["fine"]
    assert [line.split(",")[1] for line in dead(tmp_path / "out")] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(("kind", "content", "said"), [
    ("llava", '{"a": 1}', r"rows: not a JSON list \(it begins with"),
    ("llava", "", "rows: cut short or not JSON after item 0"),
    ("llava", json.dumps(llava())[:-150], "rows: cut short or not JSON after item 4"),
    ("llava", b"\xff\xfe[", "rows: not UTF-8"),
    ("csv", "picture,text\na,b\n", r"rows, line 1: no column 'image'; found picture, text; needed"),
    ("csv", "", "found nothing"),
    ("tsv", "just one column\n", "line 1: 1 columns; needed 2: text, image"),
    ("webdataset", "no tar at all" * 100, "rows: not a tar archive"),
])
def test_a_file_of_another_layout_is_one_clear_line(tmp_path, pictures, kind, content, said):
    path = tmp_path / "rows"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=said) as error:
        ingest(tmp_path / "out", kind, path, pictures)
    assert "\n" not in str(error.value) and not list(tmp_path.glob("out*"))


def test_a_long_json_is_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("dataprep.sources.layouts._CHUNK", 7)
    tree = [*llava(), 12345678901, "a, ]", [], {"x": [1, {"y": "]"}]}, None, 1.5e10]
    for indent in (None, 2):
        path = tmp_path / "a.json"
        path.write_text("\ufeff \n" + json.dumps(tree, indent=indent))
        assert list(items(path)) == tree
    path.write_text("[]")
    assert list(items(path)) == []


def test_nothing_usable_is_an_error(tmp_path, pictures):
    path = tmp_path / "rows.csv"
    path.write_text("image,text\nnone.jpg,a\n")
    with pytest.raises(ValueError, match=r"no row could be used \(1 rows .*no such picture"):
        ingest(tmp_path / "out", "csv", path, pictures)
    assert not list(tmp_path.glob("out*"))


def test_what_exists_is_not_replaced_unless_forced(tmp_path, pictures):
    rows = write_rows(tmp_path, "csv")
    ingest(tmp_path / "out", "csv", rows, pictures)
    with pytest.raises(ValueError, match="exists already; --force replaces it"):
        ingest(tmp_path / "out", "csv", rows, pictures)
    ingest(tmp_path / "out", "csv", rows, pictures, force=True, limit=2)
    assert len(read_corpus(tmp_path / "out").pairs("train")) == 2
    with pytest.raises(ValueError, match="replaces only corpora"):
        ingest(pictures, "csv", rows, pictures, force=True)


def test_pictures_become_square():
    def side(fit, data):
        return np.asarray(Image.open(io.BytesIO(made_square(data, 60, fit, 95)))).astype(int)

    padded = side("pad", encoded(0))  # 90 x 60: ten rows above and below
    np.testing.assert_allclose(padded[2, 30], PAD_COLOUR, atol=6)
    np.testing.assert_allclose(padded[30, 30], COLOURS[0], atol=14)
    for fit in ("crop", "stretch"):
        np.testing.assert_allclose(side(fit, encoded(0))[2, 30], COLOURS[0], atol=14)
    # two halves: cropping keeps both in the middle, stretching all
    half = Image.new("RGB", (120, 60), "white")
    half.paste("black", (0, 0, 20, 60))
    buffer = io.BytesIO()
    half.save(buffer, "PNG")
    assert side("crop", buffer.getvalue()).min() > 200
    assert side("stretch", buffer.getvalue()).min() < 50
    clear = Image.new("RGBA", (60, 60), (255, 0, 0, 0))
    buffer = io.BytesIO()
    clear.save(buffer, "PNG")
    assert side("pad", buffer.getvalue()).min() > 250  # transparent becomes white
    turned = Image.new("RGB", (60, 120), "white")
    turned.paste("black", (0, 0, 60, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # held on its side
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=exif)
    upright = side("stretch", buffer.getvalue())
    assert upright[30, 10].mean() > 200 and upright[30, 50].mean() < 60
    exact = io.BytesIO()
    picture(1, (60, 60)).save(exact, "JPEG")
    assert made_square(exact.getvalue(), 60, "pad", 95) == exact.getvalue()
    with pytest.raises(PictureError, match="truncated"):
        made_square(exact.getvalue()[:-200], 60, "pad", 95)


def test_stores_and_settings_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="no such folder or zip"):
        open_store(tmp_path / "none")
    with pytest.raises(ValueError, match="accepted are llava, csv"):
        Layout("parquet", ())
    with pytest.raises(ValueError, match="accepted for csv are train, random"):
        Layout("csv", (), "recording")
    with pytest.raises(ValueError, match=r"x\.csv: no such file"):
        Layout("csv", (("", tmp_path / "x.csv"),))
    assert LLAVA.licence
