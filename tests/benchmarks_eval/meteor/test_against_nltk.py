"""Every score equal to NLTK's to the last bit: with NLTK, and with WordNet where it is at hand.

WordNet 3.0 is taken from NLTK_DATA (``corpora/wordnet``), or else from the folder that WORDNET
names, where Debian's package ``wordnet-base`` puts its files (/usr/share/wordnet). Sentences are
compared with NLTK's Punkt holding the model of the package that ours uses: the same numbers.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks_eval.meteor import porter, score, tokens, word_tokenize, wordnet
from benchmarks_eval.meteor.sentences import sentences

nltk = pytest.importorskip("nltk")
pytestmark = [
    pytest.mark.skipif(not nltk.__version__.startswith("3.10"), reason="compares with NLTK 3.10"),
    pytest.mark.filterwarnings("ignore:The multilingual functions are not available"),
]

DEBIAN = Path(os.environ.get("WORDNET", "/usr/share/wordnet"))
PAIRS = 6000
WORDS = """
    a the this that it is are was be there look see want you we I mommy baby child children kid
    ball balls cat kitty kittens dog doggy puppy sofa couch chair table floor ground street road
    car cars automobile truck big large little small red blue run runs running ran walk walked
    walking play playing played happily happy glad eat ate eating food book books read reading
    hand hands foot feet toy toys plaything water in on at under with and not can go going went
    put putting take took give gave sit sits sat sitting stand standing good better best quickly
    easier easiest children's , . ? ! 's n't don't cannot gonna wanna Mr. e.g. p.m. "
""".split()
ENDINGS = ["", "", "", "s", "es", "ed", "ing", "er", "est", "ly", "ings", "ness", "ful", "ation"]


def sentence(rng: random.Random, most: int = 12) -> str:
    return " ".join(rng.choice(WORDS) + rng.choice(ENDINGS) * (rng.random() < 0.3)
                    for _ in range(rng.randint(0, most)))


@pytest.fixture(scope="module")
def reference_sentences() -> Callable[[str], list[str]]:
    import punkt
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    model, parameters = punkt.load_model("english"), PunktParameters()
    parameters.abbrev_types = set(model.abbrev_types)
    parameters.collocations = set(model.collocations)
    parameters.sent_starters = set(model.sent_starters)
    parameters.ortho_context.update(model.ortho_context)
    return PunktSentenceTokenizer(parameters).tokenize


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """NLTK's reader of WordNet 3.0."""
    from nltk.corpus import wordnet as own
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    try:
        own.ensure_loaded()
    except LookupError:
        if not (DEBIAN / "data.noun").is_file():
            pytest.skip(f"no WordNet in NLTK_DATA or {DEBIAN}")
    else:
        assert own.get_version() == "3.0"
        yield own
        return
    root = tmp_path_factory.mktemp("nltk")
    folder = root / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    for path in DEBIAN.iterdir():
        shutil.copy(path, folder)
    # What NLTK wants beside Debian's files and no synonym depends on: names of the 45 files that
    # lexicographers worked in, and a mapping between releases of WordNet.
    (folder / "lexnames").write_text("".join(f"{k:02}\tfile{k}\t1\n" for k in range(45)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk.data, "path", [*nltk.data.path, str(root)])
        patch.setattr(WordNetCorpusReader, "map_wn", lambda self, version="wordnet": None)
        yield WordNetCorpusReader(str(folder), None)


def test_stems_are_nltks() -> None:
    from nltk.stem.porter import PorterStemmer

    rng, stemmer = random.Random(0), PorterStemmer()
    words = [w.lower() + e for w in WORDS for e in ENDINGS]
    words += ["".join(rng.choice("abcdeiilnosstuyy") for _ in range(rng.randint(1, 9)))
              + rng.choice([*ENDINGS, "ied", "eed", "ational", "logi", "alli", "fulli", "ement",
                            "ll", "y", "e"]) for _ in range(20_000)]
    assert {w: porter.stem(w) for w in words} == {w: stemmer.stem(w) for w in words}


def test_words_and_sentences_are_nltks(
        reference_sentences: Callable[[str], list[str]]) -> None:
    from nltk.tokenize import NLTKWordTokenizer

    rng, split = random.Random(1), NLTKWordTokenizer().tokenize
    bits = [*WORDS, "(", ")", "'", "''", "``", "...", ":", ";", "—", "--", "a.m.", "No.", "5",
            "3.50", "'twas", "'em", "rock'n'roll", "[x]", "$5", "50%", "#1", "*", "\n", "É",
            "“quote”", "‘a’", "«q»", "etc.", "He", "The", "&"]
    for _ in range(5000):
        text = rng.choice(["", " ", " "]).join(rng.choice(bits) for _ in range(rng.randint(0, 14)))
        assert sentences(text) == list(reference_sentences(text)), text
        assert list(word_tokenize(text)) == [
            word for part in reference_sentences(text) for word in split(part)], text


def test_meteor_is_nltks(theirs: Any, reference_sentences: Callable[[str], list[str]]) -> None:
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.translate.meteor_score import meteor_score

    rng, split = random.Random(2), NLTKWordTokenizer().tokenize
    known = sorted(w for part in wordnet._parts() for w in part.groups if w.isalpha())

    def altered(text: str) -> str:
        words = text.split() or ["x"]
        for _ in range(rng.randint(0, 4)):
            k = rng.randrange(len(words))
            related = sorted(wordnet.synonyms(words[k])) or [words[k]]
            words[k] = rng.choice([rng.choice(related), rng.choice(known), words[k] + "s"])
        if rng.random() < 0.3:
            rng.shuffle(words)
        return " ".join(words)

    different = []
    for number in range(PAIRS):
        wanted = [sentence(rng) for _ in range(rng.choice([1, 1, 1, 3]))]
        said = altered(rng.choice(wanted)) if number % 3 else sentence(rng)
        cut = [[w for part in reference_sentences(text) for w in split(part)]
               for text in (*wanted, said)]
        if meteor_score(cut[:-1], cut[-1], wordnet=theirs) != score(wanted, said):
            different.append((wanted, said))
    assert different == []


def test_synonyms_are_nltks(theirs: Any) -> None:
    rng = random.Random(3)
    known = sorted({w for part in wordnet._parts() for w in part.groups})
    words = rng.sample(known, 5000)
    words += [w + rng.choice(ENDINGS) for w in rng.sample(known, 5000)]
    words += [w for part in wordnet._parts() for w in list(part.exceptions)[:500]]
    for word in words:
        names = {lemma.name() for sense in theirs.synsets(word) for lemma in sense.lemmas()}
        lower = {name for name in names if "_" not in name and name == name.lower()}
        assert wordnet.synonyms(word) == lower, word


def test_the_version_is_no_mere_label() -> None:
    assert tokens.tokenize_sentence("'twas", "3.8") != tokens.tokenize_sentence("'twas", "3.10")
