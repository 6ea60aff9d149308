"""Rules that answer the shipped template without a language model, for demonstrations and tests.

They know some hundred words and no grammar: what they write shows that the pipeline works, not
how well a language model would do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from dataprep.llm.server import Rule

_LEAVE_OUT = {
    "advertisement": "sale price offer buy discount shop.com www http subscribe download brand",
    "abstract": "logo vector diagram chart infographic screenshot icon template concept symbol "
    "arrow sign button flag mark keycap letter",
    "unsuitable": "gun rifle pistol sword knife bomb war blood skull coffin cigarette wine beer "
    "whisky dagger",
    "outside_daily_life": "satellite missile parliament turbine reactor conference skyscraper "
    "stock-market laboratory oil-rig warship",
}
_REASONS = {word: reason for reason, words in _LEAVE_OUT.items() for word in words.split()}
_STARTS = "a an the some photo picture image close up view of in"
_ENDS = "with in on at of by near from under over and while parked standing sitting for to , ."
_FRAMES = (
    "look, {a}!", "see {the}?", "what a nice {noun}!", "that is {a}.", "can you see {the}?",
    "hello, {noun}!",
)  # fmt: skip


def rewrite(body: Mapping[str, Any]) -> dict[str, str]:
    """The answer to a rewriting request: leave out by word lists, else name the first thing."""
    content = body["messages"][-1]["content"]
    caption = content.split("Caption:", 1)[1].strip()
    words = re.findall(r"[a-z][a-z'-]*|[.,]", caption.lower())
    for word in words:
        if word in _REASONS:
            return {"verdict": _REASONS[word], "utterance": ""}
    while words and words[0] in _STARTS.split():
        words.pop(0)
    thing: list[str] = []
    for word in words:
        if word in _ENDS.split() or len(thing) == 3:
            break
        thing.append(word)
    if not thing:
        return {"verdict": "unclear", "utterance": ""}
    noun = " ".join(thing)
    article = "some" if noun.endswith("s") else "an" if noun[0] in "aeiou" else "a"
    digest = hashlib.sha256(caption.encode("utf-8", "replace")).digest()
    frame = _FRAMES[digest[0] % len(_FRAMES)]
    said = frame.format(a=f"{article} {noun}", the=f"the {noun}", noun=noun)
    return {"verdict": "daily_life", "utterance": said}


RULES: dict[str, Rule] = {"rewrite-v1": rewrite}
