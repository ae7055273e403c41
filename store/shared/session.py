"""One session with the server of a shared store, which behaves as a cursor of DuckDB that reads: SQL runs there, as a
whole, and its result is DuckDB's own, also as numpy arrays.

Quack sends text and no parameters, so they are written into it: `rendered` knows how, and where a question mark is none.
Writes are refused: a transaction of a process that is killed would stay open on the server and be in everyone's way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from numbers import Integral, Real
from typing import Any

import duckdb

from recgraph.errors import StoreError

# What a question mark may stand in without being a parameter; a name with $ is one too.
_PIECES = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|\$[A-Za-z_]\w*|\?""")
_WRITES = re.compile(r"\s*(?:INSERT|UPDATE|DELETE|MERGE|BEGIN|COMMIT|ALTER|DROP|ATTACH|SET|COPY)\b", re.IGNORECASE)
_LOST = (
    "failed to send message",
    "could not connect",
    "http error",
    "connection id",
    "connection not found",
    "unknown connection",
)


def is_lost(error: duckdb.Error) -> bool:
    """Whether the server did not answer, or does not know the session any more."""
    text = str(error).lower()
    # An owner that is about to begin anew has put its desk away, and may answer for a moment still.
    return any(sign in text for sign in _LOST) or ("desk" in text and "does not exist" in text)


def rendered(sql: str, values: Sequence[object] | Mapping[str, object] = ()) -> str:
    """The SQL with its parameters, as literals."""
    given = None if isinstance(values, Mapping) else iter(values)

    def piece(match: re.Match[str]) -> str:
        text = match[0]
        if text == "?" and given is not None:
            return literal(next(given))
        if text[0] == "$" and isinstance(values, Mapping):
            return literal(values[text[1:]])
        return text

    return _PIECES.sub(piece, sql)


def literal(value: object) -> str:
    """A value as SQL has it; TypeError for what no read of the store is asked with."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # A NUL would end the statement for DuckDB's parser.
        parts = ["'" + part.replace("'", "''") + "'" for part in value.split("\0")]
        return parts[0] if len(parts) == 1 else f"({' || chr(0) || '.join(parts)})"
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        return f"'{float(value)!r}'::DOUBLE"
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.isoformat(' ')}'"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(literal, value))}]"
    raise TypeError(f"A {type(value).__name__} is no parameter of a shared store's SQL.")


class Session:
    """As much of DuckDB's cursor as those who read a store use. For one thread at a time."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, name: str, address: str, token: str) -> None:
        """`connection` is an own cursor of a database in memory that has Quack; the session is attached there as
        `name`. duckdb.Error where the server does not answer or refuses the token."""
        self._connection, self._name = connection, name
        self.begun = False  # whether it was used since it was handed out
        connection.execute(f"ATTACH '{address}' AS {name} (TYPE quack, TOKEN '{token}')")

    def execute(self, sql: str, values: Sequence[object] | Mapping[str, object] = ()) -> Session:
        if _WRITES.match(sql):
            raise StoreError(
                "A shared store is written by its owner alone, in whole calls; this is a write of another kind."
            )
        return self.send(rendered(sql, values))

    def send(self, sql: str) -> Session:
        """Runs SQL as it is, of any kind, one or several statements; the last one's result is given."""
        self._connection.execute("FROM quack_query_by_name(?, ?)", [self._name, sql])
        self.begun = True
        return self

    def fetchall(self) -> list[Any]:
        return self._connection.fetchall()

    def fetchone(self) -> Any:
        return self._connection.fetchone()

    def fetchnumpy(self) -> dict[str, Any]:
        return self._connection.fetchnumpy()

    def close(self) -> None:
        with suppress(duckdb.Error):  # the server may be gone, and the session with it
            self._connection.execute(f"DETACH {self._name}")
        self._connection.close()
