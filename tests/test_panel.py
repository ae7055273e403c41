"""The first screen: ids and true numbers on it at any width, nothing of the shop's text acts, and an empty answer says
why."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder, FakeLLM

from recgraph.graph.recommendation import Recommendation
from recgraph.graph.recommender import Recommender
from recgraph.panel import recommendation
from recgraph.settings import load_settings
from recgraph.store.db import Store
from recgraph.terminal import console_class
from recgraph.tools.wish.wish import Wish

GOOD = "ID: K2OLIV\nTitle: Harrow Wool Jumper, Olive, M"


def panel(found: Recommendation, width: int = 80, shop: str = "Shop") -> str:
    file = io.StringIO()
    console_class()(file=file, width=width).print(recommendation(found, shop=shop, simulated="", currency="€"))
    return file.getvalue()


@pytest.fixture
def ask(make_store: Callable[..., Store]) -> Callable[..., Recommendation]:
    number = count()

    def run(
        user: str,
        query: str = "",
        *,
        llm: FakeLLM | None = None,
        items: str = SHOP_ITEMS,
        events: str = SHOP_EVENTS,
        **asked: Any,
    ) -> Recommendation:
        exposures = SHOP_EXPOSURES if items == SHOP_ITEMS else ""
        store = make_store(items, events, exposures, name=f"shop-{next(number)}")
        settings = load_settings({}, "/nonexistent", store=str(store.path), llm="none" if llm is None else "")
        with Recommender(Store.open(store.path), settings, FakeEncoder(), llm) as recommender:  # type: ignore[arg-type]
            return recommender.recommend(user, query, new_user=True, **asked)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("width", [60, 80, 100])
def test_every_product_has_its_id_and_its_reason_on_the_screen(ask: Callable[..., Recommendation], width: int) -> None:
    found = ask("U1", "wool jumper", llm=FakeLLM(GOOD), k=5)
    text = panel(found, width)
    assert max(map(len, text.splitlines())) <= width
    words = text.replace("│", " ").split()
    for line in found.items:
        assert line.item.item_id in words
        assert all(word in words for word in line.reason.split())
    assert "Yes" in words
    assert "fake and retrieval" in text


def test_what_was_not_asked_takes_no_room(ask: Callable[..., Recommendation]) -> None:
    text = panel(ask("U1", k=3))
    assert "Yes" not in text.split()
    assert "tokens" not in text
    assert "Answered by  retrieval alone, in " in text


def test_the_newest_events_stand_with_the_numbers_that_the_summary_names(ask: Callable[..., Recommendation]) -> None:
    lines = [line.strip("│ ").split() for line in panel(ask("U1"), 120).splitlines()]
    assert ["6", "2025-03-01", "09:01", "click", "Fenn", "Cable", "Cardigan,", "Grey,", "M"] in lines


def test_an_empty_answer_says_why_and_shows_no_guess(ask: Callable[..., Recommendation]) -> None:
    items = "item_id,title,in_stock\nA,Red scarf,false\nB,Blue kettle,false"
    text = panel(
        ask(
            "u",
            llm=FakeLLM("ID: A\nTitle: Red scarf"),
            items=items,
            events="user_id,ts,action,item_id\nu,2026-05-02 10:00,purchase,A",
        )
    )
    assert "Nothing to recommend: all products are sold out or already bought." in " ".join(
        text.replace("│", " ").split()
    )
    assert "guess" not in text
    assert "Product" not in text


@pytest.mark.slow
def test_titles_users_queries_and_shops_are_data(ask: Callable[..., Recommendation]) -> None:
    bad = "\x1b[31mred\x9b2J\u202e [/x][red]loud[/red]"
    items, events = (
        f"item_id,title\ne1,Tee {bad}\ne\x1b2,Tee two",
        f"user_id,ts,action,item_id\n{bad},2026-05-01 10:00,click,e1",
    )
    text = panel(ask(bad, f"tee {bad}", items=items, events=events), shop=bad)
    assert not {c for c in text if unicodedata.category(c) in ("Cc", "Cf")} - {"\n"}
    assert "[/x][red]loud[/red]" in text


def test_the_understood_line_tells_each_part_and_keeps_control_characters_out() -> None:
    from recgraph.panel import understood
    from recgraph.tools.wish.wish import Price, Wish

    wish = Wish({"color": ("Bl\x1back",)}, {"brand": ("Harrow",)}, price=Price(at_most=60))
    text = understood(wish, "€").plain
    assert "not Harrow · under €60" in text
    assert "\x1b" not in text
    assert "nothing" in understood(Wish(), "€").plain


def test_too_few_products_say_which_part_to_give_up_and_how_many_that_brings(
    ask: Callable[..., Recommendation],
) -> None:
    text = " ".join(panel(ask("u", "shirt, not olive, under 50", k=5), 100).replace("│", " ").split())
    assert "Only 2 products fit what was asked for: 5 more without “under 50”, 1 more without “not Olive”." in text
    nothing = " ".join(panel(ask("u", "under 10 in size S"), 100).replace("│", " ").split())
    assert "No product fits what was asked for: 1 more without “under 10”." in nothing
    both = " ".join(panel(ask("u", "under 10 in size S, not Fenn"), 100).replace("│", " ").split())
    assert "8 more without “size S and under 10”, 1 more without “not Fenn and under 10”." in both


def test_it_is_said_where_products_begin_that_are_not_all_that_was_named(ask: Callable[..., Recommendation]) -> None:
    lines = panel(ask("u", "brown boots", k=3), 100).splitlines()
    places = [n for n, line in enumerate(lines) if "All that fits more ends here; of its 2 parts these fit 1:" in line]
    assert len(places) == 1
    assert "B1BRWN" in "".join(lines[: places[0]])
    assert "B2BLCK" in "".join(lines[places[0] :])
    assert "ends here" not in panel(ask("u", "boots", k=2), 100)
    far = " ".join(panel(ask("u", "boots under 100", k=3), 100).replace("│", " ").split())
    assert "None of these is all that was named (boots); 2 more without “under 100”." in far
    none = Wish({"color": ("Red",)})
    assert "Nothing fits what was named; near it:" in panel(ask("u", wish=none, k=3), 100)
