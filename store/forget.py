"""Taking out a shopper or a product: what a store and what lies beside it keep of them, each by name.

A shopper goes whole: events, purchases that came back, summaries, rejected rows that name them, what their searches
showed, the vectors of queries that were theirs alone, runs, checkpoints, and what was built of the store. DuckDB leaves
what was deleted in freed blocks, so the files are written anew afterwards. A product goes off the catalogue with its
texts and vectors; where events name it, its id stays in them as history. Snapshots and adapters made earlier are not
reached from here: `holders` names the snapshots.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from recgraph.store.care import checkpoints, erasure, leftovers, runlog
from recgraph.store.care.erasure import ERASING, deleted, own_queries, text_key
from recgraph.store.care.rewrite import rewritten
from recgraph.store.changes import new_revision
from recgraph.store.db import Store
from recgraph.store.snapshot import find_snapshots


def forget_user(store: Store, user_id: str, checkpoint_files: Sequence[Path] = ()) -> dict[str, int]:
    """Takes a shopper out of the store, its run log, the checkpoint files (those beside the store are found) and what
    was built of it; all counts are 0 for an unknown id. StoreBusy where another process does not let go of the store;
    then nothing has changed, or a part is done and the next call does the rest, as after a kill."""
    store.take_waiting()
    with store._database.reading() as cursor:
        queries = own_queries(cursor, user_id)
    spellings = [text for texts in queries.values() for text in texts]
    # The store last: it alone tells which words were theirs, so that who is cut off here can begin again.
    runs = runlog.forget(store.path, user_id, spellings)
    files = dict.fromkeys([*map(Path, checkpoint_files), *checkpoints.files_beside(store.path)])
    resumable = sum(checkpoints.forget(file, user_id, spellings) for file in files)
    gone = {**_forget_in_store(store, user_id), "runs": runs, "checkpoints": resumable}
    shutil.rmtree(leftovers.index_of(store.path), ignore_errors=True)  # of the revision before; made again when needed
    for one in leftovers.found(store.path):
        one.sweep()
    if not store.is_shared:  # else its owner does, as soon as it was asked
        erase(store)
    return gone


def _forget_in_store(store: Store, user_id: str) -> dict[str, int]:
    """All or nothing; the rows that went, by what they were."""
    return store._database.call(erasure.forget_rows, user_id)


def erase(store: Store) -> bool:
    """Writes the store anew where something was deleted for good; whether it did."""
    if store.meta(ERASING) is None:
        return False
    rewritten(store._database, store.path)
    with store.writing(), store._database.reading() as cursor:
        deleted(cursor, "meta", "key = ?", ERASING)
    return True


def holders(store: Path, folders: Sequence[Path] = ()) -> list[str]:
    """Snapshots and files set aside, below the store's folder and `folders`, that were written before and may still
    hold who was forgotten."""
    found = []
    for root in dict.fromkeys([store.absolute().parent, *(folder.absolute() for folder in folders)]):
        found += [f"snapshot {folder}" for folder in find_snapshots(root)]
        found += [
            f"set aside: {file}"
            for mark in (".damaged", ".orphaned")
            for file in sorted(root.glob(f"{store.name}*{mark}*"))
        ]
    return list(dict.fromkeys(found))


def forget_item(store: Store, item_id: str) -> dict[str, int]:
    """Takes a product off the catalogue, with its vectors and what queries showed of it. Gives the rows that went; all
    0 for an unknown id and for a product that is off it already."""
    store.require_file()
    gone = _forget_item_in_store(store, item_id)
    erase(store)  # also where nothing was found: an earlier call may have been cut off here
    return gone


def _forget_item_in_store(store: Store, item_id: str) -> dict[str, int]:
    with store.writing(), store._database.reading() as cursor:
        known = store.items([item_id]).get(item_id)
        if known is None:
            return {"items": 0, "exposures": 0, "vectors": 0}
        row = cursor.execute(
            "SELECT count(*) FROM items WHERE title = ? AND item_id <> ?", [known.title, item_id]
        ).fetchone()
        key = text_key(known.name)
        vectors = deleted(cursor, "embeddings", "kind = 'id' AND key = ?", item_id)
        if row is None or not row[0]:
            vectors += deleted(cursor, "embeddings", "kind = 'title' AND key = ?", key)
        gone = {"items": 1, "exposures": deleted(cursor, "exposures", "item_id = ?", item_id), "vectors": vectors}
        if not (known.listed or known.title or gone["exposures"] or vectors):
            return {**gone, "items": 0}
        if cursor.execute("SELECT 1 FROM events WHERE item_id = ? LIMIT 1", [item_id]).fetchone():
            cursor.execute(
                """UPDATE items SET title = '', category = '', brand = '', color = '', size = '', price = NULL,
                       description = '', attributes = NULL, parent_id = '', in_stock = FALSE, listed = FALSE
                   WHERE item_id = ?""",
                [item_id],
            )
        else:
            deleted(cursor, "items", "item_id = ?", item_id)
        deleted(cursor, "changes", "kind = 'item' AND key = ?", item_id)
        new_revision(cursor, f"forget item|{item_id}", None)
        store.set_meta(ERASING, datetime.now(UTC).isoformat(timespec="seconds"))
    return gone
