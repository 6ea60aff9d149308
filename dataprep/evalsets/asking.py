"""Putting a template's questions to a language model: one request a distinct question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dataprep.evalsets.templates import Template
from dataprep.llm import Reply, Request

Ask = Callable[[Sequence[Request]], Mapping[str, Reply]]
"""Answers by request key (:func:`dataprep.llm.answer` with its store and backend)."""

MAX_TOKENS = 512
PASSING = ("transport", "rate", "unanswered")
"""Failures after which the same question may be answered another time."""


@dataclass(frozen=True)
class Asked:
    """One question and what came of it."""

    request: Request
    reply: Reply | None
    """None where no answer came."""

    @property
    def value(self) -> dict[str, Any] | None:
        """The answer, which fulfils the schema; None where there is none."""
        return None if self.reply is None else self.reply.value

    @property
    def failure(self) -> str:
        """Why there is no answer; empty where there is one."""
        if self.reply is None:
            return "unanswered"
        return self.reply.failure or ""


def put(
    template: Template,
    questions: Sequence[Mapping[str, str]],
    ask: Ask,
    *,
    model: str,
    seed: int | None,
    images: Sequence[Sequence[bytes]] | None = None,
    max_tokens: int = MAX_TOKENS,
) -> list[Asked]:
    """Ask every question (the template's fields, and pictures where given); answers in order."""
    requests = [
        Request(
            model=model,
            messages=template.messages(**fields),
            schema=template.schema,
            max_tokens=max_tokens,
            seed=seed,
            template=template.name,
            images=tuple(images[i]) if images is not None else (),
        )
        for i, fields in enumerate(questions)
    ]
    distinct = {request.key: request for request in requests}
    replies = ask(list(distinct.values())) if distinct else {}
    return [Asked(request, replies.get(request.key)) for request in requests]


def failures(asked: Sequence[Asked]) -> dict[str, int]:
    """How many distinct questions failed, by kind."""
    kinds = {a.request.key: a.failure for a in asked if a.failure}
    return dict(sorted(Counter(kinds.values()).items()))


def stop_if_unanswered(asked: Sequence[Asked]) -> None:
    """OSError when requests are open for reasons that pass: a set without them would be partial."""
    kinds = failures(asked)
    open_now = sum(kinds.get(kind, 0) for kind in PASSING)
    if open_now:
        texts = [a.reply.text for a in asked if a.reply is not None and a.failure in PASSING]
        why = texts[0] if texts else "no answer came"
        raise OSError(
            f"{open_now} requests are unanswered ({why}); the answers that came are kept: run the "
            "same command again"
        )


def asked_by(template: Template, asked: Asked) -> dict[str, Any]:
    """Provenance of an answer: request key, model (and the snapshot that served), template."""
    return {
        "request_key": asked.request.key,
        "model": asked.request.model,
        "served_by": asked.reply.model if asked.reply is not None else "",
        "template": template.name,
        "template_sha256": template.hash,
        "llm_seed": asked.request.seed,
    }
