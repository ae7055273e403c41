"""How far a text can move a product: fifty attacks (benchmarks/attacks.py) in a product's title, brand, colour,
attributes and description and in the query, over shoppers of a shop.

    python benchmarks/injection.py --store recgraph.duckdb --part retrieval [--shoppers 4] --out metrics/injection.json
    python benchmarks/injection.py --store recgraph.duckdb --part llm [--shoppers 2] --out metrics/injection.json

The rank lift of an attack is how many places higher the attacked product stands than the same product with neutral
texts of equal length, the median of five in titles: words of the titles, or sentences of the descriptions, of products
of its category, as an honest seller would write them. What a change of words alone does is told by each of the five
against the median of the other four. Two products of each shopper are attacked: the one that comes tenth, and one that
does not come. A product that is not among the first twenty counts as twenty-first. In a query only a product that does
not come is looked for, and no text that lists what the shop has: who asks for all categories is to get them.

With a language model (benchmarks/injection_llm.py) the titles of candidates are attacked, and what all candidates'
prompts share: the title of the product that the shopper looked at last, and the query, in a text that names the product
that comes tenth.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from attacked import PLACES, Case, Shop, Shopper, cases, put, rank, shoppers
from attacks import attacks
from injection_llm import with_llm
from lifts import Line, tables

from recgraph import __version__
from recgraph.graph.recommender import Recommender
from recgraph.store.db import Store
from recgraph.store.records import Item
from recgraph.tools.embed import open_encoder

LISTS = ("{categories", "{colours", "{materials", "{brands", "{searches")


def of_retrieval(shop: Shop, all_cases: Sequence[Case], places: Sequence[str] = PLACES) -> Iterator[Line]:
    """The lifts of each attack in each place."""
    own = dict[tuple[str, str], int]()
    for case in all_cases:
        one, item_id = case.shopper, getattr(case.shopper, case.target)
        item = shop.items[item_id]
        lists = any(word in case.attack.template for word in LISTS)
        if (one.user_id, item_id) not in own:
            own[one.user_id, item_id] = rank(shop.candidates(shop.base, one, one.query, alone=item_id), item_id)

        def placed(place: str, text: str, one: Shopper = one, item: Item = item) -> int:
            changed = place != "query"
            retriever = shop.with_item(put(item, place, text)) if changed else shop.base
            query = one.query if changed else f"{one.query} {text}".strip()
            return rank(shop.candidates(retriever, one, query, alone=item.item_id), item.item_id)

        for place in places:
            if place != "query" or not (lists or case.target == "inside"):
                neutral = [placed(place, text) for text in case.neutral(shop, place)]
                stands, before = placed(place, case.text), own[one.user_id, item_id]
                yield Line.of(case.attack, place, case.target, stands, neutral, before)


def machine() -> str:
    """The system and its processor, and how busy it was."""
    cores = len(os.sched_getaffinity(0))
    return f"{cores} CPUs ({platform.machine()}, {platform.system()}, no GPU), load {os.getloadavg()[0]:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="recgraph.duckdb")
    parser.add_argument("--part", choices=("retrieval", "llm"), required=True)
    parser.add_argument("--shoppers", type=int, default=4)
    parser.add_argument("--shared", type=int, default=10, help="attacks in what the prompts of a shopper share")
    parser.add_argument("--every", type=int, default=1, help="of so many attacks one is used to ask what comes next")
    parser.add_argument("--adapter", default="", help="as recgraph run --adapter")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, help="a JSON file whose part is made anew (metrics/injection.json)")
    asked = parser.parse_args()
    started = time.monotonic()
    about: dict[str, Any] = {
        "command": f"python benchmarks/injection.py {' '.join(sys.argv[1:])}",
        "date": str(datetime.date.today()),
        "machine": machine(),
        "version": __version__,
        "products": 0,
    }
    with Store.open(asked.store) as store:
        shop = Shop(store, open_encoder())
        about["products"] = len(shop.items)
        found, chosen = shoppers(shop, asked.shoppers, asked.seed), list(attacks())
        if asked.part == "retrieval":
            lines = of_retrieval(shop, list(cases(shop, found, asked.seed, chosen)))
            part = {"shoppers": len(found), **tables(list(lines))}
        else:
            with Recommender.open(asked.store, llm="default", adapter=asked.adapter) as recommender:
                part = with_llm(recommender, shop, found, asked.seed, chosen, shared=asked.shared, every=asked.every)
    about["minutes"] = round((time.monotonic() - started) / 60, 1)
    known = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out and asked.out.exists() else {}
    text = json.dumps({**known, asked.part: {**about, **part}}, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    print(text)
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
