"""What ``--model`` accepts, taken apart and checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from benchmarks_eval.tasks import nearest

FORMS = {
    "folder": "FOLDER",
    "open_clip": "open_clip:NAME:WEIGHTS or open_clip:FOLDER",
    "llava": "llava:FOLDER[?template=chat|plain|FILE&prompt=TEXT&dtype=float32]",
    "server": "server:MODEL@http://HOST/v1[?prompt=TEXT&logprobs=no&parallel=8&temperature=0]",
    "blind": "blind:constant, blind:random, blind:random:SEED, blind:unigram or blind:naive-bayes",
    "no-image": "no-image:SPEC",
    "noise": "noise:SPEC",
    "shuffled": "shuffled:SPEC",
}
"""Scheme -> how it is written. ``folder`` has no prefix: a model that the engine exported."""

WRAPPERS = ("no-image", "noise", "shuffled")
BLIND = ("constant", "random", "unigram", "naive-bayes")

OPTIONS: dict[str, tuple[str, ...]] = {
    "llava": ("template", "prompt", "dtype"),
    "server": ("prompt", "logprobs", "parallel", "temperature", "tokens"),
}
"""Scheme -> what may follow as ``?name=value&name=value``."""


@dataclass(frozen=True)
class Spec:
    """One ``--model``.

    ``target`` is the folder, the architecture (open_clip), the model (server) or the kind (blind).
    """

    text: str
    scheme: str
    target: str = ""
    file: str | None = None
    """open_clip: the weights. server: the base URL. blind: the seed of ``random``."""
    options: dict[str, str] = field(default_factory=dict)
    inner: Spec | None = None
    """What a wrapper wraps."""

    @property
    def folder(self) -> Path | None:
        """Folder of the engine model that this is or wraps."""
        if self.inner is not None:
            return self.inner.folder
        return Path(self.target) if self.scheme == "folder" else None

    @property
    def name_parts(self) -> list[str]:
        """Parts of a name, the most telling last."""
        if self.inner is not None:
            *before, last = self.inner.name_parts
            return [*before, f"{self.scheme}-{last}"]
        if self.scheme == "folder":
            return [part for part in Path(self.target).resolve().parts if part != "model"]
        if self.scheme == "open_clip":
            weights = Path(self.file).resolve() if self.file else None
            before = [*weights.parent.parts, weights.stem] if weights else []
            return [*before, *(Path(self.target).parts if self.file else
                               Path(self.target).resolve().parts)]
        if self.scheme == "llava":
            parts = list(Path(self.target).resolve().parts)
        elif self.scheme == "server":
            parts = [urlsplit(self.file or "").netloc, *self.target.split("/")]
        else:
            parts = ["-".join(["blind", self.target, *([self.file] if self.file else [])])]
        if self.options:  # the same model asked in two ways
            parts.insert(0, " ".join(f"{k}={v}" for k, v in sorted(self.options.items())))
        return parts


def parse(text: str) -> Spec:
    """Takes a ``--model`` apart; no file is opened.

    Raises:
        ValueError: one line naming what is wrong and what is accepted.
    """
    scheme, colon, rest = text.partition(":")
    if scheme not in FORMS or scheme == "folder" or not colon:
        return _folder(text, scheme if colon else "")
    if not rest:
        raise ValueError(f"--model {text}: nothing after '{scheme}:'; accepted: {FORMS[scheme]}")
    if scheme in WRAPPERS:
        inner = parse(rest)
        if inner.scheme not in ("folder", "llava", "open_clip"):
            raise ValueError(f"--model {text}: '{scheme}:' goes around a folder, llava: or "
                             f"open_clip:, not around '{rest}'")
        return Spec(text, scheme, inner=inner)
    if scheme == "open_clip":
        name, colon, weights = rest.partition(":")
        return _exists(Spec(text, scheme, name, weights if colon else None))
    rest, options = _options(text, scheme, rest)
    if scheme == "llava":
        return _exists(Spec(text, scheme, rest, options=options))
    if scheme == "server":
        model, at, url = rest.rpartition("@")
        if not at or not model or urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"--model {text}: accepted: {FORMS[scheme]}")
        return Spec(text, scheme, model, url.rstrip("/"), options)
    kind, colon, seed = rest.partition(":")
    if kind not in BLIND:
        raise ValueError(f"--model {text}: no blind model '{kind}'{nearest(kind, BLIND)}")
    if colon and (kind != "random" or not seed.isdecimal()):
        raise ValueError(f"--model {text}: accepted: {FORMS[scheme]}")
    return Spec(text, scheme, kind, seed if colon else None)


def parse_all(texts: Sequence[str]) -> list[Spec]:
    """Every ``--model`` of a run.

    Raises:
        ValueError: one is malformed, or given twice.
    """
    for text in texts:
        if list(texts).count(text) > 1:
            raise ValueError(f"--model {text} is given twice")
    return [parse(text) for text in texts]


def _folder(text: str, scheme: str) -> Spec:
    if Path(text).exists() or not scheme:
        return Spec(text, "folder", text)
    known = [name for name in FORMS if name != "folder"]
    raise ValueError(f"--model {text}: no such folder, and '{scheme}:' begins no known form"
                     f"{nearest(scheme, known)}")


def _exists(spec: Spec) -> Spec:
    wanted = Path(spec.file if spec.file is not None else spec.target)
    if spec.file is not None and not wanted.is_file():
        raise ValueError(f"--model {spec.text}: {wanted}: no such file of weights; accepted: "
                         f"{FORMS[spec.scheme]}")
    if spec.file is None and not wanted.is_dir():
        raise ValueError(f"--model {spec.text}: {wanted}: no such folder; accepted: "
                         f"{FORMS[spec.scheme]}")
    return spec


def _options(text: str, scheme: str, rest: str) -> tuple[str, dict[str, str]]:
    target, mark, query = rest.partition("?")
    accepted = OPTIONS.get(scheme, ())
    if not mark:
        return target, {}
    if not accepted:
        raise ValueError(f"--model {text}: '{scheme}:' takes no options; accepted: "
                         f"{FORMS[scheme]}")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        raise ValueError(f"--model {text}: options are written ?name=value&name=value") from None
    for name, _ in pairs:
        if name not in accepted:
            raise ValueError(f"--model {text}: unknown option '{name}'{nearest(name, accepted)}")
        if [n for n, _ in pairs].count(name) > 1:
            raise ValueError(f"--model {text}: option '{name}' is given twice")
    return target, dict(pairs)
