"""kill -9 at random moments of every command that writes. The table of kills in docs/hardening.md comes from here.

Each command runs in a process of its own over a copy of a small shop and is killed somewhere between its beginning and
its end; Python and the packages are loaded before it. After each kill:

- the store opens, and what was acknowledged before the kill is there;
- nothing is mixed: of each part (the content, the run log, the checkpoints, a snapshot) there is all of the old state
  or all of the new one; summaries and vectors, which a command keeps as it makes them, are those of before and some of
  the new ones;
- the command, run again, ends, and gives the state that it gives undisturbed;
- then nothing lies about, after the sweep of `recgraph doctor --deep --mend` at the latest. The sweep leaves what is
  young, so all is aged by two hours first.

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
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb

sys.path.insert(0, str(Path(__file__).resolve().parent))
from damage import in_a_process, machine
from writers import COMMANDS, Command, Tell, make_bases, mend

from recgraph.errors import RecgraphError
from recgraph.store import snapshot
from recgraph.store.connection import CONFIG
from recgraph.store.db import Store

CONTENT = ("items", "events", "exposures", "returned", "rejects", "event_ids", "changes", "meta")
_NOT_TIMES = ("erasing", "events_sorted")  # of meta: how far a command is, not what it does


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
        tables = {name for (name,) in con.execute("SELECT table_name FROM information_schema.tables").fetchall()}
        if select.split(" FROM ")[1] not in tables:
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


# ── Kills ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Tally:
    """Of one command: kills that hit it, faults by what they are, and what was left until the sweep."""

    kills: int = 0
    survived: int = 0
    ended: int = 0  # before the signal came: not counted
    faults: Counter[str] = field(default_factory=Counter)
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
    """What lies in the folder but for the logs of databases, which are part of them."""
    found = {str(entry.relative_to(folder)) for entry in folder.rglob("*")}
    return {name for name in found - {"tmp"} if not name.endswith(("-wal", "-shm", ".wal"))}


def sweep(folder: Path) -> None:
    """What the doctor takes away two hours later."""
    old = time.time() - timedelta(hours=2).total_seconds()
    for entry in folder.rglob("*"):
        os.utime(entry, (old, old))

    def work() -> None:
        _own_temporary_folder(folder)
        mend(folder, lambda _: None)

    in_a_process(work)


@dataclass(frozen=True)
class Undisturbed:
    """What a command begins with, what it ends with, and the names of all files after it."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    names: set[str]


def check(command: Command, folder: Path, told: Sequence[Any], right: Undisturbed) -> str:
    """What is wrong after a kill, "" where nothing is."""
    failed = next((one["failed"] for one in told if isinstance(one, dict) and "failed" in one), "")
    if failed:
        return f"failed by itself: {failed}"
    now = told_state(folder) if command.base != "damaged" else {"unasked": True}
    fault = compared(now, right.before, right.after, command.grows) if "unasked" not in now else ""
    if not fault and now.get("store"):
        fault = command.missing(now, told)
    if fault:
        return fault
    if problem := done(command, folder):
        return f"does not run again: {problem[:160]}"
    files = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    if standing := [word for word in command.absent if any(word.encode() in data for data in files)]:
        return f"run again it leaves {standing[0]} in a file"
    end = told_state(folder)
    for part in ("store", "content", "snapshot", "summaries", "vectors"):
        if end.get(part) != right.after.get(part) and part not in ("summaries", "vectors", *command.grows):
            return f"run again it gives another {part}"
    if set(right.after.get("summaries", ())) - set(end.get("summaries", ())):
        return "run again it gives other summaries"
    sweep(folder)
    left = names(folder) - right.names
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
    right = Undisturbed(before, after, names(case))
    length = sorted(lengths)[1]
    tally.length_ms = round(length * 1000)
    while tally.kills < wanted and tally.ended < 3 * wanted:
        moment = draw.uniform(0, length)
        hit, told = killed(lambda tell: command.act(case, tell), fresh(), moment)
        if not hit:
            tally.ended += 1
            continue
        tally.kills += 1
        if fault := check(command, case, told, right):
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
            counted = f"{tally.kills:4} kills {tally.survived:4} survived  {dict(tally.faults) or ''}"
            print(f"{name:32} {tally.length_ms:5} ms {counted}", flush=True)
    total = sum(tally.kills for tally in tallies.values())
    survived = sum(tally.survived for tally in tallies.values())
    print(f"{'all':41} {total:4} kills {survived:4} survived")
    if chosen.json:
        rows = {name: {**vars(tally), "faults": dict(tally.faults)} for name, tally in tallies.items()}
        told = {**machine(), "kills": total, "survived": survived, "commands": rows}
        chosen.json.write_text(json.dumps(told, indent=1) + "\n")
    if survived < total:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
