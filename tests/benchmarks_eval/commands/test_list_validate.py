"""`list` and `validate` on the command line: what they print, exit codes, and that torch stays out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers

from benchmarks_eval.commands import list as listing
from benchmarks_eval.commands import validate

REPO = Path(__file__).parents[3]


def _args(*argv: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (listing, validate):
        command.add(commands)
    return parser.parse_args([str(one) for one in argv])


def test_list_says_what_is_there(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (book / "images" / "red0.png").unlink()
    (book / "caption.csv").unlink()
    with (book / "two_word.csv").open("a") as file:
        file.write("x\n")
    assert listing.run(_args("list", book / "tasks.yaml")) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].endswith("colours v3  Plain colours.")
    assert lines[1].split(maxsplit=2) == ["labels", "labeled", "24 questions, 11 of 12 pictures "
                                                               "there"]
    assert "bad data:" in lines[2] and "line 14: 1 fields" in lines[2]
    assert lines[3].endswith("6 questions, 5 of 6 pictures there")
    assert f"no data at {book / 'caption.csv'}" in lines[4]


def test_list_reads_all_files_of_a_folder(capsys: pytest.CaptureFixture[str],
                                          tmp_path: Path) -> None:
    assert listing.run(_args("list", REPO / "configs" / "tasks", "--root", tmp_path)) == 0
    printed = capsys.readouterr().out
    for name in ("babyvlm v2", "picturebook v1", "labeled_s_words", "winoground", "viz_vocab",
                 "blimp_supplement", "swap_obj"):
        assert name in printed
    with pytest.raises(ValueError, match=r"no task files \(\*\.yaml\) here"):
        listing.run(_args("list", tmp_path))
    with pytest.raises(ValueError, match="no such task file"):
        listing.run(_args("list", tmp_path / "x.yaml"))


def test_validate_passes_a_sound_suite(book: Path, tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0, "red": 1}, unk_token="?"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.save(str(tmp_path / "tokenizer.json"))
    out = tmp_path / "found.json"
    assert validate.run(_args("validate", "--tasks", book / "tasks.yaml", "--model", tmp_path,
                              "--json", out)) == 0
    printed = capsys.readouterr().out
    assert "labels  labeled  24 questions" in printed and "of them distinct; 0 errors" in printed
    assert "12 of 12 questions hold an unknown word (6 words: thing 12" in printed
    tree = json.loads(out.read_text())
    assert tree["suite"] == "colours" and tree["pairs"] > tree["distinct_pairs"]
    assert [task["task"] for task in tree["tasks"]] == ["labels", "phrases", "wino", "captions"]
    assert tree["tasks"][1]["out_of_vocabulary"][str(tmp_path)]["words"]["thing"] == 12


def test_validate_fails_by_its_exit_code(book: Path, tmp_path: Path,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    for path in (book / "images").iterdir():
        path.write_text("no picture")
    tasks = book / "tasks.yaml"
    assert validate.run(_args("validate", "--tasks", tasks, "--only", "labels")) == 1
    printed = capsys.readouterr().out
    assert "... and 7 more errors" in printed and "12 errors" in printed
    assert validate.run(_args("validate", "--tasks", tasks, "--no-decode")) == 0
    for wrong, said in ((("--only", "label"), "did you mean 'labels'"), (("--seed", "-1"), "0 or"),
                        (("--model", tmp_path / "x"), "no tokeniser"),
                        (("--extract",), "no task of this suite reads a parquet file")):
        with pytest.raises(ValueError, match=said):
            validate.run(_args("validate", "--tasks", tasks, *wrong))


def test_validate_takes_pictures_out_of_a_parquet(tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    def png(colour: int) -> dict[str, object]:
        out = io.BytesIO()
        Image.new("RGB", (4, 4), (colour, 0, 0)).save(out, "PNG")
        return {"bytes": out.getvalue(), "path": None}

    pq.write_table(pa.table({"id": [3], "caption_0": ["a b"], "caption_1": ["b a"],
                             "image_0": [png(1)], "image_1": [png(2)]}), tmp_path / "w.parquet")
    (tmp_path / "w.yaml").write_text(
        f"name: w\nversion: 1\nroot: {tmp_path}\ntasks: [{{name: w, kind: winoground, "
        f"format: winoground, file: w.parquet, image_root: pics}}]\n")
    command = ("validate", "--tasks", tmp_path / "w.yaml")
    assert validate.run(_args(*command)) == 1
    assert "2 of 2 pictures do not exist" in capsys.readouterr().out
    assert validate.run(_args(*command, "--extract")) == 0
    assert "2 pictures, 2 taken out now" in capsys.readouterr().out
    assert validate.run(_args(*command)) == 0


def test_no_model_library_is_loaded(book: Path) -> None:
    code = f"""
import argparse, sys
from benchmarks_eval.commands import list as listing, validate
parser = argparse.ArgumentParser()
commands = parser.add_subparsers(dest="command")
for command in (listing, validate):
    command.add(commands)
assert not {{"torch", "PIL", "pyarrow", "tokenizers"}} & sys.modules.keys(), "at declaration"
tasks = {str(book / "tasks.yaml")!r}
assert listing.run(parser.parse_args(["list", tasks])) == 0
assert validate.run(parser.parse_args(["validate", "--tasks", tasks])) == 0
assert not {{"torch", "transformers", "open_clip"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPO, capture_output=True)
