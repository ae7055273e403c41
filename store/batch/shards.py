"""The Parquet file of one shard of a batch: written beside its place, put on the disk, then given its name, so that what
has the name is whole. It carries the label of the batch that it is of; what its rows say is unknown here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from recgraph.errors import StoreError
from recgraph.store.connection import PRIVATE
from recgraph.store.parquet import facts_of, in_memory, put_in_place, write_table

Rows = dict[str, list[Any]]  # by column, equally long
_PARTS = "part-*.parquet"


def file_of(folder: Path, shard: int) -> Path:
    """Where a shard lies."""
    return folder / f"part-{shard:05}.parquet"


def write(folder: Path, shard: int, rows: Mapping[str, Sequence[Any]], facts: Mapping[str, str]) -> None:
    """The rows of a shard and its facts, in place of what was there. StoreError where the disk does not take it."""
    file = file_of(folder, shard)
    new = file.with_name(f"{file.name}.new")
    try:
        write_table(new, rows, facts)
        new.chmod(PRIVATE)
        put_in_place(new, file)
    except (OSError, duckdb.Error) as error:
        new.unlink(missing_ok=True)
        raise StoreError(f"{file} cannot be written ({error}). What was whole before is still there.") from error


def facts(folder: Path, shard: int) -> dict[str, str]:
    """What `write` was told of a shard; nothing where there is no whole file."""
    file = file_of(folder, shard)
    if not file.exists():
        return {}
    try:
        return facts_of(file)
    except StoreError:  # a disk that lost it: then it is made again
        return {}


def rows_of(folder: Path, shard: int) -> Rows:
    """All rows of a shard, by column."""
    with in_memory() as con:
        found = con.execute("SELECT * FROM read_parquet(?)", [str(file_of(folder, shard))])
        names = [column[0] for column in found.description or ()]
        rows = found.fetchall()
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def sweep(folder: Path, shards: int = 0) -> None:
    """Takes away what a killed batch left half written, and files of shards from `shards` on."""
    for left in folder.glob("*.new"):
        left.unlink(missing_ok=True)
    for file in folder.glob(_PARTS):
        if int(file.stem.removeprefix("part-")) >= shards:
            file.unlink()
