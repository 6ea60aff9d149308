"""Every kind of model goes through the same command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.chat_server import ChatServer, Reply, said

from benchmarks_eval.__main__ import main


def answers(body: dict[str, Any]) -> Reply:
    """Likes the option whose name comes first in the alphabet; captions are one sentence."""
    text = "\n".join(p.get("text", "") for p in body["messages"][0]["content"])
    options = re.findall(r"^([A-Z])\. (.+)$", text, re.M)
    if "top_logprobs" not in body:
        return said("look at the red thing")
    letter = min(options, key=lambda o: o[1])[0] if options else "A"
    return said(letter, {letter: -0.1})


def test_models_of_all_kinds(book: Path, llava_folder: Path, clip_folder: Path, tmp_path: Path,
                             capsys: pytest.CaptureFixture[str]) -> None:
    with ChatServer(answers) as server:
        specs = [f"open_clip:{clip_folder}", f"llava:{llava_folder}?template=plain",
                 f"noise:open_clip:{clip_folder}", f"shuffled:llava:{llava_folder}",
                 f"no-image:llava:{llava_folder}", "blind:constant", "blind:random",
                 "blind:unigram", "blind:naive-bayes", f"server:org/chat@{server.url}"]
        out = tmp_path / "out"
        code = main(["run", "--model", *specs, "--tasks", str(book / "tasks.yaml"), "--device",
                     "cpu", "--out", str(out), "--features", str(tmp_path / "features")])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    tree = json.loads((out / "results.json").read_text(encoding="utf-8"))
    kinds = {m["name"]: m["kind"] for m in tree["models"]}
    assert list(kinds.values()) == ["contrastive", "generative", "contrastive", "generative",
                                    "generative", "generative", "generative", "generative",
                                    "letters", "letters"]
    value = {(f["model"], f["task"], f["figure"]): f for f in tree["figures"]}
    for task, figure, chance in (("labels", "image", 0.25), ("phrases", "phrase", 0.5),
                                 ("wino", "group", 1 / 6), ("captions", "picture", 0.25)):
        constant = value["blind-constant", task, figure]
        assert constant["value"] == pytest.approx(chance) and constant["ties"] == constant["n"]
        for name in kinds:
            if kinds[name] == "letters" and figure == "group":
                continue  # shares of one picture's options say nothing about other pictures
            found = value[name, task, figure]
            assert 0 <= found["value"] <= 1 and found["nonfinite"] == 0
    assert 0 <= value["chat", "wino", "text"]["value"] <= 1
    # Without a picture the phrase decides, the same for every picture that has it.
    for name in ("no-image-llava", "blind-unigram"):
        assert value[name, "wino", "match"]["value"] == 0.5
    for name in ("no-image-llava", "blind-unigram", "blind-naive-bayes"):
        assert value[name, "labels", "image"]["value"] == pytest.approx(0.25)
    said_by = {line["image"]: line["caption"] for line in map(json.loads, (
        out / "chat" / "captions.jsonl").read_text("utf-8").splitlines())}
    assert set(said_by.values()) == {"look at the red thing"} and len(said_by) == 12
    assert "letters" in printed.out  # another kind of measurement, and said so


def test_restricted_pictures_are_not_sent(book: Path, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    tasks = book / "tasks.yaml"
    tasks.write_text(tasks.read_text("utf-8").replace(
        "version: 3", "version: 3\nshow_pictures: false"), encoding="utf-8")
    with ChatServer(answers) as server:
        command = ["run", "--model", f"server:m@{server.url}", "--tasks", str(tasks), "--out",
                   str(tmp_path / "out"), "--features", "none", "--only", "phrases"]
        assert main(command) == 2
        shown = capsys.readouterr().err.strip().splitlines()[-1]
        assert shown.startswith("error: --model server:m@") and "--allow-upload" in shown
        assert server.bodies == [] and not (tmp_path / "out").exists()
        assert main([*command, "--allow-upload"]) == 0
        assert len(server.bodies) == 24
