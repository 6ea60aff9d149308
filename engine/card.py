"""The model card: a README that says what a model was made from and what it can and cannot do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

SCORES_BEGIN, SCORES_END = "<!-- scores -->", "<!-- /scores -->"

_USE = {
    "generative": """\
from engine import load

model = load("{path}")
features = model.image_features(["apple.png"])
print(model.generate(features))
print(model.score_candidates(features, [["red apple", "red car"]]))""",
    "contrastive": """\
from engine import load

model = load("{path}")
images, texts = model.embed_images(["apple.png"]), model.embed_texts(["apple", "car"])
print(images @ texts.T)""",
}
_WHAT = {
    "generative": "BabyLLaVA: a vision tower, a connector and a small language model that "
    "continues a picture with words",
    "contrastive": "CVCL-like: a vision tower and the mean of word embeddings in one space",
}
_LIMITS = """\
- It has seen what its corpus holds and nothing else; a picture of anything else gets the nearest
  thing it knows. It does not answer questions or follow instructions.
- Words outside its vocabulary become `<unk>`, in texts that it scores too.
- Its likelihoods compare candidates for one picture; they are not calibrated probabilities.
- Figures below hold for the pictures they were measured on. No other use was evaluated."""


def write_card(
    *, kind: str, parameters: Mapping[str, int], facts: Mapping[str, Any], scores: Mapping[str, Any]
) -> str:
    """Return the card as Markdown.

    Args:
        kind: ``generative`` or ``contrastive``.
        parameters: number of parameters of each part.
        facts: ``name``, ``seed``, ``corpus`` (the corpus' ``corpus.json``), ``phases`` (rows of a
            table), and anything else worth a line.
        scores: what was recorded so far.
    """
    corpus = facts.get("corpus") or {}
    sources = corpus.get("sources") or []
    lines = [
        "---",
        "library_name: babyvlm",
        f"pipeline_tag: {'image-to-text' if kind == 'generative' else 'feature-extraction'}",
        "language: en",
        f"datasets: [{json.dumps(corpus.get('name', 'unknown'))}]",
        "---",
        "",
        f"# {facts.get('name', 'model')} ({kind})",
        "",
        f"{_WHAT[kind]}. {sum(parameters.values()):,} parameters: "
        + ", ".join(f"{name} {count:,}" for name, count in parameters.items())
        + ".",
        "",
        "```python",
        _USE[kind].replace("{path}", str(facts.get("path", "path/to/this/folder"))),
        "```",
        "",
        "## Corpus",
        "",
        *_corpus(corpus, sources),
        "",
        "## Training",
        "",
        *_training(facts),
        "",
        "## Scores",
        "",
        SCORES_BEGIN,
        *_scores(scores),
        SCORES_END,
        "",
        "## Limits",
        "",
        _LIMITS,
        "",
    ]
    return "\n".join(lines)


def replace_scores(card: str, scores: Mapping[str, Any]) -> str:
    """Return ``card`` with its scores section written anew."""
    head, begin, rest = card.partition(SCORES_BEGIN)
    _, end, tail = rest.partition(SCORES_END)
    section = "\n".join([SCORES_BEGIN, *_scores(scores), SCORES_END])
    if not begin or not end:  # somebody rewrote the card: keep their words, add ours
        return f"{card.rstrip()}\n\n## Scores\n\n{section}\n"
    return head + section + tail


def _corpus(corpus: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> list[str]:
    if not corpus:
        return ["Not recorded."]
    counts = ", ".join(
        f"{split} {numbers.get('images', '?')} pictures and {numbers.get('pairs', '?')} pairs"
        for split, numbers in (corpus.get("splits") or {}).items()
    )
    lines = [
        f"{corpus.get('name')} {corpus.get('version', '')}: {counts or 'counts not recorded'}."
    ]
    if corpus.get("notes"):
        lines += ["", str(corpus["notes"])]
    if sources:
        rows = [(s.get("name"), s.get("licence"), s.get("url") or "") for s in sources]
        lines += ["", *_table(("source", "licence", "where"), rows)]
    return lines


def _training(facts: Mapping[str, Any]) -> list[str]:
    phases = facts.get("phases") or []
    lines: list[str] = []
    if phases:
        keys = list(dict.fromkeys(key for phase in phases for key in phase))
        lines += [*_table(keys, [[phase.get(key) for key in keys] for phase in phases]), ""]
    known = {"name", "corpus", "phases", "path"}
    rest = [f"{key} {_plain(value)}" for key, value in facts.items() if key not in known]
    return lines + ([f"Also: {'; '.join(rest)}."] if rest else [])


def _scores(scores: Mapping[str, Any]) -> list[str]:
    """Tables of what an evaluation recorded: suite to version and figures by name."""
    if not scores:
        return ["None recorded yet."]
    lines: list[str] = []
    for suite, entry in scores.items():
        figures = entry.get("figures") if isinstance(entry, Mapping) else None
        if not isinstance(figures, Mapping):
            lines += [f"- {suite}: {_plain(entry)}"]
            continue
        keys = list(
            dict.fromkeys(k for f in figures.values() if isinstance(f, Mapping) for k in f)
        ) or ["value"]
        rows = [
            [name, *([f.get(k) for k in keys] if isinstance(f, Mapping) else [f])]
            for name, f in figures.items()
        ]
        version = f" (version {entry['version']})" if "version" in entry else ""
        lines += ["", f"### {suite}{version}", "", *_table(["figure", *keys], rows)]
    return [*lines, ""]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
        *("| " + " | ".join(_plain(cell) for cell in row) + " |" for row in rows),
    ]


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return str(value).replace("|", "\\|").replace("\n", " ")
