"""SAYCam's transcripts: sloppy stamps, clean-up, sentences, times of frames, bad files."""

from __future__ import annotations

import csv
import importlib.util

import numpy as np
import pytest

from dataprep.sources.speech import clean, sentences
from dataprep.sources.splits import deal
from dataprep.sources.stamps import seconds
from dataprep.sources.transcripts import Rules, read_transcript, stem_of

HEADER = ("Time", "Speaker", "Utterance", "Objects", "Video Name")
STEM = "S_20130901_1015_01"


def write(folder, rows, stem=STEM, header=HEADER, video=None):
    path = folder / f"{stem}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for k, (time, speaker, text) in enumerate(rows):
            writer.writerow([time, speaker, text, "", (video or f"{stem}.MP4") if k == 0 else ""])
    return path


@pytest.mark.parametrize(("stamp", "meant"), [
    ("0:05", 5), ("1:05", 65), ("12:34", 754), ("1.30", 90), ("1.3", 90), ("2,5", 170),
    ("2;7", 127), ("0:6", 6), ("0:15-0:20", 15), ("0:15 - 0:20", 15), (" 3:07 ", 187), ("4", 240),
    (":40", 40), ("61:00", 3660), ("1:02:03", 62), ("0:00", 0), ("0:5", 50), ("2.0", 120),
    ("", None), (" ", None), ("-0:20", None), ("0:123", None), ("1.3333", None), ("abc", None),
    ("1:a", None), ("?", None), ("1:\u0665", None), ("1:", None),
])
def test_sloppy_stamps(stamp, meant):
    assert seconds(stamp) == meant


def test_remarks_go_and_what_is_inaudible_becomes_unk():
    assert clean("you (laughs) want [pointing] it *sighs*?").split() == ["you", "want", "it", "?"]
    assert sentences("see (inaudible) there") == ["see <unk> there"]
    assert sentences("see [inaudible 2 words] there.") == ["see <unk> there ."]
    assert sentences("this is inaudible") == ["this is <unk>"]
    assert sentences("see (inaudible) there", inaudible="") == ["see there"]
    assert sentences("*claps*") == sentences("") == sentences("...") == []


@pytest.mark.parametrize(("line", "said"), [
    ("It's a ball! Do you see it? Yes.", ["it 's a ball !", "do you see it ?", "yes ."]),
    ("Don't you? we'll go, I'm here", ["do n't you ?", "we 'll go , i 'm here"]),
    ("what?! no way", ["what ? !", "no way"]),
    ("that's a-- that's it...", ["that 's a-- that 's it ..."]),
    ("well -- the- the ball", ["well -- the- the ball"]),
    ('She said "go." Now', ['she said " go . "', "now"]),
    ("you can\u2019t, they\u2019ve gone", ["you ca n\u2019t , they \u2019ve gone"]),
    ("a pick-up truck", ["a pick-up truck"]),
])
def test_sentences_by_rules(line, said):
    assert sentences(line) == said


@pytest.mark.skipif(importlib.util.find_spec("spacy") is not None, reason="spaCy is installed")
def test_spacy_is_asked_for_and_missing():
    with pytest.raises(ValueError, match="needs spaCy and its model en_core_web_sm.*rules"):
        sentences("a ball", "spacy")


@pytest.mark.parametrize("duration", range(12))
def test_frames_of_an_utterance_are_the_published_ones(duration):
    # published: max(min(int(duration / 0.2), 32), 1) frames from the beginning, at 5 a second
    count = max(min(int(duration / 0.2), 32), 1)
    times = np.linspace(7, 7 + count / 5, count, endpoint=False)
    got = Rules(every=1).frames(7, 7 + duration)
    assert [n for n, _ in got] == list(range(count))
    np.testing.assert_allclose([t for _, t in got], times, rtol=0, atol=1e-12)
    assert [n for n, _ in Rules().frames(7, 7 + duration)] == list(range(0, count, 5))


def test_a_transcript_by_the_published_rules(tmp_path):
    path = write(tmp_path, [
        ("0:00", "M", "Look! A ball."),       # two sentences share 0..5 s: 0..2, 2..5
        ("0:05", "child", "ba"),              # another speaker, but it ends the line before
        ("0:08-0:09", "Mom", "you want it?"),
        ("0:123", "M", "no time"),            # cannot be read
        ("0:20", "the mom", "bye"),           # the one before it ends here
        ("0:19", "papa", "early"),            # begins before the line before it ends
        ("0:30", "M", "*laughs*"),
        ("0:40", "grandma", "hello"),
        ("", "M", "no stamp"),
        ("0:50", "M", "last"),
    ])
    found = read_transcript(path, Rules(every=1))
    said = [(s.number, s.text, s.frames[0][1], len(s.frames)) for s in found.said]
    assert said == [
        (1, "look !", 0.0, 10), (2, "a ball .", 2.0, 15),
        (3, "bye", 20.0, 1),       # runs backwards: one frame
        (4, "early", 19.0, 32),    # 11 s: 55 frames, 32 at most
        (5, "last", 50.0, 1),
    ]
    assert found.backwards == 1 and found.others == {"child": 1, "grandma": 1}
    assert [(d.where, d.reason.split(" (")[0]) for d in found.dead] == [
        ("line 4", "the next line's time stamp cannot be read"),
        ("line 5", "time stamp cannot be read"),
        ("line 8", "no words left after the clean-up"),
        ("line 10", "time stamp cannot be read"),
    ]


def test_speakers_are_a_field(tmp_path):
    path = write(tmp_path, [("0:00", "nanny", "a cat"), ("0:05", "M", "a dog")])
    assert [s.text for s in read_transcript(path, Rules(speakers=("nanny",))).said] == ["a cat"]


def test_transcripts_that_name_no_one_video_are_left_out(tmp_path):
    rows = [("0:00", "M", "a"), ("0:01", "M", "b")]
    other = read_transcript(write(tmp_path, rows, video="S_20130902_1015_01.mov"), Rules())
    part = read_transcript(write(tmp_path, rows, video="S_x_part 2.mp4"), Rules())
    short = read_transcript(write(tmp_path, rows[:1]), Rules())
    assert not (other.said or part.said or short.said)
    assert "another recording's video" in other.dead[0].reason
    assert "names 0 videos" in part.dead[0].reason and "one line" in short.dead[0].reason


def test_sheets_of_parts_are_renamed_as_published(tmp_path):
    assert stem_of(tmp_path / "S_20141029_2412_part 2.csv") == "S_20141029_2412_02"


def test_missing_columns_are_named(tmp_path):
    path = write(tmp_path, [("0:00", "M", "a")], header=("Time", "Who", "Utterance", "x", "Video"))
    with pytest.raises(ValueError, match=r"S_.*\.csv, line 1: no column 'Speaker', 'Video Name'; "
                                         r"found Time, Who, .*; needed Time, Speaker"):
        read_transcript(path, Rules())
    path.write_bytes(b"Time,Speaker,Utterance,Video Name\n0:00,M,\xff\xfe,a\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_transcript(path, Rules())


def test_splits():
    groups = [f"r{k % 20}" for k in range(2000)]
    random = deal(groups, "random", 0)
    assert [random.count(s) for s in ("train", "val", "test")] == [1800, 100, 100]
    assert random == deal(groups, "random", 0) != deal(groups, "random", 1)
    mixed = {(g, s) for g, s in zip(groups, random, strict=True)}
    assert len(mixed) > 40  # the published rule leaks
    whole = deal(groups, "recording", 0)
    assert [whole.count(s) for s in ("train", "val", "test")] == [1800, 100, 100]
    assert len({(g, s) for g, s in zip(groups, whole, strict=True)}) == 20
    assert set(deal(["a", "b", "c"], "recording", 5)) == {"train", "val", "test"}
    uneven = deal(["a"] * 900 + ["b"] * 60 + ["c"] * 40, "recording", 3)
    assert uneven[0] == "train" and set(uneven) == {"train", "val", "test"}
    with pytest.raises(ValueError, match="at least 3"):
        deal(["a", "b"], "recording", 0)
