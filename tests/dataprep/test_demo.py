"""The demonstration: films, transcripts and pool as they should be, and all of it run once."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from dataprep.__main__ import main
from dataprep.demo.choice import FULL, SMALL, choose, is_photograph
from dataprep.demo.film import FPS, Scene, frame, length_s, shoot
from dataprep.demo.materials import scenes_of
from dataprep.demo.pool import write_emoji, write_stamps
from dataprep.demo.speech import MOTHER, lines, stamp, write_transcript
from dataprep.demo.stages import stages
from dataprep.demo.training import STEPS, losses, training_words
from dataprep.evalsets.phrase_models import floor
from dataprep.frames.video import frames_at
from dataprep.picturebook.render import render
from dataprep.sources.stamps import seconds
from dataprep.sources.transcripts import Rules, read_transcript
from engine import read_corpus


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Four photographs, each for some seconds."""
    return scenes_of(choose(SMALL, 0).films[0][:4], 0, 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small demonstration and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "demo"
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["demo", "--out", str(out), "--small"]) == 0
    return out, said.getvalue()


def files_of(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*")) if path.is_file()
    }


def test_known_frames_come_back_at_known_times(scenes: list[Scene], tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    shoot(film, scenes, seed=3)
    count = length_s(scenes) * FPS
    wanted = sorted(np.random.default_rng(0).permutation(count)[:20].tolist())
    found = {f.stamp: f for f in frames_at(film, [k / FPS for k in wanted])}
    assert len(found) == 20
    for stamp_, index in enumerate(wanted):
        assert found[stamp_].time_s == pytest.approx(index / FPS)
        seen = found[stamp_].pixels[::-1, ::-1].astype(float)  # turned, as the camera hangs
        near = range(max(index - 3, 0), min(index + 4, count))
        error = {k: float(np.abs(seen - frame(scenes, k, seed=3)).mean()) for k in near}
        assert min(error, key=error.__getitem__) == index and error[index] < 3


def test_a_film_is_the_same_bytes_each_time_and_h264(scenes: list[Scene], tmp_path: Path) -> None:
    import av

    for name, seed, turned in (("a", 0, True), ("b", 0, True), ("c", 1, True), ("d", 0, False)):
        shoot(tmp_path / f"{name}.mp4", scenes[:1], seed=seed, turned=turned)
    a, b, c, d = ((tmp_path / f"{name}.mp4").read_bytes() for name in "abcd")
    assert a == b and a != c and a != d
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4", "c.mp4", "d.mp4"}
    with av.open(str(tmp_path / "a.mp4")) as container:
        video = container.streams.video[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert video.frames == scenes[0].end_s * FPS and float(video.average_rate or 0) == FPS


def test_scenes_must_follow_each_other(scenes: list[Scene], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must follow each other"):
        shoot(tmp_path / "x.mp4", scenes[1:])
    with pytest.raises(ValueError, match="the film has"):
        frame(scenes, length_s(scenes) * FPS)
    assert not list(tmp_path.iterdir())


def test_stamps_are_sloppy_and_mean_what_they_should() -> None:
    rng = np.random.default_rng(0)
    typed = [(k, stamp(k, rng)) for k in range(200) for _ in range(4)]
    assert all(seconds(text) == k for k, text in typed)
    forms = {re.sub(r"\d+", "9", text).strip() for _, text in typed}
    assert {"9:9", "9.9", "9;9", "9,9", ":9", "9:9-9:9"} <= forms
    assert any(re.fullmatch(r"\d\.[1-5]", text) for _, text in typed)


def test_the_transcript_is_read_by_the_published_rules(
    scenes: list[Scene], tmp_path: Path
) -> None:
    said = [line for seed in range(20) for line in lines(scenes, seed)][:-1]
    at_s = [k for k, _ in enumerate(said)]
    said = [type(line)(k, line.speaker, line.text) for k, line in zip(at_s, said, strict=True)]
    path = tmp_path / "T_20260101_1201_01.csv"
    write_transcript(path, said, seed=0)
    read = read_transcript(path, Rules())
    assert path.read_text().startswith("Time,Speaker,Utterance,Video Name,")
    theirs = sum(line.speaker in MOTHER for line in said)
    assert sum(read.others.values()) == len(said) - theirs > 0
    assert theirs - len(read.dead) <= len(read.said)
    assert 1 <= len(read.dead) < theirs / 3, "some stamps cannot be read, most can"
    nouns = {scene.rendered.drawing.noun for scene in scenes}
    named = sum(any(noun in one.text for noun in nouns) for one in read.said)
    assert named > len(read.said) / 2


def test_nothing_plays_two_parts() -> None:
    chosen = choose(FULL, 0)
    labels = [d for found in chosen.labels.values() for d in found]
    films = [d for film in chosen.films for d in film]
    assert len(films) == FULL.films * FULL.scenes and all(map(is_photograph, films + labels))
    keys = [d.key for d in (*films, *labels, *chosen.stamps, *chosen.emoji)]
    assert len(keys) == len(set(keys)) and len(chosen.stamps) + len(chosen.emoji) > 800
    assert [d.key for d in choose(FULL, 1).films[0]] != [d.key for d in chosen.films[0]]


def test_dead_rows_of_the_pool_are_counted(tmp_path: Path) -> None:
    chosen = choose(SMALL, 0)
    rendered = [render((drawing, 64))[0] for drawing in (*chosen.stamps[:8], *chosen.emoji[:3])]
    drawn = [one for one in rendered if one is not None]
    write_stamps(tmp_path / "stamps", tmp_path / "stamps.json", drawn[:8], 0)
    write_emoji(tmp_path / "emoji.zip", tmp_path / "emoji.json", drawn[8:], 0)
    again = tmp_path / "again.zip"
    write_emoji(again, tmp_path / "again.json", drawn[8:], 0)
    assert again.read_bytes() == (tmp_path / "emoji.zip").read_bytes()
    for name, pictures, count, dead in (
        ("stamps", "stamps", 8, 4), ("emoji", "emoji.zip", len(drawn) - 8, 0),
    ):
        assert main(["ingest", "--kind", "llava", "--rows", str(tmp_path / f"{name}.json"),
                     "--pictures", str(tmp_path / pictures), "--source", "mine", "--licence",
                     "GPL-2.0", "--image-size", "32", "--quiet",
                     "--out", str(tmp_path / f"{name}-corpus")]) == 0
        made_by = read_corpus(tmp_path / f"{name}-corpus").info["made_by"]
        assert (made_by["counts"]["images"], made_by["counts"]["dead"]) == (count, dead)
    listed = (tmp_path / "stamps-corpus" / "dead.csv").read_text().splitlines()
    assert len(listed) == 5 and len({line.rsplit(",", 1)[1] for line in listed[1:]}) == 4


def test_every_stage_ran_and_was_shown_as_typed(made: tuple[Path, str]) -> None:
    out, printed = made
    todo = stages(out, SMALL, 0)
    for number, stage in enumerate(todo, 1):
        assert f"$ {stage.line}\n" in printed
        assert re.search(rf"^\[{number}/{len(todo)}\] {stage.name}: [\d.]+ s$", printed, re.M)
        assert (out / "logs" / f"{stage.name}.txt").is_file()
        assert all(path.exists() for path in stage.whole)
    kinds = [stage.words[0] for stage in todo if stage.words]
    assert {"ingest", "embed", "filter", "duplicates", "split", "rewrite", "match", "merge",
            "build", "review", "document", "validate"} <= set(kinds)


def test_the_demonstration_is_labelled_as_what_it_is(made: tuple[Path, str]) -> None:
    out, _ = made
    info = read_corpus(out / "mixed").info
    assert {s["name"]: s["licence"] for s in info["sources"]} == {
        "tux-films": "GPL-2.0", "tux-pool": "GPL-2.0", "openmoji-pool": "CC-BY-SA-4.0",
    }
    frames = read_corpus(out / "frames")
    assert all(group.startswith("tux-films/T_2026") for group in frames.pairs("train").group)
    assert "saycam" not in json.dumps(info).replace("--kind saycam", "")
    proof = read_corpus(out / "transferred").info["made_by"]["match"]["certificate"]
    assert proof["verified"] and proof["gap"] < 5e-4 and proof["matched"] == proof["frames"]
    films = json.loads((out / "materials" / "materials.json").read_text())["films"]
    assert len(films) == SMALL.films and sum(map(len, films.values())) == SMALL.films * SMALL.scenes


def test_phrases_alone_do_not_beat_chance(made: tuple[Path, str]) -> None:
    out, printed = made
    records = [json.loads(line) for line in (out / "two-word/records.jsonl").open()]
    kept = [r for r in records if not r["dropped"] and not r["pruned"]]
    pairs = [(r["fields"]["positive_phrase"], r["fields"]["negative_phrase"]) for r in kept]
    found = floor(pairs, "words", seed=0)
    assert found.accuracy <= found.chance_high
    assert "naive Bayes on phrases alone, folds grouped by phrase, does not beat chance" in printed
    assert f"kept     {len(kept):4} trials: {found.accuracy:.1%} right" in printed


def test_the_page_says_what_is_real_and_points_to_what_is_there(made: tuple[Path, str]) -> None:
    out, _ = made
    page = (out / "index.html").read_text("utf-8")
    for said in (
        "The language model is rules", "The diffusion model is tiny and random",
        "The scorer is not CLIP", "The child’s view is staged", "Nobody reviewed the sets",
        "decoded by FFmpeg", "published speech rules", "EfficientNet", "proven gap",
        "request store", "pruning", "does not beat chance", "No run trained on it",
    ):
        assert said in page, said
    linked = set(re.findall(r'(?:href|src)="([^"]+)"', page))
    assert len(linked) > 20 and all((out / name).is_file() for name in linked)
    assert not re.findall(r'(?:href|src)="[a-z]+:', page), "nothing from elsewhere"
    assert {"matched.png", "mixed.png", "two-word/review.html"} <= linked


def test_a_second_call_does_nothing(
    made: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = made
    before = files_of(out)
    assert main(["demo", "--out", str(out), "--small"]) == 0
    said = capsys.readouterr().out
    count = len(stages(out, SMALL, 0))
    assert said.count(": there already") == count and f"(0 of {count} stages run" in said
    assert files_of(out) == before


def test_what_is_missing_is_made_again_alike(made: tuple[Path, str]) -> None:
    """As after a kill: outputs without their logs, logs and outputs gone, a half-saved model."""
    out, _ = made
    before = files_of(out)
    for name in ("captions/evalset.json", "logs/captions.txt", "logs/labeled.txt", "mixed.png",
                 "logs/sheet.txt", "tiny-sd3/model_index.json", "logs/tiny-sd3.txt"):
        (out / name).unlink()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["demo", "--out", str(out), "--small"]) == 0
    assert "labeled: there already" in said.getvalue() and "(3 of " in said.getvalue()
    after = files_of(out)
    assert after | {"logs/labeled.txt": "", "index.html": ""} == before | {
        "logs/labeled.txt": "", "index.html": ""}


@pytest.mark.parametrize(("words", "prepare", "said"), [
    (["--seed", "-1"], "", "--seed -1: accepted are 0 and above"),
    ([], "file", "holds something else"),
    ([], "other", "was begun with other options"),
])
def test_wrong_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], prepare: str, said: str
) -> None:
    out = tmp_path / "out"
    if prepare:
        out.mkdir()
        (out / ("mine.txt" if prepare == "file" else "demo.json")).write_text('{"demo": 1}')
    before = files_of(tmp_path)
    assert main(["demo", "--out", str(out), *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and files_of(tmp_path) == before


@pytest.mark.parametrize(("words", "said"), [
    (["saycam", "--source", "mine"], "--source and --licence go together"),
    (["saycam", "--licence", "CC0-1.0"], "--source and --licence go together"),
    (["saycam", "--url", "https://example.org"], "--source and --licence go together"),
    (["cvcl", "--source", "mine", "--licence", "CC0-1.0"], "its frames are SAYCam's"),
])
def test_recordings_are_saycam_s_unless_named_and_licensed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["ingest", "--rows", "t", "--pictures", "v", "--out", str(tmp_path / "out"),
                 "--kind", *words]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_stage_that_fails_stops_and_keeps_what_is_done(
    made: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = made
    log, page = out / "logs" / "validate.txt", out / "mixed" / "corpus.json"
    whole, was = page.read_bytes(), log.read_bytes()
    log.unlink()
    page.write_bytes(whole[:100])
    try:
        assert main(["demo", "--out", str(out), "--small"]) == 2
    finally:
        page.write_bytes(whole)
        log.write_bytes(was)
    assert "stage validate failed" in capsys.readouterr().err


def test_training_is_the_quickstart_on_the_mixed_corpus(tmp_path: Path) -> None:
    from engine.config import load_config

    words = training_words(tmp_path / "mixed", tmp_path / "run")
    assert words[0] == "deepspeed" and "engine/train.py" in words
    overrides = [words[k + 1] for k, word in enumerate(words) if word == "--set"]
    config = load_config(Path("configs/quickstart.yaml"), overrides)
    assert str(config.corpus) == str(tmp_path / "mixed")
    assert {phase.name: phase.max_steps for phase in config.phases} == STEPS
    corpus = tmp_path / "mixed"
    assert losses(tmp_path / "run", corpus) == {}
    (tmp_path / "run").mkdir()
    rows = [{"phase": "vision", "step": 10, "loss": 2.5}, {"phase": "vision", "step": 20},
            {"phase": "joint", "step": 30, "loss": 1.0}]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "run" / "config.yaml").write_text(f"corpus: {corpus}\n")
    assert losses(tmp_path / "run", tmp_path / "other") == {}
    assert losses(tmp_path / "run", corpus) == {"vision": [(10, 2.5)], "joint": [(30, 1.0)]}
