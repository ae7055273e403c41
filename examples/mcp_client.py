"""An assistant's side of MCP: starts `recgraph mcp`, searches, asks for recommendations and for why.
python examples/mcp_client.py [STORE] [USER] [QUERY]

With the address of a server in place of the store (http://127.0.0.1:8080/mcp, of `recgraph serve`) it goes over HTTP.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import anyio
from mcp import Client, StdioServerParameters

PROFILE = {"ucp-agent": {"profile": "https://agent.example/profile.json"}}  # who asks, as UCP has it


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """What a tool answers as data. SystemExit where it could not."""
    answer = await client.call_tool(tool, arguments)
    if answer.is_error or answer.structured_content is None:
        raise SystemExit(f"{tool}: {answer.content}")
    return answer.structured_content


async def main(place: str, user: str, query: str) -> None:
    arguments = ["-m", "recgraph.cli", "mcp", "--store", place]
    command = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))
    async with Client(place if place.startswith("http") else command) as client:
        print("Tools:", ", ".join(tool.name for tool in (await client.list_tools()).tools))

        found = await call(client, "search_catalog", meta=PROFILE, catalog={"query": query, "pagination": {"limit": 2}})
        for product in found["products"]:
            price = product["price_range"]["min"]
            print(f"{product['id']}  {product['title']}, from {price['amount']} minor units of {price['currency']}")

        answer = await call(client, "recommend", user_id=user, query=query, k=3)
        print("Understood:", ", ".join(answer["understood"]))
        for item in answer["items"]:
            print(f"{item['rank']}. {item['item_id']}  {item['title']}\n   {item['reason']}")

        first = answer["items"][0]["item_id"]
        why = await call(client, "explain_recommendation", run_id=answer["run_id"], item_id=first)
        print("Because of:", why["items"][0]["events"] or why["items"][0]["source"])


anyio.run(main, *[*sys.argv[1:4], *("recgraph.duckdb", "U123", "black boots under 150")[len(sys.argv[1:4]) :]])
