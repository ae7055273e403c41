"""What one event, product, title, answer, summary and logged run cost here, in bytes and processor seconds: the unit
figures of plan.py, measured in processes of their own.

Seconds are of the processor, of all threads together, so that other work on the machine counts less; and each process
times a fixed piece of work beside its own (the yardstick), because a processor that is shared does less a second. Shops
are drawn (ingest.py, scale.py) or the simulated one; nothing is from any real shop.

    python benchmarks/units.py [--demo FILE]      prints them, as they stand in units.toml
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from ingest import make_tables
from scale import first_opening, make_store, measure

from recgraph.store import snapshot
from recgraph.store.db import Store
from recgraph.store.ingest.load import ingest

Found = dict[str, float]
# What each probe is asked for: to fit the unit figures (those of retrieval come from four sizes of scale.py), and
# between those sizes to hold the formulae against.
FITTED: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "tables": ((1_000_000, 20_000), (100_000, 400_000)),
    "titles": ((2_000,),),
    "index": ((100_000,),),
    "answers": ((400,),),
}
SMALL: Mapping[str, tuple[int, ...]] = {
    "tables": (500_000, 150_000),
    "titles": (1_000,),
    "index": (60_000,),
    "retrieval": (40_000,),
    "answers": (250,),
}


# Bytes of a row: its texts, the numbers of its events, and its other columns.
_SUMMARY = "strlen(text) + strlen(sentences) + 8 * len(event_seqs) + 120"


def yardstick() -> float:
    """Processor seconds of a fixed piece of work, about a fifth of a second: a loop, products of matrices, a sort, a
    query."""
    begun = time.process_time()
    total = 0
    for number in range(600_000):
        total += number % 7
    draw = np.random.default_rng(1)
    square = draw.standard_normal((400, 400)).astype(np.float32)
    for _ in range(12):
        square = np.tanh(square @ square)
    np.sort(draw.standard_normal(600_000))
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute("SELECT sum(hash(i % 1000)), count(DISTINCT i % 50000) FROM range(600000) t(i)").fetchall()
    return time.process_time() - begun


# ── Probes, each in a process of its own ──────────────────────────────────────────────────────────────────────────────


def tables(folder: Path, events: int, items: int) -> Found:
    """An ingest, and a snapshot of the store."""
    (folder / "tables").mkdir()
    make_tables(folder / "tables", events, items, events // 10)
    begun = time.process_time()
    ingest(folder / "shop.duckdb", "tables", [folder / "tables"])
    told = {"ingest_seconds": time.process_time() - begun, "store_bytes": (folder / "shop.duckdb").stat().st_size}
    begun = time.process_time()
    with Store.open(folder / "shop.duckdb") as store:
        snapshot.write(store, folder / "snapshot")
    return {**told, "snapshot_seconds": time.process_time() - begun, "snapshot_bytes": _bytes(folder / "snapshot")}


def titles(folder: Path, count: int) -> Found:
    """Titles through the sentence encoder that a store has by default."""
    from recgraph.tools.embed import encoder_of

    with Store.create(folder / "shop.duckdb") as store:
        encoder = encoder_of(store, "")
    texts = [f"Maker{n % 400} olive linen shirt w{n:05d} regular fit w{n % 911}" for n in range(count)]
    encoder.encode(texts[:8])
    begun = time.process_time()
    encoder.encode(texts)
    return {"title_seconds": (time.process_time() - begun) / count}


def index(folder: Path, items: int) -> Found:
    """All that is built of a catalogue whose titles are embedded."""
    make_store(folder / "shop.duckdb", items)
    begun = time.process_time()
    first_opening(folder / "shop.duckdb")
    return {
        "build_seconds": (time.process_time() - begun) / items,
        "index_bytes": _bytes(folder / "shop.duckdb.index") / items,
    }


def retrieval(folder: Path, items: int) -> Found:
    """The ranking of one request, with and without words."""
    make_store(folder / "shop.duckdb", items)
    first_opening(folder / "shop.duckdb")
    return {"retrieval_seconds": measure(folder / "shop.duckdb", 200)["all"]["cpu"][0] / 1000}


def answers(folder: Path, count: int, demo: Path) -> Found:
    """Answers without a language model on the simulated shop: each shopper's summary is written, each run is logged."""
    from recgraph.graph.recommender import Recommender
    from recgraph.store import runs
    from recgraph.store.live import writer

    # Both write once in so many seconds, however many answers these had: on a busy machine few. Here once, at the end.
    runs.GATHERED = writer.GATHERED = 3600.0
    file = folder / "shop.duckdb"
    file.write_bytes(demo.read_bytes())
    with Recommender.open(file, llm="none") as recommender:
        known = recommender.store.users(recommender.store.counts()["users"])  # the most active first
        users = [row.user_id for row in known[:: len(known) // count]][:count]
        recommender.recommend(users[0])
        begun = time.process_time()
        for user in users:
            recommender.recommend(user)
        seconds = (time.process_time() - begun) / count
        events, products = len(recommender.store.history(users[count // 2])), recommender.store.counts()["items"]
    with Store.open(file) as store:
        ((summaries,),) = store._all(f"SELECT avg({_SUMMARY}) FROM summaries")  # noqa: S608 - constants
    logged = (folder / "shop.runs.duckdb").stat().st_size / (count + 1)
    told = {"answer_seconds": seconds, "run_bytes": logged, "summary_bytes": float(summaries)}
    return {**told, "history": events, "products": products}


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measured(probe: str, sizes: tuple[int, ...], demo: Path | None) -> Found:
    """What a probe found, in a process with one thread for each library; "yardstick" is of that process."""
    command = [sys.executable, __file__, "--probe", probe, *map(str, sizes), *(["--demo", str(demo)] if demo else [])]
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    done = subprocess.run(command, check=True, stdout=-1, text=True, env={**os.environ, **threads})
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def _probe(name: str, sizes: list[int], demo: Path | None) -> Found:
    probes: dict[str, Callable[..., Found]] = {one.__name__: one for one in (tables, titles, index, retrieval, answers)}
    before = yardstick()
    with tempfile.TemporaryDirectory(prefix="recgraph-units-") as folder:
        found = probes[name](Path(folder), *sizes, *([demo] if name == "answers" else []))
    return {**found, "yardstick": (before + yardstick()) / 2}


# ── Unit figures ──────────────────────────────────────────────────────────────────────────────────────────────────────


def fitted(demo: Path | None) -> dict[str, Any]:
    """The unit figures of this machine, seconds by its yardstick of now."""
    asked = {name: sizes for name, sizes in FITTED.items() if demo or name != "answers"}
    found = {name: [measured(name, one, demo) for one in sizes] for name, sizes in asked.items()}
    sticks = [one["yardstick"] for some in found.values() for one in some]
    stick = float(np.median(sticks))

    def of(one: Found, name: str) -> float:
        return one[name] * (stick / one["yardstick"] if name.endswith("seconds") else 1)

    units: dict[str, float] = {"yardstick": stick}
    for name in ("ingest_seconds", "store_bytes", "snapshot_seconds", "snapshot_bytes"):
        whole = [of(one, name) for one in found["tables"]]
        an_event, an_item = np.linalg.solve(np.array(FITTED["tables"], float), whole)
        units |= {f"event_{name}": float(an_event), f"item_{name}": float(an_item)}
    units["title_seconds"] = of(found["titles"][0], "title_seconds")
    units |= {name: of(found["index"][0], name) for name in ("build_seconds", "index_bytes")}
    for one in found.get("answers", ()):
        units |= {name: of(one, name) for name in ("answer_seconds", "run_bytes", "summary_bytes")}
        units["answer_products"] = one["products"]
    return {**units, "load": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--demo", type=Path, help="a store of `recgraph demo`; without it no answers are measured")
    parser.add_argument("--probe", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        name, *sizes = options.probe
        print(json.dumps(_probe(name, [int(one) for one in sizes], options.demo)))
        return
    units = fitted(options.demo)
    print(f"# {os.cpu_count()} CPUs (load {units.pop('load'):.1f}), {platform.machine()}, {datetime.now(UTC):%Y-%m-%d}")
    print(f"# Python {platform.python_version()}, DuckDB {duckdb.__version__}")
    for key, value in units.items():
        print(f"{key} = {value:.4g}")


if __name__ == "__main__":
    main()
