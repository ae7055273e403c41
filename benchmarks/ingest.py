"""The store at the size of the fashion paper: 5.9 million events on 2.4 million items (F 5.1). What docs/results.md
says about scale comes from here.

Makes seeded Parquet files in a temporary folder (about 300 MB), ingests them in a process of its own, whose time and
peak memory are taken, and reads the histories of 1,000 random users, and the items in them, through `Store`. The events
are drawn, not from any real shop.

    python benchmarks/ingest.py [--events 5900000] [--items 2400000] [--users 600000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from recgraph.store.db import Store
from recgraph.store.ingest.load import ingest

# Activity is skewed: a user's rank is the cube of a uniform number, so a few users have hundreds of events and most
# have a handful.
_EVENTS = """
    COPY (SELECT 'U' || printf('%07d', floor(pow(random(), 3) * $users)::INTEGER) AS user_id,
              TIMESTAMP '2024-01-01' + to_seconds(floor(random() * 31536000)::BIGINT) AS ts,
              CASE WHEN random() < 0.80 THEN 'click' WHEN random() < 0.5 THEN 'cart' ELSE 'purchase' END AS action,
              'I' || printf('%08d', floor(pow(random(), 2) * $items)::INTEGER) AS item_id,
              CASE WHEN random() < 0.3 THEN 'query ' || floor(random() * 200000)::INTEGER ELSE '' END AS query,
              CASE WHEN random() < 0.3 THEN 1 + floor(random() * 48)::INTEGER END AS position
          FROM range($events)) TO 'PATH' (FORMAT parquet)
"""
_ITEMS = """
    COPY (SELECT 'I' || printf('%08d', i) AS item_id,
              ['Red', 'Blue', 'Black', 'White', 'Green', 'Olive', 'Beige'][1 + i % 7]
                  || ' ' || ['cotton', 'linen', 'wool', 'denim', 'silk'][1 + i % 5]
                  || ' ' || ['dress', 'shirt', 'skirt', 'coat', 'boots', 'scarf'][1 + i % 6]
                  || ' no. ' || i || ', regular fit' AS title,
              ['dresses', 'shirts', 'skirts', 'coats', 'boots', 'scarves'][1 + i % 6] AS category,
              'Brand ' || (i % 4000) AS brand,
              ['red', 'blue', 'black', 'white', 'green', 'olive', 'beige'][1 + i % 7] AS color,
              ['S', 'M', 'L', 'XL'][1 + i % 4] AS size,
              round(5 + 200 * random(), 2) AS price, 'P' || (i // 4) AS parent_id, TRUE AS in_stock
          FROM range($items) t(i)) TO 'PATH' (FORMAT parquet)
"""


def make_tables(folder: Path, events: int, items: int, users: int) -> None:
    """Writes events.parquet and items.parquet, the same for the same numbers and DuckDB (one thread, seeded)."""
    con = duckdb.connect()
    con.execute("SET threads = 1")
    con.execute("SELECT setseed(0.5)")
    con.execute(
        _EVENTS.replace("PATH", str(folder / "events.parquet")), {"events": events, "items": items, "users": users}
    )
    con.execute(_ITEMS.replace("PATH", str(folder / "items.parquet")), {"items": items})
    con.close()


def ingest_and_tell(folder: Path, store: Path) -> None:
    """What the measured process does: one ingest, then its report and peak memory as JSON on stdout."""
    report = ingest(
        store, "tables", [folder], progress=lambda step: print(f"{time.monotonic():.1f} {step}", file=sys.stderr)
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        json.dumps(
            {
                "seconds": report.seconds,
                "peak_gb": peak,
                "events": report.events_new,
                "items": report.items_new,
                "users": report.users,
            }
        )
    )


def percentile(times: list[float], share: float) -> float:
    """In milliseconds."""
    return sorted(times)[min(len(times) - 1, int(share * len(times)))] * 1000


def read_times(path: Path, users: int, readers: int = 1000) -> dict[str, float]:
    """p50 and p99 in ms of `Store.history` of random users, and of `Store.items` of the items in each history."""
    draw = random.Random(7)
    with Store.open(path) as store:
        known = [row.user_id for row in store.users(limit=users)]
        chosen = draw.choices(known, k=readers)
        store.history(chosen[0])
        history, used, items, lengths = list[float](), list[float](), list[float](), list[int]()
        for user in chosen:
            begun, worked = time.perf_counter(), time.process_time()
            events = store.history(user)
            history.append(time.perf_counter() - begun)
            used.append(time.process_time() - worked)
            begun = time.perf_counter()
            store.items([event.item_id for event in events])
            items.append(time.perf_counter() - begun)
            lengths.append(len(events))
    return {
        "history_p50_ms": percentile(history, 0.5),
        "history_p99_ms": percentile(history, 0.99),
        "history_cpu_p99_ms": percentile(used, 0.99),
        "items_p50_ms": percentile(items, 0.5),
        "items_p99_ms": percentile(items, 0.99),
        "mean_events": sum(lengths) / len(lengths),
        "most_events": max(lengths),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--events", type=int, default=5_900_000)
    parser.add_argument("--items", type=int, default=2_400_000)
    parser.add_argument("--users", type=int, default=600_000)
    parser.add_argument("--folder", default=None, help="where to make the temporary folder; needs about 3 GB")
    parser.add_argument("--ingest", nargs=2, metavar=("TABLES", "STORE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ingest:
        ingest_and_tell(Path(options.ingest[0]), Path(options.ingest[1]))
        return
    with tempfile.TemporaryDirectory(prefix="recgraph-scale-", dir=options.folder) as name:
        tables, store = Path(name) / "tables", Path(name) / "scale.duckdb"
        tables.mkdir()
        make_tables(tables, options.events, options.items, options.users)
        command = [sys.executable, __file__, "--ingest", str(tables), str(store)]
        told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        reads = read_times(store, options.users)
        size = store.stat().st_size / 2**30
    print(f"machine   {os.cpu_count()} CPUs (load {os.getloadavg()[0]:.1f}), {platform.machine()}, {platform.system()}")
    print(f"software  Python {platform.python_version()}, DuckDB {duckdb.__version__}")
    print(
        f"command   python benchmarks/ingest.py --events {options.events} --items {options.items} --users "
        f"{options.users}"
    )
    print(f"date      {datetime.now(UTC):%Y-%m-%d}")
    print(
        f"ingest    {told['events']:,} events, {told['items']:,} items, {told['users']:,} users in "
        f"{told['seconds']:.0f} s,"
    )
    print(f"          peak memory {told['peak_gb']:.1f} GB, store {size:.1f} GB   (asked: 240 s, 8 GB)")
    print(f"history   p50 {reads['history_p50_ms']:.1f} ms, p99 {reads['history_p99_ms']:.1f} ms, ", end="")
    print(f"of processor time p99 {reads['history_cpu_p99_ms']:.1f} ms")
    print(
        f"          (asked: p99 10 ms; 1,000 random users, {reads['mean_events']:.1f} events on average, "
        f"{reads['most_events']:.0f} at most)"
    )
    print(
        f"items     p50 {reads['items_p50_ms']:.1f} ms, p99 {reads['items_p99_ms']:.1f} ms for the items of such a "
        "history"
    )


if __name__ == "__main__":
    main()
