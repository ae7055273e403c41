"""The waiting room of an ingest: temporary tables that hold what was read and found good, and what was not, before the store is touched.

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
from recgraph.store.ingest.files import SourceFile
from recgraph.store.ingest.read import Desk, RawFile, literal

ITEM_COLUMNS = (
    *("item_id", "title", "category", "brand", "color", "size", "price", "description"),
    *("attributes", "parent_id", "first_seen", "in_stock"),
)
# Of an event, session_id and quantity are read but not kept: who an anonymous shopper is, and what came back.
EVENT_COLUMNS = ("user_id", "ts", "action", "item_id", "query", "position", "session_id", "quantity")
EXPOSURE_COLUMNS = ("query", "item_id", "position", "ts")

_TABLES = """
    CREATE TEMP TABLE stage_items (item_id VARCHAR, title VARCHAR DEFAULT '', category VARCHAR DEFAULT '', brand VARCHAR DEFAULT '',
        color VARCHAR DEFAULT '', size VARCHAR DEFAULT '', price DOUBLE, description VARCHAR DEFAULT '', attributes MAP(VARCHAR, VARCHAR),
        parent_id VARCHAR DEFAULT '', first_seen TIMESTAMP, in_stock BOOLEAN);
    CREATE TEMP TABLE stage_events (user_id VARCHAR, ts TIMESTAMP, action VARCHAR, item_id VARCHAR, query VARCHAR, position INTEGER);
    CREATE TEMP TABLE stage_exposures (query VARCHAR, item_id VARCHAR, position INTEGER, ts TIMESTAMP);
    CREATE TEMP TABLE stage_rejects (source VARCHAR, line BIGINT, reason VARCHAR, raw VARCHAR);
    CREATE TEMP TABLE broken_lines (line BIGINT);
"""
# Numbers are seconds since 1970, or milli- or microseconds where seconds would lie beyond the year 5138; and an event number is its
# second (store/records.py). TIMESTAMP alone would drop an offset such as +02:00 without a word, so those go through TIMESTAMPTZ.
_MACROS = r"""
    CREATE TEMP MACRO blank(x) AS coalesce(trim(x, E' \t\r\n'), '');
    CREATE TEMP MACRO number_moment(d) AS CASE WHEN d < 0 OR d > 2.5e17 THEN NULL
        ELSE make_timestamp(CAST(CASE WHEN d < 1e11 THEN d * 1000000 WHEN d < 1e14 THEN d * 1000 ELSE d END AS BIGINT)) END;
    CREATE TEMP MACRO moment(x) AS CASE
        WHEN regexp_full_match(x, '\d+(\.\d+)?([eE]\+?\d+)?') THEN number_moment(TRY_CAST(x AS DOUBLE))
        WHEN regexp_matches(x, ':.*[+-]\d\d(:?\d\d)?$') THEN CAST(TRY_CAST(x AS TIMESTAMPTZ) AS TIMESTAMP)
        ELSE TRY_CAST(x AS TIMESTAMP) END;
    CREATE TEMP MACRO moment_problem(name, x, m) AS CASE WHEN x = '' THEN name || ' is missing'
        WHEN m IS NULL THEN name || ' ''' || x || ''' is not a time'
        WHEN NOT isfinite(m) OR m < TIMESTAMP '1970-01-01' OR m >= TIMESTAMP '9999-01-01' THEN name || ' ''' || x || ''' is before 1970 or after 9998'
        END;
    CREATE TEMP MACRO position_problem(x) AS CASE WHEN x <> '' AND NOT coalesce(TRY_CAST(x AS DOUBLE) = TRY_CAST(x AS INTEGER)
        AND TRY_CAST(x AS INTEGER) > 0, FALSE) THEN 'position ''' || x || ''' is not a whole number from 1' END;
    CREATE TEMP MACRO money(x) AS CASE WHEN x = '' THEN NULL WHEN regexp_full_match(x, '[^\d-]*\d+,\d\d[^\d.]*')
        THEN TRY_CAST(replace(regexp_extract(x, '\d+,\d\d'), ',', '.') AS DOUBLE)
        WHEN regexp_matches(x, '^[^\d-]*\d') THEN TRY_CAST(replace(regexp_extract(x, '\d[\d,]*(\.\d+)?'), ',', '') AS DOUBLE) END;
    CREATE TEMP MACRO unescaped(x) AS CASE WHEN regexp_matches(x, '&(#\d+|#[xX][0-9a-fA-F]+|\w+);') THEN html_unescape(x) ELSE x END;
    CREATE TEMP MACRO one_line(x) AS CASE WHEN regexp_matches(x, '\s\s|[\t\r\n]') THEN regexp_replace(x, '\s+', ' ', 'g') ELSE x END;
    CREATE TEMP MACRO tidy(x) AS CASE WHEN x IS NULL OR lower(x) = 'nan' THEN '' ELSE blank(one_line(unescaped(x))) END;
    CREATE TEMP MACRO filled(m) AS map_from_entries(list_filter(map_entries(m), lambda e: coalesce(e.value, '') <> ''));
"""
_TAKE_EVENTS = """
    CREATE OR REPLACE TEMP TABLE checked AS SELECT *, coalesce(
            CASE WHEN user_id = '' THEN 'user_id is missing' END,
            CASE WHEN action NOT IN ('search', 'click', 'cart', 'purchase')
                THEN 'action ''' || action || ''' is none of search, click, cart, purchase' END,
            moment_problem('ts', ts_text, ts), position_problem(position_text),
            CASE WHEN action = 'search' AND query = '' THEN 'query is missing in a search' END,
            CASE WHEN action <> 'search' AND item_id = '' THEN 'item_id is missing' END) AS reason
        FROM (SELECT place, blank(user_id) AS user_id, blank(ts) AS ts_text, moment(blank(ts)) AS ts, lower(blank(action)) AS action,
                  CASE WHEN lower(blank(action)) = 'search' OR lower(blank(item_id)) = 'nan' THEN '' ELSE blank(item_id) END AS item_id,
                  blank(query) AS query, blank(position) AS position_text, TRY_CAST(blank(position) AS INTEGER) AS position
              FROM new_events);
    INSERT INTO stage_events SELECT user_id, ts, action, item_id, query, position FROM checked WHERE reason IS NULL;
"""
_TAKE_EXPOSURES = """
    CREATE OR REPLACE TEMP TABLE checked AS SELECT *, coalesce(
            CASE WHEN query = '' THEN 'query is missing' END, CASE WHEN item_id = '' THEN 'item_id is missing' END,
            CASE WHEN position_text = '' THEN 'position is missing' END, position_problem(position_text), moment_problem('ts', ts_text, ts)) AS reason
        FROM (SELECT place, blank(query) AS query, blank(item_id) AS item_id, blank(position) AS position_text,
                  TRY_CAST(blank(position) AS INTEGER) AS position, blank(ts) AS ts_text, moment(blank(ts)) AS ts FROM new_exposures);
    INSERT INTO stage_exposures SELECT query, item_id, position, ts FROM checked WHERE reason IS NULL;
"""
# A product with one unreadable value is kept without that value, and the value is noted: its title is worth more than its price.
_TAKE_ITEMS = """
    CREATE OR REPLACE TEMP TABLE checked AS SELECT *, coalesce(
            CASE WHEN item_id = '' THEN 'item_id is missing' END,
            CASE WHEN price_text <> '' AND price IS NULL THEN 'price ''' || price_text || ''' is not a number; the item was kept without it' END,
            CASE WHEN first_text <> '' AND moment_problem('first_seen', first_text, first_seen) IS NOT NULL
                THEN moment_problem('first_seen', first_text, first_seen) || '; the item was kept without it' END,
            CASE WHEN stock_text <> '' AND in_stock IS NULL THEN 'in_stock ''' || stock_text || ''' is not true or false; the item was kept' END,
            CASE WHEN attributes_text <> '' AND attributes IS NULL
                THEN 'attributes ''' || attributes_text || ''' is not a JSON object; the item was kept without it' END) AS reason
        FROM (SELECT place, CASE WHEN lower(blank(item_id)) = 'nan' THEN '' ELSE blank(item_id) END AS item_id, tidy(title) AS title,
                  tidy(category) AS category, tidy(brand) AS brand, tidy(color) AS color, tidy(size) AS size,
                  CASE WHEN lower(blank(price)) = 'nan' THEN '' ELSE blank(price) END AS price_text, money(price_text) AS price,
                  tidy(description) AS description, blank(attributes) AS attributes_text,
                  CASE WHEN json_valid(attributes_text) AND starts_with(attributes_text, '{')
                      THEN filled(from_json(attributes_text, '"MAP(VARCHAR,VARCHAR)"')) END AS attributes,
                  blank(parent_id) AS parent_id, blank(first_seen) AS first_text, moment(first_text) AS first_seen,
                  lower(blank(in_stock)) AS stock_text,
                  CASE WHEN stock_text IN ('true', 't', '1', 'yes', '1.0') THEN TRUE
                      WHEN stock_text IN ('false', 'f', '0', 'no', '0.0') THEN FALSE END AS in_stock
              FROM new_items);
    INSERT INTO stage_items SELECT item_id, title, category, brand, color, size, price, description, attributes, parent_id,
        CASE WHEN moment_problem('', first_text, first_seen) IS NULL THEN first_seen END, in_stock FROM checked WHERE item_id <> '';
"""
# The line of a row is its place, moved on by the lines the parser refused before it and by line breaks inside quoted fields before it.
_NOTE_ROWS = """
    INSERT INTO stage_rejects
    WITH bad AS (SELECT place, reason FROM checked WHERE reason IS NOT NULL),
        breaks AS (SELECT place, length(t) - length(replace(t, chr(10), '')) AS n
                   FROM (SELECT place, concat(*COLUMNS(* EXCLUDE (place))) AS t FROM raw) WHERE contains(t, chr(10))),
        moved AS (SELECT place, reason, place + $first + coalesce((SELECT sum(n) FROM breaks WHERE breaks.place < bad.place), 0) AS line FROM bad),
        broken AS (SELECT line - row_number() OVER (ORDER BY line) + 1 AS line FROM broken_lines)
    SELECT $source, line + (SELECT count(*) FROM broken WHERE broken.line <= moved.line), reason, left(shown.row, 1000)
    FROM moved JOIN shown USING (place)
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
    """The temporary tables of one ingest on one cursor. `mapping` renames columns ("events.user_id": "customer"; "=click" is a constant)."""

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, desk: Desk, mapping: Mapping[str, str], progress: Callable[[str], None] = lambda _: None
    ) -> None:
        self.cursor, self.desk, self.mapping, self.progress = cursor, desk, mapping, progress
        self.readings: list[Reading] = []  # what the files were taken for, in the order of reading
        self._raw: RawFile | None = None
        cursor.execute("SET TimeZone = 'UTC'")
        with suppress(duckdb.InvalidInputException):  # it is not there at the first ingest into an open database
            cursor.remove_function("html_unescape")
        cursor.create_function("html_unescape", html.unescape, ["VARCHAR"], "VARCHAR")
        cursor.execute(_TABLES + _MACROS)

    def begin(self, source: SourceFile) -> RawFile:
        """The next file to read; call one of its read_ methods, define a `new_` view over `raw`, then take."""
        self.progress(f"reading {source.filename}")
        self.cursor.execute("DELETE FROM broken_lines")
        self._raw = RawFile(self.cursor, source, self.desk)
        return self._raw

    def take_items(self) -> None:
        """Checks `new_items` (place and ITEM_COLUMNS) and keeps it."""
        self._take(_TAKE_ITEMS)

    def take_events(self) -> None:
        """Checks `new_events` (place and EVENT_COLUMNS) and keeps it."""
        self._take(_TAKE_EVENTS)

    def take_exposures(self) -> None:
        """Checks `new_exposures` (place and EXPOSURE_COLUMNS) and keeps it."""
        self._take(_TAKE_EXPOSURES)

    def _take(self, sql: str) -> None:
        raw = self._current()
        self.note_broken()
        self.cursor.execute(sql)
        if self.cursor.execute("SELECT 1 FROM checked WHERE reason IS NOT NULL LIMIT 1").fetchone():
            self.cursor.execute(_NOTE_TEXT if raw.text_rows else _NOTE_ROWS, {"source": str(raw.source), "first": raw.first})

    def note_broken(self) -> None:
        """Notes the lines no parser could read; taking does this by itself."""
        raw = self._current()
        if raw.broken:
            self.cursor.executemany("INSERT INTO stage_rejects VALUES (?, ?, ?, left(?, 1000))", [(str(raw.source), *row) for row in raw.broken])
            self.cursor.executemany("INSERT INTO broken_lines VALUES (?)", [(line,) for line, _, _ in raw.broken if line > 0] or [(2**40,)])
            raw.broken = []

    def note_rows(self, sql: str) -> None:
        """Notes the rows of `raw` that `sql` (SELECT place, reason) finds wrong; the reader leaves them out itself."""
        raw = self._current()
        self.note_broken()
        self.cursor.execute("CREATE OR REPLACE TEMP TABLE checked AS " + sql)
        self.cursor.execute(_NOTE_TEXT if raw.text_rows else _NOTE_ROWS, {"source": str(raw.source), "first": raw.first})

    def _current(self) -> RawFile:
        if self._raw is None:
            raise IngestError("Nothing was read yet.")
        return self._raw

    def counts(self) -> dict[str, int]:
        """Rows waiting: items, events, exposures, rejects."""
        row = self.cursor.execute(
            """SELECT (SELECT count(*) FROM stage_items), (SELECT count(*) FROM stage_events), (SELECT count(*) FROM stage_exposures),
                   (SELECT count(*) FROM stage_rejects)"""
        ).fetchone()
        assert row is not None
        return dict(zip(("items", "events", "exposures", "rejects"), (int(number) for number in row), strict=True))

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


def columns_of(names: Sequence[str]) -> dict[str, str]:
    """Lower-case column name of the file -> our name for it in `raw` (x0, x1, ...); of equal names the first counts."""
    found: dict[str, str] = {}
    for number, name in enumerate(names):
        found.setdefault(name.strip().lower(), f"x{number}")
    return found


def pick(columns: Mapping[str, str], *names: str) -> str:
    """The SQL expression of the first of `names` that the file has, else NULL."""
    return next((columns[name] for name in names if name in columns), "NULL::VARCHAR")
