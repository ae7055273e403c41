"""The simulated shop's trade: what a shopper wants today, what a search shows, what is clicked, compared and bought.

One `Trade` is one run; everything random comes from the generator it is given. Nothing here knows how shoppers and
their visits are drawn (`train/shop/year.py`) nor what products are called (`train/shop/catalogue.py`). C1-C4 are the
characteristics of F 3. Planted here:

- Drift: a shopper's taste moves from `before` to `after` around the day `turn`, within DRIFT_DAYS; WEIGHTS says how
  much each liking counts.
- Season (C3): SEASON times the height of summer for linen or sandals, of winter for wool or boots; CATEGORY_SEASON by
  category.
- New products (C1): arrivals over the year (`shop_catalogue._arrival`), ahead of their season, with a NEWNESS bonus for
  FRESH_DAYS; part of the colours sell out and leave, and are out of stock at the year's end. Nothing is shown, clicked
  or bought before `first_seen`.
- Searches (C4): one intent is worded in many ways, TYPOS of them with a slip (`shop_catalogue.word_query`); REFINE is
  the chance of asking again.
- Positions: SHOWN products a search, ranked by what the query names, by demand and by RANK_NOISE. Eyes tire with
  POSITION_BIAS.
- Comparison (C2): COMPARE is the chance that a click is followed by other colours of the style; ON_PAGE that a colour
  is chosen on the product page without a click of its own. Shoppers not signed in (GUESTS) are shown the common size
  and buy their own. So the bought variant is not always one that was shown or clicked.
- Size: own size nearly always; WRONG_SIZE is what a colour that lacks it loses, OWNED what it (and what one has
  already) loses at the till.
- Complements: after a purchase, COMPLEMENT is the chance that the next visit is for what goes with it, BASKET that it
  goes into the same basket, AGAIN that it is for the same brand, shape and material.
- Repeat interest: after a visit that ended without a purchase, RESUME is the chance that a visit within a week takes it
  up again, DIRECT that it then needs no new search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recgraph.train.shop.catalogue import Floats, Ints, Listings, Style, arrange_words, pick, query_words
from recgraph.train.shop.words import CATEGORIES, CATEGORY_SEASON, COMPLEMENTS, FAMILIES, FEATURES, SIZE_SYSTEM

# how much a like counts, in the order of a listing's codes: brand, colour, category, shape, material, noun, tier
WEIGHTS = (1.0, 0.9, 0.0, 0.7, 0.7, 0.3, 0.8)  # the category is chosen before the product
# how much a listing gains by sharing these with the one in mind
NEARNESS = np.array([0.4, 1.1, 0.0, 0.5, 0.6, 0.9, 0.2])
DRIFT_DAYS = 60.0
SEASON = 1.3
NEWNESS, FRESH_DAYS = 0.5, 45
TYPOS = 0.03
REFINE = 0.62
SHOWN, RANK_NOISE, POSITION_BIAS = 8, 0.8, 0.9
COMPARE, ON_PAGE = 0.36, 0.15
GUESTS, WRONG_SIZE = 0.3, 3.0
COMPLEMENT, BASKET, AGAIN = 0.4, 0.16, 0.12
RANKED = (("brand", 0, 3.0), ("colour", 1, 2.0), ("shape", 3, 1.4), ("material", 4, 1.8))  # if named: code, weight
RESUME, DIRECT = 0.7, 0.35
BUYS, BUYS_RESUMED, CARTS, ABANDONS = 0.52, 0.75, 0.38, 0.16
BROWSES, WISH, OWNED = 0.12, 4.0, 3.0
CLICKS = np.cumsum([0.26, 0.4, 0.22, 0.09])  # chances of none, one, two, three clicks after a search; else four
# chances that a search names it
MENTIONS = {"colour": 0.38, "shape": 0.23, "material": 0.4, "brand": 0.09, "occasion": 0.06, "department": 0.15}
FEATURE_WEIGHTS = np.repeat(WEIGHTS, [len(family) for family in FAMILIES])
CATEGORY_PLACES = np.array([FEATURES[name] for name in CATEGORIES])
CATEGORY_SEASONS = np.array([CATEGORY_SEASON.get(name, 0.0) for name in CATEGORIES])
LOG_PLACES = np.log(np.arange(1, SHOWN + 1))

Seen = dict[int, tuple[int, str, int | None]]  # listing -> product looked at, the query and the position that led there


@dataclass(slots=True)
class Shopper:
    """Hidden preferences, and what the simulation remembers: the visit left `open` (day, listing in mind, seen), and
    (day, listing) `bought`."""

    user_id: str
    department: str
    step: dict[str, int]
    before: Floats
    after: Floats
    turn: float
    open: tuple[float, int, Seen] | None = None
    bought: list[tuple[float, int]] = field(default_factory=list)

    def taste(self, day: float) -> Floats:
        """Likes on that day [features]: they move from `before` to `after` around the day `turn`."""
        share = 1.0 / (1.0 + float(np.exp(-(day - self.turn) / (DRIFT_DAYS / 4))))
        return self.before * (1.0 - share) + self.after * share


@dataclass(slots=True)
class Intent:
    """What a visit is for: a listing in mind, its category's shelf `rows`, and for each of them its `charm`, what it
    has in common with the target (`same` [n, 7]) and, by listing number, what both are `worth` together. `lean` is what
    the target was chosen by, before chance."""

    target: int
    rows: Ints
    charm: Floats
    lean: Floats
    same: NDArray[np.bool_]
    worth: Floats
    resumed: bool
    seen: Seen


@dataclass(frozen=True, slots=True)
class Worded:
    """A search as it is asked: its text, the kinds of facts it names and the words it has for them."""

    text: str
    named: Sequence[str]
    words: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit. `wish` names FEATURES wanted (empty: taste decides), `buys` how it ends (None: chance decides)."""

    day: float
    shopper: int
    wish: tuple[str, ...] = ()
    buys: bool | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """A visit as it happens: who, when, with which taste (`likes` is taste times how much each feature counts), signed
    in or not."""

    visit: Visit
    day: float
    who: Shopper
    taste: Floats
    likes: Floats
    guest: bool


def likes_of(names: Sequence[str], strength: float) -> Floats:
    """`strength` for each of the named FEATURES, 0 for all others."""
    likes = np.zeros(len(FEATURES))
    likes[[FEATURES[name] for name in names]] = strength
    return likes


class Trade:
    """One run of the simulation. `events` and `exposures` fill up as `visit` is called in order of time (seconds since
    day 0)."""

    def __init__(self, rng: np.random.Generator, listings: Listings, shoppers: list[Shopper], days: int) -> None:
        self.rng, self.listings, self.shoppers, self.days = rng, listings, shoppers, days
        # second, user, action, product (-1), query, position
        self.events: list[tuple[int, str, str, int, str, int | None]] = []
        self.exposures: list[tuple[int, str, int, int]] = []  # second, query, product, position
        self.heat = np.zeros(len(listings.style))  # recent demand, cooled once a week
        self.cooled, self.today, self.clock = 0.0, -1, 0
        self.category = [listings.products[place].style.cut.category for place in listings.default]
        self.shelves: dict[tuple[str, str], Ints] = {}
        self.open_shelves: dict[tuple[str, str], Ints] = {}
        for category in CATEGORIES:
            for department in "WM":
                rows = [
                    n
                    for n, name in enumerate(self.category)
                    if name == category and listings.department[n] in (department, "U")
                ]
                self.shelves[category, department] = np.array(rows, dtype=np.int64)
        self.siblings: dict[int, list[int]] = {}
        for listing, style in enumerate(listings.style.tolist()):
            self.siblings.setdefault(style, []).append(listing)

    def open_day(self, day: float) -> None:
        """Stocks the shelves as of the morning: what arrived before that day and has not left. Demand cools once a
        week."""
        if int(day) > self.today:
            self.today = int(day)
            arrived, left = self.listings.arrived <= self.today, self.listings.left > self.today
            self.open_shelves = {key: rows[(arrived & left)[rows]] for key, rows in self.shelves.items()}
        if day - self.cooled > 7:
            self.heat, self.cooled = self.heat * 0.87, day

    def summer(self, day: float) -> float:
        """1 in mid-July, -1 in mid-January; the shop's last day is 31 December."""
        return float(np.cos(2 * np.pi * (day - (self.days - 169)) / 365))

    def on_sale(self, listing: int) -> bool:
        return bool(self.listings.arrived[listing] <= self.today < self.listings.left[listing])

    def step(self, listing: int, who: Shopper) -> int:
        return who.step[SIZE_SYSTEM.get(self.category[listing], "letter")]

    def variant(self, listing: int, who: Shopper, guest: bool = False) -> int:
        """The product in the shopper's own size, else (and for guests) in the listing's common size."""
        own = int(self.listings.stock[listing, self.step(listing, who)])
        return int(self.listings.default[listing]) if guest or own < 0 else own

    def charm(self, rows: Ints, at: Moment) -> Floats:
        """How much the shopper would like each listing today, whatever was searched."""
        shop = self.listings
        fits = shop.stock[rows, self.step(int(rows[0]), at.who)] >= 0
        fresh = np.maximum(0.0, 1.0 - (at.day - shop.arrived[rows]) / FRESH_DAYS)
        likes = at.likes[shop.codes[rows]].sum(axis=1) + 0.5 * shop.appeal[rows]
        return np.asarray(
            likes + SEASON * self.summer(at.day) * shop.season[rows] + NEWNESS * fresh - WRONG_SIZE * ~fits
        )

    def intent(self, at: Moment) -> Intent | None:
        """What this visit is for: an open question, what goes with the last purchase, the same again, or what taste and
        season say."""
        who, rng = at.who, self.rng
        if at.visit.wish:
            return self.aim(at, at.visit.wish[0])
        if who.open and at.day - who.open[0] < 8 and rng.random() < RESUME and self.on_sale(who.open[1]):
            _, target, seen = who.open
            return self.aim(
                at,
                self.category[target],
                target=target,
                seen={listing: how for listing, how in seen.items() if self.on_sale(listing)},
            )
        if who.bought and at.day - who.bought[-1][0] < 60 and rng.random() < COMPLEMENT:
            return self.aim(at, self.complement(who.bought[-1][1], who))
        if who.bought and rng.random() < AGAIN:
            last = who.bought[int(rng.integers(len(who.bought)))][1]
            loved = np.zeros(len(FEATURES))
            loved[self.listings.codes[last][[0, 3, 4, 5]]] = 1.5
            return self.aim(at, self.category[last], loved)
        counts = np.array([len(self.open_shelves[name, who.department]) for name in CATEGORIES])
        rates = (
            at.taste[CATEGORY_PLACES]
            + SEASON * self.summer(at.day) * CATEGORY_SEASONS
            + 0.5 * np.log(np.maximum(counts, 1e-9))
        )
        return self.aim(at, CATEGORIES[int(np.argmax(rates + rng.gumbel(size=len(rates))))])

    def complement(self, listing: int, who: Shopper) -> str:
        """A category that goes with the listing's, or its own where the shopper's department has none of those."""
        options = [name for name in COMPLEMENTS[self.category[listing]] if len(self.open_shelves[name, who.department])]
        return pick(self.rng, options) if options else self.category[listing]

    def aim(
        self, at: Moment, category: str, extra: Floats | None = None, target: int = -1, seen: Seen | None = None
    ) -> Intent | None:
        """An intent in a category around a listing to have in mind: likely one the shopper would like, not surely the
        best."""
        rows = self.open_shelves[category, at.who.department]
        if not len(rows):
            return None
        charm = self.charm(rows, at)
        lean = charm if extra is None else charm + extra[self.listings.codes[rows]].sum(axis=1)
        if target < 0:
            target = int(rows[np.argmax(lean + self.rng.gumbel(size=len(rows)))])
        return self.around(target, rows, charm, lean, seen)

    def around(self, target: int, rows: Ints, charm: Floats, lean: Floats, seen: Seen | None = None) -> Intent:
        """The intent of who has this listing in mind; `seen` is what an earlier visit looked at."""
        same = self.same(target, rows)
        worth = np.full(len(self.heat), -np.inf)
        worth[rows] = charm + same @ NEARNESS
        return Intent(target, rows, charm, lean, same, worth, seen is not None, seen or {})

    def same(self, target: int | Ints, rows: Ints) -> NDArray[np.bool_]:
        """Which of its facts each listing shares with the one in mind [..., 7]."""
        return np.asarray(self.listings.codes[rows] == self.listings.codes[target])

    def ask(self, intent: Intent, wish: Sequence[str], again: bool) -> Worded:
        """A search: it names a few of the target's facts at random.

        A chosen visit names what is wished in plain words, and the colour too when it asks again.
        """
        rng, product = self.rng, self.listings.products[self.listings.default[intent.target]]
        style = product.style
        if wish:
            facts = {"colour": product.colour, "shape": style.shape, "material": style.material}
            named = [kind for kind, fact in facts.items() if fact in wish or (kind == "colour" and again)]
            words = query_words(rng, style, product.colour, named, plain=True)
            return Worded(arrange_words(rng, words, 0.0, plain=True), named, words)
        named = [kind for kind, chance in self.mentions(style).items() if rng.random() < chance]
        words = query_words(rng, style, product.colour, named)
        return Worded(arrange_words(rng, words, TYPOS), named, words)

    def mentions(self, style: Style) -> dict[str, float]:
        """The chance that a search for the style names each kind of fact."""
        either = style.cut.departments == "WM"
        return {kind: chance for kind, chance in MENTIONS.items() if either or kind != "department"}

    def rank(self, intent: Intent, named: Sequence[str], at: Moment) -> list[int]:
        """The listings a search shows, best first, at most two colours of a style."""
        shop, rows = self.listings, intent.rows
        score = (
            1.6 * intent.same[:, 5]
            + 0.6 * shop.appeal[rows]
            + 0.5 * np.log1p(self.heat[rows])
            + self.rng.normal(0.0, RANK_NOISE, len(rows))
        )
        for kind, column, weight in RANKED:
            if kind in named:
                score += weight * intent.same[:, column]
        score += 0.5 * self.summer(at.day) * shop.season[rows]
        if not at.guest:  # who is signed in has the own size ticked, and a little of the taste is known
            score += 0.8 * (shop.stock[rows, self.step(intent.target, at.who)] >= 0) + 0.15 * intent.charm
        shown: list[int] = []
        styles: list[int] = []
        for listing in rows[np.argsort(-score, kind="stable")[: 3 * SHOWN]].tolist():
            style = int(shop.style[listing])
            if styles.count(style) < 2 and len(shown) < SHOWN:
                shown.append(listing)
                styles.append(style)
        return shown

    def log(
        self, who: Shopper, action: str, product: int, query: str, position: int | None, low: int, high: int
    ) -> None:
        """Notes an event `low` to `high` seconds after the one before."""
        self.clock += int(self.rng.integers(low, high))
        self.events.append((self.clock, who.user_id, action, product, query, position))

    def look(self, intent: Intent, shown: list[int], query: str, at: Moment) -> None:
        """Clicks from top to bottom: eyes tire on the way down, liked ones draw the hand; then, at times, the style's
        other colours."""
        rng, rows = self.rng, np.array(shown)
        pull = self.pull(intent.worth[rows]) + rng.gumbel(size=len(rows))
        count = max(2 if at.visit.wish else 0, int(np.searchsorted(CLICKS, rng.random())))
        for place in sorted(np.argsort(-pull, kind="stable")[:count].tolist()):
            listing = shown[place]
            self.log(at.who, "click", self.variant(listing, at.who, at.guest), query, place + 1, 6, 70)
            intent.seen[listing] = (self.events[-1][3], query, place + 1)
            self.heat[listing] += 0.2
            if rng.random() < COMPARE:
                others = self.others(listing, intent, at.who)
                for other in (others[n] for n in rng.permutation(len(others))[: int(rng.integers(1, 4))].tolist()):
                    self.log(at.who, "click", self.variant(other, at.who, at.guest), query, None, 8, 60)
                    intent.seen[other] = (self.events[-1][3], query, None)

    def pull(self, worth: Floats) -> Floats:
        """How much each place of a page draws the hand, from what is shown there is worth [..., places]."""
        return np.asarray(worth - POSITION_BIAS * LOG_PLACES[: worth.shape[-1]])

    def others(self, listing: int, intent: Intent, who: Shopper) -> list[int]:
        """The style's other colours that were not seen yet: those in the shopper's size, else all."""
        here = [n for n in self.siblings[int(self.listings.style[listing])] if n not in intent.seen and self.on_sale(n)]
        return [n for n in here if self.listings.stock[n, self.step(n, who)] >= 0] or here

    def decide(self, intent: Intent, at: Moment) -> bool:
        """Buys one of what was seen (own size, whatever was clicked), or leaves, perhaps with something in the cart."""
        rng, who = self.rng, at.who
        buys = rng.random() < (BUYS_RESUMED if intent.resumed else BUYS) if at.visit.buys is None else at.visit.buys
        if not intent.seen:
            return False
        best, query, position = self.take(intent, at, swaps=buys and not at.visit.wish)
        product = self.variant(best, who)
        if rng.random() < (CARTS if buys else 0.0 if at.visit.wish else ABANDONS):
            self.log(who, "cart", product, query, position, 15, 100)
        if buys:
            self.buy(best, query, position, at)
        return buys

    def take(self, intent: Intent, at: Moment, swaps: bool) -> tuple[int, str, int | None]:
        """The listing that is taken of what was seen, and the query and the position that led there; `swaps`: at times
        in another colour, chosen on its page."""
        options, rng = list(intent.seen), self.rng
        owned = {listing for _, listing in at.who.bought}
        unfit = np.array([n in owned or self.listings.stock[n, self.step(n, at.who)] < 0 for n in options])
        bias = -0.3 * POSITION_BIAS * np.log([intent.seen[n][2] or 3 for n in options]) - OWNED * unfit
        best = options[int(np.argmax(intent.worth[options] + bias + 0.8 * rng.gumbel(size=len(options))))]
        _, query, position = intent.seen[best]
        if swaps and rng.random() < ON_PAGE:
            others = self.others(best, intent, at.who)
            best, position = (others[int(rng.integers(len(others)))], None) if others else (best, position)
        return best, query, position

    def buy(self, listing: int, query: str, position: int | None, at: Moment) -> None:
        self.log(at.who, "purchase", self.variant(listing, at.who), query, position, 40, 300)
        self.heat[listing] += 1.0
        at.who.bought.append((at.day, listing))

    def basket(self, at: Moment) -> None:
        """Puts what goes with the purchase into the same basket, seen on its page and not always clicked."""
        intent = self.aim(at, self.complement(at.who.bought[-1][1], at.who))
        if intent:
            if self.rng.random() < 0.5:
                self.log(at.who, "click", self.variant(intent.target, at.who), "", None, 10, 60)
            self.buy(intent.target, "", None, at)

    def browse(self, intent: Intent, at: Moment) -> None:
        """One to three clicks without a search, on the start page's new arrivals of the category."""
        fresh = np.maximum(0.0, 1.0 - (at.day - self.listings.arrived[intent.rows]) / FRESH_DAYS)
        worth = intent.charm + 1.5 * fresh + self.rng.gumbel(size=len(fresh))
        for listing in intent.rows[np.argsort(-worth, kind="stable")[: int(self.rng.integers(1, 4))]].tolist():
            self.log(at.who, "click", self.variant(listing, at.who), "", None, 10, 60)
            intent.seen[listing] = (self.events[-1][3], "", None)

    def search(self, intent: Intent, at: Moment, again: bool) -> None:
        """One search, what it showed, and the clicks it led to."""
        asked = self.ask(intent, at.visit.wish, again)
        shown = self.rank(intent, asked.named, at)
        self.log(at.who, "search", -1, asked.text, None, 15, 90)
        self.exposures.extend(
            (self.clock, asked.text, self.variant(n, at.who, at.guest), place) for place, n in enumerate(shown, 1)
        )
        self.answered(intent, asked, shown, at)
        self.look(intent, shown, asked.text, at)

    def answered(self, intent: Intent, asked: Worded, shown: list[int], at: Moment) -> None:
        """Told of each search as its page appears. The shop needs to know nothing of it; who measures what can be known
        of its shoppers overrides this (train/shop/judge.py)."""

    def turns(self) -> int:
        """How often a visit asks."""
        return 1 + int(self.rng.random() < REFINE) + int(self.rng.random() < REFINE / 3)

    def visit(self, visit: Visit) -> None:
        """One visit from the first search to the purchase or the way out."""
        rng, who = self.rng, self.shoppers[visit.shopper]
        self.open_day(visit.day)
        self.clock = int(visit.day * 86_400)
        taste = who.taste(visit.day)
        likes = taste * FEATURE_WEIGHTS + (likes_of(visit.wish, WISH) if visit.wish else 0.0)
        at = Moment(visit, visit.day, who, taste, likes, bool(rng.random() < GUESTS) and not visit.wish)
        intent = self.intent(at)
        if intent is None:
            return
        if not visit.wish and rng.random() < BROWSES:
            self.browse(intent, at)
        if intent.resumed and intent.seen and rng.random() < DIRECT:
            for listing in list(intent.seen)[-2:]:
                self.log(who, "click", self.variant(listing, who), "", None, 10, 60)
        else:
            turns = self.turns()
            for turn in range((2 - bool(visit.buys)) if visit.wish else turns):
                self.search(intent, at, again=turn > 0)
        bought = self.decide(intent, at)
        who.open = None if bought else (visit.day, intent.target, intent.seen)
        if bought and not visit.wish and rng.random() < BASKET:
            self.basket(at)
