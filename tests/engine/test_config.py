"""The configuration: every mistake is named, overrides reach list items, YAML goes round."""

from __future__ import annotations

import pytest
from support.launch import ROOT
from support.shapes import tiny_config, write_config

from engine.config import (
    RunConfig,
    apply_override,
    differences,
    load_config,
    parse_config,
    to_yaml,
)
from engine.plain_yaml import parse_yaml

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.fixture
def tree(tmp_path):
    return tiny_config(tmp_path / "run", tmp_path / "corpus")


@pytest.mark.parametrize("path", CONFIGS, ids=[p.stem for p in CONFIGS])
def test_the_configurations_we_ship_load_and_go_round(path):
    config = load_config(path)
    assert config.name == path.stem
    assert parse_config(parse_yaml(to_yaml(config)), "again") == config


def test_there_are_the_configurations_that_the_readme_names():
    assert {"quickstart", "babyllava", "cvcl"} <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize(("change", "message"), [
    (("seeed", 1), r"x: seeed: unknown key; did you mean 'seed'\? accepted: .*corpus"),
    (("zero.stag", 1), r"x: zero\.stag: unknown key; did you mean 'stage'\?"),
    (("phases.joint.optim.wd", 1), r"phases\.joint\.optim\.wd: unknown key; accepted: betas"),
    (("model.vision.args.channel", 1), r"model\.vision\.args\.channel: .* mean 'channels'\?"),
])
def test_an_unknown_key_names_its_place_and_the_nearest_key(tree, change, message):
    key, value = change
    apply_override(tree, f"{key}={value}")
    with pytest.raises(ValueError, match=message) as caught:
        parse_config(tree, "x")
    assert "\n" not in str(caught.value)


def test_a_missing_key_and_a_wrong_value_are_named(tree):
    del tree["corpus"]
    with pytest.raises(ValueError, match="x: corpus: missing; this key is required"):
        parse_config(tree, "x")
    tree["corpus"] = "c"
    tree["phases"][1]["optim"]["lr"] = -1.0
    with pytest.raises(ValueError, match=r"phases\.language\.optim\.lr: .*greater.*got -1\.0"):
        parse_config(tree, "x")


def test_overrides_reach_sections_list_items_and_fields_that_the_file_leaves_out(tree):
    for override in ("phases.joint.optim.lr=1e-3", "phases.0.epochs=7", "zero.stage=2",
                     "stop.max_time_s=60", "phases.joint.train=[connector]", "features.store=off",
                     "model.vision.weights=null"):
        apply_override(tree, override)
    config = parse_config(tree, "x")
    assert config.phases[3].optim.lr == 0.001 and config.phases[0].epochs == 7
    assert config.zero.stage == 2 and config.stop.max_time_s == 60
    assert config.phases[3].train == ["connector"] and config.features.store == "off"
    assert config.model.vision.weights is None


@pytest.mark.parametrize(("override", "message"), [
    ("seed", "expected KEY=VALUE"),
    ("=3", "expected KEY=VALUE"),
    ("phases.jiont.epochs=2", "no item 'jiont'; accepted: vision, language, connector, joint"),
    ("name.first=x", "'name' is a value, not a section"),
    ("phases.joint.train.0.x=1", "'0' is a value, not a section"),
    ("seed=[1", "not YAML"),
])
def test_an_override_that_leads_nowhere_is_named(tree, override, message):
    with pytest.raises(ValueError, match=f"--set {override.split('=')[0].split('.')[0]}") as caught:
        apply_override(tree, override)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_no_configuration_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml: no such configuration file"):
        load_config(tmp_path / "none.yaml")
    path = tmp_path / "bad.yaml"
    for text, message in (("a: [1", "not valid YAML"), ("- 1", "a mapping .* is expected")):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"bad\.yaml: {message}"):
            load_config(path)


def test_the_resolved_yaml_holds_every_field_and_reads_back_equal(tree, tmp_path):
    config = load_config(write_config(tmp_path / "run.yaml", tree), ["seed=5"])
    text = to_yaml(config)
    assert parse_config(parse_yaml(text), "again") == config
    assert set(parse_yaml(text)) == set(RunConfig.model_fields)
    assert parse_yaml(text)["zero"]["overlap_comm"] is False and config.seed == 5


def changed(tree: dict, *overrides: str) -> list[str]:
    old = parse_config(tree, "old")
    for override in overrides:
        apply_override(tree, override)
    return differences(old, parse_config(tree, "new"))


def test_differences_name_what_changes_a_weight_and_nothing_else(tree):
    assert changed(tree, "data.workers=3", "checkpoints.every=9", "log.every=7",
                   "stop.max_time_s=1", "features.location=ram", "run_dir=elsewhere") == []
    assert changed(tree, "phases.joint.optim.lr=9e-3", "model.decoder.width=64") == [
        "model.decoder.width", "phases.joint.optim.lr"]
    assert changed(tree, "features.dtype=bfloat16") == ["features.dtype"]


def test_differences_see_another_order_and_another_number_of_phases(tree):
    old = parse_config(tree, "old")
    tree["phases"][1:3] = tree["phases"][2:0:-1]
    assert differences(old, parse_config(tree, "new")) == ["phases (their order)"]
    del tree["phases"][0]
    assert any(key.startswith("phases.vision.") for key in
               differences(old, parse_config(tree, "new")))


def test_phases_need_names_of_their_own(tree):
    tree["phases"][1]["name"] = "vision"
    with pytest.raises(ValueError, match="x: phases: the name 'vision' is used twice"):
        parse_config(tree, "x")
    tree["phases"] = []
    with pytest.raises(ValueError, match="x: phases: empty"):
        parse_config(tree, "x")


def test_a_store_that_cannot_serve_is_refused(tree):
    tree["features"] = {"store": "on"}
    parse_config(tree, "x")
    tree["phases"][3]["augment"] = {"flip": 0.5}
    with pytest.raises(ValueError, match=r"features\.store: on, but phase 'joint' augments"):
        parse_config(tree, "x")
    tree["features"]["views"] = 2
    parse_config(tree, "x")


def test_stage_zero_with_bf16_is_refused_with_the_reason(tree):
    tree["zero"] = {"stage": 0, "precision": "bf16"}
    with pytest.raises(ValueError, match="x: zero: stage 0 with bf16 keeps no fp32 master"):
        parse_config(tree, "x")
