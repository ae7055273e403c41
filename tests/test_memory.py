"""QueryMemory: F 4.2's look-up, and above all that it knows nothing of what comes later."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder

from recgraph.store.db import Store
from recgraph.tools.memory import MemoryHit, QueryMemory

MakeStore = Callable[..., Store]
APRIL = datetime(2025, 4, 1)


def test_the_nearest_queries_come_first_each_with_its_products_by_position(make_store: MakeStore) -> None:
    memory = QueryMemory.build(make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES), FakeEncoder())
    first, second = memory.lookup("blue linen shirt", queries=2, products=2)
    assert (first.query, first.item_ids) == ("linen shirt", ("S1OLIV", "S1NAVY"))
    assert first.similarity == pytest.approx(2 / 6**0.5, abs=1e-3)  # two of three words in common with two: 2 / (√3 √2)
    assert first.similarity > second.similarity
    assert len(memory.lookup("linen shirt", queries=1)) == 1


@pytest.mark.slow
def test_a_stored_query_is_found_in_any_case_and_script(make_store: MakeStore) -> None:
    shown = SHOP_EXPOSURES + "лён рубашка,S1SAND,1,2025-02-01\n"
    memory = QueryMemory.build(make_store(SHOP_ITEMS, SHOP_EVENTS, shown), FakeEncoder())
    assert memory.lookup("  Linen SHIRT ", queries=1) == [MemoryHit("linen shirt", 1.0, ("S1OLIV", "S1NAVY", "S2OLIV"))]
    assert memory.lookup("лён рубашка", queries=1) == [MemoryHit("лён рубашка", 1.0, ("S1SAND",))]
    assert memory.lookup("麻のシャツ", queries=2) is not None


@pytest.mark.slow
def test_nothing_shown_at_or_after_the_moment_is_found(make_store: MakeStore) -> None:
    """DESIGN 7: the memory can contain the very purchase it predicts. Planted: a query and an item of the future."""
    planted = (
        SHOP_EXPOSURES
        + "linen shirt,B1BRWN,1,2025-04-01\nlinen shirt,B2BLCK,1,2025-05-01\nsecret purchase,S1OLIV,1,2025-04-02\n"
    )
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, planted)
    memory = QueryMemory.build(store, FakeEncoder(), before=APRIL)
    assert memory.lookup("linen shirt", queries=1, products=9)[0].item_ids == ("S1OLIV", "S1NAVY", "S2OLIV")
    assert all(hit.query not in ("secret purchase", "blazer") for hit in memory.lookup("secret purchase", queries=9))
    assert "B1BRWN" in QueryMemory.build(store, FakeEncoder()).lookup("linen shirt", queries=1, products=9)[0].item_ids


@pytest.mark.slow
def test_without_exposures_the_users_own_later_purchase_is_not_found_either(make_store: MakeStore) -> None:
    bought = SHOP_EVENTS + "U1,2025-05-01 10:00:00,purchase,S2OLIV,linen shirt,1\n"
    store = make_store(SHOP_ITEMS, bought)
    assert QueryMemory.build(store, FakeEncoder(), before=APRIL).lookup("linen shirt", queries=1)[0].item_ids == (
        "S1OLIV",
        "S1NAVY",
    )
    assert "S2OLIV" in QueryMemory.build(store, FakeEncoder()).lookup("linen shirt", queries=1)[0].item_ids


@pytest.mark.slow
def test_products_that_are_sold_out_or_not_there_yet_are_left_out_and_others_take_their_place(
    make_store: MakeStore,
) -> None:
    shown = SHOP_EXPOSURES + "olive,SOLDUT,1,2025-02-01\nolive,FUTURE,2,2025-02-01\nolive,S1OLIV,3,2025-02-01\n"
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, shown)
    assert QueryMemory.build(store, FakeEncoder(), before=APRIL).lookup("olive", queries=1, products=1)[0].item_ids == (
        "S1OLIV",
    )


def test_nothing_asked_or_nothing_stored_gives_no_hits(make_store: MakeStore) -> None:
    memory = QueryMemory.build(make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES), FakeEncoder())
    assert (
        memory.lookup("")
        == memory.lookup("   ")
        == memory.lookup("shirt", queries=0)
        == memory.lookup("shirt", products=0)
        == []
    )
    assert QueryMemory.build(make_store(SHOP_ITEMS, name="quiet"), FakeEncoder()).lookup("shirt") == []


def test_stored_queries_are_embedded_at_the_first_look_up_and_once(make_store: MakeStore) -> None:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    encoder = FakeEncoder()
    memory = QueryMemory.build(store, encoder)
    assert store.counts()["embeddings"] == 0
    memory.lookup("shirt")
    assert store.counts()["embeddings"] == 3
    memory.lookup("boots")
    QueryMemory.build(store, encoder).lookup("shirt")
    assert store.counts()["embeddings"] == 3


def test_a_look_up_asks_the_store_once_for_what_was_shown(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES), list[int]()
    read = store.query_products
    monkeypatch.setattr(store, "query_products", lambda *given: (asked.append(len(given[0])), read(*given))[1])
    memory = QueryMemory.build(store, FakeEncoder())
    first, again = memory.lookup("linen shirt", queries=1), memory.lookup("LINEN shirt", queries=1)
    assert first == again
    assert first[0].item_ids == ("S1OLIV", "S1NAVY", "S2OLIV")
    assert len(asked) == 1
