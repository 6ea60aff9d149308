"""The command: what it writes, what it sends, what it says when it cannot."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from support.captions import caption, digests, make_corpus, rewrite, start

from dataprep.llm import Reply, RequestStore
from dataprep.llm.server import Faults, LocalServer
from dataprep.rewrite.stand_in import RULES
from dataprep.rewrite.stand_in import rewrite as stand_in_rewrite
from dataprep.rewrite.template import load_template
from engine import read_corpus


@pytest.fixture(scope="module")
def general(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("general") / "general", 60)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataprep.llm import openai_batch, openai_sync

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for kind, some in ((openai_batch.OpenAIBatch, {"poll_s": 0.02, "settle_s": 0.0}),
                       (openai_sync.OpenAISync, {"first_patience_s": 0.3, "patience_s": 0.3})):
        for name, value in {**some, "first_wait_s": 0.02}.items():
            monkeypatch.setitem(kind.__init__.__kwdefaults__, name, value)


def words(general: Path, out: Path, backend: str, *more: str | Path) -> list[str | Path]:
    return ["--corpus", general, "--out", out, "--backend", backend, "--quiet", *more]


def error(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


def test_raw_pictures_are_ingested_first(tmp_path: Path, capsys) -> None:
    rows = []
    for number, said in enumerate(["a brown dog on the grass", "a chart of revenue"]):
        Image.new("RGB", (8, 8), (number, 9, 9)).save(tmp_path / f"{number}.png")
        rows.append({"id": str(number), "image": f"{number}.png", "conversations": [
            {"from": "human", "value": "<image>"}, {"from": "gpt", "value": said}]})
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    raw = ["--rows", tmp_path / "rows.json", "--pictures", tmp_path, "--out", tmp_path / "new",
           "--backend", "stand-in", "--quiet"]
    assert rewrite(*raw) == 0
    assert len(read_corpus(tmp_path / "new.source").pairs("train")) == 2
    assert [u for split in read_corpus(tmp_path / "new").splits
            for u in read_corpus(tmp_path / "new").pairs(split).utterance] != []
    capsys.readouterr()
    assert rewrite(*raw) == 0
    assert "there already" in capsys.readouterr().out
    assert rewrite(*raw, "--corpus", tmp_path) == 2
    assert "--corpus or --rows is needed" in error(capsys)


def test_the_corpus_says_where_every_row_comes_from(general, tmp_path, capsys) -> None:
    faults = Faults(refusal=0.1, length=0.05, bad_content=0.05)
    with LocalServer(RULES, faults) as server:
        assert rewrite(*words(general, tmp_path / "new", server.base_url, "--model", "m-1",
                              "--seed", "7")) == 0
    said = capsys.readouterr().out
    old, new = read_corpus(general), read_corpus(tmp_path / "new")
    lines = [json.loads(line) for line in
             (tmp_path / "new" / "rewrite" / "rows.jsonl").read_text().splitlines()]
    assert len(lines) == 60
    outcomes = {kind: [line for line in lines if line["outcome"] == kind]
                for kind in ("kept", "dropped", "failed")}
    assert min(map(len, outcomes.values())) > 0
    assert f"{len(outcomes['kept'])} utterances kept" in said
    template = load_template()
    captions = {int(p): c for split in old.splits
                for p, c in zip(old.pairs(split).id, old.pairs(split).utterance, strict=True)}
    views = {int(i): v for i, v in enumerate(old.image_table["view"])}
    seen = 0
    with RequestStore(tmp_path / "new.requests") as store:
        for split in new.splits:
            pairs = new.pairs(split)
            for n, how in enumerate(pairs.provenance):
                from_ = json.loads(how)
                text = captions[from_["pair"]]
                assert from_["caption_sha256"] == hashlib.sha256(text.encode()).hexdigest()
                request = template.request(text, "m-1", 7)
                assert from_["request"] == request.key
                reply = store.reply(request)
                assert reply is not None and reply.value is not None
                assert reply.value["utterance"] == pairs.utterance[n]
                assert (from_["corpus"], from_["model"], from_["served_by"], from_["seed"],
                        from_["template"], from_["template_sha256"]) == (
                    old.digest, "m-1", "m-1", 7, "rewrite-v1", template.sha256)
                assert from_["code"].count("+") == 1
                old_image = old.pairs(split).image[list(old.pairs(split).id).index(from_["pair"])]
                assert pairs.view[n] == views[int(old_image)]
                assert pairs.group[n] == f"g{from_['pair']}"
                seen += 1
            for row in range(len(new.images(split))):  # pictures were copied byte for byte
                at = new.image_rows(split)[row]
                old_row = list(old.image_table["view"]).index(new.image_table["view"][at])
                assert new.image_table["crc32"][at] == old.image_table["crc32"][old_row]
    assert seen == len(outcomes["kept"])
    for kind in ("dropped", "failed"):
        with (tmp_path / "new" / "rewrite" / f"{kind}.csv").open(newline="") as file:
            listed = list(csv.DictReader(file))
        assert [(int(r["pair"]), r["reason"]) for r in listed] == [
            (line["general_pair"], line["reason"]) for line in outcomes[kind]]
        assert all(r["caption"] == captions[int(r["pair"])] for r in listed)
    made_by = new.info["made_by"]
    assert made_by["outcome"]["kept"] == seen
    assert made_by["outcome"]["images"] == len(new.image_table["image"])
    assert made_by["template"]["user"] == template.user
    assert "not published" in new.info["notes"]


def test_pictures_keep_their_files(general, tmp_path) -> None:
    """The table of origins goes on with the new ids, without the pictures that were dropped."""
    assert rewrite(*words(general, tmp_path / "out", "stand-in", "--limit", "21")) == 0
    paths = (general, tmp_path / "out")
    tables = [pq.read_table(path / "origins.parquet").to_pydict() for path in paths]
    views = []
    for path, table in zip(paths, tables, strict=True):
        known = read_corpus(path).image_table
        by_id = dict(zip(known["image"].tolist(), known["view"].tolist(), strict=True))
        views.append({by_id[image]: file for image, file in zip(*table.values(), strict=True)})
    assert 0 < len(views[1]) < len(views[0])
    assert views[1].items() <= views[0].items()


def test_one_changed_row_of_a_thousand_is_one_request(tmp_path) -> None:
    make_corpus(tmp_path / "a", 1000)
    make_corpus(tmp_path / "b", 1000, changed=[421])
    with LocalServer(RULES) as server:
        for name in ("a", "b"):
            assert rewrite(*words(tmp_path / name, tmp_path / f"new-{name}",
                                  f"batch+{server.base_url}", "--model", "m",
                                  "--store", tmp_path / "store")) == 0
            assert sum(server.state.paid.values()) == {"a": 1000, "b": 1001}[name]
        # the same prompt for another number of rows, splits or a forced repeat: nothing new
        assert rewrite(*words(tmp_path / "b", tmp_path / "new-b", f"batch+{server.base_url}",
                              "--model", "m", "--store", tmp_path / "store", "--force",
                              "--limit", "500")) == 0
        assert sum(server.state.paid.values()) == 1001
        # one by one asks only what is new, too
        assert rewrite(*words(tmp_path / "a", tmp_path / "new-c", server.base_url, "--model", "m",
                              "--store", tmp_path / "store", "--limit", "800")) == 0
        assert sum(server.state.paid.values()) == 1001


def test_replay_gives_the_same_bytes(general, tmp_path, capsys) -> None:
    assert rewrite(*words(general, tmp_path / "a" / "new", "stand-in")) == 0
    recorded = tmp_path / "a" / "new.requests"
    more = ["--model", "stand-in"]
    assert rewrite(*words(general, tmp_path / "b" / "new", f"replay:{recorded}", *more)) == 0
    assert rewrite(*words(general, tmp_path / "c" / "new", "replay", *more,
                          "--store", tmp_path / "b" / "new.requests")) == 0
    assert digests(tmp_path / "a" / "new") == digests(tmp_path / "b" / "new")
    assert digests(tmp_path / "a" / "new") == digests(tmp_path / "c" / "new")
    capsys.readouterr()
    assert rewrite(*words(general, tmp_path / "d", f"replay:{recorded}", "--model", "other")) == 2
    assert "holds no answer to 60 of 60 requests" in error(capsys)
    assert rewrite(*words(general, tmp_path / "d", "replay:nowhere", *more)) == 2
    assert "no request store there" in error(capsys)


def test_a_dry_run_sends_nothing_and_bounds_the_price(general, tmp_path, capsys) -> None:
    options = ["--price-in", "2.5", "--price-out", "10", "--dry-run"]
    with LocalServer(RULES) as server:
        ask = words(general, tmp_path / "new", server.base_url, "--model", "m")
        assert rewrite(*ask, *options) == 0
        assert not server.state.calls
        assert list(tmp_path.iterdir()) == []
        said = capsys.readouterr().out
        assert rewrite(*ask, "--limit", "20") == 0
        summary = capsys.readouterr().out
        assert rewrite(*ask, *options) == 0
        later = capsys.readouterr().out

    def number(text: str, what: str) -> float:
        (line,) = [line for line in text.splitlines() if line.strip().startswith(what)]
        return float(line.removeprefix("  ")[len(what):].split()[0].replace(",", ""))

    assert number(said, "requests") == number(said, "to send") == 60
    assert number(said, "tokens out, at most") == 60 * load_template().max_tokens
    price = number(said, "price, at most")
    tokens_in, tokens_out = (number(said, f"tokens {way}, at most") for way in ("in", "out"))
    assert price == pytest.approx((2.5 * tokens_in + 10 * tokens_out) / 1e6, abs=0.006)
    assert "1 batch files" in said
    assert (number(later, "answered before"), number(later, "to send")) == (20, 40)
    spent = int(summary.split("now (")[1].split()[0])
    assert spent / 20 < tokens_in / 60  # a bound: above what the server counted
    assert rewrite(*ask, "--dry-run") == 0
    assert "give --price-in and --price-out" in capsys.readouterr().out


def test_a_finished_corpus_is_left_alone(general, tmp_path, capsys) -> None:
    ask = words(general, tmp_path / "new", "stand-in")
    assert rewrite(*ask) == 0
    before = digests(tmp_path / "new")
    capsys.readouterr()
    assert rewrite(*ask) == 0
    assert "there already" in capsys.readouterr().out
    assert rewrite(*ask, "--limit", "5") == 2
    assert "exists already; --force replaces it" in error(capsys)
    assert digests(tmp_path / "new") == before
    (tmp_path / "folder").mkdir()
    assert rewrite(*words(general, tmp_path / "folder", "stand-in", "--force")) == 2
    assert "is not a corpus" in error(capsys)


def test_unanswered_requests_stop_the_writing_unless_allowed(general, tmp_path, capsys) -> None:
    with LocalServer(RULES, Faults(expire=0.2, times=99)) as server:
        ask = words(general, tmp_path / "new", f"batch+{server.base_url}", "--model", "m")
        assert rewrite(*ask) == 2
        said = error(capsys)
        assert "of 60 requests have no answer (transport " in said
        assert "batch_expired" in said
        assert not (tmp_path / "new").exists()
        assert rewrite(*ask, "--allow-failures") == 0
    made_by = read_corpus(tmp_path / "new").info["made_by"]
    assert made_by["outcome"]["failed"]["transport"] == int(said.split()[1])


@pytest.mark.parametrize(("more", "message"), [
    (["--backend", "gpt"], "--backend 'gpt'; accepted: openai-batch"),
    (["--backend", "openai"], "OPENAI_API_KEY is not set"),
    (["--backend", "openai-batch"], "OPENAI_API_KEY is not set"),
    (["--backend", "http://127.0.0.1:9/v1"], "needs --model"),
    (["--backend", "http://127.0.0.1:9/v1", "--model", "m"], "no answer for"),
    (["--model", "m"], "the stand-in backend has no such model"),
    (["--splits", "exam"], "no split 'exam'; it has"),
    (["--limit", "0"], "--limit 0: accepted"),
    (["--price-in", "3"], "go together"),
    (["--corpus", "nowhere"], "no corpus at nowhere"),
    (["--template", "nowhere"], "nowhere: no such template file"),
])
def test_wrong_input_is_one_line(more, message, general, tmp_path, capsys) -> None:
    assert rewrite(*words(general, tmp_path / "new", "stand-in"), *more) == 2
    assert message in error(capsys)
    assert not (tmp_path / "new").exists()


def test_a_full_disk_keeps_what_was_paid_for(tmp_path) -> None:
    """The kernel refuses files above 400 kB: a write that stops in the middle of a line."""
    general = make_corpus(tmp_path / "general", 300)
    with LocalServer(RULES) as server:
        ask = words(general, tmp_path / "new", server.base_url, "--model", "m")
        process = start(ask, tmp_path / "log", file_bytes=400_000)
        process.join(60)
        assert process.exitcode == 2
        (said,) = (tmp_path / "log").read_text().splitlines()
        assert "cannot be written" in said
        with RequestStore(tmp_path / "new.requests") as store:
            kept = len(store)
        assert 20 < kept < 300
        paid = sum(server.state.paid.values())
        assert paid <= kept + 16
        process = start(ask, tmp_path / "log")
        process.join(60)
        assert process.exitcode == 0
        assert sum(server.state.paid.values()) <= 300 + 16


TEMPLATE = yaml.safe_load(
    (Path(__file__).parents[3] / "dataprep/rewrite/rewrite-v1.yaml").read_text())


def test_own_templates(general, tmp_path) -> None:
    own = TEMPLATE | {"name": "mine-2", "keep_field": "keep", "keep_values": [True], "schema": {
        "type": "object", "required": ["keep", "utterance"], "additionalProperties": False,
        "properties": {"keep": {"type": "boolean"}, "utterance": {"type": "string"}}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(own))

    def rule(body):
        said = stand_in_rewrite(body)
        return {"keep": said["verdict"] == "daily_life", "utterance": said["utterance"]}

    with LocalServer({"mine-2": rule}) as server:
        assert rewrite(*words(general, tmp_path / "new", server.base_url, "--model", "m",
                              "--template", tmp_path / "mine.yaml")) == 0
    dropped = read_corpus(tmp_path / "new").info["made_by"]["outcome"]["dropped"]
    assert set(dropped) == {"False"}


@pytest.mark.parametrize(("change", "message"), [
    ({"name": "a b"}, "name 'a b'; accepted"), ({"user": "Caption:"}, "no {caption}"),
    ({"max_words": 0}, "max_words is 0"), ({"max_tokens": True}, "max_tokens is True"),
    ({"system": 3}, "system is 3; accepted: str"), ({"extra": 1}, "accepted: name, keep_field"),
    ({"schema": {"type": 3}}, "schema: not a JSON schema"),
    ({"keep_field": "keep"}, "keep_field 'keep' is not in the schema's `required`"),
    ({"utterance_field": "verdict", "schema": TEMPLATE["schema"] | {
        "properties": {"verdict": {}, "utterance": {"type": "string"}}}}, "not of type string"),
])
def test_wrong_templates_are_named(change, message, tmp_path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(yaml.safe_dump(TEMPLATE | change))
    with pytest.raises(ValueError) as caught:
        load_template(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)


def test_a_template_that_is_no_yaml(tmp_path) -> None:
    (tmp_path / "t.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"t.yaml: not YAML \("):
        load_template(tmp_path / "t.yaml")
    (tmp_path / "t.yaml").write_text("- a")
    with pytest.raises(ValueError, match="has the keys list; accepted"):
        load_template(tmp_path / "t.yaml")


@pytest.mark.parametrize(("value", "read"), [
    ({"verdict": "daily_life", "utterance": " look ,\n a ball! "}, ("look , a ball!", "")),
    ({"verdict": "unclear", "utterance": ""}, (None, "unclear")),
    ({"verdict": "daily_life", "utterance": " "}, (None, "kept, but without an utterance")),
    ({"verdict": "daily_life", "utterance": "a " * 16}, (None, "longer than 15 words")),
])
def test_answers_are_read(value, read) -> None:
    assert load_template().read(Reply("k", value, None, "")) == read


def test_the_shipped_template_says_what_it_is() -> None:
    text = (Path(__file__).parents[3] / "dataprep/rewrite/rewrite-v1.yaml").read_text()
    head = text[: text.index("name:")]
    assert "PAPER'S EXACT PROMPT IS NOT PUBLISHED" in head
    request = load_template().request("a {caption} with {braces}", "m", 3)
    assert request.messages[-1]["content"].strip() == "Caption: a {caption} with {braces}"
    assert request.template == "rewrite-v1"


def test_the_stand_in_names_things() -> None:
    def said(text: str) -> dict:
        return stand_in_rewrite({"messages": [{"content": f"Caption: {text}\n"}]})

    assert said(caption(8))["verdict"] == "abstract"
    assert said("in the 3") == {"verdict": "unclear", "utterance": ""}
    assert "silver ford" in said("a silver 2018 ford focus vehicle parked in a lot")["utterance"]
