"""The rows of a store that are a shopper's, and how they go, in one transaction.

What lies beside the store, and products, are store/forget.py's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

import duckdb

from recgraph.store.changes import new_revision, set_meta

ERASING = "erasing"  # in meta: since when the file waits to be written anew, without what was deleted
# As a whole word: a shopper u1 is not named by u12.
_NAMED = "regexp_matches(raw, '(^|[^\\w-])' || regexp_escape(?) || '([^\\w-]|$)')"
_LEAST = 3  # letters of a query that tells whose a rejected row was


def forget_rows(cursor: duckdb.DuckDBPyConnection, user_id: str) -> dict[str, int]:
    """In the caller's transaction; the rows of a shopper that went, by what they were."""
    queries = own_queries(cursor, user_id)
    gone = {
        "events": deleted(cursor, "events", "user_id = ?", user_id),
        "returned purchases": deleted(cursor, "returned", "user_id = ?", user_id),
        "summaries": deleted(cursor, "summaries", "user_id = ?", user_id),
        "rejected rows": deleted(cursor, "rejects", _NAMED, user_id),
        "shown results": sum(deleted(cursor, "exposures", "query_key = ?", query) for query in queries),
        "query vectors": sum(_forget_vectors(cursor, spellings) for spellings in queries.values()),
    }
    for query in queries:
        deleted(cursor, "changes", "kind = 'query' AND key = ?", query)
        if len(query) >= _LEAST:
            gone["rejected rows"] += deleted(cursor, "rejects", "contains(lower(raw), ?)", query)
    deleted(cursor, "event_ids", "user_id = ?", user_id)
    deleted(cursor, "changes", "kind = 'event' AND key = ?", user_id)
    if any(gone.values()):
        new_revision(cursor, f"forget user|{user_id}", None)  # a hash: the id does not stand in it
        set_meta(cursor, ERASING, datetime.now(UTC).isoformat(timespec="seconds"))
    return gone


def own_queries(cursor: duckdb.DuckDBPyConnection, user_id: str) -> dict[str, list[str]]:
    """The queries that of all shoppers this one alone typed (lower case), each with its spellings."""
    rows = cursor.execute(
        """WITH typed AS (SELECT user_id, query FROM events WHERE query <> '' UNION ALL
                          SELECT user_id, query FROM returned WHERE query <> ''),
               own AS (SELECT lower(trim(query)) AS query_key FROM typed GROUP BY query_key
                       HAVING bool_and(user_id = ?))
           SELECT DISTINCT query_key, query FROM own JOIN
               (SELECT lower(trim(query)) AS query_key, query FROM typed UNION ALL SELECT query_key, query FROM exposures)
               USING (query_key)""",
        [user_id],
    ).fetchall()
    found: dict[str, list[str]] = {}
    for query_key, query in rows:
        found.setdefault(str(query_key), []).append(str(query))
    return found


def _forget_vectors(cursor: duckdb.DuckDBPyConnection, spellings: Sequence[str]) -> int:
    texts = {text for spelling in spellings for text in (spelling, spelling.strip(), spelling.strip().lower())}
    return sum(deleted(cursor, "embeddings", "kind = 'query' AND key = ?", text_key(text)) for text in texts)


def text_key(text: str) -> str:
    """The key of a text's vector, as tools/embed.py makes it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def deleted(cursor: duckdb.DuckDBPyConnection, table: str, condition: str, value: str) -> int:
    command = f"DELETE FROM {table} WHERE {condition}"  # noqa: S608 - both are constants of this file
    row = cursor.execute(command, [value]).fetchone()
    return int(row[0]) if row else 0
