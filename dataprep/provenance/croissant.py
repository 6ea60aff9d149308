"""Croissant metadata: files with their hashes, tables with their columns, licences, provenance.

JSON-LD in the vocabulary of MLCommons Croissant 1.1, with its responsible-AI extension (RAI) for
how the data were collected and made. It holds names, hashes, counts and column names, and never a
picture or an utterance.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dataprep.evalsets.frames import is_restricted
from dataprep.provenance.describe import Described

CONFORMS = "http://mlcommons.org/croissant/1.1"
MIME = {
    ".parquet": "application/x-parquet", ".json": "application/json", ".csv": "text/csv",
    ".jsonl": "application/jsonl", ".yaml": "application/yaml", ".png": "image/png",
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".beton": "application/octet-stream",
}  # fmt: skip
MOST_FILES = 200
"""More pictures than this are described as one set of files."""
_TERMS = (
    "arrayShape citeAs column containedIn equivalentProperty extract field fileObject fileProperty "
    "fileSet format includes isArray isLiveDataset jsonPath key md5 parentField path recordSet "
    "references regex repeated replace samplingRate separator source subField transform"
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    **{term: f"cr:{term}" for term in _TERMS.split()},
}
"""The context of Croissant 1.1."""


def croissant(described: Described) -> dict[str, Any]:
    """The JSON-LD of a corpus or an evaluation set."""
    pictures = [
        name for name in described.files if name.startswith(("images/", "benchmarks/images"))
    ]
    listed = [
        name for name in described.files if len(pictures) <= MOST_FILES or name not in pictures
    ]
    distribution = [_file(name, described.files[name]) for name in listed]
    if len(pictures) > MOST_FILES:
        folder = pictures[0].rsplit("/", 1)[0]
        distribution.append(
            {
                "@type": "cr:FileSet", "@id": "pictures", "name": "pictures",
                "description": f"{len(pictures)} pictures; their hashes stand in the manifest",
                "encodingFormat": sorted({_mime(name) for name in pictures})[0],
                "includes": f"{folder}/*",
            }
        )  # fmt: skip
    limits = ", ".join(described.restricted)
    about = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS,
        "name": described.name,
        "description": described.about,
        "version": _semantic(described.version),
        "license": described.licences or ["not stated"],
        "url": _url(described),
        "creator": {"@type": "sc:Organization", "name": "the makers of this copy"},
        "datePublished": _date(described),
        "isLiveDataset": False,
        "citeAs": _cite(described),
        "keywords": ["vision-language", "child-directed speech", described.what],
        "isBasedOn": [_source(source) for source in described.sources],
        "distribution": distribution,
        "recordSet": [
            _records(name, columns) for name, columns in described.tables.items() if columns
        ],
        "rai:dataCollection": "; ".join(
            f"{s['name']}: {s.get('notes') or 'see the source'}" for s in described.sources
        ),
        "rai:dataPreprocessingProtocol": json.dumps(
            described.made_by, ensure_ascii=False, sort_keys=True
        ),
        "rai:machineAnnotationTools": [f"{name} ({count})" for name, count in described.origin],
        "rai:personalSensitiveInformation": (
            f"Sources under an agreement, whose frames and words stay with their owner: {limits}"
            if limits
            else "No source is under a use agreement."
        ),
        "rai:dataSocialImpact": "Made to study how little data a model of early language needs.",
    }
    return {key: value for key, value in about.items() if value != []}


def _mime(name: str) -> str:
    return MIME.get(Path(name).suffix.lower(), "application/octet-stream")


def _file(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name,
        "encodingFormat": _mime(name), "sha256": facts["sha256"],
        "contentSize": f"{facts['size_bytes']} B",
    }  # fmt: skip


def _records(name: str, columns: dict[str, str]) -> dict[str, Any]:
    table = name.replace("/", "-").rsplit(".", 1)[0]
    return {
        "@type": "cr:RecordSet",
        "@id": table,
        "name": table,
        "field": [
            {
                "@type": "cr:Field", "@id": f"{table}/{column}", "name": column, "dataType": kind,
                "source": {"fileObject": {"@id": name}, "extract": {"column": column}},
            }
            for column, kind in columns.items()
        ],
    }  # fmt: skip


def _source(source: dict[str, Any]) -> dict[str, Any]:
    out = {
        "@type": "sc:CreativeWork", "name": source["name"], "license": source["licence"],
        "conditionsOfAccess": "restricted" if is_restricted(source) else "open",
    }  # fmt: skip
    if source.get("url"):
        out["url"] = source["url"]
    return out


def _semantic(version: str) -> str:
    parts = version.split(".")
    return ".".join([*parts, "0", "0"][:3]) if all(p.isdigit() for p in parts) else "1.0.0"


def _url(described: Described) -> str:
    urls = [source["url"] for source in described.sources if source.get("url")]
    return urls[0] if urls else f"urn:sha256:{described.digest}"


def _date(described: Described) -> str:
    """The day of the last review, or the manifest's: the same input gives the same bytes."""
    if described.reviews:
        return str(described.reviews[-1]["applied"])[:10]
    import datetime

    manifest = "evalset.json" if described.what == "evaluation set" else "corpus.json"
    seconds = (described.folder / manifest).stat().st_mtime
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()


def _cite(described: Described) -> str:
    return f"{described.name} {described.version}, manifest sha256 {described.digest}"


def validate(path: Path) -> list[str]:
    """Check a Croissant file with mlcroissant; its warnings.

    Raises:
        ValueError: the file is not valid, or mlcroissant is not installed.
    """
    try:
        import mlcroissant
    except ImportError:
        raise ValueError(
            "mlcroissant is not installed, so the metadata cannot be checked; "
            "`pip install mlcroissant`"
        ) from None
    try:
        dataset = mlcroissant.Dataset(jsonld=path)
    except mlcroissant.ValidationError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())[:400]}") from None
    return sorted(dataset.metadata.ctx.issues.warnings)
