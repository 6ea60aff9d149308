"""SAYCam's videos and CVCL's frames become corpora: right pictures, words, times, provenance."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.filming import FPS, drawn, film, number_of

from dataprep.frames.view import View
from dataprep.sources.cvcl import ingest_cvcl
from dataprep.sources.saycam import ingest_saycam
from dataprep.sources.transcripts import Rules
from engine import read_corpus

STEMS = [f"S_2013090{k}_1015_01" for k in range(4)]
# Bars must stay whole: nothing is cut away above or below, little at the sides.
VIEW = View(shorter_side=120, crop=120, raise_by=0, size=120)


def bars(picture):
    """The number that a turned and cropped frame says: 160 pixels wide, of which 120 are left."""
    wide = np.zeros((120, 160, 3), np.uint8)
    wide[:, 20:140] = picture[::-1, ::-1]
    return number_of(wide)


@pytest.fixture(scope="module")
def saycam(tmp_path_factory):
    """Four videos of 20 s whose frames are numbered from 4 * k, and their transcripts."""
    root = tmp_path_factory.mktemp("saycam")
    (root / "videos" / "deeper").mkdir(parents=True)
    (root / "transcripts").mkdir()
    for k, stem in enumerate(STEMS):
        folder = root / "videos" / ("deeper" if k else "")
        film(folder / f"{stem}.mp4", 20 * FPS, options={"crf": "16", "preset": "ultrafast"})
        rows = ["Time,Speaker,Utterance,Video Name", f"0:02,M,Look at the ball!,{stem}.mov",
                "0:04,Mom,you want it? Here.,", "0:08,child,ba,", "0:30,M,too late,",
                "0:09,M,(laughs) bye,", "0:30,child,ba,"]
        (root / "transcripts" / f"{stem}.csv").write_text("\n".join(rows) + "\n")
    return root


def numbers(corpus):
    """(recording, number of its picture's frame, utterance, time) of every pair."""
    found = []
    for split in corpus.splits:
        pairs, beton = corpus.pairs(split), corpus.images(split)
        for k in range(len(pairs)):
            found.append((pairs.group[k], bars(beton.pixels(int(pairs.row[k]))),
                          pairs.utterance[k], pairs.time_s[k]))
    return sorted(found)


def test_videos_and_transcripts_become_a_corpus(saycam, tmp_path, capsys):
    out = tmp_path / "corpus"
    ingest_saycam(saycam / "videos", saycam / "transcripts", out, view=VIEW, split="recording",
                  workers=1, progress=False)
    corpus = read_corpus(out)
    found = numbers(corpus)
    # 1 frame a second: 2, 3; 4, 5; 6, 7; 9, 10, ... 15 (32 frames at 5 a second: 6.4 s)
    said = [("look at the ball !", 2, (2, 3)), ("you want it ?", 4, (4, 5)), ("here .", 6, (6, 7)),
            ("bye", 9, range(9, 16))]
    wanted = sorted((f"saycam/{stem}", n, text, float(begin))
                    for stem in STEMS for text, begin, times in said
                    for n in _bits(t * FPS for t in times))
    assert found == wanted
    origins = pq.read_table(out / "origins.parquet").to_pylist()
    assert len(origins) == len(found) and {o["file"] for o in origins} == {
        f"{s}.mp4" for s in STEMS}
    assert all(len(o["sha256"]) == 64 and o["time_s"] >= 2 for o in origins)
    dead = (out / "dead.csv").read_text().splitlines()
    assert len(dead) == 1 + 4 and all("no whole frame at that time (30.0 s)" in d for d in dead[1:])
    made = corpus.info["made_by"]
    assert made["rules"]["fps"] == 5 and made["rules"]["max_frames"] == 32
    assert made["other_speakers"] == {"child": 8} and made["backwards"] == 4
    assert made["counts"]["dead_by_reason"] == {"no whole frame at that time": 4}
    assert not list(tmp_path.glob("*.frames"))  # restricted pictures stay in one place
    assert "4 rows left out" in capsys.readouterr().out
    by_split = {s: set(corpus.pairs(s).group) for s in corpus.splits}
    assert sum(map(len, by_split.values())) == 4 and set(by_split) == {"train", "val", "test"}


def _bits(frames):
    """The numbers as far as the cut leaves their bars: bits 0 and 11 are cut off, 1 and 10 half."""
    wide = np.zeros((120, 160, 3), np.uint8)
    for frame in frames:
        wide[:, 20:140] = drawn(frame)[:, 20:140]
        yield number_of(wide)


def test_the_published_split_deals_utterances_and_any_way_gives_the_same_bytes(saycam, tmp_path):
    for name, way, workers in (("one", "auto", 1), ("two", "seek", 2)):
        ingest_saycam(saycam / "videos", saycam / "transcripts", tmp_path / name, view=VIEW,
                      rules=Rules(every=1), way=way, workers=workers, progress=False)
    one, two = read_corpus(tmp_path / "one"), read_corpus(tmp_path / "two")
    assert one.digest == two.digest
    # 16 utterances: 14 train, 0 val, 2 test
    spoken = Counter(s for s in one.splits for _ in {
        v.rsplit("_", 1)[0] for v in one.pairs(s).view})
    assert spoken == {"train": 14, "test": 2}


def test_an_unreadable_video_is_one_line_and_the_others_are_kept(saycam, tmp_path):
    videos = shutil.copytree(saycam / "videos", tmp_path / "videos")
    bad = next(videos.rglob(f"{STEMS[2]}.mp4"))
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "corpus"
    go = {"view": VIEW, "workers": 1, "progress": False, "split": "train"}
    with pytest.raises(ValueError, match=rf"{STEMS[2]}\.mp4: cannot be read as a video .*; the "
                                         r"frames of the other 3 videos are kept in .*corpus\.frame"
                                         r"s; .*--skip-unreadable") as error:
        ingest_saycam(videos, saycam / "transcripts", out, **go)
    assert "\n" not in str(error.value) and not out.exists()
    kept = {p.name: p.stat().st_ino for p in (tmp_path / "corpus.frames").iterdir()}
    assert len(kept) == 3
    ingest_saycam(videos, saycam / "transcripts", out, skip_unreadable=True, **go)
    assert len(set(read_corpus(out).pairs("train").group)) == 3
    assert f"{STEMS[2]}.mp4,file" in (out / "dead.csv").read_text()


def test_a_killed_run_goes_on_where_it_was(saycam, tmp_path):
    program = (
        "import sys; from pathlib import Path\n"
        "from dataprep.sources.saycam import ingest_saycam\n"
        "from dataprep.frames import extract\n"
        "done = extract._do\n"
        "def slow(*a):\n"
        "    r = done(*a); print('done', flush=True); import time; time.sleep(1); return r\n"
        "extract._do = slow\n"
        "v, t, o = map(Path, sys.argv[1:])\n"
        "ingest_saycam(v, t, o, workers=1, progress=False)\n"
    )
    out = tmp_path / "corpus"
    root = Path(__file__).parents[3]
    run = subprocess.Popen(
        [sys.executable, "-c", program, saycam / "videos", saycam / "transcripts", out],
        cwd=root, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)})
    for _ in range(2):
        assert run.stdout.readline() == b"done\n"
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    frames = tmp_path / "corpus.frames"
    kept = {p.name: p.stat().st_mtime_ns for p in frames.glob("*.npz")}
    assert len(kept) >= 2 and not out.exists()
    began = time.time_ns()
    ingest_saycam(saycam / "videos", saycam / "transcripts", tmp_path / "whole", workers=1,
                  progress=False)
    seen = {}
    real = Path.replace

    def watch(self, target):
        seen[Path(target).name] = True
        return real(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", watch)
        ingest_saycam(saycam / "videos", saycam / "transcripts", out, workers=1, progress=False)
    assert not set(seen) & set(kept), "a finished video was done again"
    assert began > max(kept.values())
    assert read_corpus(out).digest == read_corpus(tmp_path / "whole").digest


@pytest.mark.parametrize("what", ["videos", "transcripts"])
def test_nothing_to_read_is_said(saycam, tmp_path, what):
    (tmp_path / "empty").mkdir()
    folders = {"videos": saycam / "videos", "transcripts": saycam / "transcripts"}
    with pytest.raises(ValueError, match=f"no {what} in it"):
        ingest_saycam(**{**folders, what: tmp_path / "empty"}, out=tmp_path / "o")
    with pytest.raises(ValueError, match=f"no such folder of {what}"):
        ingest_saycam(**{**folders, what: tmp_path / "none"}, out=tmp_path / "o")


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """CVCL's layout: a zip called .txt, with a folder inside, and three metadata files."""
    root = tmp_path_factory.mktemp("cvcl")
    (root / "flat").mkdir()
    for split, count in (("train", 6), ("val", 2), ("test", 2)):
        data = []
        for u in range(count):
            stem = STEMS[u % 3]
            number = {"train": 1, "val": 50, "test": 80}[split] + u
            names = [f"{stem}_{number:03}_{f:02}.jpg" for f in range(7)]
            for f, name in enumerate(names):
                Image.fromarray(drawn(10 * number + f, 224, 224)).save(root / "flat" / name)
            data.append({"utterance": f"it 's {split} {u} .", "transcript_filename": f"{stem}.csv",
                         "video_filename": f"{stem}.mp4", "utterance_num": number, "num_frames": 7,
                         "timestamps": [10 * u + f / 5 for f in range(7)],
                         "frame_filenames": names[1:] if u == 1 else names})
        (root / f"{split}.json").write_text(json.dumps({"data": data}))
    with zipfile.ZipFile(root / "frames.txt", "w") as archive:
        for path in sorted((root / "flat").iterdir()):
            archive.write(path, f"train_5fps/{path.name}")
    return root


@pytest.mark.parametrize("where", ["flat", "frames.txt"])
def test_extracted_frames_become_a_corpus(frames, tmp_path, where):
    out = tmp_path / "corpus"
    ingest_cvcl(frames / where, frames, out, progress=False, workers=2)
    corpus = read_corpus(out)
    assert set(corpus.splits) == {"train", "val", "test"}
    train = corpus.pairs("train")
    # frames 00 and 05 of six utterances, of which one lacks its 00
    assert len(train) == 11 and train.utterance[0] == "it 's train 0 ."
    assert train.view[1] == f"saycam/{STEMS[0]}_001_05" and train.group[1] == f"saycam/{STEMS[0]}"
    beton = corpus.images("train")
    name = f"{STEMS[0]}_001_05.jpg"
    assert beton.stored(1).tobytes() == (frames / "flat" / name).read_bytes()  # stored as it is
    origins = pq.read_table(out / "origins.parquet").to_pylist()
    assert origins[1]["member"] == name and origins[1]["time_s"] == 1.0
    assert train.time_s[2] == 10.0 and train.view[2].endswith("_002_05")
    leak_free = tmp_path / "leak-free"
    ingest_cvcl(frames / where, frames, leak_free, split="recording", every=1, image_size=64,
                progress=False)
    corpus = read_corpus(leak_free)
    groups = [set(corpus.pairs(s).group) for s in corpus.splits]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 3 and corpus.image_size == 64


def test_missing_frames_and_bad_metadata(frames, tmp_path):
    broken = shutil.copytree(frames, tmp_path / "broken")
    (broken / "flat" / f"{STEMS[0]}_001_00.jpg").unlink()
    picture = broken / "flat" / f"{STEMS[0]}_001_05.jpg"
    picture.write_bytes(picture.read_bytes()[:900])
    ingest_cvcl(broken / "flat", broken, tmp_path / "corpus", progress=False)
    dead = (tmp_path / "corpus" / "dead.csv").read_text()
    assert dead.count("\n") == 3 and "no such picture" in dead and "cannot be read" in dead
    tree = json.loads((broken / "val.json").read_text())
    del tree["data"][0]["frame_filenames"]
    (broken / "val.json").write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=r"val\.json, item 0: no frame_filenames; needed"):
        ingest_cvcl(broken / "flat", broken, tmp_path / "two", progress=False)
    (broken / "val.json").write_text('{"data": [{"utter')
    with pytest.raises(ValueError, match=r"val\.json: not JSON, or cut short"):
        ingest_cvcl(broken / "flat", broken, tmp_path / "two", progress=False)
    (broken / "val.json").unlink()
    with pytest.raises(ValueError, match=r"val\.json: no such metadata file"):
        ingest_cvcl(broken / "flat", broken, tmp_path / "two", progress=False)
    assert not (tmp_path / "two").exists()


def test_every_frame_of_the_fixture_is_a_frame(saycam):
    with av.open(str(next((saycam / "videos").rglob("*.mp4")))) as container:
        seen = [number_of(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    assert seen == list(range(20 * FPS))
