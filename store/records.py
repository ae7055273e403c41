"""The records that cross rooms: what the store hands out and takes in. No SQL and no logic but that of time here.

Time. `ts` is a naive UTC `datetime`. Where a data set has only an order and no clock (DESIGN 3), the event number is
the time: event n of a user has `ts = EPOCH + n seconds`, and any moment before 1971 is shown and read as an event
number. So one comparison, `ts < as_of`, serves both kinds of data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from recgraph.errors import SettingsError

Action = Literal["search", "click", "cart", "purchase"]
EPOCH = datetime(1970, 1, 1)
_CLOCK_STARTS = datetime(1971, 1, 1)
_PLACEHOLDER = "untitled product {}"  # the name of a product of which nothing but its id is known


@dataclass(frozen=True, slots=True)
class Item:
    """A product. `title` may be empty: use `name` to show it. `price` is in the shop's own currency, None if unknown.
    Only what is `offered` may be recommended: in stock, and listed in the catalogue, where there ever was one (else
    what events name is all there is)."""

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
    """One thing a user did. `seq` is the user's event number, given once at ingest and never changed; order is (ts,
    seq).

    `item_id` is "" for a search, `query` is "" where none is known; `position` is the organic position it was shown at,
    from 1.
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

    `sentences` pairs each sentence with the numbers (`Event.seq`) of the events that support it; `text` is the
    sentences joined; `event_seqs` is every event the summary was made from, ascending. `model` is the summarizer's name
    ("profile" or an LLM's).
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


# Text that is no ISO time, as strptime reads it; a date whose day and month could be exchanged is refused before.
_FORMS = (
    "%d.%m.%Y",
    "%d.%m.%y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d %b %Y",
    "%d %B %Y",
    "%d-%b-%Y",
    "%b %d %Y",
    "%B %d %Y",
)
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_COMPACT = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))  # from here on nano-, micro- or milliseconds


def as_utc(as_of: datetime | str | None) -> datetime | None:
    """A moment as it is given by callers, in UTC without an offset: text as `parse_time` reads it, a datetime with an
    offset or without (UTC)."""
    if isinstance(as_of, str):
        return parse_time(as_of)
    if as_of is None or as_of.tzinfo is None:
        return as_of
    try:
        return as_of.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        raise SettingsError(f"'{as_of}' is not a time: in UTC it is of no year from 1 to 9999.") from None


def parse_time(text: str) -> datetime:
    """Reads `--as-of`: an event number ("12"), seconds, milli-, micro- or nanoseconds since 1970, a date such as
    20260514, 2026-05-14, 14.05.2026 or May 14, 2026, with or without a time of day and an offset, which is turned into
    UTC.

    A column of a file is read by the same rules, but as a whole (store/ingest/times.py). Raises SettingsError for
    anything else, and for a date such as 3/4/2026, which may be two.
    """
    shown = text.strip()
    try:
        moment = _of_digits(shown) if re.fullmatch(r"\d+(\.\d+)?", shown) else _of_text(shown)
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise SettingsError(
            f"'{shown[:60]}' is not a time. Give an ISO date or time such as 2025-06-01, or an event number."
        )
    return moment


def _of_digits(text: str) -> datetime | None:
    if len(text) in _COMPACT and text[:2] in ("19", "20"):
        try:
            return datetime.strptime(text, _COMPACT[len(text)])
        except ValueError:
            pass  # a number like any other
    number = float(text)
    if number >= 9.2e18:
        return None
    return EPOCH + timedelta(seconds=number / next((unit for start, unit in _UNITS if number >= start), 1))


def _of_text(text: str) -> datetime | None:
    moment: datetime | None
    try:
        moment = datetime.fromisoformat(re.sub(r"(\d) (?=[+-]\d\d)", r"\1", re.sub(r" ?(UTC|GMT)$", "+00:00", text)))
    except ValueError:
        two = re.match(r"(\d{1,2})[/-](\d{1,2})[/-]\d", text)
        if two and max(int(two[1]), int(two[2])) <= 12 and two[1] != two[2]:
            return None
        plain = re.sub(r"\s+", " ", text.replace(",", " "))
        forms = (date + clock + zone for zone in ("", " %z") for date in _FORMS for clock in _CLOCKS)
        moment = next((found for form in forms if (found := _by_format(plain, form)) is not None), None)
    if moment is not None and moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment


def _by_format(text: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(text, form)
    except ValueError:
        return None


def show_time(ts: datetime) -> str:
    """The opposite of `parse_time`, for people: "event 12", "2025-06-01" at midnight, else "2025-06-01 12:30"."""
    if ts < _CLOCK_STARTS:
        return f"event {int((ts - EPOCH).total_seconds())}"
    return ts.strftime("%Y-%m-%d" if (ts.hour, ts.minute, ts.second) == (0, 0, 0) else "%Y-%m-%d %H:%M")
