"""A conversation with a shop's assistant: python examples/chat.py [STORE] [USER]

Each turn adds to what was said before, and every product shown holds to all of it. A chat model of LangChain may write
the replies: Assistant(shop, model=init_chat_model("provider:model")).
"""

from __future__ import annotations

import sys

from recgraph import Recommender
from recgraph.graph.assistant.assistant import Assistant

store, user = [*sys.argv[1:3], *("recgraph.duckdb", "U123")[len(sys.argv[1:3]) :]]

with Recommender.open(store) as shop:
    assistant = Assistant(shop)
    for said in ("a linen shirt", "under 70", "not that brand", "why the second?", "forget the price", "thanks"):
        reply = assistant.reply(user, said, thread="example")
        print(f"> {said}\n{reply.text}")
        print(f"  {len(reply.products)} products, by: {', '.join(reply.understood['parts'])}\n")
