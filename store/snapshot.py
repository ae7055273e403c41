"""Snapshots: a store as a folder of sorted Parquet files with the same bytes for the same content, and back into a store.

    items.parquet  events.parquet  exposures.parquet  meta.json

All four are written beside their places and then take them together: what was cut off before that changes nothing, and
what was cut off while they did is ended by whoever reads the folder next.

A folder may be a path of fsspec (`s3://bucket/shop`, store/files/objects.py): what is written is made here and sent, what is read is brought
here.

A rebuilt DuckDB file differs in its bytes though its content is equal, so training stages exchange these folders instead. A snapshot may
leave out what happened from a moment on, for everybody or for single users: then what is fitted on it cannot know more. The schema stays
`store/schema.sql`; rejects, schema version and the dates of migrations are no part of it, nor are summaries and embeddings, which are
made from it. Command: `recgraph export FOLDER`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt

from recgraph.errors import StoreError
from recgraph.store.care.faults import translated
from recgraph.store.connection import Terms
from recgraph.store.db import END_OF_TIME, Store
from recgraph.store.files.objects import fetched, fetched_file, is_far, local, sent, shown
from recgraph.store.migrations import CATALOGUE_GIVEN
from recgraph.store.parquet import OPTIONS, quoted, read_table, write_table
from recgraph.store.records import Summary

TABLES = ("items", "events", "exposures")
FILES = (*(f"{table}.parquet" for table in TABLES), "meta.json")
_NEW, _MARK = ".new", "replacing.new"  # after the names of files that wait for their places; there while they take them
# and migration_*: what the file is, and what was made from the content and published with it
_NOT_CONTENT = (
    *("catalogue", "schema_version", "events_sorted", "erasing", "adapter", "core", "embedder", "fusion", "published", "ranking"),
    *("summarizer", "textformer"),
)


def write(
    store: Store, folder: str | Path, before: datetime | None = None, until: Mapping[str, datetime] | None = None, label: str = ""
) -> dict[str, int]:
    """Writes a snapshot and returns the rows of each table; what was in the files before is replaced.

    Only events and exposures strictly before `before` are in it, and of a user in `until` only events strictly before theirs; an exposure
    that a search left out that way showed is left out too. All items are always in it. A cut snapshot gets a revision of its own, made
    with `label`.
    """
    if is_far(folder):
        with sent(str(folder), FILES) as here:
            return write(store, here, before, until, label)
    place = local(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        _end_replacing(place)
        # One thread: several may cut row groups differently from run to run.
        with store._database.opened_for(Terms(place, {"threads": 1})), store._database.reading(fresh=True) as cursor:
            _register(cursor, until or {})
            selects = _SELECT | ({} if _unlisted(cursor) else {"items": "SELECT * EXCLUDE (listed) FROM items ORDER BY item_id"})
            rows = {table: _copy(cursor, selects[table], place / f"{table}.parquet{_NEW}", before or END_OF_TIME) for table in TABLES}
            facts = dict(cursor.execute("SELECT key, value FROM meta ORDER BY key").fetchall())
        facts = {key: value for key, value in facts.items() if key not in _NOT_CONTENT and not key.startswith("migration_")}
        if before is not None or until:
            identity = f"{facts.get('revision')}|{label}|{before}|{sorted((until or {}).items())}"
            facts["revision"] = hashlib.sha256(identity.encode()).hexdigest()[:12]
        text = json.dumps(facts, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
        (place / f"meta.json{_NEW}").write_text(text, encoding="utf-8")
        _replace(place)
    except OSError as error:
        raise StoreError(f"The snapshot {place} cannot be written ({error}). What was there before is still there.") from None
    except BaseException:
        for name in FILES:
            (place / f"{name}{_NEW}").unlink(missing_ok=True)
        raise
    return rows


def _replace(place: Path) -> None:
    """All files or none take their places: once the mark is there, the rest is done by `_end_replacing`, now or later."""
    for name in FILES:
        with (place / f"{name}{_NEW}").open("rb") as file:
            os.fsync(file.fileno())
    (place / _MARK).touch()
    _end_replacing(place)


def _end_replacing(place: Path) -> None:
    """Ends what was cut off; without the mark nothing took its place yet, and what lies there is overwritten."""
    if not (place / _MARK).exists():
        return
    for name in FILES:
        with suppress(FileNotFoundError):  # has its place already
            (place / f"{name}{_NEW}").replace(place / name)
    (place / _MARK).unlink(missing_ok=True)


_SELECT = {
    "items": "SELECT * FROM items ORDER BY item_id",
    "events": """SELECT e.* FROM events e LEFT JOIN until USING (user_id)
        WHERE e.ts < $before AND (until.moment IS NULL OR e.ts < until.moment) ORDER BY user_id, seq""",
    "exposures": """SELECT x.* FROM exposures x
        ANTI JOIN (SELECT e.ts, e.query FROM events e JOIN until USING (user_id) WHERE e.action = 'search' AND e.ts >= until.moment) later
            ON later.ts = x.ts AND later.query = x.query
        WHERE x.ts < $before ORDER BY query_key, ts, position, item_id, query""",
}


def _unlisted(cursor: duckdb.DuckDBPyConnection) -> bool:
    """Whether some item is not listed. Where all are, the column is left out, so that a snapshot has the bytes it had before there was one."""
    return cursor.execute("SELECT 1 FROM items WHERE NOT listed LIMIT 1").fetchone() is not None


def _register(cursor: duckdb.DuckDBPyConnection, until: Mapping[str, datetime]) -> None:
    cursor.execute("CREATE OR REPLACE TEMP TABLE until (user_id VARCHAR, moment TIMESTAMP)")
    if until:
        users: npt.NDArray[np.object_] = np.array(list(until), dtype=object)
        columns: dict[str, npt.NDArray[np.generic] | npt.NDArray[np.object_]] = {
            "user_id": users,
            "moment": np.array(list(until.values()), "datetime64[us]"),
        }
        cursor.register("given_until", columns)
        cursor.execute("INSERT INTO until SELECT user_id, moment FROM given_until")
        cursor.unregister("given_until")


def _copy(cursor: duckdb.DuckDBPyConnection, select: str, file: Path, before: datetime) -> int:
    cursor.execute(f"COPY ({select}) TO {quoted(file.absolute())} {OPTIONS}", {"before": before} if "$before" in select else {})
    row = cursor.execute("SELECT count(*) FROM read_parquet(?)", [str(file.absolute())]).fetchone()
    assert row is not None
    return int(row[0])


def check(folder: str | Path) -> Path:
    """The folder on this machine, if it holds a snapshot. Raises StoreError otherwise, naming what is missing."""
    place = local(folder)
    try:
        _end_replacing(place)
    except OSError as error:
        raise StoreError(f"The snapshot {place} was cut off while it was written, and cannot be completed ({error}). Export it again.") from None
    missing = [name for name in FILES if not (place / name).is_file()]
    if missing:
        what = "There is no snapshot folder" if not place.is_dir() else f"No snapshot ({', '.join(missing)} missing) is in"
        raise StoreError(f"{what} {place}. Make one from a store with: recgraph export {place} --store FILE")
    return place


def find_snapshots(root: Path) -> list[Path]:
    """The folders of snapshots in a folder and four levels below it."""
    return sorted(file.parent for depth in range(5) for file in root.glob("*/" * depth + "events.parquet"))


def meta(folder: str | Path) -> dict[str, str]:
    """The facts of a snapshot (`revision`, `name`, `simulated`, ...)."""
    if is_far(folder):
        with fetched(str(folder), ["meta.json"]) as here:
            return _facts(here / "meta.json", folder)
    return _facts(check(folder) / "meta.json", folder)


def _facts(file: Path, folder: str | Path) -> dict[str, str]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{shown(folder)}/{file.name} is damaged ({error}). Make the snapshot again: recgraph export {shown(folder)}") from None


def load(folder: str | Path, path: str | Path) -> Store:
    """Builds a store at `path`, which must not exist, from a snapshot and returns it open for writing. Raises StoreError."""
    if is_far(folder):
        with fetched(str(folder), FILES) as here:
            return load(here, path)
    place, target = check(folder), Path(path)
    if target.exists():
        raise StoreError(f"{target} exists already; a snapshot is loaded into a new file.")
    before = _identity(place)
    store = Store.create(target)
    try:
        facts = meta(place)
        with store._database.opened_for(Terms(place)), store._database.writing() as cursor:
            for table in TABLES:
                file = place / f"{table}.parquet"
                with translated(file):
                    cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM read_parquet(?)", [str(file.absolute())])  # noqa: S608 - constants
            facts["events_sorted"] = str(store._all("SELECT count(*) FROM events")[0][0])
            cursor.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(facts.items()))
            cursor.execute(CATALOGUE_GIVEN)
        if _identity(place) != before:
            raise StoreError(f"The snapshot {place} was replaced while it was read. Try again.")
    except BaseException:
        store.close()
        raise
    return store


def _identity(place: Path) -> list[tuple[int, int]]:
    """Which files lie in the folder just now: two snapshots are never mixed."""
    return [((place / name).stat().st_ino, (place / name).stat().st_mtime_ns) for name in FILES]


@contextmanager
def open_folder(folder: str | Path) -> Iterator[Store]:
    """A snapshot as a store in a temporary file, gone after the block."""
    with tempfile.TemporaryDirectory(prefix="recgraph-snapshot-") as scratch, load(folder, Path(scratch) / "snapshot.duckdb") as store:
        yield store


@contextmanager
def open_source(source: str | Path) -> Iterator[Store]:
    """A snapshot folder or a DuckDB store, read only. StoreError where there is neither."""
    if is_far(source) or local(source).is_dir():
        with open_folder(source) as store:
            yield store
    else:
        with Store.open(local(source)) as store:
            yield store


def write_summaries(file: str | Path, summaries: Sequence[Summary]) -> None:
    """All summaries sorted by (user, paradigm, level, block, hash). When they were made is left out: it would differ each time."""
    ordered = sorted(summaries, key=lambda s: (s.user_id, s.paradigm, s.level, s.block, s.upto_seq, s.input_hash))
    write_table(
        file,
        {
            "input_hash": [s.input_hash for s in ordered],
            "user_id": [s.user_id for s in ordered],
            "paradigm": [s.paradigm for s in ordered],
            "level": np.array([s.level for s in ordered], np.int32),
            "block": np.array([s.block for s in ordered], np.int32),
            "upto_seq": np.array([s.upto_seq for s in ordered], np.int32),
            "sentences": [json.dumps(s.sentences, ensure_ascii=False) for s in ordered],
            "event_seqs": [list(s.event_seqs) for s in ordered],
            "model": [s.model for s in ordered],
            "prompt_version": [s.prompt_version for s in ordered],
        },
    )


def load_summaries(store: Store, file: str | Path) -> None:
    """Puts what `write_summaries` wrote into a store, as `Store.save_summaries` would, but at once: 20,000 one by one take a minute."""
    if is_far(file):
        with fetched_file(str(file)) as here:
            load_summaries(store, here)
        return
    place = local(file)
    if not place.is_file():
        raise StoreError(f"There is no file {file}.")
    texts = "list_transform(json_extract(sentences, '$[*][0]'), one -> json_extract_string(one, '$'))"
    with store._database.opened_for(Terms(place.parent)), store._database.writing() as cursor:
        cursor.execute(
            f"""INSERT INTO summaries SELECT input_hash, user_id, paradigm, level, block, upto_seq, array_to_string({texts}, ' '), sentences,
                    event_seqs, model, prompt_version, ?::TIMESTAMP FROM read_parquet(?) ON CONFLICT DO NOTHING""",  # noqa: S608 - a constant
            [datetime.now(UTC).replace(tzinfo=None), str(place.absolute())],
        )


def read_summaries(file: str | Path) -> list[Summary]:
    """What `write_summaries` wrote, in its order. StoreError where there is no such file."""
    columns = read_table(file)
    sentences = [tuple((str(text), tuple(int(seq) for seq in seqs)) for text, seqs in json.loads(row)) for row in columns["sentences"]]
    numbers = (columns[name].tolist() for name in ("level", "block", "upto_seq"))
    names = (columns[name] for name in ("input_hash", "user_id", "paradigm"))
    seqs = [tuple(row) for row in columns["event_seqs"]]
    return [Summary(*row) for row in zip(*names, *numbers, sentences, seqs, columns["model"], columns["prompt_version"], strict=True)]
