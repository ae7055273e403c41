"""Summaries that wait beside the store for its next writer: NAME.pending/, a file of JSON lines for each save.

A run neither waits for the store nor loses what it wrote: it leaves a file here, and whoever writes into the store next
takes it in and deletes it; in a process that serves, store/live/writer.py soon does. It knows summaries as rows, not
the store.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from recgraph.errors import StoreReadOnly
from recgraph.store.records import Summary

FOLDER = ".pending"  # after the store's name
MOST = 2_000  # files read in one go: the next writer after that takes the rest


def folder_of(store: Path) -> Path:
    """Where the summaries of a store wait."""
    return store.with_name(store.name + FOLDER)


def keep(store: Path, summaries: Sequence[Summary]) -> None:
    """Leaves summaries for the next writer. StoreReadOnly where nothing can be written beside the store."""
    folder = folder_of(store)
    name = uuid.uuid4().hex
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        half = folder / f"{name}.new"
        with os.fdopen(os.open(half, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.writelines(json.dumps(astuple(one), ensure_ascii=False) + "\n" for one in summaries)
        half.rename(folder / f"{name}.jsonl")  # whole or not at all
    except OSError as error:
        raise StoreReadOnly(f"Nothing can be written beside the store {store} ({error}).") from None


def waiting(store: Path) -> list[Path]:
    """The files that wait, in any order; [] mostly, at the cost of one look at the disk."""
    try:
        return [entry for entry in folder_of(store).iterdir() if entry.suffix == ".jsonl"][:MOST]
    except OSError:
        return []


def read(file: Path) -> list[Summary]:
    """The summaries of one file; of one that another writer took, or that is damaged, those that can be read."""
    found = []
    with suppress(OSError, ValueError):
        for line in file.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            values[6] = tuple((str(text), tuple(int(seq) for seq in seqs)) for text, seqs in values[6])
            values[7] = tuple(int(seq) for seq in values[7])
            found.append(Summary(*values))
    return found


_INSERT = """INSERT INTO summaries SELECT *, ?::TIMESTAMP FROM (
        SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[]) AS user_id, unnest(?::VARCHAR[]), unnest(?::INTEGER[]),
            unnest(?::INTEGER[]), unnest(?::INTEGER[]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[]),
            unnest(?::INTEGER[][]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[]))
    SEMI JOIN events USING (user_id) ON CONFLICT DO NOTHING"""


def insert(cursor: duckdb.DuckDBPyConnection, summaries: Sequence[Summary]) -> None:
    """In the caller's transaction; one whose input_hash is there already is left as it is. A shopper without events was
    forgotten while their summary waited: it goes too."""
    if not summaries:
        return
    rows = [
        (
            *(s.input_hash, s.user_id, s.paradigm, s.level, s.block, s.upto_seq, s.text),
            *(json.dumps(s.sentences, ensure_ascii=False), list(s.event_seqs), s.model, s.prompt_version),
        )
        for s in summaries
    ]
    now = datetime.now(UTC).replace(tzinfo=None)
    cursor.execute(_INSERT, [now, *(list(column) for column in zip(*rows, strict=True))])


def remove(store: Path, files: Sequence[Path]) -> None:
    """After the commit: takes away what is in the store now."""
    for file in files:
        file.unlink(missing_ok=True)
    with suppress(OSError):  # others wait there
        folder_of(store).rmdir()
