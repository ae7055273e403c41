"""Raw logs into a store: the known formats and `ingest`, which reads one of them, all or nothing.

What the files mean is in formats_tables, formats_amazon and formats_research; how rows are checked in staging; how they are written in
merge. Reading happens before the store's transaction begins, so a killed ingest leaves the store as it was.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recgraph.errors import IngestError, StoreBusy, StoreError
from recgraph.store.connection import Database
from recgraph.store.db import Store
from recgraph.store.ingest.amazon import AMAZON, M2
from recgraph.store.ingest.merge import Merged, merge
from recgraph.store.ingest.read import scratch_folder
from recgraph.store.ingest.research import MIND, OPEN_ECOMMERCE, SEQUENCES, UCI_ESHOP
from recgraph.store.ingest.staging import Format, SourceFile, Staging
from recgraph.store.ingest.tables import RECBOLE, TABLES, check_mapping

FORMATS: dict[str, Format] = {form.name: form for form in (TABLES, SEQUENCES, *AMAZON, M2, MIND, RECBOLE, OPEN_ECOMMERCE, UCI_ESHOP)}
# What DuckDB may hold before it writes to disk beside the store; its own bookkeeping and Python come on top.
MEMORY_LIMIT = "4GB"


@dataclass(frozen=True)
class IngestReport:
    """What one ingest did. `users` are those of the files' events; `items_unlisted` of `items_new` are named by events only, so have no
    title; `rejects` are noted in the store with file, line and reason."""

    format: str
    files: int
    users: int
    items_new: int
    events_read: int
    events_new: int
    exposures_new: int
    rejects: int
    seconds: float
    items_changed: int = 0
    items_unlisted: int = 0


def find_files(form: Format, paths: Sequence[str | Path]) -> list[SourceFile]:
    """The files of a format among `paths` and in the folders among them, items first. IngestError for a path that is missing or unknown."""
    found: dict[Path, SourceFile] = {}
    for given in paths:
        path = Path(given).expanduser().absolute()
        if path.is_dir():
            inside = sorted(entry for entry in path.rglob("*") if entry.is_file() and _kind(form, entry))
            if not inside:
                raise IngestError(f"The folder {path} holds no file of the format {form.name}: expected {form.about}.")
            candidates = inside
        elif path.is_file():
            if not _kind(form, path):
                raise IngestError(f"{path.name} is no file of the format {form.name}: expected {form.about}.")
            candidates = [path]
        else:
            raise IngestError(f"There is no file or folder {path}.")
        for file in candidates:
            found.setdefault(file.resolve(), SourceFile(_kind(form, file), file))
    order = list(form.kinds)
    return sorted(found.values(), key=lambda source: (order.index(source.kind), source.path))


def _kind(form: Format, path: Path) -> str:
    return next((kind for kind, pattern in form.kinds.items() if re.fullmatch(pattern, path.name, re.IGNORECASE)), "")


def ingest(
    store_path: str | Path,
    format: str,
    paths: Sequence[str | Path],
    mapping: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> IngestReport:
    """Reads files or folders of a format into the store, which is made where missing. The same files again change nothing.

    `mapping` renames columns of `tables` (see formats_tables); `progress` is told what is being done. Raises IngestError where nothing could
    be read, StoreBusy where another process uses the store; then the store is as it was.
    """
    started = time.monotonic()
    if format not in FORMATS:
        raise IngestError(f"'{format}' is no known format. Known: {', '.join(FORMATS)}.")
    check_mapping(mapping or {})
    if mapping and format != "tables":
        raise IngestError(f"A mapping is for the format tables only; {format} has columns of its own.")
    form = FORMATS[format]
    files = find_files(form, [paths] if isinstance(paths, str | Path) else paths)
    if not files:
        raise IngestError(f"No files were given for the format {format}: expected {form.about}.")
    place = Path(store_path).expanduser()
    if place.exists():
        with Store.create(place) as store:
            merged, counts = _ingest_into(store, form, files, dict(mapping or {}), progress)
    else:
        merged, counts = _ingest_new(place, form, files, dict(mapping or {}), progress)
    return IngestReport(
        format=format,
        files=len(files),
        users=merged.users,
        items_new=merged.items_new,
        events_read=counts["events"],
        events_new=merged.events_new,
        exposures_new=merged.exposures_new,
        rejects=counts["rejects"],
        seconds=time.monotonic() - started,
        items_changed=merged.items_changed,
        items_unlisted=merged.items_unlisted,
    )


def _ingest_new(
    place: Path, form: Format, files: Sequence[SourceFile], mapping: dict[str, str], progress: Callable[[str], None]
) -> tuple[Merged, dict[str, int]]:
    """A new store is built under another name and gets its own when it is complete, so that a killed first ingest leaves no half store."""
    building = place.with_name(place.name + ".new")
    if building.exists():
        # Left behind by a killed ingest, or in use by a running one: then opening it raises StoreBusy.
        try:
            Database.acquire(building, write=True).release(write=True)
        except StoreBusy:
            raise
        except StoreError:
            pass  # half a header; it is taken away below
        _remove(building)
    with Store.create(building) as store:
        try:
            result = _ingest_into(store, form, files, mapping, progress)
        except BaseException:
            _remove(building)
            raise
    building.replace(place)
    return result


def _ingest_into(
    store: Store, form: Format, files: Sequence[SourceFile], mapping: dict[str, str], progress: Callable[[str], None]
) -> tuple[Merged, dict[str, int]]:
    database = Database.acquire(store.path, write=True)
    try:
        with database.reading(fresh=True) as cursor, scratch_folder() as scratch:
            cursor.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
            try:
                staging = Staging(cursor, Path(scratch), mapping, progress)
                form.read(staging, files)
                counts = staging.counts()
                if not counts["items"] + counts["events"] + counts["exposures"]:
                    raise IngestError(_nothing(staging, counts["rejects"], files))
                with database.writing(cursor):
                    return merge(cursor, form.name, [str(source.path) for source in files], progress), counts
            finally:
                cursor.execute("RESET memory_limit")
    finally:
        database.release(write=True)


def _nothing(staging: Staging, rejects: int, files: Sequence[SourceFile]) -> str:
    row = staging.cursor.execute("SELECT source, line, reason FROM stage_rejects ORDER BY source, line LIMIT 1").fetchone()
    if row is None:
        return f"Nothing could be read: {', '.join(str(source.path) for source in files)} hold no rows."
    return f"Nothing could be read: all {rejects} rows were rejected. The first: {row[0]}, line {row[1]}: {row[2]}."


def _remove(building: Path) -> None:
    for leftover in (building, building.with_name(building.name + ".wal")):
        leftover.unlink(missing_ok=True)
