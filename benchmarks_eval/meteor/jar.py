"""METEOR 1.5 (Denkowski and Lavie 2014) by its authors' Java program, which the user supplies.

The jar and its paraphrase table are LGPL and 68 MB, so they are not part of this project. The
wheel of the Python package ``pycocoevalcap`` holds both: take ``pycocoevalcap/meteor/``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PARAPHRASES = Path("data/paraphrase-en.gz")
_SEGMENT = re.compile(r"^Segment \d+ score:\s+(\S+)$", re.MULTILINE)
_FINAL = re.compile(r"^Final score:\s+(\S+)$", re.MULTILINE)


class Meteor15:
    """Runs ``java -jar meteor-1.5.jar`` with its own tokeniser (``-l en -norm``, rank task).

    Raises:
        ValueError: no such jar, its paraphrase table is not beside it, or there is no Java.
    """

    def __init__(self, jar: str | Path) -> None:
        self.jar = Path(jar).resolve()
        if not self.jar.is_file():
            raise ValueError(f"{jar}: no such file; METEOR 1.5 needs the path of meteor-1.5.jar")
        if not (self.jar.parent / PARAPHRASES).is_file():
            raise ValueError(f"{jar}: the paraphrase table {PARAPHRASES} is not beside it, and "
                             f"without it the scores are no METEOR 1.5")
        java = shutil.which("java")
        if java is None:
            raise ValueError("METEOR 1.5 needs Java: no program 'java' on the path (Debian: "
                             "apt-get install default-jre-headless)")
        self._java = java

    def score(self, references: Sequence[Sequence[str]],
              hypotheses: Sequence[str]) -> tuple[NDArray[np.float64], float]:
        """Scores of all texts [N] and that of the corpus (from summed counts: not their mean).

        Args:
            references: one or more texts for each hypothesis.
            hypotheses: generated texts.

        Raises:
            ValueError: the program fails; its last words are given.
        """
        assert len(references) == len(hypotheses) > 0
        # The program wants the same number of references everywhere: the best one counts, so
        # saying the first again changes nothing.
        width = max(len(texts) for texts in references)
        padded = [_line(text) for texts in references
                  for text in [*texts, *[texts[0]] * (width - len(texts))]]
        with tempfile.TemporaryDirectory() as name:
            said, wanted = Path(name) / "hypotheses", Path(name) / "references"
            said.write_text("".join(map(_line, hypotheses)), encoding="utf-8")
            wanted.write_text("".join(padded), encoding="utf-8")
            # A comma as decimal sign, as in many countries, would spoil the program's output.
            command = [self._java, "-Xmx2G", "-Duser.language=en", "-Dfile.encoding=UTF-8", "-jar",
                       str(self.jar), str(said), str(wanted), "-l", "en", "-norm",
                       "-r", str(width)]
            done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8",
                                  errors="replace", stdin=subprocess.DEVNULL)
        scores = np.array([float(score) for score in _SEGMENT.findall(done.stdout)])
        final = _FINAL.search(done.stdout)
        if done.returncode or final is None or len(scores) != len(hypotheses):
            said_last = " ".join((done.stderr or done.stdout).split())[-300:]
            raise ValueError(f"{self.jar}: METEOR 1.5 failed with exit code {done.returncode}: "
                             f"{said_last or 'no output'}")
        return scores, float(final[1])


def _line(text: str) -> str:
    return " ".join(text.split()) + "\n"
