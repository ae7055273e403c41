"""A past answer given again: equal but for times, or it is said what moved and what is gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder, FakeLLM

from recgraph.cli import main
from recgraph.errors import SettingsError, StoreError
from recgraph.graph.recommender import Recommender
from recgraph.graph.replay.past import WARM
from recgraph.settings import load_settings
from recgraph.store.db import Store
from recgraph.store.ingest.load import ingest
from recgraph.store.records import Event
from recgraph.store.runs import RunLog
from recgraph.tools.llm.open import InUse
from recgraph.tools.wish.wish import Price, Wish

GOOD = "ID: K2OLIV\nTitle: Harrow Wool Jumper, Olive, M"
Make = Callable[..., Recommender]


@pytest.fixture
def shop(make_store: Callable[..., Store]) -> Path:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    store.close()
    return store.path


@pytest.fixture
def make(shop: Path) -> Iterator[Make]:
    opened: list[Recommender] = []

    def _make(llm: FakeLLM | None = None, adapters: InUse | None = None, **settings: Any) -> Recommender:
        chosen = load_settings({}, "/nonexistent", store=str(shop), **settings)
        opened.append(Recommender(Store.open(shop), chosen, FakeEncoder(), llm or FakeLLM(GOOD), adapters=adapters))
        return opened[-1]

    yield _make
    for recommender in opened:
        recommender.close()


def comparable(answer: dict[str, Any]) -> str:
    """The answer as text, its times left out."""
    return json.dumps({name: value for name, value in answer.items() if name != "timings_ms"})


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, {"query": "linen shirt", "k": 5}),
        ({"summarizer": "llm"}, {"query": "wool"}),
        ({"summarizer": "llm", "paradigm": "hierarchical"}, {"mode": "paper", "as_of": "2025-03-01"}),
        ({"recent": 1, "block": 2, "attributes": "hidden"}, {"query": "boots <60", "k": 3}),
        ({"candidates": 4, "rerank_weight": 1.0}, {"wish": Wish(price=Price(at_most=90))}),
    ],
    ids=["plain", "summary by the model", "in the past", "other settings", "a wish given ready-made"],
)
def test_a_run_is_given_again_equal_but_for_times(make: Make, settings: dict[str, Any], asked: dict[str, Any]) -> None:
    first = make(**settings)
    found = first.recommend("U1", **asked)
    first.close()
    given = make().replay(found.run_id)  # a recommender with the default settings
    assert (given.equal, given.gone, given.moved) == (True, [], [])
    assert comparable(given.now.to_dict()) == comparable(found.to_dict())


def test_a_turn_of_a_conversation_is_given_again_with_what_was_asked_before(make: Make) -> None:
    recommender = make()
    recommender.recommend("U1", "olive shirts", thread="t")
    found = recommender.recommend("U1", "cheaper ones", thread="t")
    assert found.wish.want
    recommender.close()  # writes the summary of the first turn
    given = make().replay(found.run_id)
    assert given.equal
    assert given.now.wish == found.wish


def test_nothing_is_logged_or_kept_of_an_answer_given_again(make: Make, shop: Path) -> None:
    recommender = make()
    run_id = recommender.recommend("U1").run_id
    recommender.replay(run_id)
    recommender.close()
    assert [run["run_id"] for run in RunLog(shop).recent()] == [run_id]


def test_events_that_came_since_are_hidden(make: Make) -> None:
    recommender = make()
    found = recommender.recommend("U1", "wool")
    recommender.record([Event("U1", 0, datetime(2025, 8, 1), "purchase", "K2OLIV")])
    assert recommender.recommend("U1", "wool").items != found.items  # K2OLIV was bought
    given = recommender.replay(found.run_id)
    assert given.equal
    assert given.now.as_of == datetime(2025, 8, 1)
    assert len(given.gone) == 1
    assert given.gone[0].startswith(f"The store's revision was {found.models['store_revision']} and is ")
    assert given.gone[0].endswith("now: answered as of 2025-08-01, which hides later events.")


def test_a_product_that_is_sold_out_since_is_named_with_what_moved(make: Make) -> None:
    recommender = make()
    found = recommender.recommend("U1", "linen shirt", k=4)
    first = found.items[0].item.item_id
    recommender.upsert([{"item_id": first, "in_stock": False}])
    given = make().replay(found.run_id)
    assert not given.equal
    assert next((one.item_id, one.then, one.now) for one in given.moved) == (first, 1, None)
    assert (given.moved[-1].then, given.moved[-1].now) == (None, 4)
    assert given.gone[0].startswith("The store's revision was ")
    assert "items[0].item_id" in [one.path for one in given.differences]


def test_events_before_others_that_were_there_make_another_answer_and_that_is_said(make: Make) -> None:
    """Hiding them hides others too."""
    recommender = make()
    found = recommender.recommend("U1")
    recommender.record([Event("U1", 0, datetime(2025, 1, 15), "click", "B2BLCK")])
    given = recommender.replay(found.run_id)
    assert not given.equal
    assert given.gone[0].endswith("answered as of 2025-01-15, which hides later events.")


@pytest.mark.slow
def test_a_store_that_was_loaded_anew_is_asked_as_of_the_time_of_the_run(
    make: Make, shop: Path, tmp_path: Path
) -> None:
    first = make()
    found = first.recommend("U1")
    first.close()
    (tmp_path / "items.csv").write_text("item_id,title\n" + "\n".join(f"N{one},New {one}" for one in range(30_000)))
    ingest(shop, "tables", [tmp_path / "items.csv"])
    given = make().replay(found.run_id)
    assert given.now.as_of is not None
    assert given.gone[0].startswith("The store's revision was ")


def test_what_answered_then_and_is_another_now_is_named_one_sentence_each(make: Make) -> None:
    trained = make(adapters=InUse("shop-1a2b3c4d"))
    found = trained.recommend("U1")
    assert trained.replay(found.run_id).equal
    given = make(FakeLLM(GOOD, name="another")).replay(found.run_id)
    assert given.gone == [
        "The language model was fake and is another now: choose it with --llm or --llm-url.",
        "The adapters were shop-1a2b3c4d and are none now: choose them with --adapter.",
    ]
    assert [one.path for one in given.differences] == ["models.llm", "models.adapter"]


def test_a_process_that_took_changes_in_says_that_another_was_fitted_with_them(make: Make) -> None:
    recommender = make()
    recommender.recommend("U1")
    recommender.record([Event("U2", 0, datetime(2025, 8, 1), "click", "D1SAGE")])
    found = recommender.recommend("U1")
    assert recommender.replay(found.run_id).gone == []
    [sentence] = make().replay(found.run_id).gone
    assert sentence.startswith("Retrieval was fitted on revision ")


def test_a_run_that_is_not_there_and_one_without_a_request_are_said_in_a_sentence(make: Make, shop: Path) -> None:
    recommender = make()
    with pytest.raises(StoreError, match=r"Run 'x' is not in the run log .*\. Nothing is logged yet\."):
        recommender.replay("x")
    found = recommender.recommend("U1")
    with pytest.raises(StoreError, match=rf"The newest of those that are: {found.run_id}\."):
        recommender.replay("x")
    RunLog(shop).append(replace(found, run_id="old").to_dict())
    with pytest.raises(StoreError, match=r"Run 'old' cannot be given again: its request was not kept\."):
        recommender.replay("old")
    request = {**RunLog(shop).find(found.run_id)["request"], "settings": {"colour": 1}}
    RunLog(shop).append({**found.to_dict(), "run_id": "odd", "request": request})
    with pytest.raises(SettingsError, match="'colour', which this version of recgraph does not have"):
        recommender.replay("odd")


def test_the_log_holds_neither_the_key_nor_the_address_of_a_server(make: Make, shop: Path) -> None:
    recommender = make(llm_url="http://user:secret@127.0.0.1:1/v1", llm_api_key="sk-secret")
    found = recommender.recommend("U1")
    assert "secret" not in json.dumps(RunLog(shop).find(found.run_id))


# ── The command ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def logged(shop: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A run of the command line, without a model; its id."""
    monkeypatch.setattr("recgraph.graph.recommender.encoder_of", lambda *_: FakeEncoder())
    monkeypatch.chdir(tmp_path)
    run = ["run", "--user", "U1", "--query", "linen shirt", "--not", "color=Navy", "--llm", "none", "--json"]
    done = CliRunner().invoke(main, [*run, "--store", str(shop)])
    assert done.exit_code == 0
    return str(json.loads(done.stdout)["run_id"])


def test_the_command_says_that_the_answer_is_the_same(shop: Path, logged: str) -> None:
    done = CliRunner().invoke(main, ["replay", logged, "--store", str(shop)])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"Run {logged} of U1: the same answer, 9 products, equal but for times.\n"


def test_the_command_shows_what_moved_and_ends_with_1(shop: Path, logged: str) -> None:
    with Store.open(shop, write=True) as store:
        store.upsert_items([{"item_id": "S1SAND", "in_stock": False}])
    done = CliRunner().invoke(main, ["replay", logged, "--store", str(shop)], terminal_width=100)
    assert done.exit_code == 1
    assert done.stdout.startswith(f"Run {logged} of U1: another answer.\n! The store's revision was ")
    assert "1     –   S1SAND   Harrow Linen Shirt, Sand, M" in done.stdout
    as_json = json.loads(CliRunner().invoke(main, ["replay", logged, "--json", "--store", str(shop)]).stdout)
    assert (as_json["run_id"], as_json["equal"], as_json["moved"][0]["now"]) == (logged, False, None)
    assert list(as_json) == ["run_id", "equal", "gone", "moved", "differences", "answer"]


def test_the_command_says_in_a_sentence_that_a_run_or_its_adapter_is_gone(shop: Path, logged: str) -> None:
    done = CliRunner().invoke(main, ["replay", "x", "--store", str(shop)])
    assert done.exit_code == 1
    assert done.stderr.startswith("recgraph: Run 'x' is not in the run log ")
    run = RunLog(shop).find(logged)
    RunLog(shop).append({**run, "run_id": "lost", "models": {**run["models"], "llm": "m", "adapter": "lost-12345678"}})
    done = CliRunner().invoke(main, ["replay", "lost", "--store", str(shop)])
    assert done.exit_code == 1
    assert "Run 'lost' cannot be given again, a model that answered it is gone. " in done.stderr


@pytest.mark.llm
@pytest.mark.timeout(900)
def test_an_answer_of_the_real_model_is_given_again(shop: Path) -> None:
    """Greedy. A model that had read for others before is named where its numbers moved."""
    with Recommender.open(shop, summarizer="llm", candidates=2, deadline=300.0) as recommender:
        found = recommender.recommend("U3", "wool jumper", k=3)
        assert found.prediction
        given = recommender.replay(found.run_id)
        assert (given.differences, given.gone) == ((), [])
        assert given.now.tokens.cached == found.tokens.cached
        given = recommender.replay(recommender.recommend("U2", k=3).run_id)
        assert given.equal == (WARM not in given.gone)


def test_a_repeated_run_is_told_the_day_of_its_first_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Later:
            return cls(2031, 2, 3, tzinfo=tz)

    llm = FakeLLM(GOOD)
    recommender = make(llm)
    first = recommender.recommend("U1", "linen shirt")
    recommender.close()
    monkeypatch.setattr("recgraph.graph.nodes.datetime", Later)
    again = make(repeating := FakeLLM(GOOD))
    again.replay(first.run_id)
    assert "Date: 3 February" not in llm.asked[0].user
    assert repeating.asked == llm.asked
