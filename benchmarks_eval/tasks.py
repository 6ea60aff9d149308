"""Task files: short YAML lists of benchmarks, checked key by key before anything is scored."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Kind = Literal["labeled", "two_word", "winoground", "caption", "text_choice", "picture_choice"]
Format = Literal["babyvlm", "winoground", "devbench", "blimp", "sugarcrepe"]
Direction = Literal["image", "text"]
Normalise = Literal["mean", "sum", "char", "pmi"]

FORMATS: dict[Format, tuple[Kind, ...]] = {
    "babyvlm": ("labeled", "two_word", "winoground", "caption"),
    "winoground": ("winoground",),
    "devbench": ("picture_choice", "winoground", "text_choice"),
    "blimp": ("text_choice",),
    "sugarcrepe": ("text_choice",),
}
"""Published file formats and the kinds of question that each can hold."""

# Fields that mean something for some kinds only; anywhere else they are a mistake worth naming.
_KIND_FIELDS: dict[str, frozenset[str]] = {
    "directions": frozenset({"labeled"}),
    "candidates": frozenset({"labeled"}),
    "rename": frozenset({"labeled"}),
    "foils": frozenset({"caption"}),
    "retrieval_pool": frozenset({"caption"}),
    "max_new_tokens": frozenset({"caption"}),
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Task(_Section):
    """One benchmark: a file in a published format and how its pairs are scored."""

    name: str = Field(min_length=1)
    """Unique within the file; names the rows of every table."""
    kind: Kind
    """What is asked, and with it which figures are reported. ``text_choice``: one of several texts
    for a picture (or for none: grammar pairs); ``picture_choice``: one of several pictures."""
    file: str
    """The data file, relative to the task file's root; for BLiMP also a folder of JSON lines."""
    format: Format = "babyvlm"
    """Whose file layout it is: ``babyvlm`` (the four official CSVs), ``winoground``
    (examples.jsonl or parquet), ``devbench`` (manifest.csv: text1, image1, image2, ...; the right
    answer first), ``blimp`` (JSON lines), ``sugarcrepe`` (JSON)."""
    group: str = ""
    """Heading under which tables list the task (for instance the split)."""
    image_root: str = "."
    """Folder that the file's picture names start from, relative to the root."""
    templates: tuple[str, ...] = ("{text}",)
    """Texts put around a label or phrase: ``{text}``, or ``{a_text}`` with its indefinite article.
    The scores of several are averaged."""
    rename: dict[str, str] = {}
    """labeled: labels said otherwise, for instance ``{cat: kitty}`` for the child's own word."""
    prompt: str = ""
    """What a generative model reads before the scored text (never scored). Contrastive: unused."""
    normalise: Normalise = "mean"
    """Log-likelihood per token (``mean``, the BabyVLM paper's), summed (``sum``), per character
    (``char``), or its gain over the text alone (``pmi``, weighted by ``alpha``)."""
    alpha: float = Field(default=1.0, ge=0)
    """``pmi``: how much of the text's own log-likelihood is taken off."""
    score_eos: bool = False
    """Whether the end-of-sequence token counts as part of the scored text (paper: no)."""
    directions: tuple[Direction, ...] = ("image", "text")
    """labeled: choose the picture for a label (paper), the label for a picture, or both."""
    candidates: Literal["trial", "all"] = "trial"
    """labeled, the label for a picture: the trial's own labels (``trial``), or every label of the
    file for each distinct target picture (``all``: what a confusion matrix is made of)."""
    cluster: str | None = None
    """Column whose equal values make trials dependent. By default the picture (labeled: the
    target's); winoground files: the example; devbench: the set of pictures; BLiMP: the paradigm, or
    the pair when there is one paradigm only."""
    cluster_pattern: str | None = None
    """Regular expression with one group: the part of the cluster value that counts."""
    foils: int = Field(default=3, ge=1)
    """caption: other pictures that each caption is compared with."""
    retrieval_pool: int = Field(default=256, ge=2)
    """caption, contrastive models: at most this many pictures compete for a caption."""
    max_new_tokens: int = Field(default=25, ge=1)
    """caption: longest generated caption in tokens (paper: 25)."""

    @model_validator(mode="after")
    def _check(self) -> Task:
        for field, kinds in _KIND_FIELDS.items():
            if field in self.model_fields_set and self.kind not in kinds:
                raise ValueError(f"'{field}' has no meaning for kind '{self.kind}'")
        if self.kind not in FORMATS[self.format]:
            able = [name for name, kinds in FORMATS.items() if self.kind in kinds]
            raise ValueError(f"kind '{self.kind}' does not come in format '{self.format}'; "
                             f"accepted: {', '.join(able)}")
        if "alpha" in self.model_fields_set and self.normalise != "pmi":
            raise ValueError(f"'alpha' has no meaning for normalise '{self.normalise}'")
        if self.candidates == "all" and self.directions != ("text",):
            raise ValueError("'candidates: all' is for 'directions: [text]'")
        if not self.templates or any(
                "{text}" not in t and "{a_text}" not in t for t in self.templates):
            raise ValueError("every template needs the place holder {text} or {a_text}")
        if not self.directions:
            raise ValueError("'directions' must name image, text or both")
        if self.cluster_pattern is not None:
            try:
                groups = re.compile(self.cluster_pattern).groups
            except re.error as error:
                raise ValueError(f"'cluster_pattern' is no regular expression: {error}") from None
            if groups != 1:
                raise ValueError("'cluster_pattern' needs exactly one group in parentheses")
        return self

    def render(self, text: str) -> list[str]:
        """The strings that stand for ``text``: one per template."""
        text = self.rename.get(text, text)
        article = "an" if text[:1].lower() in "aeiou" else "a"
        return [template.replace("{a_text}", f"{article} {text}").replace("{text}", text)
                for template in self.templates]


class TaskFile(_Section):
    """A named, versioned list of tasks over one data folder."""

    name: str = Field(min_length=1)
    """Name of the suite; also names the default output folder."""
    version: int = Field(ge=1)
    """Raised whenever a change of the file or its data changes a figure."""
    description: str = ""
    """One sentence for people."""
    root: str
    """Folder of the data, relative to the working directory (``--root`` overrides it)."""
    corpus: str | None = None
    """Corpus whose training utterances give the word frequencies of the unigram floor; without
    one the task's own phrases are counted, right and wrong alike."""
    show_pictures: bool = True
    """Whether pages may embed pictures; off for data under a use agreement."""
    tasks: tuple[Task, ...] = Field(min_length=1)
    """The benchmarks, in the order of the tables."""

    @model_validator(mode="after")
    def _check(self) -> TaskFile:
        names = [task.name for task in self.tasks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two tasks are named '{name}'")
        return self

    def only(self, names: Iterable[str]) -> TaskFile:
        """The same file with the named tasks alone.

        Raises:
            ValueError: a name is unknown; the nearest known one is given.
        """
        wanted, known = list(names), [task.name for task in self.tasks]
        for name in wanted:
            if name not in known:
                raise ValueError(f"unknown task '{name}'{nearest(name, known)}")
        return self.model_copy(update={"tasks": tuple(t for t in self.tasks if t.name in wanted)})


def nearest(name: str, accepted: Iterable[str]) -> str:
    """A tail for error messages: the nearest accepted name and the list of all."""
    names = list(accepted)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f", did you mean '{close[0]}'?" if close else ";"
    return f"{hint} accepted: {', '.join(names)}"


def load_tasks(path: str | Path) -> TaskFile:
    """Reads and checks a task file.

    Raises:
        ValueError: one line naming the file, the key, what was wrong and what is accepted.
    """
    path = Path(path)
    if not path.is_file():
        known = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = nearest(path.name, known) if known else ""
        raise ValueError(f"{path}: no such task file{hint}")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: a task file is a mapping with the keys "
                         f"{', '.join(TaskFile.model_fields)}")
    try:
        return TaskFile.model_validate(raw)
    except ValidationError as error:
        raise ValueError(f"{path}: {_one_line(error)}") from None


def _one_line(error: ValidationError) -> str:
    # A mistyped key also leaves its field missing: the typing is what to name.
    errors: list[Any] = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first = errors[0]
    loc: list[int | str] = list(first["loc"])
    where = ""
    for part in loc:
        where += f"[{part}]" if isinstance(part, int) else (f".{part}" if where else str(part))
    if first["type"] == "extra_forbidden":
        fields = (Task if len(loc) > 2 else TaskFile).model_fields
        return f"{where}: unknown key{nearest(str(loc[-1]), fields)}"
    if first["type"] == "literal_error":
        accepted = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        value = str(first["input"])
        return f"{where}: '{value}' is not accepted{nearest(value, accepted)}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
