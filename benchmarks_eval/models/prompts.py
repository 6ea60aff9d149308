"""From a task's prompt to the tokens that come before and in a scored text.

A template is one string with ``<image>`` (the picture), ``{prompt}`` and, last, ``{text}`` (what is
scored). Prompt and text are tokenised together and cut where the text begins, so that the text's
first token is the one the model was trained on; spaces before ``{text}`` belong to the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGE = "<image>"
PLAIN = "<image>\n{prompt} {text}"
"""BabyLLaVA's: the picture, a line break, the prompt if any, a space, the text."""


@dataclass(frozen=True)
class Tokens:
    """Token ids: the prefix (with one id for the picture, however long it is) and each text."""

    prefix: list[int]
    texts: list[list[int]]


class Template:
    """A template and the tokeniser it is for.

    Args:
        source: ``plain``, ``chat`` (the processor's own chat template) or a file with a template.
        processor: of transformers; its tokeniser must know ``<image>`` as one token.

    Raises:
        ValueError: no such template, or a malformed one.
    """

    def __init__(self, source: str, processor: Any) -> None:
        self._processor, self._tokenizer = processor, processor.tokenizer
        self.image_id = int(self._tokenizer.convert_tokens_to_ids(IMAGE))
        if self._tokenizer.encode(IMAGE, add_special_tokens=False) != [self.image_id]:
            raise ValueError(f"the tokeniser does not know '{IMAGE}' as one token")
        self.text: str | None = None
        if source == "chat":
            if not getattr(processor, "chat_template", None):
                raise ValueError("the processor has no chat template; accepted: template=plain or "
                                 "template=FILE")
        elif source == "plain":
            self.text = PLAIN
        else:
            self.text = _read(Path(source))
        # What the tokeniser puts before every text, such as <s>.
        bare = self._tokenizer.encode("a", add_special_tokens=False)
        full = self._tokenizer.encode("a", add_special_tokens=True)
        begin = next((k for k in range(len(full)) if full[k:k + len(bare)] == bare), 0)
        self._before: list[int] = full[:begin]

    def render(self, prompt: str, picture: bool) -> str:
        """The prefix as a string, spaces before the text included."""
        if self.text is not None:
            shown = self.text.removesuffix("{text}").replace("{prompt}", prompt)
            return shown if picture else shown.replace(f"{IMAGE}\n", "").replace(IMAGE, "")
        content = [{"type": "image"}] if picture else []
        turn = {"role": "user", "content": [*content, {"type": "text", "text": prompt}]}
        shown = self._processor.apply_chat_template([turn], add_generation_prompt=True,
                                                    tokenize=False)
        return shown if shown[-1:].isspace() else f"{shown} "

    def encode(self, prompt: str, texts: Sequence[str], picture: bool) -> Tokens:
        """Tokens of the prefix and of every text after it.

        Raises:
            ValueError: a text changes the tokens of the prompt before it.
        """
        shown = self.render(prompt, picture)
        prefix = shown.rstrip(" ")
        gap = shown[len(prefix):]
        before = [] if prefix.startswith(self._tokenizer.bos_token or "\0") else self._before
        head = self._tokenizer.encode(prefix, add_special_tokens=False) if prefix else []
        whole = [self._tokenizer.encode(f"{prefix}{gap}{text}", add_special_tokens=False)
                 if text else head for text in texts]
        for text, ids in zip(texts, whole, strict=True):
            if ids[:len(head)] != head:
                raise ValueError(f"the tokens of the prompt {prefix[-20:]!r} change when {text!r} "
                                 f"follows: end the template's prompt with a space")
        if picture and head.count(self.image_id) != 1:
            raise ValueError(f"the prompt holds '{IMAGE}' {head.count(self.image_id)} times; "
                             f"accepted: once")
        full = [*before, *head]
        if not full and self._tokenizer.bos_token_id is not None:
            full = [int(self._tokenizer.bos_token_id)]
        if not full:
            raise ValueError("without a picture the prompt is empty and the tokeniser begins with "
                             "nothing: there is no position that predicts the first token")
        return Tokens(full, [ids[len(head):] for ids in whole])


def _read(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"template {file}: accepted: chat, plain, or a text file") from None
    if text.count(IMAGE) != 1 or "{prompt}" not in text or not text.endswith("{text}") \
            or text.count("{text}") != 1:
        raise ValueError(f"{file}: a template holds '{IMAGE}' once, '{{prompt}}', and ends in "
                         f"'{{text}}'")
    return text
