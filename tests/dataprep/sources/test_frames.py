"""The right frame for every time, whichever way a video is read; damage and bad files."""

from __future__ import annotations

import math

import av
import numpy as np
import pytest
from support.filming import FPS, drawn, film, number_of

from dataprep.frames.bench import decode_all, seek_per_stamp
from dataprep.frames.extract import Job, extract, load_pictures
from dataprep.frames.video import VideoError, Work, frames_at
from dataprep.frames.view import View

WAYS = ("auto", "sequential", "seek")
LENGTH = 400
OPEN = "open-gop=1:scenecut=0:bframes=3:b-pyramid=2:keyint=40:min-keyint=40"
# Closed groups with B-frames; open groups, whose first frames lean on the group before; none.
H264 = {
    "closed": {"crf": "23", "preset": "veryfast", "x264-params": "bframes=3:b-pyramid=2"},
    "open": {"crf": "23", "preset": "veryfast", "x264-params": OPEN},
    "plain": {"crf": "23", "preset": "ultrafast"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module", params=[*H264])
def h264(request, folder):
    return film(folder / f"{request.param}.mp4", LENGTH, options=H264[request.param])


def asked(seed=0, count=20):
    """Twenty frames in no order, one of them twice, and times within them."""
    rng = np.random.default_rng(seed)
    numbers = [0, LENGTH - 1, *rng.integers(0, LENGTH, count - 3).tolist()]
    numbers.append(numbers[5])
    within = rng.uniform(0, 0.95, count)
    return numbers, [(n + part) / FPS for n, part in zip(numbers, within, strict=True)]


def everything(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("way", WAYS)
def test_twenty_known_frames_of_h264(h264, way):
    numbers, times = asked()
    found = {f.stamp: f for f in frames_at(h264, times, way)}
    assert [number_of(found[k].pixels) for k in range(20)] == numbers
    assert [round(found[k].time_s * FPS) for k in range(20)] == numbers
    decoded = everything(h264)
    for k, number in enumerate(numbers):
        np.testing.assert_array_equal(found[k].pixels, decoded[number])


@pytest.mark.parametrize(("name", "codec", "pixels", "options"), [
    ("ffv1.mkv", "ffv1", "bgr0", {}), ("rgb.mp4", "libx264rgb", "rgb24", {"qp": "0"}),
])
@pytest.mark.parametrize("way", WAYS)
def test_twenty_known_frames_of_a_lossless_video(folder, name, codec, pixels, options, way):
    path = folder / name
    if not path.exists():
        film(path, 120, codec=codec, pixels=pixels, options=options, group=30)
    numbers = np.random.default_rng(1).integers(0, 120, 20).tolist()
    found = {f.stamp: f for f in frames_at(path, [n / FPS for n in numbers], way)}
    for k, number in enumerate(numbers):
        np.testing.assert_array_equal(found[k].pixels, drawn(number))


def test_times_between_uneven_frames(folder):
    rng = np.random.default_rng(2)
    ticks = np.cumsum(rng.integers(15, 400, 200)).tolist()
    ticks = [tick - ticks[0] for tick in ticks]
    path = film(folder / "uneven.mkv", 200, ticks=ticks, options={"crf": "20"})
    times = rng.uniform(0, ticks[-1] / 1000, 60)
    right = [int(np.searchsorted(ticks, 1000 * t + 0.5, "right")) - 1 for t in times]
    for way in WAYS:
        found = {f.stamp: f for f in frames_at(path, times.tolist(), way)}
        assert [number_of(found[k].pixels) for k in range(60)] == right


@pytest.mark.parametrize("decimals", [2, 3])
def test_rounded_stamps_name_the_frame_that_begins_there(folder, decimals):
    path = film(folder / f"thirty{decimals}.mp4", 90, fps=30, options={"crf": "20"})
    numbers = list(range(90))
    # 1/30 s = 0.0333...: rounded down it lies before the frame that is meant; at two decimals
    # by more than the tolerance, unless rounded up
    places = 10**decimals
    times = [math.ceil(n / 30 * places) / places if decimals == 2 else round(n / 30, 3)
             for n in numbers]
    found = {f.stamp: f for f in frames_at(path, times)}
    assert [number_of(found[k].pixels) for k in numbers] == numbers


def test_a_time_past_the_end_gives_nothing(h264):
    for way in WAYS:
        end = LENGTH / FPS
        found = [f.stamp for f in frames_at(h264, [end - 0.01, end + 0.01, 1e6], way)]
        assert found == [0]


def test_sparse_times_are_sought_and_dense_ones_are_not(folder):
    path = film(folder / "long.mp4", 1500, group=25,
                options={"preset": "ultrafast", "x264-params": "scenecut=0"})
    sparse, dense = Work(), Work()
    assert len(list(frames_at(path, [1.0, 30.0, 55.0], "auto", sparse))) == 3
    assert len(list(frames_at(path, np.arange(0, 59, 0.7).tolist(), "auto", dense))) == 85
    assert sparse.seeks >= 2 and sparse.read < 300
    assert dense.seeks == 0 and dense.read > 1400


def test_no_group_is_decoded_twice_nor_beyond_what_is_wanted(folder):
    path = film(folder / "work.mp4", 500, group=50,
                options={"crf": "23", "x264-params": "scenecut=0:bframes=3"})
    work = Work()
    found = list(frames_at(path, [1.0, 1.2, 1.4, 9.0], "auto", work))
    assert len(found) == 4 and work.groups == 2
    assert work.decoded <= 2 * 50


@pytest.mark.parametrize("peer", [seek_per_stamp, decode_all])
def test_the_peers_of_the_benchmark_find_the_same_frames(h264, peer):
    _, times = asked(3)
    ours = {f.stamp: f.pixels for f in frames_at(h264, times)}
    for k, pixels in enumerate(peer(h264, times)):
        np.testing.assert_array_equal(pixels, ours[k])


@pytest.mark.parametrize("after", [1, 2, 3, 4, 8])
def test_damage_never_shows(folder, after):
    """What leans on a packet that the decoder finds damaged is wrong, too: none of it is given."""
    path = folder / "whole.mp4"
    if not path.exists():
        film(path, 120, group=40, options=H264["closed"])
    right = everything(path)
    with av.open(str(path)) as container:
        read = [packet for packet in container.demux(video=0) if packet.size]
        packets = [(p.pos, p.size, p.is_keyframe) for p in read]
    keys = [k for k, packet in enumerate(packets) if packet[2]]
    place, size, _ = packets[keys[1] + after]
    data = bytearray(path.read_bytes())
    data[place + 6 : place + size] = np.random.default_rng(0).bytes(size - 6)
    broken = folder / f"damaged{after}.mp4"
    broken.write_bytes(data)
    begins, ends = (round(float(read[k].pts * read[k].time_base) * FPS) for k in keys[1:3])
    for way in WAYS:
        found = {f.stamp: f.pixels for f in frames_at(broken, [n / FPS for n in range(120)], way)}
        for stamp, pixels in found.items():
            np.testing.assert_array_equal(pixels, right[stamp])
        missing = set(range(120)) - set(found)
        assert missing, "the damage was not noticed"
        assert begins <= min(missing) and max(missing) < ends, "other groups suffer"


@pytest.mark.parametrize("way", WAYS)
def test_every_frame_of_every_kind_of_group(h264, way):
    found = {f.stamp: f.pixels for f in frames_at(h264, [n / FPS for n in range(LENGTH)], way)}
    assert [number_of(found[n]) for n in range(LENGTH)] == list(range(LENGTH))


@pytest.mark.parametrize("content", [b"", b"no video at all " * 50, "half"])
def test_an_unreadable_video_is_one_clear_line(folder, tmp_path, content):
    path = tmp_path / "bad.mp4"
    if content == "half":
        whole = film(folder / "half.mp4", 100).read_bytes()
        content = whole[: len(whole) // 2]
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"bad\.mp4: cannot be read as a video \(.+\)$"):
        list(frames_at(path, [1.0]))


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(VideoError, match="no video stream"):
        list(frames_at(path, [0.0]))


@pytest.mark.parametrize("time_s", [-1.0, float("nan"), float("inf")])
def test_a_time_must_be_one(h264, time_s):
    with pytest.raises(ValueError, match="accepted are 0 and above"):
        list(frames_at(h264, [time_s]))


def test_view_has_the_published_geometry():
    frame = np.zeros((480, 640, 3), np.uint8)
    y, x = np.mgrid[0:480, 0:640]
    frame[..., 0], frame[..., 1] = x * 255 // 639, y * 255 // 479
    picture = View().pixels(frame)
    assert picture.shape == (224, 224, 3)
    # resized to 341 x 256; cut from x 58, y 0 (16 above the middle); then turned by 180 degrees
    turned = picture[::-1, ::-1].astype(int)
    left, top = turned[112, 0, 0] * 341 / 255, turned[0, 112, 1] * 256 / 255
    right, bottom = turned[112, -1, 0] * 341 / 255, turned[-1, 112, 1] * 256 / 255
    assert (abs(left - 58) < 2 and abs(right - 282) < 2) and (top < 2 and abs(bottom - 224) < 2)
    np.testing.assert_array_equal(View(turn=False).pixels(frame), picture[::-1, ::-1])
    assert View(size=64).pixels(frame).shape == (64, 64, 3)
    with pytest.raises(ValueError, match="the crop would leave the frame"):
        View(raise_by=17)


def test_extraction_side_by_side_resumes_and_gives_the_same_bytes(folder, tmp_path):
    view = View(shorter_side=64, crop=48, raise_by=4, size=32)
    jobs = [Job(f"v{k}", film(folder / f"v{k}.mp4", 60, first=100 * k), (0.2, 1.0, 1.0, 9.0))
            for k in range(3)]
    assert extract(jobs, tmp_path / "one", view, workers=1, progress=False) == {}
    extract(jobs[:1], tmp_path / "two", view, workers=1, progress=False)
    first = (tmp_path / "two" / "v0.frames.npz").stat()
    (tmp_path / "two" / "v1.frames.npz.999999999.partial").write_bytes(b"left by a killed run")
    extract(jobs, tmp_path / "two", view, way="seek", workers=2, progress=False)
    after = (tmp_path / "two" / "v0.frames.npz").stat()
    assert (first.st_mtime_ns, first.st_ino) == (after.st_mtime_ns, after.st_ino)  # not redone
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == [
        f"v{k}.frames.npz" for k in range(3)]
    for job in jobs:
        one, two = (load_pictures(tmp_path / name, job, view) for name in ("one", "two"))
        assert one.stamps.tolist() == [0, 1, 2] and one.sha256 == two.sha256
        assert [one.jpeg(k) for k in range(3)] == [two.jpeg(k) for k in range(3)]
        assert one.jpeg(1) == one.jpeg(2) != one.jpeg(0)
    assert load_pictures(tmp_path / "one", jobs[0], View()) is None  # other values, other pictures
