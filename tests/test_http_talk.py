"""What the page asks the HTTP door beside recommendations: the shop's facts, a shopper's history, a conversation."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS

pytest.importorskip("fastapi")

from serving import Served, serving

from recgraph.http.keys import Keys
from recgraph.store.db import Store


@pytest.fixture
def server(make_store: Callable[..., Store]) -> Iterator[Served]:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    store.close()
    with Store.open(store.path, write=True) as writing:
        for key, value in (("name", "Harrow & Fenn"), ("currency", "€"), ("simulated", "All of it is invented.")):
            writing.set_meta(key, value)
    with serving(store.path, keys=Keys.beside(store.path)) as served:
        yield served


def said(server: Served, text: str, user_id: str = "U1", thread: str = "t") -> tuple[list[str], dict[str, Any]]:
    """The names of the events of one turn, and the data of the last."""
    answer = server.client.post("/v1/chat", json={"user_id": user_id, "text": text, "thread": thread, "stream": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    told: dict[str, Any] = json.loads(blocks[-1][1].removeprefix("data: "))
    return [lines[0].removeprefix("event: ") for lines in blocks], told


def test_a_turn_is_an_event_a_node_and_then_the_reply(server: Served) -> None:
    names, reply = said(server, "an olive shirt")
    assert names == ["node"] * (len(names) - 1) + ["reply"]
    assert len(names) > 8
    assert reply["products"][0]["item_id"] == "S2OLIV"  # the other one was bought
    assert reply["text"]
    assert reply["run_id"]


def test_turns_of_a_thread_add_up_and_threads_do_not_mix(server: Served) -> None:
    said(server, "olive shirts")
    assert said(server, "under 50")[1]["understood"]["parts"] == ["Olive", "shirts", "under €50"]
    assert said(server, "under 50", thread="other")[1]["understood"]["parts"] == ["under €50"]
    assert said(server, "under 50", "U2")[1]["understood"]["parts"] == ["under €50"]


def test_someone_unknown_may_talk(server: Served) -> None:
    assert said(server, "boots", "SOMEONE")[1]["products"]


def test_who_is_forgotten_has_no_conversation_left(server: Served) -> None:
    said(server, "olive shirts")
    assert server.client.delete("/v1/users/U1").status_code == 200
    assert said(server, "under 50")[1]["understood"]["parts"] == ["under €50"]


def test_a_key_bound_to_a_user_talks_and_looks_for_that_user_alone(server: Served) -> None:
    token = server.keys.add("one", ("recommend",), "U1")
    server.client.headers["Authorization"] = f"Bearer {token}"
    for user, status in (("U1", 200), ("U2", 403)):
        assert server.client.post("/v1/chat", json={"user_id": user, "text": "boots"}).status_code == status
        assert server.client.get(f"/v1/users/{user}/history").status_code == status


def test_a_history_has_the_latest_events_with_titles(server: Served) -> None:
    events = server.client.get("/v1/users/U1/history?limit=2").json()["events"]
    assert [(event["action"], event["item_id"]) for event in events] == [("click", "K1GREY"), ("click", "FUTURE")]
    assert events[1]["title"] == "Harrow Linen Blazer, Olive, M"
    assert server.client.get("/v1/users/NOBODY/history").status_code == 404


def test_the_shop_says_that_it_is_invented(server: Served) -> None:
    facts = server.client.get("/v1/shop").json()
    assert facts["name"] == "Harrow & Fenn"
    assert facts["simulated"] == "All of it is invented."
    assert (facts["currency"], facts["items"], facts["users"]) == ("€", 12, 3)
    assert facts["models"]["llm"] == "none"
