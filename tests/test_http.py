"""The HTTP door over a real server: answers, events, products, why, forgetting, and what a client gets when it errs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

import httpx
from serving import Served, copied_shop, serving


@pytest.fixture
def shop(loaded_stores: Callable[[str, Path], Path], tmp_path: Path) -> Path:
    return copied_shop(loaded_stores, tmp_path)


@pytest.fixture(scope="module")
def server(loaded_stores: Callable[[str, Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all tests of this file that leave it as they found it, or nearly so."""
    with serving(copied_shop(loaded_stores, tmp_path_factory.mktemp("served"))) as served:
        yield served


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [line["item_id"] for line in answer.json()["items"]]


def test_an_answer_is_the_public_json(server: Served) -> None:
    answer = server.ask(query="linen shirt", k=3)
    assert len(ids(answer)) == 3
    assert {"run_id", "understood", "items", "timings_ms", "degraded", "plan"} <= answer.json().keys()
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


def test_a_stream_gives_an_event_a_node_and_then_the_answer(server: Served) -> None:
    asked = {"user_id": "U1", "query": "linen shirt", "k": 3, "stream": True}
    with server.client.stream("POST", "/v1/recommendations", json=asked) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [block.split("\n") for block in "".join(answer.iter_text()).strip().split("\n\n")]
    names = [lines[0].removeprefix("event: ") for lines in events]
    assert names == ["node"] * (len(names) - 1) + ["answer"]
    told = [json.loads(lines[1].removeprefix("data: ")) for lines in events]
    assert [step["node"] for step in told[:2]] == ["load_history", "understand"]
    assert len(told[-1]["items"]) == 3


def test_a_stream_that_is_refused_has_its_status(server: Served) -> None:
    assert server.ask("NOBODY", stream=True).status_code == 404


def test_filters_a_wish_and_excluded_ids_hold_for_every_product(server: Served) -> None:
    first = ids(server.ask("U2", query="shirt", k=2))
    answer = server.ask(
        "U2",
        query="shirt",
        exclude=first,
        filters={"avoid": {"brand": ["otter"]}, "price": {"at_most": 90}},
        wish={"avoid": {"color": ["Sage"]}},
    )
    assert ids(answer)
    for line in answer.json()["items"]:
        assert line["item_id"] not in first
        assert line["price"] <= 90
        assert "Otter" not in line["title"]
        assert "Sage" not in line["title"]


def test_a_filter_that_no_product_has_is_refused_with_what_is_near(server: Served) -> None:
    answer = server.ask(filters={"want": {"color": ["olivee"]}})
    assert answer.status_code == 422
    assert "near it are Olive" in answer.json()["detail"]


def test_a_thread_is_a_conversation(server: Served) -> None:
    server.ask(query="not Otter", thread="t", k=3)
    answer = server.ask(query="boots", thread="t", k=3)
    assert answer.json()["understood"]["avoid"] == {"brand": ["Otter"]}


def test_events_are_written_once_and_the_next_answer_sees_them(server: Served) -> None:
    event = {"event_id": "e1", "user_id": "NEW", "action": "purchase", "item_id": "S2OLIV"}
    first = server.client.post("/v1/events", json={"events": [event]})
    assert (first.status_code, first.json()) == (202, {"written": 1, "known": 0})
    assert server.client.post("/v1/events", json={"events": [event]}).json() == {"written": 0, "known": 1}
    assert "S2OLIV" not in ids(server.ask("NEW", query="oxford shirt"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"user_id": "U1", "action": "search", "item_id": "S1OLIV"},
        {"user_id": "U1", "action": "click"},
        {"user_id": "U1", "action": "look", "item_id": "S1OLIV"},
        {"user_id": "U1\u0000", "action": "click", "item_id": "S1OLIV"},
        {"user_id": "U1", "action": "click", "item_id": "S1OLIV", "ts": "2099-01-01T00:00:00Z"},
        {"user_id": "U1", "action": "click", "item_id": "S1OLIV", "colour": "red"},
    ],
)
def test_a_wrong_event_is_refused_and_none_of_its_batch_is_written(server: Served, wrong: dict[str, object]) -> None:
    right = {"user_id": "U1", "action": "click", "item_id": "S1OLIV"}
    before = server.service.recommender.store.counts()["events"]
    answer = server.client.post("/v1/events", json={"events": [right, wrong]})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["where"].startswith("body.events.1")
    assert server.service.recommender.store.counts()["events"] == before


def test_a_product_is_added_and_sold_out(server: Served) -> None:
    product = {"item_id": "NEW1", "title": "Zephyr Raincoat, Yellow", "category": "coats", "price": 70}
    answer = server.client.post("/v1/items", json={"items": [product]})
    assert (answer.status_code, answer.json()) == (200, {"changed": ["NEW1"]})
    assert ids(server.ask(query="zephyr raincoat"))[0] == "NEW1"
    server.client.post("/v1/items", json={"items": [{"item_id": "NEW1", "in_stock": False}]})
    assert "NEW1" not in ids(server.ask(query="zephyr raincoat"))


def test_a_summary_has_sentences_with_their_events(server: Served) -> None:
    told = server.client.get("/v1/users/U1/summary").json()
    assert told["sentences"][0]["events"][0].keys() >= {"seq", "ts", "action", "title"}
    assert server.client.get("/v1/users/NOBODY/summary").status_code == 404


def test_users_come_as_a_page(server: Served) -> None:
    told = server.client.get("/v1/users", params={"limit": 1, "like": "u"}).json()
    assert [row["user_id"] for row in told["users"]] == ["U1"]


def test_why_and_the_same_again(server: Served) -> None:
    answer = server.ask(query="linen shirt", k=3).json()
    past = server.client.get(f"/v1/runs/{answer['run_id']}").json()
    assert past["items"] == answer["items"]
    again = server.client.get(f"/v1/runs/{answer['run_id']}/replay").json()
    assert (again["equal"], again["moved"]) == (True, [])
    missing = server.client.get("/v1/runs/none")
    assert (missing.status_code, missing.json()["type"]) == (404, "urn:recgraph:problem:unknown-run")
    assert "shop" not in missing.text  # no path of the server's


def test_a_shopper_is_forgotten(server: Served) -> None:
    run_id = server.ask("U3").json()["run_id"]
    assert server.client.delete("/v1/users/U3").json()["gone"]["events"] == 2
    assert server.client.get(f"/v1/runs/{run_id}").status_code == 404
    assert server.ask("U3").status_code == 404
    assert sum(server.client.delete("/v1/users/U3").json()["gone"].values()) == 0


def test_health_ready_and_openapi(server: Served) -> None:
    assert server.client.get("/health").json()["status"] == "ok"
    assert server.client.get("/ready").json()["status"] == "ready"
    described = server.client.get("/openapi.json").json()
    assert {"/v1/recommendations", "/v1/events", "/v1/items", "/v1/users/{user_id}"} <= described["paths"].keys()
    asked = described["components"]["schemas"]["RecommendationRequest"]
    assert asked["examples"][0]["user_id"] == "U123"
    assert "application/problem+json" in described["paths"]["/v1/events"]["post"]["responses"]["422"]["content"]


def test_metrics_count_by_template_and_hold_no_ids(shop: Path) -> None:
    with serving(shop) as server:
        server.ask(query="linen shirt")
        server.client.get("/v1/users/U1/summary")
        server.client.get("/v1/nothing/here")
        text = server.client.get("/metrics").text
    assert 'recgraph_requests_total{method="GET",path="/v1/users/{user_id}/summary",status="200"} 1.0' in text
    assert 'path="unmatched",status="404"' in text
    assert 'recgraph_node_seconds_count{node="retrieve"} 1.0' in text
    assert "U1" not in text
    assert "linen" not in text


def test_a_deadline_counts_and_a_value_out_of_range_is_named(server: Served) -> None:
    assert ids(server.ask(query="linen shirt", deadline_ms=50))
    answer = server.ask(k=1000)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("body.k: Input should be less than or equal to 100")


def test_no_problem_tells_paths_or_others_ids(server: Served) -> None:
    answer = server.ask("U4")
    assert answer.status_code == 404
    assert "U1" not in answer.text
    assert "duckdb" not in answer.text
