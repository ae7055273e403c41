"""Many at once on one store during an ingest: so many processes, and one more with so many threads, ask for products
while files are loaded. All must be answered, no summary may be lost, nothing may be refused because the store is busy.

    python benchmarks/crowd.py [--processes 8] [--threads 8] [--answers 5] [--rows 200000]

Prints one JSON line: answers, what they had to do without, the slowest one, and the summaries that are missing after.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from damage import USERS, WordEncoder, in_a_process, write_tables

from recgraph.errors import RecgraphError
from recgraph.graph.recommender import Recommender
from recgraph.settings import Settings
from recgraph.store.db import Store
from recgraph.store.ingest.load import ingest


def open_recommender(store: Path) -> Recommender:
    """Over the store, without a language model."""
    return Recommender(Store.open(store), replace(Settings(), store=str(store), llm="none"), WordEncoder(), None)


def ask(store: Path, users: list[str], threads: int) -> list[dict[str, Any]]:
    """An answer for each user, by so many threads of this process."""
    with open_recommender(store) as recommender:

        def one(user: str) -> dict[str, Any]:
            started = time.perf_counter()
            try:
                found = recommender.recommend(user, "wool jumper")
            except RecgraphError as error:
                return {"error": f"{type(error).__name__}: {error}", "seconds": time.perf_counter() - started}
            seconds = time.perf_counter() - started
            return {"items": len(found.items), "degraded": list(found.degraded), "seconds": seconds}

        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(one, users))


def missing_summaries(store: Path, users: list[str]) -> int:
    """How many of the users have summaries to be written anew."""
    Store.open(store, write=True).close()  # takes in what waits
    with open_recommender(store) as recommender:
        found = [recommender.recommend(user, "wool jumper").to_dict()["summary"] for user in users]
    return sum(one["cached"] < one["blocks"] for one in found)


def more_events(folder: Path, rows: int) -> Path:
    """Events of other users."""
    folder.mkdir()
    lines = (f"V{n % 5000},2025-12-{1 + n % 28:02d} 10:00:00,click,I{n % 300:04d}" for n in range(rows))
    (folder / "events.csv").write_text("user_id,ts,action,item_id\n" + "\n".join(lines) + "\n")
    return folder


def forked(work: Callable[[], Any], out: Path) -> int:
    """The id of a process that writes what `work` gives into a file."""
    child = os.fork()
    if child == 0:
        out.write_text(json.dumps(work()))
        os._exit(0)
    return child


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("processes", 8), ("threads", 8), ("answers", 5), ("rows", 200_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recgraph-crowd-") as scratch:
        place, store = Path(scratch), Path(scratch) / "shop.duckdb"
        in_a_process(lambda: ingest(store, "tables", [write_tables(place / "tables")]) and None)
        more = more_events(place / "more", chosen.rows)
        users = [f"U{n % USERS}" for n in range(chosen.answers * max(chosen.processes, chosen.threads))]
        children = []
        for number in range(chosen.processes):
            some = users[number :: chosen.processes]
            children.append(forked(lambda: ask(store, some, 1), place / f"{number}.json"))  # noqa: B023
        children.append(forked(lambda: ask(store, users, chosen.threads), place / "threads.json"))
        time.sleep(1)
        loading = forked(lambda: ingest(store, "tables", [more]).events_new, place / "loaded.txt")
        statuses = [os.waitpid(child, 0)[1] for child in (*children, loading)]
        told = [one for file in place.glob("*.json") for one in json.loads(file.read_text())]
        notes = Counter(one["error"] for one in told if "error" in one)
        notes.update(note.split(" (")[0] for one in told for note in one.get("degraded", ()))
        last = in_a_process(lambda: missing_summaries(store, sorted(set(users))))
        print(
            json.dumps(
                {
                    "asked": chosen.processes * chosen.answers + len(users),
                    "answered": sum(one.get("items") == 10 for one in told),
                    "died": sum(status != 0 for status in statuses),
                    "events loaded": int((place / "loaded.txt").read_text() or 0),
                    "slowest s": round(max(one["seconds"] for one in told), 2),
                    "median s": round(sorted(one["seconds"] for one in told)[len(told) // 2], 2),
                    "summaries missing": last.get("result", last),
                    "left": sorted(file.name for file in place.iterdir() if file.name.startswith("shop.")),
                    "notes": {note[:160]: count for note, count in notes.items()},
                }
            )
        )


if __name__ == "__main__":
    main()
