"""The records that cross rooms: what the store hands out and takes in. No SQL and no logic but that of time here.

Time. `ts` is a naive UTC `datetime`. Where a data set has only an order and no clock (DESIGN 3), the event number is the time: event
n of a user has `ts = EPOCH + n seconds`, and any moment before 1971 is shown and read as an event number. So one comparison,
`ts < as_of`, serves both kinds of data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from recgraph.errors import SettingsError

Action = Literal["search", "click", "cart", "purchase"]
EPOCH = datetime(1970, 1, 1)
_CLOCK_STARTS = datetime(1971, 1, 1)
_PLACEHOLDER = "untitled product {}"  # the name of a product of which nothing but its id is known


@dataclass(frozen=True, slots=True)
class Item:
    """A product. `title` may be empty: use `name` to show it. `price` is in the shop's own currency, None if unknown. Only what is `offered`
    may be recommended: in stock, and listed in the catalogue, where there ever was one (else what events name is all there is)."""

    item_id: str
    title: str = ""
    category: str = ""
    brand: str = ""
    color: str = ""
    size: str = ""
    price: float | None = None
    description: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    parent_id: str = ""
    first_seen: datetime | None = None
    in_stock: bool = True
    listed: bool = True

    @property
    def offered(self) -> bool:
        return self.in_stock and self.listed

    @property
    def name(self) -> str:
        """The title, or a description put together from the attributes where the catalogue has no title."""
        if self.title:
            return self.title
        words = " ".join(word for word in (self.color, self.brand, self.category) if word)
        nothing = _PLACEHOLDER.format(self.item_id)
        return f"{words} ({nothing})" if words else nothing


def is_named(item_id: str, name: str) -> bool:
    """Whether the name of an item says more than its id."""
    return name != _PLACEHOLDER.format(item_id)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing a user did. `seq` is the user's event number, given once at ingest and never changed; order is (ts, seq).

    `item_id` is "" for a search, `query` is "" where none is known; `position` is the organic position it was shown at, from 1.
    """

    user_id: str
    seq: int
    ts: datetime
    action: Action
    item_id: str = ""
    query: str = ""
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """A preference summary of one user's history, of one block or of merged blocks (T 4.1, 4.2).

    `sentences` pairs each sentence with the numbers (`Event.seq`) of the events that support it; `text` is the sentences joined;
    `event_seqs` is every event the summary was made from, ascending. `model` is the summarizer's name ("profile" or an LLM's).
    """

    input_hash: str
    user_id: str
    paradigm: str
    level: int
    block: int
    upto_seq: int
    sentences: tuple[tuple[str, tuple[int, ...]], ...]
    event_seqs: tuple[int, ...]
    model: str
    prompt_version: str

    @property
    def text(self) -> str:
        return " ".join(sentence for sentence, _ in self.sentences)


def parse_time(text: str) -> datetime:
    """Reads `--as-of`: an event number ("12") or an ISO date or time ("2025-06-01", "2025-06-01T12:00"); a zone is turned into UTC.

    Raises SettingsError for anything else.
    """
    if text.strip().isdigit():
        return EPOCH + timedelta(seconds=int(text))
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise SettingsError(f"'{text}' is not a time. Give an ISO date or time such as 2025-06-01, or an event number.") from None
    if moment.tzinfo is not None:
        moment = (moment - moment.utcoffset()).replace(tzinfo=None)  # type: ignore[operator]
    return moment


def show_time(ts: datetime) -> str:
    """The opposite of `parse_time`, for people: "event 12", "2025-06-01" at midnight, else "2025-06-01 12:30"."""
    if ts < _CLOCK_STARTS:
        return f"event {int((ts - EPOCH).total_seconds())}"
    return ts.strftime("%Y-%m-%d" if (ts.hour, ts.minute, ts.second) == (0, 0, 0) else "%Y-%m-%d %H:%M")
