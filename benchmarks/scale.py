"""Retrieval against the size of the catalogue: what opening costs the first time and again, a request in one thread,
memory, and whether the first ten are those of an exact comparison with every text.

Each size is a store of its own: drawn products, events of up to 600,000 users (most have a handful, popular products
are popular), and in place of a sentence encoder's vectors random ones around 1,000 centres, which lie in the store's
table of embeddings. Nothing is from any real shop. A process of its own measures each opening.

    python benchmarks/scale.py [10000 100000 1000000 2400000] [--dim 384] [--requests 200] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from recgraph.store.db import Store
from recgraph.tools.embed import text_key
from recgraph.tools.retrieve import RetrievalQuery, Retriever

_ITEMS = """
    INSERT INTO items (item_id, title, category, brand, color, size, price, parent_id)
    SELECT 'I' || printf('%08d', i),
        ['Red', 'Blue', 'Black', 'White', 'Green', 'Olive', 'Beige'][1 + i % 7] || ' '
            || ['cotton', 'linen', 'wool', 'denim', 'silk'][1 + i % 5] || ' '
            || ['dress', 'shirt', 'skirt', 'coat', 'boots', 'scarf'][1 + i % 6] || ' no. ' || i || ', regular fit',
        ['dresses', 'shirts', 'skirts', 'coats', 'boots', 'scarves'][1 + i % 6], 'Brand ' || (i % 4000),
        ['red', 'blue', 'black', 'white', 'green', 'olive', 'beige'][1 + i % 7], ['S', 'M', 'L', 'XL'][1 + i % 4],
        round(5 + 200 * random(), 2), 'P' || (i // 4) FROM range($items) t(i)
"""
_EVENTS = """
    INSERT INTO events
    SELECT user_id, row_number() OVER (PARTITION BY user_id ORDER BY ts), ts, action, item_id, '', NULL
    FROM (SELECT 'U' || printf('%07d', floor(pow(random(), 3) * $users)::INTEGER) AS user_id,
              TIMESTAMP '2024-01-01' + to_seconds(floor(random() * 31536000)::BIGINT) AS ts,
              CASE WHEN random() < 0.8 THEN 'click' WHEN random() < 0.5 THEN 'cart' ELSE 'purchase' END AS action,
              'I' || printf('%08d', floor(pow(random(), 2) * $items)::INTEGER) AS item_id
          FROM range($events)) ORDER BY user_id, ts
"""


class DrawnEncoder:
    """Vectors of length 1 around 1,000 centres, drawn by the text."""

    def __init__(self, dim: int) -> None:
        self.name, self.dim = f"drawn-{dim}", dim
        self._centres = np.random.default_rng(7).standard_normal((1000, dim)).astype(np.float32)
        # A draw for each text would take minutes for millions; 65,536 offsets are enough to tell texts apart.
        self._offsets = np.random.default_rng(8).standard_normal((1 << 16, dim)).astype(np.float32)

    def encode(self, texts: Sequence[str], progress: object = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        keys = [int(text_key(text)[:12], 16) for text in texts]
        found = self._centres[[key % 1000 for key in keys]] + self._offsets[[key >> 20 & 0xFFFF for key in keys]]
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def make_store(path: Path, items: int, dim: int) -> None:
    """A store of so many products, with two and a half events a product."""
    with Store.create(path) as store, store.writing(), store._database.reading() as cursor:
        cursor.execute("SELECT setseed(0.5)")
        cursor.execute(_ITEMS, {"items": items})
        cursor.execute(_EVENTS, {"items": items, "events": 5 * items // 2, "users": min(600_000, items)})
        store.set_meta("revision", f"drawn-{items}")
        encoder = DrawnEncoder(dim)
        names = store.catalogue().names
        for start in range(0, len(names), 20_000):
            part = names[start : start + 20_000]
            store.save_vectors("title", encoder.name, [text_key(name) for name in part], encoder.encode(part))


def measure(path: Path, dim: int, requests: int) -> dict[str, float]:
    """One opening and some requests, in milliseconds; memory in GB."""
    begun, encoder = time.perf_counter(), DrawnEncoder(dim)
    with Store.open(path) as store:
        retriever = Retriever.build(store, encoder)
        found = {"open": time.perf_counter() - begun}
        draw = np.random.default_rng(9)
        users = [row.user_id for row in store.users(limit=20_000)]
        times, same = [], 0
        for number in range(requests):
            history = store.history(users[int(draw.integers(len(users)))])
            # what one is near to: the vector of the text stands for a query's
            query = retriever.catalogue.names[int(draw.integers(len(retriever.catalogue.names)))] if number % 2 else ""
            started = time.perf_counter()
            retriever.candidates(RetrievalQuery(query=query, history=history, k=10))
            times.append(time.perf_counter() - started)
            if number < 20:
                vector = encoder.encode([query or retriever.catalogue.names[number]])
                near, _ = retriever.titles.nearest(vector[0], 10)
                scores = retriever.titles.products(vector)[0]
                # what is as near as the exact tenth counts as found: many drawn texts are equally near
                same += int((scores[near] >= np.sort(scores)[-10] - 1e-3).sum())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**30
    p50, p99 = (float(np.quantile(times[5:], share)) * 1000 for share in (0.5, 0.99))
    return {**found, "p50": p50, "p99": p99, "peak": peak, "resident": resident, "agree": same / 200}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000, 2_400_000])
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--folder", default=None, help="where to make the temporary folder; 2.4 million need 12 GB")
    parser.add_argument("--measure", metavar="STORE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(Path(options.measure), options.dim, options.requests)))
        return
    print(f"machine   {os.cpu_count()} CPUs (load {os.getloadavg()[0]:.1f}), {platform.machine()}, {platform.system()}")
    print(f"command   python benchmarks/scale.py {' '.join(map(str, options.sizes))} --dim {options.dim}")
    print(f"date      {datetime.now(UTC):%Y-%m-%d}")
    print("products   first opening  opening  p50 ms  p99 ms  peak GB  resident GB  nearest ten as exact")
    command = [sys.executable, __file__, "--dim", str(options.dim), "--requests", str(options.requests), "--measure"]
    for items in options.sizes:
        with tempfile.TemporaryDirectory(prefix="recgraph-scale-", dir=options.folder) as folder:
            path = Path(folder) / "scale.duckdb"
            make_store(path, items, options.dim)
            one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
            runs = [
                json.loads(subprocess.run([*command, str(path)], check=True, stdout=-1, text=True, env=env).stdout)
                for env in (dict(os.environ), one_thread)
            ]
        first, again = runs
        print(
            f"{items:>9,} {first['open']:>13.1f} s {again['open']:>6.1f} s {again['p50']:>7.1f} {again['p99']:>7.1f} "
            f"{again['peak']:>8.2f} {again['resident']:>12.2f} {again['agree']:>10.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
