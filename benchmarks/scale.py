"""Retrieval against the size of the catalogue: what opening costs the first time and again, a request in one thread
with and without a wish (wall clock and CPU), memory, and whether the first ten are those of scoring every product with
every source.

Each size is a store of its own: drawn products, two and a half events a product of up to 600,000 users (most have a
handful, popular products are popular), and in place of a sentence encoder's vectors random ones around 1,000 centres.
CORE's encoder, the text transformer and the learnt ranking are those of the simulated shop; CORE's table of products is
drawn like the titles. So the work is that of a shop that was trained, and what is recommended means nothing. Nothing is
from any real shop. Processes of their own make the store, open it first, and open it again in one thread; requests
are timed after what opening begins to read in the background is read ("warm").

    python benchmarks/scale.py [10000 100000 1000000 2400000] [--requests 300] [--folder DIR] [--stores DIR]

With --stores the stores lie in DIR/<products>/scale.duckdb and stay there; one that is there is not made anew (2.4
million take half an hour), and its first opening is not timed.
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
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recgraph.store.db import Store
from recgraph.store.records import Event
from recgraph.tools.embed import text_key
from recgraph.tools.index import VectorIndex
from recgraph.tools.ranking import PoolReader, Ranker
from recgraph.tools.retrieve import KEPT_FROM, RetrievalQuery, Retriever
from recgraph.tools.sources.base import Request, Said, Source
from recgraph.tools.sources.said import Dense, Near, whole
from recgraph.tools.trained import TrainedParts
from recgraph.tools.wish.understand import understand
from recgraph.tools.wish.vocabulary import Vocabulary
from recgraph.train.shop.parts import SHIPPED

COLOURS = ("red", "blue", "black", "white", "green", "olive", "beige")
MATERIALS = ("cotton", "linen", "wool", "denim", "silk")
KINDS = ("dress", "shirt", "skirt", "coat", "boots", "scarf")
SHARES = (0.5, 0.95, 0.99)  # of requests
# (what is timed, the query, whether it is understood as a wish)
ASKED = (
    ("no query", "", False),
    ("query", "{colour} {material} {kind}", False),
    ("wish", "{colour} {material} {kind}", True),
    ("hard wish", "{kind} under 60, not {colour}", True),
)
# A title begins with one of 4,000 makers, as shops write them, and holds three words of 20,000, some far more often.
_ITEMS = """
    INSERT INTO items (item_id, title, category, brand, color, size, price, parent_id)
    SELECT 'I' || printf('%08d', i), 'Maker' || m || ' ' || colour || ' ' || material || ' ' || kind || ' '
            || array_to_string([printf('w%05d', floor(pow(random(), 4) * 20000)::INTEGER) FOR _ IN range(3)], ' '),
        kind, 'Maker' || m, colour, ['S', 'M', 'L', 'XL'][1 + i % 4], round(5 + 200 * random(), 2), 'P' || (i // 4)
    FROM (SELECT i, floor(pow(random(), 2) * 4000)::INTEGER AS m, $colours[1 + i // 4 % 7] AS colour,
              $materials[1 + i // 4 % 5] AS material, $kinds[1 + i // 4 % 6] AS kind FROM range($items) t(i))
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

    name, dim = "drawn", 384

    def __init__(self, dim: int = 384) -> None:
        self.dim = dim
        self._centres = np.random.default_rng(7).standard_normal((1000, dim)).astype(np.float32)
        # A draw for each text would take minutes for millions; 65,536 offsets are enough to tell texts apart.
        self._offsets = np.random.default_rng(8).standard_normal((1 << 16, dim)).astype(np.float32)

    def encode(self, texts: Sequence[str], progress: object = None) -> NDArray[np.float32]:
        keys = [int(text_key(text)[:12], 16) for text in texts]
        found = self._centres[[key % 1000 for key in keys]] + self._offsets[[key >> 20 & 0xFFFF for key in keys]]
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)

    def halves(self, texts: Sequence[str]) -> NDArray[np.float16]:
        """float16[texts, dim]: the same, a block at a time."""
        found = np.zeros((len(texts), self.dim), np.float16)
        for start in range(0, len(texts), 20_000):
            found[start : start + 20_000] = self.encode(texts[start : start + 20_000])
        return found


def make_store(path: Path, items: int) -> None:
    """A store of so many products and the trained parts."""
    with Store.create(path) as store, store.writing(), store._database.reading() as cursor:
        cursor.execute("SELECT setseed(0.5)")
        words = {"colours": list(COLOURS), "materials": list(MATERIALS), "kinds": list(KINDS)}
        cursor.execute(_ITEMS, {"items": items, **words})
        cursor.execute(_EVENTS, {"items": items, "events": 5 * items // 2, "users": min(600_000, items)})
        store.set_meta("revision", f"drawn-{items}")
        parts = TrainedParts.load(SHIPPED)
        assert parts.core
        assert parts.former
        assert parts.ranking
        item_ids = store.catalogue().item_ids
        table = DrawnEncoder(parts.core.items.shape[1]).encode(item_ids)
        core = replace(parts.core, item_ids=tuple(item_ids), items=table, cold=np.zeros(items, np.bool_))
        replace(core, weights=_wide(core.weights)).publish(store)
        for part in (parts.former, parts.ranking):
            replace(part, weights=_wide(part.weights), config={**part.config, "encoder": "drawn"}).publish(store)


def _wide(weights: Any) -> dict[str, NDArray[np.float32]]:
    return {name: np.asarray(one, np.float32) for name, one in weights.items()}


def first_opening(path: Path) -> dict[str, float]:
    """Builds all that is kept; the vectors of the titles are there, as if a sentence encoder had made them."""
    encoder = DrawnEncoder()
    with Store.open(path) as store:
        catalogue = store.catalogue()
        titles = VectorIndex(catalogue.item_ids, encoder.halves(catalogue.names))
        begun = time.perf_counter()
        Retriever.build(store, encoder, titles=titles)
        return {"first": time.perf_counter() - begun, "first_peak": _peak()}


def measure(path: Path, requests: int) -> dict[str, Any]:
    """An opening and some requests, in seconds and milliseconds; memory in GB."""
    encoder = DrawnEncoder()
    with Store.open(path) as store:
        titles = None
        if store.counts()["items"] < KEPT_FROM:  # nothing is kept of so few
            catalogue = store.catalogue()
            titles = VectorIndex(catalogue.item_ids, encoder.encode(catalogue.names))
        begun = time.perf_counter()
        retriever = Retriever.build(store, encoder, titles=titles)
        assert retriever.ranker.learnt
        found: dict[str, Any] = {"open": time.perf_counter() - begun}
        retriever.fitted.past.kept.wait()
        found["warm"] = time.perf_counter() - begun
        vocabulary = Vocabulary.of(retriever.fitted.facets, encoder)
        drawn = list(_drawn(store, vocabulary, requests))
        for asked, _ in drawn[: 2 * len(ASKED)]:  # what is made on first use, and pages of what is mapped
            retriever.candidates(asked)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in ASKED}
        for asked, name in drawn:
            begun, worked = time.perf_counter(), time.thread_time()
            retriever.candidates(asked)
            times[name].append((time.perf_counter() - begun, time.thread_time() - worked))
        for name, values in {**times, "all": [one for each in times.values() for one in each]}.items():
            wall, worked_ms = np.quantile(np.array(values) * 1000, SHARES, axis=0).T.tolist()
            found[name] = {"wall": wall, "cpu": worked_ms}
        found |= {"memory": memory(), "load": os.getloadavg()[0]}
        exact = Retriever(replace(retriever.fitted, ranker=_exact(retriever.ranker)), encoder)
        same, of = 0, 0
        for asked, _ in drawn[: 10 * len(ASKED)]:
            ten = {one.item_id for one in exact.candidates(asked)}
            same += len(ten & {one.item_id for one in retriever.candidates(asked)})
            of += len(ten)
        return {**found, "agree": same / of}


def _drawn(store: Store, vocabulary: Vocabulary, requests: int) -> Iterator[tuple[RetrievalQuery, str]]:
    draw = np.random.default_rng(9)
    users = [row.user_id for row in store.users(limit=20_000)]
    for number in range(requests):
        name, words, understood = ASKED[number % len(ASKED)]
        history: list[Event] = store.history(users[int(draw.integers(len(users)))])
        parts = {key: str(draw.choice(of)) for key, of in _WORDS.items()}
        query = words.format(**parts)
        wish = understand(query, vocabulary) if understood else None
        yield RetrievalQuery(query=query, history=history, k=10, wish=wish), name


_WORDS = {"colour": COLOURS, "material": MATERIALS, "kind": KINDS}


# ── Scoring every product ─────────────────────────────────────────────────────────────────────────────────────────────


class Exactly:
    """What a source says, with a number for each product."""

    def __init__(self, source: Source, n_items: int) -> None:
        self._source, self._n_items = source, n_items

    def ask(self, asked: Sequence[Request]) -> Said:
        said = self._source.ask(asked)
        scores = whole(said, self._n_items)
        return Dense(np.where(said.index.known, scores, -np.inf) if isinstance(said, Near) else scores)


def _exact(ranker: Ranker) -> Ranker:
    """The same network over all scores of all sources."""
    old = ranker.reader
    reader = PoolReader({}, np.zeros(0, np.int64), old.depth, old.pool, old.again, old.facets)
    reader.__dict__.update(old.__dict__)
    reader.sources = {name: Exactly(source, old.n_items) for name, source in old.sources.items()}
    return Ranker(reader, ranker.learnt)


# ── Memory, and the door ──────────────────────────────────────────────────────────────────────────────────────────────


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def memory() -> dict[str, float]:
    """GB of this process now: "Rss"; "Pss", where what several processes map counts for each its share; "Anonymous",
    which is its own, without what is mapped from files and may be dropped."""
    lines = (line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    kilobytes = {name: int(rest.split()[0]) for name, rest in lines}
    return {name: kilobytes[name] / 2**20 for name in ("Rss", "Pss", "Anonymous")}


def _run(step: str, path: Path, items: int, requests: int, threads: str = "") -> dict[str, Any]:
    command = [sys.executable, __file__, str(items), "--requests", str(requests), step, str(path)]
    env = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads} if threads else dict(os.environ)
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=-1, text=True, env=env).stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000, 2_400_000])
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--folder", default=None, help="where to make the temporary folder; 2.4 million need 20 GB")
    parser.add_argument("--stores", type=Path, help="a folder whose stores are used, and where new ones stay")
    for step in ("--make", "--first", "--measure"):
        parser.add_argument(step, metavar="STORE", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make or options.first or options.measure:
        found: dict[str, Any] = {}
        if options.make:
            make_store(options.make, options.sizes[0])
        elif options.first:
            found = first_opening(options.first)
        else:
            found = measure(options.measure, options.requests)
        print(json.dumps(found))
        return
    print(f"machine   {os.cpu_count()} CPUs (load {os.getloadavg()[0]:.1f}), {platform.machine()}, {platform.system()}")
    print(f"command   python {' '.join(sys.argv)}")
    print(f"date      {datetime.now(UTC):%Y-%m-%d}")
    print("milliseconds are p50 / p95 / p99 of one request in one thread, by the wall clock (and of CPU)\n")
    titles = ["first opening", "opening (warm after)", *(name for name, _, _ in ASKED), "all"]
    titles += ["resident: RSS, PSS, own", "ten as dense", "load"]
    print("| products | " + " | ".join(titles) + " |\n|" + "---|" * (len(titles) + 1))
    for items in options.sizes:
        if options.stores:
            (options.stores / str(items)).mkdir(parents=True, exist_ok=True)
            cells = _measured(options.stores / str(items) / "scale.duckdb", items, options.requests)
        else:
            with tempfile.TemporaryDirectory(prefix="recgraph-scale-", dir=options.folder) as folder:
                cells = _measured(Path(folder) / "scale.duckdb", items, options.requests)
        print(f"| {items:,} | " + " | ".join(cells) + " |", flush=True)


def _measured(path: Path, items: int, requests: int) -> list[str]:
    """The cells of a size. A store that is there already is not made and opened first."""
    first = "kept"
    if not path.exists():
        _run("--make", path, items, requests)
        told = _run("--first", path, items, requests)
        first = f"{told['first']:.0f} s, {told['first_peak']:.1f} GB"
    again = _run("--measure", path, items, requests, threads="1")
    cells = [first, f"{again['open']:.1f} s ({again['warm']:.1f} s)"]
    for name in (*(one for one, _, _ in ASKED), "all"):
        wall, cpu = (" / ".join(f"{one:.1f}" for one in again[name][kind]) for kind in ("wall", "cpu"))
        cells.append(f"{wall} ({cpu})")
    memory = ", ".join(f"{again['memory'][name]:.2f}" for name in ("Rss", "Pss", "Anonymous"))
    return [*cells, f"{memory} GB", f"{again['agree']:.1%}", f"{again['load']:.1f}"]


if __name__ == "__main__":
    main()
