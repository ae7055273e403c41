"""MCP as clients of other kinds and ages speak it, and clients that come by the thousand, or whose key is taken away."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")
pytest.importorskip("ucp_sdk")
pytest.importorskip("uvicorn")

import httpx
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS
from serving import copied_shop, serving

from recgraph.http.limits import Limits
from recgraph.store.db import Store

CLIENTS = Path(__file__).with_name("other_mcp_clients.py")
ACCEPT = {"Accept": "application/json, text/event-stream"}
VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
RECOMMEND = {"name": "recommend", "arguments": {"query": "olive shirt", "user_id": "U1", "k": 3}}


def pythons() -> list[str]:
    """Those that have one of the clients: RECGRAPH_MCP_CLIENT_PYTHONS names them, parted as in PATH."""
    own = [sys.executable] if importlib.util.find_spec("fastmcp") else []  # what langchain[mcp] brings
    return own + [one for one in os.environ.get("RECGRAPH_MCP_CLIENT_PYTHONS", "").split(os.pathsep) if one]


def rpc(method: str, params: dict[str, Any], number: int = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def hello(version: str) -> dict[str, Any]:
    return rpc(
        "initialize", {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    )


@pytest.fixture
def shop(loaded_stores: Callable[[str, Path], Path], tmp_path: Path) -> Path:
    return copied_shop(loaded_stores, tmp_path)


def check_answer(told: dict[str, Any]) -> None:
    assert told["items"][0]["item_id"] == "S2OLIV"
    assert len(told["items"]) == 3


@pytest.mark.slow
@pytest.mark.skipif(
    not pythons(), reason="RECGRAPH_MCP_CLIENT_PYTHONS names no Python that has langchain[mcp]>=1.5 or mcp<2"
)
@pytest.mark.parametrize("over", ["http", "stdio"])
def test_clients_of_other_makers_and_of_before_are_served(shop: Path, over: str) -> None:
    stdio = [sys.executable, "-m", "recgraph.cli", "mcp", "--store", str(shop), "--llm", "none"]
    for python in pythons():
        if over == "stdio":
            run = subprocess.run([python, str(CLIENTS), *stdio], capture_output=True, text=True, timeout=120)
        else:
            with serving(shop, agents=True) as server:
                run = subprocess.run(
                    [python, str(CLIENTS), f"{server.url}/mcp"], capture_output=True, text=True, timeout=120
                )
        assert run.returncode == 0, run.stderr
        told = json.loads(run.stdout)
        assert told["protocol"] in (*VERSIONS, "2026-07-28")
        assert len(told["tools"]) == 6
        check_answer(told["recommend"])
        assert told["search_catalog"]["ucp"]["status"] == "success"
        assert "S2OLIV" in told["text"]


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_of_before_is_spoken_as_it_was_asked_for(shop: Path, version: str) -> None:
    with serving(shop, agents=True) as server:
        begun = server.client.post("/mcp", json=hello(version), headers=ACCEPT)
        assert begun.json()["result"]["protocolVersion"] == version
        asks = {**ACCEPT, "MCP-Protocol-Version": version}
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert server.client.post("/mcp", json=ready, headers=asks).status_code == 202
        tools = server.client.post("/mcp", json=rpc("tools/list", {}), headers=asks).json()["result"]["tools"]
        assert len(tools) == 6
        answer = server.client.post("/mcp", json=rpc("tools/call", RECOMMEND), headers=asks).json()["result"]
        check_answer(answer["structuredContent"])


@pytest.mark.slow
def test_a_client_of_2025_is_served_over_stdio_line_by_line(make_store: Callable[..., Store]) -> None:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    store.close()
    command = [sys.executable, "-m", "recgraph.cli", "mcp", "--store", str(store.path), "--llm", "none"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def ask(message: dict[str, Any]) -> Any:
            print(json.dumps(message), file=server.stdin, flush=True)
            return json.loads(server.stdout.readline())["result"] if "id" in message else None  # type: ignore[union-attr]

        assert ask(hello("2025-06-18"))["protocolVersion"] == "2025-06-18"
        ask({"jsonrpc": "2.0", "method": "notifications/initialized"})
        check_answer(ask(rpc("tools/call", RECOMMEND, 2))["structuredContent"])
        server.stdin.close()
        assert server.wait(60) == 0


def test_a_key_that_is_taken_away_ends_a_session_at_its_next_call(shop: Path) -> None:
    with serving(shop, agents=True) as server:
        token = server.keys.add("phone", ["recommend"], "U1")
        asks = {**ACCEPT, "Authorization": f"Bearer {token}", "MCP-Protocol-Version": "2025-06-18"}
        assert server.client.post("/mcp", json=hello("2025-06-18"), headers=asks).status_code == 200
        assert "result" in server.client.post("/mcp", json=rpc("tools/call", RECOMMEND), headers=asks).json()
        server.keys.revoke("phone")
        for method, params in (("tools/call", RECOMMEND), ("tools/list", {})):
            refused = server.client.post("/mcp", json=rpc(method, params), headers=asks)
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")


def test_sessions_that_are_opened_and_left_leave_nothing(shop: Path) -> None:
    with serving(shop, Limits(rate="100000/second"), agents=True) as server:

        def leave(_: int) -> bool:
            begun = httpx.post(f"{server.url}/mcp", json=hello("2025-06-18"), headers=ACCEPT, timeout=60)
            return begun.status_code == 200 and "mcp-session-id" not in begun.headers

        def kept() -> Counter[str]:
            gc.collect()
            names = (type(one).__name__ for one in gc.get_objects())
            return Counter(name for name in names if "Session" in name or "Transport" in name)

        leave(0)
        before = kept()
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(leave, range(100)))
        assert all(count < 20 for count in (kept() - before).values())
