"""The Parquet file of one shard of a batch: written beside its place, put on the disk, then given its name, so that what
has the name is whole. It carries the label of the batch that it is of. Where its rows come from is unknown here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from recgraph.store.batch import tables
from recgraph.store.batch.tables import Row, in_memory

# A row a product, `rank` from 1. `score` to `reason` and `event_seqs` are those of the public JSON (DESIGN 8). About the
# user's answer, the same in each of its rows: `events` are how many events of theirs there were, `degraded` what had to
# be done without, `run` the JSON of its `models`, `prediction`, `tokens` and `plan`.
COLUMNS = {
    **{"user_id": "VARCHAR", "rank": "INTEGER", "item_id": "VARCHAR", "score": "DOUBLE", "yes": "DOUBLE"},
    **{"source": "VARCHAR", "reason": "VARCHAR", "event_seqs": "INTEGER[]", "events": "BIGINT"},
    **{"degraded": "VARCHAR[]", "run": "VARCHAR"},
}
_PARTS = "part-*.parquet"


def file_of(folder: Path, shard: int) -> Path:
    """Where a shard lies."""
    return folder / f"part-{shard:05}.parquet"


def write(folder: Path, shard: int, rows: Sequence[Row], facts: Mapping[str, str]) -> None:
    """The rows of a shard and its facts, in place of what was there. StoreError where the disk does not take it."""
    tables.write(file_of(folder, shard), COLUMNS, rows, facts)


def facts(folder: Path, shard: int) -> dict[str, str]:
    """What `write` was told of a shard; nothing where there is no whole file."""
    return tables.facts_of(file_of(folder, shard))


def rows_of(folder: Path, shard: int) -> list[Row]:
    """All rows of a shard."""
    with in_memory() as con:
        command = f"SELECT {', '.join(COLUMNS)} FROM read_parquet(?)"  # noqa: S608 - constants
        return con.execute(command, [str(file_of(folder, shard))]).fetchall()


def sweep(folder: Path, but: Collection[int] = ()) -> None:
    """Takes away all shards but these, and what a killed batch left half written."""
    for left in folder.glob("*.new"):
        left.unlink(missing_ok=True)
    kept = {file_of(folder, shard) for shard in but}
    for file in folder.glob(_PARTS):
        if file not in kept:
            file.unlink()
