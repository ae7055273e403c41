"""Raw logs into a store: the known formats and `ingest`, which reads one of them, all or nothing.

What the files mean is in tables, amazon and research; how rows are checked in staging; how they are written in merge. Reading happens in a
database beside the store (side), so readers are served meanwhile and a killed ingest leaves the store as it was.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from recgraph.errors import IngestError, StoreBusy, StoreError
from recgraph.store.db import Store
from recgraph.store.ingest.amazon import AMAZON, M2
from recgraph.store.ingest.merge import Merged, merge
from recgraph.store.ingest.report import IngestReport, count_rejects
from recgraph.store.ingest.research import MIND, OPEN_ECOMMERCE, SEQUENCES, UCI_ESHOP
from recgraph.store.ingest.side import WAIT, attached, side_database, side_folder
from recgraph.store.ingest.staging import Format, SourceFile, Staging
from recgraph.store.ingest.tables import RECBOLE, TABLES, check_mapping

FORMATS: dict[str, Format] = {form.name: form for form in (TABLES, SEQUENCES, *AMAZON, M2, MIND, RECBOLE, OPEN_ECOMMERCE, UCI_ESHOP)}


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
    *,
    complete: bool = False,
    wait: float = WAIT,
) -> IngestReport:
    """Reads files or folders of a format into the store, which is made where missing. The same files again change nothing.

    `mapping` renames columns of `tables` (store/ingest/tables.py) and says how values are read (store/ingest/values.py); `progress` is told what
    is being done; `complete` says that the items are the whole catalogue, so that what they lack is off sale; `wait` is how many seconds to wait
    for another ingest and for those who read the store. Raises IngestError where nothing could be read, StoreBusy where another process uses
    the store; then the store is as it was.
    """
    started = time.monotonic()
    if format not in FORMATS:
        raise IngestError(f"'{format}' is no known format. Known: {', '.join(FORMATS)}.")
    check_mapping(mapping or {})
    if any(":" not in name for name in mapping or {}) and format != "tables":
        raise IngestError(f"A mapping is for the format tables only; {format} has columns of its own.")
    form = FORMATS[format]
    files = find_files(form, [paths] if isinstance(paths, str | Path) else paths)
    if not files:
        raise IngestError(f"No files were given for the format {format}: expected {form.about}.")
    place = Path(store_path).expanduser().absolute()
    _check_store(place)
    with side_folder(place, wait, progress) as folder:
        with side_database(folder) as side:
            staging = Staging(side, folder, dict(mapping or {}), progress)
            form.read(staging, files)
            counts = staging.counts()
            lost, rejected = count_rejects(side)
            if counts["rejects"] == sum(counts.values()):
                raise IngestError(_nothing(staging, counts["rejects"], files))
            if complete and not counts["items"]:
                raise IngestError("A complete feed was promised, but the files list no product, so all would be off sale. Leave --complete out.")
            staging.settle()
        merged = _merge(place, folder, form, files, progress, wait, complete)
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
    )


def _check_store(place: Path) -> None:
    """Says before the files are read what cannot be merged into: another file's folder, somebody else's database, a newer schema."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"The folder {place.parent} for the store cannot be made: {error.strerror}.") from None
    if place.exists():
        with suppress(StoreBusy):  # the merge waits
            Store.open(place).close()


def _merge(
    place: Path, folder: Path, form: Format, files: Sequence[SourceFile], progress: Callable[[str], None], wait: float, complete: bool
) -> Merged:
    """A new store is built in the side folder and gets its place when it is complete, so that a killed first ingest leaves no half store."""
    new = not place.exists()
    target = folder / place.name if new else place
    Store.create(target, patience=wait).close()
    with attached(target, folder, wait) as cursor:
        merged = merge(cursor, form.name, [str(source.path) for source in files], progress, complete)
    if new:
        target.replace(place)
    return merged


def _nothing(staging: Staging, rejects: int, files: Sequence[SourceFile]) -> str:
    row = staging.cursor.execute("SELECT source, line, reason FROM stage_rejects ORDER BY source, line LIMIT 1").fetchone()
    if row is None:
        return f"Nothing could be read: {', '.join(str(source.path) for source in files)} hold no rows."
    return f"Nothing could be read: all {rejects} rows were rejected. The first: {row[0]}, line {row[1]}: {row[2]}."
