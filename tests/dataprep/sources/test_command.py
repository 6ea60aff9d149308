"""``python -m dataprep ingest``: arguments, defaults, one clear line for bad input, a full disk."""

from __future__ import annotations

import argparse
import os
import subprocess

import numpy as np
import pytest
from PIL import Image
from support.captioned import NAMES, TEXTS, write_folder, write_rows, write_tar
from support.filming import film

from dataprep.frames.bench import bench
from dataprep.sources.cli import add_commands
from dataprep.sources.general import Layout, ingest_general
from dataprep.sources.saycam import ingest_saycam
from dataprep.sources.transcripts import SPEAKERS, Rules
from engine import Source, read_corpus


def command(*words):
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    arguments = parser.parse_args([str(word) for word in words])
    arguments.run(arguments)


def test_saycam_with_the_published_defaults(tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "t").mkdir()
    film(tmp_path / "v" / "S_20130901_1015_01.mp4", 50, options={"preset": "ultrafast"})
    (tmp_path / "t" / "S_20130901_1015_01.csv").write_text(
        "Time,Speaker,Utterance,Video Name\n0:00,M,a ball,S_20130901_1015_01.mp4\n"
        "0:01,M,two balls,\n")
    command("ingest", "--kind", "saycam", "--rows", tmp_path / "t", "--pictures", tmp_path / "v",
            "--out", tmp_path / "out", "--workers", 1, "--quiet")
    corpus = read_corpus(tmp_path / "out")
    made = corpus.info["made_by"]
    assert made["view"] == {"shorter_side": 256, "crop": 224, "raise_by": 16, "turn": True,
                            "size": 224, "jpeg_quality": 95}
    assert made["rules"] == {"speakers": list(SPEAKERS), "fps": 5.0, "max_frames": 32, "every": 5,
                             "splitter": "rules", "inaudible": "<unk>"}
    assert made["split"] == "random" and corpus.image_size == 224
    command("ingest", "--kind", "saycam", "--rows", tmp_path / "t", "--pictures", tmp_path / "v",
            "--out", tmp_path / "two", "--workers", 1, "--quiet", "--split", "train", "--no-turn",
            "--every", 1, "--image-size", 112, "--speakers", "M,x")
    two = read_corpus(tmp_path / "two")
    assert len(two.pairs("train")) == 5 + 1 and two.image_size == 112


def test_the_shell_s_forms_of_rows(tmp_path):
    pictures = write_folder(tmp_path / "images")
    rows = write_rows(tmp_path, "csv")
    command("ingest", "--kind", "csv", "--rows", rows, f"val={rows}", "--pictures", pictures,
            "--out", tmp_path / "csv", "--source", "mine", "--licence", "CC0-1.0", "--quiet",
            "--image-size", 32, "--fit", "crop")
    corpus = read_corpus(tmp_path / "csv")
    assert [len(corpus.pairs(s)) for s in ("train", "val")] == [5, 5]
    shards = [write_tar(tmp_path / f"{k}.tar") for k in range(2)]
    command("ingest", "--kind", "webdataset", "--rows", *shards, "--out", tmp_path / "tars",
            "--source", "mine", "--licence", "CC0-1.0", "--quiet", "--image-size", 32)
    pairs = read_corpus(tmp_path / "tars").pairs("train")
    assert pairs.utterance == [*TEXTS, *TEXTS] and len(set(pairs.view)) == 2 * len(NAMES)
    command("ingest", "--kind", "llava", "--rows", write_rows(tmp_path / "l", "llava"),
            "--pictures", pictures, "--out", tmp_path / "llava", "--quiet", "--image-size", 32)
    assert read_corpus(tmp_path / "llava").info["sources"][0]["name"] == "llava-pretrain"


@pytest.mark.parametrize(("options", "said"), [
    (["--kind", "saycam", "--rows", "t"], "--kind saycam needs --pictures"),
    (["--kind", "cvcl", "--rows", "a", "b", "--pictures", "p"], "--rows takes one folder"),
    (["--kind", "csv", "--rows", "a.csv"], "--kind csv needs --source and --licence"),
    (["--kind", "llava", "--rows", "none.json"], r"none\.json: no such file"),
    (["--kind", "llava", "--rows", "x=none.json"], r"^none\.json: no such file"),
    (["--kind", "llava", "--rows", "a", "--columns", "x"], "accepted are two names"),
    (["--kind", "llava", "--rows", "a", "--limit", "0"], "--limit 0: accepted"),
    (["--kind", "llava", "--rows", "a", "--workers", "0"], "--workers 0: accepted"),
    (["--kind", "llava", "--rows", "a", "--split", "recording"], "accepted for llava"),
    (["--kind", "saycam", "--rows", "a", "--pictures", "p", "--split", "files"], "--split files"),
    (["--kind", "saycam", "--rows", "a", "--pictures", "p", "--fps", "0"], "fps 0.0"),
    (["--kind", "saycam", "--rows", "a", "--pictures", "p", "--crop", "300"], "crop 300"),
    (["--kind", "cvcl", "--rows", "a", "--pictures", "none"], "none: no such folder or zip"),
])
def test_bad_arguments_are_one_clear_line(tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said) as error:
        command("ingest", *options, "--out", "out")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True
    ).returncode == 0
    if not mounted:
        pytest.skip("needs the right to mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_the_videos_that_are_done(tmp_path, small_disk):
    (tmp_path / "v").mkdir()
    (tmp_path / "t").mkdir()
    for k in range(4):
        stem = f"S_2013090{k}_1015_01"
        film(tmp_path / "v" / f"{stem}.mp4", 25 * 14, options={"preset": "ultrafast"})
        (tmp_path / "t" / f"{stem}.csv").write_text(
            f"Time,Speaker,Utterance,Video Name\n0:00,M,a ball,{stem}.mp4\n0:07,M,two,\n0:14,x,,\n")
    out = small_disk / "corpus"
    with pytest.raises(OSError, match=r"corpus\.frames: no space left on its disk \([\d.]+ MB free"
                                      r"\); finished videos are kept; free some") as error:
        ingest_saycam(tmp_path / "v", tmp_path / "t", out, rules=Rules(every=2), workers=1,
                      progress=False)
    assert "\n" not in str(error.value)
    kept = sorted(p.name for p in (small_disk / "corpus.frames").iterdir())
    assert 1 <= len(kept) < 4 and all(name.endswith(".frames.npz") for name in kept)
    assert not out.exists()


def test_a_full_disk_leaves_no_half_corpus(tmp_path, small_disk):
    rng = np.random.default_rng(0)
    for k in range(40):
        noise = rng.integers(0, 256, (224, 224, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{k}.jpg", quality=95)
    rows = tmp_path / "rows.csv"
    rows.write_text("image,text\n" + "".join(f"{k}.jpg,noise\n" for k in range(40)))
    with pytest.raises(OSError, match=r"out: no space left on its disk \(.*what is made is kept"):
        ingest_general(Layout("csv", (("", rows),)), None, small_disk / "out",
                       source=Source("a", "CC0-1.0", ""), progress=False)
    assert [path.name for path in small_disk.iterdir()] == ["out.pictures"]


def test_the_benchmark_checks_and_prints_its_ways(capsys):
    bench(minutes=0.1, group=50, per_minute=[60.0], repeats=1)
    out = capsys.readouterr().out
    assert "seek per stamp (peer)" in out and "1.00x" in out and "ours, auto" in out
    with pytest.raises(ValueError, match="--minutes 0"):
        bench(minutes=0)
