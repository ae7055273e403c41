"""Raw logs into a store: the known formats and `ingest`, which reads one of them, all or nothing.

What the files are is in detect, what they mean in tables, amazon, research and exports; how rows are checked in
staging; how they are written in merge. Reading happens in a database beside the store (side), so readers are served
meanwhile and a killed ingest leaves the store as it was.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from recgraph.errors import IngestError, StoreBusy, StoreError
from recgraph.store.care import pending
from recgraph.store.connection import CONFIG
from recgraph.store.db import Store
from recgraph.store.files.plain import SourceFile, members, scratch_folder
from recgraph.store.ingest.amazon import AMAZON, M2
from recgraph.store.ingest.detect import AUTO
from recgraph.store.ingest.merge import Merged, merge
from recgraph.store.ingest.read import Desk
from recgraph.store.ingest.report import IngestReport, count_rejects
from recgraph.store.ingest.research import INSTACART, MIND, OPEN_ECOMMERCE, SEQUENCES, UCI_ESHOP
from recgraph.store.ingest.side import WAIT, attached, copy_to_merge, side_database, side_folder, take_place
from recgraph.store.ingest.staging import Format, Reading, Staging
from recgraph.store.ingest.tables import RECBOLE, TABLES, check_mapping

FORMATS: dict[str, Format] = {
    form.name: form
    for form in (AUTO, TABLES, SEQUENCES, *AMAZON, M2, MIND, RECBOLE, OPEN_ECOMMERCE, UCI_ESHOP, INSTACART)
}
_NO_DATA = frozenset(
    ".md .pdf .png .jpg .jpeg .gif .svg .py .ipynb .html .htm .css .js .yaml .yml .toml .duckdb .wal .lock .sql .sh .log .new".split()
)
MAPPED = ("auto", "tables")  # the formats whose columns a mapping may name
PREVIEWED = 5000  # rows of each file that a preview reads


def find_files(form: Format, paths: Sequence[str | Path]) -> list[SourceFile]:
    """The files of a format among `paths`, in the folders and in the zip archives among them, items first.
    IngestError for a path that is missing or unknown."""
    found: dict[tuple[Path, str], SourceFile] = {}
    for given in paths:
        path = Path(os.path.expanduser(given)).absolute()
        if not path.exists():
            raise IngestError(f"There is no file or folder {path}.")
        sources = [source for source in _sources(form, path) if not source.member or _may_hold(form, source.filename)]
        fitting = [replace(source, kind=kind) for source in sources if (kind := _kind(form, source.filename))]
        if not fitting:
            what = f"The folder {path} holds" if path.is_dir() else f"{path.name} is"
            raise IngestError(f"{what} no file of the format {form.name}: expected {form.about}.")
        for source in fitting:
            found.setdefault((source.path.resolve(), source.member), source)
    order = list(form.kinds)
    return sorted(found.values(), key=lambda source: (order.index(source.kind), source.path, source.member))


def _kind(form: Format, name: str) -> str:
    return next((kind for kind, pattern in form.kinds.items() if re.fullmatch(pattern, name, re.IGNORECASE)), "")


def _sources(form: Format, path: Path) -> list[SourceFile]:
    """What lies in a file or folder: files, and those inside of zip archives."""
    files = [path]
    if path.is_dir():
        files = sorted(entry for entry in path.rglob("*") if entry.is_file() and _may_hold(form, entry.name))
    return [SourceFile("", file, member) for file in files for member in members(file)]


def _may_hold(form: Format, name: str) -> bool:
    """Whether a file found in a folder or archive is looked at: what is no data is not."""
    if form is AUTO:
        no_data = re.match(r"readme|licen[sc]e|changelog|makefile|\.", name, re.IGNORECASE)
        return not no_data and Path(name).suffix.lower() not in _NO_DATA
    return name.lower().endswith(".zip") or bool(_kind(form, SourceFile("", Path(name)).filename))


def ingest(
    store_path: str | Path,
    format: str,
    paths: Sequence[str | Path],
    mapping: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
    *,
    complete: bool = False,
    wait: float = WAIT,
    encoding: str = "",
) -> IngestReport:
    """Reads files or folders of a format into the store, which is made where missing. The same files again change
    nothing.

    The format `auto` finds out what each file is. `mapping` names columns for `auto` and `tables` (tables.py) and
    says how values are read (values.py); `encoding` is that of text files which is not told right; `progress` is
    told what is being done; `complete` says that the items are the whole catalogue, so that what they lack is off
    sale; `wait` is how many seconds to wait for another ingest and for those who read the store. Raises IngestError
    where nothing could be read, StoreBusy where another process uses the store; then the store is as it was.
    """
    started = time.monotonic()
    form, files = _chosen(format, paths, mapping or {})
    place = Path(os.path.expanduser(store_path)).absolute()
    _check_store(place)
    with side_folder(place, wait, progress) as folder:
        with side_database(folder) as side:
            staging = Staging(side, Desk(folder, encoding), dict(mapping or {}), progress)
            form.read(staging, files)
            counts = staging.counts()
            lost, rejected = count_rejects(side)
            if counts["rejects"] == sum(counts.values()):
                raise IngestError(_nothing(staging, counts["rejects"], files))
            if complete and not counts["items"]:
                raise IngestError("A complete feed was promised, but the files list no product, so all would be off sale. Leave --complete out.")
            staging.settle()
        sources = sorted({str(source) for source in files} | staging.sources)
        merged = _merge(place, folder, form, sources, progress, wait, complete)
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
        items_off_sale=merged.items_off_sale,
        rows=staging.rows,
        rows_lost=lost,
        rejected=rejected,
        notes=(*dict.fromkeys(staging.notes), *merged.notes),
        readings=tuple(staging.readings),
    )


def _chosen(format: str, paths: Sequence[str | Path], mapping: Mapping[str, str]) -> tuple[Format, list[SourceFile]]:
    if format not in FORMATS:
        raise IngestError(f"'{format}' is no known format. Known: {', '.join(FORMATS)}.")
    check_mapping(mapping)
    if any(":" not in name for name in mapping) and format not in MAPPED:
        raise IngestError(f"A mapping is for the formats {' and '.join(MAPPED)} only; {format} has columns of its own.")
    form = FORMATS[format]
    files = find_files(form, [paths] if isinstance(paths, str | Path) else paths)
    if not files:
        raise IngestError(f"No files were given for the format {format}: expected {form.about}.")
    return form, files


@dataclass(frozen=True)
class Preview:
    """What an ingest would do with the beginnings of its files. `rows` are (kind, the first rows as they would be
    stored), `rejects` (file, line, reason) of the first rejected rows, of `counts["rejects"]`."""

    readings: tuple[Reading, ...]
    rows: tuple[tuple[str, tuple[dict[str, object], ...]], ...]
    rejects: tuple[tuple[str, int, str], ...]
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()


def preview(
    format: str,
    paths: Sequence[str | Path],
    mapping: Mapping[str, str] | None = None,
    encoding: str = "",
    rows: int = 3,
) -> Preview:
    """Reads the first rows of each file as `ingest` would, and writes nothing. IngestError as `ingest`."""
    form, files = _chosen(format, paths, mapping or {})
    with duckdb.connect(config=CONFIG) as con, scratch_folder() as scratch:
        staging = Staging(con, Desk(Path(scratch), encoding, limit=PREVIEWED), dict(mapping or {}))
        form.read(staging, files)
        found = []
        for kind in ("items", "events", "exposures"):
            result = con.execute(f"SELECT * FROM stage_{kind} LIMIT {rows}")  # noqa: S608 - of our own making
            names = [column[0] for column in result.description or ()]
            found.append((kind, tuple(dict(zip(names, row, strict=True)) for row in result.fetchall())))
        rejects = con.execute(
            "SELECT source, line, reason FROM stage_rejects ORDER BY source, line LIMIT 20"
        ).fetchall()
        return Preview(
            tuple(staging.readings),
            tuple(found),
            tuple((str(s), int(n), str(r)) for s, n, r in rejects),
            staging.counts(),
            tuple(dict.fromkeys(staging.notes)),
        )


def _check_store(place: Path) -> None:
    """Says before the files are read what cannot be merged into: another file's folder, somebody else's database, a
    newer schema."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"The folder {place.parent} for the store cannot be made: {error.strerror}.") from None
    if place.exists():
        with suppress(StoreBusy):  # the merge waits
            Store.open(place).close()


def _merge(
    place: Path, folder: Path, form: Format, sources: list[str], progress: Callable[[str], None], wait: float, complete: bool
) -> Merged:
    """Into a copy in the side folder, or a new store there, which takes its place when it is complete: a killed ingest leaves no half store,
    and readers do not wait."""
    target = copy_to_merge(place, folder, wait) if place.exists() else folder / place.name
    Store.create(target, patience=wait).close()  # an older schema is migrated
    waiting = pending.waiting(place)
    with attached(target, folder, wait) as cursor:
        merged = merge(cursor, form.name, sources, progress, complete)
        pending.insert(cursor, [one for file in waiting for one in pending.read(file)])
    if target != place:
        take_place(target, place)
    pending.remove(place, waiting)
    return merged


def _nothing(staging: Staging, rejects: int, files: Sequence[SourceFile]) -> str:
    row = staging.cursor.execute("SELECT source, line, reason FROM stage_rejects ORDER BY source, line LIMIT 1").fetchone()
    if row is None:
        return f"Nothing could be read: {', '.join(str(source) for source in files)} hold no rows."
    return f"Nothing could be read: all {rejects} rows were rejected. The first: {row[0]}, line {row[1]}: {row[2]}."
