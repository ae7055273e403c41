"""Several processes over one shared store: so many clients record events, with ids, through so many workers, one of
which is killed and started again; each event that was answered, or sent again after the kill, must be there once.

    python benchmarks/workers.py [--workers 4] [--clients 200] [--readers 0] [--seconds 60] [--pause 1.0]

A client records an event, reads the shopper's history, in which it must stand, and pauses. Prints one JSON line: events
answered, lost, twice, unseen by the next read, and milliseconds of a write and a read at the median, 95 and 99 percent.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from recgraph.store.db import Store
from recgraph.store.live.kept import KeptReader
from recgraph.store.live.writer import StoreWriter
from recgraph.store.records import Event

ITEMS, PAST = 2_000, 20_000
START = datetime(2025, 6, 1)


def make(file: Path) -> None:
    """A store with products and a past."""
    draw = random.Random(0)
    with Store.create(file) as store:
        store.upsert_items([{"item_id": f"I{n}", "title": f"Wool jumper no {n}"} for n in range(ITEMS)])
        past = [
            Event(f"U{draw.randrange(2_000)}", 0, START + timedelta(minutes=n), "click", f"I{draw.randrange(ITEMS)}")
            for n in range(PAST)
        ]
        store.record_events(past)


def work(address: str, log: Path, name: str, clients: int, seconds: float, pause: float, write: bool) -> None:
    """One worker: its clients are threads. What was sent and answered stands in the log before the next step."""
    out, end = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), time.monotonic() + seconds
    with Store.open(address) as store:
        writer, reader = StoreWriter(store), KeptReader(store)

        def note(**fields: Any) -> None:
            os.write(out, (json.dumps(fields) + "\n").encode())

        def client(number: int) -> None:
            draw, n = random.Random(f"{name}-{number}"), 0
            time.sleep(draw.random() * pause)
            while time.monotonic() < end:
                n += 1
                user, event_id = f"{name}-{number}", f"{name}-{number}-{n}"
                if write:
                    note(sent=event_id)
                    begun = time.perf_counter()
                    event = Event(user, 0, START + timedelta(seconds=n), "click", f"I{draw.randrange(ITEMS)}")
                    writer.record_events([event], [event_id])
                    note(answered=event_id, ms=(time.perf_counter() - begun) * 1e3)
                else:
                    user = f"U{draw.randrange(2_000)}"
                begun = time.perf_counter()
                seen = len(reader.history(user, limit=50))
                note(read=(time.perf_counter() - begun) * 1e3, unseen=int(write and seen < min(n, 50)))
                time.sleep(draw.random() * 2 * pause)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.close()


def send_again(address: str, rows: list[dict[str, Any]]) -> int:
    """As clients do that got no answer: the same ids once more."""
    answered = {row["answered"] for row in rows if "answered" in row}
    open_ids = [row["sent"] for row in rows if "sent" in row and row["sent"] not in answered]
    with Store.open(address) as store:
        for event_id in open_ids:
            store.record_events([Event(event_id.rpartition("-")[0], 0, START, "click", "I1")], [event_id])
    return len(open_ids)


def percentiles(values: list[float]) -> dict[str, float]:
    if len(values) < 2:
        return {}
    cuts = statistics.quantiles(values, n=100)
    return {"p50": round(cuts[49], 1), "p95": round(cuts[94], 1), "p99": round(cuts[98], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=200, help="of all workers together")
    parser.add_argument("--readers", type=int, default=0, help="more workers of as many clients each, which only read")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pause", type=float, default=1.0, help="of a client, on the mean")
    parser.add_argument("--as", dest="role", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    each = given.clients // given.workers
    if given.role:
        address, log, name = given.role
        work(address, Path(log), name, each, given.seconds, given.pause, not name.startswith("R"))
        return
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        file = Path(folder) / "shop.duckdb"
        make(file)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        address = f"quack:127.0.0.1:{port}"
        os.environ["RECGRAPH_STORE_TOKEN_FILE"] = f"{file}.token"
        serve = [sys.executable, "-m", "recgraph.cli", "store", "serve", str(file), "--port", str(port)]
        with subprocess.Popen(serve, stdout=subprocess.PIPE) as owner:
            assert owner.stdout is not None
            owner.stdout.readline()
            result = measure(address, Path(folder), given)
            owner.terminate()
        print(json.dumps(result | check(file, Path(folder))))


def measure(address: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Runs the workers, kills the first one after a third of the time and starts another in its place."""

    def start(name: str, seconds: float) -> subprocess.Popen[bytes]:
        own = [f"--{key}={getattr(given, key)}" for key in ("workers", "clients", "pause")]
        role = ["--as", address, str(folder / f"{name}.log"), name]
        return subprocess.Popen([sys.executable, __file__, *own, f"--seconds={seconds}", *role])

    names = [f"W{n}" for n in range(given.workers)] + [f"R{n}" for n in range(given.readers)]
    processes = [start(name, given.seconds) for name in names]
    time.sleep(given.seconds / 3)
    processes[0].kill()
    processes.append(start("W0b", given.seconds * 2 / 3))
    codes = [process.wait() for process in processes]
    again = send_again(address, rows_of(folder / "W0.log"))
    failed = sum(code != 0 for code in codes[1:])
    return {"workers": len(names), "clients": given.clients, "failed": failed, "sent_again": again}


def rows_of(log: Path) -> list[dict[str, Any]]:
    lines = log.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def check(file: Path, folder: Path) -> dict[str, Any]:
    """What the store holds against what the clients were told."""
    rows = [row for log in folder.glob("*.log") for row in rows_of(log)]
    sent = {row["sent"] for row in rows if "sent" in row}
    answered = [row["answered"] for row in rows if "answered" in row]
    with Store.open(file) as store:
        ids = [one for (one,) in store._all("SELECT event_id FROM event_ids")]
        (events,) = store._all("SELECT count(*) FROM events WHERE user_id LIKE 'W%'")[0]
    return {
        "answered": len(answered),
        "lost": len(sent - set(ids)),
        "twice": len(ids) - len(set(ids)) + events - len(set(ids)),
        "unseen": sum(row["unseen"] for row in rows if "unseen" in row),
        "write_ms": percentiles([row["ms"] for row in rows if "ms" in row]),
        "read_ms": percentiles([row["read"] for row in rows if "read" in row]),
        "load": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    main()
