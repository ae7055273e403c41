"""What every door offers: answers, events, products, summaries and runs as plain data."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder

from recgraph.errors import SettingsError, StoreBusy, UnknownRun, UnknownUser
from recgraph.graph.assistant import assistant
from recgraph.graph.recommender import Recommender
from recgraph.inflight import InFlight
from recgraph.service import Service
from recgraph.settings import Settings
from recgraph.store.db import Store


@pytest.fixture
def service(make_store: Callable[..., Store]) -> Iterator[Service]:
    path = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES).path
    settings = replace(Settings(), store=str(path), llm="none")
    with Recommender(Store.open(path), settings, FakeEncoder(), None) as recommender:
        yield Service(recommender)


def ids(answer: dict[str, object]) -> list[str]:
    return [line["item_id"] for line in answer["items"]]  # type: ignore[attr-defined]


def test_an_answer_is_the_public_json_and_its_nodes_come_before_it(service: Service) -> None:
    told = list(service.stream("U1", "linen shirt", k=3))
    assert [step.get("node") for step in told][:2] == ["load_history", "understand"]
    assert len(told[-1]["items"]) == 3
    assert told[-1]["user_id"] == "U1"


def test_what_is_excluded_is_never_shown_and_a_wish_may_be_json(service: Service) -> None:
    first = ids(service.recommend("U2", "shirt", k=3))
    then = service.recommend("U2", "shirt", exclude=first, wish={"avoid": {"brand": ["Otter"]}})
    assert set(first).isdisjoint(ids(then))
    assert all("Otter" not in line["title"] for line in then["items"])
    everything = [line.item_id for line in service.recommender.store.find_items(limit=50)]
    assert ids(service.recommend("U2", exclude=everything)) == []


def test_an_event_is_written_once_and_the_next_answer_knows_it(service: Service) -> None:
    event = {"event_id": "e1", "user_id": "NEW", "action": "purchase", "item_id": "S2OLIV"}
    assert service.record([event]) == {"written": 1, "known": 0}
    assert service.record([event, {**event, "event_id": "e2", "action": "click"}]) == {"written": 1, "known": 1}
    assert "S2OLIV" not in ids(service.recommend("NEW", "oxford shirt"))


def test_an_event_id_is_of_its_user_so_that_nobody_takes_anothers(service: Service) -> None:
    event = {"event_id": "1", "user_id": "A", "action": "click", "item_id": "S2OLIV"}
    assert service.record([event]) == {"written": 1, "known": 0}
    assert service.record([{**event, "user_id": "B"}]) == {"written": 1, "known": 0}
    with pytest.raises(SettingsError, match="event_id has 201 characters"):
        service.record([{**event, "event_id": "x" * 201}])


def test_a_summary_gives_each_sentence_its_events(service: Service) -> None:
    told = service.summary("U1")
    assert told["sentences"]
    shown = [event for sentence in told["sentences"] for event in sentence["events"]]
    assert {"seq", "ts", "action", "item_id", "title", "query"} == set(shown[0])
    assert any(event["title"] == "Harrow Linen Shirt, Olive, M" for event in shown)
    with pytest.raises(UnknownUser):
        service.summary("NOBODY")


def test_a_run_is_found_and_given_again(service: Service) -> None:
    answer = service.recommend("U1", "linen shirt", exclude=["S2OLIV"], k=3)
    assert ids(service.past(answer["run_id"])) == ids(answer)
    assert "request" not in service.past(answer["run_id"])
    service.record([{"user_id": "U1", "action": "click", "item_id": "D1SAGE"}])
    again = service.replay(answer["run_id"])
    assert ids(again["answer"]) == ids(answer)
    with pytest.raises(UnknownRun):
        service.past("nothing")


def test_who_is_forgotten_has_no_runs_no_events_and_no_conversation(service: Service) -> None:
    answer = service.recommend("U3", "black boots", thread="t")
    assert service.forget("U3")["events"] == 2
    with pytest.raises(UnknownRun):
        service.past(answer["run_id"])
    assert service.recommender._conversations.last("U3", "t") == (None, ())
    with pytest.raises(UnknownUser):
        service.recommend("U3")
    assert sum(service.forget("U3").values()) == 0


def begun(pieces: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What is worked on: a part has come, the rest is to come."""
    next(pieces)
    return pieces


@pytest.mark.parametrize("door", ["chat", "stream"])
def test_forgetting_waits_for_the_answers_that_are_worked_on_so_that_none_is_kept(service: Service, door: str) -> None:
    answering = begun(getattr(service, door)("U3", "black boots", thread="t"))
    gone: list[dict[str, int]] = []
    forgetting = threading.Thread(target=lambda: gone.append(service.forget("U3")))
    forgetting.start()
    forgetting.join(0.3)
    assert forgetting.is_alive()
    assert service.recommend("U1", "boots")["items"]  # nobody else waits
    *_, answer = answering
    forgetting.join(30)
    assert gone[0]["events"] == 2
    with pytest.raises(UnknownRun):
        service.past(answer["run_id"])
    assert service.recommender._conversations.last("U3", "t") == (None, ())
    assert service.assistant.forget("U3") == 0


def test_two_turns_of_a_thread_at_once_add_up_one_after_the_other(service: Service) -> None:
    first = begun(service.chat("U1", "olive shirts", "t"))
    second: list[dict[str, Any]] = []
    turn = threading.Thread(target=lambda: second.extend(service.chat("U1", "under 50", "t")))
    turn.start()
    assert list(service.chat("U1", "boots", "other"))[-1]["products"]  # another thread does not wait
    list(first)
    turn.join(30)
    assert second[-1]["understood"]["parts"] == ["Olive", "shirts", "under 50"]


def test_who_does_not_end_lets_others_try_again() -> None:
    flight = InFlight(patience=0.05)
    with flight.among("a"):
        with flight.among("a"), flight.alone("b"), pytest.raises(StoreBusy), flight.among("b"):
            pass
        with pytest.raises(StoreBusy), flight.alone("a"):
            pass
        with flight.among("a"):
            pass


def test_conversations_that_are_broken_off_do_not_pile_up(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assistant, "THREADS", 3)
    for thread in range(8):
        turn = service.chat("U1", "boots", f"t{thread}")
        next(turn)
        turn.close()  # type: ignore[attr-defined]
    assert len(service.assistant._own.storage) <= 3  # type: ignore[union-attr]


def test_users_come_as_a_page(service: Service) -> None:
    assert [row["user_id"] for row in service.users(2)] == ["U1", "U2"]
