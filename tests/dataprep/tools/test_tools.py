"""validate, inspect and merge: what they check, show and mix, and what they refuse."""

from __future__ import annotations

import argparse
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.captioned import write_folder, write_rows
from support.shapes import SIDE, draw, write_shapes

from dataprep.sources.general import Layout, ingest_general
from dataprep.tools.cli import add_commands
from dataprep.tools.merge import Mix, merge
from dataprep.tools.validate import straddling, validate
from engine import CorpusWriter, Source, read_corpus


def command(*words):
    """Run a command of the package as ``python -m dataprep`` does."""
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    arguments = parser.parse_args([str(word) for word in words])
    arguments.run(arguments)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("tools") / "shapes", train=2, val=1)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """A corpus made by ingestion, so that it has origins, inputs and dead rows."""
    root = tmp_path_factory.mktemp("pool")
    pictures = write_folder(root / "images")
    rows = write_rows(root, "csv")
    rows.write_text(rows.read_text() + "gone.jpg,a ghost\n")
    ingest_general(Layout("csv", (("", rows),)), pictures, root / "pool", image_size=SIDE,
                   source=Source("pool", "CC-BY-4.0", "https://example.org"), progress=False)
    return root / "pool"


def small(path, *, split="train", source="a", groups=("g",), licence="CC0-1.0", count=4, extra="",
          size=SIDE, seed=0):
    """A corpus of `count` pictures a group."""
    rng = np.random.default_rng(seed)
    with CorpusWriter(path, name=path.name, version="1", image_size=size, made_by={},
                      sources=[Source(source, licence, "")]) as writer:
        for group in groups:
            for k in range(count):
                picture = np.asarray(Image.fromarray(draw("ball", "red", rng)).resize((size, size)))
                image = writer.add_image(split, picture, view=f"{group}/{k}", source=source)
                writer.add_pair(image, f"{group} {k}", source=source, group=group, time_s=1.5,
                                similarity=0.25, provenance=f"request {k}")
        if extra:
            writer.add_file(extra).write_text(path.name)
    return path


# validate ----------------------------------------------------------------------------------------

def test_a_sound_corpus(shapes, pool, capsys):
    found = validate(pool, progress=False)
    assert found.problems == [] and found.warnings == []
    # the shapes' groups are concepts, which are in both splits by intent
    assert [w for w in validate(shapes, progress=False).warnings if "groups are in train" in w]
    command("validate", pool, "--quiet")
    assert "sound, 0 warnings" in capsys.readouterr().out
    with pytest.raises(ValueError, match="12 groups are in train and in val"):
        command("validate", shapes, "--strict", "--quiet", "--quick")


@pytest.mark.parametrize("harm", ["picture", "table", "extra", "missing"])
def test_harm_is_found_and_named(pool, tmp_path, harm, capsys):
    broken = shutil.copytree(pool, tmp_path / "broken")
    if harm == "picture":
        corpus = read_corpus(pool)
        jpeg = bytes(corpus.images("train").stored(2))
        path = broken / "train.beton"
        data = path.read_bytes()
        at = data.index(jpeg) + len(jpeg) // 2
        path.write_bytes(data[:at] + bytes(20) + data[at + 20 :])
        said = "train.beton, row 2 (00001/blue.webp): its bytes changed"
    elif harm == "table":
        table = pq.read_table(broken / "pairs.parquet")
        texts = ["a\nb", *table["utterance"].to_pylist()[1:]]
        place = table.schema.get_field_index("utterance")
        pq.write_table(table.set_column(place, "utterance", [texts]), broken / "pairs.parquet")
        said = "pairs.parquet: its SHA-256 is not the one in corpus.json"
    elif harm == "extra":
        (broken / "dead.csv").write_text("changed")
        said = "dead.csv: its SHA-256"
    else:
        (broken / "inputs.csv").unlink()
        said = "inputs.csv: listed in corpus.json, missing"
    with pytest.raises(ValueError, match="broken: "):
        command("validate", broken, "--quiet")
    out = capsys.readouterr().out
    assert said in out
    assert ("line breaks or control characters" in out) == (harm == "table")


def test_missing_licence_and_repeated_pairs(tmp_path):
    path = tmp_path / "c"
    with CorpusWriter(path, name="c", version="1", image_size=SIDE, made_by={},
                      sources=[Source("a", "", ""), Source("unused", "x", "")]) as writer:
        for split in ("train", "val"):
            rng = np.random.default_rng(0)
            image = writer.add_image(split, draw("box", "blue", rng), view="v", source="a")
            writer.add_image(split, draw("box", "blue", rng), view="silent", source="a")
            for _ in range(2):
                writer.add_pair(image, "a box", source="a", group="g")
    found = validate(path, progress=False)
    assert found.problems == ["corpus.json: source 'a' has no licence"]
    text = "\n".join(found.warnings)
    for said in ("'unused' is declared and not used", "1 pictures of val have no utterance",
                 "1 pairs of train repeat", "1 groups are in train and in val",
                 "1 views are in train and in val"):
        assert said in text


# inspect -----------------------------------------------------------------------------------------

def test_inspect_shows_counts_words_and_leaks(shapes, pool, tmp_path, capsys):
    vocabulary = tmp_path / "vocab.json"
    vocabulary.write_text(json.dumps({"<unk>": 0, "a": 1, "red": 2, "picture": 3, '"': 4}))
    command("inspect", pool, shapes, "--vocabulary", vocabulary)
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "train pool 5 5 5 5" in lines and "pool CC-BY-4.0 https://example.org" in lines
    assert "train shapes 24 48 12 24" in lines
    assert "leaks: 12 groups are in train and in val" in lines
    assert "no such picture 1" in lines  # what was left out
    # "a red picture", 'a green, tall picture', 'a "blue" picture', ...: five texts, 16 words;
    # the comma counts where marks are parted
    assert next(x for x in lines if x.startswith("vocab.json, at blanks")).split()[3:6] == [
        "16", "5", "(31.2%)"]
    marks = next(x for x in lines if x.startswith("vocab.json, at marks")).split()
    assert marks[3:5] == ["19", "6"] and "4 of 5" in " ".join(marks)


def test_inspect_reads_a_tokenizer_file(pool, tmp_path, capsys):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "picture": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    command("inspect", pool, "--vocabulary", tmp_path / "tokenizer.json", "--samples", 0)
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("tokenizer.json"))
    assert line.split()[1:3] == ["19", "9"] and "5 of 5" in line


def test_contact_sheet(shapes, tmp_path):
    for _ in range(2):
        command("inspect", shapes, "--sheet", tmp_path / "sheet.png", "--sheet-rows", 1)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    # red, green and blue shapes are on it
    for channel in range(3):
        others = sheet[..., [c for c in range(3) if c != channel]].max(-1)
        assert (sheet[..., channel] - others > 80).sum() > 500
    assert sheet.shape[1] > 1000 and sheet.shape[0] > 400


@pytest.mark.parametrize("content", ["[1, 2]", "{}", '{"a": "b"}', "no json"])
def test_a_vocabulary_must_be_one(pool, tmp_path, content):
    path = tmp_path / "v.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"v\.json: (not JSON|accepted are a vocabulary)"):
        command("inspect", pool, "--vocabulary", path)


# merge -------------------------------------------------------------------------------------------

def test_merge_keeps_pictures_words_licences_and_provenance(shapes, pool, tmp_path):
    counts = merge([shapes, pool], tmp_path / "mix", progress=False)
    assert counts == {"train": {"pool": 5, "shapes": 48}, "val": {"shapes": 24}}
    mixed = read_corpus(tmp_path / "mix")
    assert {s["name"]: s["licence"] for s in mixed.info["sources"]} == {
        "shapes": "CC0-1.0", "pool": "CC-BY-4.0"}
    for old in (read_corpus(shapes), read_corpus(pool)):
        assert old.digest in json.dumps(mixed.info["made_by"]["inputs"])
        for split in old.splits:
            before, after = old.pairs(split), mixed.pairs(split)
            source = before.source[0]
            mine = np.flatnonzero(after.source == source)
            assert [after.utterance[k] for k in mine] == before.utterance
            assert after.group[mine].tolist() == before.group.tolist()
            for k, place in enumerate(mine):
                assert (mixed.images(split).stored(int(after.row[place])).tobytes()
                        == old.images(split).stored(int(before.row[k])).tobytes())
    origins = pq.read_table(tmp_path / "mix" / "origins.parquet").to_pylist()
    names = mixed.image_table["key"]
    assert [names[o["image"]] for o in origins] == [o["member"] for o in origins]
    assert "gone.jpg" in (tmp_path / "mix" / "dead.csv").read_text()
    assert validate(tmp_path / "mix", progress=False).problems == []
    merge([shapes, pool], tmp_path / "again", progress=False)
    assert read_corpus(tmp_path / "again").digest == mixed.digest


def test_provenance_columns_stay(tmp_path):
    merge([small(tmp_path / "one")], tmp_path / "mix", progress=False)
    pairs = read_corpus(tmp_path / "mix").pairs("train")
    assert pairs.provenance.tolist() == [f"request {k}" for k in range(4)]
    assert set(pairs.time_s) == {1.5} and set(pairs.similarity) == {0.25}


@pytest.mark.parametrize(("weight", "cap", "taken"), [
    (0.5, None, 10), (2, None, 40), (1.25, None, 25), (0, None, 0), (1, 7, 7), (3, 50, 50),
    (1, 100, 20),
])
def test_weights_and_caps(tmp_path, weight, cap, taken):
    a = small(tmp_path / "a", source="a", groups=("x",), count=20)
    b = small(tmp_path / "b", source="b", groups=("y",), count=6)
    mix = Mix({"a": weight}, {} if cap is None else {"a": cap}, seed=1)
    counts = merge([a, b], tmp_path / "mix", mix=mix, progress=False)
    assert counts["train"].get("a", 0) == taken and counts["train"]["b"] == 6
    corpus = read_corpus(tmp_path / "mix")
    pairs = corpus.pairs("train")
    often = np.unique([t for t in pairs.utterance if t.startswith("x")], return_counts=True)[1]
    assert set(often.tolist()) <= {taken // 20, taken // 20 + 1}  # as evenly as can be
    assert corpus.info["splits"]["train"]["images"] == len(set(pairs.image))


def test_other_splits_are_taken_whole(tmp_path):
    a = small(tmp_path / "a", source="a", groups=("x",))
    b = small(tmp_path / "b", source="a", groups=("y",), split="val", count=9)
    counts = merge([a, b], tmp_path / "mix", mix=Mix({"a": 0.5}, {"a": 1}), progress=False)
    assert counts == {"train": {"a": 1}, "val": {"a": 9}}


def test_a_leak_made_by_mixing_is_refused_or_dropped(tmp_path):
    train = small(tmp_path / "a", groups=("x", "y"))
    test = small(tmp_path / "b", groups=("y",), split="test", seed=5)
    with pytest.raises(ValueError, match=r"4 pairs of train show what another corpus holds out "
                                         r"\(first: group 'y' of .*--leaks drop"):
        merge([train, test], tmp_path / "mix", progress=False)
    assert not list(tmp_path.glob("mix*"))
    merge([train, test], tmp_path / "dropped", mix=Mix(leaks="drop"), progress=False)
    dropped = read_corpus(tmp_path / "dropped")
    assert set(dropped.pairs("train").group) == {"x"} and not straddling(dropped, "group")
    assert dropped.info["made_by"]["leaking_pairs"] == 4
    merge([train, test], tmp_path / "kept", mix=Mix(leaks="keep"), progress=False)
    assert straddling(read_corpus(tmp_path / "kept"), "group") == {("train", "test"): 1}


def test_extra_files_are_kept_apart(tmp_path):
    a = small(tmp_path / "a", groups=("x",), extra="benchmarks/set.csv")
    b = small(tmp_path / "b", groups=("y",), extra="benchmarks/set.csv")
    c = small(tmp_path / "c", groups=("z",), extra="notes.txt")
    merge([a, b, c], tmp_path / "mix", progress=False)
    for file, content in (("a/benchmarks/set.csv", "a"), ("b/benchmarks/set.csv", "b"),
                          ("notes.txt", "c")):
        assert (tmp_path / "mix" / file).read_text() == content


@pytest.mark.parametrize(("options", "said"), [
    (["--weight", "nobody=2"], "no source 'nobody'; there are a"),
    (["--weight", "a"], "accepted is SOURCE=NUMBER"),
    (["--weight", "a=-1"], "accepted are 0 to 1000"),
    (["--cap", "a=1.5"], "accepted are whole numbers"),
])
def test_bad_settings(tmp_path, options, said):
    a = small(tmp_path / "a")
    with pytest.raises(ValueError, match=said):
        command("merge", a, "--out", tmp_path / "mix", "--quiet", *options)


def test_sizes_and_licences_must_agree(tmp_path):
    a, b = small(tmp_path / "a"), small(tmp_path / "b", size=16)
    with pytest.raises(ValueError, match="b: pictures of 16 pixels, .*a has 32"):
        merge([a, b], tmp_path / "mix", progress=False)
    c = small(tmp_path / "c", licence="restricted")
    with pytest.raises(ValueError, match="source 'a' has the licence 'restricted' here and 'CC0"):
        merge([a, c], tmp_path / "mix", progress=False)
    with pytest.raises(ValueError, match="exists already"):
        merge([a], c, progress=False)
