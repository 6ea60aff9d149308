"""Tokenisers and the token store: what turns utterances into ids, once per corpus and tokeniser.

Two kinds: ``word``, the published one (Hugging Face ``WordLevel`` behind ``Whitespace``, which
splits ``it's`` into ``it`` ``'`` ``s``), with a vocabulary counted on the corpus or read from the
official ``vocab.json``; and ``bpe``, byte-level BPE over NFKC lower-cased text. Both begin with
``<pad>`` 0, ``<unk>`` 1, ``<sos>`` 2, ``<eos>`` 3, as the official vocabulary does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tokenizers
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from engine.corpus_read import Corpus
from engine.schema import Section

log = logging.getLogger("babyvlm")

SPECIALS = ("<pad>", "<unk>", "<sos>", "<eos>")
PAD, UNK, SOS, EOS = range(4)
STORE_FORMAT = 1


class TokenizerConfig(Section):
    """How utterances become token ids."""

    kind: Literal["word", "bpe"] = "word"
    """``word``: whole words (the published first model); ``bpe``: byte-level pairs."""
    vocab: str | None = None
    """Path of an official ``vocab.json`` (word to id) for ``word``; null counts the corpus."""
    size: int = Field(default=6000, ge=260)
    """Most entries of a ``bpe`` vocabulary, the four specials and 256 bytes included."""
    min_count: int = Field(default=3, ge=1)
    """How often a word (``word``) or a pair (``bpe``) must occur to get an entry; published: 3."""
    lowercase: bool = True
    """Lower-case first. ``bpe`` always does, after NFKC."""
    eos: bool = True
    """End every utterance with ``<eos>``. Published: false, so those models never learn to stop."""
    sos: bool = True
    """Head a text-only document with ``<sos>``, so that its first word is predicted too."""
    max_tokens: int = Field(default=25, ge=1)
    """Most tokens of an utterance, ``<eos>`` not counted; the rest is cut. Published: 25."""
    pad_is_unk: bool = False
    """Pad with ``<unk>``. Published: true, so that real ``<unk>`` tokens were masked."""


def _skeleton(config: TokenizerConfig) -> tokenizers.Tokenizer:
    """An untrained tokeniser with the normaliser, splitter and decoder of ``config``."""
    if config.kind == "word":
        tokenizer = tokenizers.Tokenizer(models.WordLevel({}, unk_token=SPECIALS[UNK]))
        if config.lowercase:
            tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        return tokenizer
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token=SPECIALS[UNK]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


class Tokenizer:
    """Utterances to ids and back.

    Attributes: ``config``; ``unk_id``, ``sos_id``, ``eos_id``; ``pad_id`` (``unk_id`` when
    ``pad_is_unk``); ``digest``, 16 hex digits that change whenever any id of any text could.
    """

    def __init__(self, config: TokenizerConfig, inner: tokenizers.Tokenizer) -> None:
        self.config = config
        self._inner = inner
        self.unk_id, self.sos_id, self.eos_id = UNK, SOS, EOS
        self.pad_id = UNK if config.pad_is_unk else PAD
        found = [inner.token_to_id(special) for special in SPECIALS]
        if found != [PAD, UNK, SOS, EOS]:
            raise ValueError(
                f"vocabulary: {', '.join(SPECIALS)} have ids {found}; accepted: 0, 1, 2, 3"
            )
        # The path of a vocabulary does not matter, its words do, and they are in ``inner``.
        kept = config.model_dump(exclude={"vocab"})
        text = json.dumps(kept, sort_keys=True) + inner.to_str()
        self.digest = hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]

    @property
    def vocab_size(self) -> int:
        """Number of ids, specials included."""
        return self._inner.get_vocab_size()

    @property
    def vocabulary(self) -> list[str]:
        """The entries in the order of their ids."""
        words = self._inner.get_vocab()
        return sorted(words, key=words.__getitem__)

    def encode(self, text: str, *, eos: bool | None = None) -> list[int]:
        """Ids of ``text``, at most ``max_tokens``, then ``<eos>`` (null: as configured)."""
        return self.encode_batch([text], eos=eos)[0]

    def encode_batch(self, texts: Sequence[str], *, eos: bool | None = None) -> list[list[int]]:
        """:meth:`encode` for many texts at once."""
        end = [EOS] if (self.config.eos if eos is None else eos) else []
        limit = self.config.max_tokens
        return [item.ids[:limit] + end for item in self._inner.encode_batch(list(texts))]

    def count(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text before anything is cut or added, int64 [n]."""
        return np.array([len(item.ids) for item in self._inner.encode_batch(list(texts))], np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ``ids``; ``<pad>``, ``<sos>`` and ``<eos>`` are left out, ``<unk>`` is shown."""
        kept = [int(index) for index in ids if int(index) not in (PAD, SOS, EOS)]
        outside = [index for index in kept if not 0 <= index < self.vocab_size]
        if outside:
            raise ValueError(
                f"token id {outside[0]}: the vocabulary has 0 to {self.vocab_size - 1}"
            )
        return self._inner.decode(kept, skip_special_tokens=False)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write ``tokenizer.json`` (``tokenizers`` library) and ``tokenizer_config.json``."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._inner.save(str(directory / "tokenizer.json"))
        (directory / "tokenizer_config.json").write_text(
            json.dumps(self.config.model_dump(), indent=2) + "\n", "utf-8"
        )

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Tokenizer:
        """The tokeniser that :meth:`save` wrote; ``ValueError`` when it is missing or damaged."""
        directory = Path(directory)
        files = (directory / "tokenizer_config.json", directory / "tokenizer.json")
        for file in files:
            if not file.is_file():
                raise ValueError(f"{file}: no such tokeniser file")
        try:
            config = TokenizerConfig.model_validate_json(files[0].read_text("utf-8"))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"{files[0]}: {key}: {first['msg']}") from None
        try:
            inner = tokenizers.Tokenizer.from_file(str(files[1]))
        except Exception as error:  # the library raises plain Exception
            raise ValueError(f"{files[1]}: not a tokeniser ({error})") from None
        return cls(config, inner)


def read_vocabulary(path: str | os.PathLike[str]) -> dict[str, int]:
    """The official ``vocab.json``: word to id, ids 0 to n-1; ``ValueError`` when it is not."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"tokenizer.vocab: no file {path}")
    try:
        words = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"tokenizer.vocab: {path} is not JSON ({error})") from None
    if not isinstance(words, dict) or sorted(map(str, words.values())) != sorted(
        map(str, range(len(words)))
    ):
        raise ValueError(
            f"tokenizer.vocab: {path} is not a table of words to the ids 0, 1, 2, ..., each once"
        )
    return {str(word): int(index) for word, index in words.items()}


def _count_words(inner: tokenizers.Tokenizer, utterances: Iterable[str], least: int) -> list[str]:
    """Words that occur ``least`` times, sorted by (-count, word) as the published vocabulary."""
    counts: Counter[str] = Counter()
    for utterance in utterances:
        text = inner.normalizer.normalize_str(utterance) if inner.normalizer else utterance
        counts.update(word for word, _ in inner.pre_tokenizer.pre_tokenize_str(text))
    kept = [word for word, count in counts.items() if count >= least and word not in SPECIALS]
    return sorted(kept, key=lambda word: (-counts[word], word))


def build_tokenizer(config: TokenizerConfig, utterances: Iterable[str]) -> Tokenizer:
    """The tokeniser of ``config``; its vocabulary is read from a file or counted on ``utterances``.

    Give the utterances of the training split only. The same utterances in any order give the same
    tokeniser. Raises ``ValueError`` for a bad vocabulary file or when no word is left.
    """
    inner = _skeleton(config)
    if config.kind == "word":
        if config.vocab is not None:
            words = read_vocabulary(config.vocab)
        else:
            kept = _count_words(inner, utterances, config.min_count)
            if not kept:
                raise ValueError(
                    f"tokenizer.min_count: no word occurs {config.min_count} times in the corpus"
                )
            words = {word: index for index, word in enumerate([*SPECIALS, *kept])}
        inner.model = models.WordLevel(words, unk_token=SPECIALS[UNK])
        return Tokenizer(config, inner)
    if config.vocab is not None:
        raise ValueError("tokenizer.vocab: a vocab.json is for kind=word; accepted here: null")
    trainer = trainers.BpeTrainer(
        vocab_size=config.size,
        min_frequency=config.min_count,
        show_progress=False,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    # Sorted, so that ties between pairs do not depend on the order of the corpus.
    inner.train_from_iterator(sorted(utterances), trainer)
    # Text must not be able to smuggle in "<eos>": the specials are ids, never matched in text.
    state = json.loads(inner.to_str())
    state["added_tokens"] = []
    return Tokenizer(config, tokenizers.Tokenizer.from_str(json.dumps(state)))


@dataclass(frozen=True, eq=False)
class TokenStore:
    """The tokens of a split's pairs, ragged: pair ``i`` has ``tokens[offsets[i]:offsets[i + 1]]``.

    Attributes: ``tokens`` uint16 or int32 [total] (memory-mapped when it comes from the disk);
    ``offsets`` int64 [n + 1]; ``lengths`` int32 [n]. Pairs are in the order of
    ``corpus.pairs(split)``; ``<eos>`` is included where the tokeniser adds it.
    """

    tokens: NDArray[np.integer]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> NDArray[np.integer]:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


def _encode_split(corpus: Corpus, split: str, tokenizer: Tokenizer) -> TokenStore:
    utterances = corpus.pairs(split).utterance
    encoded = tokenizer.encode_batch(utterances)
    empty = [i for i, ids in enumerate(encoded) if not ids]
    if empty:
        pair = corpus.pairs(split).id[empty[0]]
        raise ValueError(
            f"{corpus.path}/pairs.parquet: pair {pair} ({utterances[empty[0]]!r}) has no token"
        )
    lengths = np.array([len(ids) for ids in encoded], np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
    tokens = np.fromiter((token for ids in encoded for token in ids), dtype, int(offsets[-1]))
    cut = int((tokenizer.count(utterances) > tokenizer.config.max_tokens).sum())
    unknown = float((tokens == tokenizer.unk_id).mean()) if len(tokens) else 0.0
    log.info(
        "tokens: %s: %d utterances, %d tokens, %.2f %% <unk>, %d cut to %d tokens",
        split, len(encoded), len(tokens), 100 * unknown, cut, tokenizer.config.max_tokens,
    )  # fmt: skip
    return TokenStore(tokens, offsets, lengths)


def _open_store(place: Path) -> TokenStore | None:
    """The store at ``place`` if it is there and whole."""
    try:
        offsets = np.load(place / "offsets.npy")
        tokens = np.load(place / "tokens.npy", mmap_mode="r")
    except (OSError, ValueError):
        return None
    if offsets.ndim != 1 or not len(offsets) or len(tokens) != offsets[-1]:
        return None
    return TokenStore(tokens, offsets, np.diff(offsets).astype(np.int32))


def token_store(corpus: Corpus, split: str, tokenizer: Tokenizer) -> TokenStore:
    """The token store of a split, made at the first call and read from the corpus afterwards.

    It lies under ``<corpus>/tokens/<digest>/<split>/``, where the digest covers tokeniser and
    corpus; it appears under that name when it is whole, so that any number of processes may make
    it at once. When the corpus directory cannot be written it is kept in memory, which is logged.
    """
    key = hashlib.sha256(f"{STORE_FORMAT} {tokenizer.digest} {corpus.digest}".encode()).hexdigest()
    place = corpus.path / "tokens" / key[:16] / split
    found = _open_store(place)
    if found is not None and len(found) == len(corpus.pairs(split)):
        return found
    store = _encode_split(corpus, split, tokenizer)
    work = place.with_name(f"{split}.tmp-{os.getpid()}")
    try:
        work.mkdir(parents=True, exist_ok=True)
        for name, array in (("tokens.npy", store.tokens), ("offsets.npy", store.offsets)):
            with (work / name).open("wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())
        if place.exists() and _open_store(place) is None:
            shutil.rmtree(place)  # damaged from outside: a store is renamed only when whole
        os.rename(work, place)
    except OSError as error:
        shutil.rmtree(work, ignore_errors=True)
        found = _open_store(place)
        if found is not None and len(found) == len(store):
            return found  # another process was first
        log.warning("tokens: %s kept in memory, %s cannot be written (%s)", split, place, error)
        return store
    return _open_store(place) or store
