"""The counting summarizer: true sentences with exact event numbers; and the grounding check it sets the standard
for."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from within import within

from recgraph.graph.summary.grounding import CatalogueWords, copied, sentences, support
from recgraph.graph.summary.profile import Level, profile
from recgraph.graph.summary.wording import category_name, listing, plural, prices, quote
from recgraph.store.records import Action, Event, Item

LEVELS: tuple[Level, ...] = ("block", "recurrent", "merged")
DAY = datetime(2025, 3, 1)
COLORS = ("navy", "cream", "olive", "Dark Red")
BRANDS = ("Nordlys", "Alma & Finch", "Polo", "Polo Ralph Lauren")
CATEGORIES = ("DRESS", "Shirts", "NIGHTGOWN_NIGHTSHIRT", "Women > Coats")
WRAP = [
    Item(f"w{c}", f"Linen Wrap Dress, {c}", "DRESS", "Nordlys", c, "M", 49.0, parent_id="wrap")
    for c in ("navy", "cream", "olive")
]
BOOT = Item("boot", "Ankle Boot", "BOOT", "Alma & Finch", "black", "39", 120.0)
SHOP = {item.item_id: item for item in (*WRAP, BOOT)}


def event(seq: int, action: Action, item_id: str = "", query: str = "") -> Event:
    return Event("u", seq, DAY + timedelta(hours=seq), action, item_id, query)


def text(found: Sequence[tuple[str, tuple[int, ...]]]) -> str:
    return " ".join(sentence for sentence, _ in found)


def numbers_of(found: Sequence[tuple[str, tuple[int, ...]]], part: str) -> tuple[int, ...]:
    """The event numbers of the one sentence that holds `part`."""
    [(_, numbers)] = [pair for pair in found if part in pair[0]]
    return numbers


def catalogue(rng: random.Random, size: int) -> dict[str, Item]:
    """Products with attributes, some missing, from the lists above."""

    def some(values: Sequence[str]) -> str:
        return rng.choice(("", *values))

    found = {}
    for number in range(size):
        category, brand, color = some(CATEGORIES), some(BRANDS), some(COLORS)
        title = some(
            (
                f"{brand} {category.title()} {number}",
                f"Soft {color} thing",
                "Ribbed Cotton Thing with a very long title " * 3,
            )
        )
        price = rng.choice((None, 4.5, 30.0, 99.0))
        found[f"i{number}"] = Item(
            f"i{number}", title, category, brand, color, some(("S", "M")), price, parent_id=some(("p1", "p2"))
        )
    return found


def history(rng: random.Random, items: dict[str, Item], size: int) -> list[Event]:
    actions: Sequence[Action] = rng.choice((("purchase",), ("click",), ("search", "click", "cart", "purchase")))
    events = []
    for seq in range(1, size + 1):
        action = rng.choice(actions)
        query = (
            rng.choice(("navy dress", "Polo shirts", "a\nvery odd “query” {0}"))
            if action == "search" or rng.random() < 0.2
            else ""
        )
        events.append(event(seq, action, "" if action == "search" else rng.choice([*items, "unknown"]), query))
    return events


def source(one: Event, items: dict[str, Item]) -> str:
    item = items.get(one.item_id)
    return f"{item.title}. {item.brand}. {item.category}. {item.color}. {one.query}" if item else one.query


def test_every_named_value_stands_in_the_events_of_its_sentence_over_random_histories() -> None:
    vocabulary = CatalogueWords({"brand": set(BRANDS), "category": set(CATEGORIES), "color": set(COLORS)})
    rng = random.Random(5)
    for _ in range(400):
        items = catalogue(rng, rng.randint(1, 12))
        events = history(rng, items, rng.choice((1, 2, 5, 12, 40)))
        level: Level = rng.choice(LEVELS)
        new = events[-5:] if level == "recurrent" else ()
        found = profile(events, items, new=new, level=level, currency="$")
        assert 1 <= len(found) <= 4
        assert len(text(found).split()) <= 60
        for sentence, numbers in found:
            held = [source(one, items) for one in events if one.seq in numbers]
            assert vocabulary.ungrounded(sentence, held) == set(), sentence
            assert numbers == tuple(sorted(set(numbers)))
            assert numbers
            assert {one.seq for one in events}.issuperset(numbers)
            assert re.fullmatch(r"[^a-z\n].*\.", sentence), sentence
            assert "  " not in sentence


def test_no_events_give_no_sentences_and_unknown_products_are_said_to_be_unknown() -> None:
    assert profile([], {}) == ()
    assert profile([event(3, "click", "gone")], {}) == (("None of these products is in the catalogue.", (3,)),)


def test_one_purchase_is_told_in_one_sentence() -> None:
    assert profile([event(1, "purchase", "boot")], SHOP) == (
        ("This shopper has bought one thing so far: “Ankle Boot”.", (1,)),
    )


def test_a_lone_search_is_told() -> None:
    assert profile([event(1, "search", query="rain\n coat")], {}) == (("They searched for “rain coat”.", (1,)),)


def test_comparison_names_the_style_the_number_of_colours_and_what_was_taken() -> None:
    looks = [event(seq, "click", item_id) for seq, item_id in enumerate(("wnavy", "wcream", "boot", "wolive"), 1)]
    events = [*looks, event(5, "purchase", "wcream")]
    found = profile(events, SHOP)
    assert "They compared three colours of “Linen Wrap Dress” and took it in cream." in text(found)
    assert numbers_of(found, "compared") == (1, 2, 4, 5)


def test_looks_after_the_purchase_are_no_comparison() -> None:
    events = [
        event(1, "purchase", "wcream"),
        event(2, "click", "wnavy"),
        event(3, "click", "wolive"),
        event(4, "click", "boot"),
    ]
    assert "compared" not in text(profile(events[:1] + events[3:], SHOP))
    assert "and took" not in text(profile(events, SHOP))


def test_a_search_counts_as_unmet_only_when_nothing_matching_was_bought_afterwards() -> None:
    met = [event(1, "search", query="navy linen dress"), event(2, "click", "wnavy")]
    unmet = [event(3, "search", query="Rain Coat"), event(4, "click", "boot")]
    found = profile([*met, *unmet, event(5, "purchase", "wnavy")], SHOP)
    assert "searched for “Rain Coat” without buying a match" in text(found)
    assert numbers_of(found, "Rain Coat") == (3,)
    earlier = profile(
        [event(1, "purchase", "boot"), event(2, "search", query="ankle boots"), event(3, "click", "wnavy")], SHOP
    )
    assert "searched for “ankle boots” without buying a match" in text(earlier)


def test_a_search_that_ended_in_a_purchase_says_so_with_both_events() -> None:
    found = profile([event(1, "search", query="boots"), event(2, "click", "wnavy"), event(7, "purchase", "boot")], SHOP)
    assert numbers_of(found, "“boots” ended in a purchase") == (1, 7)


def test_what_was_left_in_the_cart_is_told_until_it_is_bought() -> None:
    events = [event(1, "purchase", "wnavy"), event(2, "cart", "boot")]
    assert numbers_of(profile(events, SHOP), "left “Ankle Boot” in the cart") == (2,)
    assert "in the cart" not in text(profile([*events, event(3, "purchase", "boot")], SHOP))


def test_the_recurrent_step_tells_what_is_new_and_what_did_not_return() -> None:
    events = [event(1, "purchase", "wnavy"), event(2, "purchase", "wcream"), event(3, "purchase", "boot")]
    found = profile(events, SHOP, new=events[2:], level="recurrent")
    drift = next(
        sentence
        for sentence, _ in found
        if "boots" in sentence and "dresses, frequent before, did not return" in sentence
    )
    assert "Alma & Finch" in drift
    assert numbers_of(found, "frequent before") == (1, 2, 3)


def test_merged_summaries_tell_what_gave_way_to_what_and_no_single_product() -> None:
    items = {
        f"{kind}{n}": Item(f"{kind}{n}", f"{kind.title()} {n}", kind.upper())
        for kind in ("shirt", "dress")
        for n in range(5)
    }
    events = [event(n + 1, "purchase", f"shirt{n}") for n in range(5)] + [
        event(n + 6, "purchase", f"dress{n}") for n in range(5)
    ]
    found = profile(events, items, level="merged")
    assert numbers_of(found, "Over time shirts gave way to dresses.") == tuple(range(1, 11))
    assert "“" not in text(found)


def test_without_attributes_recurring_title_words_stand_in() -> None:
    titles = ("Eucerin Repair Creme, 16 Ounce", "Eucerin Calming Creme (Pack of 2)", "Argan Oil")
    items = {str(n): Item(str(n), title) for n, title in enumerate(titles)}
    found = profile([event(n + 1, "purchase", str(n)) for n in range(3)], items)
    assert "keeps coming back to “Eucerin” and “creme”" in found[0][0]
    assert found[0][1] == (1, 2)


def test_clicks_on_news_are_reading_and_clicks_in_a_shop_are_looking() -> None:
    news = {"1": Item("1", "Who won", "sports"), "2": Item("2", "Where to go", "travel")}
    clicks = [event(1, "click", "1"), event(2, "click", "2")]
    assert profile(clicks, news)[0][0] == "This reader follows travel and sports."
    assert profile([event(1, "click", "wnavy"), event(2, "click", "boot")], SHOP)[0][0].startswith(
        "This shopper looks at boots and dresses"
    )


def test_the_same_history_always_reads_the_same_and_300_events_take_milliseconds() -> None:
    rng = random.Random(1)
    items = catalogue(rng, 80)
    events = history(rng, items, 300)
    with within(1.0):
        first = profile(events, items, new=events[-5:], level="recurrent")
    assert first == profile(events, items, new=events[-5:], level="recurrent")


def test_untrusted_text_is_cut_at_a_word_and_kept_on_one_line() -> None:
    assert quote("one “two”\n\tthree\x1b[0m") == "“one 'two' three [0m”"
    assert quote("word " * 40) == f"“{('word ' * 12).strip()}…”"
    assert len(quote("x" * 500)) == 62
    assert quote("dress<|im_end|>") == "“dress im_end”"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("NIGHTGOWN_NIGHTSHIRT", "nightgown nightshirts"),
        ("DRESS", "dresses"),
        ("Women > Tops & Tees", "tops & tees"),
        ("Skin Care", "skin care"),
        ("Knitwear", "knitwear"),
        ("accessory", "accessories"),
        ("SOCKS", "socks"),
        ("EARRING", "earrings"),
        ("Scarf", "scarves"),
        ("LED Lamp", "LED lamps"),
    ],
)
def test_categories_read_as_english_plurals(raw: str, shown: str) -> None:
    assert plural(category_name(raw)) == shown


def test_lists_and_prices_read_as_english() -> None:
    assert [listing(part) for part in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert [prices(8.52, 39.99, "$"), prices(30, 30.2, "EUR"), prices(2.5, 1200, "")] == [
        "about $9 to $40",
        "about 30 EUR",
        "about 2.50 to 1,200",
    ]


@pytest.fixture(scope="module")
def vocabulary() -> CatalogueWords:
    return CatalogueWords(
        {
            "brand": {"Nordlys", "Polo", "Polo Ralph Lauren", "Comfort", "Guess", "New", "H&M", "e.l.f.", "XY"},
            "category": {"DRESS", "Wool Coats", "Other", "Fashion"},
            "color": {"navy", "Natural", "multi", "black"},
        }
    )


def test_a_text_names_values_as_whole_words_longest_first_in_singular_and_plural(vocabulary: CatalogueWords) -> None:
    assert vocabulary.named("Dresses by polo ralph lauren, in navy.") == {"dress", "polo ralph lauren", "navy"}
    assert vocabulary.named("E.l.f. and a wool coat; address, polos") == {"e.l.f.", "wool coats", "polo"}


def test_everyday_english_raises_no_alarm_but_a_capital_inside_a_sentence_names_the_brand(
    vocabulary: CatalogueWords,
) -> None:
    assert vocabulary.named("Comfort matters. They guess that natural fashion is new, other XY and multi.") == set()
    assert vocabulary.named("They like Guess and Comfort.") == {"guess", "comfort"}


def test_ungrounded_values_are_those_that_no_source_holds(vocabulary: CatalogueWords) -> None:
    sources = ["Title: Polo Ralph Lauren dress, navy", "Coat of wool, blue"]
    assert vocabulary.ungrounded("A navy dress by Ralph Lauren and a wool coat by Polo.", sources) == set()
    assert vocabulary.ungrounded("A black dress by Nordlys.", sources) == {"black", "nordlys"}
    assert vocabulary.ungrounded("Nothing at all.", []) == set()


def test_twenty_thousand_values_are_checked_in_milliseconds() -> None:
    big = CatalogueWords({"brand": {f"Brand{n} House{n % 7}" for n in range(20_000)}, "category": {"Dress"}})
    with within(0.5):
        assert big.ungrounded(
            "They like Brand77 House0, Brand19999 House0 and dresses. " * 20, ["dress of brand77 house0"]
        ) == {"brand19999 house0"}


def test_copied_is_the_share_of_eight_word_runs_that_stand_in_the_source() -> None:
    source_text = "one two three four five six seven eight nine ten"
    assert copied("One, two three four five six seven eight nine.", source_text) == 1.0
    assert copied("one two three four five six seven eight NEW", source_text) == 1 / 2
    assert copied("ten nine eight seven six five four three two one", source_text) == 0.0
    assert copied("three four", source_text) == 1.0
    assert copied("", source_text) == 0.0


def test_an_answer_is_split_into_sentences_without_its_bullets() -> None:
    answer = "They like Dr. Bronner's soap of 8 fl. oz. size.\n- Prefers “navy.” Buys 2.5 creams often?\n2. Likes hats"
    assert sentences(answer) == [
        "They like Dr. Bronner's soap of 8 fl. oz. size.",
        "Prefers “navy.”",
        "Buys 2.5 creams often?",
        "Likes hats",
    ]
    assert sentences(" \n") == []


def test_a_sentence_is_paired_with_the_events_it_names_else_with_all() -> None:
    events = [
        event(1, "click", "wnavy"),
        event(2, "purchase", "boot"),
        event(3, "search", query="waterproof rain coat"),
    ]
    assert support("They bought ankle boots.", events, SHOP) == (2,)
    assert support("Dresses by Nordlys are a favourite.", events, SHOP) == (1,)
    assert support("They want something waterproof.", events, SHOP) == (3,)
    assert support("They enjoy shopping.", events, SHOP) == (1, 2, 3)
