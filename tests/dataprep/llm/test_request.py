"""What a request is named by, how it is sent, how an answer is judged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dataprep.llm import Request
from dataprep.llm.outcome import judge
from dataprep.llm.request import read_answer

SCHEMA = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"],
          "additionalProperties": False}
ASK = Request("m", ({"role": "user", "content": "a word, please: é"},), SCHEMA, template="t-1")
PNG, JPEG = b"\x89PNG\r\n1", b"\xff\xd8\xff\xe01"


def test_the_key_stays_what_it_was() -> None:
    # Pinned: a change here makes every stored answer unknown.
    assert ASK.key == "7c313ce2970813510aeb01a7c68ceacfb4754feb6cf3a9661a076192c79d1977"


def test_every_field_is_in_the_key_and_equal_requests_share_it() -> None:
    changed = [
        replace(ASK, model="n"), replace(ASK, messages=({"role": "user", "content": "x"},)),
        replace(ASK, schema=None), replace(ASK, max_tokens=9), replace(ASK, temperature=None),
        replace(ASK, seed=0), replace(ASK, template="t-2"), replace(ASK, images=(PNG,)),
        replace(ASK, images=(JPEG,)), replace(ASK, images=(PNG, JPEG)),
    ]
    assert len({r.key for r in [ASK, *changed]}) == 11
    shuffled = dict(reversed(list(SCHEMA.items())))
    assert replace(ASK, schema=shuffled, messages=[dict(ASK.messages[0])]).key == ASK.key


def test_the_body_is_what_the_protocol_wants() -> None:
    body = replace(ASK, images=(PNG,), seed=3).body(tokens_name="max_completion_tokens")
    assert (body["model"], body["max_completion_tokens"], body["seed"]) == ("m", 256, 3)
    assert body["response_format"] == {
        "type": "json_schema", "json_schema": {"name": "t-1", "strict": True, "schema": SCHEMA}}
    text, image = body["messages"][-1]["content"]
    assert text == {"type": "text", "text": "a word, please: é"}
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert "response_format" not in ASK.body(structured=False)
    assert "temperature" not in replace(ASK, temperature=None).body()
    with pytest.raises(ValueError, match="none of JPEG, PNG, WebP"):
        replace(ASK, images=(b"GIF89a",)).body()


def good(**changes) -> dict:
    return {"finish": "stop", "text": '{"word": "ball"}', "refusal": None, "usage": {}} | changes


@pytest.mark.parametrize(("record", "failure"), [
    (good(), None),
    (good(refusal="I'm sorry"), "refusal"),
    (good(finish="content_filter"), "filter"),
    (good(finish="length"), "length"),  # even if what came happens to be whole
    (good(text='{"word": "ba'), "schema"),
    (good(text='{"word": 3}'), "schema"),
    (good(text='{"word": "ball", "more": 1}'), "schema"),
    (good(text='["ball"]'), "schema"),
    (good(text=""), "schema"),
])
def test_answers_are_judged(record: dict, failure: str | None) -> None:
    reply = read_answer(ASK, record)
    assert reply.failure == failure
    assert reply.value == (None if failure else {"word": "ball"})
    assert reply.text


def test_plain_text_needs_no_schema() -> None:
    plain = replace(ASK, schema=None)
    assert read_answer(plain, good(text="ball")).value == {"text": "ball"}
    assert read_answer(plain, good(text="")).failure == "schema"


def error(code: str | None = None, message: str = "so it is") -> dict:
    return {"error": {"message": message, "type": None, "code": code}}


@pytest.mark.parametrize(("status", "body", "failure", "fatal"), [
    (429, error(), "rate", None),
    (429, error("insufficient_quota"), None, "quota is used up"),
    (401, error(message="Incorrect API key provided: sk-1"), None, "was refused"),
    (403, error(), None, "HTTP 403"),
    (404, error("model_not_found"), None, "model_not_found: so it is"),
    (400, error(), "schema", None),
    (500, None, "transport", None), (503, {}, "transport", None), (408, error(), "transport", None),
    (200, None, "transport", None), (200, {"choices": []}, "transport", None),
    (200, {"choices": [{"message": None, "finish_reason": "stop"}]}, "transport", None),
])
def test_responses_are_sorted(status, body, failure, fatal) -> None:
    outcome = judge("k", "http://here", status, body)
    assert (outcome.failure, outcome.answer) == (failure, None)
    assert "sk-1" not in f"{outcome}"
    if fatal:
        assert fatal in (outcome.fatal or "")
        assert "\n" not in (outcome.fatal or "")
    else:
        assert outcome.fatal is None


def test_a_filtered_request_is_an_answer() -> None:
    outcome = judge("k", "o", 400, error("content_filter"))
    assert outcome.answer is not None
    assert read_answer(ASK, {"finish": outcome.answer.finish}).failure == "filter"
