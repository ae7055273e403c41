"""A LangChain agent that recommends with recgraph: python examples/langchain_agent.py PROVIDER:MODEL [STORE] [USER]

Needs `pip install langchain` and the provider's own package, such as langchain-openai.
"""

from __future__ import annotations

import sys
from typing import Any

from langchain.agents import create_agent

from recgraph import Recommender


def ask(model: Any, store: str, user: str, text: str) -> Any:
    """The messages of one turn of an agent that may call `recommend` for this shopper."""
    with Recommender.open(store) as shop:
        agent = create_agent(model, tools=[shop.as_tool(user)], system_prompt="You are the assistant of a shop.")
        return agent.invoke({"messages": [{"role": "user", "content": text}]})["messages"]


if __name__ == "__main__":
    name, store, user = [*sys.argv[1:4], *("openai:gpt-5-mini", "recgraph.duckdb", "U123")[len(sys.argv[1:4]) :]]
    for message in ask(name, store, user, "I need a warm cardigan, not grey, under 150."):
        message.pretty_print()
