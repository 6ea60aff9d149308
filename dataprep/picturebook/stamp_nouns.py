"""Nouns of the stamps whose captions do not say them ("Eat your bread!", "Dead end ahead!")."""

from __future__ import annotations

_TABLE = """
airplane: vehicles/flight/planes/cartoon/plane
bow: clothes/bowtie
box: household/recyclingbox household/recyclingbox2
bread: food/bread food/loaf_of_bread
bunny: seasonal/easter/bunny-egg
car: vehicles/auto/beetle
cement mixer: household/tools/cementmixer
cheese: food/cheese
cherimoya: food/fruit/cherimoya
coffee: household/dishes/coffeecup household/dishes/expresso
crowned crane: animals/birds/crowned_crane
cylinder: household/cylinder
dreidel: seasonal/hanukkah/dreydl-gimmel seasonal/hanukkah/dreydl-hay
  seasonal/hanukkah/dreydl-nun seasonal/hanukkah/dreydl-shin
earth: household/globe
flag: town/flags/blue-and-yellowflag
flower: plants/flowers/adeenia plants/flowers/anemone_red plants/flowers/anthoorium
  plants/flowers/appooppanthady plants/flowers/bolsom
football: sports/australian_rules_football
glass: household/dishes/glass
goal posts: sports/rugby_goal_posts
graduation cap: clothes/hats/mortarboard
grinder: household/dishes/utensils/pepper_grinder
hair: people/body_parts/hair_manga
helicopter: vehicles/flight/cartoon/eddieCopter
helmet: sports/cartoon/football_helmet_front sports/cartoon/football_helmet_side
house: town/houses/cartoon/hunter
inukshuk: town/monuments/inukshuk-outline town/monuments/inukshuk-photo
iron: household/clothes_iron
jeans: clothes/bluejeans1
lander: space/apollo_lander
light: seasonal/christmas/lamp
lightning: naturalforces/lightningbolt
lobster: animals/fish/lobster
lock: household/padlock_closed household/padlock_open
lorikeet: animals/birds/rainbow-lorikeet
mailbox: town/uk_post_box
man: people/cartoon/man_in_suit
measuring tape: household/tools/measuring_tape
menorah: seasonal/hanukkah/menorah
microwave: household/microwave
ornament: seasonal/christmas/xmas_tp_bulb
pants: clothes/bellbottoms
peacock: animals/birds/albino_peahen
penguin: animals/birds/cartoon/penguin_with_spider animals/birds/cartoon/pengwin
  animals/birds/cartoon/tux
pie: seasonal/christmas/Mince_Pie
police car: vehicles/emergency/sedan_police
pot: household/dishes/cartoon/pasta_pot household/dishes/cartoon/pressure_cooker
pudding: seasonal/christmas/Christmas_pudding
pumpkin: seasonal/halloween/jackolantern_mean
sailboat: vehicles/ship/walnutBoat
santa: seasonal/christmas/Santa
ship: vehicles/ship/chineseJunk
sign: town/roadsigns/arrow town/roadsigns/blankroadsign town/roadsigns/crossroads
  town/roadsigns/dead_end_sign town/roadsigns/give_way_sign town/roadsigns/hospital
  town/roadsigns/no_entry_sign town/roadsigns/no_uturn town/roadsigns/railroad_crossing
  town/roadsigns/roundabout town/roadsigns/school_sign town/roadsigns/t-junction
  town/roadsigns/toilets town/roadsigns/xing_ped town/roadsigns/xing_school town/roadsigns/yield
  vehicles/locomotive/cartoon/trainSign
skirt: clothes/top_skirt
sled: seasonal/winter/sledge
stable: town/houses/cartoon/stables
submarine: vehicles/ship/cartoon/bathyscape
tanker: vehicles/locomotive/cartoon/tanker
toilet: household/toilet
tomato: food/vegetables/tomato
totem pole: town/monuments/cartoon/totem
town hall: town/houses/cartoon/townhall
tractor: vehicles/farming/cartoon/tractor vehicles/farming/cartoon/tux_tractor
traffic light: town/roadsigns/stoplight_01_red town/roadsigns/stoplight_02_yellow
  town/roadsigns/stoplight_03_green
trash can: household/garbagecan household/home_compost_bin household/wheelie_bin
truck: vehicles/construction/dumper
turkey: seasonal/christmas/Roast_turkey
vacuum cleaner: household/vacuum_cleaner
walnut: food/nuts/walnut_shelled
washing machine: household/Washing-machine
wheel: vehicles/7spoke256 vehicles/bikewheel vehicles/wheel_tractor
wing: animals/insects/cartoon/wings
woman: people/cartoon/woman_dancing
"""


def _by_stamp(table: str) -> dict[str, str]:
    lines = (line.partition(":") for line in table.replace("\n  ", " ").strip().split("\n"))
    return {stamp: noun for noun, _, stamps in lines for stamp in stamps.split()}


STAMP_NOUNS = _by_stamp(_TABLE)
"""Stamp (path below the stamps' folder, without ending) -> noun."""
