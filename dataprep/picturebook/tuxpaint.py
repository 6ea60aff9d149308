"""Tux Paint's stamps with the captions that were written for children."""

from __future__ import annotations

import re
from pathlib import Path

from dataprep.picturebook.drawings import Drawing
from dataprep.picturebook.words import FAMILIES, NOUNS, group_of, words_in

STAMPS = Path("/usr/share/tuxpaint/stamps")
_LEFT_OUT_FOLDERS = {"symbols", "military"}
_LEFT_OUT_NAMES = re.compile(r"_mirror$|^grave|graveyard|sword|explosion|ammunition|cannon")
_CUT = re.compile(
    r"\b(?:with|in|of|for|from|that|worn|playing|dancing|covered|inside|hatched|is|are|was|lets|"
    r"carries|used|stands|means|resembles|to|making|and)\b|[.,:;!?(\u2014\u2013-](?:\s|$)|\u2014"
)


# captions whose noun the rule below does not find
_OVERRIDES = {
    "clothes/bellbottoms": "pants", "clothes/bluejeans1": "jeans", "clothes/top_skirt": "skirt",
    "clothes/hats/mortarboard": "graduation cap", "food/cheese": "cheese",
    "food/bread": "bread", "food/loaf_of_bread": "bread",
    "household/recyclingbox": "box", "household/recyclingbox2": "box",
    "household/clothes_iron": "iron", "household/globe": "earth",
    "household/toilet": "toilet", "household/dishes/coffeecup": "coffee",
    "household/dishes/expresso": "coffee", "household/dishes/glass": "glass",
    "household/garbagecan": "trash can", "household/wheelie_bin": "trash can",
    "household/home_compost_bin": "trash can", "naturalforces/explosion": "explosion",
    "people/cartoon/woman_dancing": "woman", "people/cartoon/man_in_suit": "man",
    "animals/insects/cartoon/wings": "wing", "animals/fish/lobster": "lobster",
    "seasonal/easter/bunny-egg": "bunny", "seasonal/christmas/Mince_Pie": "pie",
    "seasonal/christmas/Roast_turkey": "turkey", "seasonal/christmas/Christmas_pudding": "pudding",
    "seasonal/christmas/lamp": "light", "seasonal/christmas/xmas_tp_bulb": "ornament",
    "sports/cartoon/football_helmet_front": "helmet",
    "sports/cartoon/football_helmet_side": "helmet",
    "sports/australian_rules_football": "football",
    "town/houses/cartoon/hunter": "house", "town/roadsigns/blankroadsign": "sign",
    "vehicles/7spoke256": "wheel", "vehicles/wheel_tractor": "wheel",
    "vehicles/bikewheel": "wheel", "vehicles/emergency/sedan_police": "police car",
    "vehicles/flight/cartoon/eddieCopter": "helicopter",
    "vehicles/flight/planes/cartoon/plane": "airplane",
    "vehicles/farming/cartoon/tractor": "tractor",
    "vehicles/farming/cartoon/tux_tractor": "tractor",
    "vehicles/ship/walnutBoat": "sailboat", "vehicles/ship/chineseJunk": "ship",
    "town/monuments/inukshuk-outline": "inukshuk", "town/monuments/inukshuk-photo": "inukshuk",
    "animals/birds/cartoon/pengwin": "penguin", "animals/birds/cartoon/tux": "penguin",
    "animals/birds/cartoon/penguin_with_spider": "penguin", "animals/birds/albino_peahen": "peacock",
    "animals/birds/rainbow-lorikeet": "lorikeet", "animals/birds/crowned_crane": "crowned crane",
    "food/vegetables/tomato": "tomato", "food/fruit/cherimoya": "cherimoya",
    "food/nuts/walnut_shelled": "walnut", "household/Washing-machine": "washing machine",
    "household/cylinder": "cylinder", "household/dishes/cartoon/pressure_cooker": "pot",
    "household/dishes/utensils/pepper_grinder": "grinder", "household/microwave": "microwave",
    "household/padlock_closed": "lock", "household/padlock_open": "lock",
    "household/tools/measuring_tape": "measuring tape", "household/vacuum_cleaner": "vacuum cleaner",
    "naturalforces/lightningbolt": "lightning", "people/body_parts/hair_manga": "hair",
    "plants/flowers/anemone_red": "flower", "plants/flowers/adeenia": "flower",
    "plants/flowers/anthoorium": "flower", "plants/flowers/appooppanthady": "flower",
    "plants/flowers/bolsom": "flower", "clothes/bowtie": "bow",
    "seasonal/christmas/Santa": "santa", "seasonal/halloween/jackolantern_mean": "pumpkin",
    "seasonal/hanukkah/dreydl-gimmel": "dreidel", "seasonal/hanukkah/dreydl-hay": "dreidel",
    "seasonal/hanukkah/dreydl-nun": "dreidel", "seasonal/hanukkah/dreydl-shin": "dreidel",
    "seasonal/hanukkah/menorah": "menorah", "space/apollo_lander": "lander",
    "sports/rugby_goal_posts": "goal posts", "seasonal/winter/sledge": "sled",
    "town/flags/blue-and-yellowflag": "flag", "town/houses/cartoon/townhall": "town hall",
    "town/monuments/cartoon/totem": "totem pole", "town/roadsigns/dead_end_sign": "sign",
    "town/roadsigns/give_way_sign": "sign", "town/roadsigns/no_entry_sign": "sign",
    "town/roadsigns/no_uturn": "sign", "town/roadsigns/railroad_crossing": "sign",
    "town/roadsigns/roundabout": "sign", "town/roadsigns/school_sign": "sign",
    "town/roadsigns/hospital": "sign", "town/roadsigns/arrow": "sign",
    "town/roadsigns/crossroads": "sign", "town/roadsigns/t-junction": "sign",
    "town/roadsigns/toilets": "sign", "town/roadsigns/xing_ped": "sign",
    "town/roadsigns/xing_school": "sign", "town/roadsigns/yield": "sign",
    "town/roadsigns/stoplight_01_red": "traffic light",
    "town/roadsigns/stoplight_02_yellow": "traffic light",
    "town/roadsigns/stoplight_03_green": "traffic light", "town/uk_post_box": "mailbox",
    "vehicles/auto/beetle": "car", "vehicles/locomotive/cartoon/tanker": "tanker",
    "vehicles/locomotive/cartoon/trainSign": "sign",
    "vehicles/ship/cartoon/bathyscape": "submarine",
    "household/tools/cementmixer": "cement mixer", "town/houses/cartoon/stables": "stable",
    "household/dishes/cartoon/pasta_pot": "pot", "vehicles/construction/dumper": "truck",
}


def _singulars(words: list[str]) -> list[str]:
    out = []
    for word in words:
        if word.endswith("ies") and len(word) > 4:
            word = word[:-3] + "y"
        elif word.endswith("s") and not word.endswith("ss") and len(word) > 3:
            word = word[:-1]
        out.append(word)
    return out


def known_nouns(emoji: list[Drawing]) -> set[str]:
    """Every noun that emoji or families use: what a caption is searched for."""
    return {d.noun for d in emoji} | set(FAMILIES) | set(FAMILIES.values()) | set(NOUNS.values())


def noun_in(caption: str, nouns: set[str]) -> str:
    """The noun of a caption: the longest known one in the phrase before "with", "in", "of" ...

    Falls back on the last word of that phrase ("A Tamworth pig." -> pig, "A zebu." -> zebu).
    """
    text = re.sub(r"^(?:a (?:pair|cup|bunch|cluster|tube|head|string|quarter|couple|baby|model)|"
                  r"the baby) of (?:an? |the )?", "", caption.strip().lower())
    text = re.sub(r"^(?:\u2013\s*|the |an? |some |our |two |eat your |remember to flush the )", "", text)
    phrase = _CUT.split(text, maxsplit=1)[0]
    for candidate in (phrase, text):
        words = words_in(candidate)
        single = _singulars(words)
        for size in range(min(3, len(words)), 0, -1):
            for start in range(len(words) - size, -1, -1):
                for form in (words, single):
                    span = " ".join(form[start : start + size])
                    if span in nouns:
                        return span
        if candidate is phrase and words:
            return words[-1]
    return words_in(caption)[-1]


def collect_stamps(emoji: list[Drawing], root: Path = STAMPS) -> list[Drawing]:
    """Every captioned stamp; PNG and SVG twins are one drawing. Raises ValueError if missing."""
    if not root.is_dir():
        raise ValueError(
            f"{root}: missing; install the stamps with "
            "'apt-get install --no-install-recommends tuxpaint-stamps-default'"
        )
    nouns = known_nouns(emoji)
    drawings = []
    for text in sorted(root.rglob("*.txt")):
        relative = text.relative_to(root).with_suffix("")
        if _LEFT_OUT_FOLDERS & set(relative.parts) or _LEFT_OUT_NAMES.search(relative.name):
            continue
        files = tuple(str(f) for s in (".svg", ".png") if (f := text.with_suffix(s)).is_file())
        caption = text.read_text(encoding="utf-8").splitlines()[0].strip()
        if not files or not words_in(caption):
            continue
        name = relative.as_posix()
        noun = _OVERRIDES.get(name) or noun_in(caption, nouns)
        drawings.append(
            Drawing(
                key=f"tuxpaint/{name}",
                vendor="tuxpaint",
                concept=f"tuxpaint/{name}",
                noun=noun,
                group=group_of(noun),
                files=files,
                caption=caption,
            )
        )
    return drawings
