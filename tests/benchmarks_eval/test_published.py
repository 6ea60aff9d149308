"""The file of published figures: whole, sourced, and found by suite, task and figure."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks_eval.published import FILE, load_published, published_figures
from benchmarks_eval.tasks import load_tasks


def test_every_benchmark_of_the_file_is_a_task_of_ours() -> None:
    suites = {suite.name: suite for suite in map(load_tasks, Path("configs/tasks").glob("*.yaml"))}
    for benchmark in load_published().tasks.values():
        task = next(t for t in suites[benchmark.suite].tasks if t.name == benchmark.task)
        assert task.kind in ("labeled", "two_word", "winoground", "caption")


def test_a_figure_finds_its_published_ones() -> None:
    found = published_figures("babyvlm", "vtwt", "phrase")
    assert {(f.model, f.training): f.value for f in found if f.kind == "contrastive"} == {
        ("CLIP-large", "web"): 0.863,
        ("CVCL", "filtered SAYCam"): 0.649,
        ("CVCL", "filtered SAYCam + transferred"): 0.702,
        ("CVCL", "filtered SAYCam + random"): 0.684,
        ("CVCL", "SAYCam"): 0.6308,
    }
    assert {f.certainty for f in found} == {"secondary", "read"}
    assert all("arXiv" in f.source and f.read_in and f.scorer for f in found)
    winoground = published_figures("babyvlm", "baby_winoground", "group")
    assert next(f.value for f in winoground if f.model == "LLaVA-v1.5-7B") == 0.427
    meteor = published_figures("babyvlm", "saycam_caption", "meteor_nltk310")
    assert [f.value for f in meteor] == [0.166, 0.138, 0.129]


def test_other_measures_have_none() -> None:
    for asked in (("picturebook", "vtwt", "phrase"), ("babyvlm", "vtwt", "text"),
                  ("babyvlm", "saycam_caption", "meteor_15"), ("babyvlm", "labeled_s", "text")):
        assert published_figures(*asked) == []


def test_nothing_is_below_its_floor_by_a_typing_error() -> None:
    published = load_published()
    for entry in published.figures:
        for name, value in entry.values.items():
            assert round(value, entry.digits) == value
            # Baby Winoground's group score falls below 1/6 for models with biases.
            if name != "baby_winoground":
                assert value >= published.tasks[name].chance


@pytest.mark.parametrize(("change", "message"), [
    ({"source": "nobody"}, "figures of 'CVCL' (x): unknown source 'nobody'; accepted: babycl"),
    ({"scorer": "none"}, "unknown scorer 'none'"),
    ({"values": {"vtw": 0.5}}, "unknown task 'vtw'"),
    ({"values": {"vtwt": 64.9}}, "vtwt is 64.9, not 0 to 1"),
    ({"certainty": "sure"}, "certainty"),
    ({"value": 3}, "Extra inputs"),
])
def test_malformed_files_are_named(tmp_path: Path, change: dict, message: str) -> None:
    tree = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    tree["figures"] = [{"model": "CVCL", "training": "x", "kind": "contrastive",
                        "source": "babyvlm", "certainty": "read", "scorer": "cosine",
                        "values": {"vtwt": 0.6}} | change]
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        load_published(file)
    assert str(caught.value).startswith(f"{file}: ") and message in str(caught.value)
    file.write_text("a: [", encoding="utf-8")
    with pytest.raises(ValueError, match="not YAML"):
        load_published(file)
