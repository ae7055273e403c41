"""A running recommender knows what was just written: events, prices, stock, new products; and nobody waits for a fit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recgraph.errors import StoreBusy
from recgraph.graph.fits import Fits
from recgraph.graph.recommender import Recommender
from recgraph.settings import Settings
from recgraph.store.care import checksums
from recgraph.store.care.health import examine
from recgraph.store.connection import Database
from recgraph.store.db import Store
from recgraph.store.forget import forget_item
from recgraph.store.records import Event
from recgraph.tools.grown import FirstRows, GrownIndex
from recgraph.tools.index import VectorIndex
from recgraph.tools.live import Live
from recgraph.tools.retrieve import RetrievalQuery, Retriever
from recgraph.tools.sources.base import Request
from recgraph.tools.sources.said import Dense
from recgraph.tools.wish.facets import Facets
from recgraph.tools.wish.wish import Price, Wish
from tests.fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder, FakeLLM

MakeStore = Callable[..., Store]
NOON = datetime(2025, 8, 1, 12)


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    return make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)


@pytest.fixture
def live(store: Store) -> Iterator[Live]:
    made = Live(store, lambda until: Retriever.build(store, FakeEncoder(), until=until))
    made()
    yield made
    made.close()


def ids(retriever: Retriever, **asked: object) -> list[str]:
    return [one.item_id for one in retriever.candidates(RetrievalQuery(**{"k": 20, **asked}))]  # type: ignore[arg-type]


def test_a_new_product_is_found_by_its_text_at_once_and_looked_at_like_any_other(store: Store, live: Live) -> None:
    store.upsert_items([{"item_id": "A0NEW", "title": "Velvet Curtain, Plum", "category": "curtains", "price": 30}])
    assert ids(live(), query="velvet curtain")[0] == "A0NEW"
    assert live().name_of("A0NEW") == "Velvet Curtain, Plum"
    store.upsert_items([{"item_id": "A1NEW", "title": "Velvet Curtain, Moss"}])
    history = store.record_events([Event("U9", 0, NOON, "click", "A0NEW")])
    assert ids(live(), history=history)[:2] == ["A0NEW", "A1NEW"]
    assert live().taken("A0NEW").clicks == 1
    assert ids(live(), predicted_title="Velvet Curtain", mode="paper")[:2] == ["A0NEW", "A1NEW"]


def test_a_price_or_a_stock_that_changes_is_respected_by_the_next_answer(store: Store, live: Live) -> None:
    bound = Wish(price=Price(at_most=50))
    assert "B1BRWN" not in ids(live(), wish=bound)
    store.upsert_items([{"item_id": "B1BRWN", "price": 45}, {"item_id": "S1OLIV", "price": 99}])
    assert {"B1BRWN", "S1NAVY"} <= set(found := ids(live(), wish=bound))
    assert "S1OLIV" not in found
    store.upsert_items([{"item_id": "B1BRWN", "in_stock": False}, {"item_id": "SOLDUT", "in_stock": True}])
    assert "B1BRWN" not in ids(live())
    assert "SOLDUT" in ids(live())


def test_what_is_made_of_a_change_is_what_would_be_made_of_the_whole_store(store: Store, live: Live) -> None:
    store.upsert_items(
        [
            {
                "item_id": "ZZ",
                "title": "Aurora Wool Scarf, Teal",
                "category": "scarves",
                "brand": "Aurora",
                "color": "Teal",
                "price": 20,
            },
            {"item_id": "D1SAGE", "color": "Teal", "price": 90},
        ]
    )
    store.record_events([Event("U2", 0, NOON, "purchase", "ZZ"), Event("U2", 0, NOON, "click", "S1SAND")])
    renewed, whole = live(), Retriever.build(store, FakeEncoder())
    assert list(renewed.catalogue.item_ids) == list(whole.catalogue.item_ids)  # ZZ is the last of both
    assert list(renewed.catalogue.names) == list(whole.catalogue.names)
    assert (renewed.eligible == whole.eligible).all()
    assert (renewed.fitted.taken.ever == whole.fitted.taken.ever).all()
    facets, again = renewed.fitted.facets, Facets.of(store)
    for wish in (
        Wish(want={"color": ("Teal",), "brand": ("Aurora",)}),
        Wish(avoid={"color": ("Teal",)}, price=Price(95)),
    ):
        assert (facets.fits(wish) == again.fits(wish)).all()
        assert (facets.may(wish) == again.may(wish)).all()
    assert [facets.row(one) for one in ("ZZ", "B1BRWN", "no")] == [again.row(one) for one in ("ZZ", "B1BRWN", "no")]
    for place in range(len(whole.titles)):
        np.testing.assert_allclose(renewed.titles.vectors(place), whole.titles.vectors(place), atol=1e-6)


def test_a_retriever_that_was_handed_out_does_not_change(store: Store, live: Live) -> None:
    before = live()
    store.upsert_items([{"item_id": "B1BRWN", "in_stock": False}, {"item_id": "NEW", "title": "Plum Velvet"}])
    after = live()
    assert "B1BRWN" in ids(before)
    assert "NEW" not in ids(before)
    assert "B1BRWN" not in ids(after)
    assert after is live()


def test_after_enough_changes_all_is_fitted_anew_beside_and_nobody_waits(store: Store) -> None:
    started, go = threading.Event(), threading.Event()

    def fit(until: float | None) -> Retriever:
        if live.revision != first:
            started.set()
            assert go.wait(10)
        return Retriever.build(store, FakeEncoder())

    first = store.revision()
    live = Live(store, fit, enough=3)
    old = live()
    store.upsert_items([{"item_id": f"N{number}", "title": f"Plum {number}"} for number in range(3)])
    live()
    assert started.wait(10)
    store.upsert_items([{"item_id": "N9", "title": "Plum Velvet"}])
    assert "N9" in ids(live())  # while the fit is under way
    go.set()
    live.wait()
    assert list(live().catalogue.item_ids) == sorted(live().catalogue.item_ids)  # of one piece again
    assert len(live().catalogue.item_ids) == len(old.catalogue.item_ids) + 4
    live.close()


def test_a_fit_that_fails_leaves_the_old_retriever_and_says_why(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Why was kept where nobody read it."""
    fits = iter([Retriever.build(store, FakeEncoder())])

    def fit(until: float | None) -> Retriever:
        for one in fits:
            return one
        raise StoreBusy("Another process is using the store.")

    live = Live(store, fit)
    old = live()
    revision = store.revision()
    store.set_meta("revision", "of nobody")
    assert live() is old
    live.wait()
    assert "Another process is using the store." in caplog.text
    assert live.revision == revision  # what answered


def test_an_event_and_a_price_are_in_the_next_answer_of_a_recommender(store: Store) -> None:
    with Recommender(store, Settings(llm="none", k=20), FakeEncoder(), None) as shop:
        first = shop.recommend("U1", "curtain")
        shop.upsert([{"item_id": "A0NEW", "title": "Velvet Curtain, Plum", "price": 30}])
        found = shop.recommend("U1", "curtain")
        assert found.items[0].item.item_id == "A0NEW"
        assert found.models["store_revision"] == store.revision() != first.models["store_revision"]
        shop.record([Event("U1", 0, NOON, "purchase", "A0NEW")], ["m1"])
        shop.record([Event("U1", 0, NOON, "purchase", "A0NEW")], ["m1"])
        assert "A0NEW" not in [one.item.item_id for one in shop.recommend("U1", "curtain").items]  # bought
        assert [event.item_id for event in store.history("U1")].count("A0NEW") == 1


def test_what_a_language_model_names_may_be_a_product_that_was_just_added(store: Store) -> None:
    """The ids of the opening were the known ones."""
    llm = FakeLLM("ID: A0NEW\nTitle: Velvet Curtain, Plum")
    with Recommender(store, Settings(llm="fake", constrain="off"), FakeEncoder(), llm) as shop:
        prediction = shop.recommend("U1").prediction
        assert prediction is None or not prediction.valid
        with Store.open(store.path, write=True) as other:  # beside the recommender, as another process would
            other.upsert_items([{"item_id": "A0NEW", "title": "Velvet Curtain, Plum", "price": 30}])
        prediction = shop.recommend("U1").prediction
        assert prediction is not None
        assert (prediction.item_id, prediction.valid) == ("A0NEW", True)


def test_a_shop_that_sold_out_all_it_had_recommends_what_was_added(store: Store) -> None:
    with Recommender(store, Settings(llm="none"), FakeEncoder(), None) as shop:
        shop.upsert([{"item_id": item_id, "in_stock": False} for item_id in store.catalogue().item_ids])
        assert not shop.recommend("U1").items
        shop.upsert([{"item_id": "A0NEW", "title": "Velvet Curtain, Plum"}])
        assert [one.item.item_id for one in shop.recommend("U1").items] == ["A0NEW"]


@pytest.mark.parametrize("item_id", ["A0NEW", "B1BRWN"])  # of one no event knows, of the other some do
def test_a_product_that_was_taken_off_is_in_no_answer_though_all_is_fitted_anew_yet(
    store: Store, monkeypatch: pytest.MonkeyPatch, item_id: str
) -> None:
    """The answer failed: the old retriever proposed what the store did not know any more."""
    store.upsert_items([{"item_id": "A0NEW", "title": "Velvet Curtain, Plum"}])
    with Recommender(store, Settings(llm="none"), FakeEncoder(), None) as shop:
        words = store.items([item_id])[item_id].title
        assert item_id in [one.item.item_id for one in shop.recommend("new", words, new_user=True).items]
        monkeypatch.setattr(Live, "_start", lambda _: None)  # the fit does not end
        forget_item(store, item_id)
        assert item_id not in [one.item.item_id for one in shop.recommend("new", words, new_user=True).items]


def test_a_new_events_summary_does_not_open_the_store_for_writing_and_is_not_lost(store: Store) -> None:
    with Recommender(store, Settings(llm="none"), FakeEncoder(), None) as shop:
        shop.recommend("U1")
        shop.record([Event("U1", 0, NOON, "click", "S1OLIV")])
        shop._writer._release()
        before = store.revision(), store._database.generation
        found = shop.recommend("U1")
        assert (found.cached_blocks, before) == (0, (store.revision(), store._database.generation))
        assert shop.recommend("U1").cached_blocks == found.blocks > 0
        path = store.path
    with Store.open(path) as again:
        assert again.counts()["summaries"] == 2


def test_a_request_that_was_answered_before_reads_nothing_of_the_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, original = list[str](), Database.reading

    def reading(self: Database, fresh: bool = False) -> Any:
        reads.append(self.path.name)
        return original(self, fresh)

    with Recommender(store, Settings(llm="none"), FakeEncoder(), None) as shop:
        first = shop.recommend("U1", "linen shirt")
        monkeypatch.setattr(Database, "reading", reading)
        again = shop.recommend("U1", "linen shirt")
        assert [name for name in reads if name == store.path.name] == []
        assert again.items == first.items


def test_a_grown_index_answers_as_one_that_was_made_of_all_its_vectors() -> None:
    draw = np.random.default_rng(3)
    vectors = draw.standard_normal((60, 8)).astype(np.float32)
    grown = GrownIndex(
        VectorIndex([f"k{row}" for row in range(50)], vectors[:50]), ["k50"], {50: vectors[50], 3: vectors[59]}
    )
    grown = GrownIndex(grown, ["k51"], {51: vectors[51], 50: vectors[58]})
    told = vectors[:52].copy()
    told[3], told[50] = vectors[59], vectors[58]
    whole = VectorIndex([f"k{row}" for row in range(52)], told)
    query, may = draw.standard_normal((4, 8)).astype(np.float32), draw.random(52) < 0.5
    assert grown.search(query, 9, may) == whole.search(query, 9, may)
    assert grown.search(query, 9) == whole.search(query, 9)
    np.testing.assert_allclose(grown.products(query), whole.products(query), atol=1e-5)
    assert (grown.vectors(np.arange(52)) == told).all()
    assert (grown.row("k51"), grown.row("k7"), grown.row("none"), len(grown)) == (51, 7, None, 52)
    assert (grown.known == whole.known).all()


class _Source:
    """Scores rows by their number, and notes what it was asked."""

    def ask(self, asked: list[Request]) -> Dense:
        self.asked = asked
        return Dense(np.tile(np.arange(1, 6, dtype=np.float32), (len(asked), 1)))


def test_a_source_of_the_first_rows_says_nothing_of_the_others_and_reads_nothing_of_them() -> None:
    source = _Source()
    asked = Request(np.array([1, 6, 2]), memory=((0, 1.0), (5, 1.0)), predicted=7)
    said = FirstRows(FirstRows(source, 5), 8).ask([asked])  # type: ignore[arg-type]
    assert source.asked[0].history.tolist() == [1, 2]
    assert (source.asked[0].memory, source.asked[0].predicted) == (((0, 1.0),), None)
    may = np.ones(8, np.bool_)
    assert said.first(0, 9, may).tolist() == [4, 3]
    assert said.at(np.array([[0, 4, 6]])).tolist() == [[1.0, 5.0, 3.0]]  # the mean for what it does not know


def test_answers_go_on_while_a_fit_is_under_way(store: Store) -> None:
    live = Live(store, lambda until: Retriever.build(store, FakeEncoder()), enough=1)
    live()
    failures: list[BaseException] = []
    stop = time.monotonic() + 0.1

    def ask() -> None:
        try:
            while time.monotonic() < stop:
                assert len(ids(live(), query="wool", k=5)) == 5
        except Exception as error:  # noqa: BLE001 -  # handed to the test
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for one in threads:
        one.start()
    for price in range(5):
        store.upsert_items([{"item_id": "S1OLIV", "price": 10 + price}])
        time.sleep(0.01)
    for one in threads:
        one.join()
    live.close()
    assert failures == []


def test_what_was_built_is_kept_beside_the_store_and_what_is_damaged_or_stale_is_built_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("recgraph.tools.retrieve.KEPT_FROM", 1)
    first = ids(Retriever.build(store, FakeEncoder()), query="wool jumper")
    root = store.path.with_name(store.path.name + ".index")
    (folder,) = root.iterdir()
    read, popular, listed, facets = store.sequences, store.popular, store.catalogue, Facets.of
    store.sequences = store.popular = store.catalogue = None  # type: ignore[assignment, method-assign]
    monkeypatch.setattr(Facets, "of", None)
    assert ids(Retriever.build(store, FakeEncoder()), query="wool jumper") == first  # nothing is read or counted again
    store.sequences, store.popular, store.catalogue = read, popular, listed  # type: ignore[method-assign]
    monkeypatch.setattr(Facets, "of", facets)
    (folder / "titles" / "index.npy").write_bytes(b"cut")
    with caplog.at_level("WARNING"):
        again = Retriever.build(store, FakeEncoder())
    assert again.fitted.past.kept.damaged == ["titles"]
    assert [record.message.split(" is ")[0] for record in caplog.records] == [str(folder / "titles")]
    assert ids(again, query="wool jumper") == first
    store.upsert_items([{"item_id": "S1OLIV", "price": 3}])
    Retriever.build(store, FakeEncoder())
    assert [one for one in root.iterdir() if one == folder] == []


@pytest.mark.slow
def test_a_flipped_bit_in_what_is_kept_is_never_answered_from(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An array with another number in it gave another answer without a word, or an IndexError."""
    monkeypatch.setattr("recgraph.tools.retrieve.KEPT_FROM", 1)
    monkeypatch.setattr(checksums, "BLOCK", 64)
    first = ids(Retriever.build(store, FakeEncoder()), query="wool jumper")
    (folder,) = store.path.with_name(store.path.name + ".index").iterdir()
    assert [one.ok for one in examine(store.path) if one.name == "index"] == [True]
    for part in sorted(one for one in folder.iterdir() if one.is_dir()):
        file = max(part.rglob("*.npy"), key=lambda one: one.stat().st_size)
        data = bytearray(file.read_bytes())
        data[-1] ^= 4
        file.write_bytes(data)
        [finding] = [one for one in examine(store.path) if one.name == "index"]
        assert "the checksum of block" in finding.found
        again = Retriever.build(store, FakeEncoder())
        assert ids(again, query="wool jumper") == first
        assert not [one for one in examine(store.path) if one.name == "index" and not one.ok]


def test_of_a_large_file_other_blocks_are_looked_at_each_time_and_all_where_it_is_deep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "BLOCK", 10)
    (tmp_path / "array.npy").write_bytes(bytes(400))
    checksums.write(tmp_path)
    assert checksums.problem(tmp_path, deep=True) == ""
    (tmp_path / "array.npy").write_bytes(bytes(200) + b"x" + bytes(199))
    assert checksums.problem(tmp_path, deep=True) == "the checksum of block 20 of array.npy is another"
    assert "block 20" in {checksums.problem(tmp_path)[16:24] for _ in range(100)}  # 1 - (32/38)^100
    (tmp_path / "array.npy").write_bytes(bytes(399))
    assert checksums.problem(tmp_path) == "array.npy has 399 bytes instead of 400"
    (tmp_path / "array.npy").write_bytes(bytes(400))
    (tmp_path / "more").write_text("")
    assert checksums.problem(tmp_path) == "more is none of its files"


def test_a_retriever_that_is_fitted_anew_knows_products_by_their_new_titles(make_store: MakeStore) -> None:
    """As long as no id was new, the vectors of the titles before went on: who was renamed was found by the old name."""
    store, encoder = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES), FakeEncoder()
    store.close()
    with Store.open(store.path, write=True) as written:
        fits, moment = Fits(written, encoder), datetime(2030, 1, 1)
        before = fits.retriever(moment)
        written.record_events([Event("U1", 0, NOON, "click", "S1OLIV")])
        assert fits.retriever(moment).titles is before.titles  # no title is another one
        written.upsert_items([{"item_id": "S1OLIV", "title": "Velvet Curtain, Plum"}])
        for as_of in (moment, None):
            found = fits.retriever(as_of)
            assert found.titles.vector("S1OLIV") == pytest.approx(
                encoder.encode([found.name_of("S1OLIV")])[0], abs=1e-5
            )
        fits.close()


def test_a_fit_of_a_moment_that_ends_late_leaves_no_old_titles_to_those_after_it(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It put its titles in between where a later fit had read which revision they were of, and took them."""
    store, encoder = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES), FakeEncoder()
    store.close()
    with Store.open(store.path, write=True) as written:
        fits, built, go_on = Fits(written, encoder), threading.Event(), threading.Event()
        build, changes_since = Retriever.build, written.changes_since
        late = threading.Thread(target=fits._fit, args=(datetime(2030, 1, 1), None))

        def slow_build(*args: Any, **options: Any) -> Retriever:
            found = build(*args, **options)
            if threading.current_thread() is late:
                built.set()
                go_on.wait(30)
            return found

        def in_between(known: str) -> Any:
            go_on.set()
            late.join(30)
            return changes_since(known)

        monkeypatch.setattr(Retriever, "build", slow_build)
        late.start()
        assert built.wait(30)
        written.upsert_items([{"item_id": "S1OLIV", "title": "Velvet Curtain, Plum"}])
        fits._fit(None, None)
        monkeypatch.setattr(written, "changes_since", in_between)
        found = fits._fit(None, None)
        assert found.titles.vector("S1OLIV") == pytest.approx(encoder.encode([found.name_of("S1OLIV")])[0], abs=1e-5)
        fits.close()
