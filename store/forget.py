"""Taking out a shopper or a product: what a store and its run log keep of them, each table by name.

A shopper goes whole: events, purchases that came back, summaries, rejected rows that name them, runs. A product goes
off the catalogue with its texts and vectors; where events name it, its id stays in them as history. Snapshots, adapters
and checkpoint files made earlier are not reached from here.
"""

from __future__ import annotations

import hashlib

import duckdb

from recgraph.store.changes import new_revision
from recgraph.store.db import Store
from recgraph.store.runs import RunLog

# As a whole word: a shopper u1 is not named by u12.
_NAMED = "regexp_matches(raw, '(^|[^\\w-])' || regexp_escape(?) || '([^\\w-]|$)')"


def forget_user(store: Store, user_id: str) -> dict[str, int]:
    """Takes a shopper out of the store and its run log. Gives the rows that went, by what they were; all 0 for an
    unknown id."""
    with store.writing(), store._database.reading() as cursor:
        gone = {
            "events": _deleted(cursor, "events", "user_id = ?", user_id),
            "returned purchases": _deleted(cursor, "returned", "user_id = ?", user_id),
            "summaries": _deleted(cursor, "summaries", "user_id = ?", user_id),
            "rejected rows": _deleted(cursor, "rejects", _NAMED, user_id),
        }
        _deleted(cursor, "event_ids", "user_id = ?", user_id)
        _deleted(cursor, "changes", "kind = 'event' AND key = ?", user_id)
        if any(gone.values()):
            new_revision(cursor, f"forget user|{user_id}", None)  # a hash: the id does not stand in it
    gone["runs"] = RunLog(store.path).forget(user_id)
    return gone


def forget_item(store: Store, item_id: str) -> dict[str, int]:
    """Takes a product off the catalogue, with its vectors and what queries showed of it. Gives the rows that went; all
    0 for an unknown id."""
    with store.writing(), store._database.reading() as cursor:
        known = store.items([item_id]).get(item_id)
        if known is None:
            return {"items": 0, "exposures": 0, "vectors": 0}
        row = cursor.execute(
            "SELECT count(*) FROM items WHERE title = ? AND item_id <> ?", [known.title, item_id]
        ).fetchone()
        key = hashlib.sha256(known.name.encode("utf-8", "surrogatepass")).hexdigest()[
            :32
        ]  # as tools/embed.py keys a text
        vectors = _deleted(cursor, "embeddings", "kind = 'id' AND key = ?", item_id)
        if row is None or not row[0]:
            vectors += _deleted(cursor, "embeddings", "kind = 'title' AND key = ?", key)
        gone = {"items": 1, "exposures": _deleted(cursor, "exposures", "item_id = ?", item_id), "vectors": vectors}
        if cursor.execute("SELECT 1 FROM events WHERE item_id = ? LIMIT 1", [item_id]).fetchone():
            cursor.execute(
                """UPDATE items SET title = '', category = '', brand = '', color = '', size = '', price = NULL,
                       description = '', attributes = NULL, parent_id = '', in_stock = FALSE, listed = FALSE
                   WHERE item_id = ?""",
                [item_id],
            )
        else:
            _deleted(cursor, "items", "item_id = ?", item_id)
        _deleted(cursor, "changes", "kind = 'item' AND key = ?", item_id)
        new_revision(cursor, f"forget item|{item_id}", None)
    return gone


def _deleted(cursor: duckdb.DuckDBPyConnection, table: str, condition: str, value: str) -> int:
    command = f"DELETE FROM {table} WHERE {condition}"  # noqa: S608 - both are constants of this file
    row = cursor.execute(command, [value]).fetchone()
    return int(row[0]) if row else 0
