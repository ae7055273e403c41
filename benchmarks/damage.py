"""What a damaged disk does to an answer: faults put into a store, its logs and its folder, one at a time, and what a
recommendation then does. The table of faults in docs/results.md comes from here.

Each fault gets a copy of a small shop and a process of its own, which asks for ten products with a checkpoint file. It
counts as survived where ten products come or one sentence says what to do (a RecgraphError); a traceback, a signal and
another answer than the undamaged shop's are none. No model is loaded: the encoder is a bag of words.

    python benchmarks/damage.py [--seed 0] [--only NAME] [--mend]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from recgraph.errors import RecgraphError
from recgraph.graph.recommender import Recommender
from recgraph.settings import Settings
from recgraph.store.db import Store
from recgraph.store.ingest.load import ingest
from recgraph.tools import retrieve

Fault = Callable[[Path, random.Random], None]
ITEMS, USERS, EVENTS = 300, 80, 4_000
QUERIES = "linen shirt|wool jumper|oak table|brass lamp|wrap dress|hiking boots|rain coat|silk scarf".split("|")


class WordEncoder:
    """A bag of words as unit vectors."""

    name, dim = "words", 64

    def encode(self, texts: Sequence[str], progress: object = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            for word in text.casefold().split():
                vectors[row, sum(map(ord, word)) % self.dim] += 1
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def write_tables(folder: Path, seed: int = 0, users: str = "U") -> Path:
    """A small shop as CSV files, the same for the same seed."""
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    items = ["item_id,title,category,brand,price,description"]
    for n in range(ITEMS):
        words = f"{draw.choice(QUERIES)} {draw.choice(['olive', 'navy', 'sand', 'grey'])} no {n}"
        kind = words.split()[1]
        items.append(f"I{n:04d},{words},{kind},Brand {n % 9},{draw.randint(5, 200)},{words} made of {draw.random()}")
    events = ["user_id,ts,action,item_id,query,position"]
    for n in range(EVENTS):
        user, query = f"{users}{draw.randrange(USERS)}", draw.choice(QUERIES)
        when = f"2025-{1 + n * 11 // EVENTS:02d}-{1 + n % 28:02d} {n % 24:02d}:{n % 60:02d}:00"
        action = draw.choices(["search", "click", "cart", "purchase"], [2, 6, 1, 1])[0]
        item = "" if action == "search" else f"I{draw.randrange(ITEMS):04d}"
        events.append(f"{user},{when},{action},{item},{query},{'' if action == 'search' else 1 + n % 9}")
    (folder / "items.csv").write_text("\n".join(items) + "\n")
    (folder / "events.csv").write_text("\n".join(events) + "\n")
    return folder


def answer(folder: Path, user: str = "U7", kept: bool = False) -> dict[str, Any]:
    """Ten products for a user of the store in the folder, with a checkpoint file beside it; `kept`: what is built of it
    is kept as that of a large catalogue is."""
    if kept:
        retrieve.KEPT_FROM = 1
    settings = replace(Settings(), store=str(folder / "shop.duckdb"), llm="none")
    checkpoint = str(folder / "runs.sqlite")
    with Recommender(Store.open(settings.store), settings, WordEncoder(), None, checkpoint=checkpoint) as recommender:
        found = recommender.recommend(user, "wool jumper")
    return {"items": [line.item.item_id for line in found.items], "degraded": list(found.degraded)}


def in_a_process(work: Callable[[], Any]) -> dict[str, Any]:
    """What `work` gave, raised or died of, in a forked process: no library here has started a thread before it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            told = {"result": work()}
        except RecgraphError as error:
            told = {"sentence": str(error)}
        except BaseException as error:  # noqa: BLE001 - a traceback is what is counted
            told = {"traceback": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        os.write(write, json.dumps(told).encode()[:60_000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"traceback": f"died of signal {os.WTERMSIG(status)}"}


def machine() -> dict[str, str]:
    """Where, when and with what a table was made."""
    model = next(
        (text.split(":")[1].strip() for text in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in text),
        platform.machine(),
    )
    return {
        "date": f"{date.today()}",
        "machine": f"{os.cpu_count()} cores ({model}), {platform.system()}",
        "python": platform.python_version(),
        "duckdb": duckdb.__version__,
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
    }


# ── Faults ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def flipped(name: str) -> Fault:
    def fault(folder: Path, draw: random.Random) -> None:
        file = folder / name
        data = bytearray(file.read_bytes())
        for _ in range(draw.choice([1, 1, 8, 64])):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        file.write_bytes(data)

    return fault


def cut(name: str) -> Fault:
    def fault(folder: Path, draw: random.Random) -> None:
        os.truncate(folder / name, draw.randrange((folder / name).stat().st_size))

    return fault


def zeros(name: str) -> Fault:
    def fault(folder: Path, draw: random.Random) -> None:
        size = (folder / name).stat().st_size
        with (folder / name).open("r+b") as file:
            file.seek(draw.randrange(size))
            file.write(bytes(4096))

    return fault


def text(name: str) -> Fault:
    return lambda folder, _: (folder / name).write_text("no database\n" * 900) and None


def directory(name: str) -> Fault:
    def fault(folder: Path, _: random.Random) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return fault


def strange_log(name: str) -> Fault:
    """A .wal of another file, which is what a restored backup or a deleted store leaves."""

    def fault(folder: Path, _: random.Random) -> None:
        other = folder / "other.duckdb"
        code = f"import duckdb, os; c = duckdb.connect({str(other)!r}); c.execute('SET checkpoint_threshold=\\'1TB\\'')"
        code += "; c.execute('CREATE TABLE t AS SELECT range FROM range(9)'); os._exit(0)"
        os.system(f'{sys.executable} -c "{code}"')
        other.with_name(other.name + ".wal").replace(folder / (name + ".wal"))
        other.unlink()

    return fault


def in_index(damage: Callable[[str], Fault]) -> Fault:
    """In one of the files of what is kept of a large catalogue beside its store."""

    def fault(folder: Path, draw: random.Random) -> None:
        entries = sorted((folder / "shop.duckdb.index").rglob("*"))
        files = [file for file in entries if file.is_file() and file.stat().st_size]
        damage(str(draw.choice(files).relative_to(folder)))(folder, draw)

    return fault


def written_by_newer(folder: Path, _: random.Random) -> None:
    with Store.open(folder / "shop.duckdb", write=True) as store:
        store.set_meta("schema_version", "99")


def newer_file(folder: Path, _: random.Random) -> None:
    with (folder / "shop.duckdb").open("r+b") as file:  # the storage version stands after the magic bytes
        file.seek(12)
        file.write((250).to_bytes(8, "little"))


def read_only_file(folder: Path, _: random.Random) -> None:
    (folder / "shop.duckdb").chmod(0o444)
    os.chown(folder / "shop.duckdb", 0, 0)


FAULTS: dict[str, tuple[int, Fault]] = {
    "store: flipped bits": (60, flipped("shop.duckdb")),
    "store: cut off": (20, cut("shop.duckdb")),
    "store: 4 kB of zeros": (20, zeros("shop.duckdb")),
    "store: text": (1, text("shop.duckdb")),
    "store: a folder": (1, directory("shop.duckdb")),
    "store: log of another file": (1, strange_log("shop.duckdb")),
    "store: text as log": (1, text("shop.duckdb.wal")),
    "store: newer schema": (1, written_by_newer),
    "store: newer DuckDB": (1, newer_file),
    "run log: flipped bits": (15, flipped("shop.runs.duckdb")),
    "run log: cut off": (10, cut("shop.runs.duckdb")),
    "run log: text": (1, text("shop.runs.duckdb")),
    "run log: a folder": (1, directory("shop.runs.duckdb")),
    "run log: log of another file": (1, strange_log("shop.runs.duckdb")),
    "checkpoints: flipped bits": (15, flipped("runs.sqlite")),
    "checkpoints: cut off": (10, cut("runs.sqlite")),
    "checkpoints: text": (1, text("runs.sqlite")),
    "checkpoints: a folder": (1, directory("runs.sqlite")),
    "index: flipped bits": (60, in_index(flipped)),
    "index: cut off": (10, in_index(cut)),
    "index: 4 kB of zeros": (10, in_index(zeros)),
}


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A tmpfs over the folder with less room than its files need to grow; only root can."""
    kept = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    size = sum(map(len, kept.values())) + 40_000
    if os.system(f"mount -t tmpfs -o size={size} tmpfs {folder}"):
        raise SystemExit("only root can mount a small disk")
    try:
        for name, data in kept.items():
            (folder / name).write_bytes(data)
        yield
    finally:
        os.system(f"umount {folder}")


def limited_files(folder: Path) -> None:
    """No file may grow: what a quota does."""
    most = max(file.stat().st_size for file in folder.iterdir() if file.is_file())
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def as_nobody(work: Callable[[], Any]) -> Callable[[], Any]:
    """Root may write everything; nobody may not."""

    def run() -> Any:
        if os.geteuid() == 0:
            os.seteuid(65534)
        return work()

    return run


def verdict(told: dict[str, Any], right: Sequence[str]) -> str:
    if "traceback" in told:
        return "traceback"
    if "sentence" in told:
        return "sentence"
    return "answer" if told["result"]["items"] == list(right) else "other answer"


def mended(folder: Path) -> dict[str, Any]:
    """The answer after `recgraph doctor --deep --mend`."""
    from recgraph.store.care.health import examine

    for finding in examine(folder / "shop.duckdb", [folder / "runs.sqlite"]):
        if finding.mend is not None:
            with suppress(RecgraphError, OSError):  # then it says what to do instead
                finding.mend()
    return answer(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="faults whose name holds this")
    parser.add_argument("--mend", action="store_true", help="ask again after the doctor has mended what it can")
    parser.add_argument("--show", action="store_true", help="print each message once")
    parser.add_argument("--json", type=Path, help="write the table there too")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recgraph-damage-") as scratch:
        sound = Path(scratch) / "sound"
        in_a_process(lambda: ingest(sound / "shop.duckdb", "tables", [write_tables(Path(scratch) / "tables")]) and None)
        for _ in range(3):  # summaries, runs and checkpoints to be damaged
            first = in_a_process(lambda: answer(sound))
        right = first["result"]["items"]
        kept = Path(scratch) / "kept"
        shutil.copytree(sound, kept)
        in_a_process(lambda: answer(kept, kept=True))
        totals: dict[str, Counter[str]] = {}
        for name, (times, fault) in FAULTS.items():
            if chosen.only not in name:
                continue
            counts, after, messages = Counter[str](), Counter[str](), Counter[str]()
            for number in range(times):
                folder = Path(scratch) / "case"
                large = name.startswith("index")
                shutil.copytree(kept if large else sound, folder)
                draw = random.Random(f"{chosen.seed} {name} {number}")
                in_a_process(lambda: fault(folder, draw))  # noqa: B023
                told = in_a_process(lambda: answer(folder, kept=large))  # noqa: B023
                counts[verdict(told, right)] += 1
                notes = told.get("result", {}).get("degraded") or [told.get("sentence") or told.get("traceback") or ""]
                messages.update(note.replace(str(folder), "")[:230] for note in notes)
                if chosen.mend:
                    after[verdict(in_a_process(lambda: mended(folder)), right)] += 1  # noqa: B023
                shutil.rmtree(folder)
            totals[name] = counts
            print(f"{name:32} {times:3}  {dict(counts)}  {f'mended: {dict(after)}' if chosen.mend else ''}", flush=True)
            if chosen.show:
                for message, count in messages.most_common(12):
                    print(f"      {count:3} {message}")
        if chosen.json:
            chosen.json.write_text(json.dumps({**machine(), "faults": totals}, indent=1) + "\n")


if __name__ == "__main__":
    main()
