"""Rows into DuckDB: a file becomes the temporary view `raw`, all text, a row a line, in file order; what no parser
reads is noted.

`raw` has a column `place` (0 for the first data row) and either text columns x0, x1, ... (delimited and Parquet
files) or `text` (JSON lines). It knows how DuckDB reads, not what the columns mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb

from recgraph.errors import IngestError
from recgraph.store.files.cells import is_json, literal_as_json, with_arrays
from recgraph.store.files.layout import DELIMITERS, Layout, layout_of
from recgraph.store.files.plain import SourceFile, new_file
from recgraph.store.files.shapes import Table, sheets, table
from recgraph.store.ingest.times import literal

MAX_LINE = 8_000_000  # bytes of one line: metadata of Amazon has lines of several hundred kB
_LOOK = 2**20  # bytes of a file's beginning that are enough to look at
_HOPELESS = 2  # times as many rows refused as read
_REPAIRS = 20  # broken quotes mended in one file before the rest of it is given up


class Desk:
    """The plain copies of an ingest's files in its scratch folder, each made once. `limit` rows are read of a file
    where it is given."""

    def __init__(self, scratch: Path, encoding: str = "", limit: int = 0) -> None:
        self.scratch, self.encoding, self.limit = scratch, encoding, limit
        self._whole: dict[SourceFile, Table] = {}
        self._heads: dict[SourceFile, Table] = {}

    def sheets(self, source: SourceFile) -> list[SourceFile]:
        return sheets(source, self.scratch)

    def table(self, source: SourceFile) -> Table:
        """The whole file, or what a limit leaves of it."""
        if self.limit:
            return self.head(source)
        if source not in self._whole:
            self._whole[source] = self._read(source)
        return self._whole[source]

    def _read(self, source: SourceFile, limit: int = 0) -> Table:
        made = table(source, self.scratch, self.encoding, limit)
        return with_arrays(made, new_file(self.scratch)) if made.form == "csv" else made

    def head(self, source: SourceFile) -> Table:
        """The beginning of the file."""
        if source not in self._heads:
            made = self._read(source, _LOOK)
            self._heads[source] = made
            if made.whole:
                self._whole[source] = made
        return self._heads[source]


class RawFile:
    """One file being read into `raw` on `cursor`; `broken` are the lines no parser could read, as (line, reason,
    raw)."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, source: SourceFile, desk: Desk) -> None:
        self.cursor, self.source, self.desk = cursor, source, desk
        self.table = desk.table(source)
        self.broken: list[tuple[int, str, str]] = [(0, reason, "") for reason in self.table.broken]
        self.first = 1  # line of the row at place 0
        self.text_rows = False  # `raw` is one column `text`: a line as it stands
        self.names: dict[
            str, str
        ] = {}  # column of `raw` -> the file's own name of it: rejected rows are shown under these

    def layout(
        self, delimiters: Sequence[str] = DELIMITERS, titled: bool | None = True, quote: str | None = None
    ) -> Layout:
        """How the file is laid out; by default its first row is a header."""
        return layout_of(self.table.path, delimiters, titled, quote)

    def read_delimited(self, layout: Layout) -> None:
        """The file's columns as x0, x1, ... in its order."""
        self.first = layout.skip + (2 if layout.header else 1)
        # What stands above the table is cut off: DuckDB's own skipping loses all rows where line ends are mixed.
        removed = list(range(1, layout.skip + 1))
        source = self._copy_without(removed) if removed else self.table.path
        hopeless = 0
        for attempt in range(_REPAIRS + 1):
            try:
                self._scan(source, [f"x{n}" for n in range(len(layout.names))], layout)
            except duckdb.Error as error:
                if attempt:
                    raise IngestError(f"{self.source} cannot be read: {str(error).splitlines()[0]}") from None
                source = self._copy_without(removed)  # evens out mixed line ends, which DuckDB's reader refuses
                continue
            rejected = self._rejected(source, removed)
            # A quote that is never closed swallows the rest of the file. That one line is taken out, and the file read
            # again.
            swallowed = min((line for line, kind, _, _ in rejected if kind == "UNQUOTED VALUE"), default=None)
            # An open quote turns inside and outside round up to the next one, and taking it out turns them back: of two
            # readings one has most of the rows, unless the quotes of the file are none.
            hopeless = hopeless + 1 if len(rejected) > _HOPELESS * self._read() else 0
            if swallowed is None or attempt == _REPAIRS or hopeless == 2:
                self.broken += [(line, f"{kind.lower()}: {message}", raw) for line, kind, message, raw in rejected]
                break
            self.broken += [
                (line, "a quote is never closed", raw.partition("\n")[0].rstrip("\r"))
                for line, _, _, raw in rejected
                if line == swallowed
            ]
            removed = sorted([*removed, swallowed])
            source = self._copy_without(removed)
        self._name(layout.names, repeated=layout.header)

    def _read(self) -> int:
        """How many rows were read."""
        row = self.cursor.execute("SELECT count(*) FROM lines").fetchone()
        assert row is not None
        return int(row[0])

    def _name(self, names: Sequence[str], repeated: bool = False) -> None:
        """`raw` of `lines`, whose columns keep the file's names in mind. `repeated` says that the header may stand in
        the middle too, as it does where files were put one after the other."""
        same = [f"trim(x{n}, ' ' || chr(65279)) = {literal(name)}" for n, name in enumerate(names) if name]
        header = ""
        if repeated and len(same) > 1:
            condition = " AND ".join(same)
            if self.cursor.execute(f"SELECT 1 FROM lines WHERE {condition} LIMIT 1").fetchone():  # noqa: S608 - literals
                header = f" WHERE ({condition}) IS NOT TRUE"
        self.cursor.execute(f"CREATE OR REPLACE TEMP VIEW raw AS SELECT rowid AS place, * FROM lines{header}")  # noqa: S608 - literals
        self.names = {f"x{number}": name or f"column {number + 1}" for number, name in enumerate(names)}

    def _scan(self, source: Path, columns: Sequence[str], layout: Layout) -> None:
        self.cursor.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")
        kinds = dict.fromkeys(columns, "VARCHAR")
        self.cursor.execute(
            """CREATE OR REPLACE TEMP TABLE lines AS SELECT * FROM read_csv(?, columns = ?, header = ?, delim = ?, quote = ?, escape = ?,
                   auto_detect = false, store_rejects = true, max_line_size = ?, buffer_size = ?, compression = 'none') LIMIT ?""",
            [
                str(source),
                kinds,
                layout.header,
                layout.delimiter,
                layout.quote,
                layout.escape,
                MAX_LINE,
                4 * MAX_LINE,
                self.desk.limit or None,
            ],
        )

    def _rejected(self, source: Path, removed: Sequence[int]) -> list[tuple[int, str, str, str]]:
        """(line of the original file, kind, message, raw) of each row DuckDB's parser refused; one entry a line."""
        rows = self.cursor.execute(
            """SELECT line_byte_position, first(error_type::VARCHAR), first(error_message), first(left(coalesce(csv_line, ''), 1000))
               FROM reject_errors
               GROUP BY line_byte_position ORDER BY line_byte_position"""
        ).fetchall()
        found = []
        # DuckDB's own line number counts rows: it falls behind where a quoted field holds a line break.
        for original, (_, kind, message, raw) in zip(
            _lines_at(source, [int(row[0]) for row in rows]), rows, strict=True
        ):
            for gone in removed:  # ascending, so each one counted shifts the rest
                original += gone <= original
            found.append((original, str(kind), str(message).splitlines()[0], str(raw)))
        return found

    def _copy_without(self, removed: Sequence[int]) -> Path:
        target, gone = self.desk.scratch / "mended.csv", set(removed)
        with self.table.path.open("rb") as stream, target.open("wb") as copy:
            for number, line in enumerate(stream, start=1):
                if number not in gone:
                    copy.write(_without_returns(line.rstrip(b"\r\n")) + b"\n")
        return target

    def read_json_lines(self, literals: bool = False) -> None:
        """JSON objects, one a line. With `literals`, Python dict literals (Amazon 2014 metadata) are turned into
        JSON first."""
        self._scan_lines(self._without_literals() if literals and self._has_literals() else self.table.path)
        # Python and pandas write NaN, which JSON does not know: it is looked for only in what is no JSON.
        self.cursor.execute(
            r"""UPDATE lines SET text = regexp_replace(text, '([:\[,]\s*)(NaN|-?Infinity)(\s*[,\]}])', '\1null\3', 'g')
               WHERE NOT json_valid(text) AND regexp_matches(text, '[:\[,]\s*(NaN|-?Infinity)')"""
        )
        rows = self.cursor.execute(
            """SELECT rowid + 1, 'not a JSON object', left(text, 1000) FROM lines
               WHERE trim(text) <> '' AND NOT (json_valid(text) AND starts_with(ltrim(text), '{'))"""
        ).fetchall()
        self.broken += [(int(line), reason, raw) for line, reason, raw in rows]
        self.cursor.execute(
            """CREATE OR REPLACE TEMP VIEW raw AS SELECT rowid AS place, text FROM lines
               WHERE json_valid(text) AND starts_with(ltrim(text), '{')"""
        )

    def read_text_lines(self) -> None:
        """Every line that is not blank, as it stands."""
        self._scan_lines(self.table.path)
        self.cursor.execute(
            "CREATE OR REPLACE TEMP VIEW raw AS SELECT rowid AS place, text FROM lines WHERE trim(text) <> ''"
        )

    def _scan_lines(self, source: Path) -> None:
        self.text_rows = True
        try:
            # A control character that neither JSON nor text files hold as delimiter: a line is one column, and rowid
            # counts lines.
            self._scan(source, ["text"], Layout(("text",), "\x01", "", "", 0, False, ()))
        except duckdb.Error as error:
            raise IngestError(f"{self.source} cannot be read: {str(error).splitlines()[0]}") from None
        self.broken += [
            (line, f"{kind.lower()}: {message}", raw) for line, kind, message, raw in self._rejected(source, [])
        ]

    def _has_literals(self) -> bool:
        with self.table.path.open(encoding="utf-8", errors="replace") as stream:
            return not is_json(next((line for line in stream if line.strip()), "{}"))

    def _without_literals(self) -> Path:
        """A copy with each Python literal as JSON; a line that is neither is copied as it is, so that it is rejected
        under its number."""
        target = self.desk.scratch / "literals.jsonl"
        with self.table.path.open("rb") as stream, target.open("w", encoding="utf-8") as copy:
            for line in stream:
                copy.write(literal_as_json(line.decode("utf-8", errors="replace").strip()) + "\n")
        return target

    def read_parquet(self, types: Mapping[str, str]) -> None:
        """The columns of `types` (name -> DuckDB's type) as x0, x1, ...; maps, lists and structs become JSON text."""
        parts = [
            (f"to_json({quoted(name)})::VARCHAR" if is_nested(kind) else f"{quoted(name)}::VARCHAR") + f" AS x{number}"
            for number, (name, kind) in enumerate(types.items())
        ]
        self._scan_parquet(", ".join(parts))
        self._name(list(types))

    def read_parquet_objects(self) -> None:
        """Each row as a JSON object in `text`, like a line of JSON: for files whose columns hold structs."""
        self.text_rows = True
        self._scan_parquet("to_json(file)::VARCHAR AS text")
        self.cursor.execute("CREATE OR REPLACE TEMP VIEW raw AS SELECT rowid AS place, text FROM lines")

    def _scan_parquet(self, columns: str) -> None:
        try:
            self.cursor.execute(
                f"CREATE OR REPLACE TEMP TABLE lines AS SELECT {columns} FROM read_parquet(?) AS file LIMIT ?",  # noqa: S608 - quoted
                [str(self.table.path), self.desk.limit or None],
            )
        except duckdb.Error as error:
            raise IngestError(f"{self.source} cannot be read: {str(error).splitlines()[0]}") from None


def parquet_columns(cursor: duckdb.DuckDBPyConnection, table: Table) -> dict[str, str]:
    """Column name -> DuckDB type of a Parquet file."""
    try:
        rows = cursor.execute(
            "SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM read_parquet(?))", [str(table.path)]
        ).fetchall()
    except duckdb.Error as error:
        raise IngestError(f"{table.source} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    return {str(name): str(kind) for name, kind in rows}


def is_nested(kind: str) -> bool:
    """Whether a DuckDB type holds several values."""
    return kind.startswith(("MAP", "STRUCT", "JSON")) or kind.endswith("[]")


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _lines_at(path: Path, positions: Sequence[int]) -> Iterator[int]:
    """The line, from 1, in which each byte position (ascending, of the plain file) lies."""
    line, at = 1, 0
    if not positions:
        return
    with path.open("rb") as stream:
        for position in positions:
            while at < position:
                part = stream.read(min(2**20, position - at))
                if not part:
                    break
                line, at = line + part.count(b"\n"), at + len(part)
            yield line


def _without_returns(line: bytes) -> bytes:
    """A line that other ends of line are in: each ends a row, but for those in quotes, which become blanks."""
    if b"\r" not in line:
        return line
    parts = line.split(b'"')
    return b'"'.join(part.replace(b"\r", b" " if n % 2 else b"\n") for n, part in enumerate(parts))
