"""recgraph as a node of a larger LangGraph: a shop's assistant that answers with products. python examples/assistant.py
[STORE] [USER]

The parent's state has the keys that recgraph reads (`user_id`, `query`) and takes those it wants of what comes back
(`recommended`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TypedDict

from langgraph.graph import END, START, StateGraph

from recgraph import Recommender
from recgraph.graph.state import Recommended


class Talk(TypedDict, total=False):
    """One turn: what the shopper says, what recgraph is asked and answers, and the reply."""

    message: str
    user_id: str
    query: str
    recommended: Sequence[Recommended]
    reply: str


def listen(talk: Talk) -> Talk:
    """What is searched for. A real assistant asks its language model here."""
    return {"query": talk["message"].lower().removeprefix("i am looking for a ").rstrip(".!")}


def answer(talk: Talk) -> Talk:
    """The three best products and why."""
    return {"reply": "\n".join(f"{line.item.title}: {line.reason}" for line in talk["recommended"][:3])}


store, user = [*sys.argv[1:3], *("recgraph.duckdb", "U123")[len(sys.argv[1:3]) :]]

with Recommender.open(store) as shop:
    graph = StateGraph(Talk)
    graph.add_node("listen", listen)
    graph.add_node("recgraph", shop.graph)
    graph.add_node("answer", answer)
    graph.add_edge(START, "listen")
    graph.add_edge("listen", "recgraph")
    graph.add_edge("recgraph", "answer")
    graph.add_edge("answer", END)
    print(graph.compile().invoke({"user_id": user, "message": "I am looking for a linen shirt."})["reply"])
