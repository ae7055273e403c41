"""Snapshots: a store as a folder of sorted Parquet files with the same bytes for the same content, and back into a store.

    items.parquet  events.parquet  exposures.parquet  meta.json

A rebuilt DuckDB file differs in its bytes though its content is equal, so training stages exchange these folders instead. A snapshot may
leave out what happened from a moment on, for everybody or for single users: then what is fitted on it cannot know more. The schema stays
`store/schema.sql`; rejects, schema version and the dates of migrations are no part of it, nor are summaries and embeddings, which are
made from it. Command: `recgraph export FOLDER`.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt

from recgraph.errors import StoreError
from recgraph.store.db import END_OF_TIME, Store
from recgraph.store.migrations import CATALOGUE_GIVEN
from recgraph.store.parquet import OPTIONS, quoted, read_table, write_table
from recgraph.store.records import Summary

TABLES = ("items", "events", "exposures")
# and migration_*: what the file is, and what was made from the content and published with it
_NOT_CONTENT = (
    *("catalogue", "schema_version", "events_sorted", "adapter", "core", "embedder", "fusion", "published", "ranking"),
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
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with store._database.reading(fresh=True) as cursor:
        cursor.execute("SET threads = 1")  # several threads may cut row groups differently from run to run
        try:
            _register(cursor, until or {})
            selects = _SELECT | ({} if _unlisted(cursor) else {"items": "SELECT * EXCLUDE (listed) FROM items ORDER BY item_id"})
            rows = {table: _copy(cursor, selects[table], place / f"{table}.parquet", before or END_OF_TIME) for table in TABLES}
        finally:
            cursor.execute("RESET threads")
        facts = dict(cursor.execute("SELECT key, value FROM meta ORDER BY key").fetchall())
    facts = {key: value for key, value in facts.items() if key not in _NOT_CONTENT and not key.startswith("migration_")}
    if before is not None or until:
        identity = f"{facts.get('revision')}|{label}|{before}|{sorted((until or {}).items())}"
        facts["revision"] = hashlib.sha256(identity.encode()).hexdigest()[:12]
    (place / "meta.json").write_text(json.dumps(facts, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return rows


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
    """Writes beside the file and renames, so that a kill leaves no half file."""
    half = file.with_name(file.name + ".new")
    cursor.execute(f"COPY ({select}) TO {quoted(half)} {OPTIONS}", {"before": before} if "$before" in select else {})
    row = cursor.execute("SELECT count(*) FROM read_parquet(?)", [str(half)]).fetchone()
    half.replace(file)
    assert row is not None
    return int(row[0])


def check(folder: str | Path) -> Path:
    """The folder, if it holds a snapshot. Raises StoreError otherwise, naming what is missing."""
    place = Path(folder)
    missing = [name for name in (*(f"{table}.parquet" for table in TABLES), "meta.json") if not (place / name).is_file()]
    if missing:
        what = "There is no snapshot folder" if not place.is_dir() else f"No snapshot ({', '.join(missing)} missing) is in"
        raise StoreError(f"{what} {place}. Make one from a store with: recgraph export {place} --store FILE")
    return place


def meta(folder: str | Path) -> dict[str, str]:
    """The facts of a snapshot (`revision`, `name`, `simulated`, ...)."""
    return dict(json.loads((check(folder) / "meta.json").read_text(encoding="utf-8")))


def load(folder: str | Path, path: str | Path) -> Store:
    """Builds a store at `path`, which must not exist, from a snapshot and returns it open for writing. Raises StoreError."""
    place, target = check(folder), Path(path)
    if target.exists():
        raise StoreError(f"{target} exists already; a snapshot is loaded into a new file.")
    store = Store.create(target)
    try:
        with store._database.writing() as cursor:
            for table in TABLES:
                cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM read_parquet(?)", [str(place / f"{table}.parquet")])  # noqa: S608 - constants
            facts = meta(place) | {"events_sorted": str(store._all("SELECT count(*) FROM events")[0][0])}
            cursor.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(facts.items()))
            cursor.execute(CATALOGUE_GIVEN)
    except BaseException:
        store.close()
        raise
    return store


@contextmanager
def open_folder(folder: str | Path) -> Iterator[Store]:
    """A snapshot as a store in a temporary file, gone after the block."""
    check(folder)
    with tempfile.TemporaryDirectory(prefix="recgraph-snapshot-") as scratch, load(folder, Path(scratch) / "snapshot.duckdb") as store:
        yield store


@contextmanager
def open_source(source: str | Path) -> Iterator[Store]:
    """A snapshot folder or a DuckDB store, read only. StoreError where there is neither."""
    if Path(source).is_dir():
        with open_folder(source) as store:
            yield store
    else:
        with Store.open(source) as store:
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
    if not Path(file).is_file():
        raise StoreError(f"There is no file {file}.")
    texts = "list_transform(json_extract(sentences, '$[*][0]'), one -> json_extract_string(one, '$'))"
    with store._database.writing() as cursor:
        cursor.execute(
            f"""INSERT INTO summaries SELECT input_hash, user_id, paradigm, level, block, upto_seq, array_to_string({texts}, ' '), sentences,
                    event_seqs, model, prompt_version, ?::TIMESTAMP FROM read_parquet(?) ON CONFLICT DO NOTHING""",  # noqa: S608 - a constant
            [datetime.now(UTC).replace(tzinfo=None), str(file)],
        )


def read_summaries(file: str | Path) -> list[Summary]:
    """What `write_summaries` wrote, in its order. StoreError where there is no such file."""
    columns = read_table(file)
    sentences = [tuple((str(text), tuple(int(seq) for seq in seqs)) for text, seqs in json.loads(row)) for row in columns["sentences"]]
    numbers = (columns[name].tolist() for name in ("level", "block", "upto_seq"))
    names = (columns[name] for name in ("input_hash", "user_id", "paradigm"))
    seqs = [tuple(row) for row in columns["event_seqs"]]
    return [Summary(*row) for row in zip(*names, *numbers, sentences, seqs, columns["model"], columns["prompt_version"], strict=True)]
