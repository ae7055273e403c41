"""The `Store`: users, events, items, exposures, summaries and embeddings of one shop, in one DuckDB file.

The only SQL of recgraph stands here and in its neighbours (`formats*`, `staging`, `merge`, `runs`). It hands out records and numpy
arrays, never cursors, and knows neither models nor prompts. Times are naive UTC; event numbers where a set has no clock
(`store/records.py`).
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from recgraph.errors import StoreError, UnknownUser
from recgraph.store import changes
from recgraph.store import vectors as _vectors
from recgraph.store.care import pending
from recgraph.store.care.faults import check_writable
from recgraph.store.changes import Changes
from recgraph.store.columns import (
    GENERAL_REASON,
    Catalogue,
    Reject,
    Rejected,
    Sequences,
    UserRow,
    read_catalogue,
    read_sequences,
)
from recgraph.store.connection import Database, Terms
from recgraph.store.migrations import MIGRATIONS, check_version, migrate, schema_version
from recgraph.store.newest import newest_event
from recgraph.store.records import Event, Item, Summary, as_utc
from recgraph.store.shared.address import is_address
from recgraph.store.shared.remote import SharedDatabase

__all__ = ["END_OF_TIME", "Catalogue", "Changes", "Reject", "Sequences", "Store", "UserRow"]

_AT_ONCE = 100  # item ids in one look-up
END_OF_TIME = datetime(9999, 12, 31, 23, 59, 59)  # ingest rejects later times, so "before this" is everything


def _missing(path: Path) -> StoreError:
    return StoreError(
        f"There is no store at {path}. Make a simulated shop with: recgraph demo --store {path} - or read your own logs with: "
        f"recgraph ingest PATH... --store {path}"
    )


class Store:
    """One open store; any thread may use it. Open it with `Store.open` (reading) or `Store.create`, close it with `close` or `with`."""

    def __init__(self, database: Database, write: bool) -> None:
        self._database = database
        self._write = write
        self._closed = False
        self._revision: tuple[int | None, str] = (None, "")  # as of a generation of the database
        self._changes: tuple[str, str, Changes | None] = ("", "", None)  # the last that were asked for, from and up to a revision
        self.path = database.path

    @property
    def is_shared(self) -> bool:
        """Whether another process owns it: then that one does what is written, each call in a transaction of its own."""
        return isinstance(self._database, SharedDatabase)

    def require_file(self) -> None:
        """Raises StoreError on a shared store, for what needs its file whole and alone."""
        if isinstance(self._database, SharedDatabase):
            self._database.refuse()

    # -- opening and closing ---------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: str | Path, patience: float | None = None) -> Store:
        """Opens for writing; makes the file and the schema where missing, and migrates an older schema. StoreError, -ReadOnly, and -Busy after
        `patience` seconds."""
        place = Path(os.path.expanduser(path))
        if is_address(path):
            return cls._opened(place, True, patience)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"The folder {place.parent} for the store cannot be made: {error.strerror}.") from None
        return cls._opened(place, True, patience)

    @classmethod
    def open(cls, path: str | Path, write: bool = False) -> Store:
        """Opens an existing store, by its file or, as `quack:HOST:PORT`, where it is served (store/shared/). A store of an older schema is migrated (and must be writable for that once)."""
        place = Path(os.path.expanduser(path))
        if not is_address(path) and not place.exists():
            raise _missing(place)
        return cls._opened(place, write)

    @classmethod
    def _opened(cls, place: Path, write: bool, patience: float | None = None) -> Store:
        at = SharedDatabase if is_address(place) else Database
        store = cls(at.acquire(place, write, patience), write)
        try:
            with store._database.reading() as cursor:
                version = schema_version(cursor, place)
            check_version(version, place)
            if version == 0 and not write:
                raise _missing(place)
            if version < len(MIGRATIONS):
                with store._database.opened_for(Terms(changing=True), write=True), store._database.writing() as cursor:
                    migrate(cursor, version)
            if write:
                store.take_waiting()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Gives the file and its lock back. Closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._database.release(self._write)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def writing(self) -> Iterator[Store]:
        """One transaction; all or nothing. A reading store opens the file for writing for the block and goes back. Nesting joins.

        Raises StoreBusy or StoreReadOnly on entering.
        """
        self._check_open()
        with self._database.writing():
            yield self

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"The store {self.path} was closed; open it again with Store.open.")

    def _all(self, sql: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[tuple[Any, ...]]:
        self._check_open()
        with self._database.reading() as cursor:
            return cursor.execute(sql, values).fetchall()

    def _columns(self, sql: str, values: Sequence[object] = ()) -> dict[str, Any]:
        self._check_open()
        with self._database.reading() as cursor:
            return cursor.execute(sql, values).fetchnumpy()

    # -- facts about the store -------------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """How much of everything there is."""
        row = self._all("""
            SELECT count(DISTINCT user_id), (SELECT count(*) FROM items), count(*),
                count(*) FILTER (action = 'search'), count(*) FILTER (action = 'click'),
                count(*) FILTER (action = 'cart'), count(*) FILTER (action = 'purchase'),
                (SELECT count(*) FROM exposures), (SELECT count(DISTINCT query_key) FROM exposures), (SELECT count(*) FROM summaries),
                (SELECT count(*) FROM embeddings), (SELECT count(*) FROM rejects)
            FROM events
        """)[0]
        names = "users items events searches clicks carts purchases exposures queries summaries embeddings rejects".split()
        return {name: int(number) for name, number in zip(names, row, strict=True)}

    def meta(self, key: str) -> str | None:
        """A fact kept with the store, e.g. "simulated"."""
        rows = self._all("SELECT value FROM meta WHERE key = ?", [key])
        return str(rows[0][0]) if rows else None

    def set_meta(self, key: str, value: str) -> None:
        """Keeps a fact with the store."""
        self._database.call(changes.set_meta, key, value)

    def revision(self) -> str:
        """A short id of what was written; it changes when an ingest, `record_events` or `upsert_items` changed anything. "empty" before the
        first one. Asking again costs a few microseconds as long as nobody can have written."""
        self._check_open()
        asked, (known, revision) = self._database.generation, self._revision
        if asked is not None and asked == known:
            return revision
        with self._database.reading() as cursor:
            asked = self._database.generation  # before it is read: what is written meanwhile makes another generation
            self._revision = asked, changes.revision(cursor)
        return self._revision[1]

    def changes_since(self, revision: str) -> Changes | None:
        """What came after a revision; None where that is too long ago or too much to name: then everything may differ."""
        now, (known, then, found) = self.revision(), self._changes
        if (revision, now) == (known, then):
            return found
        with self._database.reading() as cursor:
            found = changes.since(cursor, revision)
        # kept, for all who keep something of the store ask, one after another
        self._changes = ("", "", None) if found is None else (revision, found.revision, found)
        return found

    # -- writing while the store serves ----------------------------------------------------------------------------------------

    def record_events(self, events: Sequence[Event], ids: Sequence[str] = ()) -> list[Event]:
        """Appends what shoppers did, all or nothing, and gives it back with the numbers it got, in the order given. An event gets its user's
        next `seq`, in the order (ts, place among `events`); the `seq` it comes with counts for nothing.

        With `ids`, one for each event, an id that was recorded before is passed over, so that a message may be delivered twice. A product
        that only an event names is added as an ingest would add it. StoreError for an action that is none, a search with an item or another
        action without one, and a time with an offset; StoreBusy, StoreReadOnly.

        New rows stand behind those that are sorted by user, where each history looks for them: some hundred thousand cost it a few
        milliseconds, and an ingest sorts them in.
        """
        self._check_open()
        return self._database.call(changes.record_events, events, ids)

    def upsert_items(self, items: Sequence[Mapping[str, Any]]) -> list[str]:
        """Adds products and changes known ones, all or nothing: each a mapping with `item_id` and those fields of `Item` that are to be
        written; what is not given stays, and None empties a field. A product is listed again unless `listed` is given as False. Gives the
        ids of those that changed. StoreError for a field that is none; StoreBusy, StoreReadOnly."""
        self._check_open()
        return self._database.call(changes.upsert_items, items)

    # -- users and their events ------------------------------------------------------------------------------------------------

    def has_user(self, user_id: str) -> bool:
        """Whether the user is in any event."""
        return bool(self._all("SELECT 1 FROM events WHERE user_id = ? LIMIT 1", [user_id]))

    def require_user(self, user_id: str) -> None:
        """Raises UnknownUser, naming those who are spelled alike, where no event is of this user."""
        if self.has_user(user_id):
            return
        near = difflib.get_close_matches(user_id, [row.user_id for row in self.users(limit=5000)], n=3)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise UnknownUser(f"No events of user '{user_id}' in {self.path}.{hint} `recgraph users --store {self.path}` lists those who are there.")

    def users(self, limit: int = 20, like: str = "") -> list[UserRow]:
        """The most active users whose id contains `like` (in any case)."""
        rows = self._all(
            """SELECT user_id, count(*), count(*) FILTER (action = 'purchase'), min(ts), max(ts) FROM events
               WHERE contains(lower(user_id), lower(?)) GROUP BY user_id ORDER BY count(*) DESC, user_id LIMIT ?""",
            [like, limit],
        )
        return [UserRow(*row) for row in rows]

    def history(self, user_id: str, before: datetime | None = None, limit: int | None = None) -> list[Event]:
        """The user's events strictly before a moment, ascending by (ts, seq); `limit` keeps the newest. [] for an unknown user."""
        command = "SELECT user_id, seq, ts, action, item_id, query, position FROM events WHERE user_id = ? AND ts < ?"
        given: list[Any] = [user_id, as_utc(before) or END_OF_TIME]
        if limit is None:
            rows = self._all(command, given)
        else:
            rows = self._all(f"{command} LIMIT ?", [*given, limit + 1])
            if len(rows) > limit:  # a bot's 60,000 are not made Python's
                rows = self._all(f"{command} ORDER BY ts DESC, seq DESC LIMIT ?", [*given, limit])
        rows.sort(key=lambda row: (row[2], row[1]))  # a few hundred rows: DuckDB's sort costs more than the index scan
        return [Event(*row) for row in rows]

    def bought(self, user_id: str, before: datetime | None = None) -> list[str]:
        """The items a user purchased before a moment, each once, in no order."""
        rows = self._all(
            "SELECT DISTINCT item_id FROM events WHERE user_id = ? AND ts < ? AND action = 'purchase'",
            [user_id, as_utc(before) or END_OF_TIME],
        )
        return [item_id for (item_id,) in rows]

    def sequences(self, before: datetime | None = None) -> Sequences:
        """Every event with an item, before a moment, as arrays; what the sequence models are fitted on."""
        self._check_open()
        with self._database.reading() as cursor:
            return read_sequences(cursor, as_utc(before) or END_OF_TIME)

    def popular(self, before: datetime | None = None, days: float | None = None, limit: int = 100) -> list[tuple[str, int]]:
        """(item_id, weight), heaviest first: a purchase weighs 3, a cart 2, a click 1. `days` looks only that far back from `before`
        (from the newest event where it is None, those of a wrong clock left out: store/newest.py)."""
        before = as_utc(before)
        start, end = datetime(1, 1, 1), before or END_OF_TIME
        if before is None:
            with self._database.reading() as cursor:
                newest, late = newest_event(cursor)
            end = newest + timedelta(microseconds=1) if newest and late else END_OF_TIME
            before = newest
        if days is not None and before is not None:
            start = before - timedelta(days=days)
        rows = self._all(
            """SELECT item_id, sum(CASE action WHEN 'purchase' THEN 3 WHEN 'cart' THEN 2 ELSE 1 END)::BIGINT AS weight FROM events
               WHERE action <> 'search' AND ts < ? AND ts >= ? GROUP BY item_id ORDER BY weight DESC, item_id LIMIT ?""",
            [end, start, limit],
        )
        return [(item_id, int(weight)) for item_id, weight in rows]

    # -- items -----------------------------------------------------------------------------------------------------------------

    def items(self, item_ids: Sequence[str]) -> dict[str, Item]:
        """The known ones of `item_ids`; unknown ids are left out."""
        wanted = list(dict.fromkeys(item_ids))
        if not wanted:
            return {}
        rows: list[tuple[Any, ...]] = []
        # Up to some hundred written-out values use the index; a longer list, or a subquery, reads the whole table (2.4 million items: 0.4 s).
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(part))
            rows += self._all("SELECT * EXCLUDE (first_seen_given) FROM items WHERE item_id IN (" + marks + ")", part)  # noqa: S608 - only marks
        return {row[0]: _item(row) for row in rows}

    def variants(self, parent_ids: Sequence[str], limit: int) -> list[Item]:
        """The listed items of these groups (`parent_id`), those in stock first; `limit` of each group at most."""
        if not parent_ids:
            return []
        marks = ", ".join("?" * len(parent_ids))
        rows = self._all(
            "SELECT * EXCLUDE (first_seen_given) FROM items WHERE listed AND parent_id IN (" + marks + ")"  # noqa: S608 - only marks
            " QUALIFY row_number() OVER (PARTITION BY parent_id ORDER BY in_stock DESC, item_id) <= ?"
            " ORDER BY parent_id, in_stock DESC, item_id",
            [*parent_ids, limit],
        )
        return [_item(row) for row in rows]

    def offered(self, before: datetime | None = None) -> int:
        """How many products may be recommended: in stock, listed and, with a moment, not first seen later."""
        there = "in_stock AND listed AND (first_seen IS NULL OR first_seen < ?)"
        return int(self._all(f"SELECT count(*) FROM items WHERE {there}", [before or END_OF_TIME])[0][0])  # noqa: S608 - a constant

    def find_items(self, like: str = "", category: str = "", limit: int = 20) -> list[Item]:
        """Items that hold every word of `like` in their id, title, brand, colour or category, and `category` in theirs; any case."""
        rows = self._all(
            """SELECT * EXCLUDE (first_seen_given) FROM items
               WHERE contains(lower(category), lower(?)) AND len(list_filter(string_split(trim(lower(?)), ' '),
                   lambda word: NOT contains(lower(concat_ws(' ', item_id, title, brand, color, category)), word))) = 0
               ORDER BY item_id LIMIT ?""",
            [category, like, limit],
        )
        return [_item(row) for row in rows]

    def catalogue(self) -> Catalogue:
        """The whole catalogue, column by column."""
        self._check_open()
        with self._database.reading() as cursor:
            return read_catalogue(cursor)

    def attribute_values(self) -> dict[str, set[str]]:
        """The distinct brands, categories and colours of the catalogue, without the empty one."""
        rows = self._all(
            """SELECT DISTINCT 'brand', brand FROM items WHERE brand <> '' UNION ALL
               SELECT DISTINCT 'category', category FROM items WHERE category <> '' UNION ALL
               SELECT DISTINCT 'color', color FROM items WHERE color <> ''"""
        )
        values: dict[str, set[str]] = {"brand": set(), "category": set(), "color": set()}
        for name, value in rows:
            values[name].add(value)
        return values

    # -- what queries showed (F 4.2) -------------------------------------------------------------------------------------------

    def memory_queries(self, before: datetime | None = None) -> list[str]:
        """The distinct queries of exposures, each in its most frequent spelling, sorted; spellings that differ in case or outer blanks are one.

        A shop without exposures gives the queries of events that also name an item.
        """
        rows = self._all(
            """SELECT arg_max(spelling, (times, spelling)) FROM
                     (SELECT query_key, trim(query) AS spelling, count(*) AS times FROM shown WHERE ts < ? GROUP BY ALL)
                 WHERE query_key <> '' GROUP BY query_key ORDER BY query_key""",
            [as_utc(before) or END_OF_TIME],
        )
        return [query for (query,) in rows]

    def query_products(self, queries: Sequence[str], before: datetime | None = None, limit: int = 5) -> dict[str, list[str]]:
        """For each query its first `limit` items by organic position (F 4.2): best mean position first, then most often shown, then item_id.

        Keys are the queries as given; a query that showed nothing has []. Items without a position come last.
        """
        keys = {query: query.strip() for query in queries}
        rows = self._all(
            """WITH wanted AS (SELECT DISTINCT lower(trim(unnest(?::VARCHAR[]))) AS query_key),
                 ranked AS (SELECT query_key, item_id, avg(position) AS mean, count(*) AS times
                     FROM shown SEMI JOIN wanted USING (query_key) WHERE ts < ? GROUP BY query_key, item_id)
                 SELECT query_key, list(item_id ORDER BY mean NULLS LAST, times DESC, item_id)[:?] FROM ranked GROUP BY query_key""",
            [list(keys.values()), as_utc(before) or END_OF_TIME, limit],
        )
        found = {key: list(item_ids) for key, item_ids in rows}
        # The database's own lower() made the keys, so it also folds the questions: Python's differs in a few letters.
        folded = self._all("SELECT lower(trim(unnest(?::VARCHAR[])))", [list(keys.values())])
        return {query: found.get(key, []) for query, (key,) in zip(keys, folded, strict=True)}

    def answers(self, before: datetime | None = None) -> list[tuple[str, str, int]]:
        """(query in lower case, item_id, what was done at most: 0 click, 1 cart, 2 purchase), each pair once, sorted: what queries led to.

        An event that names no query counts for the same user's last search within the hour before it.
        """
        rows = self._all(
            """WITH led AS (
                   SELECT item_id, action, query, ts - max(ts) FILTER (action = 'search') OVER earlier AS age,
                       last_value(CASE WHEN action = 'search' THEN query END IGNORE NULLS) OVER earlier AS searched
                   FROM events WHERE ts < ? WINDOW earlier AS (PARTITION BY user_id ORDER BY ts, seq)),
               known AS (
                   SELECT lower(trim(CASE WHEN query <> '' THEN query WHEN age <= INTERVAL 1 HOUR THEN searched ELSE '' END)) AS query_key,
                       item_id, CASE action WHEN 'click' THEN 0 WHEN 'cart' THEN 1 ELSE 2 END AS done
                   FROM led WHERE action <> 'search')
               SELECT query_key, item_id, max(done) FROM known WHERE query_key <> '' GROUP BY ALL ORDER BY query_key, item_id""",
            [as_utc(before) or END_OF_TIME],
        )
        return [(query, item_id, int(done)) for query, item_id, done in rows]

    def shown_at(self, query: str, ts: datetime) -> list[str]:
        """The result page of one search: the items that the query showed at exactly that moment, by organic position; [] where none is known."""
        rows = self._all("SELECT item_id FROM shown WHERE query = ? AND ts = ? ORDER BY position NULLS LAST, item_id", [query, ts])
        return [item_id for (item_id,) in rows]

    # -- summaries and vectors -------------------------------------------------------------------------------------------------

    def rejects(self, limit: int = 20, reason: str = "") -> list[Reject]:
        """Rows that could not be loaded whole, by file and line; only those whose reason holds `reason`, in any case."""
        rows = self._all(
            "SELECT source, line, reason, raw FROM rejects WHERE contains(lower(reason), lower(?)) ORDER BY source, line LIMIT ?", [reason, limit]
        )
        return [Reject(*row) for row in rows]

    def reject_reasons(self, reason: str = "") -> list[Rejected]:
        """How many rows were rejected for each reason that holds `reason`, the most frequent first."""
        rows = self._all(
            f"""SELECT {GENERAL_REASON} AS general, count(*) AS n, arg_min(parse_filename(source) || ':' || line, (source, line)) FROM rejects
                WHERE contains(lower(reason), lower(?)) GROUP BY general ORDER BY n DESC, general""",  # noqa: S608 - a constant
            [reason],
        )
        return [Rejected(*row) for row in rows]

    def summary(self, input_hash: str) -> Summary | None:
        """The summary made from exactly this input, if it is in the store."""
        rows = self._all(
            """SELECT input_hash, user_id, paradigm, level, block, upto_seq, sentences, event_seqs, model, prompt_version
               FROM summaries WHERE input_hash = ?""",
            [input_hash],
        )
        if not rows:
            return None
        values = list(rows[0])
        values[6] = tuple((str(text), tuple(int(seq) for seq in seqs)) for text, seqs in json.loads(values[6]))
        values[7] = tuple(values[7])
        return Summary(*values)

    def save_summaries(self, summaries: Sequence[Summary]) -> None:
        """Keeps summaries beside the store for its next writer (store/care/pending.py), so that nobody waits for the store; one whose
        input_hash is in it already is left as it is. StoreReadOnly."""
        self._check_open()
        if self.is_shared:
            self._database.call(pending.insert, summaries)
            return
        check_writable(self.path)  # else nobody will ever take them in
        pending.keep(self.path, summaries)

    def take_waiting(self, patience: float | None = None) -> None:
        """Takes in the summaries that wait beside the store; not inside a transaction of the caller's, for what waits goes after a commit.
        StoreReadOnly, and StoreBusy after `patience` seconds."""
        self._check_open()
        files = [] if self.is_shared or self._database.in_transaction else pending.waiting(self.path)
        if not files:
            return
        with self._database.writing(patience=patience) as cursor:
            pending.insert(cursor, [one for file in files for one in pending.read(file)])
        pending.remove(self.path, files)

    def vectors(self, kind: str, model: str, keys: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        """The vectors the store has for these keys."""
        self._check_open()
        with self._database.reading() as cursor:
            found, rows = _vectors.read_some(cursor, kind, model, keys)
        return dict(zip(found, rows, strict=True))

    def all_vectors(self, kind: str, model: str) -> tuple[list[str], npt.NDArray[np.float32]]:
        """All keys of one kind and model, sorted, and their vectors, float32[n, d]; [0, 0] where there are none."""
        self._check_open()
        with self._database.reading() as cursor:
            return _vectors.read_all(cursor, kind, model)

    def save_vectors(self, kind: str, model: str, keys: Sequence[str], vectors: npt.NDArray[np.float32]) -> None:
        """Keeps float32[n, d] under n keys; a key that is there already is replaced."""
        if len(keys) != len(vectors):
            raise ValueError(f"{len(keys)} keys for {len(vectors)} vectors")
        self._database.call(_vectors.write, kind, model, keys, vectors)


def _item(row: tuple[Any, ...]) -> Item:
    values = list(row)
    values[8] = dict(values[8] or {})
    return Item(*values)
