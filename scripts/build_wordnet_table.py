"""Builds ``benchmarks_eval/meteor/wordnet30.txt.gz``: the synonyms that METEOR needs.

METEOR asks WordNet one thing: which single words share a sense with a word, inflected or not. The
table holds just that (about half a megabyte instead of thirty), together with WordNet's licence
notice. It is made from Debian's package ``wordnet-base``, which is WordNet 3.0 as Princeton
released it; the same input gives the same bytes.

    python scripts/build_wordnet_table.py                       # downloads the package with apt
    python scripts/build_wordnet_table.py --source FILE.deb     # or takes a downloaded one
    python scripts/build_wordnet_table.py --source /usr/share/wordnet    # or an installed one

Format (UTF-8 lines, gzip): the notice, each line after ``#``; then for every part of speech a
header ``=noun`` and

    lines "names | forms": one set of synonyms. ``names`` are the single lower-case words of a
        synset; ``forms`` are entries of the index that lead to it but are no such words
        ("washington", "ice_cream"). A synset of one word that stands in another line is left out.
    one line "! names | forms": words without a synonym, and forms that lead to no such word; they
        are there because the rules of inflection stop at a known word
    a line "~", then the exceptions to these rules, "form base base ..."
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "benchmarks_eval" / "meteor" / "wordnet30.txt.gz"
PARTS = ("noun", "verb", "adj", "adv")
PACKAGE = "wordnet-base"
WHERE = Path("usr/share/wordnet")  # inside the package
RELEASE = "WordNet 3.0 Copyright 2006"
SYNSETS = 117_659


def download(folder: Path) -> Path:
    """Fetch Debian's package into ``folder`` with apt and return its path."""
    run(["apt-get", "download", PACKAGE], folder)
    return next(folder.glob(f"{PACKAGE}_*.deb"))


def unpack(package: Path, folder: Path) -> Path:
    """Unpack a Debian package below ``folder`` and return its WordNet folder."""
    run(["dpkg", "-x", str(package.resolve()), str(folder)], folder)
    return folder / WHERE


def run(command: list[str], folder: Path) -> None:
    """Run a command; its failure is one line."""
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError(f"{command[0]} is not installed: pass --source") from None
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.split()) or f"exit code {error.returncode}"
        raise ValueError(f"{' '.join(command)}: {said}") from None


def lines(path: Path) -> Iterator[list[str]]:
    """The fields of every line of a WordNet file, without the notice (indented lines)."""
    with path.open(encoding="latin-1") as file:
        for line in file:
            if not line.startswith(" "):
                yield line.split()


def notice(folder: Path) -> list[str]:
    """Princeton's licence as it stands at the head of every data file."""
    found: list[str] = []
    with (folder / "data.noun").open(encoding="latin-1") as file:
        for line in file:
            if not line.startswith(" "):
                break
            found.append(re.sub(r"^\s*\d+ ", "", line).rstrip())
    if not any(RELEASE in line for line in found):
        raise ValueError(f"{folder / 'data.noun'}: does not say '{RELEASE}'; METEOR is defined "
                         f"with WordNet 3.0, other releases give other scores")  # fmt: skip
    return found


def synsets(folder: Path, part: str) -> dict[str, list[str]]:
    """Offset -> single lower-case words (wndb(5WN): offset, file, type, hex count, word, id ...).

    NLTK compares lower-cased words with lemma names as written, so "Washington" matches nothing.
    """
    found: dict[str, list[str]] = {}
    for fields in lines(folder / f"data.{part}"):
        count = int(fields[3], 16)
        names = [re.sub(r"\(.*\)$", "", name) for name in fields[4 : 4 + 2 * count : 2]]
        found[fields[0]] = [n for n in dict.fromkeys(names) if "_" not in n and n == n.lower()]
    return found


def entries(folder: Path, part: str) -> dict[str, list[str]]:
    """Index form -> offsets (wndb(5WN): lemma, pos, synsets, pointers, ..., the offsets last)."""
    return {
        fields[0]: fields[-int(fields[2]) :]
        for fields in lines(folder / f"index.{part}")
    }  # fmt: skip


def section(folder: Path, part: str) -> tuple[list[str], int]:
    """The lines of one part of speech, and how many synsets WordNet has for it."""
    names, index = synsets(folder, part), entries(folder, part)
    forms: dict[str, list[str]] = {offset: [] for offset in names}
    alone: set[str] = set()
    for form, offsets in index.items():
        for offset in offsets:
            if form not in names[offset]:
                forms[offset].append(form)
        if "_" not in form and not any(names[o] for o in offsets):
            alone.add(form)
    rows = {
        (tuple(sorted(names[o])), tuple(sorted(forms[o])))
        for o in names
        if names[o] and len(names[o]) + len(forms[o]) > 1
    }
    grouped = {word for group, _ in rows for word in group}
    single = {group[0] for group in names.values() if len(group) == 1} - grouped
    text = [" ".join(group) + (f" | {' '.join(extra)}" if extra else "")
            for group, extra in sorted(rows)]  # fmt: skip
    text += ["! " + " ".join(sorted(single)) + " | " + " ".join(sorted(alone)), "~"]
    exceptions = {fields[0]: fields for fields in lines(folder / f"{part}.exc")}
    text += [" ".join(fields) for _, fields in sorted(exceptions.items())]
    return [f"={part}", *text], len(names)


def build(folder: Path) -> bytes:
    """The whole table, compressed."""
    if not (folder / "data.noun").is_file():
        raise ValueError(f"{folder}: no data.noun here; --source takes WordNet's folder or "
                         f"Debian's package {PACKAGE}")  # fmt: skip
    text = [
        "# Derived from WordNet 3.0 by scripts/build_wordnet_table.py: synonyms of single words.",
        *(f"# {line}".rstrip() for line in notice(folder)),
    ]
    total = 0
    for part in PARTS:
        made, count = section(folder, part)
        text += made
        total += count
    if total != SYNSETS:
        raise ValueError(f"{folder}: {total} synsets where WordNet 3.0 has {SYNSETS}")
    return gzip.compress(("\n".join(text) + "\n").encode(), compresslevel=9, mtime=0)


def main() -> int:
    """Build the table; the exit code is 1 with one line when the input is not WordNet 3.0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--source", type=Path, help="WordNet's folder or Debian's package")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            source = args.source or download(folder)
            data = build(unpack(source, folder) if source.is_file() else source)
            part = args.out.with_name(args.out.name + ".part")
            part.write_bytes(data)
            part.replace(args.out)
        except (ValueError, OSError) as error:
            print(error, file=sys.stderr)
            return 1
    print(f"{args.out}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
