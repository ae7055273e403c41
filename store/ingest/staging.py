"""The waiting room of an ingest: tables of a side database that hold what was read and found good, and what was not, before the store is touched.

A reader turns `raw` (store/ingest/read.py) into one of the views `new_items`, `new_events`, `new_exposures`, all text, and calls
`take_items`, `take_events` or `take_exposures`: the checks every format shares happen here, in SQL. Nothing here writes to the store;
`store/ingest/merge.py` does, in one transaction.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import duckdb

from recgraph.errors import IngestError
from recgraph.store.files.plain import SourceFile
from recgraph.store.ingest.read import Desk, RawFile
from recgraph.store.ingest.returns import match_in_files
from recgraph.store.ingest.times import Column, literal, read_times
from recgraph.store.ingest.values import MACROS, check_option, read_actions, read_ids, read_prices, stock

ITEM_COLUMNS = (
    *("item_id", "title", "category", "brand", "color", "size", "price", "description"),
    *("attributes", "parent_id", "first_seen", "in_stock"),
)
# Of an event, session_id and quantity are read but not kept: who an anonymous shopper is, and what came back.
EVENT_COLUMNS = ("user_id", "ts", "action", "item_id", "query", "position", "session_id", "quantity")
EXPOSURE_COLUMNS = ("query", "item_id", "position", "ts")

_TABLES = """
    CREATE TABLE stage_items (item_id VARCHAR, title VARCHAR DEFAULT '', category VARCHAR DEFAULT '', brand VARCHAR DEFAULT '',
        color VARCHAR DEFAULT '', size VARCHAR DEFAULT '', price DOUBLE, description VARCHAR DEFAULT '', attributes MAP(VARCHAR, VARCHAR),
        parent_id VARCHAR DEFAULT '', first_seen TIMESTAMP, in_stock BOOLEAN);
    CREATE TABLE stage_events (user_id VARCHAR, ts TIMESTAMP, action VARCHAR, item_id VARCHAR, query VARCHAR, position INTEGER,
        returned_at TIMESTAMP);
    CREATE TABLE stage_returns (user_id VARCHAR, ts TIMESTAMP, item_id VARCHAR);
    CREATE TABLE stage_exposures (query VARCHAR, item_id VARCHAR, position INTEGER, ts TIMESTAMP);
    CREATE TABLE stage_rejects (source VARCHAR, line BIGINT, reason VARCHAR, raw VARCHAR);
    CREATE TEMP TABLE broken_lines (line BIGINT);
"""
_MOMENT_PROBLEM = """CASE WHEN {text} = '' THEN '{name} is missing'
    WHEN {ts} IS NULL THEN coalesce({problem}, '{name} ''' || {text} || ''' is not a time')
    WHEN NOT isfinite({ts}) OR {ts} < TIMESTAMP '1970-01-01' OR {ts} >= TIMESTAMP '9999-01-01'
        THEN '{name} ''' || {text} || ''' is before 1970 or after 9998' END"""
# An anonymous shopper is their session. What came back is no purchase, whatever the shop calls the row.
_CHECK_EVENTS = """
    CREATE OR REPLACE TEMP TABLE checked AS SELECT * EXCLUDE (reason),
            CASE WHEN kind = 'ignore' THEN NULL ELSE reason END AS reason
        FROM (SELECT *, coalesce(
                CASE WHEN user_id = '' AND kind NOT IN ('shown', 'ignore') THEN 'user_id is missing' END,
                CASE WHEN kind = '' THEN {action_problem} END,
                {moment_problem}, position_problem(position_text),
                CASE WHEN kind IN ('search', 'shown') AND query = '' THEN CASE kind WHEN 'search' THEN 'query is missing in a search'
                    ELSE 'action ''' || action_text || ''' is what a shopper was shown, not what they did; without query it tells nothing' END END,
                CASE WHEN kind = 'shown' AND position IS NULL THEN 'position is missing' END,
                CASE WHEN kind <> 'search' AND item_id = '' THEN 'item_id is missing' END,
                CASE WHEN pieces = 0 AND kind = 'purchase' THEN 'quantity is 0' END) AS reason
            FROM (SELECT * REPLACE (CASE WHEN kind = 'search' THEN '' ELSE item_id END AS item_id,
                          CASE WHEN kind = 'purchase' AND pieces < 0 THEN 'return' ELSE kind END AS kind)
                  FROM (SELECT place, CASE WHEN nobody(user_text) AND session_text <> '' THEN 'session:' || {session_id}
                                WHEN NOT nobody(user_text) THEN {user_id} ELSE '' END AS user_id,
                            ts_text, {ts} AS ts, action_text, {action} AS kind, {item_id} AS item_id, query, position_text,
                            TRY_CAST(position_text AS INTEGER) AS position,
                            pieces(quantity_text) AS pieces FROM taken)));
    INSERT INTO stage_events SELECT user_id, ts, kind, item_id, query, position, NULL FROM checked
        WHERE reason IS NULL AND kind IN ('search', 'click', 'cart', 'purchase');
    INSERT INTO stage_returns SELECT user_id, ts, item_id FROM checked WHERE reason IS NULL AND kind = 'return';
    INSERT INTO stage_exposures SELECT query, item_id, position, ts FROM checked WHERE reason IS NULL AND kind = 'shown';
"""
_CHECK_EXPOSURES = """
    CREATE OR REPLACE TEMP TABLE checked AS SELECT *, coalesce(
            CASE WHEN query = '' THEN 'query is missing' END, CASE WHEN item_id = '' THEN 'item_id is missing' END,
            CASE WHEN position_text = '' THEN 'position is missing' END, position_problem(position_text), {moment_problem}) AS reason
        FROM (SELECT place, query, {item_id} AS item_id, position_text, TRY_CAST(position_text AS INTEGER) AS position,
                  ts_text, {ts} AS ts FROM taken);
    INSERT INTO stage_exposures SELECT query, item_id, position, ts FROM checked WHERE reason IS NULL;
"""
# A product with one unreadable value is kept without that value, and the value is noted: its title is worth more than its price.
_CHECK_ITEMS = """
    CREATE OR REPLACE TEMP TABLE checked AS SELECT *, coalesce(
            CASE WHEN item_id = '' THEN 'item_id is missing' END,
            CASE WHEN price_text <> '' AND price IS NULL THEN {price_problem} END,
            CASE WHEN first_text <> '' THEN {moment_problem} || '; the item was kept without it' END,
            CASE WHEN stock_text <> '' AND in_stock IS NULL THEN 'in_stock ''' || stock_text || ''' is no stock word; the item was kept off sale' END,
            CASE WHEN attributes_text <> '' AND attributes IS NULL
                THEN 'attributes ''' || attributes_text || ''' is not a JSON object; the item was kept without it' END) AS reason
        FROM (SELECT place, {item_id} AS item_id, title, category, brand, color, size, price_text, {price} AS price, description, attributes_text,
                  CASE WHEN json_valid(attributes_text) AND starts_with(attributes_text, '{{')
                      THEN filled(from_json(attributes_text, '"MAP(VARCHAR,VARCHAR)"')) END AS attributes,
                  {parent_id} AS parent_id, first_text, {first_seen} AS first_seen, stock_text, {in_stock} AS in_stock FROM taken);
    INSERT INTO stage_items SELECT item_id, title, category, brand, color, size, price, description, attributes, parent_id,
        CASE WHEN first_seen >= TIMESTAMP '1970-01-01' AND first_seen < TIMESTAMP '9999-01-01' THEN first_seen END,
        CASE WHEN stock_text <> '' THEN coalesce(in_stock, FALSE) END FROM checked WHERE item_id <> '';
"""
_LAST = ", ".join(
    f"coalesce(arg_max({column}, rowid) FILTER ({column} <> ''), '') AS {column}"
    for column in ("title", "category", "brand", "color", "size", "description", "parent_id")
)
_JOIN_ITEMS = f"""
    CREATE TEMP TABLE joined AS SELECT item_id, {_LAST}, arg_max(price, rowid) AS price, arg_max(first_seen, rowid) AS first_seen,
            arg_max(in_stock, rowid) AS in_stock, arg_max(attributes, rowid) FILTER (cardinality(attributes) > 0) AS attributes
        FROM stage_items WHERE item_id IN (SELECT item_id FROM stage_items GROUP BY item_id HAVING count(*) > 1) GROUP BY item_id ORDER BY min(rowid);
    DELETE FROM stage_items WHERE item_id IN (SELECT item_id FROM joined);
    INSERT INTO stage_items BY NAME SELECT * FROM joined;
"""  # noqa: S608 - names of our own
_SEEN = """
    CREATE TABLE seen AS SELECT item_id, min(ts) AS ts FROM (SELECT item_id, ts FROM stage_events WHERE item_id <> ''
        UNION ALL SELECT item_id, ts FROM stage_exposures UNION ALL SELECT item_id, ts FROM stage_returns) GROUP BY item_id;
"""
_LOST_ZEROS = """
    SELECT count(*), min(ids) FROM (SELECT list_sort(list(DISTINCT item_id))[:3] AS ids
        FROM (SELECT item_id FROM stage_items UNION ALL SELECT item_id FROM seen) WHERE regexp_full_match(item_id, '\\d+')
        GROUP BY ltrim(item_id, '0') HAVING count(DISTINCT item_id) > 1)
"""
# The line of a row is its place, moved on by the lines the parser refused before it and by line breaks inside quoted fields before it.
_NOTE_ROWS = """
    INSERT INTO stage_rejects
    WITH bad AS (SELECT place, reason FROM checked WHERE reason IS NOT NULL),
        breaks AS (SELECT place, length(t) - length(replace(t, chr(10), '')) AS n
                   FROM (SELECT place, concat(*COLUMNS(* EXCLUDE (place))) AS t FROM raw) WHERE contains(t, chr(10))),
        moved AS (SELECT place, reason, place + $first + coalesce((SELECT sum(n) FROM breaks WHERE breaks.place < bad.place), 0) AS line FROM bad),
        broken AS (SELECT line - row_number() OVER (ORDER BY line) + 1 AS line FROM broken_lines)
    SELECT $source, line + (SELECT count(*) FROM broken WHERE broken.line <= moved.line), reason, left(RAW, 1000)
    FROM moved JOIN raw USING (place)
"""
_NOTE_TEXT = """
    INSERT INTO stage_rejects SELECT $source, place + $first, reason, left(text, 1000) FROM checked JOIN raw USING (place) WHERE reason IS NOT NULL
"""


@dataclass(frozen=True)
class Format:
    """A known form of raw logs: what its files are called (kind -> pattern of the whole name) and what reads them."""

    name: str
    about: str  # one line for people: which files are expected
    kinds: Mapping[str, str]
    read: Callable[[Staging, Sequence[SourceFile]], None]


@dataclass(frozen=True)
class Reading:
    """What a file was taken for, for people: `columns` are (ours, where it comes from), `notes` what was decided or left out."""

    source: SourceFile
    name: str
    columns: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


class Staging:
    """The tables of one ingest on one cursor. `mapping` renames columns ("events.user_id": "customer"; "=click" is a constant) and says how
    their values are to be read ("events.ts:format": "%d.%m.%Y"; store/ingest/values.py)."""

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, desk: Desk, mapping: Mapping[str, str], progress: Callable[[str], None] = lambda _: None
    ) -> None:
        self.cursor, self.desk, self.mapping, self.progress = cursor, desk, mapping, progress
        self.readings: list[Reading] = []  # what the files were taken for, in the order of reading
        self.sources = set[str]()  # the files and sheets that were read
        self._raw: RawFile | None = None
        self.rows = 0  # that were looked at, the bad ones included
        self.notes: list[str] = []  # what a person should know of how the columns were read
        cursor.execute("SET TimeZone = 'UTC'")
        with suppress(duckdb.InvalidInputException):  # it is not there at the first ingest into an open database
            cursor.remove_function("html_unescape")
        cursor.create_function("html_unescape", html.unescape, ["VARCHAR"], "VARCHAR")
        cursor.execute(_TABLES + MACROS)
        for name, value in mapping.items():
            if ":" in name:
                check_option(cursor, name, value)

    def begin(self, source: SourceFile) -> RawFile:
        """The next file to read; call one of its read_ methods, define a `new_` view over `raw`, then take."""
        self.progress(f"reading {source.filename}")
        self.cursor.execute("DELETE FROM broken_lines")
        self.sources.add(str(source))
        self._raw = RawFile(self.cursor, source, self.desk)
        return self._raw

    def take_items(self) -> None:
        """Checks `new_items` (place and ITEM_COLUMNS) and keeps it."""
        texts = ("title", "category", "brand", "color", "size", "description")
        names = {"attributes": "attributes_text", "price": "price_text", "first_seen": "first_text", "in_stock": "stock_text"}
        self._take_text("new_items", {column: names.get(column, column) for column in ITEM_COLUMNS}, texts)
        raw = self._current()
        typed = raw.text_rows or raw.table.form == "parquet"
        price = read_prices(self.cursor, "taken", "price_text", self.mapping.get("items.price:decimal", ""), typed)
        first = self._times("first_text", "items.first_seen")
        self._check(
            _CHECK_ITEMS,
            price=price.value,
            price_problem=price.problem,
            first_seen=first.value,
            moment_problem=_moment_problem(first, "first_text", "first_seen", "first_seen"),
            in_stock=stock("stock_text"),
            item_id=self._id("item_id"),
            parent_id=self._id("parent_id"),
        )
        self._note(price.notes)

    def take_events(self) -> None:
        """Checks `new_events` (place and EVENT_COLUMNS) and keeps it."""
        names = {column: f"{column}_text" for column in ("ts", "action", "position", "quantity")}
        names |= {"user_id": "user_text", "session_id": "session_text", "item_id": "item_text", "query": "query"}
        self._take_text("new_events", names)
        ts = self._times("ts_text", "events.ts")
        actions = read_actions(self.cursor, "taken", "action_text", self.mapping)
        self._check(
            _CHECK_EVENTS,
            ts=ts.value,
            moment_problem=_moment_problem(ts, "ts_text", "ts", "ts"),
            action=actions.value,
            action_problem=actions.problem,
            user_id=self._id("user_text"),
            session_id=self._id("session_text"),
            item_id=self._id("item_text"),
        )
        self._note(actions.ignored)

    def take_exposures(self) -> None:
        """Checks `new_exposures` (place and EXPOSURE_COLUMNS) and keeps it."""
        self._take_text("new_exposures", {"query": "query", "item_id": "item_text", "position": "position_text", "ts": "ts_text"})
        ts = self._times("ts_text", "exposures.ts")
        self._check(_CHECK_EXPOSURES, ts=ts.value, moment_problem=_moment_problem(ts, "ts_text", "ts", "ts"), item_id=self._id("item_text"))

    def _take_text(self, view: str, names: Mapping[str, str], texts: Sequence[str] = ()) -> None:
        """Makes the table `taken`: the view's columns under `names`, trimmed, "" where they only say that nothing is known. Those of `texts`
        are for people: one line, without HTML's escapes."""
        self.note_broken()
        # A step a query: a macro in a macro writes out its argument again wherever it stands, forty times for a title.
        read = view
        for step in (
            {name: f"unescaped({column})" if column in texts else column for column, name in names.items()},
            {name: f"one_line({name})" if column in texts else name for column, name in names.items()},
            {name: f"blank({name})" for name in names.values()},
            {name: f"known({name})" for name in names.values()},
        ):
            parts = ", ".join(f"{expression} AS {name}" for name, expression in step.items())
            read = f"(SELECT place, {parts} FROM {read})"  # noqa: S608 - names of our own
        self.cursor.execute(f"CREATE OR REPLACE TEMP TABLE taken AS FROM {read}")
        row = self.cursor.execute("SELECT count(*) FROM taken").fetchone()
        assert row is not None
        self.rows += int(row[0])

    def _times(self, column: str, name: str) -> Column:
        found = read_times(self.cursor, "taken", column, name, self.mapping.get(f"{name}:format", ""))
        self._note(found.notes)
        return found

    def _id(self, column: str) -> str:
        found = read_ids(self.cursor, "taken", column)
        self._note(found.notes)
        return found.value

    def _note(self, notes: Sequence[str]) -> None:
        self.notes += [f"{self._current().source.filename}: {note}" for note in notes]

    def _check(self, sql: str, **expressions: str) -> None:
        self.cursor.execute(sql.format(**expressions))
        if self.cursor.execute("SELECT 1 FROM checked WHERE reason IS NOT NULL LIMIT 1").fetchone():
            self._note_checked()

    def _note_checked(self) -> None:
        raw = self._current()
        place = {"source": str(raw.source), "first": raw.first}
        if raw.text_rows:
            self.cursor.execute(_NOTE_TEXT, place)
            return
        # Under the names that the file gives its columns; of two equal ones the first.
        named = {name: column for column, name in reversed(raw.names.items())}
        pairs = ", ".join(f"{literal(name)}, raw.{column}" for name, column in reversed(named.items()))
        self.cursor.execute(_NOTE_ROWS.replace("RAW", f"json_object({pairs})::VARCHAR" if pairs else "to_json(raw)::VARCHAR"), place)

    def note_broken(self) -> None:
        """Notes the lines no parser could read; taking does this by itself."""
        raw = self._current()
        if raw.broken:
            self.rows += len(raw.broken)
            # In bulk: 40,000 rows one by one take half a minute.
            lines, reasons, texts = (list(column) for column in zip(*raw.broken, strict=True))
            texts = [text[:1000] for text in texts]
            self.cursor.execute(
                "INSERT INTO stage_rejects SELECT ?, unnest(?::BIGINT[]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[])",
                [str(raw.source), lines, reasons, texts],
            )
            known = [line for line in lines if line > 0] or [2**40]
            self.cursor.execute("INSERT INTO broken_lines SELECT unnest(?::BIGINT[])", [known])
            raw.broken = []

    def note_rows(self, sql: str) -> None:
        """Notes the rows of `raw` that `sql` (SELECT place, reason) finds wrong; the reader leaves them out itself."""
        self.note_broken()
        self.cursor.execute("CREATE OR REPLACE TEMP TABLE checked AS " + sql)
        row = self.cursor.execute("SELECT count(*) FROM checked").fetchone()
        assert row is not None
        self.rows += int(row[0])
        self._note_checked()

    def _current(self) -> RawFile:
        if self._raw is None:
            raise IngestError("Nothing was read yet.")
        return self._raw

    def counts(self) -> dict[str, int]:
        """Rows waiting: items, events, returns, exposures, rejects."""
        names = ("items", "events", "returns", "exposures", "rejects")
        return {name: self._number(f"SELECT count(*) FROM stage_{name}") for name in names}  # noqa: S608 - constants

    def settle(self) -> None:
        """After the last file: a product named twice has its last non-empty values, what came back is told from what was bought, and `seen` has
        when each item was first touched."""
        self.progress("sorting out")
        doubles = self._number("SELECT count(*) - count(DISTINCT item_id) FROM stage_items")
        if doubles:
            self.cursor.execute(_JOIN_ITEMS)
        self.cursor.execute(_SEEN)
        if self._number("SELECT count(*) FROM stage_returns"):
            match_in_files(self.cursor)
        if self._number("SELECT count(*) FROM seen WHERE starts_with(item_id, '0')") + self._number(
            "SELECT count(*) FROM stage_items WHERE starts_with(item_id, '0')"
        ):
            row = self.cursor.execute(_LOST_ZEROS).fetchone()
            if row and row[0]:
                told = f"such as {' and '.join(row[1])}: a spreadsheet may have cut them"
                self.notes.append(f"{row[0]:,} item ids differ only by zeros in front, {told}")

    def _number(self, sql: str) -> int:
        row = self.cursor.execute(sql).fetchone()
        assert row is not None
        return int(row[0])

    def define(self, kind: str, values: Mapping[str, str], source: str = "raw") -> None:
        """Makes the view `new_<kind>`: `values` gives a column its SQL expression (of our own making, never of a file's); others are NULL."""
        columns = {"items": ITEM_COLUMNS, "events": EVENT_COLUMNS, "exposures": EXPOSURE_COLUMNS}[kind]
        self.name(f"new_{kind}", {column: values.get(column, "NULL::VARCHAR") for column in columns}, source)

    def name(self, view: str, values: Mapping[str, str], source: str = "raw") -> None:
        """Makes a view with `place` and a column for each of `values`, so that a reader's SQL can be written out whole."""
        parts = ", ".join(f"{expression} AS {column}" for column, expression in values.items())
        # Safe: names and expressions are recgraph's own; what a file or a mapping says enters them through `literal` only.
        self.cursor.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT place, {parts} FROM {source}")  # noqa: S608

    def parse(self, paths: Sequence[str]) -> None:
        """Makes the view `parsed` of JSON lines: `place` and `v`, the list of the values at `paths`. One extraction parses a line once."""
        self.name("parsed", {"v": f"json_extract_string(text, [{', '.join(literal(path) for path in paths)}])"})


def _moment_problem(column: Column, text: str, ts: str, name: str) -> str:
    """SQL of the reason why a time is none, NULL where it is one."""
    return _MOMENT_PROBLEM.format(text=text, ts=ts, name=name, problem=column.problem.replace("{name}", f"'{name}'"))


def columns_of(names: Sequence[str]) -> dict[str, str]:
    """Lower-case column name of the file -> our name for it in `raw` (x0, x1, ...); of equal names the first counts."""
    found: dict[str, str] = {}
    for number, name in enumerate(names):
        found.setdefault(name.strip().lower(), f"x{number}")
    return found


def pick(columns: Mapping[str, str], *names: str) -> str:
    """The SQL expression of the first of `names` that the file has, else NULL."""
    return next((columns[name] for name in names if name in columns), "NULL::VARCHAR")
