"""The simulated shop: the same seed writes the same bytes, what is planted is there, and the next purchase can be
learned but not read off."""

from __future__ import annotations

import csv
import hashlib
import math
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

from recgraph.errors import SettingsError, StoreError
from recgraph.store.db import Store
from recgraph.train.shop.catalogue import build_listings, word_query
from recgraph.train.shop.words import CUTS, FAMILIES, FEATURES, MATERIALS, PERSONAS
from recgraph.train.shop.year import SHOPPER, ShopFacts, make_demo, write_shop

Row = dict[str, str]
SMALL = {"shoppers": 60, "products": 400, "events": 1500}
CUT = "2025-11-20"


@dataclass
class Written:
    """The tables as read back, users' events in order."""

    facts: ShopFacts
    items: dict[str, Row]
    events: list[Row]
    exposures: list[Row]
    users: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))


def read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A third of the demo's shoppers and events on half its products."""
    folder = tmp_path_factory.mktemp("shop")
    facts = write_shop(folder, seed=7, shoppers=700, products=2000, events=20_000)
    written = Written(
        facts,
        {row["item_id"]: row for row in read(folder / "items.csv")},
        read(folder / "events.csv"),
        read(folder / "exposures.csv"),
    )
    for event in written.events:
        written.users[event["user_id"]].append(event)
    return written


def digest(folder: Path) -> str:
    return hashlib.sha256(
        b"".join((folder / name).read_bytes() for name in ("items.csv", "events.csv", "exposures.csv"))
    ).hexdigest()


@pytest.mark.slow
def test_one_seed_writes_the_same_bytes_in_another_process_with_another_hash_seed(tmp_path: Path) -> None:
    write_shop(tmp_path / "here", seed=3, **SMALL)
    code = (
        f"from recgraph.train.shop.year import write_shop; write_shop({str(tmp_path / 'there')!r}, seed=3, **{SMALL!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONHASHSEED": "12345"}, timeout=120)
    assert digest(tmp_path / "here") == digest(tmp_path / "there")
    write_shop(tmp_path / "other", seed=4, **SMALL)
    assert digest(tmp_path / "here") != digest(tmp_path / "other")


def test_what_is_said_of_products_are_words_not_names_of_code() -> None:
    """A class `Cut` was renamed once, and "GarmentCut high, with a clean line" stood in descriptions from then on."""
    said = [text for one in (*CUTS, *MATERIALS.values()) for text in one.said]
    assert len(said) > 50
    assert [text for text in said if re.search(r"[a-z][A-Z]", text)] == []


def test_a_shop_too_small_to_trade_is_refused_with_its_size(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="products is 5; the simulated shop needs at least 200"):
        write_shop(tmp_path, products=5)


@pytest.mark.slow
def test_the_counts_are_what_was_asked_for(shop: Written) -> None:
    facts, total = shop.facts, len(shop.events)
    assert (facts.users, facts.items, facts.events, facts.exposures) == (
        len(shop.users),
        len(shop.items),
        total,
        len(shop.exposures),
    )
    assert facts.users == 700
    assert facts.items == 2000
    assert 3.8 < facts.items / facts.styles < 5.5
    assert abs(total - 20_000) < 2000
    assert 0.25 < facts.searches / total < 0.35
    assert 0.50 < facts.clicks / total < 0.62
    assert 0.02 < facts.carts / total < 0.06
    assert 0.08 < facts.purchases / total < 0.12
    lengths = sorted(map(len, shop.users.values()))
    assert lengths[0] <= 3
    assert 100 < lengths[-1] <= 330
    assert 15 < lengths[len(lengths) // 2] < 30


def test_nothing_is_shown_clicked_or_bought_before_it_was_first_seen(shop: Written) -> None:
    for row in (*shop.exposures, *(event for event in shop.events if event["item_id"])):
        assert row["item_id"] in shop.items
        assert shop.items[row["item_id"]]["first_seen"] < row["ts"]
    assert min(event["ts"] for event in shop.events) >= "2025-01-01"
    assert max(event["ts"] for event in shop.events) < "2026-01-01"


def test_new_products_arrive_all_year_and_some_leave(shop: Written) -> None:
    months = Counter(item["first_seen"][:7] for item in shop.items.values() if item["first_seen"] >= "2025-01-01")
    assert 0.3 < 1 - months.total() / len(shop.items) < 0.6  # there on day 0
    assert all(months[f"2025-{month:02}"] >= 10 for month in range(1, 13))
    assert 0.04 < sum(item["in_stock"] == "false" for item in shop.items.values()) / len(shop.items) < 0.25


def test_ids_say_nothing_about_arrival_or_style(shop: Written) -> None:
    ids = sorted(shop.items)
    assert all(re.fullmatch(r"[A-Z][A-Z0-9]{5}", item_id) for item_id in ids)
    seen = np.argsort(np.argsort([shop.items[item_id]["first_seen"] for item_id in ids], kind="stable"))
    # by chance alone 0.02, one standard deviation
    assert abs(float(np.corrcoef(np.arange(len(ids)), seen)[0, 1])) < 0.08
    styles = defaultdict(list)
    for item_id in ids:
        styles[shop.items[item_id]["parent_id"]].append(item_id)
    beside = [one[0] == other[0] for family in styles.values() for one, other in combinations(family, 2)]
    assert sum(beside) / len(beside) < 0.07  # 21 first letters: 0.048 by chance alone
    assert not set(styles) & set(ids)


def test_titles_read_well_and_belong_to_one_variant(shop: Written) -> None:
    titles = [item["title"] for item in shop.items.values()]
    assert len(set(titles)) == len(titles)
    for item in shop.items.values():
        words = re.findall(r"[A-Za-z-]+", item["title"].lower())
        assert all(one != other for one, other in pairwise(words)), item["title"]
        assert item["title"].startswith(item["brand"])
        assert f", {item['color']}" in item["title"]
        assert item["title"].endswith(item["size"])
        assert 5 < float(item["price"]) < 900
        assert 1 <= item["description"].count(".") <= 4


def test_every_name_in_the_tables_of_words_is_known_once() -> None:
    assert len(FEATURES) == sum(map(len, FAMILIES))  # a brand that is also a colour would share its place
    assert all(name in FEATURES for names in PERSONAS.values() for name in names.split("|"))
    assert all(material in MATERIALS for cut in CUTS for material in cut.materials)


def test_top_positions_are_clicked_and_bought_more_often_but_not_only_they(shop: Written) -> None:
    for action in ("click", "purchase"):
        at = Counter(event["position"] for event in shop.events if event["action"] == action)
        assert at["1"] > 1.4 * at["2"] > 1.4 * at["4"] > 1.4 * at["8"] > 0
        assert at["1"] / at.total() < 0.45
    shown = {(row["query"], row["ts"], row["position"]) for row in shop.exposures}
    assert len(shown) == len(shop.exposures)
    assert {row["position"] for row in shop.exposures} == set("12345678")


def test_one_intent_is_worded_in_many_ways(shop: Written) -> None:
    listings = build_listings(np.random.default_rng(7), 2000, 365)
    shirt = next(
        product for product in listings.products if "Linen Shirt" in product.style.title and product.colour == "Olive"
    )
    rng = np.random.default_rng(1)
    ways = {word_query(rng, shirt.style, shirt.colour, ("colour", "material")) for _ in range(200)}
    assert len(ways) >= 12
    assert {"olive linen shirt", "linen shirt olive"} <= ways
    assert all(text == text.lower().strip() and "  " not in text for text in ways)
    queries = {event["query"] for event in shop.events if event["action"] == "search"}
    orders = Counter(" ".join(sorted(text.split())) for text in queries)
    assert sum(count > 1 for count in orders.values()) > 100  # the same words in another order
    assert 0.35 < len(queries) / shop.facts.searches < 0.75


def visits(events: Sequence[Row]) -> Iterable[list[Row]]:
    """A user's events cut where more than an hour passes."""
    visit: list[Row] = []
    for event in events:
        if (
            visit
            and (datetime.fromisoformat(event["ts"]) - datetime.fromisoformat(visit[-1]["ts"])).total_seconds() > 3600
        ):
            yield visit
            visit = []
        visit.append(event)
    if visit:
        yield visit


def test_colours_of_a_style_are_compared_before_buying(shop: Written) -> None:
    bought = compared = 0
    for events in shop.users.values():
        for visit in visits(events):
            for event in (event for event in visit if event["action"] == "purchase"):
                style = shop.items[event["item_id"]]["parent_id"]
                others = {
                    shop.items[e["item_id"]]["color"]
                    for e in visit
                    if e["item_id"] and shop.items[e["item_id"]]["parent_id"] == style
                }
                bought, compared = bought + 1, compared + (len(others) > 1)
    assert compared / bought > 0.25  # measured 0.50


def test_shoppers_mostly_buy_their_own_size(shop: Written) -> None:
    own = sized = 0
    for events in shop.users.values():
        sizes = [shop.items[event["item_id"]]["size"] for event in events if event["action"] == "purchase"]
        letters = Counter(size for size in sizes if size in ("XS", "S", "M", "L", "XL"))
        if letters.total() >= 4:
            own, sized = own + max(letters.values()), sized + letters.total()
    assert 0.75 < own / sized < 0.99  # measured 0.94


def test_seasons_show_in_what_is_bought(shop: Written) -> None:
    def share(category: str, months: Sequence[str]) -> float:
        bought = [
            shop.items[e["item_id"]]["category"]
            for e in shop.events
            if e["action"] == "purchase" and e["ts"][5:7] in months
        ]
        return bought.count(category) / len(bought)

    summer, winter = ("06", "07", "08"), ("11", "12", "01")
    assert share("Sandals", summer) > 3 * share("Sandals", winter)
    assert share("Knitwear", winter) > 2 * share("Knitwear", summer)
    assert share("Coats & Jackets", winter) > 1.5 * share("Coats & Jackets", summer)


def test_u123_has_a_drifting_taste_and_leaves_without_a_purchase(shop: Written) -> None:
    events = shop.users[SHOPPER]
    assert 20 <= len(events) <= 50
    *earlier, last = visits(events)
    assert last[0]["query"].endswith("wool cardigan")  # "chunky wool cardigan" in the demo's larger catalogue
    assert last[0]["ts"] >= "2025-12-20"
    actions = [event["action"] for event in last]
    assert actions.count("click") >= 3
    assert set(actions) == {"search", "click"}
    bought = [shop.items[event["item_id"]] for visit in earlier for event in visit if event["action"] == "purchase"]
    assert len(bought) >= 5
    assert {item["category"] for item in bought[:2]} <= {"Shirts & Blouses", "Dresses"}
    assert {item["category"] for item in bought[-2:]} == {"Knitwear", "Boots"}


# -- can it be learned: rankers of ten lines, fitted before CUT, asked for the purchases after it from what came before


@dataclass(frozen=True)
class Question:
    """A purchase to foresee: the user's events before the visit, those of the visit up to the purchase, and the
    answer."""

    before: list[Row]
    during: list[Row]
    item_id: str


def questions(shop: Written, limit: int) -> list[Question]:
    asked = []
    for events in shop.users.values():
        before: list[Row] = []
        for visit in visits(events):
            buys = [place for place, event in enumerate(visit) if event["action"] == "purchase"]
            if buys and visit[0]["ts"] >= CUT and sum(bool(event["item_id"]) for event in before) >= 3:
                asked.append(Question(list(before), visit[: buys[0]], visit[buys[0]]["item_id"]))
            before.extend(visit)
    return asked[:limit]


def recall(asked: Sequence[Question], rank: Callable[[Question], Sequence[str]]) -> float:
    return sum(question.item_id in rank(question)[:10] for question in asked) / len(asked)


def best(scores: Mapping[str, float]) -> list[str]:
    return sorted(scores, key=lambda item_id: (-scores[item_id], item_id))[:10]


def popular(shop: Written) -> list[str]:
    return best(
        Counter(e["item_id"] for e in shop.events if e["action"] == "purchase" and "2025-10-20" <= e["ts"] < CUT)
    )


def transitions(shop: Written) -> Callable[[Question], list[str]]:
    follows: dict[str, Counter[str]] = defaultdict(Counter)
    for events in shop.users.values():
        items = [event["item_id"] for event in events if event["item_id"] and event["ts"] < CUT]
        for place, one in enumerate(items):
            for gap, other in enumerate(items[place + 1 : place + 8], 1):
                follows[one][other] += 2 * (one != other)
                follows[other][one] += int(one != other) / gap

    def rank(question: Question) -> list[str]:
        scores: Counter[str] = Counter()
        recent = [event["item_id"] for event in question.before if event["item_id"]][-8:]
        for age, one in enumerate(reversed(recent)):
            for other, count in follows[one].items():
                scores[other] += count * 0.8**age
        return best(scores)

    return rank


def profile(shop: Written) -> Callable[[Question], list[str]]:
    seen = Counter(event["item_id"] for event in shop.events if "2025-09-15" <= event["ts"] < CUT and event["item_id"])
    on_sale = [item for item in shop.items.values() if item["in_stock"] == "true"]

    def rank(question: Question) -> list[str]:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for age, event in enumerate(reversed([event for event in question.before if event["item_id"]])):
            for fact in ("brand", "category", "color", "size"):
                counts[fact][shop.items[event["item_id"]][fact]] += 0.95**age
        like = {
            fact: {name: math.log(0.02 + count / kinds.total()) for name, count in kinds.items()}
            for fact, kinds in counts.items()
        }
        return best(
            {
                item["item_id"]: sum(like[fact].get(item[fact], math.log(0.02)) for fact in like)
                + 0.4 * math.log1p(seen[item["item_id"]])
                for item in on_sale
            }
        )

    return rank


@pytest.mark.slow
def test_the_next_purchase_can_be_learned_but_not_read_off(shop: Written) -> None:
    asked = questions(shop, 250)
    assert len(asked) > 200
    shown: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in shop.exposures:
        shown[row["query"], row["ts"]].append(row["item_id"])
    top = popular(shop)

    def last_search(question: Question) -> list[str]:
        searches = [event for event in question.during if event["action"] == "search"]
        return shown[searches[-1]["query"], searches[-1]["ts"]] if searches else []

    by_popularity = recall(asked, lambda question: top)
    by_transitions = recall(asked, transitions(shop))
    by_profile = recall(asked, profile(shop))
    by_search = recall(asked, last_search)
    # measured here: 0.024, 0.128, 0.140, 0.740; on the demo's full size (991 purchases): 0.025, 0.100, 0.070, 0.601
    assert by_popularity < 0.06
    assert by_transitions > by_popularity + 0.03
    assert by_profile > by_popularity + 0.03
    assert 0.3 < by_search < 0.85  # what the last search shows helps most, and is not the answer


@pytest.mark.slow
def test_the_demo_store_holds_the_shop_and_says_that_it_is_simulated(tmp_path: Path) -> None:
    told: list[str] = []
    report = make_demo(tmp_path / "demo.duckdb", seed=3, progress=told.append, **SMALL)
    assert told
    assert report.rejects == 0
    assert report.items_new == 400
    with Store.open(tmp_path / "demo.duckdb") as store:
        assert (store.meta("simulated") or "").startswith(
            "Simulated shop (seed 3): 60 invented shoppers and 400 invented products"
        )
        assert store.meta("currency") == "€"
        assert "simulated" in (store.meta("name") or "")
        assert store.counts()["events"] == report.events_new
        history = store.history(SHOPPER)
        assert history[-1].action == "click"
        item = store.items([history[-1].item_id])[history[-1].item_id]
        assert item.attributes["department"] in ("Women", "Unisex")
        assert item.first_seen is not None
        assert item.first_seen < history[-1].ts
        assert item.parent_id
    assert make_demo(tmp_path / "demo.duckdb", seed=3, **SMALL).events_new == 0
    with pytest.raises(StoreError, match=r"holds Simulated shop \(seed 3\).*--store"):
        make_demo(tmp_path / "demo.duckdb", seed=4, **SMALL)


def test_the_demo_does_not_mix_its_products_into_a_shop_of_your_own(make_store: Callable[..., Store]) -> None:
    """It once did, and marked the store as simulated, which the stage `publish` then takes for its own to replace."""
    store = make_store("item_id,title\nA,Tee", "user_id,ts,action,item_id\nu,2025-01-01,click,A")
    store.close()
    with pytest.raises(StoreError, match=r"not simulated.*recgraph demo --store"):
        make_demo(store.path, shoppers=1, products=200, events=1, days=28)
    with Store.open(store.path) as opened:
        assert (opened.counts()["items"], opened.meta("simulated")) == (1, None)
