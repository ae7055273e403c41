"""What a running recommender knows of what was just written, and when: an event, a price, a new product; answers while
all is fitted anew; memory over many recommendations. Works on a copy of a store.

    python benchmarks/live.py [--store recgraph.duckdb] [--requests 1000]
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from recgraph.graph.recommender import Recommender
from recgraph.store.records import Event
from recgraph.tools.wish.wish import Price, Wish


def resident() -> float:
    """GB of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**30


def written_and_known(shop: Recommender, user: str, rounds: int = 30) -> dict[str, list[float]]:
    """Milliseconds of writing an event, and of the retriever that knows it; of a price likewise."""
    ids = shop.store.catalogue().item_ids
    found: dict[str, list[float]] = {name: [] for name in ("event", "event known", "price", "price known")}
    now = datetime.now(UTC).replace(tzinfo=None)
    for number in range(rounds):
        steps = (
            ("event", lambda n=number: shop.record([Event(user, 0, now, "click", ids[n])])),
            ("price", lambda n=number: shop.upsert([{"item_id": ids[n], "price": 10.0 + n}])),
        )
        for name, write in steps:
            begun = time.perf_counter()
            write()
            wrote = time.perf_counter()
            shop.warm_up(memory=False)
            found[name].append((wrote - begun) * 1000)
            found[f"{name} known"].append((time.perf_counter() - wrote) * 1000)
    return found


def checks(shop: Recommender, user: str) -> list[tuple[str, bool]]:
    """Whether a new product is found by its text, and a bound holds for a price that changed, in the next answer."""
    shop.upsert([{"item_id": "BENCH-NEW", "title": "Brass telescope on a tripod", "price": 12.0}])
    first = [one.item.item_id for one in shop.recommend(user, "brass telescope").items]
    item = shop.recommend(user, k=10).items[0].item.item_id
    bound = Wish(price=Price(at_most=50.0))
    shop.upsert([{"item_id": item, "price": 49.0}])
    under = [one.item.item_id for one in shop.recommend(user, k=100, wish=bound).items]
    shop.upsert([{"item_id": item, "price": 51.0}])
    over = [one.item.item_id for one in shop.recommend(user, k=100, wish=bound).items]
    return [
        ("a new product is among the first ten for its text", "BENCH-NEW" in first),
        ("a price under a bound lets a product in", item in under),
        ("a price over a bound keeps it out", item not in over),
    ]


def under_load(shop: Recommender, users: list[str], seconds: float) -> tuple[int, int, float]:
    """(answers, failures, the slowest in ms) of two threads while everything is fitted anew once and again."""
    answers, failures, slowest, stop = [0], [0], [0.0], time.monotonic() + seconds

    def ask(start: int) -> None:
        number = start
        while time.monotonic() < stop:
            begun = time.perf_counter()
            found = shop.recommend(users[number % len(users)])
            answers[0] += 1
            failures[0] += len(found.items) < 10
            slowest[0] = max(slowest[0], (time.perf_counter() - begun) * 1000)
            number += 1

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(2)]
    for one in threads:
        one.start()
    while time.monotonic() < stop:
        shop.store.set_meta("revision", f"drawn-{time.monotonic()}")  # nothing is known of this one: all is fitted anew
        time.sleep(0.5)
    for one in threads:
        one.join()
    return answers[0], failures[0], slowest[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--store", default="recgraph.duckdb")
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recgraph-live-") as folder:
        place = Path(folder) / "shop.duckdb"
        shutil.copyfile(options.store, place)
        with Recommender.open(place, llm="none") as shop:
            users = [row.user_id for row in shop.store.users(limit=200)]
            shop.warm_up()
            shop.recommend(users[0])
            print(f"machine   {os.cpu_count()} CPUs (load {os.getloadavg()[0]:.1f}), {platform.machine()}")
            print(f"command   python benchmarks/live.py --store {options.store} --requests {options.requests}")
            print(f"date      {datetime.now(UTC):%Y-%m-%d}; {shop.store.counts()['items']:,} products")
            for name, times in written_and_known(shop, users[0]).items():
                print(f"{name:<12} p50 {np.median(times):.1f} ms, slowest {max(times):.1f} ms")
            for said, held in checks(shop, users[0]):
                print(f"{'yes' if held else 'NO':<12} {said}")
            before = resident()
            for number in range(options.requests):
                shop.recommend(users[number % len(users)])
                if number + 1 == options.requests // 2:
                    half = resident()
            told = f"{before:.3f} GB, {half:.3f} after half, {resident():.3f} after {options.requests} answers"
            print(f"memory       {told}")
            answers, failures, slowest = under_load(shop, users, 10.0)
            print(f"fitted anew  {answers} answers meanwhile, {failures} failed, slowest {slowest:.0f} ms")


if __name__ == "__main__":
    main()
