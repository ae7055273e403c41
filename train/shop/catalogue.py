"""The simulated shop's catalogue: products, the listings search works on, ids that tell nothing, and the wording of a
search.

Nothing here knows a shopper or a day's trade; that is `train/shop/year.py`. The words are in `train/shop/words.py`.
Title, description and price belong to the style (`parent_id`), colour and size to the variant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from recgraph.train.shop.words import (
    ALL_YEAR,
    ASKED_COLOUR,
    ASKED_OCCASION,
    ASKED_SHAPE,
    BRANDS,
    CUTS,
    FEATURES,
    MATERIALS,
    PALETTES,
    SIZE_STOCK,
    SIZE_SYSTEM,
    SIZES,
    SUMMER,
    UNTITLED,
    WINTER,
    GarmentCut,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_ID_FIRST, _ID_REST = "BCDFGHJKLMNPQRSTVWXYZ", "BCDFGHJKLMNPQRSTVWXYZ23456789"  # no vowels: an id is never a word


@dataclass(frozen=True, slots=True)
class Style:
    """One design, sold in colours and sizes: what all its variants share. `brand` is the name, `price` in the shop's
    currency."""

    parent_id: str
    cut: GarmentCut
    department: str
    brand: str
    shape: str
    material: str
    occasion: str
    price: float
    description: str
    number: int = 0

    @property
    def season(self) -> int:
        return MATERIALS[self.material].season

    @property
    def title(self) -> str:
        """Brand, shape, material and noun, without colour and size: "Harrow & Pine Relaxed Linen Shirt"."""
        men = "Men's" if self.department == "M" and self.cut.departments == "WM" else ""
        material = "" if self.material in UNTITLED else self.material
        number = f"No. {self.number}" if self.number else ""
        return " ".join(word for word in (self.brand, men, self.shape, material, self.cut.noun, number) if word)


@dataclass(frozen=True, slots=True)
class Product:
    """One variant, a row of items.csv. `arrived` and `left` are days since the first day of trade; `left` is infinite
    while it is sold."""

    item_id: str
    style: Style
    colour: str
    size: str
    arrived: float
    left: float

    @property
    def title(self) -> str:
        return ", ".join(word for word in (self.style.title, self.colour, self.size) if word)


@dataclass(frozen=True, slots=True)
class Listings:
    """The catalogue as search sees it: one row a style and colour, L of them, in arrays over that row.

    `codes` [L, 7] are FEATURES numbers (brand, colour, category, shape, material, noun, tier); `stock` [L, 5] the
    product number in each size step, -1 where there is none (every step is the same product where there are no sizes);
    `default` the size shown to strangers.
    """

    products: tuple[Product, ...]
    style: Ints
    codes: Ints
    stock: Ints
    default: Ints
    season: Floats
    arrived: Floats
    left: Floats
    appeal: Floats
    department: tuple[str, ...]


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def random_ids(rng: np.random.Generator, count: int) -> list[str]:
    """`count` different ids such as "P7K3QX", drawn at random: an id tells nothing about its product."""
    ids: dict[str, None] = {}
    while len(ids) < count:
        draws = rng.integers(len(_ID_FIRST) * len(_ID_REST) ** 5, size=count - len(ids)).tolist()
        for number in draws:
            first, letters = number % len(_ID_FIRST), []
            number //= len(_ID_FIRST)
            for _ in range(5):
                number, place = divmod(number, len(_ID_REST))
                letters.append(_ID_REST[place])
            ids[_ID_FIRST[first] + "".join(letters)] = None
    return list(ids)


def _price(rng: np.random.Generator, cut: GarmentCut, material: str, tier: int) -> float:
    """A price as shops print it: 34.95 in the value tier, 69 or 75 in the middle, 210 at the top."""
    plain = cut.price * MATERIALS[material].cost * (0.62, 1.0, 1.75)[tier] * float(rng.normal(1.0, 0.08))
    if tier == 0:
        return max(9.95, 5.0 * round(plain / 5) - 0.05)
    return max(15.0, 5.0 * round(plain / 5) - (1.0 if tier == 1 else 0.0))


def _style(rng: np.random.Generator, parent_id: str, weights: Floats, taken: dict[str, int]) -> Style:
    """Draws styles until one has a title of its own; a shop so large that all are taken numbers them ("No. 3")."""
    for _ in range(12):
        cut = CUTS[int(np.searchsorted(weights, rng.random()))]
        department = pick(rng, "WWM" if cut.departments == "WM" else cut.departments)
        brand = pick(rng, [name for name, (_, categories) in BRANDS.items() if cut.category in categories])
        shape, material = pick(rng, cut.shapes), pick(rng, cut.materials)
        warm = ("Holiday", "Garden Party") if MATERIALS[material].season == WINTER else ()
        occasion = pick(rng, [name for name in cut.occasions if name not in warm] or ["Everyday"])
        sentences = [pick(rng, MATERIALS[material].said), pick(rng, cut.said)]
        description = " ".join(sentences if rng.random() < 0.6 else sentences[::-1])
        style = Style(
            parent_id,
            cut,
            department,
            brand,
            shape,
            material,
            occasion,
            _price(rng, cut, material, BRANDS[brand][0]),
            description,
        )
        if style.title not in taken:
            break
    taken[style.title] = taken.get(style.title, 0) + 1
    return style if taken[style.title] == 1 else replace(style, number=taken[style.title])


def _arrival(rng: np.random.Generator, season: int, days: int) -> float:
    """When a style first stands in the shop (C1, high turnover): a part before day 0, the rest over the year, ahead of
    its season."""
    if rng.random() < {SUMMER: 0.35, ALL_YEAR: 0.42, WINTER: 0.5}[season]:
        return -float(rng.integers(1, 200)) - 0.75
    first, last = {SUMMER: (0.05, 0.5), ALL_YEAR: (0.0, 0.96), WINTER: (0.5, 0.92)}[season]
    return float(int(rng.uniform(first, last) * days)) + 0.25  # at six in the morning


def _variants(rng: np.random.Generator, style: Style, days: int) -> list[tuple[str, float, float, list[int]]]:
    """The colours of a style: (colour, arrived, left, size steps in stock). Some colours join later, some are sold out
    and leave."""
    palette = PALETTES[MATERIALS[style.material].palette].split("|")
    system = SIZE_SYSTEM.get(style.cut.category, "letter")
    count = min(
        len(palette),
        int(rng.choice([2, 3, 4, 5], p=[0.3, 0.4, 0.2, 0.1] if system == "one" else [0.5, 0.35, 0.12, 0.03])),
    )
    arrived, rows = _arrival(rng, style.season, days), []
    for place, colour in enumerate(rng.permutation(len(palette))[:count].tolist()):
        late = float(rng.integers(14, 80)) if place and rng.random() < 0.2 else 0.0
        start = arrived + late if arrived + late < days * 0.97 else arrived
        left = start + float(rng.integers(120, 420)) if rng.random() < 0.2 else float("inf")
        steps = [step for step in range(5) if rng.random() < SIZE_STOCK[step]] or [2]
        rows.append(
            (palette[colour], start, left if left < days - 1 else float("inf"), [0] if system == "one" else steps)
        )
    return rows


def build_listings(rng: np.random.Generator, products: int, days: int) -> Listings:
    """A catalogue of exactly `products` variants, about 4.4 a style, over `days` days."""
    weights = np.cumsum([cut.weight for cut in CUTS])
    parents, taken = iter(random_ids(rng, products)), dict[str, int]()
    made: list[Product] = []
    rows: list[tuple[int, list[int], list[int], Style, float, float]] = []
    number = 0
    while len(made) < products:
        style, number = _style(rng, next(parents), weights / weights[-1], taken), number + 1
        names = SIZES.get((SIZE_SYSTEM.get(style.cut.category, "letter"), style.department), ("",) * 5)
        for colour, arrived, left, steps in _variants(rng, style, days):
            steps = steps[: products - len(made)]
            if not steps:
                break
            stock = [len(made) + steps.index(step) if step in steps else -1 for step in range(5)]
            made.extend(Product("", style, colour, names[step], arrived, left) for step in steps)
            codes = [
                FEATURES[name]
                for name in (
                    style.brand,
                    colour,
                    style.cut.category,
                    style.shape,
                    style.material,
                    f"noun {style.cut.noun}",
                )
            ]
            codes.append(FEATURES[f"tier {BRANDS[style.brand][0]}"])
            rows.append((number, codes, stock if names[0] else [stock[0]] * 5, style, arrived, left))
    ids = random_ids(rng, products)
    stock_array = np.array([row[2] for row in rows])
    middle = np.array([2, 1, 3, 0, 4])  # the size shown to strangers is the most common one in stock
    return Listings(
        products=tuple(replace(product, item_id=item_id) for product, item_id in zip(made, ids, strict=True)),
        style=np.array([row[0] for row in rows]),
        codes=np.array([row[1] for row in rows]),
        stock=stock_array,
        default=stock_array[np.arange(len(rows)), middle[np.argmax(stock_array[:, middle] >= 0, axis=1)]],
        season=np.array([float(row[3].season) for row in rows]),
        arrived=np.array([row[4] for row in rows]),
        left=np.array([row[5] for row in rows]),
        appeal=rng.normal(0.0, 0.6, len(rows)),
        department=tuple(row[3].department for row in rows),
    )


def _typo(rng: np.random.Generator, text: str) -> str:
    """One slip of the finger inside a longer word: two letters swapped, one lost or one doubled."""
    words = text.split(" ")
    places = [place for place, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    if not places:
        return text
    place = places[int(rng.integers(len(places)))]
    word, at = words[place], int(rng.integers(1, len(words[place]) - 2))
    slips = (
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
    )
    words[place] = pick(rng, slips)
    return " ".join(words)


def _usual_place(count: int, drawn: Floats | float) -> Ints:
    """Which of `count` words uniform draws choose: the first ones more often."""
    return np.asarray(count * np.square(drawn), np.int64)


def _usual(rng: np.random.Generator, options: Sequence[str], plain: bool) -> str:
    """One of several words for a thing; the very first if `plain`."""
    return options[0] if plain else options[int(_usual_place(len(options), rng.random()))]


_EVEN = (np.arange(20_000) + 0.5) / 20_000


@lru_cache(maxsize=4096)
def _said_chances(options: Sequence[str]) -> dict[str, float]:
    """How often each of several words for a thing is said."""
    counts = np.bincount(_usual_place(len(options), _EVEN), minlength=len(options)) / len(_EVEN)
    chances: dict[str, float] = {}
    for word, chance in zip(options, counts.tolist(), strict=True):
        chances[word] = chances.get(word, 0.0) + chance
    return chances


def _ways(style: Style, colour: str) -> dict[str, tuple[str, ...]]:
    """The words there are for each fact of a style and for what it is (`noun`), the usual first."""
    asked = {
        "colour": ASKED_COLOUR.get(colour, colour),
        "shape": ASKED_SHAPE.get(style.shape, style.shape.replace("-", " ")),
        "material": "|".join(MATERIALS[style.material].asked),
        "occasion": ASKED_OCCASION.get(style.occasion, ""),
        "noun": "|".join(style.cut.asked),
    }
    return {kind: tuple(words.lower().split("|")) for kind, words in asked.items()}


def wording_chance(style: Style, colour: str, words: Mapping[str, str]) -> float:
    """How likely it is that somebody who means this style in this colour, and names these kinds of facts, says just
    these words (`query_words`)."""
    ways, chance = _ways(style, colour), 1.0
    for kind, word in words.items():
        if kind in ways:
            chance *= _said_chances(ways[kind]).get(word, 0.0)
        else:
            options = _brand_words(style) if kind == "brand" else _who_words(style)
            chance *= options.count(word) / len(options)
    return chance


def _brand_words(style: Style) -> tuple[str, str]:
    return style.brand.lower(), style.brand.lower().replace("&", "and")


def _who_words(style: Style) -> tuple[str, ...]:
    return ("mens", "men's", "for men") if style.department == "M" else ("womens", "women's", "ladies")


def query_words(
    rng: np.random.Generator, style: Style, colour: str, named: Sequence[str], plain: bool = False
) -> dict[str, str]:
    """What is said of a style: the `noun`, and a word for each of the kinds that are `named` beside it, out of colour,
    shape, material, brand, occasion, department. `plain` takes the usual words."""
    ways = _ways(style, colour)
    said = {kind: _usual(rng, ways[kind], plain) for kind in ("colour", "shape", "material")}
    said["brand"] = _brand_words(style)[0 if rng.random() < 0.5 else 1]
    said["occasion"] = _usual(rng, ways["occasion"], plain)
    noun = _usual(rng, ways["noun"], plain)
    words = {kind: said[kind] for kind in said if kind in named and not (kind == "material" and said[kind] in noun)}
    if "department" in named:
        words["department"] = pick(rng, _who_words(style))
    return {**words, "noun": noun}


def arrange_words(rng: np.random.Generator, words: Mapping[str, str], typos: float = 0.03, plain: bool = False) -> str:
    """The words of `query_words` in one of many orders, a slip now and then; in the usual order if `plain`."""
    noun, who = words["noun"], words.get("department", "")
    colour_word, brand, occasion = words.get("colour", ""), words.get("brand", ""), words.get("occasion", "")
    like = [words[key] for key in ("shape", "material") if key in words]
    after, before = (who, "") if who == "for men" else ("", who)
    order = 0 if plain else int(rng.integers(10))
    if order < 5:
        parts = [brand, before, colour_word, *like, noun, after, occasion]
    elif order < 7:
        parts = [
            brand,
            before,
            *like,
            noun,
            f"in {colour_word}" if colour_word and rng.random() < 0.4 else colour_word,
            after,
            occasion,
        ]
    elif order < 9:
        parts = [*like[:1], colour_word, *like[1:], noun, who, brand, occasion]
    else:
        parts = (
            [noun, *like, colour_word, who, brand] if not occasion else [*like, colour_word, noun, occasion, who, brand]
        )
    text = " ".join(part for part in parts if part)
    return _typo(rng, text) if rng.random() < typos else text


def word_query(
    rng: np.random.Generator, style: Style, colour: str, named: Sequence[str], typos: float = 0.03, plain: bool = False
) -> str:
    """One of many ways to ask for a style (C4): synonyms, word orders, a slip now and then, always lower case."""
    return arrange_words(rng, query_words(rng, style, colour, named, plain), typos, plain)
