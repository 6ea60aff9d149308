"""Stems and synonyms against values of NLTK 3.10.4, and the shipped table itself."""

from __future__ import annotations

import gzip
import importlib.util
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks_eval.meteor import porter, wordnet

ROOT = Path(__file__).resolve().parents[3]

STEMS = """
    caresses caress ponies poni ties tie dies die flies fli cats cat agreed agre feed feed
    plastered plaster motoring motor sing sing conflated conflat troubled troubl sized size
    hopping hop falling fall hissing hiss fizzed fizz failing fail filing file happy happi
    enjoy enjoy spy spi sky sky relational relat rational ration conformably conform
    radically radic geology geolog archaeology archaeolog hopefully hope sensibility sensibl
    triplicate triplic electrical electr goodness good adoption adopt replacement replac
    controlling control roll roll probate probat rate rate cease ceas dying die innings inning
    news news spied spi died die generally gener syzygy syzygi yyyyed yyyi toys toy
    playing play kitties kitti oing o
""".split()


@pytest.mark.parametrize(("word", "stem"), list(zip(STEMS[::2], STEMS[1::2], strict=True)))
def test_stems(word: str, stem: str) -> None:
    assert porter.stem(word) == stem


def test_synonyms() -> None:
    assert wordnet.synonyms("sofa") == {"sofa", "couch", "lounge"}
    assert {"kitty", "kitten"} <= wordnet.synonyms("kitties")  # by the rules of inflection
    assert "child" in wordnet.synonyms("children")  # by the list of exceptions
    assert "running" in wordnet.synonyms("running") and "run" in wordnet.synonyms("running")
    assert wordnet.synonyms("xyzzy") == wordnet.synonyms("") == frozenset()


def test_a_proper_name_leads_to_what_it_is_called_else() -> None:
    # The synset is {Caterpillar, cat}: only its lower-case word can match a lower-case text.
    assert "cat" in wordnet.synonyms("caterpillar")
    assert "Caterpillar" not in wordnet.synonyms("cat")


def test_the_rules_of_inflection_stop_where_nltks_stop() -> None:
    assert wordnet.synonyms("aidss", "nltk310") == frozenset()
    assert "help" in wordnet.synonyms("aidss", "nltk38")
    assert wordnet.synonyms("abyss", "nltk310") == {"abyss", "abysm"}


def test_the_notice_travels_with_the_table() -> None:
    packed = files("benchmarks_eval.meteor").joinpath("wordnet30.txt.gz").read_bytes()
    assert len(packed) < 600_000
    head = [line for line in gzip.decompress(packed).decode().splitlines()[:40]
            if line.startswith("#")]
    beside = files("benchmarks_eval.meteor").joinpath("WORDNET-LICENSE.txt").read_text("utf-8")
    for phrase in ("WordNet 3.0 Copyright 2006 by Princeton University", "without fee or",
                   'PROVIDED "AS IS"', "may not be used in"):
        assert any(phrase in line for line in head), phrase
        assert phrase in beside


def test_scoring_loads_no_torch() -> None:
    program = ("import sys\n"
               "from benchmarks_eval.meteor import score\n"
               "assert score(['a couch. It is red.'], 'a sofa. It is red.') > 0.9\n"
               "assert not {'torch', 'nltk', 'scipy'} & set(sys.modules)\n")
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# --- the script that builds the table -------------------------------------------------------


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "scripts" / "build_wordnet_table.py"
    spec = importlib.util.spec_from_file_location("build_wordnet_table", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NOTICE = "  1 WordNet 3.0 Copyright 2006 by Princeton University.  \n  2 AS IS  \n"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """WordNet's files with five nouns: {sofa, couch}, {cat}, {Caterpillar, cat, big_cat}."""
    nouns = (NOTICE + "00000010 06 n 02 sofa 0 couch 0 001 @ 00000020 n 0000 | a seat  \n"
             "00000020 05 n 01 cat 0 000 | an animal  \n"
             "00000030 06 n 03 Caterpillar 0 cat 0 big_cat 0 000 | a machine  \n")
    index = (NOTICE + "big_cat n 1 0 1 0 00000030  \ncat n 2 0 2 1 00000020 00000030  \n"
             "caterpillar n 1 0 1 0 00000030  \ncouch n 1 1 @ 1 0 00000010  \n"
             "sofa n 1 1 @ 1 0 00000010  \n")
    (tmp_path / "data.noun").write_text(nouns)
    (tmp_path / "index.noun").write_text(index)
    (tmp_path / "noun.exc").write_text("cattus cat\nsofae sofa\n")
    for part in ("verb", "adj", "adv"):
        for name in (f"data.{part}", f"index.{part}"):
            (tmp_path / name).write_text(NOTICE)
        (tmp_path / f"{part}.exc").write_text("")
    return tmp_path


def test_what_the_script_writes(script: ModuleType, tiny: Path,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "SYNSETS", 3)
    packed = script.build(tiny)
    assert packed == script.build(tiny)
    lines = gzip.decompress(packed).decode().splitlines()
    assert lines[1] == "# WordNet 3.0 Copyright 2006 by Princeton University."
    assert lines[3:10] == ["=noun", "cat | big_cat caterpillar", "couch sofa", "!  | ", "~",
                           "cattus cat", "sofae sofa"]
    noun = wordnet._read(gzip.decompress(packed).decode().split("\n=")[1])
    assert noun.groups == {"cat": (("cat",),), "big_cat": (("cat",),), "caterpillar": (("cat",),),
                           "couch": (("couch", "sofa"),), "sofa": (("couch", "sofa"),)}
    assert noun.bases("sofas", "nltk310") == ["sofa"]
    assert noun.bases("cattus", "nltk310") == ["cat"]


def test_only_wordnet_3_0_will_do(script: ModuleType, tiny: Path) -> None:
    with pytest.raises(ValueError, match="3 synsets where WordNet 3.0 has 117659"):
        script.build(tiny)
    with pytest.raises(ValueError, match=r"no data\.noun here; --source takes"):
        script.build(tiny / "nothing")
    path = tiny / "data.noun"
    path.write_text(path.read_text().replace("WordNet 3.0", "WordNet 3.1"))
    with pytest.raises(ValueError, match=r"data\.noun: does not say 'WordNet 3\.0"):
        script.build(tiny)


def test_the_script_fails_in_one_line(tiny: Path) -> None:
    out = tiny / "table.gz"
    done = subprocess.run([sys.executable, ROOT / "scripts" / "build_wordnet_table.py", "--source",
                           tiny, "--out", out], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert not out.exists()
