"""The checkpoints of a `Recommender`: an SQLite file from which a killed run resumes, and which never costs an answer.

What cannot be read or written there (a damaged file, a full disk, a folder of that name) is told once in `problem`; the
run then goes on with checkpoints in memory. Each value carries a checksum, because SQLite has none: a damaged
checkpoint is no checkpoint. It knows neither the graph nor what a state holds; store/care/checkpoints.py deletes.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

from recgraph.store.care.checkpoints import keep_latest

Given = TypeVar("Given")
_SUM = 4  # bytes of a checksum
# What reading a damaged row raises: SQLite's errors, and those of decoding what is no value of ours.
_DAMAGE = (sqlite3.Error, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError)


class CheckedSerializer(JsonPlusSerializer):
    """Writes a checksum behind each value, and raises ValueError where it does not fit."""

    def __init__(self, serializer: JsonPlusSerializer) -> None:
        super().__init__(allowed_msgpack_modules=None)
        self._plain = serializer

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """As JsonPlusSerializer's."""
        kind, data = self._plain.dumps_typed(obj)
        return kind, data + zlib.crc32(data).to_bytes(_SUM, "big")

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """As JsonPlusSerializer's."""
        kind, text = data
        if zlib.crc32(text[:-_SUM]).to_bytes(_SUM, "big") != text[-_SUM:]:
            raise ValueError("a checkpoint is damaged")
        return self._plain.loads_typed((kind, text[:-_SUM]))


class Checkpoints(SqliteSaver):
    """LangGraph's SqliteSaver over one file, sync and async."""

    def __init__(self, path: str | Path, serializer: JsonPlusSerializer) -> None:
        self.path, self.problem = Path(path), ""
        super().__init__(self._opened(), serde=CheckedSerializer(serializer))

    def _opened(self) -> sqlite3.Connection:
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))  # what a run holds is nobody else's
            return sqlite3.connect(self.path, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            return self._in_memory(error)

    def _in_memory(self, error: Exception) -> sqlite3.Connection:
        self.problem = (
            f"save: this run cannot be resumed: the checkpoints {self.path} cannot be used ({error}). "
            f"To look into them: recgraph doctor --deep --checkpoint {self.path}"
        )
        return sqlite3.connect(":memory:", check_same_thread=False)

    def close(self) -> None:
        """Closes the file."""
        self.conn.close()

    def take_problem(self) -> list[str]:
        """What went wrong since it was last asked, for `degraded`."""
        problem, self.problem = self.problem, ""
        return [problem] if problem else []

    def _kept(self, work: Callable[[], Given]) -> Given:
        """Does it in the file, and where that fails in memory, from then on."""
        try:
            return work()
        except sqlite3.Error as error:
            with self.lock:
                self.conn.close()
                self.conn, self.is_setup = self._in_memory(error), False
            return work()

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As SqliteSaver's; a damaged one is none."""
        read = super().get_tuple
        try:
            return self._kept(lambda: read(config))
        except _DAMAGE:
            self.problem = f"save: a checkpoint in {self.path} was damaged, so the run began afresh"
            return None

    def list(self, config: RunnableConfig | None, **how: Any) -> Iterator[CheckpointTuple]:
        """As SqliteSaver's, up to a damaged one."""
        read = super().list
        try:
            yield from self._kept(lambda: [*read(config, **how)])
        except _DAMAGE:
            self.problem = f"save: a checkpoint in {self.path} was damaged"

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As SqliteSaver's."""
        write = super().put
        return self._kept(lambda: write(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As SqliteSaver's."""
        write = super().put_writes
        self._kept(lambda: write(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """As SqliteSaver's."""
        delete = super().delete_thread
        self._kept(lambda: delete(thread_id))

    def keep_latest(self, thread: str, kind: str, threads: int) -> None:
        """As that of store/care/checkpoints.py: a file would grow by a whole state with each turn."""

        def work() -> None:
            with self.lock:
                keep_latest(self.conn, thread, kind, threads)

        self._kept(work)

    # ── The same for async runs, in threads: SQLite's own calls block ────────────────────────────────────────────────

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(self, config: RunnableConfig | None, **how: Any) -> AsyncIterator[CheckpointTuple]:
        """As `list`."""
        for one in await asyncio.to_thread(lambda: [*self.list(config, **how)]):
            yield one

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`."""
        return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `put_writes`."""
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        await asyncio.to_thread(self.delete_thread, thread_id)
