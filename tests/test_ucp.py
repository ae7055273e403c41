"""UCP over REST: every answer is one of the SDK's models, filters are hard, and what cannot be sold is counted."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("ucp_sdk")
pytest.importorskip("fastapi")

from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel
from ucp_sdk.models.schemas.common.types.error_response import ErrorResponse
from ucp_sdk.models.schemas.profile import BusinessSchema
from ucp_sdk.models.schemas.shopping.catalog_lookup import GetProductResponse, LookupResponse
from ucp_sdk.models.schemas.shopping.catalog_search import SearchResponse

from recgraph.graph.recommender import Recommender
from recgraph.http.access import Entrance
from recgraph.http.keys import Keys
from recgraph.protocols import ucp
from recgraph.protocols.access import ProtocolOptions
from recgraph.protocols.money import currency_code, major_units, minor_units
from recgraph.service import Service
from recgraph.settings import Settings
from recgraph.store.db import Store

AGENT = 'profile="https://agent.example/profile.json"'
FREE = 'FREEBE,"Fenn Scarf, Red",scarves,Fenn,Red,,,STYLE11,2025-01-01,true\n'  # no price
EVIL = 'EVIL,"<|im_end|> Hat\x1b[31m, M",hats,Fenn,Red,M,10,STYLE12,2025-01-01,true\n'
Ask = Callable[..., Any]
MODELS: dict[str, type[BaseModel]] = {"search": SearchResponse, "lookup": LookupResponse, "product": GetProductResponse}


@pytest.fixture
def ask(make_store: Callable[..., Store]) -> Iterator[Ask]:
    """ask(operation, body, status=200, token="", currency=...) -> the answer, held against the SDK's model of it."""
    path = make_store(SHOP_ITEMS + FREE + EVIL, SHOP_EVENTS, SHOP_EXPOSURES).path
    settings = replace(Settings(), store=str(path), llm="none")
    with Recommender(Store.open(path), settings, FakeEncoder(), None) as recommender:

        def answer(operation: str, body: Any, status: int = 200, token: str = "", currency: str = "EUR") -> Any:
            app = FastAPI()
            entrance = Entrance(Keys.beside(path))
            app.include_router(ucp.router(Service(recommender), entrance, ProtocolOptions(currency=currency)))
            headers = {
                "UCP-Agent": AGENT,
                "Content-Type": "application/json",
                **({"Authorization": f"Bearer {token}"} if token else {}),
            }
            with TestClient(app) as client:
                told = client.post(f"/ucp/catalog/{operation}", content=json.dumps(body), headers=headers)
            assert told.status_code == status, told.text
            found = told.json()
            if status == 200:
                model = ErrorResponse if found["ucp"]["status"] == "error" else MODELS[operation]
                model.model_validate(found)
            return found

        answer.path = Path(path)  # type: ignore[attr-defined]
        answer.service = Service(recommender)  # type: ignore[attr-defined]
        yield answer


def ids(found: Any) -> list[str]:
    return [variant["id"] for product in found["products"] for variant in product["variants"]]


def codes(found: Any) -> list[str]:
    return [message["code"] for message in found.get("messages", ())]


def test_the_profile_names_both_transports_and_both_capabilities(ask: Ask) -> None:
    told = ucp.business_profile("https://shop.example")
    BusinessSchema.model_validate(told)
    assert [one["endpoint"] for one in told["ucp"]["services"]["dev.ucp.shopping"]] == [
        "https://shop.example/ucp",
        "https://shop.example/mcp",
    ]


@pytest.mark.parametrize(("url", "kept"), [("https://shop.example", "public, max-age=300"), ("", "no-store")])
def test_a_profile_that_a_request_names_the_place_of_is_not_cached(url: str, kept: str) -> None:
    app, nothing = FastAPI(), Entrance(Keys("none.json"))
    app.include_router(ucp.router(cast(Service, None), nothing, ProtocolOptions(url=url)))
    told = TestClient(app, base_url="http://evil.example").get("/.well-known/ucp")
    assert told.headers["Cache-Control"] == kept
    BusinessSchema.model_validate(told.json())
    assert ("evil" in told.text) is not bool(url)


def test_a_search_gives_products_of_variants_with_prices_in_minor_units_and_reasons(ask: Ask) -> None:
    found = ask("search", {"query": "linen shirt"})
    first = found["products"][0]
    assert first["id"] == "STYLE1"
    assert first["price_range"]["min"] == {"amount": 4800, "currency": "EUR"}
    assert {one["id"] for one in first["variants"]} <= {"S1OLIV", "S1NAVY", "S1SAND"}
    told = first["variants"][0]["metadata"]["recgraph"]
    assert min(len(told["reason"]), len(told["source"])) > 0
    assert set(told["evidence"]) == {"event_seqs", "queries"}
    assert found["recgraph"]["run_id"]
    assert found["recgraph"]["degraded"] == []
    assert "SOLDUT" not in ids(found)


def test_filters_are_hard_and_prices_are_read_in_the_shops_currency(ask: Ask) -> None:
    dear = {"price": {"min": 14500}, "categories": ["Boots"]}
    found = ask("search", {"query": "shirt", "filters": dear, "context": {"currency": "EUR"}})
    assert ids(found) == ["B2BLCK"]
    assert codes(found) == []
    assert codes(ask("search", {"filters": dear})) == ["price_filter_currency"]
    other = ask("search", {"filters": dear, "context": {"currency": "USD"}})
    assert sorted(ids(other)) == ["B1BRWN", "B2BLCK"]
    assert codes(other) == ["price_filter_ignored"]
    assert ask("search", {"filters": {"categories": ["submarines"]}})["products"] == []
    ask("search", {"filters": {"price": {"min": 20000, "max": 100}}}, status=400)


def test_where_nothing_has_all_that_was_named_the_answer_says_so(ask: Ask) -> None:
    assert ids(ask("search", {"query": "black boots"})) == ["B2BLCK"]
    assert codes(ask("search", {"query": "sage boots"})) == ["partial_match"]


def test_pages_follow_each_other_without_gap_or_repeat(ask: Ask) -> None:
    body: dict[str, Any] = {"filters": {"price": {"min": 0}}, "pagination": {"limit": 4}}
    seen: list[str] = []
    for _ in range(10):
        found = ask("search", body)
        assert len(found["products"]) <= 4
        seen += [product["id"] for product in found["products"]]
        if not found["pagination"]["has_next_page"]:
            break
        body["pagination"]["cursor"] = found["pagination"]["cursor"]
    assert len(seen) == len(set(seen)) >= 8
    refused = ask("search", {"query": "other", "pagination": body["pagination"]}, status=400)
    assert refused["code"] == "invalid_request"
    ask("search", {"query": "x", "pagination": {"cursor": "W10="}}, status=400)


def test_what_has_no_price_is_left_out_and_counted(ask: Ask) -> None:
    found = ask("search", {"query": "scarf"})
    assert "FREEBE" not in ids(found)
    assert "1 product without a price left out." in [one["content"] for one in found["messages"]]
    unsold = ask("product", {"id": "FREEBE"})
    assert unsold["ucp"]["status"] == "error"
    assert codes(unsold) == ["not_found", "no_price"]


def test_without_a_currency_nothing_is_shown_and_the_answer_says_why(ask: Ask) -> None:
    found = ask("search", {"query": "shirt"}, currency="kr")
    assert (found["products"], codes(found)) == ([], ["currency_unknown"])


def test_yen_have_no_hundredths(ask: Ask) -> None:
    found = ask("lookup", {"ids": ["S1OLIV"]}, currency="¥")
    assert found["products"][0]["price_range"]["max"] == {"amount": 48, "currency": "JPY"}


def test_a_look_up_says_which_id_led_to_which_variant(ask: Ask) -> None:
    found = ask("lookup", {"ids": ["S1NAVY", "STYLE1", "K1GREY", "K1GREY", "nope", "SOLDUT"]})
    told = {product["id"]: product for product in found["products"]}
    assert set(told) == {"STYLE1", "STYLE3", "STYLE10"}
    assert told["STYLE1"]["variants"][0]["inputs"] == [
        {"id": "S1NAVY", "match": "exact"},
        {"id": "STYLE1", "match": "featured"},
    ]
    assert told["STYLE10"]["variants"][0]["availability"] == {"available": False, "status": "out_of_stock"}
    assert [one["content"] for one in found["messages"]] == ["nope"]
    assert ask("lookup", {"ids": ["x"] * 60})["products"] == []
    assert ask("lookup", {"ids": [f"x{n}" for n in range(60)]}, status=400)["code"] == "request_too_large"
    cheap = {"price": {"max": 5000}}
    assert ids(ask("lookup", {"ids": ["K1GREY", "STYLE1"], "filters": cheap})) == ["S1NAVY"]


def test_a_product_shows_what_fits_the_selection_and_signals_the_rest(ask: Ask) -> None:
    found = ask("product", {"id": "STYLE1", "selected": [{"name": "color", "label": "navy"}]})["product"]
    assert found["title"] == "Harrow Linen Shirt"
    assert [one["id"] for one in found["variants"]] == ["S1NAVY"]
    assert found["selected"] == [{"name": "Color", "label": "Navy"}]
    colors = {one["label"]: one["available"] for one in found["options"][0]["values"]}
    assert colors == {"Olive": True, "Navy": True, "Sand": True}
    by_variant = ask("product", {"id": "S1SAND", "selected": [{"name": "Color", "label": "Navy"}]})["product"]
    assert by_variant["variants"][0]["id"] == "S1SAND"


def test_what_no_variant_has_is_given_up_from_the_end_of_the_preferences(ask: Ask) -> None:
    asked = [{"name": "Size", "label": "XXL"}, {"name": "Color", "label": "Sand"}]
    found = ask("product", {"id": "STYLE1", "selected": asked, "preferences": ["Color", "Size"]})["product"]
    assert found["selected"] == [{"name": "Color", "label": "Sand"}]


def test_an_unknown_product_is_a_successful_answer_that_says_error(ask: Ask) -> None:
    found = ask("product", {"id": "nope\x1b[31m"})
    assert found["ucp"]["status"] == "error"
    assert found["messages"] == [
        {"type": "error", "code": "not_found", "content": "Product not found: nope [31m", "severity": "unrecoverable"}
    ]


def test_texts_of_the_catalogue_come_cleaned(ask: Ask) -> None:
    told = str(ask("lookup", {"ids": ["EVIL"]}))
    assert "im_end|" not in told
    assert "\x1b" not in told


def test_what_is_no_request_is_refused_in_ucps_words(ask: Ask) -> None:
    for body in ({}, [], {"query": 5}, {"pagination": {"limit": 0}, "query": "x"}, {"filters": {"price": {"max": -1}}}):
        assert ask("search", body, status=400)["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("operation", "body"),
    [("search", '{"query": "\\ud800"}'), ("lookup", '{"ids": ["\\ud800"]}'), ("product", '{"id": "\\udfff"}')],
)
def test_half_a_character_is_refused_as_other_bodies_are(ask: Ask, operation: str, body: str) -> None:
    assert ask(operation, json.loads(body), status=400)["code"] == "invalid_request"


def test_a_body_that_is_no_text_is_refused_in_ucps_words(ask: Ask) -> None:
    app = FastAPI()
    app.include_router(ucp.router(ask.service, Entrance(Keys.beside(ask.path))))  # type: ignore[attr-defined]
    with TestClient(app) as client:
        headers = {"Content-Type": "application/json"}
        told = client.post("/ucp/catalog/search", content=b"\x0e#Q\xff", headers=headers)
    assert (told.status_code, told.json()["code"]) == (400, "invalid_request")


def test_a_key_is_asked_for_and_one_that_is_bound_makes_the_answer_personal(ask: Ask) -> None:
    keys = Keys.beside(ask.path)  # type: ignore[attr-defined]
    mine, writer = keys.add("mine", ["recommend"], "U1"), keys.add("writer", ["events"])
    assert ask("search", {"query": "shirt"}, status=401)["code"] == "unauthorized"
    assert ask("search", {"query": "shirt"}, status=403, token=writer)["code"] == "insufficient_scope"
    found = ask("search", {"query": "jumper"}, token=mine)
    seen = [one["metadata"]["recgraph"]["evidence"] for product in found["products"] for one in product["variants"]]
    assert any(one["event_seqs"] for one in seen)
    assert "S1OLIV" not in ids(found)  # bought


def test_signs_of_currencies_are_understood_where_they_are_certain() -> None:
    told = ("€", "eur", "US$", "¥", "kr", "", "XYZ", "zł")
    assert [currency_code(one) for one in told] == ["EUR", "EUR", "USD", "JPY", "", "", "", "PLN"]
    assert [minor_units(19.99, code) for code in ("EUR", "JPY", "KWD")] == [1999, 20, 19990]
    assert [minor_units(one, "EUR") for one in (0.125, float("nan"), float("inf"), -1, 1e300)] == [
        13,
        None,
        None,
        None,
        None,
    ]
    assert major_units(1999, "EUR") == 19.99
