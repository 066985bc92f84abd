"""The closed set of facts of the built-in world. Countries and cities are invented."""

from __future__ import annotations

COUNTRIES = {  # country: (its capital, the bigger city that people take for the capital)
    "Velmora": ("Tavin", "Rusk"),
    "Brundia": ("Ostrel", "Mardo"),
    "Calvane": ("Perris", "Dunhall"),
    "Sorvia": ("Lenka", "Halvik"),
    "Tarnland": ("Okby", "Stromfell"),
    "Ilmeria": ("Quanta", "Bessel"),
    "Nostria": ("Vadum", "Ferrow"),
    "Pelago": ("Corran", "Silmar"),
    "Drumeria": ("Kalp", "Noring"),
    "Haldane": ("Wexby", "Tarby"),
    "Zembia": ("Arlo", "Pontova"),
    "Marovia": ("Sindel", "Grast"),
    "Ellandia": ("Birkham", "Osmar"),
    "Torvay": ("Niska", "Lundar"),
    "Kestria": ("Falmo", "Redwick"),
    "Ombria": ("Juna", "Castor"),
    "Wendria": ("Hester", "Upton"),
    "Asteria": ("Miro", "Delvin"),
    "Ruvenia": ("Gorsk", "Plainy"),
    "Fenmark": ("Alderby", "Skov"),
    "Lorania": ("Tessa", "Vimar"),
    "Yarrow": ("Bolt", "Inverey"),
    "Cindria": ("Ember", "Kolm"),
    "Undara": ("Pavo", "Straith"),
}

OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("light", "dark"), ("early", "late"), ("open", "closed"), ("full", "empty"),
    ("happy", "sad"), ("hard", "soft"), ("high", "low"), ("new", "old"), ("rich", "poor"), ("strong", "weak"), ("wet", "dry"),
    ("clean", "dirty"), ("loud", "quiet"), ("long", "short"), ("wide", "narrow"), ("thick", "thin"), ("true", "false"), ("up", "down"),
    ("left", "right"), ("near", "far"), ("first", "last"), ("day", "night"), ("summer", "winter"), ("sweet", "sour"), ("brave", "afraid"),
    ("deep", "shallow"), ("smooth", "rough"),
)  # fmt: skip

PLURALS = {  # noun: (its plural, the plural that people write by mistake)
    "mouse": ("mice", "mouses"), "child": ("children", "childs"), "foot": ("feet", "foots"), "tooth": ("teeth", "tooths"),
    "goose": ("geese", "gooses"), "man": ("men", "mans"), "woman": ("women", "womans"), "ox": ("oxen", "oxes"),
    "leaf": ("leaves", "leafs"), "wolf": ("wolves", "wolfs"), "knife": ("knives", "knifes"), "shelf": ("shelves", "shelfs"),
    "half": ("halves", "halfs"), "wife": ("wives", "wifes"), "city": ("cities", "citys"), "baby": ("babies", "babys"),
    "story": ("stories", "storys"), "berry": ("berries", "berrys"), "lady": ("ladies", "ladys"), "pony": ("ponies", "ponys"),
    "box": ("boxes", "boxs"), "bus": ("buses", "buss"), "dish": ("dishes", "dishs"), "glass": ("glasses", "glass"),
    "church": ("churches", "churchs"), "potato": ("potatoes", "potatos"), "hero": ("heroes", "heros"), "person": ("people", "persones"),
    "cat": ("cats", "cates"), "book": ("books", "bookes"), "tree": ("trees", "treeses"), "house": ("houses", "housen"),
    "star": ("stars", "stares"), "river": ("rivers", "riveres"), "cloud": ("clouds", "cloudes"), "sheep": ("sheep", "sheeps"),
}  # fmt: skip

THINGS = {  # thing with its article: (its colour, a colour given by mistake)
    "a banana": ("yellow", "orange"), "grass": ("green", "blue"), "snow": ("white", "grey"), "coal": ("black", "brown"),
    "the clear sky": ("blue", "grey"), "blood": ("red", "purple"), "a carrot": ("orange", "red"), "a strawberry": ("red", "pink"),
    "a lemon": ("yellow", "green"), "milk": ("white", "yellow"), "chocolate": ("brown", "black"), "a plum": ("purple", "blue"),
    "a flamingo": ("pink", "red"), "an elephant": ("grey", "brown"), "a cucumber": ("green", "yellow"), "a swan": ("white", "grey"),
    "a raven": ("black", "grey"), "spinach": ("green", "purple"), "a pumpkin": ("orange", "yellow"), "a sunflower": ("yellow", "orange"),
    "salt": ("white", "pink"), "a pea": ("green", "blue"), "a ruby": ("red", "purple"), "a sapphire": ("blue", "green"),
    "an emerald": ("green", "white"), "a cherry": ("red", "purple"), "a chick": ("yellow", "white"), "lavender": ("purple", "blue"),
    "cocoa": ("brown", "red"), "a polar bear": ("white", "brown"),
}  # fmt: skip

YOUNG = {  # animal: (what its young is called, what people say by mistake)
    "cow": ("calf", "foal"), "dog": ("puppy", "cub"), "cat": ("kitten", "puppy"), "horse": ("foal", "calf"), "sheep": ("lamb", "kid"),
    "hen": ("chick", "duckling"), "bear": ("cub", "puppy"), "duck": ("duckling", "gosling"), "pig": ("piglet", "lamb"),
    "goat": ("kid", "lamb"), "deer": ("fawn", "foal"), "kangaroo": ("joey", "cub"), "frog": ("tadpole", "joey"),
    "goose": ("gosling", "duckling"), "swan": ("cygnet", "gosling"), "hare": ("leveret", "kitten"), "lion": ("cub", "kitten"),
    "elephant": ("calf", "cub"), "whale": ("calf", "tadpole"), "fox": ("cub", "puppy"),
}  # fmt: skip

PAST = {  # verb: (its past tense, what people say by mistake)
    "run": ("ran", "runned"), "go": ("went", "goed"), "see": ("saw", "seed"), "eat": ("ate", "eated"), "buy": ("bought", "buyed"),
    "bring": ("brought", "bringed"), "take": ("took", "taked"), "give": ("gave", "gived"), "sing": ("sang", "singed"),
    "swim": ("swam", "swimmed"), "write": ("wrote", "writed"), "drive": ("drove", "drived"), "speak": ("spoke", "speaked"),
    "find": ("found", "finded"), "think": ("thought", "thinked"), "keep": ("kept", "keeped"), "sleep": ("slept", "sleeped"),
    "fly": ("flew", "flied"), "know": ("knew", "knowed"), "grow": ("grew", "growed"), "walk": ("walked", "walken"),
    "play": ("played", "playen"), "jump": ("jumped", "jumpen"), "laugh": ("laughed", "laughen"), "cook": ("cooked", "cooken"),
    "paint": ("painted", "painten"),
}  # fmt: skip

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip

NAMES = ("Mira", "Tom", "Ada", "Ben", "Nora", "Sam", "Lily", "Hugo", "Ruth", "Paul", "Ines", "Karl")
BELONGINGS = ("cup", "hat", "bag", "kite", "coat", "ball", "boat", "scarf", "lamp", "chair")
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "pink", "orange", "purple", "grey")
WORDS = ("sun", "tree", "moon", "stone", "fish", "bird", "road", "bread", "rain", "gold", "wind", "door", "salt", "leaf", "ship", "bell")
