"""Mixup by hand; the Retriever on a shop of twelve products; its promises for odd input; the langchain
tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder, click, search

from recgraph.errors import SettingsError
from recgraph.store.db import Store
from recgraph.store.ingest.load import ingest
from recgraph.tools.candidates import Candidate, is_fresh, memory_scores, mixup
from recgraph.tools.langchain_tools import ShopTool, memory_tool, retrieve_tool
from recgraph.tools.memory import MemoryHit, QueryMemory
from recgraph.tools.ranking import LearntRanking
from recgraph.tools.retrieve import RetrievalQuery, Retriever
from recgraph.tools.wish.vocabulary import Vocabulary
from recgraph.tools.wish.wish import Price, Wish

MakeStore = Callable[..., Store]
APRIL = datetime(2025, 4, 1)
IN_STOCK = 11  # of the twelve products of SHOP_ITEMS
MODES = ("fused", "paper")


@pytest.fixture
def retriever(make_store: MakeStore) -> Retriever:
    return Retriever.build(make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES), FakeEncoder())


def ids(found: list[Candidate]) -> list[str]:
    return [candidate.item_id for candidate in found]


# -- mixup, memory, queries --------------------------------------------------------------------------------------------


def test_mixup_takes_the_top_of_the_id_list_and_then_the_title_list() -> None:
    assert mixup(["a", "b", "c"], ["x", "y", "z"], k=3, n=1) == ["a", "x", "y"]
    assert mixup(["a", "b", "c"], ["x", "y", "z"], k=4, n=2) == ["a", "b", "x", "y"]
    assert mixup(["a", "b"], ["x", "y"], k=2, n=0) == ["x", "y"]


def test_mixup_repeats_nothing_and_backfills_from_both_lists() -> None:
    assert mixup(["a", "b"], ["b", "a", "x"], k=3, n=1) == ["a", "b", "x"]
    assert mixup(["a", "b", "c"], ["x"], k=4, n=1) == ["a", "x", "b", "c"]  # the title list is too short
    assert mixup(["a"], ["x", "y", "z"], k=3, n=2) == ["a", "x", "y"]  # the ID list is too short
    assert mixup([], ["x"], k=3) == ["x"]
    assert mixup([], [], k=3) == mixup(["a"], ["x"], k=0) == []


def test_memory_products_are_ranked_by_similarity_over_position() -> None:
    hits = [MemoryHit("shirt", 0.9, ("a", "b")), MemoryHit("linen shirt", 0.6, ("b", "c"))]
    assert memory_scores(hits) == {"a": 0.9, "b": pytest.approx(0.9 / 2 + 0.6 / 1), "c": 0.6 / 2}


def test_a_query_is_fresh_until_something_was_looked_at_under_it() -> None:
    assert is_fresh("boots", [])
    assert is_fresh("boots", [search(1, "shirt"), click(2, "S1OLIV")])
    assert is_fresh("boots", [search(1, "boots")])
    assert not is_fresh(" Boots", [search(1, "boots"), click(2, "B1BRWN")])
    assert not is_fresh("", [search(1, "boots")])


# -- sources -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_requests_asked_together_get_what_each_gets_alone(retriever: Retriever, mode: str) -> None:
    """Of different levels of what they name, hard parts that leave nothing, and no history among them."""
    history = [click(1, "S1OLIV"), click(2, "K1GREY", "purchase")]
    wishes = [
        None,
        Wish(want={"category": ("Boots",), "color": ("Black",)}),
        Wish(want={"color": ("Olive",)}, avoid={"category": ("Shirts",)}),
        Wish(price=Price(at_most=0.01)),
    ]
    asked = [
        RetrievalQuery(query=query, history=past, wish=wish, k=9, mode=mode)
        for wish in wishes
        for past in ((), history)
        for query in ("", "boots")
    ]
    assert retriever.candidates_of(asked) == [retriever.candidates(one) for one in asked]
    assert retriever.candidates_of([]) == []


def test_paper_mode_is_mixup_of_the_predicted_id_and_title(retriever: Retriever) -> None:
    found = retriever.candidates(
        RetrievalQuery(predicted_id="K2OLIV", predicted_title="Otter Chelsea Boots, Brown, 42", k=3, mode="paper")
    )
    assert ids(found)[:2] == ["K2OLIV", "B1BRWN"]
    assert (found[0].source, found[1].source) == ("id", "title")
    asked = RetrievalQuery(
        predicted_id="K2OLIV", predicted_title="Otter Chelsea Boots, Brown, 42", k=3, mode="paper", mixup_n=2
    )
    with_two = retriever.candidates(asked)
    assert [candidate.source for candidate in with_two[:2]] == ["id", "id"]


def test_paper_mode_ignores_query_and_history_except_when_there_is_no_prediction(retriever: Retriever) -> None:
    alone = retriever.candidates(RetrievalQuery(predicted_title="Fenn Wrap Dress", k=5, mode="paper"))
    asked = RetrievalQuery(
        predicted_title="Fenn Wrap Dress", query="boots", history=[click(1, "K1GREY")], k=5, mode="paper"
    )
    assert retriever.candidates(asked) == alone
    standing_in = retriever.candidates(
        RetrievalQuery(history=[click(1, "S1OLIV"), click(2, "D1SAGE"), search(3, "boots")], k=5, mode="paper")
    )
    assert standing_in[0].item_id == "D1SAGE"


def test_each_source_brings_what_it_should_and_says_so(retriever: Retriever) -> None:
    first = {
        "id": retriever.candidates(RetrievalQuery(predicted_id="D1SAGE"))[0],
        "title": retriever.candidates(RetrievalQuery(predicted_title="Fenn Wrap Dress, Sage, S"))[0],
        "text": retriever.candidates(RetrievalQuery(query="hiking boots"))[0],
        "memory": retriever.candidates(
            RetrievalQuery(query="?", memory=[MemoryHit("wool jumper", 0.9, ("K1GREY", "K2OLIV"))])
        )[0],
        "sequence": retriever.candidates(RetrievalQuery(history=[click(1, "S1NAVY")]))[0],
    }
    assert {source: candidate.item_id for source, candidate in first.items()} == {
        "id": "D1SAGE",
        "title": "D1SAGE",
        "text": "B2BLCK",
        "memory": "K1GREY",
        "sequence": "S1NAVY",
    }
    assert all(candidate.source == source for source, candidate in first.items())
    asked = RetrievalQuery(history=[click(1, "K1GREY", "purchase")])
    followed = next(candidate for candidate in retriever.candidates(asked) if candidate.item_id == "K2OLIV")
    assert followed.source == "sequence"  # U3 clicked the one and purchased the other
    assert followed.sources == ("sequence",)  # their titles share no more than any two of this shop


def test_a_fresh_query_outweighs_the_history_and_one_under_way_does_not(retriever: Retriever) -> None:
    before = [search(1, "linen shirt"), click(2, "S1NAVY")]
    assert "B2BLCK" in ids(retriever.candidates(RetrievalQuery(query="hiking boots", history=before, k=2)))
    assert retriever.candidates(RetrievalQuery(query="linen shirt", history=before))[0].item_id == "S1NAVY"
    asked = RetrievalQuery(query="hiking boots", history=[search(1, "hiking boots"), click(2, "S1NAVY")], k=2)
    assert "B2BLCK" not in ids(retriever.candidates(asked))


def test_an_untitled_product_is_found_by_its_attributes_and_one_without_any_by_no_text(make_store: MakeStore) -> None:
    store = make_store("item_id,title,color,brand\nA,,Black,Otter\nB,,,\nC,Green Lamp,,\n")
    found = Retriever.build(store, FakeEncoder()).candidates(RetrievalQuery(query="black otter product", k=3))
    assert ids(found)[0] == "A"
    assert next(candidate for candidate in found if candidate.item_id == "B").source == "popular"


# -- a learnt ranking --------------------------------------------------------------------------------------------------


def sources(retriever: Retriever) -> set[str]:
    """The names of those that rank."""
    return set(retriever.ranker.reader.sources)


def learnt(make_store: MakeStore, sources: tuple[str, ...], **config: object) -> Store:
    """The shop with a ranking by these sources published, which has no network: the sources' own votes decide."""
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    told = {
        "depth": 10,
        "pool": 12,
        "again": True,
        "networks": 0,
        "encoder": FakeEncoder.name,
        "fitted_before": "2025-03-01T00:00:00",
        **config,
    }
    with store.writing():
        LearntRanking(sources, {}, told).publish(store)
    return store


def test_a_published_ranking_ranks_and_each_product_says_who_brought_it(make_store: MakeStore) -> None:
    retriever = Retriever.build(
        learnt(make_store, ("popularity", "transitions", "query-words", "memory")), FakeEncoder()
    )
    assert sources(retriever) == {"popularity", "transitions", "query-words", "memory", "id", "title"}
    followed = retriever.candidates(RetrievalQuery(history=[click(1, "K1GREY", "purchase")], k=3))
    # U3 clicked the one and purchased the other
    assert (followed[0].item_id, followed[0].source) == ("K2OLIV", "sequence")
    [asked, *_] = retriever.candidates(RetrievalQuery(query="hiking", k=3))
    assert (asked.item_id, asked.source, asked.sources) == ("B2BLCK", "text", ("text",))
    hits = [MemoryHit("wool jumper", 0.9, ("K1GREY", "UNKNOWN"))]
    assert retriever.candidates(RetrievalQuery(query="?", memory=hits))[0].source == "memory"
    assert {one.source for one in retriever.candidates(RetrievalQuery(k=11))} == {"popular"}


def test_what_the_ranking_has_not_learnt_comes_on_top(make_store: MakeStore) -> None:
    retriever = Retriever.build(learnt(make_store, ("popularity", "transitions")), FakeEncoder())
    history = [click(1, "K1GREY", "purchase")]
    plain = retriever.candidates(RetrievalQuery(history=history, k=11))
    assert plain[0].item_id == "K2OLIV"
    assert "D1SAGE" not in [one.item_id for one in plain[:4]]
    predicted = retriever.candidates(
        RetrievalQuery(history=history, predicted_id="D1SAGE", predicted_title="Fenn Wrap Dress, Sage, S", k=11)
    )
    assert "D1SAGE" in [one.item_id for one in predicted[:8]]
    assert next(one for one in predicted if one.item_id == "D1SAGE").source in ("id", "title")
    searched = retriever.candidates(RetrievalQuery(history=history, query="hiking boots", k=11))
    assert (searched[0].item_id, searched[0].source) == ("B2BLCK", "text")


@pytest.mark.slow
def test_a_ranking_that_knows_more_than_the_moment_or_another_encoder_is_not_used(make_store: MakeStore) -> None:
    store = learnt(make_store, ("popularity", "transitions"))
    assert "popularity" in sources(Retriever.build(store, FakeEncoder(), before=APRIL))
    early = Retriever.build(store, FakeEncoder(), before=datetime(2025, 2, 28))
    assert "popularity" not in sources(early)
    bare = Retriever.build(
        make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES, name="bare"), FakeEncoder(), before=datetime(2025, 2, 28)
    )
    asked = {"history": [click(1, "S1OLIV")], "query": "boots", "predicted_id": "K2OLIV"}
    assert early.candidates(RetrievalQuery(**asked)) == bare.candidates(RetrievalQuery(**asked))  # the hand-set weights

    class Other(FakeEncoder):
        name = "another"

    assert "popularity" not in sources(Retriever.build(store, Other()))


def test_a_ranking_that_reads_core_is_not_used_without_it(make_store: MakeStore) -> None:
    assert "popularity" not in sources(Retriever.build(learnt(make_store, ("popularity", "core")), FakeEncoder()))


@pytest.mark.parametrize("k", [1, 5, IN_STOCK, 500])
def test_the_ranking_keeps_the_promises(make_store: MakeStore, k: int) -> None:
    retriever = Retriever.build(
        learnt(make_store, ("popularity", "transitions", "viewed", "text-knn")), FakeEncoder(), per_style=1
    )
    history = [click(1, "S1OLIV", "purchase"), click(2, "GONE"), click(3, "S1NAVY")]
    found = ids(
        retriever.candidates(
            RetrievalQuery(predicted_id="nonsense", query="лён", history=history, exclude={"B1BRWN"}, k=k)
        )
    )
    assert len(found) == len(set(found)) == min(k, IN_STOCK - 2)
    assert not {"S1OLIV", "B1BRWN", "SOLDUT"} & set(found)
    assert sum(item_id.startswith("S1") for item_id in found[:5]) <= 1


# -- a wish ------------------------------------------------------------------------------------------------------------

LIKES_SHIRTS = [click(1, "S1NAVY"), click(2, "S1SAND"), click(3, "S2OLIV")]


@pytest.mark.parametrize("mode", MODES)
def test_what_the_wish_rules_out_is_not_shown_even_to_fill_up(retriever: Retriever, mode: str) -> None:
    wish = Wish(avoid={"brand": ("Otter",)}, price=Price(at_most=80))
    asked = RetrievalQuery(query="boots", history=LIKES_SHIRTS, k=50, mode=mode, wish=wish)
    found = ids(retriever.candidates(asked))
    assert set(found) == {"S1OLIV", "S1NAVY", "S1SAND", "S2OLIV", "K2OLIV"}  # fewer than k, each under 80


@pytest.mark.parametrize("mode", MODES)
def test_what_fits_more_of_what_is_named_comes_before_all_that_does_not(retriever: Retriever, mode: str) -> None:
    """The history is of shirts, yet black boots were asked for."""
    wish = Wish({"color": ("Black",), "category": ("boots",)})
    found = retriever.candidates(RetrievalQuery(history=LIKES_SHIRTS, k=11, mode=mode, wish=wish))
    assert [one.fits for one in found] == [2, 1, 1, *[0] * 8]
    assert found[0].item_id == "B2BLCK"
    assert set(ids(found[1:3])) == {"B1BRWN", "NOTITL"}
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)


def test_within_what_fits_taste_ranks(retriever: Retriever) -> None:
    asked = RetrievalQuery(history=[click(1, "K1GREY"), click(2, "S1NAVY")], wish=Wish({"category": ("shirts",)}), k=4)
    found = retriever.candidates(asked)
    assert (found[0].item_id, found[0].source) == ("S1NAVY", "sequence")
    assert all(one.fits == 1 for one in found)


def test_the_limit_of_a_style_brings_nothing_before_what_fits(make_store: MakeStore) -> None:
    retriever = Retriever.build(make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES), FakeEncoder(), per_style=1)
    found = retriever.candidates(RetrievalQuery(query="linen shirt", wish=Wish({"category": ("shirts",)}), k=6))
    assert {one.item_id for one in found[:4]} == {"S1OLIV", "S1NAVY", "S1SAND", "S2OLIV"}
    assert "S2OLIV" in ids(found[:2])  # the other style comes before the second of the first
    assert [one.fits for one in found] == [1, 1, 1, 1, 0, 0]


def test_what_could_give_way_is_counted_among_what_is_offered(retriever: Retriever) -> None:
    wish = Wish(avoid={"brand": ("Otter",)}, price=Price(at_most=50))
    told = {one.part: one.more for one in retriever.relaxations(wish)}
    assert sorted(told.values()) == [5]  # S2OLIV, K1GREY, K2OLIV, D1SAGE, FUTURE for the price; SOLDUT is not offered
    assert sum(one.more for one in retriever.relaxations(wish, exclude=("K1GREY",))) == 4


# -- promises ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("k", [1, 5, IN_STOCK, 500])
def test_there_are_always_min_of_k_and_eligible_distinct_products(retriever: Retriever, mode: str, k: int) -> None:
    asked = RetrievalQuery(
        predicted_id="nonsense", predicted_title="麻のシャツ", query="лён", history=[click(1, "GONE")], k=k, mode=mode
    )
    found = ids(retriever.candidates(asked))
    assert len(found) == len(set(found)) == min(k, IN_STOCK)
    assert set(found) <= set(retriever.catalogue.item_ids) - {"SOLDUT"}


@pytest.mark.parametrize("mode", MODES)
def test_without_history_and_prediction_the_popular_products_come_first(retriever: Retriever, mode: str) -> None:
    found = retriever.candidates(RetrievalQuery(k=3, mode=mode))
    assert [(candidate.item_id, candidate.source, candidate.score) for candidate in found] == [
        ("FUTURE", "popular", 0.0),  # the only product of the last 30 days
        ("S1OLIV", "popular", 0.0),  # then of all time: a purchase 3, two clicks 2
        ("K2OLIV", "popular", 0.0),  # a purchase 3 and a click 1
    ]


@pytest.mark.parametrize("mode", MODES)
def test_as_of_a_moment_nothing_of_the_future_is_known(make_store: MakeStore, mode: str) -> None:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    retriever = Retriever.build(store, FakeEncoder(), before=APRIL)
    predicted = {"predicted_id": "FUTURE", "predicted_title": "Harrow Linen Blazer, Olive, M"}
    found = retriever.candidates(RetrievalQuery(**predicted, history=[click(1, "K1GREY")], k=50, mode=mode))
    assert "FUTURE" not in ids(found)
    assert len(found) == IN_STOCK - 1
    assert "FUTURE" not in ids(retriever.candidates(RetrievalQuery(k=50)))


@pytest.mark.slow
def test_later_events_change_nothing_as_of_a_moment(make_store: MakeStore) -> None:
    later = SHOP_EVENTS + "U9,2025-05-01 10:00:00,click,K1GREY,,\nU9,2025-05-01 10:00:01,purchase,B2BLCK,,\n"
    asked = {"history": [click(1, "K1GREY", "purchase")], "predicted_id": "K1GREY", "k": 12}
    before, after = (
        Retriever.build(
            make_store(SHOP_ITEMS, events, SHOP_EXPOSURES, name=name), FakeEncoder(), before=APRIL
        ).candidates(RetrievalQuery(**asked))
        for name, events in (("first", SHOP_EVENTS), ("second", later))
    )
    assert before == after


@pytest.mark.parametrize("mode", MODES)
def test_purchased_and_excluded_products_are_not_shown_again(retriever: Retriever, mode: str) -> None:
    history = [click(1, "S1OLIV", "purchase"), click(2, "K1GREY")]
    found = ids(
        retriever.candidates(
            RetrievalQuery(predicted_id="S1OLIV", history=history, exclude={"B1BRWN"}, k=50, mode=mode)
        )
    )
    assert len(found) == IN_STOCK - 2
    assert not {"S1OLIV", "B1BRWN"} & set(found)
    assert "K1GREY" in found  # only looked at
    assert "S1OLIV" in ids(
        retriever.candidates(RetrievalQuery(history=history, exclude_purchased=False, k=50, mode=mode))
    )
    assert retriever.candidates(RetrievalQuery(exclude=retriever.catalogue.item_ids, mode=mode)) == []


def test_no_more_of_a_style_than_allowed_as_long_as_there_are_others(make_store: MakeStore) -> None:
    retriever = Retriever.build(make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES), FakeEncoder(), per_style=2)
    asked = {"predicted_title": "Harrow Linen Shirt", "query": "linen shirt"}
    styles = [
        "STYLE1" if item_id.startswith("S1") else item_id
        for item_id in ids(retriever.candidates(RetrievalQuery(**asked, k=10)))
    ]
    assert styles.count("STYLE1") == 2
    assert len(retriever.candidates(RetrievalQuery(**asked, k=IN_STOCK))) == IN_STOCK


@pytest.mark.slow
def test_products_without_a_parent_are_not_one_style(make_store: MakeStore) -> None:
    lamps = "item_id,title\n" + "".join(f"L{n},Green Lamp {n}\n" for n in range(6)) + "X,Red Chair\n"
    found = Retriever.build(make_store(lamps), FakeEncoder()).candidates(RetrievalQuery(query="green lamp", k=6))
    assert sorted(ids(found)) == [f"L{n}" for n in range(6)]


def test_an_empty_store_gives_no_products(make_store: MakeStore) -> None:
    retriever = Retriever.build(make_store(), FakeEncoder())
    assert [retriever.candidates(RetrievalQuery(query="shirt", k=10, mode=mode)) for mode in MODES] == [[], []]


def test_an_unknown_mode_is_refused(retriever: Retriever) -> None:
    with pytest.raises(SettingsError, match="'best'"):
        retriever.candidates(RetrievalQuery(mode="best"))


def test_the_same_question_has_the_same_answer(retriever: Retriever) -> None:
    asked = {"query": "linen", "history": [click(1, "S1OLIV"), click(2, "K1GREY")], "predicted_id": "K2OLIV"}
    assert retriever.candidates(RetrievalQuery(**asked)) == retriever.candidates(RetrievalQuery(**asked))


# -- tools and real parts ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_tools_have_typed_schemas_and_json_answers(make_store: MakeStore, retriever: Retriever) -> None:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES, name="other")
    memory = memory_tool(QueryMemory.build(store, FakeEncoder()))
    vocabulary = Vocabulary.of(retriever.fitted.facets)
    retrieve = retrieve_tool(ShopTool(lambda: retriever, lambda: vocabulary, store.items, "€"))
    assert (memory.name, retrieve.name) == ("lookup_query_memory", "retrieve_products")
    assert {name: field["type"] for name, field in memory.args.items()} == {
        "query": "string",
        "queries": "integer",
        "products": "integer",
    }
    assert retrieve.args["avoid"]["type"] == "array"
    assert all(field["description"] for field in retrieve.args.values())
    hits = memory.invoke({"query": "linen shirt", "queries": 1})
    assert json.loads(json.dumps(hits)) == [
        {"query": "linen shirt", "similarity": 1.0, "item_ids": ["S1OLIV", "S1NAVY", "S2OLIV"]}
    ]
    found = retrieve.invoke({"query": "hiking boots", "k": 2})
    assert json.loads(json.dumps(found)) == found
    assert found["products"][0] | {"score": 0, "source": ""} == {
        "item_id": "B2BLCK",
        "title": "Otter Hiking Boots, Black, 42",
        "price": 150.0,
        "currency": "€",
        "category": "boots",
        "brand": "Otter",
        "color": "Black",
        "size": "42",
        "fits": 1,
        "score": 0,
        "source": "",
    }
    with pytest.raises(ValueError, match="less than or equal to 100"):
        retrieve.invoke({"k": 5000})
    held = retrieve.invoke({"query": "shirt", "color": "olives", "avoid": ["harrow", "plutonium"], "max_price": 100})
    assert [one["item_id"] for one in held["products"]] == ["S2OLIV"]
    assert "not Harrow" in held["understood"]
    assert held["problems"] == [
        "'plutonium' is nothing that products are told apart by here: it could not be ruled out."
    ]
    assert {one["part"] for one in held["relaxed"]} >= {"not Harrow"}
    listed = retrieve.invoke({"avoid": ["olive, navy or sand", "harrow and plutonium"], "k": 20})
    assert {one["color"] for one in listed["products"]} == {"Black", "Brown", "Grey", "Sage"}
    assert "Harrow" not in {one["brand"] for one in listed["products"]}
    assert [problem.split()[0] for problem in listed["problems"]] == ["'plutonium'"]
    assert retrieve.invoke({"brand": "plutonium"})["problems"][0].startswith("No product has the brand")


@pytest.mark.data
def test_with_the_real_encoder_a_query_in_other_words_finds_the_product(tmp_path: Path) -> None:
    encode = pytest.importorskip("recgraph.tools.embed")
    for name, text in (("items", SHOP_ITEMS), ("events", SHOP_EVENTS), ("exposures", SHOP_EXPOSURES)):
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
    ingest(tmp_path / "shop.duckdb", "tables", [tmp_path / f"{name}.csv" for name in ("items", "events", "exposures")])
    with Store.open(tmp_path / "shop.duckdb") as store:
        encoder = encode.TextEncoder()
        retriever, memory = Retriever.build(store, encoder), QueryMemory.build(store, encoder)
        assert retriever.candidates(RetrievalQuery(query="shoes for trekking in the mountains"))[0].item_id == "B2BLCK"
        assert memory.lookup("summer blouse made of flax", queries=1)[0].query == "linen shirt"
        assert memory.lookup("woollen pullover for winter", queries=1)[0].query == "wool jumper"
