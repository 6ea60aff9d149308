"""`report`: one HTML file of a run, a sweep or two runs; what it shows and what it never does."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks_eval.commands import report as command
from benchmarks_eval.curves import Checkpoint, Sweep, make_curves
from benchmarks_eval.models import Model
from benchmarks_eval.models.protocols import Kind
from benchmarks_eval.options import Options
from benchmarks_eval.pages import Wishes, read_side, render
from benchmarks_eval.pages.charts import compact, ticks
from benchmarks_eval.pages.diff import pairs
from benchmarks_eval.pages.pictures import Pictures
from benchmarks_eval.pages.trials import cells
from benchmarks_eval.questions import Questions
from benchmarks_eval.report import write_results
from benchmarks_eval.run import evaluate
from benchmarks_eval.tasks import load_tasks


class Page(HTMLParser):
    """What a page is made of; fails on tags that do not match."""

    VOID = frozenset({"meta", "img", "input", "br", "link"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attrs for name, attrs in self.tags if name == tag)


Run = Callable[..., Path]


@pytest.fixture
def run(book: Path, fake: Callable[..., Any], tmp_path: Path) -> Run:
    """Fills a results folder: ``run(name, skill, kind=..., yaml=...)``."""
    def go(name: str, skill: str, *, kind: Kind = "generative", model: str = "m",
           yaml: Callable[[str], str] = str, limit: int | None = None) -> Path:
        path = book / f"{name}.yaml"
        path.write_text(yaml((book / "tasks.yaml").read_text()))
        out = tmp_path / name
        handle = Model(model, f"models/{model}", kind, fake(kind, skill=skill))
        questions = Questions.read(load_tasks(path), book, Options(limit=limit))
        results = evaluate([handle], questions, out)
        assert results is not None
        write_results(results, out)
        return out
    return go


def restricted(text: str) -> str:
    return text.replace("version: 3", "version: 3\nshow_pictures: false")


def page(one: Path, other: Path | None = None, **wishes: Any) -> Page:
    return Page(render(read_side(one), None if other is None else read_side(other),
                       Wishes(**wishes)))


def test_page_has_every_part_and_loads_nothing(run: Run) -> None:
    made = page(run("a", "oracle"))
    for part in ("Figures", "In parts", "Captions", "Surest trials", "Every number"):
        assert part in made.text
    assert "look at the red thing" in made.text
    loaded = [attrs.get(key) or "" for _, attrs in made.tags
              for key in ("src", "href", "xlink:href") if key in attrs]
    assert any(one.startswith("data:image/webp") for one in loaded)
    assert all(one.startswith(("data:", "#")) for one in loaded)
    assert not list(made.of("script")) and not list(made.of("link"))
    html = render(read_side(run("b", "oracle")), None, Wishes())
    assert not re.search(r"https?://|@import|url\(", html)


def test_table_shows_value_interval_floors_ties_and_nonfinite(run: Run) -> None:
    made = page(run("a", "nan"))
    results = json.loads((run("a2", "nan") / "results.json").read_text())
    labels = next(f for f in results["figures"] if (f["task"], f["figure"]) == ("labels", "image"))
    assert labels["nonfinite"] > 0
    row = made.text.split("labels picture for a word ")[1].split("phrases")[0].split()
    value = f"{labels['value']:.3f}"[1:]
    adjusted = (labels["value"] - labels["floor"]) / (1 - labels["floor"])
    assert row[0] == value
    assert row[-6:] == [".250", f"{labels['floor']:.3f}"[1:], f"{adjusted:+.2f}".replace("0.", "."),
                        "24", str(labels["ties"]), str(labels["nonfinite"])]


def test_a_figure_at_the_floor_is_not_marked_above_it(run: Run) -> None:
    above = "above the blind floor"
    assert above in page(run("a", "oracle")).text
    assert above not in page(run("b", "constant")).text


def test_pictures_of_restricted_suites_reach_no_page_unless_asked_for(run: Run, book: Path) -> None:
    out = run("a", "oracle", yaml=restricted)
    shown = page(out, pictures=True)
    assert len(list(shown.of("img"))) > 10
    shutil.rmtree(book / "images")  # what is not opened cannot be shown
    html = render(read_side(out), None, Wishes())
    assert "data:" not in html and "base64" not in html
    made = Page(html)
    assert not list(made.of("img")) and not list(made.of("image"))
    assert "images/red0.png" in made.text
    with pytest.raises(ValueError, match=r"\.png: no such picture; .*--no-pictures"):
        render(read_side(out), None, Wishes(pictures=True))


def test_one_restricted_side_hides_the_pictures_of_both(run: Run) -> None:
    one, other = run("a", "constant"), run("b", "oracle", yaml=restricted)
    assert list(page(one).of("img"))
    assert not list(page(one, other).of("img"))
    assert not list(page(other, one).of("img"))


def test_pictures_can_be_left_out_of_open_suites(run: Run) -> None:
    assert not list(page(run("a", "oracle"), pictures=False).of("img"))


def test_difference_counts_fixed_trials_and_shows_both_scores(run: Run) -> None:
    made = page(run("a", "constant"), run("b", "oracle"))
    assert "A m" in made.text and "B m" in made.text
    row = made.text.split("Holm finite")[0]
    labels = row.split("Difference From A")[1].split("labels picture for a word ")[1].split()
    assert labels[:3] == [".250", "1.000", "+.750"]
    assert "24 fixed, 0 broken" in made.text
    assert "credit 0.25 to 1" in made.text
    # Four equal scores before (each is as good as the best); now one right and three lower ones.
    assert "-1.00 preferred -0.50 preferred right answer" in made.text
    assert "-1.00 preferred -2.00 " in made.text


def test_different_trials_are_refused_or_compared_where_they_agree(run: Run) -> None:
    def questions(text: str) -> str:
        return re.sub(r".*name: captions.*\n", "", text)

    one, other = run("a", "constant", yaml=questions), run("b", "oracle", limit=6, yaml=questions)
    with pytest.raises(ValueError, match="--common compares those"):
        page(one, other)
    assert "6 trials that all runs share, of 24 and 6" in page(one, other, common=True).text


def test_models_are_paired_by_name_or_kind(run: Run) -> None:
    one, other = run("a", "oracle", model="x"), run("b", "oracle", model="y", kind="contrastive")
    assert [(a.judged.model, b.judged.model) for a, b in
            pairs(read_side(one), read_side(other))] == [("x", "y")]


def test_letters_are_marked_as_another_measurement(run: Run) -> None:
    out = run("a", "oracle")
    tree = json.loads((out / "results.json").read_text())
    tree["models"][0]["kind"] = "letters"
    (out / "results.json").write_text(json.dumps(tree))
    assert "letters: another measurement" in page(out).text
    assert "letters" not in page(run("b", "oracle")).text


def test_published_figures_stand_beside_the_run_with_their_certainty(run: Run) -> None:
    def official(text: str) -> str:
        return text.replace("name: colours", "name: babyvlm").replace("name: phrases", "name: vtwt")

    out = run("a", "oracle", yaml=official)
    assert "Published" not in page(out).text
    text = page(out, published=True).text
    part = text.split("Published figures")[1].split("In parts")[0]
    assert "vtwt" in part and "labels" not in part
    assert "CLIP-large .863 web secondary" in part
    assert "CVCL .6308 SAYCam read arXiv 2606.05115" in part
    other = page(run("b", "oracle"), published=True).text
    assert "No published figures are known for the tasks of colours" in other


def test_confusion_matrix_says_what_was_taken_for_what(run: Run) -> None:
    def words(text: str) -> str:
        return text.replace("file: labeled.csv", "file: labeled.csv, directions: [text], "
                            "candidates: all")

    made = page(run("a", "text", yaml=words))  # likes short words: all is red
    titles = [attrs.get("title") or "" for attrs in made.of("td")]
    assert {"red for green: 100 % of 1", "green for green: 0 % of 1"} <= set(titles)
    assert "red for green: 100% of 1" in made.text
    assert "Confusions of 6 labels" in made.text


@pytest.fixture
def swept(run: Run, tmp_path: Path) -> Path:
    """A sweep of three checkpoints of one kind, in the folder that ``sweep`` would fill."""
    root = tmp_path / "swept"
    places, figures = [], []
    for step, skill in ((100, "constant"), (200, "text"), (300, "oracle")):
        folder = root / f"step-{step:07d}"
        shutil.copytree(run(f"s{step}", skill), folder)
        places.append(Checkpoint(step, "joint", "generative", 20 * step, 3 * step, folder.name))
        figures.append(json.loads((folder / "results.json").read_text())["figures"])
    made = Sweep(root, "runs/x", {"name": "colours"}, {}, tuple(places),
                 make_curves(places, figures))
    (root / "sweep.json").write_text(json.dumps(made.to_json()))
    return root


def test_curves_are_drawn_over_all_three_axes(swept: Path) -> None:
    made = page(swept)
    assert "Learning curves" in made.text
    assert "onset at step 300 (not yet at 200, only the last), 6,000 words, 900 pairs" in made.text
    drawn = [attrs for attrs in made.of("svg")
             if (attrs["aria-label"] or "").startswith("labels, picture for a word")]
    assert [attrs["class"] for attrs in drawn] == ["step", "words_seen", "pairs_seen"]
    assert ".250 at 100, 1.00 at 300" in (drawn[0]["aria-label"] or "")
    assert "above it for good from 6,000 on" in (drawn[1]["aria-label"] or "")
    assert "generative, step 300" in made.text  # the figures below are the last checkpoint's


def test_two_sweeps_stand_side_by_side(swept: Path) -> None:
    other = swept.parent / "again"
    shutil.copytree(swept, other)
    made = page(swept, other)
    drawn = [a for a in made.of("svg") if (a["aria-label"] or "").startswith("labels, picture")]
    assert len(drawn) == 6
    ids = [attrs["id"] for _, attrs in made.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_page_is_sane_for_keyboards_and_screen_readers(run: Run, swept: Path) -> None:
    made = page(swept, run("b", "oracle"), published=True)
    assert next(made.of("html"))["lang"] == "en"
    ids = [attrs["id"] for _, attrs in made.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [str(attrs["href"]) for attrs in made.of("a")]
    assert links and all(link.removeprefix("#") in ids for link in links)
    assert all("alt" in attrs for attrs in made.of("img"))
    assert all(attrs.get("role") == "img" and attrs.get("aria-label") for attrs in made.of("svg"))
    boxes = [attrs for attrs in made.of("div") if "scroll" in (attrs.get("class") or "").split()]
    assert boxes and all(attrs.get("tabindex") == "0" and attrs.get("aria-label")
                         for attrs in boxes)
    levels = [int(tag[1]) for tag, _ in made.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1


def test_names_from_data_are_escaped(run: Run) -> None:
    html = render(read_side(run("a", "oracle", model="<b>x</b>")), None, Wishes())
    assert "<b>x</b>" not in html and "&lt;b&gt;x&lt;/b&gt;" in html


def test_broken_scores_are_shown_as_such_and_chosen_by_nobody() -> None:
    made = cells(["a", "b"], ["word"], 0, [[[None], [-1.0]]], Pictures(Path(), shown=False))
    shown = [col["cells"][0]["scores"][0] for col in made["columns"]]
    assert shown == [{"value": "not finite", "chosen": False}, {"value": "-1.00", "chosen": False}]


def test_squares_mark_the_diagonal_and_each_pictures_choice() -> None:
    made = cells(["a", "b"], ["p", "q"], 0, [[[2.0, 1.0], [4.0, 3.0]]], Pictures(Path(), False))
    marks = [[(c["right"], c["scores"][0]["chosen"]) for c in col["cells"]]
             for col in made["columns"]]
    assert marks == [[(True, True), (False, False)], [(False, True), (True, False)]]


def test_ticks_and_numbers_of_axes() -> None:
    assert ticks(0, 2000, 4) == [0, 500, 1000, 1500, 2000]
    assert ticks(-0.3, 0.7, 4) == [-0.25, 0.0, 0.25, 0.5]
    assert [compact(v) for v in (0, 750, 25_000, 1_500_000)] == ["0", "750", "25k", "1.5M"]


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    return parser.parse_args(["report", *words])


def test_command_writes_the_page_and_loads_no_torch(run: Run) -> None:
    out = run("a", "oracle")
    code = ("import argparse, sys; from benchmarks_eval.commands import report; "
            "p = argparse.ArgumentParser(); report.add(p.add_subparsers()); "
            f"report.run(p.parse_args(['report', {str(out)!r}])); "
            "sys.exit('torch' in sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert "Surest trials" in (out / "report.html").read_text()


def test_same_results_give_the_same_bytes(run: Run, tmp_path: Path) -> None:
    out = run("a", "oracle")
    made = []
    for name in ("x.html", "y.html"):
        command.run(parse(str(out), "--out", str(tmp_path / name)))
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]


def test_words_and_ages_of_the_user_give_breakdowns(run: Run, tmp_path: Path) -> None:
    out, made = run("a", "oracle"), tmp_path / "page.html"
    (tmp_path / "words.txt").write_text("red\nblue\ngreen\nthing\n")
    (tmp_path / "norms.csv").write_text("word,aoa\nred,20\nblue,22\ngreen,24\nyellow,30\n")
    command.run(parse(str(out), "--out", str(made), "--vocabulary", str(tmp_path / "words.txt"),
                      "--norms", str(tmp_path / "norms.csv")))
    text = Page(made.read_text()).text
    before = page(out).text
    for part in ("By vocabulary", "age of acquisition"):
        assert part in text and part not in before


def test_missing_results_are_one_clear_error_and_no_page(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        command.run(parse(str(tmp_path / "none")))
    with pytest.raises(ValueError, match=r"no trials\.jsonl here"):
        command.run(parse(str(tmp_path)))
    assert not list(tmp_path.glob("*.html"))
