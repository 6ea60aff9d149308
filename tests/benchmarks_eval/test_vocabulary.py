"""Tokenisers read from their files alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers

from benchmarks_eval.vocabulary import Vocabulary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(
        {"[no]": 0, "red": 1, "cup": 2}, unk_token="[no]"))
    inner.normalizer = tokenizers.normalizers.Lowercase()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.enable_padding(length=9)
    inner.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.mark.parametrize("spec", ["{}", "llava:{}", "no-image:{}", "shuffled:llava:{}",
                                  "{}/tokenizer.json"])
def test_a_model_is_named_as_for_run(folder: Path, spec: str) -> None:
    found = Vocabulary.read(spec.format(folder))
    assert found.tokens("Red cup") == (1, 2)
    assert found.unknown_words("Red Mug, cup") == ["mug", ","]


def test_a_vocabulary_that_spells_everything_misses_nothing(tmp_path: Path) -> None:
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    inner.train_from_iterator(["red cup"], tokenizers.trainers.BpeTrainer(
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    inner.save(str(tmp_path / "tokenizer.json"))
    found = Vocabulary.read(str(tmp_path))
    assert found.unknown is None and found.unknown_words("zyx") == [] and found.tokens("zyx")


@pytest.mark.parametrize(("spec", "said"), [
    ("{}/none", "none: no tokeniser at"), ("open_clip:ViT-B-32:{}", "kind 'open_clip' has no voc"),
    ("noise:blind:random", "kind 'blind' has no voc"), ("{}/bad.json", "bad.json is no tokeniser"),
])
def test_what_cannot_be_read_is_one_line(folder: Path, spec: str, said: str) -> None:
    (folder / "bad.json").write_text('{"model": {}}')
    with pytest.raises(ValueError) as caught:
        Vocabulary.read(spec.format(folder))
    assert said in str(caught.value) and "--model" in str(caught.value)
    assert "\n" not in str(caught.value)
