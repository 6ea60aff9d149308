"""Builds benchmarks_eval/formats/word_classes.txt.gz from WordNet 3.0's database files.

The folder is that of Debian's ``wordnet-base`` (/usr/share/wordnet, or the package unpacked with
``dpkg -x``): index.{noun,verb,adj,adv}, the exception lists *.exc and cntlist, the counts of senses
in the semantically tagged texts. Equal input gives equal bytes.

    python scripts/build_word_classes.py /usr/share/wordnet
"""

from __future__ import annotations

import argparse
import gzip
import io
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

TARGET = Path(__file__).parents[1] / "benchmarks_eval" / "formats" / "word_classes.txt.gz"
FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
FORMS = {"n": 2, "v": 4, "a": 3, "r": 1}  # an irregular form gets its share of the word's count
# The digit after % in a sense key: noun, verb, adjective, adverb, adjective satellite.
SENSE = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
NOTICE = """\
# Single words of WordNet 3.0 with the classes that they can have (n noun, v verb, a adjective,
# r adverb) and how often each was counted in the sense-tagged texts; irregular forms included.
# WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. Its licence, which
# permits use, change and distribution, lies beside this file as WORDNET-LICENSE.txt.
"""


def read_table(folder: Path) -> dict[str, dict[str, int]]:
    """Word -> class letter -> count, from the files of a WordNet folder.

    Raises:
        ValueError: a file is missing.
    """
    names = [
        "cntlist",
        *(
            f"{kind}.{name}" if kind == "index" else f"{name}.{kind}"
            for name in FILES.values()
            for kind in ("index", "exc")
        ),
    ]
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: no such file; needed: {', '.join(names)}")
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for line in _lines(folder / "cntlist"):
        number, key, _ = line.split()
        lemma, sense = key.split("%")
        counts[lemma][SENSE[sense[0]]] += int(number)
    table: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for letter, name in FILES.items():
        listed = {line.split()[0] for line in _lines(folder / f"index.{name}") if line[0] != " "}
        for word in listed:
            if WORD.fullmatch(word):
                table[word][letter] = counts[word][letter]
        for line in _lines(folder / f"{name}.exc"):
            form, *bases = line.split()
            known = [base for base in bases if base in listed]
            if WORD.fullmatch(form) and known:
                more = sum(counts[base][letter] for base in known) // FORMS[letter]
                table[form][letter] = table[form].get(letter, 0) + more
    return dict(table)


def table_bytes(table: dict[str, dict[str, int]]) -> bytes:
    """The table as gzip without time or name."""
    lines = [
        f"{word} " + " ".join(f"{letter}{count or ''}" for letter, count in sorted(classes.items()))
        for word, classes in sorted(table.items())
    ]
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", 9, packed, mtime=0) as file:
        file.write((NOTICE + "\n".join(lines) + "\n").encode())
    return packed.getvalue()


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="WordNet 3.0's folder (Debian: wordnet-base)")
    parser.add_argument("--out", type=Path, default=TARGET)
    args = parser.parse_args(argv)
    try:
        table = read_table(args.folder)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    content = table_bytes(table)
    args.out.write_bytes(content)
    print(f"{args.out}: {len(table):,} words, {len(content):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
