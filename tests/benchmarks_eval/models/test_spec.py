"""What --model accepts: parsed without a heavy import, refused in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks_eval.models import display_names, load_models, output_folder
from benchmarks_eval.models.spec import parse, parse_all


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/a/generative/model", "runs/a/contrastive/model", "runs/b/generative/model",
                   "llava", "clip"):
        Path(folder).mkdir(parents=True)
    Path("w.pt").write_bytes(b"")
    return tmp_path


def test_forms(here: Path) -> None:
    assert parse("runs/a/generative/model").scheme == "folder"
    clip = parse("open_clip:ViT-B-32:w.pt")
    assert (clip.scheme, clip.target, clip.file) == ("open_clip", "ViT-B-32", "w.pt")
    assert parse("open_clip:clip").file is None
    llava = parse("llava:llava?template=plain&prompt=what+is+it+%3F")
    assert llava.target == "llava"
    assert llava.options == {"template": "plain", "prompt": "what is it ?"}
    server = parse("server:org/chat@http://127.0.0.1:8000/v1/?logprobs=no")
    assert (server.target, server.file) == ("org/chat", "http://127.0.0.1:8000/v1")
    assert (parse("blind:random:7").target, parse("blind:random:7").file) == ("random", "7")
    wrapped = parse("noise:llava:llava?dtype=bfloat16")
    assert wrapped.inner is not None and wrapped.inner.options == {"dtype": "bfloat16"}


@pytest.mark.parametrize(("spec", "words"), [
    ("openclip:ViT-B-32:w.pt", "did you mean 'open_clip'"),
    ("blind:unigramm", "did you mean 'unigram'"),
    ("blind:constant:3", "accepted: blind:constant"),
    ("blind:random:x", "accepted: blind:constant"),
    ("blind:", "nothing after 'blind:'"),
    ("open_clip:ViT-B-32:none.pt", "none.pt: no such file of weights"),
    ("open_clip:none", "none: no such folder"),
    ("llava:none", "none: no such folder"),
    ("llava:llava?tempalte=plain", "did you mean 'template'"),
    ("llava:llava?template", "?name=value"),
    ("llava:llava?prompt=a&prompt=b", "given twice"),
    ("blind:random?seed=1", "takes no options"),
    ("server:chat", "server:MODEL@http://HOST/v1"),
    ("server:chat@ftp://x", "server:MODEL@http://HOST/v1"),
    ("noise:blind:random", "goes around a folder"),
    ("noise:noise:runs/a/generative/model", "goes around a folder"),
])
def test_what_is_wrong_is_named(here: Path, spec: str, words: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse(spec)
    text = str(raised.value)
    assert text.startswith(f"--model {spec}") and words in text and "\n" not in text


def test_twice_is_refused(here: Path) -> None:
    with pytest.raises(ValueError, match="--model blind:random is given twice"):
        parse_all(["blind:random", "blind:random"])


def test_names_are_short_and_distinct(here: Path) -> None:
    assert display_names(["runs/a/contrastive/model", "runs/a/generative/model"]) == [
        "contrastive", "generative"]
    assert display_names(["runs/a/generative/model", "runs/b/generative/model"]) == [
        "a/generative", "b/generative"]
    assert display_names(["runs/a/generative/model", "noise:runs/a/generative/model",
                          "blind:random", "blind:random:3", "open_clip:ViT-B-32:w.pt",
                          "llava:llava", "server:org/chat@http://h/v1"]) == [
        "generative", "noise-generative", "blind-random", "blind-random-3", "ViT-B-32", "llava",
        "chat"]
    both = display_names(["llava:llava", "llava:llava?dtype=bfloat16"])
    assert len(set(both)) == 2


def test_where_results_go(here: Path) -> None:
    run = here / "runs" / "a"
    model = str(run / "generative" / "model")
    assert output_folder(model, "s") == run / "eval" / "s"
    assert output_folder(f"shuffled:{model}", "s") == run / "eval" / "s"
    assert output_folder("open_clip:ViT-B-32:w.pt", "s") == Path("runs/ViT-B-32/eval/s")
    assert output_folder("blind:unigram", "s") == Path("runs/blind-unigram/eval/s")


def test_two_models_never_share_a_folder(here: Path) -> None:
    for name in ("x y", "x-y"):
        Path(name).mkdir()
    with pytest.raises(ValueError, match="x y and x-y would write into one folder, 'x-y'"):
        load_models(["x y", "x-y"], "cpu")


def test_blind_models_load_without_torch() -> None:
    program = ("import sys\n"
               "from benchmarks_eval.models import load_models\n"
               "models = load_models(['blind:constant', 'blind:random', 'blind:unigram',"
               " 'blind:naive-bayes'], 'cpu')\n"
               "print([m.name for m in models])\n"
               "print('torch' in sys.modules, 'transformers' in sys.modules,"
               " 'open_clip' in sys.modules, 'openai' in sys.modules)\n")
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                         cwd=Path(__file__).parents[3], check=True)
    assert run.stdout.splitlines() == [
        "['blind-constant', 'blind-random', 'blind-unigram', 'blind-naive-bayes']",
        "False False False False"]


def test_a_missing_package_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    monkeypatch.delitem(sys.modules, "benchmarks_eval.models.open_clip", raising=False)
    with pytest.raises(ValueError, match="the package 'open_clip' is not installed"):
        load_models(["open_clip:ViT-B-32:w.pt"], "cpu")
