"""The MCP server, asked by real clients of both protocol eras: over stdio, over HTTP and in this process."""

import json
import re
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")
pytest.importorskip("ucp_sdk")
pytest.importorskip("uvicorn")

import anyio
import httpx2
import uvicorn
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder
from fastapi import FastAPI
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult
from ucp_sdk.models.schemas.common.types.error_response import ErrorResponse
from ucp_sdk.models.schemas.shopping.catalog_lookup import GetProductResponse, LookupResponse
from ucp_sdk.models.schemas.shopping.catalog_search import SearchResponse

from recgraph.graph.recommender import Recommender
from recgraph.http.access import Entrance
from recgraph.http.app import create_app
from recgraph.http.keys import Grant, Keys
from recgraph.http.limits import Limits
from recgraph.protocols import ucp
from recgraph.protocols.access import ProtocolOptions
from recgraph.protocols.mcp_server import APP, mcp_router, server
from recgraph.service import Service
from recgraph.settings import Settings
from recgraph.store.db import Store

META = {"ucp-agent": {"profile": "https://agent.example/profile.json"}}
TOOLS = {"search_catalog", "lookup_catalog", "get_product", "recommend", "record_event", "explain_recommendation"}
EUROS = ProtocolOptions(currency="EUR")
Asking = Callable[[Client], Awaitable[None]]


@pytest.fixture
def service(make_store: Callable[..., Store]) -> Iterator[Service]:
    path = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES).path
    settings = replace(Settings(), store=str(path), llm="none")
    with Recommender(Store.open(path), settings, FakeEncoder(), None) as recommender:
        yield Service(recommender)


def in_process(service: Service, grant: Grant, ask: Asking) -> None:
    async def talk() -> None:
        async with Client(server(service, Entrance(Keys("none.json")), EUROS, lambda headers: grant)) as client:
            await ask(client)

    anyio.run(talk)


async def told(client: Client, tool: str, **arguments: Any) -> Any:
    answer = await client.call_tool(tool, arguments)
    assert isinstance(answer, CallToolResult)
    assert not answer.is_error, answer.content
    return answer.structured_content


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error
    return str(answer.content[0].text)  # type: ignore[union-attr]


async def a_visit(client: Client) -> None:
    """What an assistant does: look around, recommend, show one, say what happened, ask why."""
    assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
    found = await told(client, "search_catalog", meta=META, catalog={"query": "linen shirt"})
    SearchResponse.model_validate(found)
    assert found["products"][0]["id"] == "STYLE1"
    looked = await told(client, "lookup_catalog", meta=META, catalog={"ids": ["STYLE1", "nope"]})
    LookupResponse.model_validate(looked)
    shown = await told(client, "get_product", meta=META, catalog={"id": "S1NAVY"})
    GetProductResponse.model_validate(shown)
    ErrorResponse.model_validate(await told(client, "get_product", meta=META, catalog={"id": "nope"}))
    answer = await told(client, "recommend", query="wool jumper", user_id="U1", k=3)
    assert len(answer["items"]) == 3
    assert (await told(client, "record_event", action="click", item_id="K2OLIV", user_id="U1", event_id="e"))["written"]
    assert not (await told(client, "record_event", action="click", item_id="K2OLIV", user_id="U1", event_id="e"))[
        "written"
    ]
    why = await told(client, "explain_recommendation", run_id=answer["run_id"], item_id=answer["items"][0]["item_id"])
    assert why["items"][0]["reason"] == answer["items"][0]["reason"]


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """A real server of an application on a free port of this machine."""
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join(10)


def application(service: Service, keys: Keys, limits: Limits | None = None) -> FastAPI:
    return create_app(service, keys, limits, doors=[partial(made, options=EUROS) for made in (mcp_router, ucp.router)])


@pytest.mark.parametrize("mode", ["2026-07-28", "auto", "legacy"])
def test_clients_of_both_eras_are_served_over_http(service: Service, mode: Any, tmp_path: Path) -> None:
    async def talk(url: str) -> None:
        async with Client(f"{url}/mcp", mode=mode) as client:
            assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
            await a_visit(client)

    with served(application(service, Keys(tmp_path / "keys.json"))) as url:
        anyio.run(talk, url)


@pytest.mark.parametrize(("mode", "user"), [("auto", ""), ("legacy", "U2")])
@pytest.mark.slow
def test_the_command_serves_an_assistant_over_stdio(make_store: Callable[..., Store], mode: Any, user: str) -> None:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    store.close()
    with Store.open(store.path, write=True) as opened:
        opened.set_meta("currency", "€")
    command = ["-m", "recgraph.cli", "mcp", "--store", str(store.path), "--llm", "none", "--user", user]

    async def talk() -> None:
        async with Client(StdioServerParameters(command=sys.executable, args=command), mode=mode) as client:
            if not user:
                return await a_visit(client)
            mine = await told(client, "recommend", query="boots")
            assert "B1BRWN" not in [one["item_id"] for one in mine["items"]]  # U2 has them
            with pytest.raises(MCPError, match="for another shopper"):
                await client.call_tool("recommend", {"user_id": "U1"})
        return None

    anyio.run(talk)


def test_a_bound_key_answers_for_its_shopper_and_for_no_other(service: Service) -> None:
    runs: dict[str, str] = {}

    async def as_anyone(client: Client) -> None:
        runs["U2"] = (await told(client, "recommend", user_id="U2"))["run_id"]
        nobody = await told(client, "recommend", query="shirt")
        assert all(not one["evidence"]["event_seqs"] for one in nobody["items"])
        assert "Whose event" in await refusal(client, "record_event", action="click", item_id="S1OLIV")

    async def as_u1(client: Client) -> None:
        mine = await told(client, "recommend", query="jumper")
        assert any(one["evidence"]["event_seqs"] for one in mine["items"])
        assert f"There is no run '{runs['U2']}'." in await refusal(client, "explain_recommendation", run_id=runs["U2"])
        for tool, more in (("recommend", {}), ("record_event", {"action": "click", "item_id": "S1OLIV"})):
            with pytest.raises(MCPError, match="for another shopper") as refused:
                await client.call_tool(tool, {"user_id": "U2", **more})
            assert refused.value.error.code == -32000
        await told(client, "explain_recommendation", run_id=mine["run_id"])

    in_process(service, Grant(), as_anyone)
    in_process(service, Grant(user_id="U1"), as_u1)


def test_a_key_opens_what_its_scopes_say(service: Service) -> None:
    async def ask(client: Client) -> None:
        await told(client, "search_catalog", catalog={"query": "shirt"})
        with pytest.raises(MCPError, match="scope events"):
            await client.call_tool("record_event", {"action": "click", "item_id": "S1OLIV", "user_id": "U1"})

    in_process(service, Grant(frozenset({"recommend"})), ask)


def test_what_a_model_fills_in_wrongly_it_is_told_of(service: Service) -> None:
    async def ask(client: Client) -> None:
        assert "no product 'x [31m'" in await refusal(
            client, "record_event", action="click", item_id="x\x1b[31m", user_id="U1"
        )
        assert "Whose event" in await refusal(client, "record_event", action="search", query="boots")
        assert "There is no run" in await refusal(client, "explain_recommendation", run_id="none")
        assert "action" in await refusal(client, "record_event", action="steal", user_id="U1")
        assert "No events of this shopper" in await refusal(client, "recommend", user_id="Nobody")
        for catalog in ({}, {"query": "x", "pagination": {"cursor": "zzz"}}):
            with pytest.raises(MCPError) as refused:
                await client.call_tool("search_catalog", {"meta": META, "catalog": catalog})
            assert refused.value.error.code == -32602
        with pytest.raises(MCPError) as refused:
            await client.call_tool("lookup_catalog", {"catalog": {"ids": [f"x{n}" for n in range(99)]}})
        assert refused.value.error.data["code"] == "request_too_large"
        bad = {"ucp-agent": {"profile": "http://169.254.169.254/"}}
        with pytest.raises(MCPError) as refused:
            await client.call_tool("search_catalog", {"meta": bad, "catalog": {"query": "x"}})
        assert (refused.value.error.code, refused.value.error.data["code"]) == (-32001, "invalid_profile_url")

    in_process(service, Grant(), ask)


def test_http_asks_for_a_key_where_there_are_keys(service: Service, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    token = keys.add("mine", ["recommend"], "U1")

    async def talk(url: str) -> None:
        async with httpx2.AsyncClient() as plain:
            for headers in ({}, {"Authorization": "Bearer rg_wrong"}):
                answer = await plain.post(f"{url}/mcp", json={}, headers=headers)
                assert answer.status_code == 401
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as bearer,
            Client(streamable_http_client(f"{url}/mcp", http_client=bearer)) as client,
        ):
            found = await told(client, "recommend", query="jumper")
            assert any(one["evidence"]["event_seqs"] for one in found["items"])

    with served(application(service, keys)) as url:
        anyio.run(talk, url)


def test_a_key_that_asks_too_often_is_told_to_wait(service: Service, tmp_path: Path) -> None:
    with served(application(service, Keys(tmp_path / "keys.json"), Limits(rate="1/minute"))) as url:
        answers = [httpx2.post(f"{url}/mcp", json={}) for _ in range(2)]
        assert answers[1].status_code == 429
        assert int(answers[1].headers["Retry-After"]) > 0


def test_a_key_has_one_rate_at_all_doors(service: Service, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    token = keys.add("mine", ["recommend"])
    with served(application(service, keys, Limits(rate="2/minute"))) as url:
        statuses = [
            httpx2.get(f"{url}/v1/shop", headers={"Authorization": f"Bearer {token}"}).status_code,
            httpx2.post(
                f"{url}/ucp/catalog/lookup", json={"ids": ["S1NAVY"]}, headers={"X-API-Key": token}
            ).status_code,
            httpx2.post(f"{url}/mcp", json={}, headers={"Authorization": f"Bearer {token}"}).status_code,
        ]
        assert statuses == [200, 200, 429]


def test_a_page_that_rebinds_its_name_to_this_machine_is_refused(service: Service, tmp_path: Path) -> None:
    with served(application(service, Keys(tmp_path / "keys.json"))) as url:
        for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
            assert httpx2.post(f"{url}/mcp", json={}, headers=headers).status_code in (400, 403, 421)


def test_the_app_is_one_file_that_asks_nothing_of_a_network_and_sets_text_alone(service: Service) -> None:
    async def ask(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        for name in ("recommend", "search_catalog"):
            assert tools[name].meta == {"ui": {"resourceUri": APP}}
        page = (await client.read_resource(APP)).contents[0]
        assert page.mime_type == "text/html;profile=mcp-app"
        assert page.text == files("recgraph.protocols").joinpath("app.html").read_text(encoding="utf-8")  # type: ignore[union-attr]

    in_process(service, Grant(), ask)
    page = files("recgraph.protocols").joinpath("app.html").read_text(encoding="utf-8")
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|fetch\(|XMLHttp|<link|src=|@import|url\(", page
    )
    assert set(re.findall(r"https?://[^\"'` ]*", page)) <= {"https://"}


def test_the_tools_say_what_they_take(service: Service) -> None:
    async def ask(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools["search_catalog"].input_schema["properties"]) == {"catalog", "meta"}
        assert tools["get_product"].input_schema["required"] == ["catalog"]
        assert tools["get_product"].output_schema["required"] == ["ucp"]  # type: ignore[index]
        assert "ctx" not in json.dumps(tools["recommend"].input_schema)
        assert len(json.dumps([tool.model_dump(mode="json") for tool in tools.values()])) < 40_000  # a model reads them

    in_process(service, Grant(), ask)
