"""Prompt templates: versioned YAML files; the shipped one, or the user's own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from dataprep.llm.request import Reply, Request, validator

SHIPPED = "rewrite-v1"
_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,), "keep_field": (str,), "keep_values": (list,), "utterance_field": (str,),
    "max_words": (int,), "max_tokens": (int,), "temperature": (int, float, type(None)),
    "system": (str,), "user": (str,), "schema": (dict,),
}  # fmt: skip


@dataclass(frozen=True)
class Template:
    """A prompt, the shape of its answer, and how to read the answer.

    Attributes:
        name: of the template; requests carry it.
        sha256: of the file's bytes.
        keep_field, keep_values: a row is kept when the answer's field has one of the values.
        utterance_field: the answer's field with the new words.
        max_words: longer utterances are not kept.
        max_tokens, temperature: of the request.
        system, user: messages; ``{caption}`` in ``user`` is replaced.
        schema: JSON schema of the answer.
    """

    name: str
    sha256: str
    keep_field: str
    keep_values: tuple[Any, ...]
    utterance_field: str
    max_words: int
    max_tokens: int
    temperature: float | None
    system: str
    user: str
    schema: Mapping[str, Any]

    @cached_property
    def _system_message(self) -> dict[str, str]:
        return {"role": "system", "content": self.system}  # one object for all requests

    def request(self, caption: str, model: str, seed: int | None) -> Request:
        """The request for a caption."""
        user = {"role": "user", "content": self.user.replace("{caption}", caption)}
        return Request(
            model, (self._system_message, user), self.schema, max_tokens=self.max_tokens,
            temperature=self.temperature, seed=seed, template=self.name,
        )  # fmt: skip

    def read(self, reply: Reply) -> tuple[str | None, str]:
        """The utterance and ``""``, or None and why the row is not kept.

        The reply must have a value.
        """
        assert reply.value is not None
        verdict = reply.value[self.keep_field]
        if verdict not in self.keep_values:
            return None, str(verdict)
        utterance = " ".join(reply.value[self.utterance_field].split())
        if not utterance:
            return None, "kept, but without an utterance"
        if len(utterance.split()) > self.max_words:
            return None, f"longer than {self.max_words} words"
        return utterance, ""


def load_template(path: Path | None = None) -> Template:
    """Read a template file; the shipped one by default.

    Raises ``ValueError`` naming file and key when something is missing, unknown or wrong.
    """
    if path is None:
        source = files("dataprep.rewrite").joinpath(f"{SHIPPED}.yaml")
        data, where = source.read_bytes(), f"{SHIPPED}.yaml"
    else:
        if not path.is_file():
            raise ValueError(f"{path}: no such template file")
        data, where = path.read_bytes(), str(path)
    try:
        found = yaml.safe_load(data.decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: not YAML ({' '.join(str(error).split())[:150]})") from None
    if not isinstance(found, dict) or set(found) != set(_TYPES):
        has = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise ValueError(f"{where}: has the keys {has}; accepted: {', '.join(_TYPES)}")
    for key, kinds in _TYPES.items():
        if not isinstance(found[key], kinds) or isinstance(found[key], bool):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"{where}: {key} is {found[key]!r}; accepted: {names}")
    _check(found, where)
    found["keep_values"] = tuple(found["keep_values"])
    return Template(sha256=hashlib.sha256(data).hexdigest(), **found)


def _check(found: dict[str, Any], where: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", found["name"]):
        raise ValueError(f"{where}: name {found['name']!r}; accepted: 1 to 64 of a-zA-Z0-9_-")
    if "{caption}" not in found["user"]:
        raise ValueError(f"{where}: user has no {{caption}} in it")
    for key in ("max_words", "max_tokens"):
        if found[key] < 1:
            raise ValueError(f"{where}: {key} is {found[key]}; accepted: 1 or more")
    try:
        validator(found["schema"])
    except ValueError as error:
        raise ValueError(f"{where}: schema: {error}") from None
    required = found["schema"].get("required", [])
    for key in ("keep_field", "utterance_field"):
        if found[key] not in required:
            raise ValueError(f"{where}: {key} {found[key]!r} is not in the schema's `required`")
    shape = found["schema"].get("properties", {}).get(found["utterance_field"], {})
    if shape.get("type") != "string":
        raise ValueError(f"{where}: the schema's {found['utterance_field']} is not of type string")
