"""The simulated shop: who shops, when, and the year written as the raw tables of an ingest. Command: `recgraph demo`.

No public data set joins users, text searches with positions, clicks and purchases with product text, so recgraph plants
one, labelled as simulated wherever it shows. Everything comes from one seeded generator: the same seed writes the same
bytes. What happens within a visit is in `train/shop/trade.py` (season, searches, positions, comparison, complements,
each with what controls it), the products in `train/shop/catalogue.py`, the words in `train/shop/words.py`. Nothing here
knows a recommender. Planted here:

- Taste: likes over brands, colours, categories, shapes, materials and price tiers, from two of eight PERSONAS (LIKE)
  plus FAVOURITES of one's own; TASTE_NOISE is how far shoppers of one persona differ.
- Drift: a share DRIFTERS of the shoppers moves to another persona around a day of their own (`Shopper.turn`).
- Activity: log-normal with ACTIVITY_SPREAD, cut at about MOST_EVENTS a shopper; VISIT_EVENTS is what a visit makes on
  average, BURST the chance that another follows within five days, JOIN the share that joins during the year.

U123, the first shopper a new user meets, comes out of the same machinery: a chosen taste (GUEST_OF_HONOUR) and chosen
visits (STORY).
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np

from recgraph.errors import SettingsError, StoreError
from recgraph.store.db import Store
from recgraph.store.ingest.load import ingest
from recgraph.store.ingest.report import IngestReport
from recgraph.train.shop.catalogue import Floats, Product, build_listings, pick
from recgraph.train.shop.trade import Shopper, Trade, Visit, likes_of
from recgraph.train.shop.words import BRANDS, CATEGORIES, COLOURS, DEPARTMENTS, FEATURES, PERSONAS, SEASON_NAMES

NAME = "Marlow & Finch (simulated)"
CURRENCY = "€"
LAST_DAY = datetime(2025, 12, 31)
LIKE, FAVOURITES, TASTE_NOISE = 1.3, 1.1, 0.3
DRIFTERS = 0.5
ACTIVITY_SPREAD, MOST_EVENTS, VISIT_EVENTS = 1.0, 260, 5.75
BURST, JOIN = 0.4, 0.4
_RUSH = np.array([1, 0.5, 0.3, 0.2, 0.2, 0.4, 1, 2, 3, 4, 4, 4, 6, 5, 4, 4, 4, 5, 6, 8, 10, 10, 7, 3])
_HOURS = _RUSH / _RUSH.sum()  # when people shop: at lunch and in the evening

SHOPPER = "U123"
GUEST_OF_HONOUR = (  # what U123 likes at the start and at the end of the year
    "Harrow & Pine|Saltmarsh Row|Olive|Sage|Sand|White|Linen|Relaxed|Wide-Leg|tier 1",
    "Harrow & Pine|Brackenfold|Oatmeal|Moss|Olive|Camel|Wool|Lambswool|Suede|Leather|Chunky|Cable-Knit|tier 1",
)
# part of the year, hour, what is wanted, does it end in a purchase
STORY: tuple[tuple[float, float, str, bool], ...] = (
    (0.225, 20.2, "Shirts & Blouses|noun Shirt|Linen|Olive", True),
    (0.367, 21.1, "Dresses|noun Midi Dress|Linen|Sage", True),
    (0.455, 19.4, "Sandals|noun Sandals|Leather|Tan", True),
    (0.56, 20.8, "Shirts & Blouses|noun Shirt|Linen|Relaxed|Sage", True),
    (0.735, 18.7, "Knitwear|noun Jumper|Chunky|Lambswool", True),
    (0.86, 20.5, "Boots|noun Chelsea Boots|Suede", True),
    (0.9965, 19.9, "Knitwear|noun Cardigan|Chunky|Wool", False),
)

Progress = Callable[[str], None]
AnyTrade = TypeVar("AnyTrade", bound=Trade)


@dataclass(frozen=True, slots=True)
class ShopFacts:
    """What was written; `queries` counts distinct ones, times are the first and last event."""

    users: int
    items: int
    styles: int
    events: int
    searches: int
    clicks: int
    carts: int
    purchases: int
    exposures: int
    queries: int
    first: datetime
    last: datetime


def _draw_taste(rng: np.random.Generator, personas: Sequence[str]) -> Floats:
    own = np.zeros(len(FEATURES))
    for names, count in ((tuple(BRANDS), 2), (COLOURS, 3), (CATEGORIES, 1)):
        for name in (pick(rng, names) for _ in range(count)):
            own[FEATURES[name]] += FAVOURITES
    own[FEATURES[f"tier {int(rng.integers(3))}"]] += LIKE
    shared = likes_of(PERSONAS[personas[0]].split("|"), LIKE) + likes_of(PERSONAS[personas[1]].split("|"), LIKE / 2)
    return shared + own + rng.normal(0.0, TASTE_NOISE, len(FEATURES))


def draw_shoppers(rng: np.random.Generator, count: int, days: int) -> list[Shopper]:
    """The shoppers, U123 first."""
    numbers = rng.permutation(np.setdiff1d(np.arange(101, max(10_000, 3 * count)), [int(SHOPPER[1:])]))[: count - 1]
    names, shoppers = tuple(PERSONAS), []
    for user_id in (SHOPPER, *(f"U{number}" for number in numbers.tolist())):
        personas = [names[place] for place in rng.permutation(len(names))[:3].tolist()]
        before = _draw_taste(rng, personas[:2])
        moved = before * 0.4 + _draw_taste(rng, [personas[2], personas[0]]) * 0.8
        step = int(np.clip(round(float(rng.normal(2.0, 0.95))), 0, 4))
        steps = {
            "letter": step,
            "shoe": int(np.clip(step + rng.integers(-1, 2), 0, 4)),
            "waist": int(np.clip(step + rng.integers(-1, 2), 0, 4)),
        }
        department = "W" if rng.random() < 0.6 else "M"
        after = moved if rng.random() < DRIFTERS else before
        shoppers.append(
            Shopper(user_id, department, steps | {"one": 0}, before, after, float(rng.uniform(0.3, 0.8)) * days)
        )
    first, last = (likes_of(names.split("|"), LIKE * 1.5) for names in GUEST_OF_HONOUR)
    shoppers[0] = Shopper(SHOPPER, "W", {"letter": 2, "shoe": 2, "waist": 2, "one": 0}, first, last, 0.66 * days)
    return shoppers


def _plan(rng: np.random.Generator, shoppers: int, events: int, days: int) -> list[Visit]:
    """All visits in order of time: many shoppers come once, a few every week; some come back within days."""
    activity = rng.lognormal(0.0, ACTIVITY_SPREAD, shoppers)
    wanted = np.minimum(activity * (events / activity.sum()), MOST_EVENTS)
    wanted *= events / wanted.sum()
    visits = [Visit(int(part * days) + hour / 24, 0, tuple(wish.split("|")), buys) for part, hour, wish, buys in STORY]
    for shopper in range(1, shoppers):
        count = max(1, int(np.floor(wanted[shopper] / VISIT_EVENTS + rng.random())))
        joined = float(rng.uniform(0.0, days * 0.9)) if rng.random() < JOIN else 0.0
        times: list[float] = []
        while len(times) < count:
            day = joined + (days - joined) * float(rng.random()) ** 0.9
            times.append(day)
            while len(times) < count and rng.random() < BURST:
                day += float(rng.uniform(0.6, 5.0))
                times.append(day)
        hours = rng.choice(24, count, p=_HOURS)
        whole = sorted({int(day) for day in times if day < days})
        visits.extend(
            Visit(day + (int(hour) + float(rng.random())) / 24.6, shopper)
            for day, hour in zip(whole, hours, strict=False)
        )
    return sorted(visits, key=lambda visit: (visit.day, visit.shopper))


def _write(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def _item_row(product: Product, first: datetime) -> tuple[object, ...]:
    style = product.style
    facts = {
        "material": style.material,
        "fit": style.shape,
        "occasion": style.occasion,
        "season": SEASON_NAMES[style.season],
    }
    facts["department"] = DEPARTMENTS[style.department]
    seen = first + timedelta(days=product.arrived)
    head = (
        product.item_id,
        product.title,
        style.cut.category,
        style.brand,
        product.colour,
        product.size,
        f"{style.price:.2f}",
        style.description,
    )
    return (*head, json.dumps(facts), style.parent_id, seen.isoformat(" "), str(product.left == float("inf")).lower())


def trade_year(
    kind: type[AnyTrade],
    seed: int,
    shoppers: int,
    products: int,
    events: int,
    days: int,
    tell: Progress = lambda text: None,
) -> tuple[AnyTrade, datetime]:
    """The year as it was traded, and midnight of its first day; `kind` is who trades. SettingsError for a shop too
    small to trade."""
    for name, value, least in (
        ("shoppers", shoppers, 1),
        ("products", products, 200),
        ("events", events, 1),
        ("days", days, 28),
    ):
        if value < least:
            raise SettingsError(f"{name} is {value}; the simulated shop needs at least {least}.")
    rng = np.random.default_rng(seed)
    first = LAST_DAY - timedelta(days=days - 1)
    tell(f"making {products:,} products")
    listings = build_listings(rng, products, days)
    trade = kind(rng, listings, draw_shoppers(rng, shoppers, days), days)
    tell(f"letting {shoppers:,} shoppers shop for {days} days")
    for visit in _plan(rng, shoppers, events, days):
        trade.visit(visit)
    return trade, first


def write_shop(
    folder: str | Path,
    seed: int = 7,
    shoppers: int = 2000,
    products: int = 4000,
    events: int = 60_000,
    days: int = 365,
    progress: Progress | None = None,
) -> ShopFacts:
    """Simulates the shop and writes items.csv, events.csv and exposures.csv (columns as in store/schema.sql) into
    `folder`.

    The last day is 2025-12-31. `products` is exact, `events` is met within a few per cent. `progress` is told each
    stage in words. Raises SettingsError for a shop too small to trade.
    """
    tell = progress or (lambda text: None)
    trade, first = trade_year(Trade, seed, shoppers, products, events, days, tell)
    tell("writing the tables")
    trade.events.sort(key=lambda event: event[0])
    trade.exposures.sort(key=lambda exposure: exposure[0])
    _write_tables(Path(folder), trade, first)
    return _facts(trade, products, first)


def _write_tables(target: Path, trade: Trade, first: datetime) -> None:
    """items.csv by item_id, events.csv and exposures.csv by time; `first` is midnight of the first day."""
    target.mkdir(parents=True, exist_ok=True)
    products = trade.listings.products
    ids = [product.item_id for product in products]

    def when(second: int) -> str:
        return (first + timedelta(seconds=second)).isoformat(" ")

    head = "item_id title category brand color size price description attributes parent_id first_seen in_stock".split()
    _write(
        target / "items.csv",
        head,
        (_item_row(product, first) for product in sorted(products, key=lambda product: product.item_id)),
    )
    _write(
        target / "events.csv",
        "user_id ts action item_id query position".split(),
        (
            (user, when(second), action, ids[item] if item >= 0 else "", query, place)
            for second, user, action, item, query, place in trade.events
        ),
    )
    _write(
        target / "exposures.csv",
        "query item_id position ts".split(),
        ((query, ids[item], place, when(second)) for second, query, item, place in trade.exposures),
    )


def _facts(trade: Trade, products: int, first: datetime) -> ShopFacts:
    """The facts of a year whose events are in order of time."""
    kinds = [event[2] for event in trade.events]
    return ShopFacts(
        users=len({event[1] for event in trade.events}),
        items=products,
        styles=len(trade.siblings),
        events=len(kinds),
        searches=kinds.count("search"),
        clicks=kinds.count("click"),
        carts=kinds.count("cart"),
        purchases=kinds.count("purchase"),
        exposures=len(trade.exposures),
        queries=len({event[4] for event in trade.events if event[2] == "search"}),
        first=first + timedelta(seconds=trade.events[0][0]),
        last=first + timedelta(seconds=trade.events[-1][0]),
    )


def make_demo(
    store_path: str | Path,
    seed: int = 7,
    shoppers: int = 2000,
    products: int = 4000,
    events: int = 60_000,
    days: int = 365,
    progress: Progress | None = None,
) -> IngestReport:
    """Simulates the shop and ingests it into the store, which is made where missing; meta says that it is simulated,
    its name, its currency and that the shipped adapters, the set "default", are its own.

    A rerun with the same arguments changes nothing. StoreError where the store holds anything but this shop: invented
    products among real ones would be recommended, and a store said to be simulated is replaced by the stage `publish`.
    StoreBusy, StoreReadOnly and StoreError as `ingest`.
    """
    with tempfile.TemporaryDirectory(prefix="recgraph-shop-") as folder:
        facts = write_shop(folder, seed, shoppers, products, events, days, progress)
        label = (
            f"Simulated shop (seed {seed}): {facts.users:,} invented shoppers and {facts.items:,} invented products; "
            "no real person, brand or sale."
        )
        _check_own(Path(store_path), label)
        report = ingest(store_path, "tables", [folder], progress=progress or (lambda text: None))
    with Store.create(store_path) as store, store.writing():
        for key, value in (("simulated", label), ("name", NAME), ("currency", CURRENCY)):
            store.set_meta(key, value)
        if store.meta("adapter") is None:  # a rerun leaves what `recgraph adapters use` chose
            store.set_meta("adapter", "default")
    return report


def _check_own(path: Path, label: str) -> None:
    """StoreError where there are products in the store and it is not said to be the shop of this label."""
    if not path.exists():
        return
    with Store.open(path) as store:
        items, simulated = store.counts()["items"], store.meta("simulated")
    if items and simulated != label:
        whose = simulated.partition(":")[0] if simulated else "a shop that is not simulated"
        raise StoreError(
            f"{path} holds {whose}; the demo does not add another to it. Make it in a store of its own: recgraph demo "
            "--store demo.duckdb"
        )
