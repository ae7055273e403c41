"""Parquet files that a batch writes: typed columns of rows, facts in the file's own metadata, and a name only for what is
whole. `store/parquet.py` is for stages, whose columns tell what they are and whose bytes are their identity.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from recgraph.errors import StoreError
from recgraph.store.connection import CONFIG, PRIVATE
from recgraph.store.parquet import OPTIONS, quoted

Row = tuple[Any, ...]


@contextmanager
def in_memory() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB of no file, for reading and writing Parquet."""
    with duckdb.connect(":memory:", config={**CONFIG, "threads": 1}) as con:
        yield con


def write(file: Path, columns: Mapping[str, str], rows: Sequence[Row], facts: Mapping[str, str]) -> None:
    """Rows with the columns of these names and SQL types, whole and on the disk, in place of what had the name.
    StoreError where the disk does not take it; then that is still there."""
    new = file.with_name(f"{file.name}.new")
    given = {f"c{place}": _column(kind, [row[place] for row in rows]) for place, kind in enumerate(columns.values())}
    # Without a number that is one DuckDB finds no type in a column of objects, so numbers that may be missing are NaN.
    selected = ", ".join(
        f"nullif(c{place}, 'nan'::DOUBLE) AS {name}" if kind == "DOUBLE" else f"c{place}::{kind} AS {name}"
        for place, (name, kind) in enumerate(columns.items())
    )
    told = ", ".join(f"{name}: {quoted(value)}" for name, value in facts.items())
    try:
        with in_memory() as con:
            con.register("given", given)
            to = f"TO {quoted(new)} {OPTIONS[:-1]}, KV_METADATA {{{told}}})"
            con.execute(f"COPY (SELECT {selected} FROM given) {to}")  # noqa: S608 - constants and facts, quoted
        put_in_place(new, file)
    except (OSError, duckdb.Error) as error:
        new.unlink(missing_ok=True)
        raise StoreError(f"{file} cannot be written ({error}). What was whole before is still there.") from error


def _column(kind: str, values: Sequence[Any]) -> np.ndarray[Any, Any]:
    if kind == "DOUBLE":
        return np.array([np.nan if value is None else value for value in values], np.float64)
    column = np.empty(len(values), object)
    column[:] = values
    return column


def facts_of(file: Path) -> dict[str, str]:
    """The facts that `write` was given; none where there is no file, or none that is whole."""
    try:
        with in_memory() as con:
            found = con.execute("SELECT decode(key), decode(value) FROM parquet_kv_metadata(?)", [str(file)])
            return dict(found.fetchall())
    except duckdb.Error:
        return {}


def put_in_place(new: Path, file: Path) -> None:
    """Gives a file that was written its name, in place of what had it: whole, on the disk and its owner's alone, or not
    at all."""
    new.chmod(PRIVATE)
    with new.open("rb") as written:
        os.fsync(written.fileno())
    new.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
