"""What the nodes read of a store, and a reader that keeps attributes back. Where it is read from is unknown here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from recgraph.store.records import Event, Item


class StoreReader(Protocol):
    """What the nodes read of the store."""

    def history(self, user_id: str, before: datetime | None = None, limit: int | None = None) -> list[Event]: ...
    def bought(self, user_id: str, before: datetime | None = None) -> list[str]: ...
    def items(self, item_ids: Sequence[str]) -> dict[str, Item]: ...
    def offered(self, before: datetime | None = None) -> int: ...


class TitlesOnly:
    """A reader that keeps what a shop says of its products beside their titles to itself (F table 3, "w/o product
    attributes")."""

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader

    def history(self, user_id: str, before: datetime | None = None, limit: int | None = None) -> list[Event]:
        return self._reader.history(user_id, before, limit)

    def bought(self, user_id: str, before: datetime | None = None) -> list[str]:
        return self._reader.bought(user_id, before)

    def offered(self, before: datetime | None = None) -> int:
        return self._reader.offered(before)

    def items(self, item_ids: Sequence[str]) -> dict[str, Item]:
        """Items with their name, style and stock alone."""
        known = self._reader.items(item_ids)
        return {
            key: Item(
                key,
                one.name,
                parent_id=one.parent_id,
                first_seen=one.first_seen,
                in_stock=one.in_stock,
                listed=one.listed,
            )
            for key, one in known.items()
        }
