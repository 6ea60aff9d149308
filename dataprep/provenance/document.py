"""Write the Croissant metadata and the datasheet of a corpus or an evaluation set."""

from __future__ import annotations

import json
from pathlib import Path

from dataprep.files import write_whole
from dataprep.provenance.croissant import croissant, validate
from dataprep.provenance.datasheet import datasheet
from dataprep.provenance.describe import describe

CROISSANT = "croissant.json"
DATASHEET = "datasheet.md"


def document(folder: Path, *, check: bool = True) -> list[str]:
    """Write ``croissant.json`` and ``datasheet.md`` into the folder they describe.

    Args:
        folder: a corpus directory or an evaluation set's.
        check: have mlcroissant read the metadata.

    Returns:
        mlcroissant's warnings.

    Raises:
        ValueError: the folder is neither, or the metadata is not valid.
    """
    described = describe(folder)
    path = folder / CROISSANT
    text = json.dumps(croissant(described), indent=2, ensure_ascii=False) + "\n"
    partial = folder / f".{CROISSANT}"
    write_whole(partial, text)
    try:
        warnings = validate(partial) if check else []
    finally:
        partial.unlink(missing_ok=True)
    write_whole(path, text)
    write_whole(folder / DATASHEET, datasheet(described))
    return warnings
