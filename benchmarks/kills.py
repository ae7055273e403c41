"""kill -9 at random moments of every command that writes. The table of kills in docs/hardening.md comes from here.

Each command runs in a process of its own over a copy of a small shop and is killed somewhere between its beginning and
its end; Python and the packages are loaded before it. After each kill:

- the store opens, and what was acknowledged before the kill is there;
- nothing is mixed: of each part (the content, the run log, the checkpoints, a snapshot) there is all of the old state or
  all of the new one; summaries and vectors, which a command keeps as it makes them, are those of before and some of the
  new ones;
- the command, run again, ends, and gives the state that it gives undisturbed;
- then nothing lies about, after the sweep of `recgraph doctor --deep --mend` at the latest. What can be younger than the
  sweep dares to take is aged by two hours first.

    python benchmarks/kills.py [--kills 200] [--seed 0] [--only NAME] [--json FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

sys.path.insert(0, str(Path(__file__).resolve().parent))
from damage import USERS, WordEncoder, in_a_process, machine, write_tables

from recgraph import cli
from recgraph.errors import RecgraphError
from recgraph.graph.recommender import Recommender
from recgraph.settings import Settings
from recgraph.store import migrations, snapshot
from recgraph.store.care.health import examine
from recgraph.store.connection import CONFIG
from recgraph.store.db import Store
from recgraph.store.records import Event, Summary
from recgraph.train import publish

Tell = Callable[[object], None]  # acknowledges something: who hears it may count on it
CONTENT = ("items", "events", "exposures", "returned", "rejects", "event_ids", "changes", "meta")
ATOMIC = ("content", "checkpoints", "snapshot")
_NOT_TIMES = ("erasing", "events_sorted")  # of meta: how far a command is, not what it does


@dataclass(frozen=True)
class Command:
    """`act` does it in a folder; `base` is the folder it begins with; `grows` are the parts of which it keeps some
    before the others, `missing` says what was acknowledged and is not in a state."""

    act: Callable[[Path, Tell], object]
    base: str = "shop"
    grows: tuple[str, ...] = ()
    again: Callable[[Path, Tell], object] | None = None  # where running it again is another call
    missing: Callable[[Mapping[str, Any], Sequence[Any]], str] = lambda state, told: ""
    share: float = 1.0  # of the kills


# ── What a folder holds ───────────────────────────────────────────────────────────────────────────────────────────────


def state(folder: Path) -> dict[str, Any]:
    """Opens everything and reads it."""
    store = folder / "shop.duckdb"
    found: dict[str, Any] = {"store": store.exists(), "snapshot": _snapshot(folder / "backup")}
    if store.exists():
        try:
            Store.open(store).close()
        except RecgraphError as error:
            found["closed"] = str(error)
        found["content"] = _content(store)
        found["summaries"] = _rows(store, "SELECT input_hash FROM summaries") + _waiting(store)
        found["vectors"] = _rows(store, "SELECT kind || key || model || hash(vector) FROM embeddings")
        found["events"] = _rows(store, "SELECT event_id FROM event_ids")
    runs = folder / "shop.runs.duckdb"
    found["runs"] = _rows(runs, "SELECT user_id || md5(record->>'query') FROM runs") if runs.exists() else []
    found["checkpoints"] = _threads(folder / "runs.sqlite")
    return found


def _rows(path: Path, select: str) -> list[str]:
    with duckdb.connect(str(path), read_only=True, config=CONFIG) as con:
        if "runs" in select and not con.execute("SELECT 1 FROM information_schema.tables WHERE table_name = 'runs'").fetchone():
            return []
        return sorted(str(value) for (value,) in con.execute(select).fetchall())


def _content(path: Path) -> dict[str, str]:
    """A hash of each table; times at which something was done are left out."""
    found = {}
    with duckdb.connect(str(path), read_only=True, config=CONFIG) as con:
        tables = {name for (name,) in con.execute("SELECT table_name FROM information_schema.tables").fetchall()}
        for table in sorted(tables & set(CONTENT)):
            rows = con.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - constants
            if table == "meta":
                rows = [row for row in rows if row[0] not in _NOT_TIMES and not str(row[0]).startswith("migration_")]
            if table == "rejects":
                rows = [(Path(row[0]).name, *row[1:]) for row in rows]
            lines = sorted(str(row).replace(str(path.parent), "") for row in rows)
            found[table] = f"{len(rows)} {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:12]}"
    return found


def _waiting(store: Path) -> list[str]:
    folder = store.with_name(store.name + ".pending")
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    return [json.loads(line)[0] for file in files for line in file.read_text().splitlines()]


def _threads(file: Path) -> list[str]:
    if not file.exists():
        return []
    with closing(sqlite3.connect(file)) as con:
        return sorted(name for (name,) in con.execute("SELECT DISTINCT thread_id FROM checkpoints"))


def _snapshot(folder: Path) -> str:
    if not folder.exists() or not any(folder.iterdir()):
        return "none"
    try:
        snapshot.check(folder)  # what was cut off while the files took their places is ended by whoever reads it
    except RecgraphError:
        half = [name for name in snapshot.FILES if (folder / name).exists()]
        return f"half: {half}" if half else "none"
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in snapshot.FILES)).hexdigest()[:12]


# ── Commands ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def line(*words: str) -> Callable[[Path, Tell], object]:
    """A command line; FOLDER in it stands for the folder. An exit code that says no more than "nothing was known" counts
    as done: what was killed may have done it."""

    def act(folder: Path, _: Tell) -> None:
        arguments = [word.replace("FOLDER", str(folder)) for word in words]
        with open(os.devnull, "w") as away, redirect_stdout(away), redirect_stderr(away):
            try:
                cli.main([*arguments, "--store", str(folder / "shop.duckdb")], standalone_mode=False)
            except SystemExit as end:
                if end.code not in (0, 1, None):
                    raise

    return act


def recommender(folder: Path, checkpoint: bool = True) -> Recommender:
    settings = replace(Settings(), store=str(folder / "shop.duckdb"), llm="none")
    place = str(folder / "runs.sqlite") if checkpoint else ""
    return Recommender(Store.open(settings.store), settings, WordEncoder(), None, checkpoint=place)


def build(folder: Path, _: Tell) -> None:
    with recommender(folder, checkpoint=False) as opened:
        opened.warm_up()


def run(folder: Path, tell: Tell) -> None:
    """Answers for shoppers whose summaries are not there yet, each acknowledged with what was there after it."""
    with recommender(folder) as opened:
        for number in range(20, 24):
            opened.recommend(f"U{number}", "oak table")
            rows = opened.store._all("SELECT input_hash FROM summaries WHERE user_id = ?", [f"U{number}"])
            tell([input_hash for (input_hash,) in rows])


def record(folder: Path, tell: Tell) -> None:
    with Store.open(folder / "shop.duckdb", write=True) as store:
        for number in range(20):
            store.record_events([Event("U3", 0, datetime(2026, 1, 1, 0, number), "click", "I0007")], [f"e{number}"])
            tell(f"e{number}")


def upsert(folder: Path, _: Tell) -> None:
    with Store.open(folder / "shop.duckdb", write=True) as store:
        store.upsert_items([{"item_id": f"I{n:04d}", "price": 5.0 + n, "in_stock": n % 3 > 0} for n in range(200)])


def load_snapshot(folder: Path, _: Tell) -> None:
    """Into a store of another name, as who begins on another machine does; then it takes the place."""
    made = folder / "loaded.duckdb"
    made.unlink(missing_ok=True)
    snapshot.load(folder / "backup", made).close()
    made.replace(folder / "shop.duckdb")


def publishing(folder: Path, _: Tell) -> None:
    """The stage with a stand-in for what the other stages made."""

    def fill(store: Store, *_: object) -> dict[str, Any]:
        store.save_summaries([Summary(f"{n:012d}", f"U{n}", "recurrent", 0, 0, 3, (), (1,), "m", "1") for n in range(80)])
        store.set_meta("published", json.dumps({"revision": store.revision(), "split": "x"}))
        return {"adapters": {}}

    publish.fill = fill  # type: ignore[assignment]
    publish.split_folder = lambda *_: folder
    params = {"publish": {"store": "shop.duckdb"}, "data": "none.duckdb", "preset": "default", "split": "global"}
    params["summarize"] = {"block": 5, "merge": 3, "summarizer": "profile", "paradigms": ["recurrent"]}
    publish.run(params, folder, lambda _: None)


def migrate(folder: Path, _: Tell) -> None:
    Store.open(folder / "shop.duckdb").close()


def mend(folder: Path, _: Tell) -> None:
    """`recgraph doctor --deep --mend`, without its look at the machine."""
    for finding in examine(folder / "shop.duckdb", [folder / "runs.sqlite"]):
        if finding.mend is not None:
            with suppress(RecgraphError, OSError):
                finding.mend()


def unheard(state: Mapping[str, Any], told: Sequence[Any]) -> str:
    """Events that were acknowledged and are not in the store, or more than one that was not."""
    lost = set(told) - set(state["events"])
    more = len(state["events"]) - len(told)
    return f"{len(lost)} acknowledged events lost" if lost else f"{more} events more" if more > 1 else ""


def unsummarised(state: Mapping[str, Any], told: Sequence[Any]) -> str:
    lost = {one for some in told for one in some} - set(state["summaries"])
    return f"{len(lost)} summaries of answers that were given are lost" if lost else ""


MORE = "FOLDER/../more"
COMMANDS: dict[str, Command] = {
    "ingest CSV, new store": Command(line("ingest", f"{MORE}/csv"), "empty"),
    "ingest CSV, more rows": Command(line("ingest", f"{MORE}/csv")),
    "ingest CSV, again": Command(line("ingest", "FOLDER/../tables")),
    "ingest CSV, --complete": Command(line("ingest", f"{MORE}/items", "--complete")),
    "ingest JSON lines, more rows": Command(line("ingest", f"{MORE}/jsonl")),
    "ingest Parquet, more rows": Command(line("ingest", f"{MORE}/parquet")),
    "build": Command(build, grows=("vectors",), share=1.5),
    "run": Command(run, grows=("summaries", "runs", "vectors", "checkpoints"), missing=unsummarised, share=2.0),
    "record events": Command(record, grows=("content", "events"), missing=unheard),
    "upsert products": Command(upsert),
    "adapters use": Command(line("adapters", "use", "none")),
    "train publish": Command(publishing, "published"),
    "forget --user": Command(line("forget", "--user", "U7", "--yes"), share=2.0),
    "forget --item": Command(line("forget", "--item", "I0007", "--yes")),
    "prune": Command(line("prune", "--runs-older-than", "0h"), share=1.5),
    "export, new folder": Command(line("export", "FOLDER/backup")),
    "export, over an older one": Command(line("export", "FOLDER/backup"), "exported", share=1.5),
    "snapshot into a store": Command(load_snapshot, "exported"),
    "doctor --deep --mend": Command(mend, "damaged", share=1.5),
    "a store of schema 1": Command(migrate, "schema 1"),
    "a store of schema 2": Command(migrate, "schema 2"),
}


# ── Folders to begin with ─────────────────────────────────────────────────────────────────────────────────────────────


def make_bases(root: Path) -> None:
    write_tables(root / "tables")
    _more_tables(root / "more")
    (root / "empty").mkdir()
    shop = root / "shop"
    shop.mkdir()
    _must(lambda: line("ingest", "FOLDER/../tables")(shop, lambda _: None))
    for user in ("U7", "U8", "U9"):
        _must(lambda: _ask(shop, user))  # noqa: B023
    for name in ("exported", "published", "damaged", "schema 1", "schema 2"):
        shutil.copytree(shop, root / name)
    _must(lambda: line("export", "FOLDER/backup")(root / "exported", lambda _: None))
    _must(lambda: upsert(root / "exported", lambda _: None))
    _must(lambda: snapshot.write(Store.open(shop / "shop.duckdb"), root / "published" / "data" / "prepare" / "all") and None)
    _must(lambda: publishing(_without_store(root / "published"), lambda _: None))
    _must(lambda: _downgrade(root / "schema 2" / "shop.duckdb", 2))
    _must(lambda: _downgrade(root / "schema 1" / "shop.duckdb", 1))
    _must(lambda: _damage(root / "damaged"))


def _must(work: Callable[[], Any]) -> None:
    told = in_a_process(work)
    if "result" not in told:
        raise SystemExit(f"the shop could not be made: {told}")


def _ask(folder: Path, user: str) -> None:
    with recommender(folder) as opened:
        opened.recommend(user, f"wool jumper {user}")


def _without_store(folder: Path) -> Path:
    (folder / "shop.duckdb").unlink()
    return folder


def _more_tables(folder: Path, rows: int = 6_000) -> None:
    """The same new rows in each form, and a feed that lacks products."""
    columns = ("user_id", "ts", "action", "item_id")
    events = [(f"V{n % 500}", f"2025-12-{1 + n % 28:02d} 10:00:00", "click", f"I{n % 330:04d}") for n in range(rows)]
    for form in ("csv", "jsonl", "parquet", "items"):
        (folder / form).mkdir(parents=True)
    text = "\n".join([",".join(columns), *(",".join(row) for row in events), "V1,never,click,I0001"])
    (folder / "csv" / "events.csv").write_text(text + "\n")
    lines = (json.dumps(dict(zip(columns, row, strict=True))) for row in events)
    (folder / "jsonl" / "events.jsonl").write_text("\n".join(lines) + "\n")
    with duckdb.connect(config=CONFIG) as con:
        con.execute(f"CREATE TABLE e ({', '.join(f'{name} VARCHAR' for name in columns)})")
        con.executemany("INSERT INTO e VALUES (?, ?, ?, ?)", events[:2000])
        con.execute(f"COPY e TO '{folder / 'parquet' / 'events.parquet'}' (FORMAT parquet)")
    kept = [f"I{n:04d},Oak table no {n},table,{20 + n}" for n in range(250)]
    (folder / "items" / "items.csv").write_text("\n".join(["item_id,title,category,price", *kept]) + "\n")


def _downgrade(path: Path, version: int) -> None:
    """The store as an older recgraph wrote it."""
    with duckdb.connect(str(path), config=CONFIG) as con:
        con.execute("DROP TABLE changes; DROP TABLE event_ids; DELETE FROM meta WHERE key = 'migration_0003'")
        if version == 1:
            con.execute("DROP VIEW shown; ALTER TABLE items DROP COLUMN listed; DROP TABLE returned")
            con.execute(migrations_view())
            con.execute("DELETE FROM meta WHERE key IN ('migration_0002', 'catalogue')")
        con.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", [str(version)])


def migrations_view() -> str:
    """The view of schema.sql, which stands between a table and its change."""
    text = (Path(migrations.__file__).parent / "schema.sql").read_text(encoding="utf-8")
    return text[text.index("CREATE VIEW shown") :].split(";")[0]


def _damage(folder: Path) -> None:
    """A run log of text, a checkpoint file cut off, and a store of which all but one table can be saved."""
    sound = (folder / "shop.duckdb").read_bytes()
    for seed in range(400):
        data, draw = bytearray(sound), random.Random(seed)
        data[draw.randrange(len(data))] ^= 8
        (folder / "shop.duckdb").write_bytes(data)
        told = in_a_process(lambda: [finding.found for finding in examine(folder / "shop.duckdb") if finding.ok is False])
        if any("embeddings" in one and "items" not in one and "events" not in one for one in told.get("result", ())):
            break
    else:
        raise SystemExit("no seed damages the vectors alone")
    (folder / "shop.runs.duckdb").write_text("no database\n" * 900)
    os.truncate(folder / "runs.sqlite", 5_000)


# ── Kills ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Tally:
    """Of one command: kills that hit it, faults by what they are, and what was left until the sweep."""

    kills: int = 0
    survived: int = 0
    ended: int = 0  # before the signal came: not counted
    faults: Counter[str] = field(default_factory=Counter)
    moments_ms: list[int] = field(default_factory=list)
    length_ms: int = 0


def killed(work: Callable[[Tell], object], folder: Path, after: float) -> tuple[bool, list[Any]]:
    """Runs `work` in a process and kills it after so many seconds; whether the signal came before its end, and what was
    acknowledged until then."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _own_temporary_folder(folder)
        try:
            work(lambda told: os.write(write, json.dumps(told).encode() + b"\n") and None)
        except BaseException as error:  # noqa: BLE001 - told, and counted as a fault
            os.write(write, json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        os._exit(0)
    os.close(write)
    time.sleep(after)
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(read, "rb") as pipe:
        told = [json.loads(text) for text in pipe.read().splitlines() if text.endswith((b"]", b'"', b"}"))]
    return os.WIFSIGNALED(status), told


def _own_temporary_folder(folder: Path) -> None:
    (folder / "tmp").mkdir(exist_ok=True)
    tempfile.tempdir = str(folder / "tmp")


def told_state(folder: Path) -> dict[str, Any]:
    told = in_a_process(lambda: _spilled(state(folder), folder))
    if "result" not in told:
        return {"unreadable": told.get("sentence") or told.get("traceback")}
    found: dict[str, Any] = json.loads(Path(told["result"]).read_text())
    Path(told["result"]).unlink()
    return found


def _spilled(found: dict[str, Any], folder: Path) -> str:
    """Into a file: it is more than a pipe holds."""
    place = folder.with_name(f"{folder.name}.state.json")
    place.write_text(json.dumps(found))
    return str(place)


def done(command: Command, folder: Path) -> str:
    """Runs it to its end; "" or what it said instead."""
    act = command.again or command.act

    def work() -> None:
        _own_temporary_folder(folder)
        act(folder, lambda _: None)

    told = in_a_process(work)
    return "" if "result" in told else str(told.get("sentence") or told.get("traceback"))


def compared(now: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any], grows: Sequence[str]) -> str:
    """What is mixed or lost, "" where all is well."""
    if "unreadable" in now or "closed" in now:
        return f"cannot be opened: {str(now.get('unreadable') or now.get('closed'))[:120]}"
    for part in ("store", "content", "snapshot", "checkpoints", "summaries", "vectors", "runs"):
        old, new, is_now = before.get(part), after.get(part), now.get(part)
        if is_now in (old, new):
            continue
        if part not in grows:
            return f"{part} is neither that of before nor that of after"
        if part == "content" or not isinstance(is_now, list):
            continue
        lost = Counter(old or []) - Counter(is_now)
        strange = Counter(is_now) - Counter(old or []) - Counter(new or [])
        if part == "checkpoints":
            strange = Counter()  # the thread of a request that was cut off, to be resumed
        if lost or strange:
            return f"{part}: {sum(lost.values())} lost, {sum(strange.values())} strange"
    return ""


def names(folder: Path) -> set[str]:
    """What lies in the folder, the logs of databases and what is set aside under any number left out."""
    found = {str(entry.relative_to(folder)) for entry in folder.rglob("*")}
    parts = {name for name in found if not name.startswith(("tmp", "shop.duckdb.index"))}
    left = {name for name in found if name.startswith("tmp/")}
    return {name for name in parts | left if not name.endswith(("-wal", "-shm", ".state.json"))}


def sweep(folder: Path) -> None:
    """What the doctor takes away two hours later."""
    old = time.time() - timedelta(hours=2).total_seconds()
    for entry in folder.rglob("*"):
        os.utime(entry, (old, old))

    def work() -> None:
        _own_temporary_folder(folder)
        mend(folder, lambda _: None)

    in_a_process(work)


def check(command: Command, folder: Path, told: Sequence[Any], before: Mapping[str, Any], after: Mapping[str, Any], whole: set[str]) -> str:
    failed = next((one["failed"] for one in told if isinstance(one, dict) and "failed" in one), "")
    if failed:
        return f"failed by itself: {failed}"
    now = told_state(folder) if command.base != "damaged" else {"unasked": True}
    fault = compared(now, before, after, command.grows) if "unasked" not in now else ""
    if not fault and now.get("store"):
        fault = command.missing(now, told)
    if fault:
        return fault
    if problem := done(command, folder):
        return f"does not run again: {problem[:160]}"
    end = told_state(folder)
    for part in ("store", "content", "snapshot", "summaries", "vectors"):
        if end.get(part) != after.get(part) and part not in ("summaries", "vectors", *command.grows):
            return f"run again it gives another {part}"
    if set(after.get("summaries", ())) - set(end.get("summaries", ())):
        return "run again it gives other summaries"
    sweep(folder)
    left = names(folder) - whole
    return f"left: {sorted(left)[:4]}" if left else ""


def kill(name: str, command: Command, root: Path, wanted: int, draw: random.Random, keep: Path | None) -> Tally:
    tally = Tally()
    case = root / "case"

    def fresh() -> Path:
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(root / command.base, case)
        return case

    before = told_state(fresh()) if command.base not in ("schema 1", "schema 2") else {}
    lengths = []
    for _ in range(3):
        fresh()
        started = time.perf_counter()
        if problem := done(command, case):
            raise SystemExit(f"{name} fails undisturbed: {problem}")
        lengths.append(time.perf_counter() - started)
    after = told_state(case)
    if not before:  # reading it migrates it
        before = after
    sweep(case)
    whole = names(case)
    length = sorted(lengths)[1]
    tally.length_ms = round(length * 1000)
    while tally.kills < wanted and tally.ended < 3 * wanted:
        moment = draw.uniform(0, length)
        hit, told = killed(lambda tell: command.act(case, tell), fresh(), moment)
        if not hit:
            tally.ended += 1
            continue
        tally.kills += 1
        tally.moments_ms.append(round(moment * 1000))
        if fault := check(command, case, told, before, after, whole):
            tally.faults[fault] += 1
            if keep is not None:
                shutil.copytree(case, keep / f"{name} {tally.kills}".replace(" ", "-"), dirs_exist_ok=True)
        else:
            tally.survived += 1
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="commands whose name holds this")
    parser.add_argument("--json", type=Path, help="write the table there too")
    parser.add_argument("--keep", type=Path, help="copy folders with a fault there")
    chosen = parser.parse_args()
    some = {name: command for name, command in COMMANDS.items() if chosen.only in name}
    shares = sum(command.share for command in some.values())
    tallies = {}
    with tempfile.TemporaryDirectory(prefix="recgraph-kills-") as scratch:
        make_bases(Path(scratch))
        for name, command in some.items():
            wanted = -(-round(chosen.kills * command.share * 10) // round(shares * 10))
            draw = random.Random(f"{chosen.seed} {name}")
            tallies[name] = tally = kill(name, command, Path(scratch), wanted, draw, chosen.keep)
            print(f"{name:32} {tally.length_ms:5} ms {tally.kills:4} kills {tally.survived:4} survived  {dict(tally.faults) or ''}", flush=True)
    total = sum(tally.kills for tally in tallies.values())
    survived = sum(tally.survived for tally in tallies.values())
    print(f"{'all':41} {total:4} kills {survived:4} survived")
    if chosen.json:
        rows = [
            {"command": name, "length_ms": t.length_ms, "kills": t.kills, "survived": t.survived, "faults": dict(t.faults)}
            for name, t in tallies.items()
        ]
        chosen.json.write_text(json.dumps({**machine(), "kills": total, "survived": survived, "by command": rows}, indent=1) + "\n")
    if survived < total:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
