"""Ten products for one shopper, step by step: python examples/recommend.py [STORE] [USER] [QUERY]

Make a store first: recgraph demo. With the language model at hand: RECGRAPH_LLM=default.
"""

from __future__ import annotations

import sys

from recgraph import Recommender

store, user, query = [*sys.argv[1:4], *("recgraph.duckdb", "U123", "chunky wool cardigan")[len(sys.argv[1:4]) :]]

with Recommender.open(store) as shop:
    for step in shop.stream(user, query, k=10):
        if hasattr(step, "node"):
            print(f"{step.node}: {step.ms:.0f} ms")
        else:
            for line in step.items:
                print(f"{line.rank:>3}  {line.item.item_id}  {line.item.title}\n     {line.reason}")
            for missing in step.degraded:
                print(f"     without {missing}")
