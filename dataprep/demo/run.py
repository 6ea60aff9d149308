"""Running the stages one after the other; run again, it goes on where it was.

``logs/NAME.txt`` holds what a stage printed and is written when the stage is done: a stage with a
log is not run again. Neither is one whose output is whole (a kill may come in between). A stage
that was killed is run again: its command goes on where it was.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from dataprep.demo.choice import FULL, SMALL
from dataprep.demo.page import write_page
from dataprep.demo.stages import Stage, stages
from dataprep.demo.training import train
from dataprep.demo.two_words import check_phrases
from dataprep.files import write_whole

__all__ = ["run_demo"]

MARK = "demo.json"
"""Says what was asked for; written first."""
HALF_SAVED = ("tiny-sd3",)
"""Stages whose output is a folder that is removed before they are run again."""


class _Tee(io.TextIOBase):
    """Writes to the terminal and keeps a copy."""

    def __init__(self, terminal: TextIO) -> None:
        self.terminal, self.copy = terminal, io.StringIO()

    def write(self, text: str) -> int:
        self.terminal.write(text)
        return self.copy.write(text)

    def flush(self) -> None:
        self.terminal.flush()


def run_demo(
    out: Path,
    *,
    small: bool = False,
    seed: int = 0,
    training: bool = False,
    run_dir: Path | None = None,
    force: bool = False,
) -> None:
    """Run everything and write ``index.html``.

    Args:
        out: folder for all of it.
        small: few pictures, for tests.
        seed: everything drawn by lot depends on it.
        training: train ``configs/quickstart.yaml`` for some steps on the mixed corpus, too.
        run_dir: where that run goes (by default ``runs/`` and the name of `out`).
        force: remove what is in `out` first.

    Raises:
        ValueError: the folder holds something else or another demonstration; a stage failed; the
            built two-word set gives itself away without pictures.
    """
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # no hints of other packages to install
    scale = SMALL if small else FULL
    _claim(out, {"demo": 1, "seed": seed, "scale": asdict(scale)}, force)
    todo = stages(out, scale, seed)
    began = time.monotonic()
    ran = 0
    for number, stage in enumerate(todo, 1):
        log = out / "logs" / f"{stage.name}.txt"
        head = f"[{number}/{len(todo)}] {stage.name}"
        if log.is_file() or (stage.whole and all(path.exists() for path in stage.whole)):
            print(f"{head}: there already")
            continue
        ran += 1
        print(f"\n{head}: {stage.title}\n$ {stage.line}", flush=True)
        seconds, printed = _run(stage)
        write_whole(log, printed)
        print(f"{head}: {seconds:.1f} s", flush=True)
    phrases = check_phrases(out / "two-word", seed)
    print("\n" + "\n".join(phrases.lines()))
    if training:
        train(out / "mixed", run_dir or Path("runs") / out.name)
    page = write_page(out, todo, phrases, run_dir or Path("runs") / out.name)
    spent = time.monotonic() - began
    print(f"\n{page}: open it in a browser ({ran} of {len(todo)} stages run in {spent:.0f} s)")
    if not phrases.at_chance:
        raise ValueError(f"{out / 'two-word'}: phrases alone beat chance; not a set to use")


def _claim(out: Path, asked: dict[str, Any], force: bool) -> None:
    """Take the folder, or see that it holds this very demonstration."""
    mark = out / MARK
    if force and mark.is_file():
        shutil.rmtree(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is no folder")
    if not mark.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise ValueError(f"{out}: holds something else (no {MARK}); accepted is a new folder")
        write_whole(mark, json.dumps(asked, indent=1) + "\n")
        return
    try:
        found = json.loads(mark.read_text("utf-8"))
    except ValueError:
        raise ValueError(f"{mark}: not JSON; remove {out} and run again") from None
    if found != asked:
        raise ValueError(
            f"{out}: was begun with other options ({mark}); --force begins anew, --out takes "
            "another folder"
        )


def _run(stage: Stage) -> tuple[float, str]:
    """Run a stage; how long it took and what it printed.

    Raises:
        ValueError: its command failed (and said why).
    """
    from dataprep.__main__ import main

    tee = _Tee(sys.stdout)
    began = time.monotonic()
    with redirect_stdout(tee):
        if stage.call is not None:
            for path in stage.whole:
                if stage.name in HALF_SAVED:
                    shutil.rmtree(path.parent, ignore_errors=True)
            stage.call()
        elif (code := main(stage.words)) != 0:
            if code == 130:
                raise KeyboardInterrupt
            raise ValueError(f"stage {stage.name} failed; run the same again once it is mended")
    return time.monotonic() - began, tee.copy.getvalue()
