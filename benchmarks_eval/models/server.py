"""Chat models behind an OpenAI-compatible server: they name an option by its letter.

This is another kind of measurement than a likelihood: tables mark it. Weights behind a server may
change without a word; the hash says only what was asked for.
"""

from __future__ import annotations

import base64
import io
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks_eval.models.hashing import hash_facts
from benchmarks_eval.models.letters import (
    ALL_ORDERS,
    ANSWER,
    ASK_PICTURE,
    LETTERS,
    average,
    letter_shares,
    orders,
    question,
    read_letter,
)
from benchmarks_eval.models.pictures import rgb
from benchmarks_eval.models.protocols import Material

if TYPE_CHECKING:
    from openai import OpenAI

log = logging.getLogger("babyvlm")

KEY_VARIABLE = "OPENAI_API_KEY"
RETRIES = 6
"""Of the client, with growing pauses, for overload, errors of the server, lost connections."""
TIMEOUT_S = 120.0
ANSWER_TOKENS = 16
TOP = 20
"""Likeliest first tokens that are asked for (the most that OpenAI's servers give)."""
CAPTION = "Say a short sentence to a child about this picture."
_SENT_AS_IS = {"JPEG": "image/jpeg", "PNG": "image/png"}


class ServerModel:
    """A chat model.

    Args:
        model: its name on the server.
        client: of the ``openai`` package.
        prompt: question for tasks that have none of their own; empty: `letters.ASK_TEXT` and like.
        logprobs: ask for the likeliest first tokens; else one answer is one vote.
        parallel: requests at once.
        temperature: of the sampling; None leaves it to the server.
        tokens: what the server calls the limit of an answer's length.
    """

    kind = "letters"
    device = None

    def __init__(self, model: str, client: OpenAI, *, prompt: str = "", logprobs: bool = True,
                 parallel: int = 8, temperature: float | None = 0.0,
                 tokens: str = "max_tokens") -> None:
        self.model, self.client, self.prompt, self.tokens = model, client, prompt, tokens
        self.logprobs, self.parallel, self.temperature = logprobs, parallel, temperature
        self.requests = 0
        self._may_send = False

    @property
    def _where(self) -> str:
        return f"{self.client.base_url}, model {self.model}"

    @property
    def tower_hash(self) -> str:
        """No features are kept: pictures go to the server."""
        return hash_facts("server", str(self.client.base_url), self.model)

    @property
    def weights_hash(self) -> str:
        """Of server, model name and options: all that can be known."""
        return hash_facts(self.tower_hash, self.prompt, self.logprobs, self.temperature)

    def prepare(self, material: Material) -> None:
        """Checks that the pictures may leave this machine, and says how much will be asked.

        Raises:
            ValueError: the suite's pictures may not be passed on.
        """
        pictures = any(image for trials in material.trials.values() for trial in trials
                       for image in trial.images)
        if pictures and not material.show_pictures and not material.allow_upload:
            raise ValueError(f"would send pictures to {self.client.base_url}, and this suite's may "
                             f"not be passed on (show_pictures: false); --allow-upload if your "
                             f"agreement lets you")
        self._may_send = True
        asked = {(image, tuple(sorted(trial.texts))) if len(trial.texts) > 1 else
                 (tuple(sorted(trial.images)), trial.texts)
                 for trials in material.trials.values() for trial in trials
                 for image in trial.images}
        sizes = [len(shown) if len(shown) > 1 else len(about) for about, shown in asked]
        log.info("%s: %d questions in %d requests (each in every order of its options, above %d "
                 "options with each in every place), and one a caption", self._where, len(sizes),
                 sum(len(orders(size)) for size in sizes if size <= len(LETTERS)), ALL_ORDERS)

    def image_features(self, images: Sequence[Any]) -> list[Any]:
        """The pictures themselves: the server sees them as they are."""
        return list(images)

    def choose(self, images: Sequence[Path], texts: Sequence[str], *,
               prompt: str = "") -> list[list[float]]:
        """Share of the answers [I, J] over the orders of the options; NaN: no usable answer.

        With several texts each picture (a path that ends in nothing: none) is shown with all of
        them; with one text all pictures are shown together.

        Raises:
            OSError: the server cannot be reached or refuses (key, model, request).
        """
        if len(texts) > 1:
            return [self._choose_text(image, texts, prompt) for image in images]
        shown = [self._picture(image) for image in images]
        ask = _text(f"{prompt or self.prompt or ASK_PICTURE}\n{ANSWER}".replace("{text}", texts[0]))
        contents = [[part for place, k in enumerate(order)
                     for part in (_text(f"{LETTERS[place]}:"), *shown[k])] + [ask]
                    for order in orders(len(images))]
        return [[share] for share in self._among(contents, orders(len(images)))]

    def _choose_text(self, image: Path, texts: Sequence[str], prompt: str) -> list[float]:
        picture, shown = self._picture(image), orders(len(texts))
        asked = [question([texts[k] for k in order], prompt or self.prompt, bool(picture))
                 for order in shown]
        return self._among([[*picture, _text(words)] for words in asked], shown)

    def generate(self, features: Any, *, prompt: str = "", max_new_tokens: int = 25) -> list[str]:
        """One caption per picture (paths); ``None``: one text without a picture."""
        pictures = [None] if features is None else list(features)
        ask = prompt or self.prompt or CAPTION
        contents = [[*([] if picture is None else self._picture(picture)), _text(ask)]
                    for picture in pictures]
        with ThreadPoolExecutor(self.parallel) as pool:
            answers = list(pool.map(
                lambda content: self._ask(content, max_new_tokens, False), contents))
        return [" ".join((answer.message.content or "").split()) for answer in answers]

    def record_scores(self, scores: dict[str, Any]) -> None:
        """Nothing: there is no model card of ours."""

    def _among(self, contents: list[list[Any]], shown: list[tuple[int, ...]]) -> list[float]:
        with ThreadPoolExecutor(self.parallel) as pool:
            answers = list(pool.map(
                lambda content: self._ask(content, ANSWER_TOKENS, self.logprobs), contents))
        return average(shown, [_shares(answer, len(shown[0])) for answer in answers])

    def _picture(self, picture: Any) -> list[Any]:
        if not _is_picture(picture):
            return []
        if not self._may_send:
            raise ValueError(f"{picture}: not sent to {self.client.base_url} before the run is "
                             f"known to allow it")
        return [{"type": "image_url", "image_url": {"url": data_url(picture)}}]

    def _ask(self, content: list[Any], max_tokens: int, logprobs: bool) -> Any:
        """The first choice of a completion.

        Raises:
            OSError: after all retries; one line.
        """
        from openai import APIError

        body: dict[str, Any] = {"model": self.model, self.tokens: max_tokens,
                                "messages": [{"role": "user", "content": content}]}
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP}
        self.requests += 1
        try:
            response = self.client.chat.completions.create(**body)
        except (APIError, ValueError) as error:  # ValueError: not JSON
            raise OSError(self._why(error, logprobs)) from None
        choices = getattr(response, "choices", None)
        if not choices or getattr(choices[0], "message", None) is None:
            raise OSError(f"{self._where}: the response is no completion")
        return choices[0]

    def _why(self, error: Exception, logprobs: bool) -> str:
        status = getattr(error, "status_code", None)
        said = " ".join(str(error).split())[:200] or type(error).__name__
        key = os.environ.get(KEY_VARIABLE, "").strip()
        said = said.replace(key, "[key]") if key else said
        if status == 401:  # what the server says repeats parts of the key
            return f"{self._where}: the key in {KEY_VARIABLE} was refused (HTTP 401)"
        if status == 400 and logprobs and "logprob" in said:
            return f"{self._where}: gives no log-probabilities ({said}); accepted: ?logprobs=no"
        return f"{self._where}: {said}"


def _is_picture(picture: Any) -> bool:
    # Without a picture the key is "", so that its path is the data folder itself.
    return picture is not None and str(picture) != "" and not Path(picture).is_dir()


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def data_url(picture: Any) -> str:
    """A picture as a data URL: JPEG and PNG files byte by byte, all else as PNG.

    Raises:
        ValueError: the file is missing or no picture.
    """
    from PIL import Image

    rgb(picture)  # a file that cannot be decoded is named here, not by the server
    with Image.open(Path(picture)) as image:
        kind = _SENT_AS_IS.get(image.format or "")
    if kind is not None:
        data = Path(picture).read_bytes()
    else:
        buffer = io.BytesIO()
        rgb(picture).save(buffer, format="PNG")
        kind, data = "image/png", buffer.getvalue()
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _shares(answer: Any, count: int) -> list[float] | None:
    """Shares of the places from one answer: its first token's alternatives, else its letter."""
    place = read_letter(answer.message.content or "", count)
    content = getattr(getattr(answer, "logprobs", None), "content", None)
    if content and content[0].top_logprobs:
        shares = letter_shares({top.token: top.logprob for top in content[0].top_logprobs}, count)
        if shares is not None:
            return shares
    if place is None:
        return None
    return [float(k == place) for k in range(count)]


def load_server(model: str, url: str, *, prompt: str = "", logprobs: str = "yes",
                parallel: str = "8", temperature: str = "0",
                tokens: str = "max_tokens") -> ServerModel:
    """A model behind a server; nothing is asked yet.

    Args:
        model: its name there.
        url: with ``/v1``. The key comes from ``OPENAI_API_KEY`` and is stored nowhere.
        prompt: question for tasks that have none of their own.
        logprobs: ``yes`` or ``no``.
        parallel: requests at once.
        temperature: a number, or ``default``.
        tokens: ``max_tokens`` or ``max_completion_tokens``, whichever the server takes.

    Raises:
        ValueError: an option is out of range, or the key holds characters that no key has.
    """
    from openai import OpenAI

    if logprobs not in ("yes", "no"):
        raise ValueError(f"server:{model}: logprobs '{logprobs}'; accepted: yes, no")
    if not parallel.isdecimal() or not 1 <= int(parallel) <= 256:
        raise ValueError(f"server:{model}: parallel '{parallel}'; accepted: 1 to 256")
    try:
        warmth = None if temperature == "default" else float(temperature)
    except ValueError:
        raise ValueError(f"server:{model}: temperature '{temperature}'; accepted: a number, "
                         f"default") from None
    if tokens not in ("max_tokens", "max_completion_tokens"):
        raise ValueError(f"server:{model}: tokens '{tokens}'; accepted: max_tokens, "
                         f"max_completion_tokens")
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key.isascii() or not key.isprintable():
        raise ValueError(f"{KEY_VARIABLE} holds characters that no key has; check how it was set")
    client = OpenAI(api_key=key or "none", base_url=url, timeout=TIMEOUT_S, max_retries=RETRIES)
    return ServerModel(model, client, prompt=prompt, logprobs=logprobs == "yes",
                       parallel=int(parallel), temperature=warmth, tokens=tokens)
