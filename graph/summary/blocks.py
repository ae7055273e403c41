"""A history cut into blocks (T 5.2.2), and the part of a long one that is summarised. Who writes summaries is unknown
here."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from recgraph.store.records import Event

SUMMARISED = 400  # events that are summarised at most, the newest
_ANCHOR = 50  # one event in so many may be the first of a longer history's summary


def split_blocks(history: Sequence[Event], size: int) -> list[list[Event]]:
    """Blocks of `size` item events in order (T 5.2.2: 5); searches belong to the block they fall into. The last may be
    shorter."""
    blocks: list[list[Event]] = []
    room = 0
    for event in history:
        if room == 0:
            blocks.append([])
            room = size
        blocks[-1].append(event)
        room -= event.action != "search"
    return blocks


def window(history: Sequence[Event]) -> tuple[int, tuple[int, ...]]:
    """Where what is summarised of a history begins, and where it may have begun in requests before this one.

    A longer history than SUMMARISED begins at an event that its own content chooses, so that it stays the beginning
    while new events come, some fifty of them. Then the next such event is, and the summaries from the former beginning
    on are still the ones to go on from: none has to be written anew.
    """
    oldest = len(history) - SUMMARISED
    if oldest <= 0:
        return 0, ()
    anchors = [place for place, event in enumerate(history) if _is_anchor(event)]
    begin = next((place for place in anchors if place >= oldest), len(history))
    begin = begin if begin <= oldest + SUMMARISED // 2 else oldest
    former = next((place for place in reversed(anchors) if place < begin), 0)
    return begin, tuple(dict.fromkeys((former, 0)))  # from 0 on while there were not so many yet


def _is_anchor(event: Event) -> bool:
    return zlib.crc32(f"{event.seq}|{event.item_id}|{event.query}".encode("utf-8", "replace")) % _ANCHOR == 0
