"""What `recgraph doctor --deep` looks into: the store, its run log, checkpoints, snapshots, what was built of the store,
and what killed commands left. Every block is read, so that its checksum is checked.

A finding says in a sentence what is so and which command helps; `mend` does it where nothing can be lost by it. What is
damaged is set aside under NAME.damaged, never deleted. How findings are printed is unknown here.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from recgraph.errors import StoreBusy, StoreError
from recgraph.store.care import checkpoints, checksums, leftovers, pending
from recgraph.store.care.erasure import ERASING
from recgraph.store.care.faults import ASIDE, LOG, check_complete, places_aside, set_aside, set_orphaned_log_aside
from recgraph.store.care.rewrite import REWRITING, readable, salvaged
from recgraph.store.connection import CONFIG
from recgraph.store.db import Store
from recgraph.store.forget import erase
from recgraph.store.migrations import TABLES
from recgraph.store.runs import RunLog
from recgraph.store.snapshot import FILES, check, find_snapshots

_NEEDED = ("items", "events")  # without these a store is nothing


@dataclass(frozen=True)
class Finding:
    """`ok`: True is sound, False is broken, None is worth knowing. `command` mends it by hand; `mend` where it can be
    done here, and gives a sentence on what it did. It raises StoreError or OSError."""

    name: str
    ok: bool | None
    found: str
    command: str = ""
    mend: Callable[[], str] | None = None


def examine(path: Path, checkpoint_files: Sequence[Path] = ()) -> Iterator[Finding]:
    """All findings about a store and what lies beside it. Each is looked for when the ones before were mended. Reads
    whole files: 3 GB take about ten seconds."""
    path = path.absolute()
    yield from _store(path)
    yield from _run_log(path)
    for file in dict.fromkeys([*checkpoint_files, *checkpoints.files_beside(path)]):
        yield from _checkpoints(file.absolute())
    for folder in find_snapshots(path.parent):
        yield from _snapshot(folder)
    yield from _index(path)
    for one in leftovers.found(path):
        yield Finding("leftovers", False, f"{one.place} is {one.what}", f"rm -r {one.place}", _swept(one))


def _swept(one: leftovers.Leftover) -> Callable[[], str]:
    def mend() -> str:
        one.sweep()
        return f"{one.place} is gone"

    return mend


# ── The store ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _store(path: Path) -> Iterator[Finding]:
    log = path.with_name(path.name + LOG)
    if not path.exists():
        if log.exists():
            aside = f"mv {log} {log}.orphaned"
            yield Finding("store, log", False, f"{log} is the log of a store that is gone", aside, lambda: _log_aside(path))
        return
    try:
        wrong = {table: why for table, why in readable(path, sorted(TABLES)).items() if why}
    except StoreBusy as error:
        yield Finding("store, blocks", None, f"not looked into: {error}", "close what writes into it, and look again")
        return
    except StoreError as error:
        wrong = {"the file": str(error)}
    missing = [table for table, why in wrong.items() if "does not exist" in why]
    if set(wrong) <= set(missing) and not set(_NEEDED) & set(missing):
        yield Finding("store, blocks", True, f"every block of {path} can be read ({path.stat().st_size / 1e6:.0f} MB)")
        yield from _contents(path)
        return
    told = "; ".join(f"{table}: {why}" for table, why in wrong.items())
    command = f"recgraph doctor --deep --mend --store {path}, which keeps what can be read; else recgraph ingest PATH... --store NEW"
    yield Finding("store, blocks", False, f"{path} is damaged: {told}", command, lambda: _salvage(path))


def _log_aside(path: Path) -> str:
    return f"the log is {set_orphaned_log_aside(path)} now"


def _contents(path: Path) -> Iterator[Finding]:
    try:
        with Store.open(path) as store:
            doubled = store._all("SELECT count(*) - count(DISTINCT (user_id, seq)) FROM events")[0][0]
            erasing = store.meta(ERASING)
    except StoreBusy as error:
        yield Finding("store, contents", None, f"not looked into: {error}")
        return
    except StoreError as error:
        # What only an index holds is not among the rows that were read.
        mend = (lambda: _salvage(path)) if "damaged" in str(error) else None
        yield Finding("store, contents", False, str(error), "", mend)
        return
    if doubled:
        command = "recgraph ingest PATH... --store NEW, from the files it was made of"
        yield Finding("store, contents", False, f"{doubled:,} events of a shopper have the number of another", command)
    if erasing:
        found = f"what was forgotten on {erasing} still stands in freed blocks of the file"
        yield Finding("store, erasure", False, found, f"recgraph doctor --deep --mend --store {path}", lambda: _erased(path))
    waiting = pending.waiting(path)
    if waiting:
        found = f"{len(waiting):,} files of summaries wait in {pending.folder_of(path)} for the next writer"
        yield Finding("store, summaries", None, found, "", lambda: _taken_in(path))


def _erased(path: Path) -> str:
    with Store.open(path) as store:
        erase(store)
    return "the file was written anew"


def _taken_in(path: Path) -> str:
    Store.open(path, write=True).close()
    return "they are in the store now"


def _salvage(path: Path) -> str:
    """A new store of what can be read takes the place of the damaged one, which stays beside it."""
    beside = path.with_name(path.name + REWRITING)
    for one in (beside, beside.with_name(beside.name + LOG)):
        one.unlink(missing_ok=True)
    aside, log_aside = _kept_aside(path)
    try:
        Store.create(beside).close()
        found = _salvaged(path, aside, log_aside, beside)
        check_complete(beside)
        lost = [table for table, rows in found.items() if rows is None]
        if set(lost) & set(_NEEDED):
            raise StoreError(
                f"{', '.join(sorted(set(lost) & set(_NEEDED)))} of {path} cannot be read, so nothing was changed. Make the "
                f"store anew from its files or a snapshot: recgraph ingest PATH... --store NEW"
            )
    except BaseException:
        for one in (aside, log_aside, beside):
            one.unlink(missing_ok=True)
        raise
    path.with_name(path.name + LOG).unlink(missing_ok=True)  # it stands beside the damaged file
    beside.replace(path)
    kept = ", ".join(f"{rows:,} {table}" for table, rows in found.items() if rows)
    return f"kept {kept}{f'; lost {chr(44).join(lost)}' if lost else ''}; the damaged file is {aside}"


def _kept_aside(path: Path) -> tuple[Path, Path]:
    """The store under a second name, and its log; those of an earlier call that was cut off, if there are any."""
    log = path.with_name(path.name + LOG)
    aside = next(place for place in places_aside(path) if not place.exists() or place.samefile(path))
    log_aside = aside.with_name(aside.name + LOG)
    for file, place in ((path, aside), (log, log_aside)):
        if file.exists() and not place.exists():
            try:
                os.link(file, place)
            except OSError:
                shutil.copy(file, place)
    return aside, log_aside


def _salvaged(path: Path, aside: Path, log_aside: Path, beside: Path) -> dict[str, int | None]:
    """With what its log holds, or without where the log is what is damaged."""
    try:
        return salvaged(aside, beside, sorted(TABLES))
    except StoreBusy:
        raise
    except StoreError:
        if log_aside.exists():
            set_aside(log_aside)  # under a name by which it is not read
            return _salvaged(path, aside, log_aside, beside)
        raise StoreError(
            f"{path} cannot even be opened, so nothing of it can be saved. Make the store anew from its files or from "
            f"a snapshot, and it will have the place: mv {path} {path}{ASIDE}; recgraph ingest PATH... --store {path}"
        ) from None


# ── Beside it ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _run_log(path: Path) -> Iterator[Finding]:
    place = RunLog(path).place
    if not place.exists():
        return
    try:
        why = readable(place, ["runs"])["runs"]
    except StoreBusy as error:
        yield Finding("run log", None, f"not looked into: {error}")
        return
    except StoreError as error:
        why = str(error)
    if why and "does not exist" not in why:
        command = f"mv {place} {place}{ASIDE}"
        yield Finding("run log", False, f"{place} is damaged: {why}", command, lambda: _aside(place, LOG))
    else:
        yield Finding("run log", True, f"every block of {place} can be read")


def _aside(file: Path, *with_it: str) -> str:
    for ending in with_it:
        if (beside := file.with_name(file.name + ending)).exists():
            set_aside(beside)
    return f"it is {set_aside(file)} now; a new one is begun when it is needed"


def _checkpoints(file: Path) -> Iterator[Finding]:
    if not file.exists():
        yield Finding("checkpoints", None, f"there is no file {file}")
    elif why := checkpoints.problem(file):
        found = f"{file} is damaged: {why}; runs answer, and cannot be resumed"
        yield Finding("checkpoints", False, found, f"mv {file} {file}{ASIDE}", lambda: _aside(file, "-wal", "-shm"))
    else:
        yield Finding("checkpoints", True, f"{file} is sound")


def _snapshot(folder: Path) -> Iterator[Finding]:
    again = f"recgraph export {folder}"
    try:
        check(folder)  # ends what was cut off
        json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        with duckdb.connect(config=CONFIG) as con:
            for name in FILES[:-1]:
                con.execute("SELECT bit_xor(hash(one)) FROM read_parquet(?) AS one", [str(folder / name)]).fetchall()
    except (StoreError, OSError, ValueError, duckdb.Error) as error:
        yield Finding("snapshot", False, f"{folder} is damaged: {str(error).splitlines()[0]}", again)
        return
    yield Finding("snapshot", True, f"{folder} can be read")
    for half in sorted(folder.glob("*.new")):
        one = leftovers.Leftover(half, "of an export that was cut off")
        yield Finding("leftovers", False, f"{half} is {one.what}", f"rm {half}", _swept(one))


def _index(path: Path) -> Iterator[Finding]:
    """What is damaged there is made again by whoever needs it."""
    folders = [folder for folder in sorted(leftovers.index_of(path).glob("*/*")) if folder.is_dir() and folder.name[0] != "."]
    damaged = 0
    for folder in folders:
        if why := checksums.problem(folder, deep=True):
            damaged += 1
            one = leftovers.Leftover(folder, "")
            yield Finding("index", False, f"{folder} is damaged: {why}", f"rm -r {folder}", _swept(one))
    if folders and not damaged:
        yield Finding("index", True, f"every block of {len(folders)} parts in {leftovers.index_of(path)} is as it was written")
