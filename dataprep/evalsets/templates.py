"""The prompts by which a language model proposes phrases and picture prompts, with their versions.

BabyVLM's own prompts for these sets are not published; these are this project's. A change of a
template's text or schema is a new version, and every record names the version and the hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dataprep.evalsets.files import canonical, sha256

CLASSES = ("noun", "verb", "adjective")
MOST_PAIRS = 4


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@dataclass(frozen=True)
class Template:
    """A system text, a user text with ``{fields}``, and the JSON schema of the answer."""

    name: str
    system: str
    user: str
    schema: dict[str, Any]

    @property
    def hash(self) -> str:
        """SHA-256 of texts and schema."""
        return sha256(canonical([self.system, self.user, self.schema]))

    def messages(self, **fields: str) -> list[dict[str, Any]]:
        """The chat messages for these fields."""
        user = self.user
        for name, value in fields.items():
            user = user.replace("{" + name + "}", value)
        return [{"role": "system", "content": self.system}, {"role": "user", "content": user}]


_CHANGE = {"type": "string", "enum": ["same", *CLASSES]}

TWO_WORD = Template(
    name="two-word-1",
    system=(
        "You make items of a picture test for two-year-old children. A child sees a picture, taken "
        "while the sentence below was said, and chooses which of two phrases fits it."
    ),
    user=(
        "Sentence: {utterance}\n\n"
        f"Write up to {MOST_PAIRS} pairs of phrases. Every phrase has exactly two lower-case "
        "words, without articles, names or numbers: adjective and noun (red ball), verb and noun "
        "(throw ball), or noun and noun (dog house). `positive` can be seen in the picture if the "
        "sentence is about what it shows. `negative` changes one or both words so that it "
        "cannot be true of the same picture, and is as common and as sensible as `positive`: no "
        "synonym, no kind or part of the same thing, nothing else that the sentence mentions. "
        "`first` and `second` say how the first and the second word of `negative` differ from "
        "`positive`: same, or noun, verb or adjective for the class of the changed word. Give an "
        "empty list when the sentence is about nothing that can be seen."
    ),
    schema=_object(
        pairs={
            "type": "array",
            "maxItems": MOST_PAIRS,
            "items": _object(
                positive={"type": "string"},
                negative={"type": "string"},
                first=_CHANGE,
                second=_CHANGE,
            ),
        }
    ),
)

_SHARE = {"type": "number", "minimum": 0, "maximum": 1}

WINOGROUND = Template(
    name="winoground-1",
    system=(
        "You write prompts for a text-to-image model that makes test pictures for very young "
        "children: photographs of one clear everyday scene at home or outdoors, seen from a small "
        "child's height, with no text in the picture and nothing frightening."
    ),
    user=(
        "Two phrases: `{positive}` is true of a photograph, `{negative}` is not. It was taken "
        "while somebody said: {utterance}\n\n"
        "`positive_prompt`: one sentence describing a scene in which `{positive}` is plainly seen "
        "and `{negative}` is not. `negative_prompt`: the same scene in the same words, with only "
        "what is needed changed so that `{negative}` is plainly seen and `{positive}` is not. "
        "`region`: the rectangle of the photograph that has to be repainted, as shares of its "
        "width and height from the upper left corner."
    ),
    schema=_object(
        positive_prompt={"type": "string"},
        negative_prompt={"type": "string"},
        region=_object(left=_SHARE, top=_SHARE, right=_SHARE, bottom=_SHARE),
    ),
)

TEMPLATES = {template.name: template for template in (TWO_WORD, WINOGROUND)}
