"""The whole of a run's configuration: one YAML file, dotted overrides, every mistake named.

Sections live next to the code they configure; this file only assembles them.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from engine.checkpoints import CheckpointConfig
from engine.features import FeatureConfig
from engine.images import DataConfig
from engine.metrics import LogConfig
from engine.models.config import ModelConfig
from engine.phases import PhaseConfig
from engine.plain_yaml import parse_yaml
from engine.schema import Section
from engine.stopping import StopConfig
from engine.tokens import TokenizerConfig
from engine.zero import ZeroConfig


class RunConfig(Section):
    """Everything that determines a run. ``python engine/train.py --config X --print-config``."""

    name: str
    """Name of the run; model cards and logs carry it."""

    run_dir: str
    """Directory the run commits to: config, metrics, checkpoints, exported models."""

    corpus: str
    """Corpus directory (written by ``python -m dataprep``)."""

    seed: int = 0
    """Seed of everything: initial weights, order of samples, augmentation, dropout."""

    init_from: str | None = None
    """Model directory of another run whose weights start this one (parts it has, by name)."""

    model: ModelConfig
    tokenizer: TokenizerConfig = TokenizerConfig()
    data: DataConfig = DataConfig()
    features: FeatureConfig = FeatureConfig()
    zero: ZeroConfig = ZeroConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    stop: StopConfig = StopConfig()
    log: LogConfig = LogConfig()

    kernels: dict[str, str] = {}
    """Implementation per op by name (``python -m engine.env`` lists ops and names); ``auto``, or
    nothing said, takes the first one that serves the device."""

    strict_kernels: bool = False
    """Fail instead of taking another implementation than the preferred one."""

    phases: list[PhaseConfig]
    """Run in this order; ``--phase NAME`` runs one of them."""

    @model_validator(mode="after")
    def _phases_are_sound(self) -> RunConfig:
        names = [p.name for p in self.phases]
        if not names:
            raise ValueError("phases: empty; at least one phase is needed")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"phases: the name '{name}' is used twice; names are unique")
        for phase in self.phases:
            frozen = "vision" not in phase.train
            once = phase.augment.enabled and self.features.views == 1
            if self.features.store == "on" and frozen and once:
                raise ValueError(
                    f"features.store: on, but phase '{phase.name}' augments its pictures, so its "
                    "features differ every epoch; accepted: auto, off, or features.views above 1"
                )
        return self


# Keys that may differ between a run and its resumption: none of them changes a single weight.
RESUMABLE_CHANGES = (
    "run_dir", "data.workers", "data.batch", "data.ram_cache_bytes", "data.timeout_s",
    "checkpoints", "stop", "log", "features.location", "features.reserve_bytes", "features.path",
)


def load_config(path: str | Path, overrides: list[str] | None = None) -> RunConfig:
    """Read ``path`` and apply dotted ``overrides`` such as ``phases.joint.optim.lr=1e-3``.

    Raises ``ValueError`` with one line that names the file and the key.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such configuration file")
    try:
        tree = parse_yaml(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: a mapping of configuration keys is expected")
    for override in overrides or []:
        apply_override(tree, override)
    return parse_config(tree, where=str(path))


def parse_config(tree: dict[str, Any], where: str) -> RunConfig:
    """Validate a tree of plain values; ``where`` names its origin in error messages."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ValueError(f"{where}: {_first_error(error, tree)}") from None


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one dotted key in place; list items go by their ``name`` or their index."""
    key, found, text = override.partition("=")
    if not found or not key:
        raise ValueError(f"--set {override}: expected KEY=VALUE, for example seed=1")
    node: Any = tree
    parts = key.split(".")
    for i, part in enumerate(parts[:-1]):
        node = _child(node, part, ".".join(parts[: i + 1]))
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {override}: not YAML: {' '.join(str(error).split())}") from None
    if isinstance(node, list):
        node[_index(node, parts[-1], key)] = value
    else:
        node[parts[-1]] = value


def _child(node: Any, part: str, key: str) -> Any:
    if isinstance(node, list):
        child = node[_index(node, part, key)]
    else:
        if node.get(part) is None:
            node[part] = {}
        child = node[part]
    if not isinstance(child, dict | list):
        raise ValueError(f"--set {key}: '{part}' is a value, not a section")
    return child


def _index(items: list[Any], part: str, key: str) -> int:
    names = [str(item.get("name")) for item in items if isinstance(item, dict)]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(items):
        return int(part)
    raise ValueError(f"--set {key}: no item '{part}'; accepted: {', '.join(names)}")


def _first_error(error: ValidationError, tree: dict[str, Any]) -> str:
    errors = error.errors(include_url=False)
    # An unknown key is usually the cause of the others.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    loc = [part for part in first["loc"] if not str(part).startswith("function-")]
    key = _dotted(loc, tree)
    if first["type"] == "extra_forbidden":
        accepted = sorted(_fields_at(loc[:-1]))
        near = difflib.get_close_matches(str(loc[-1]), accepted, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'? " if near else ""
        text = f"{key}: unknown key; {hint}accepted: {', '.join(accepted)}"
    elif first["type"] == "missing":
        text = f"{key}: missing; this key is required"
    else:
        message = first["msg"].removeprefix("Value error, ")
        got = "" if isinstance(first["input"], dict) else f" (got {first['input']!r})"
        text = f"{key}: {message}{got}" if key else message
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return text + more


def _dotted(loc: list[Any], tree: Any) -> str:
    """``('phases', 2, 'lr')`` as ``phases.joint.lr``: list items by their name."""
    parts: list[str] = []
    node = tree
    for part in loc:
        node = _get(node, part)
        named = isinstance(part, int) and isinstance(node, dict) and "name" in node
        parts.append(str(node["name"]) if named and isinstance(node, dict) else str(part))
    return ".".join(parts)


def _get(node: Any, part: Any) -> Any:
    if isinstance(node, dict):
        return node.get(part)
    inside = isinstance(node, list) and isinstance(part, int) and part < len(node)
    return node[part] if inside else None


def _fields_at(loc: list[Any]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for part in loc:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[str(part)].annotation
        candidates = [annotation, *get_args(annotation)]
        candidates += [arg for c in get_args(annotation) for arg in get_args(c)]
        found = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not found:
            return []
        model = found[0]
    return list(model.model_fields)


def to_yaml(config: BaseModel) -> str:
    """The resolved configuration as YAML: every field, in the order of the source."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=100)


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Dotted keys whose change would make ``new`` another run than ``old``."""
    a, b = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    changed = [k for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)]
    if not changed and [p.name for p in old.phases] != [p.name for p in new.phases]:
        changed = ["phases (their order)"]
    free = RESUMABLE_CHANGES
    return [k for k in changed if not any(k == f or k.startswith(f + ".") for f in free)]


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, dict) and node:
        items = list(node.items())
    elif isinstance(node, list) and node:
        items = [
            (item["name"] if isinstance(item, dict) and "name" in item else i, item)
            for i, item in enumerate(node)
        ]
    else:
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
