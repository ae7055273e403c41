"""Raw files into DuckDB: a file becomes the temporary view `raw`, all text, a row a line, in file order; what no parser reads is noted.

`raw` has a column `place` (0 for the first data row) and either named text columns (delimited and Parquet files) or `text` (JSON lines).
It knows file shapes, not what the columns mean; `store/ingest/staging.py` does.
"""

from __future__ import annotations

import ast
import csv
import gzip
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import duckdb

from recgraph.errors import IngestError

MAX_LINE = 8_000_000  # bytes of one line: metadata of Amazon has lines of several hundred kB
_REPAIRS = 20  # broken quotes mended in one file before the rest of it is given up


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked where its name ends in .gz."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def first_line(path: Path) -> str:
    """The first line that is not blank, without its end; "" for an empty file. Raises IngestError where the file cannot be read."""
    try:
        with open_bytes(path) as stream:
            for line in stream:
                if line.strip():
                    return line.decode("utf-8-sig", errors="replace").rstrip("\r\n")
    except (OSError, EOFError) as error:
        raise IngestError(f"{path} cannot be read: {error}") from None
    return ""


def header(path: Path, delimiters: str = ",;\t|") -> tuple[list[str], str]:
    """The column names of a delimited file and its delimiter, the one of `delimiters` that gives the most columns."""
    line = first_line(path)
    found = [(next(csv.reader([line], delimiter=delimiter), []), delimiter) for delimiter in delimiters]
    names, delimiter = max(found, key=lambda pair: len(pair[0]))
    return [name.strip() for name in names], delimiter


column_names = header  # under a name that read_delimited's argument does not hide


class RawFile:
    """One file being read into `raw` on `cursor`; `broken` are the lines no parser could read, as (line, reason, raw)."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, path: Path, scratch: Path) -> None:
        self.cursor, self.path, self.scratch = cursor, path, scratch
        self.broken: list[tuple[int, str, str]] = []
        self.first = 1  # line of the row at place 0
        self.text_rows = False  # `raw` is one column `text`: a line as it stands
        self.names: dict[str, str] = {}  # column of `raw` -> the file's own name of it: rejected rows are shown under these

    def read_delimited(self, columns: Sequence[str], delimiter: str, quote: str = '"', header: bool = True) -> None:
        """`columns` are names of our own choosing for the file's columns, in its order."""
        self.first = 2 if header else 1
        self.names = dict(zip(columns, column_names(self.path, delimiter)[0], strict=False)) if header else {}
        source, removed = self.path, list[int]()
        for attempt in range(_REPAIRS + 1):
            try:
                self._scan(source, columns, delimiter, quote, header)
            except duckdb.Error as error:
                if attempt:
                    raise IngestError(f"{self.path} cannot be read: {str(error).splitlines()[0]}") from None
                source = self._copy_without(removed)  # evens out mixed line ends, which DuckDB's reader refuses
                continue
            rejected = self._rejected(source, removed)
            # A quote that is never closed swallows the rest of the file. That one line is taken out, and the file read again.
            swallowed = min((line for line, kind, _, _ in rejected if kind == "UNQUOTED VALUE"), default=None)
            if swallowed is None or attempt == _REPAIRS:
                self.broken += [(line, f"{kind.lower()}: {message}", raw) for line, kind, message, raw in rejected]
                break
            self.broken += [(line, "a quote is never closed", raw.splitlines()[0]) for line, _, _, raw in rejected if line == swallowed]
            removed = sorted([*removed, swallowed])
            source = self._copy_without(removed)
        self.cursor.execute("CREATE OR REPLACE TEMP VIEW raw AS SELECT rowid AS place, * FROM lines")

    def _scan(self, source: Path, columns: Sequence[str], delimiter: str, quote: str, header: bool) -> None:
        self._forget_rejected()
        kinds = dict.fromkeys(columns, "VARCHAR")
        self.cursor.execute(
            """CREATE OR REPLACE TEMP TABLE lines AS SELECT * FROM read_csv(?, columns = ?, header = ?, delim = ?, quote = ?, escape = ?,
                   auto_detect = false, store_rejects = true, max_line_size = ?, buffer_size = ?, compression = ?)""",
            [str(source), kinds, header, delimiter, quote, quote, MAX_LINE, 4 * MAX_LINE, "gzip" if source.suffix == ".gz" else "none"],
        )

    def _forget_rejected(self) -> None:
        for table in ("reject_errors", "reject_scans"):
            self.cursor.execute(f"DROP TABLE IF EXISTS {table}")

    def _rejected(self, source: Path, removed: Sequence[int]) -> list[tuple[int, str, str, str]]:
        """(line of the original file, kind, message, raw) of each row DuckDB's parser refused; one entry a line."""
        rows = self.cursor.execute(
            """SELECT line_byte_position, first(error_type::VARCHAR), first(error_message), first(coalesce(csv_line, '')) FROM reject_errors
               GROUP BY line_byte_position ORDER BY line_byte_position"""
        ).fetchall()
        found = []
        # DuckDB's own line number counts rows: it falls behind where a quoted field holds a line break.
        for original, (_, kind, message, raw) in zip(_lines_at(source, [int(row[0]) for row in rows]), rows, strict=True):
            for gone in removed:  # ascending, so each one counted shifts the rest
                original += gone <= original
            found.append((original, str(kind), str(message).splitlines()[0], str(raw)))
        return found

    def _copy_without(self, removed: Sequence[int]) -> Path:
        target, gone = self.scratch / "mended.csv", set(removed)
        try:
            with open_bytes(self.path) as stream, target.open("wb") as copy:
                for number, line in enumerate(stream, start=1):
                    if number not in gone:
                        copy.write(line.rstrip(b"\r\n") + b"\n")
        except EOFError:
            self.broken.append((0, "the file ends early: its gzip stream is cut off", ""))
        except OSError as error:
            raise IngestError(f"{self.path} cannot be read: {error}") from None
        return target

    def read_json_lines(self, literals: bool = False) -> None:
        """JSON objects, one a line. With `literals`, Python dict literals (Amazon 2014 metadata) are turned into JSON first."""
        source = self._without_literals() if literals and not _is_json(first_line(self.path)) else self.path
        self._scan_lines(source)
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
        self._scan_lines(self.path)
        self.cursor.execute("CREATE OR REPLACE TEMP VIEW raw AS SELECT rowid AS place, text FROM lines WHERE trim(text) <> ''")

    def _scan_lines(self, source: Path) -> None:
        self.text_rows = True
        try:
            # A control character that neither JSON nor text files hold as delimiter: a line is one column, and rowid counts lines.
            self._scan(source, ["text"], "\x01", "", header=False)
        except duckdb.Error as error:
            raise IngestError(f"{self.path} cannot be read: {str(error).splitlines()[0]}") from None
        self.broken += [(line, f"{kind.lower()}: {message}", raw) for line, kind, message, raw in self._rejected(source, [])]

    def _without_literals(self) -> Path:
        """A copy with each Python literal as JSON; a line that is neither is copied as it is, so that it is rejected under its number."""
        target = self.scratch / "literals.jsonl"
        try:
            with open_bytes(self.path) as stream, target.open("w", encoding="utf-8") as copy:
                for line in stream:
                    text = line.decode("utf-8", errors="replace").strip()
                    copy.write(_literal_as_json(text) + "\n")
        except EOFError:
            self.broken.append((0, "the file ends early: its gzip stream is cut off", ""))
        except OSError as error:
            raise IngestError(f"{self.path} cannot be read: {error}") from None
        return target

    def read_parquet(self, names: Mapping[str, str], nested: Sequence[str] = ()) -> None:
        """`names` maps our column names to the file's; `nested` are those of ours that are maps or structs and become JSON text."""
        parts = [
            (f'to_json("{_quoted(theirs)}")::VARCHAR' if ours in nested else f'"{_quoted(theirs)}"::VARCHAR') + f" AS {ours}"
            for ours, theirs in names.items()
        ]
        self.names = dict(names)
        try:
            self.cursor.execute(
                "CREATE OR REPLACE TEMP TABLE lines AS SELECT " + ", ".join(parts) + " FROM read_parquet(?)",  # noqa: S608 - quoted
                [str(self.path)],
            )
        except duckdb.Error as error:
            raise IngestError(f"{self.path} cannot be read: {str(error).splitlines()[0]}") from None
        self.cursor.execute("CREATE OR REPLACE TEMP VIEW raw AS SELECT rowid AS place, * FROM lines")


def parquet_columns(cursor: duckdb.DuckDBPyConnection, path: Path) -> dict[str, str]:
    """Column name -> DuckDB type of a Parquet file."""
    try:
        rows = cursor.execute("SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM read_parquet(?))", [str(path)]).fetchall()
    except duckdb.Error as error:
        raise IngestError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    return {str(name): str(kind) for name, kind in rows}


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for mended copies, gone after the ingest."""
    return tempfile.TemporaryDirectory(prefix="recgraph-ingest-")


def _quoted(name: str) -> str:
    return name.replace('"', '""')


def _lines_at(path: Path, positions: Sequence[int]) -> Iterator[int]:
    """The line, from 1, in which each byte position (ascending, of the unpacked file) lies."""
    line, at = 1, 0
    if not positions:
        return
    with open_bytes(path) as stream:
        for position in positions:
            while at < position:
                part = stream.read(min(2**20, position - at))
                if not part:
                    break
                line, at = line + part.count(b"\n"), at + len(part)
            yield line


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _literal_as_json(text: str) -> str:
    if not text or _is_json(text):
        return text
    try:
        return json.dumps(ast.literal_eval(text), ensure_ascii=False).replace("\x01", " ")
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
