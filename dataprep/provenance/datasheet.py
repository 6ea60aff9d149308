"""A datasheet in Markdown, with the sections of Gebru et al., "Datasheets for Datasets" (2021).

What the manifest knows is filled in; what only the makers know is asked in words, so that nobody
takes a blank for an answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from dataprep.evalsets.frames import is_restricted
from dataprep.provenance.describe import Described

ASK = "*Not recorded in the manifest; whoever passes this on should say.*"


def datasheet(described: Described) -> str:
    """The Markdown text; it holds utterances of open sources only, and no pictures."""
    d = described
    parts = [
        f"# Datasheet: {d.name}\n",
        f"Version {d.version} of this {d.what}; manifest SHA-256 `{d.digest}`. Written from the "
        "manifest by `python -m dataprep document`; the sections are those of Gebru et al., "
        "*Datasheets for Datasets* (2021).\n",
        "## Motivation\n",
        f"**For what purpose was it created?** {d.about}\n",
        f"**Who created it, and who funded it?** {ASK}\n",
        "## Composition\n",
        "**What do the instances represent, and how many are there?**\n",
        _table(("", "count"), d.counts),
        "**Where do they come from?**\n",
        _table(
            ("source", "licence", "access", "what it is"),
            [
                (
                    s["name"],
                    s["licence"],
                    "restricted" if is_restricted(s) else "open",
                    " ".join(filter(None, [str(s.get("notes", "")), str(s.get("url", ""))])),
                )
                for s in d.sources
            ],
        ),
        "**Which files does it consist of?**\n",
        _files(d),
        *_samples(d),
        "**Does it contain data that might be confidential or offensive, or identify people?** "
        + (
            f"{', '.join(d.restricted)}: under a use agreement. Frames of homes and words of "
            "families may identify people; neither is shown here, and neither may be passed on.\n"
            if d.restricted
            else "No source is under a use agreement; see the sources for what they show.\n"
        ),
        "## Collection process\n",
        "**How was the data acquired?** As the sources above say; frames, time stamps and file "
        "names are in the tables, hashes of the files in the manifest.\n",
        "**Were the people notified, and did they consent?** "
        + (
            "Consent was given to the owner of the restricted sources, under whose agreement the "
            "data may be used; see the owner's terms.\n"
            if d.restricted
            else f"{ASK}\n"
        ),
        "## Preprocessing, cleaning, labeling\n",
        "**What was done?** The manifest's record of how it was made:\n",
        f"```json\n{json.dumps(d.made_by, indent=2, ensure_ascii=False, sort_keys=True)}\n```\n",
        *_origin(d),
        *_reviews(d),
        *([f"{d.notes}\n"] if d.notes else []),
        "**Is the raw data kept?** It stays where its owners hold it; every row names the file or "
        "record that it came from.\n",
        "## Uses\n",
        "**What has it been used for, and what should it not be used for?** It is meant for "
        "training and testing small vision-language models of early language. It says nothing "
        "about any single child, and is no basis for decisions about one. "
        + (
            "Words made by a model or a template are not what caregivers say.\n"
            if d.origin
            else "\n"
        ),
        *_limits(d),
        "## Distribution\n",
        f"**Under which licences?** {', '.join(d.licences) or 'none stated'}. The strictest one "
        "holds for the whole.\n",
        "**May it be passed on?** "
        + (
            f"No: {', '.join(d.restricted)} may not be. Ids, time stamps and hashes may, and with "
            "them whoever has access makes the same files.\n"
            if d.restricted
            else "Yes, under the licences above.\n"
        ),
        "## Maintenance\n",
        f"**Who maintains it, and how are errors reported?** {ASK}\n",
        "**Will it be updated?** A changed set has another manifest hash; the one above names this "
        "state.\n",
    ]
    return "\n".join(parts)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(map(_cell, row)) + " |\n" for row in lines)


def _files(d: Described) -> str:
    pictures = [name for name in d.files if name.startswith(("images/", "benchmarks/images"))]
    listed = [name for name in d.files if name not in pictures]
    rows = [(f"`{n}`", d.files[n]["size_bytes"], f"`{d.files[n]['sha256'][:16]}`") for n in listed]
    if pictures:
        size = sum(d.files[name]["size_bytes"] for name in pictures)
        rows.append((f"{len(pictures)} pictures", size, "see the manifest"))
    return _table(("file", "bytes", "SHA-256, first 16 digits"), rows)


def _samples(d: Described) -> list[str]:
    if not d.samples:
        return []
    lines = "".join(f"- {_cell(text)}\n" for text in d.samples)
    return [f"**What do utterances look like?** The first of the open sources:\n\n{lines}"]


def _origin(d: Described) -> list[str]:
    if not d.origin:
        return []
    return ["**What was made by models or templates?**\n", _table(("how", "count"), d.origin)]


def _reviews(d: Described) -> list[str]:
    if not d.reviews:
        return ["No review by people is recorded.\n"] if d.what == "evaluation set" else []
    rows = [
        (r["applied"], ", ".join(r["reviewers"]), *r["decisions"].values(), r["undecided"])
        for r in d.reviews
    ]
    header = ("applied", "by", "accepted", "rejected", "edited", "undecided")
    return ["**Who reviewed it?**\n", _table(header, rows)]


def _limits(d: Described) -> list[str]:
    reached = d.facts.get("phrase_only")
    if not reached:
        return []
    after = ", ".join(f"{name} {share:.1%}" for name, share in reached["after"].items())
    before = ", ".join(f"{name} {share:.1%}" for name, share in reached["before"].items())
    chance = reached.get("chance_95")
    span = f" (95 % of chance: {chance[0]:.1%} to {chance[1]:.1%})" if chance else ""
    return [
        f"**What do its phrases give away?** Models that read phrases alone are right on {after}"
        f"{span}; before pruning on {before}.\n"
    ]
