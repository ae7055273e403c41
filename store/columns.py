"""What the store hands out in bulk: whole columns as lists and numpy arrays, and one line about a user. No logic."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class UserRow:
    """One user in short: number of events and purchases, time of the first and the last event."""

    user_id: str
    events: int
    purchases: int
    first: datetime
    last: datetime


@dataclass(frozen=True)
class Catalogue:
    """All n items in item_id order, column by column. `titles` as stored, `names` as shown; `first_seen` is 1970 where
    unknown. What is not `listed` is known by events alone and never recommended."""

    item_ids: list[str]
    titles: list[str]
    names: list[str]
    parent_ids: list[str]
    categories: list[str]
    first_seen: npt.NDArray[np.datetime64]
    in_stock: npt.NDArray[np.bool_]
    listed: npt.NDArray[np.bool_]

    @property
    def offered(self) -> npt.NDArray[np.bool_]:
        """What may be recommended."""
        return self.in_stock & self.listed


@dataclass(frozen=True)
class Sequences:
    """All events with an item, ordered by (user, ts, seq). `item` counts in catalogue order; `action` is 0 click, 1
    cart, 2 purchase.

    `user` counts from 0 in the order of `user_ids`, the users that have such events.
    """

    user: npt.NDArray[np.int32]
    item: npt.NDArray[np.int32]
    ts: npt.NDArray[np.datetime64]
    action: npt.NDArray[np.int8]
    user_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reject:
    """A row of a source file that was not loaded, with the reason."""

    source: str
    line: int
    reason: str
    raw: str


@dataclass(frozen=True)
class Rejected:
    """Rows rejected for one reason, and where the first of them stands: "events.csv:3"."""

    reason: str
    count: int
    example: str


# SQL: a reason without the values it names, so that equal ones are counted together; the name of an event says what is
# wrong with it.
GENERAL_REASON = (
    "CASE WHEN starts_with(reason, 'action ') THEN reason ELSE regexp_replace(reason, '''[^'']*''', '…') END"
)
