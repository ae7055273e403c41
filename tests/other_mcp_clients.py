"""MCP clients that are not recgraph's own SDK, to be run by the Python of an environment that has one: LangChain's
`MCPAdapter` (langchain[mcp] >= 1.5), or the SDK before version 2, which speaks the protocol of 2025.

    python tests/other_mcp_clients.py http://127.0.0.1:8080/mcp
    python tests/other_mcp_clients.py COMMAND ARGUMENT...

Prints what it found as JSON: the client, the protocol it agreed on, the tools, and what two of them answered.
"""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from typing import Any

ASKED = {"query": "olive shirt", "user_id": "U1", "k": 3}
SEARCHED = {"catalog": {"query": "olive shirt"}}


async def through_langchain(place: list[str]) -> dict[str, Any]:
    from fastmcp.client.transports import StdioTransport
    from langchain.mcp import MCPAdapter

    target: Any = place[0] if len(place) == 1 else StdioTransport(place[0], place[1:])
    async with MCPAdapter(target) as adapter:
        tools = {tool.name: tool for tool in await adapter.list_tools()}
        call = {"type": "tool_call", "id": "1"}
        answer = await tools["recommend"].ainvoke({"name": "recommend", "args": ASKED, **call})
        found = await tools["search_catalog"].ainvoke({"name": "search_catalog", "args": SEARCHED, **call})
        return {
            "client": "langchain",
            "protocol": str(adapter.client.protocol_version),
            "tools": sorted(tools),
            "recommend": answer.artifact["structured_content"],
            "search_catalog": found.artifact["structured_content"],
            "text": answer.text,
        }


async def through_sdk_1(place: list[str]) -> dict[str, Any]:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client
    from mcp.client.streamable_http import streamablehttp_client

    stdio = StdioServerParameters(command=place[0], args=place[1:])
    async with (
        streamablehttp_client(place[0]) if len(place) == 1 else stdio_client(stdio) as (read, write, *_),
        ClientSession(read, write) as session,
    ):
        begun = await session.initialize()
        tools = (await session.list_tools()).tools
        answer = await session.call_tool("recommend", ASKED)
        found = await session.call_tool("search_catalog", SEARCHED)
        return {
            "client": "sdk 1",
            "protocol": str(begun.protocolVersion),
            "tools": sorted(tool.name for tool in tools),
            "recommend": answer.structuredContent,
            "search_catalog": found.structuredContent,
            "text": answer.content[0].text,
        }


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the adapter is in beta, and says so
    try:
        import fastmcp  # noqa: F401

        through = through_langchain
    except ImportError:
        through = through_sdk_1
    print(json.dumps(asyncio.run(through(sys.argv[1:]))))
