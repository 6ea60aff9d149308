"""Tokenisers and the token store."""

import json
import logging
import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from engine.corpus import CorpusWriter, Source, read_corpus
from engine.tokens import (
    SPECIALS,
    Tokenizer,
    TokenizerConfig,
    build_tokenizer,
    read_vocabulary,
    token_store,
)

UTTERANCES = [
    "look , a ball !",
    "it's a red ball .",
    "the ball is red .",
    "Where is the dog ?",
    "the dog is here !",
    "it's the dog's ball .",
] * 2
OFFICIAL = Path(__file__).resolve().parents[3] / "shared/data/babyvlm/saycam_vocab.json"


def word(**options):
    return build_tokenizer(TokenizerConfig(min_count=1, **options), UTTERANCES)


def make_corpus(path, utterances=UTTERANCES):
    with CorpusWriter(
        path, name="c", version="1", image_size=8, sources=[Source("m", "CC0", "")], made_by={}
    ) as writer:
        for split in ("train", "val"):
            image = writer.add_image(split, np.zeros((8, 8, 3), np.uint8), view="v", source="m")
            for text in utterances if split == "train" else utterances[:3]:
                writer.add_pair(image, text, source="m", group=text)
    return read_corpus(path)


def test_word_vocabulary_is_specials_then_by_count_then_alphabet():
    tokenizer = word()
    words = [w for text in UTTERANCES for w in text.lower().replace("'", " ' ").split()]
    counts = Counter(words)
    expected = sorted(counts, key=lambda w: (-counts[w], w))
    assert tokenizer.vocabulary == [*SPECIALS, *expected]
    assert tokenizer.vocab_size == len(expected) + 4
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.sos_id, tokenizer.eos_id) == (0, 1, 2, 3)


def test_word_encode_decode():
    tokenizer = word()
    ids = tokenizer.encode("It's a zebra")
    assert ids[-1] == tokenizer.eos_id
    assert ids[:-1] == tokenizer.encode("it's a zebra", eos=False)
    assert tokenizer.decode(ids) == "it ' s a <unk>"
    assert tokenizer.decode([0, 2, *ids, 0]) == "it ' s a <unk>"
    with pytest.raises(ValueError, match="token id 999: the vocabulary has 0 to"):
        tokenizer.decode([999])


def test_paper_quirks_are_fields():
    ours, paper = word(), word(eos=False, pad_is_unk=True)
    assert ours.encode("a dog")[-1] == ours.eos_id
    assert len(paper.encode("a dog")) == 2
    assert paper.encode("a dog", eos=True)[-1] == paper.eos_id
    assert paper.pad_id == paper.unk_id == 1
    assert ours.pad_id == 0
    assert ours.digest != paper.digest
    assert word(lowercase=False).encode("The", eos=False) == [1]


def test_min_count_and_max_tokens():
    tokenizer = build_tokenizer(TokenizerConfig(min_count=4, max_tokens=3), UTTERANCES)
    assert "look" not in tokenizer.vocabulary
    assert "dog" in tokenizer.vocabulary
    ids = tokenizer.encode("the dog is the ball")
    assert len(ids) == 4
    assert ids[-1] == tokenizer.eos_id
    with pytest.raises(ValueError, match="no word occurs 99 times"):
        build_tokenizer(TokenizerConfig(min_count=99), UTTERANCES)


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_special_names_in_text_are_plain_text(kind):
    tokenizer = build_tokenizer(TokenizerConfig(kind=kind, size=300, min_count=1), UTTERANCES)
    ids = tokenizer.encode("the <eos> <pad> dog", eos=False)
    assert not {0, 2, 3} & set(ids)


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_order_of_the_corpus_does_not_matter(kind):
    config = TokenizerConfig(kind=kind, size=300, min_count=1)
    shuffled = list(UTTERANCES)
    random.Random(0).shuffle(shuffled)
    assert build_tokenizer(config, UTTERANCES).digest == build_tokenizer(config, shuffled).digest


def test_bpe_covers_any_text_and_normalises():
    tokenizer = build_tokenizer(TokenizerConfig(kind="bpe", size=300, min_count=1), UTTERANCES)
    assert 270 < tokenizer.vocab_size <= 300
    assert tokenizer.vocabulary[:4] == list(SPECIALS)
    text = "Zebra \N{FULLWIDTH LATIN CAPITAL LETTER A} \N{DOG FACE} é"
    ids = tokenizer.encode(text, eos=False)
    assert tokenizer.unk_id not in ids
    assert tokenizer.decode(ids) == "zebra a \N{DOG FACE} é"
    assert len(tokenizer.encode(" the ball", eos=False)) <= 3  # merges were learnt


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_save_load(tmp_path, kind):
    tokenizer = build_tokenizer(TokenizerConfig(kind=kind, size=280, min_count=1), UTTERANCES)
    tokenizer.save(tmp_path / "t")
    again = Tokenizer.load(tmp_path / "t")
    assert again.digest == tokenizer.digest
    assert again.config == tokenizer.config
    for text in [*UTTERANCES, "a new zebra"]:
        assert again.encode(text) == tokenizer.encode(text)
    # the plain library reads it as well
    import tokenizers

    plain = tokenizers.Tokenizer.from_file(str(tmp_path / "t" / "tokenizer.json"))
    assert plain.encode("the red dog").ids == tokenizer.encode("the red dog", eos=False)


def test_load_errors(tmp_path):
    with pytest.raises(ValueError, match="no such tokeniser file"):
        Tokenizer.load(tmp_path)
    word().save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokeniser"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"kind": "wordy"}')
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: kind: Input should be"):
        Tokenizer.load(tmp_path)


def test_vocabulary_file_and_its_errors(tmp_path):
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({"<pad>": 0, "<unk>": 1, "<sos>": 2, "<eos>": 3, "dog": 4}))
    tokenizer = build_tokenizer(TokenizerConfig(vocab=str(path)), [])
    assert tokenizer.encode("a dog", eos=False) == [1, 4]
    for content, message in (
        ("[", "is not JSON"),
        ("[1]", "not a table of words"),
        ('{"<pad>": 0, "a": 2}', "not a table of words"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_vocabulary(path)
    path.write_text('{"dog": 0, "<pad>": 1, "<unk>": 2, "<sos>": 3, "<eos>": 4}')
    with pytest.raises(ValueError, match=r"have ids \[1, 2, 3, 4\]; accepted: 0, 1, 2, 3"):
        build_tokenizer(TokenizerConfig(vocab=str(path)), [])
    with pytest.raises(ValueError, match=r"tokenizer\.vocab: no file"):
        read_vocabulary(tmp_path / "none.json")
    with pytest.raises(ValueError, match="for kind=word"):
        build_tokenizer(TokenizerConfig(kind="bpe", vocab="x"), [])


@pytest.mark.skipif(not OFFICIAL.is_file(), reason="the official vocabulary is not at hand")
def test_official_vocabulary():
    tokenizer = build_tokenizer(TokenizerConfig(vocab=str(OFFICIAL)), [])
    assert tokenizer.vocab_size == 2350
    words = json.loads(OFFICIAL.read_text())
    assert tokenizer.encode("you see the ball ?", eos=False) == [
        words[w] for w in ("you", "see", "the", "ball", "?")
    ]
    # the published splitter takes "'s" apart, so that 69 entries can never be produced
    produced = {i for w in words for i in tokenizer.encode(w, eos=False)}
    unreachable = [
        w for w in words if w not in SPECIALS and tokenizer.encode(w, eos=False) != [words[w]]
    ]
    assert "'s" in unreachable
    assert len(unreachable) == 69
    assert words["'s"] not in produced


def test_store_holds_what_encode_gives(tmp_path):
    corpus, tokenizer = make_corpus(tmp_path / "c"), word()
    for _ in range(2):  # made, then read
        store = token_store(corpus, "train", tokenizer)
        assert len(store) == len(UTTERANCES)
        assert store.offsets.dtype == np.int64
        assert store.lengths.dtype == np.int32
        for index, text in enumerate(UTTERANCES):
            assert store[index].tolist() == tokenizer.encode(text)
        assert store.tokens.dtype == np.uint16
    assert isinstance(store.tokens, np.memmap)
    assert len(token_store(corpus, "val", tokenizer)) == 3


def test_store_is_keyed_by_tokeniser_and_corpus(tmp_path):
    corpus = make_corpus(tmp_path / "c")
    for tokenizer in (word(), word(eos=False), word(max_tokens=2)):
        store = token_store(corpus, "train", tokenizer)
        assert store[0].tolist() == tokenizer.encode(UTTERANCES[0])
    assert len(list((tmp_path / "c" / "tokens").iterdir())) == 3
    old = tmp_path / "c" / "tokens"
    other = make_corpus(tmp_path / "d", [text + " now" for text in UTTERANCES])
    os.rename(old, tmp_path / "d" / "tokens")
    assert token_store(other, "train", word())[0].tolist() == word().encode("look , a ball ! now")


def test_damaged_store_is_made_again(tmp_path):
    corpus, tokenizer = make_corpus(tmp_path / "c"), word()
    token_store(corpus, "train", tokenizer)
    (file,) = (tmp_path / "c" / "tokens").glob("*/train/tokens.npy")
    file.write_bytes(file.read_bytes()[:-20])
    store = token_store(corpus, "train", tokenizer)
    assert store[5].tolist() == tokenizer.encode(UTTERANCES[5])
    assert [p.name for p in file.parent.parent.iterdir()] == ["train"]


def test_unwritable_corpus_keeps_the_store_in_memory(tmp_path, caplog):
    corpus, tokenizer = make_corpus(tmp_path / "c"), word()
    (tmp_path / "c" / "tokens").write_text("not a directory")
    with caplog.at_level(logging.WARNING, "babyvlm"):
        store = token_store(corpus, "train", tokenizer)
    assert store[1].tolist() == tokenizer.encode(UTTERANCES[1])
    assert "kept in memory" in caplog.text


def test_config_rejects_nonsense():
    for bad in ({"kind": "char"}, {"max_tokens": 0}, {"size": 10}, {"min_cont": 1}):
        with pytest.raises(ValueError):
            TokenizerConfig(**bad)
