"""Which code made something: the package's version and a hash of this package's sources."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

DISTRIBUTION = "babyvlm-engine"


@cache
def code_version() -> str:
    """``0.1.0+3f9a...``: the installed version and 12 digits of a SHA-256 over dataprep's files.

    Two checkouts that differ in one line of dataprep (templates and pages included) have two
    versions; where nothing is installed the version is ``0``.
    """
    try:
        installed = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        installed = "0"
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and path.suffix in {".py", ".txt", ".j2", ".html", ".yaml"}:
            digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return f"{installed}+{digest.hexdigest()[:12]}"


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Version of each installed package; those that are not installed are left out."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
