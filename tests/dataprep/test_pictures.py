"""Drawing, measuring colours, and finding near-identical pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataprep.picturebook.colours import COLOURS, colour_names, dominant_colour, turn_hue
from dataprep.picturebook.drawings import Drawing, Rendered
from dataprep.picturebook.evaluation import recoloured
from dataprep.picturebook.leaks import cannot_be_held_out, find_twins, leaks
from dataprep.picturebook.render import draw, render

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="60pt" height="60pt" viewBox="0 0 60 60">'
    '<rect x="10" y="20" width="32" height="16" fill="{}"/></svg>'
)


def drawing(key: str, files: tuple[str, ...] = (), group: str = "g", vendor: str = "v") -> Drawing:
    return Drawing(key, vendor, key, group, group, files)


@pytest.mark.parametrize("kind", ["svg", "transparent", "opaque"])
def test_drawings_fill_the_square(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("a.svg" if kind == "svg" else "a.png")
    if kind == "svg":
        path.write_text(SVG.format("#ff0000"))
    else:
        canvas = np.zeros((60, 60, 4), np.uint8)
        if kind == "opaque":
            canvas[:] = 255
        canvas[20:36, 10:42] = (255, 0, 0, 255)
        Image.fromarray(canvas).save(path)
    picture, alpha = draw(path, 64)
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8 and alpha.shape == (64, 64)
    red = np.abs(picture.astype(int) - (255, 0, 0)).max(-1) < 40
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    # twice as wide as high, nearly the whole width, centred; white around
    assert abs(len(columns) - 58) <= 2 and abs(len(rows) - 29) <= 2
    assert abs(rows.mean() - 31.5) <= 1 and abs(columns.mean() - 31.5) <= 1
    assert (picture[:15] == 255).all()


def test_colours_do_not_bleed_into_transparent_edges(tmp_path: Path) -> None:
    # red under full transparency, as some editors leave it, around an opaque blue disc
    y, x = np.mgrid[:50, :50]
    inside = (y - 25) ** 2 + (x - 25) ** 2 < 400
    canvas = np.zeros((50, 50, 4), np.uint8)
    canvas[..., 0] = 255
    canvas[inside] = (0, 0, 255, 255)
    Image.fromarray(canvas).save(tmp_path / "a.png")
    picture, _ = draw(tmp_path / "a.png", 64)
    assert (picture[..., 0].astype(int) - picture[..., 1]).max() <= 2


def test_a_broken_file_falls_back_on_its_twin_and_is_reported(tmp_path: Path) -> None:
    bad, good, white = tmp_path / "a.svg", tmp_path / "a.png", tmp_path / "w.svg"
    bad.write_text("<svg")
    Image.new("RGB", (20, 20), "green").save(good)
    white.write_text(SVG.format("#ffffff"))
    rendered, problems = render((drawing("k", (str(bad), str(good))), 32))
    assert rendered is not None and rendered.file == str(good) and rendered.colour == "green"
    assert len(problems) == 1 and str(bad) in problems[0] and "\n" not in problems[0]
    rendered, problems = render((drawing("k", (str(white),)), 32))
    assert rendered is None and problems == [f"{white}: white on white"]


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((221, 46, 68), "red"), ((244, 144, 12), "orange"), ((255, 232, 51), "yellow"),
        ((119, 178, 85), "green"), ((85, 172, 238), "blue"), ((146, 102, 204), "purple"),
        ((244, 171, 186), "pink"), ((193, 105, 79), "brown"), ((41, 47, 51), "black"),
        ((245, 248, 250), "white"), ((153, 170, 181), "grey"),
    ],
)
def test_colour_words_of_the_vendors_palettes(rgb: tuple[int, int, int], name: str) -> None:
    assert COLOURS[int(colour_names(np.array(rgb, np.uint8)))] == name


def test_dominant_colour_ignores_outlines_and_background() -> None:
    rgb = np.full((10, 10, 3), 255, np.uint8)
    alpha = np.zeros((10, 10), np.uint8)
    alpha[2:8, 2:8] = 255
    rgb[2:8, 2:8] = 0
    rgb[3:7, 3:8] = (220, 40, 60)
    assert dominant_colour(rgb, alpha) is None, "too much black for an outline"
    rgb[2:8, 3:8] = (220, 40, 60)
    assert dominant_colour(rgb, alpha) == "red"
    rgb[2:5, 2:8] = (85, 172, 238)
    assert dominant_colour(rgb, alpha) is None, "half red, half blue has no colour word"
    assert dominant_colour(rgb, np.zeros_like(alpha)) is None


def test_turning_the_hue() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (50, 3), dtype=np.uint8)
    assert np.abs(turn_hue(rgb, 360).astype(int) - rgb).max() <= 1
    assert (turn_hue(np.array([255, 0, 0], np.uint8), 120) == (0, 255, 0)).all()
    turned = turn_hue(rgb, 77)
    assert (turned.max(-1) == rgb.max(-1)).all(), "value stays"
    assert np.abs(turned.min(-1).astype(int) - rgb.min(-1)).max() <= 1, "saturation stays"


def test_recoloured_pictures_have_the_colour_they_are_called() -> None:
    picture = np.full((16, 16, 3), (221, 46, 68), np.uint8)
    alpha = np.full((16, 16), 255, np.uint8)
    red = Rendered(drawing("a"), picture, alpha, "red", "")
    versions = recoloured(red, ["red", "green", "blue"])
    assert set(versions) == {"green", "blue"}
    assert all(dominant_colour(p, alpha) == c for c, p in versions.items())
    grey = np.full((16, 16, 3), 128, np.uint8)
    assert recoloured(Rendered(drawing("a"), grey, alpha, "grey", ""), ["red", "blue"]) == {}


def test_twins_and_leaks() -> None:
    rng = np.random.default_rng(0)
    alpha = np.zeros((64, 64), np.uint8)

    def rendered(key: str, picture: np.ndarray, group: str = "g", vendor: str = "v") -> Rendered:
        return Rendered(drawing(key, (), group, vendor), picture, alpha, None, "")

    def noisy(picture: np.ndarray, sd: float) -> np.ndarray:
        blocks = rng.normal(0, sd, (32, 32, 3)).repeat(2, 0).repeat(2, 1)
        return np.clip(picture + blocks, 0, 255).astype(np.uint8)

    base = rng.integers(60, 190, (32, 32, 3)).repeat(2, 0).repeat(2, 1).astype(np.uint8)
    book = [
        rendered("a", base, "dog"),
        rendered("b", noisy(base, 10), "cat", "w"),  # nearly the same, elsewhere
        rendered("c", noisy(base, 26), "dog"),  # edited by the same hand
        rendered("d", rng.integers(0, 256, (64, 64, 3)).astype(np.uint8), "dog"),
        rendered("e", base.copy(), "dog"),  # the same bytes
    ]
    twins = find_twins(book)
    found = {(t.first, t.second): t for t in twins}
    assert {(0, 1), (0, 2), (0, 4), (1, 4), (2, 4)} == set(found)
    assert found[0, 4].same_bytes and not found[0, 1].same_bytes
    assert 0.75 < found[0, 2].correlation < 0.9 < found[0, 1].correlation
    keys, groups = cannot_be_held_out(book, twins)
    assert keys == {"a", "b", "c", "e"} and groups == {"dog", "cat"}
    split_of = {"a": "train", "b": "test-view", "c": "train", "d": "test-view", "e": "train"}
    assert [(drop, keep) for drop, keep, _ in leaks(book, twins, split_of)] == [
        ("a", "b"), ("e", "b"),
    ]
