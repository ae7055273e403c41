"""Scripted conversations with the assistant (tests/scripted.py), and how many of their turns hold.

    python benchmarks/conversations.py --store recgraph.duckdb [--show] [--only NAME]

The store is the one that `recgraph demo` makes: what must hold is written for its catalogue. Without a language model.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recgraph import __version__
from recgraph.evaluation.origin import machine
from recgraph.graph.assistant.assistant import Assistant
from recgraph.graph.recommender import Recommender
from recgraph.store.records import Item

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
import scripted as scripts


def held(
    assistant: Assistant, shop: Recommender, told: scripts.Scripted
) -> Iterator[tuple[scripts.Said, Any, list[str], float]]:
    """Each turn of a conversation with its reply, what does not hold, and milliseconds."""
    before: list[Item] = []
    for turn in told.turns:
        started = time.perf_counter()
        reply = assistant.reply(told.user, turn.text, told.name)
        took = (time.perf_counter() - started) * 1000
        items = shop.store.items([one["item_id"] for one in reply.products])
        yield turn, reply, scripts.faults(turn, reply, items, before), took
        before = [items[one["item_id"]] for one in reply.products] or before


def report(assistant: Assistant, shop: Recommender, name: str, told: Sequence[scripts.Scripted], show: bool) -> None:
    """Prints how many turns and conversations hold, and what does not."""
    turns, whole, times, products = [], 0, [], 0
    for one in told:
        right = True
        for turn, reply, wrong, took in held(assistant, shop, one):
            turns.append(not wrong)
            times.append(took)
            products += len(reply.products)
            right = right and not wrong
            if show:
                print(f"> {turn.text}\n{reply.text}\n  {reply.understood.get('parts')}")
            for line in wrong[:3]:
                print(f"  not [{one.name}] {turn.text!r}: {line}")
        whole += right
    if turns:
        print(
            f"{name}: {sum(turns)} of {len(turns)} turns hold, {whole} of {len(told)} conversations whole, "
            f"{products:,} products shown; a turn takes {np.median(times):.0f} ms at the median, "
            f"{np.quantile(times, 0.95):.0f} at the 95th percentile"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--store", default="recgraph.duckdb")
    parser.add_argument("--show", action="store_true", help="print the conversations")
    parser.add_argument("--only", default="", help="part of a conversation's name")
    asked = parser.parse_args()
    print(f"recgraph {__version__}, {datetime.datetime.now():%Y-%m-%d}, {machine()}\n{' '.join(sys.argv)}")
    with Recommender.open(asked.store, llm="none") as shop:
        shop.warm_up()
        assistant = Assistant(shop)
        for name, some in (("written before", scripts.CONVERSATIONS), ("held out", getattr(scripts, "HELD_OUT", ()))):
            report(assistant, shop, name, [one for one in some if asked.only in one.name], asked.show)


if __name__ == "__main__":
    main()
