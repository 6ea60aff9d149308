"""Chat models over the real protocol: what is sent, averaged, retried, refused."""

from __future__ import annotations

import base64
import io
import math
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.chat_server import ChatServer, Reply, failed, said

from benchmarks_eval.models import Material, Model, load_models, prepare
from benchmarks_eval.trials import Trial

TRIALS = {"t": [Trial("0", ("a.png",), ("red", "blue"), 0, "0")]}
COLOURS = {"red": (250, 0, 0), "blue": (0, 0, 250), "green": (0, 250, 0)}


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / f"{name}.png" for name in COLOURS}
    for name, path in paths.items():
        Image.new("RGB", (4, 4), COLOURS[name]).save(path)
    return paths


def connect(server: ChatServer, root: Path, options: str = "", **facts: Any) -> Model:
    (model,) = load_models([f"server:org/m@{server.url}{options}"], "cpu")
    prepare([model], Material(TRIALS, root, **facts))
    return model


def words(body: dict[str, Any]) -> str:
    return "\n".join(part.get("text", "") for part in body["messages"][0]["content"])


def colours(body: dict[str, Any]) -> list[str]:
    """What the server sees in the pictures of a request."""
    found: list[str] = []
    for part in body["messages"][0]["content"]:
        if part["type"] == "image_url":
            data = base64.b64decode(part["image_url"]["url"].split(",", 1)[1])
            pixel = Image.open(io.BytesIO(data)).convert("RGB").getpixel((0, 0))
            found.append(min(COLOURS, key=lambda name: sum(
                abs(a - b) for a, b in zip(COLOURS[name], pixel, strict=True))))
    return found


def sees(body: dict[str, Any]) -> Reply:
    """Names the right option, be it a text for a picture or a picture for a text."""
    if "top_logprobs" not in body:
        return said(f"a {colours(body)[0]} thing")
    options = dict(re.findall(r"^([A-Z])\. (.+)$", words(body), re.M))
    shown = colours(body)
    if options:
        letter = next(x for x, text in options.items() if text == shown[0])
    else:
        wanted = re.search(r"this best: (\w+)", words(body))
        assert wanted is not None
        letter = "ABCD"[shown.index(wanted.group(1))]
    return said(letter, {letter: math.log(0.9), "The": math.log(0.05)})


def first(body: dict[str, Any]) -> Reply:
    return said("A", {"A": math.log(0.7), "B": math.log(0.3)})


def test_the_text_for_a_picture(tmp_path: Path, pictures: dict[str, Path]) -> None:
    with ChatServer(sees) as server:
        model = connect(server, tmp_path)
        assert (model.kind, model.name) == ("letters", "m")
        got = model.letters.choose([pictures["blue"], pictures["red"]], ["red", "blue", "green"])
        assert got == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
        assert len(server.bodies) == 12  # two pictures, six orders
        assert {tuple(re.findall(r"^[A-Z]\. (.+)$", words(b), re.M)) for b in server.bodies} == {
            (a, b, c) for a in COLOURS for b in COLOURS for c in COLOURS if len({a, b, c}) == 3}
        assert all(b["temperature"] == 0 and b["model"] == "org/m" for b in server.bodies)


def test_the_picture_for_a_text(tmp_path: Path, pictures: dict[str, Path]) -> None:
    with ChatServer(sees) as server:
        model = connect(server, tmp_path)
        got = model.letters.choose([pictures["blue"], pictures["red"]], ["red"])
        assert got == [[0.0], [1.0]]
        assert sorted(colours(body) for body in server.bodies) == [["blue", "red"],
                                                                   ["red", "blue"]]


def test_what_will_be_asked_is_said_first(tmp_path: Path,
                                         caplog: pytest.LogCaptureFixture) -> None:
    trials = [Trial("0", ("a.png",), ("x", "y"), 0, "0"),
              Trial("1", ("a.png",), ("y", "x"), 1, "1"),
              Trial("2", ("a.png", "b.png", "c.png"), ("x",), 0, "2"),
              Trial("3", ("a.png", "b.png"), ("x", "y"), 0, "3"),
              Trial("4", ("",), tuple("abcde"), 0, "4")]
    (model,) = load_models(["server:m@http://127.0.0.1:9/v1"], "cpu")
    with caplog.at_level("INFO", logger="babyvlm"):
        prepare([model], Material({"t": trials}, tmp_path))
    # a.png and b.png with x or y (2 orders each), three pictures (6), five sentences (5 shifts)
    assert "4 questions in 15 requests" in caplog.text


def test_a_liking_for_the_first_option_is_chance(tmp_path: Path,
                                                 pictures: dict[str, Path]) -> None:
    with ChatServer(first) as server:
        got = connect(server, tmp_path).letters.choose([pictures["red"]], ["red", "blue"])
        assert got == [[pytest.approx(0.5), pytest.approx(0.5)]]


def test_answers_without_probabilities_are_votes(tmp_path: Path,
                                                 pictures: dict[str, Path]) -> None:
    with ChatServer(lambda body: said("The answer is A.")) as server:
        model = connect(server, tmp_path, "?logprobs=no")
        assert model.letters.choose([pictures["red"]], ["red", "blue"]) == [[0.5, 0.5]]
        assert all("logprobs" not in body for body in server.bodies)
    with ChatServer(lambda body: said("I cannot tell.")) as server:
        model = connect(server, tmp_path, "?logprobs=no")
        (row,) = model.letters.choose([pictures["red"]], ["red", "blue"])
        assert all(math.isnan(value) for value in row)


def test_no_picture_is_a_question_about_sentences(tmp_path: Path) -> None:
    with ChatServer(first) as server:
        model = connect(server, tmp_path)
        model.letters.choose([tmp_path], ["they goes", "they go"])
        assert all(colours(body) == [] and "better sentence" in words(body)
                   for body in server.bodies)


def test_captions(tmp_path: Path, pictures: dict[str, Path]) -> None:
    with ChatServer(sees) as server:
        model = connect(server, tmp_path, "?tokens=max_completion_tokens")
        paths = list(pictures.values())
        features = model.handle.image_features(paths)
        got = model.letters.generate(features, prompt="say it", max_new_tokens=9)
        assert got == [f"a {name} thing" for name in pictures]
        assert {body["max_completion_tokens"] for body in server.bodies} == {9}
        assert all("say it" in words(body) for body in server.bodies)


def test_jpeg_goes_as_it_is_and_others_as_png(tmp_path: Path, pictures: dict[str, Path]) -> None:
    jpeg, bmp = tmp_path / "x.jpg", tmp_path / "x.bmp"
    Image.new("RGB", (4, 4), (250, 0, 0)).save(jpeg)
    Image.new("RGB", (4, 4), (250, 0, 0)).save(bmp)
    with ChatServer(sees) as server:
        model = connect(server, tmp_path)
        for path in (jpeg, bmp):
            model.letters.generate([path])
        first_url, second_url = (b["messages"][0]["content"][0]["image_url"]["url"]
                                 for b in server.bodies)
        head, data = first_url.split(",", 1)
        assert head == "data:image/jpeg;base64"
        assert base64.b64decode(data) == jpeg.read_bytes()
        assert second_url.startswith("data:image/png;base64,")


def test_overload_and_faults_are_tried_again(tmp_path: Path, pictures: dict[str, Path]) -> None:
    replies = [failed(429, "slow down"), failed(503, "busy"), failed(500, "oops")]

    def rule(body: dict[str, Any]) -> Reply:
        return replies.pop() if replies else first(body)

    with ChatServer(rule) as server:
        model = connect(server, tmp_path, "?parallel=1")
        got = model.letters.choose([pictures["red"]], ["red", "blue"])
        assert got == [[pytest.approx(0.5), pytest.approx(0.5)]]
        assert len(server.bodies) == 5 and model.handle.requests == 2


@pytest.mark.parametrize(("reply", "words_"), [
    (failed(401, "Incorrect API key provided: sk-secret"), "the key in OPENAI_API_KEY was refused"),
    (failed(404, "no such model"), "no such model"),
    (failed(400, "logprobs are not supported"), r"accepted: \?logprobs=no"),
    ((200, {"choices": []}), "the response is no completion"),
    ((200, [1]), "the response is no completion"),
])
def test_what_the_server_refuses_is_one_line(reply: Reply, words_: str, tmp_path: Path,
                                             pictures: dict[str, Path],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with ChatServer(lambda body: reply) as server:
        model = connect(server, tmp_path)
        with pytest.raises(OSError, match=words_) as raised:
            model.letters.choose([pictures["red"]], ["red", "blue"])
        assert "\n" not in str(raised.value) and "sk-secret" not in str(raised.value)
        assert server.keys[0] == "Bearer sk-secret"


def test_restricted_pictures_stay_here(tmp_path: Path, pictures: dict[str, Path]) -> None:
    with ChatServer(first) as server:
        spec = f"server:org/m@{server.url}"
        with pytest.raises(ValueError, match=r"--allow-upload") as raised:
            connect(server, tmp_path, show_pictures=False)
        assert str(raised.value).startswith(f"--model {spec}: ")
        (unasked,) = load_models([spec], "cpu")
        for ask in (lambda: unasked.letters.choose([pictures["red"]], ["red", "blue"]),
                    lambda: unasked.letters.generate([pictures["red"]])):
            with pytest.raises(ValueError, match=r"red\.png: not sent"):
                ask()
        assert server.bodies == []
        allowed = connect(server, tmp_path, show_pictures=False, allow_upload=True)
        allowed.letters.choose([pictures["red"]], ["red", "blue"])
        assert len(server.bodies) == 2


@pytest.mark.parametrize(("options", "words_"), [
    ("?logprobs=maybe", "accepted: yes, no"), ("?parallel=0", "accepted: 1 to 256"),
    ("?temperature=hot", "accepted: a number, default"),
    ("?tokens=10", "accepted: max_tokens, max_completion_tokens"),
])
def test_options_are_checked(options: str, words_: str) -> None:
    with pytest.raises(ValueError, match=words_):
        load_models([f"server:m@http://127.0.0.1:9/v1{options}"], "cpu")


def test_hashes_follow_what_was_asked_for() -> None:
    specs = [f"server:{name}@http://127.0.0.1:9/v1{options}" for name, options in (
        ("m", ""), ("n", ""), ("m", "?prompt=x"), ("m", "?temperature=default"))]
    hashes = [load_models([spec], "cpu")[0].handle.weights_hash for spec in specs]
    assert len(set(hashes)) == 4
    assert load_models([specs[0]], "cpu")[0].handle.weights_hash == hashes[0]
