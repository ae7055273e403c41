"""Histories of many users in one reading, for who answers many at once. How they are kept is unknown here."""

from __future__ import annotations

from collections.abc import Sequence

from recgraph.store.db import END_OF_TIME, Store
from recgraph.store.records import Event


def histories(store: Store, user_ids: Sequence[str], limit: int) -> dict[str, list[Event]]:
    """Of each user what `Store.history` gives with this limit, read in one go. The ids are best neighbours: what lies
    between the first and the last is looked through."""
    store._check_open()
    if not user_ids:
        return {}
    marks = ", ".join("?" * len(user_ids))
    with store._database.reading() as cursor:
        rows = cursor.execute(
            f"""SELECT user_id, seq, ts, action, item_id, query, position FROM events
                WHERE user_id BETWEEN ? AND ? AND ts < ? AND user_id IN ({marks})
                QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY ts DESC, seq DESC) <= ?""",  # noqa: S608 - only marks
            [min(user_ids), max(user_ids), END_OF_TIME, *user_ids, limit],
        ).fetchall()
    found: dict[str, list[Event]] = {user_id: [] for user_id in user_ids}
    for row in rows:
        found[row[0]].append(Event(*row))
    for events in found.values():
        events.sort(key=lambda event: (event.ts, event.seq))
    return found
