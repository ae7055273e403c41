"""Parquet files of one table, the form in which training stages hand results on: equal rows give equal bytes.

It knows no table of recgraph; the caller gives the rows in the order they shall keep. Everything goes through an in-memory DuckDB with one
thread, because several threads may cut row groups differently from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from recgraph.errors import StoreError

Column = Sequence[Any] | npt.NDArray[Any]
OPTIONS = "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880)"


def quoted(path: str | Path) -> str:
    """A path as an SQL literal, for COPY, which takes no parameter there."""
    return "'" + str(path).replace("'", "''") + "'"


def write_table(file: str | Path, columns: Mapping[str, Column]) -> None:
    """Writes equally long columns in the order given; folders are made. A column is text (None allowed), numbers, truths, `datetime`s or
    datetime64, float32[n, d] vectors, or lists of whole numbers or of text (one list a row)."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    sources: dict[str, npt.NDArray[Any]] = {}
    parts = [_part(number, name, values, sources) for number, (name, values) in enumerate(columns.items())]
    if len({len(values) for values in columns.values()}) > 1:
        raise ValueError(f"columns of different lengths: { {name: len(values) for name, values in columns.items()} }")
    with _memory() as con:
        con.register("given", sources)
        con.execute(f"COPY (SELECT {', '.join(parts)} FROM given) TO {quoted(file)} {OPTIONS}")  # noqa: S608 - names are quoted


def read_table(file: str | Path) -> dict[str, Any]:
    """The columns as `write_table` took them: numpy arrays for numbers, truths and times (datetime64[us]), float32[n, d] for vectors,
    lists for text and lists. Raises StoreError where there is no such file."""
    if not Path(file).is_file():
        raise StoreError(f"There is no file {file}.")
    with _memory() as con:
        described = con.execute("SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM read_parquet(?))", [str(file)]).fetchall()
        return {name: _column(con, str(file), name, kind) for name, kind in described}


@contextmanager
def _memory() -> Iterator[duckdb.DuckDBPyConnection]:
    con = duckdb.connect(":memory:", config={"threads": 1, "autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    try:
        yield con
    finally:
        con.close()


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _part(number: int, name: str, values: Column, sources: dict[str, npt.NDArray[Any]]) -> str:
    """The SQL of one output column; what it reads is put into `sources`."""
    here = f"c{number}"
    if isinstance(values, np.ndarray) and values.ndim == 2:
        # One flat column a dimension: DuckDB would take a list column one numpy object a row.
        flat = np.asarray(values, np.float32)
        sources.update({f"{here}_{place}": np.ascontiguousarray(flat[:, place]) for place in range(flat.shape[1])})
        return f"list_value({', '.join(f'{here}_{place}' for place in range(flat.shape[1]))}) AS {_name(name)}"
    typed = isinstance(values, np.ndarray) and values.dtype.kind not in "OU"  # an empty column of text or lists has no first value
    first = None if typed else next((value for value in values if value is not None), "")
    kind = ""
    if isinstance(first, list | tuple):
        sources[here] = _objects([list(value) for value in values])
        inner = next((value for row in values for value in row), 0)
        kind = "VARCHAR[]" if isinstance(inner, str) else "INTEGER[]"
    elif isinstance(first, str):
        sources[here], kind = _objects(values), "VARCHAR"
    elif isinstance(first, datetime):
        sources[here], kind = np.asarray(values, "datetime64[us]"), "TIMESTAMP"
    else:
        sources[here] = np.ascontiguousarray(values)
        kind = "TIMESTAMP" if sources[here].dtype.kind == "M" else ""
        if kind:
            sources[here] = sources[here].astype("datetime64[us]")
    return (f"{here}::{kind}" if kind else here) + f" AS {_name(name)}"


def _objects(values: Column) -> npt.NDArray[Any]:
    column = np.empty(len(values), object)
    column[:] = list(values)
    return column


def _column(con: duckdb.DuckDBPyConnection, file: str, name: str, kind: str) -> Any:
    if kind == "FLOAT[]":
        rows = con.execute("SELECT count(*) FROM read_parquet(?)", [file]).fetchall()[0][0]
        flat = con.execute(f"SELECT unnest({_name(name)}) AS number FROM read_parquet(?)", [file]).fetchnumpy()["number"]  # noqa: S608 - quoted
        return np.asarray(flat, np.float32).reshape(rows, -1) if rows else np.zeros((0, 0), np.float32)
    if kind.endswith("[]") or kind == "VARCHAR":
        return [value for (value,) in con.execute(f"SELECT {_name(name)} FROM read_parquet(?)", [file]).fetchall()]  # noqa: S608 - quoted
    found = con.execute(f"SELECT {_name(name)} AS found FROM read_parquet(?)", [file]).fetchnumpy()["found"]  # noqa: S608 - quoted
    column = np.asarray(found.data if isinstance(found, np.ma.MaskedArray) and not found.mask.any() else found)
    return column.astype("datetime64[us]") if column.dtype.kind == "M" else column
