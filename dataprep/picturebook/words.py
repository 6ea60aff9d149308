"""What a caregiver would call the things in the picture book, and which names belong together.

Emoji carry catalogue names ("poultry_leg", "electric light bulb"); a child hears "meat" and "a
light bulb". `NOUNS` gives the spoken noun where the catalogue's short name will not do, `FAMILIES`
merges nouns that name nearly the same thing into one group, `HOW` says how English counts them.
"""

from __future__ import annotations

import re
from typing import Literal

Countability = Literal["count", "plural", "mass", "unique"]

LEFT_OUT = frozenset(
    """gun dagger_knife crossed_swords bomb bow_and_arrow military_helmet smoking coffin headstone
    funeral_urn hamsa dna spades clubs love_hotel pouring_liquid rice_scene card_index
    """.split()
)
"""Emoji that are not drawn into a child's picture book: weapons, graves, and the unspeakable."""

_NOUNS = """
eyeglasses glasses; dark_sunglasses sunglasses; safety_vest vest; womans_clothes blouse;
folding_hand_fan fan; shopping_bags shopping bag; school_satchel backpack; thong_sandal sandal;
mans_shoe shoe; athletic_shoe sneaker; hiking_boot boot; womans_flat_shoe shoe; high_heel shoe;
hair_pick comb; womans_hat hat; tophat hat; mortar_board graduation cap; billed_cap cap;
one-piece_swimsuit swimsuit; helmet_with_white_cross helmet; prayer_beads beads; mute speaker;
sound speaker; loud_sound speaker; mega megaphone; postal_horn horn; no_bell bell;
musical_score music; musical_note music; notes music; studio_microphone microphone;
level_slider slider; control_knobs knobs; musical_keyboard piano; drum_with_drumsticks drum;
long_drum drum; iphone phone; calling phone; telephone_receiver phone; fax fax machine;
low_battery battery; electric_plug plug; desktop_computer computer;
three_button_mouse computer mouse; minidisc disc; cd disc; dvd disc; movie_camera camera;
film_frames film; film_projector projector; clapper clapper board; camera_with_flash camera;
video_camera camera; vhs video tape; mag magnifying glass; mag_right magnifying glass;
bulb light bulb; izakaya_lantern lantern; diya_lamp lamp;
notebook_with_decorative_cover notebook; closed_book book; green_book book; blue_book book;
orange_book book; ledger notebook; page_with_curl paper; page_facing_up paper;
rolled_up_newspaper newspaper; bookmark_tabs paper; label tag; moneybag money; yen money;
dollar money; euro money; pound money; money_with_wings money; email envelope; e-mail envelope;
incoming_envelope envelope; envelope_with_arrow envelope; outbox_tray tray; inbox_tray tray;
package box; mailbox_closed mailbox; mailbox_with_mail mailbox; mailbox_with_no_mail mailbox;
postbox mailbox; ballot_box_with_ballot box; pencil2 pencil; black_nib pen;
lower_left_fountain_pen pen; lower_left_ballpoint_pen pen; lower_left_paintbrush paintbrush;
lower_left_crayon crayon; memo note; file_folder folder; open_file_folder folder;
card_index_dividers folder; date calendar; spiral_note_pad notepad; spiral_calendar_pad calendar;
chart_with_upwards_trend chart; chart_with_downwards_trend chart; bar_chart chart; pushpin pin;
round_pushpin pin; linked_paperclips paperclip; straight_ruler ruler; triangular_ruler ruler;
card_file_box box; file_cabinet cabinet; wastebasket trash can; unlock lock;
lock_with_ink_pen lock; closed_lock_with_key lock; old_key key; hammer_and_pick hammer;
hammer_and_wrench hammer; carpentry_saw saw; nut_and_bolt bolt; compression clamp; scales scale;
probing_cane cane; link chain; broken_chain chain; chains chain; alembic flask;
satellite_antenna antenna; petri_dish dish; drop_of_blood drop; droplet drop;
adhesive_bandage bandage; couch_and_lamp couch; lotion_bottle bottle; roll_of_paper toilet paper;
shopping_trolley shopping cart; nazar_amulet amulet; moyai statue; placard sign;
identification_card card; mouse_trap mousetrap; monkey_face monkey; dog2 dog; guide_dog dog;
service_dog dog; fox_face fox; cat2 cat; black_cat cat; lion_face lion; tiger2 tiger;
racehorse horse; unicorn_face unicorn; zebra_face zebra; water_buffalo buffalo; cow2 cow;
pig2 pig; dromedary_camel camel; giraffe_face giraffe; rhinoceros rhino; hippopotamus hippo;
mouse2 mouse; rabbit2 rabbit; panda_face panda; feet paw print; hatching_chick chick;
baby_chick chick; hatched_chick chick; dove_of_peace dove; black_bird bird; sauropod dinosaur;
t-rex dinosaur; dragon_face dragon; whale2 whale; tropical_fish fish; blowfish pufferfish;
shell seashell; wilted_flower flower; white_flower flower; cherry_blossom flower; blossom flower;
leaves leaf; fallen_leaf leaf; maple_leaf leaf; shamrock clover; four_leaf_clover clover;
seedling plant; potted_plant plant; evergreen_tree tree; deciduous_tree tree; tanabata_tree tree;
ear_of_rice rice plant; empty_nest nest; nest_with_eggs nest; brown_mushroom mushroom;
microbe germ; tangerine orange; green_apple apple; kiwifruit kiwi; hot_pepper pepper;
bell_pepper pepper; leafy_green lettuce; ginger_root ginger; pea_pod peas; baguette_bread bread;
cheese_wedge cheese; meat_on_bone meat; poultry_leg meat; cut_of_meat meat; hotdog hot dog;
stuffed_flatbread pita; fried_egg egg; shallow_pan_of_food pan; stew soup; bowl_with_spoon bowl;
green_salad salad; canned_food can; bento lunch box; rice_cracker cracker; ramen noodles;
oden skewer; dango skewer; fried_shrimp shrimp; icecream ice cream; doughnut donut;
birthday cake; chocolate_bar chocolate; honey_pot honey; baby_bottle bottle; glass_of_milk milk;
sake drink; champagne bottle; wine_glass glass; cocktail drink; tropical_drink drink; beers beer;
clinking_glasses drink; tumbler_glass drink; cup_with_straw cup; beverage_box juice;
mate_drink tea; ice_cube ice; knife_fork_plate plate; fork_and_knife fork; hocho knife;
amphora vase; earth_africa earth; earth_americas earth; earth_asia earth;
globe_with_meridians globe; world_map map; japan map; snow_capped_mountain mountain;
mount_fuji mountain; camping tent; beach_with_umbrella beach; desert_island island;
national_park park; classical_building building; building_construction crane; bricks brick;
house_buildings house; derelict_house_building house; house_with_garden house; office building;
european_post_office post office; convenience_store store; department_store store;
japanese_castle castle; european_castle castle; wedding church; tokyo_tower tower;
statue_of_liberty statue; hindu_temple temple; shinto_shrine shrine; foggy fog;
night_with_stars city; cityscape city; city_sunset city; sunrise_over_mountains sunrise;
city_sunrise sunrise; bridge_at_night bridge; hotsprings hot spring; carousel_horse carousel;
playground_slide slide; barber barber pole; circus_tent tent; steam_locomotive train;
railway_car train; bullettrain_side train; bullettrain_front train; train2 train; metro train;
light_rail train; train tram; station train station; monorail train; mountain_railway train;
suspension_railway train; oncoming_bus bus; trolleybus bus; minibus bus; fire_engine fire truck;
oncoming_police_car police car; oncoming_taxi taxi; oncoming_automobile car; blue_car car;
pickup_truck truck; articulated_lorry truck; racing_car race car; racing_motorcycle motorcycle;
motor_scooter scooter; manual_wheelchair wheelchair; motorized_wheelchair wheelchair;
auto_rickshaw rickshaw; busstop bus stop; motorway road; railway_track train track;
oil_drum barrel; fuelpump gas pump; rotating_light siren; vertical_traffic_light traffic light;
octagonal_sign stop sign; construction barrier; ring_buoy life ring; boat sailboat;
speedboat boat; motor_boat boat; passenger_ship ship; small_airplane airplane;
airplane_departure airplane; airplane_arriving airplane; mountain_cableway cable car;
aerial_tramway cable car; flying_saucer ufo; bellhop_bell bell; luggage suitcase;
hourglass_flowing_sand hourglass; timer_clock clock; mantelpiece_clock clock; new_moon moon;
waxing_crescent_moon moon; first_quarter_moon moon; full_moon moon; waning_gibbous_moon moon;
last_quarter_moon moon; waning_crescent_moon moon; crescent_moon moon; new_moon_with_face moon;
first_quarter_moon_with_face moon; last_quarter_moon_with_face moon; full_moon_with_face moon;
sunny sun; sun_with_face sun; ringed_planet planet; star2 star; stars star; milky_way stars;
partly_sunny cloud; thunder_cloud_and_rain cloud; mostly_sunny cloud; barely_sunny cloud;
partly_sunny_rain cloud; rain_cloud cloud; snow_cloud cloud; lightning cloud;
wind_blowing_face wind; closed_umbrella umbrella; umbrella_with_rain_drops umbrella;
umbrella_on_ground umbrella; zap lightning; snowman_without_snow snowman; ocean wave;
jack_o_lantern pumpkin; tada party popper; confetti_ball confetti; nesting_dolls dolls;
red_envelope envelope; ribbon bow; reminder_ribbon ribbon; admission_tickets ticket;
sports_medal medal; first_place_medal medal; second_place_medal medal; third_place_medal medal;
soccer ball; softball baseball; rugby_football football; tennis tennis racket;
flying_disc frisbee; bowling bowling ball; cricket_bat_and_ball cricket bat;
field_hockey_stick_and_ball hockey stick; ice_hockey_stick_and_puck hockey stick;
lacrosse lacrosse stick; table_tennis_paddle_and_ball paddle;
badminton_racquet_and_shuttlecock badminton racket; martial_arts_uniform karate suit;
goal_net net; golf golf flag; fishing_pole_and_fish fishing pole; diving_mask mask;
running_shirt_with_sash shirt; ski skis; dart target; 8ball pool ball; magic_wand wand;
video_game controller; game_die dice; jigsaw puzzle piece; mirror_ball disco ball;
chess_pawn chess piece; black_joker card; mahjong tile; flower_playing_cards card;
performing_arts mask; frame_with_picture picture; art paint; sewing_needle needle; hearts heart;
diamonds diamond; gem diamond; boar wild boar
"""
_FAMILIES = """
dog: poodle, dingo
cat: kitten, kitty
rabbit: bunny
sheep: ram, lamb
chicken: hen, rooster
cow: bull, ox
deer: doe, caribou, reindeer, wapiti
camel: dromedary
horse: racehorse
monkey: chimpanzee, tamarin
bear: polar bear
fish: pufferfish, clownfish, butterflyfish, lionfish, dolphinfish, coral trout, moon wrasse
seal: sea lion
bird: lark, cuckoo, blackbird, bluebird, crow, magpie, swallow
duck: drake, rubber duck
goose: gander
seagull: gull
penguin: tux
hippo: hippopotamus
bee: hornet, honeybee, hoverfly
beetle: ladybug
goat: mountaingoat
bison: buffalo, yak
snail: slug
frog: toad
shirt: blouse, polo shirt, t shirt, t-shirt
coat: lab coat, jacket
kiwi: kiwifruit
mailbox: post box
vest: safety vest
dress: gown, skirt
pants: jeans, shorts, bell bottom pants
swimsuit: bikini, briefs
shoe: sneaker, sandal, boot, ballet shoes, flip-flop
hat: cap, graduation cap, fedora, sombrero, party hat, helmet, hard hat
glasses: sunglasses, goggles
bag: shopping bag, handbag, purse, pouch
speaker: loudspeaker, megaphone
horn: party horn
phone: telephone
computer: laptop, monitor
disc: floppy disk, compact disc
book: books, notebook, notepad
paper: newspaper, note, receipt
lamp: lantern
light bulb: lightbulb
pen: ball point pen, marker
chain: chains
pin: safety pin
saw: carpentry saw
hammer: mallet
box: takeout box, lunch box, ballot box
trash can: garbage can, bin
card: credit card
drop: drops
bottle: lotion bottle
flower: blossom, flowers, rose, tulip, hibiscus, sunflower, hyacinth, lotus, daffodil, bouquet,
  iris, marigold, petunia, gazania, rosette
leaf: leaves
plant: rice plant, herb
tree: palm tree, christmas tree, oak, birch
orange: mandarin orange
bread: loaf, flatbread, bagel, pita
potato: sweet potato, yam
noodles: spaghetti
cookie: fortune cookie, cracker, moon cake
cake: cupcake, pie
dumpling: rice ball
ice: shaved ice
cup: mug
tea: bubble tea, teacup
teapot: kettle
earth: globe
church: cathedral, chapel
house: hut, cottage, home, houses
building: post office
castle: fort, fortress, ruins
tent: circus tent, tepee
train: tram, locomotive, boxcar, caboose, tanker, tender, carriage, train station, train track
truck: fire truck, dump truck, tow truck, forklift
car: taxi, police car, race car, sedan
bike: bicycle, tricycle
motorcycle: motor bike, motorbike, scooter
boat: sailboat, sail boat, canoe, tugboat
ship: ferry
airplane: plane
clock: alarm clock, stopwatch
star: stars
ball: baseball, basketball, football, volleyball, tennis ball, bowling ball, pool ball, crystal
  ball, disco ball, soccer ball, cricket ball
dolls: doll
gift: present
fireworks: sparkler, firecracker, sparkles
fire: flame
racket: tennis racket, badminton racket
hockey stick: lacrosse stick
wheel: tire
mushroom: cep, ceps, toadstool
stop sign: road sign, sign
violin: cello
guitar: bass guitar, banjo, electric guitar
drum: drum kit
trophy: trophy cup
candy: candy cane, lollipop, hard candy
clover: shamrock
pumpkin: jack-o-lantern
bow: ribbon
skis: ski
picture: framed picture
"""
_PLURAL = """
glasses sunglasses goggles gloves socks jeans shorts briefs beads knobs headphones maracas books
scissors bubbles noodles peas peanuts beans fries pancakes grapes cherries blueberries chopsticks
fireworks sparkles dolls flags skis dice stars pants binoculars shoes ballet_shoes
"""
_MASS = """
music film money paper meat cheese bread lettuce ginger bacon salad popcorn butter salt rice curry
spaghetti sushi chocolate candy honey milk tea beer juice ice corn broccoli garlic soup wood fog
wind lightning fire confetti paint thread yarn blood coral toilet_paper soap bamboo fondue custard
flatbread ice_cream coffee bubble_tea shaved_ice falafel pita
"""
_UNIQUE = "earth moon sun"


def _nouns(table: str) -> dict[str, str]:
    entries = (entry.strip().partition(" ") for entry in table.replace("\n", " ").split(";"))
    clocks = {f"clock{hour}{half}": "clock" for hour in range(1, 13) for half in ("", "30")}
    return {short_name: noun for short_name, _, noun in entries} | clocks


def _families(table: str) -> dict[str, str]:
    lines = (line.partition(":") for line in table.replace("\n  ", " ").strip().split("\n"))
    return {noun.strip(): group for group, _, nouns in lines for noun in nouns.split(",")}


def _counted(words: str, how: Countability) -> dict[str, Countability]:
    return {word.replace("_", " "): how for word in words.split()}


NOUNS = _nouns(_NOUNS)
"""Emoji short name -> spoken noun, where that is not the short name with spaces."""

FAMILIES = _families(_FAMILIES)
"""Noun -> group, for nouns whose group is another word."""

HOW = _counted(_PLURAL, "plural") | _counted(_MASS, "mass") | _counted(_UNIQUE, "unique")
"""Noun -> how English counts it; nouns that are missing take "a"."""


def noun_of(short_name: str) -> str:
    """The spoken noun of an emoji short name, e.g. ``"poultry_leg"`` -> ``"meat"``."""
    return NOUNS.get(short_name, short_name.replace("_", " ").strip())


def group_of(noun: str) -> str:
    """The family that a noun belongs to (itself where it has no family)."""
    return FAMILIES.get(noun, noun)


def how_counted(noun: str) -> Countability:
    """How English counts the noun: a dog, some grapes, some milk, the moon."""
    return HOW.get(noun, "count")


_WORD = re.compile(r"[a-z]+(?:[-'][a-z]+)*")


def words_in(text: str) -> list[str]:
    """Lower-case words of an utterance, punctuation and digits left out."""
    return _WORD.findall(text.lower().replace("\u2019", "'"))
