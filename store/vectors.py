"""Embedding vectors in and out of DuckDB, in bulk through numpy: 5,000 vectors of 384 numbers take about a second, a
row at a time minutes.

Knows the table `embeddings` and nothing of what made the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import numpy.typing as npt

_CHUNK = 20_000  # vectors written at once: 30 MB of 384 numbers


def read_some(
    cursor: duckdb.DuckDBPyConnection, kind: str, model: str, keys: Sequence[str]
) -> tuple[list[str], npt.NDArray[np.float32]]:
    """The stored ones of `keys`, sorted, and their vectors [n, d]."""
    if not keys:
        return [], np.zeros((0, 0), np.float32)
    wanted = list(dict.fromkeys(keys))
    cursor.execute("CREATE OR REPLACE TEMP TABLE wanted_keys AS SELECT unnest(?::VARCHAR[]) AS key", [wanted])
    return _read(cursor, kind, model)


def read_all(cursor: duckdb.DuckDBPyConnection, kind: str, model: str) -> tuple[list[str], npt.NDArray[np.float32]]:
    """All keys of one kind and model, sorted, and their vectors [n, d]."""
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE wanted_keys AS SELECT key FROM embeddings WHERE kind = ? AND model = ?",
        [kind, model],
    )
    return _read(cursor, kind, model)


def _read(cursor: duckdb.DuckDBPyConnection, kind: str, model: str) -> tuple[list[str], npt.NDArray[np.float32]]:
    found = "SELECT key FROM embeddings SEMI JOIN wanted_keys USING (key) WHERE kind = ? AND model = ? ORDER BY key"
    keys = [key for (key,) in cursor.execute(found, [kind, model]).fetchall()]
    if not keys:
        return [], np.zeros((0, 0), np.float32)
    # Unnested, the numbers come as one flat column; a list column would come as one numpy object a row.
    numbers = cursor.execute(
        """SELECT unnest(vector) AS number FROM
               (SELECT vector FROM embeddings SEMI JOIN wanted_keys USING (key)
                WHERE kind = ? AND model = ? ORDER BY key)""",
        [kind, model],
    ).fetchnumpy()["number"]
    return keys, np.asarray(numbers, dtype=np.float32).reshape(len(keys), -1)


def write(
    cursor: duckdb.DuckDBPyConnection, kind: str, model: str, keys: Sequence[str], vectors: npt.NDArray[np.float32]
) -> None:
    """Inserts or replaces; of a key given twice, the last vector stays."""
    last = {key: number for number, key in enumerate(keys)}
    names, rows = list(last), np.asarray(vectors, dtype=np.float32)[list(last.values())]
    for start in range(0, len(names), _CHUNK):
        part = rows[start : start + _CHUNK]
        columns: dict[str, npt.NDArray[np.generic] | npt.NDArray[np.object_]] = {
            "key": np.array(names[start : start + _CHUNK], dtype=object)
        }
        columns |= {f"v{place}": np.ascontiguousarray(part[:, place]) for place in range(part.shape[1])}
        numbers = ", ".join(f"v{place}" for place in range(part.shape[1]))
        cursor.register("incoming_vectors", columns)
        try:
            vector = f"list_value({numbers})"  # of v0, v1, ...
            command = f"INSERT OR REPLACE INTO embeddings SELECT ?, key, ?, {vector} FROM incoming_vectors"  # noqa: S608
            cursor.execute(command, [kind, model])
        finally:
            cursor.unregister("incoming_vectors")
