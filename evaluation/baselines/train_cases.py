"""The cases that lie in a task's own train events: what a system may learn to answer, with the history and the query it
would have then.

Never a validation or test target: a target here is one of `task.train`'s events. Which system learns from them is
unknown here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recgraph.store.cases import targets
from recgraph.store.db import Store
from recgraph.train.prepare import starts
from recgraph.train.task import PURCHASE, Cases, Rows, Task

LEAST = 3  # items of a history to learn from

_SECOND = np.timedelta64(1, "s")


def train_cases(task: Task, store: Path | None = None, *, each: int = 1, least: int = LEAST) -> Cases:
    """The last `each` cases of every user (0: all) whose history has `least` items and not the target, by user and
    time.

    As for test cases a target is a purchase, where the shop has any, and the history ends when the search that led to
    it was made. Queries are those of the `store`; without it there are none, and a history ends at the target.
    """
    train = task.train
    place, asked, query = train_targets(task, store)
    first = np.searchsorted(train.user, train.user[place])
    spans, kept = [], []
    taken: dict[int, int] = {}
    for row in range(len(place) - 1, -1, -1):
        user, low = int(train.user[place[row]]), int(first[row])
        end = low + int(np.searchsorted(train.time[low : place[row]], asked[row]))
        if end - low < least or train.item[place[row]] in train.item[low:end] or (each and taken.get(user, 0) == each):
            continue
        taken[user] = taken.get(user, 0) + 1
        spans.append(slice(low, end))
        kept.append(row)
    spans, kept = spans[::-1], kept[::-1]
    chosen = np.array(kept, np.int64)
    return Cases(
        history=tuple(train.item[span] for span in spans),
        actions=tuple(train.action[span] for span in spans),
        times=tuple(train.time[span] for span in spans),
        target=train.item[place[chosen]],
        user=train.user[place[chosen]],
        query=tuple(query[row] for row in kept),
        time=asked[chosen],
    )


def train_targets(task: Task, store: Path | None) -> tuple[Rows, NDArray[np.float64], list[str]]:
    """The places of the train events that are targets, int64[t], when each is asked, and the query that led to it ("":
    none is known)."""
    train = task.train
    wanted = train.action == PURCHASE if (train.action == PURCHASE).any() else np.ones(len(train), bool)
    if store is None:
        place = np.flatnonzero(wanted)
        return place, train.time[place], [""] * len(place)
    with Store.open(store) as opened:
        found = targets(opened)
    as_of = (starts(found, "search") - np.datetime64(0, "us")) / _SECOND
    times = (found.ts - np.datetime64(0, "us")) / _SECOND
    rows = zip(found.user_id, found.item_id, times, as_of, found.query, strict=True)
    known = {(str(user), str(item), float(time)): (float(asked), str(query)) for user, item, time, asked, query in rows}
    places, asked, queries = list[int](), list[float](), list[str]()
    for row in np.flatnonzero(wanted):
        one = known.get((task.user_ids[train.user[row]], task.item_ids[train.item[row]], float(train.time[row])))
        if one:
            places.append(int(row))
            asked.append(one[0])
            queries.append(one[1])
    return np.array(places, np.int64), np.array(asked, np.float64), queries
