"""What all systems are given and asked, the same for each: a task, and the `System` that answers it.

A task is a shop as numbers: items are rows 0 … n - 1 of the catalogue's order, users rows of the store's. `train` holds
what a system may be fitted on, `valid` is to choose by, `test` to be measured on. Protocols (DESIGN 7) are ways to make
a task and to restrict its cases:

    full           the target among all items listed by then
    category       the target among those of its category (F 5.1)
    time, loo      the split (train/prepare.py says what each hides)
    sampled        T 5.1: users of 10 to 25 records, the target among 20 drawn items: `few_records`, `drawn`
    cold           F 5.4: cases whose target no train event names: `cold`
    low-resource   a seeded share of the users to learn from: `fewer_users`

Which system is fitted how is unknown here; so are metrics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import compress
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from recgraph.errors import SettingsError
from recgraph.store.cases import listed_since, span, targets
from recgraph.store.columns import Sequences
from recgraph.store.db import Store
from recgraph.store.records import is_named
from recgraph.tools.llm.protocol import Usage
from recgraph.train.evidence import Seen
from recgraph.train.prepare import Split, split_by_time, split_last_out, starts

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
Note = Callable[[str], None]
Number = TypeVar("Number", bound=np.generic)

CLICK, CART, PURCHASE = 0, 1, 2
RECORDS, NEGATIVES = (10, 25), 20  # of T 5.1
_SECOND = np.timedelta64(1, "s")


@dataclass(frozen=True)
class Events:
    """n events with an item, ordered by user, then time: user and item int64[n], time float64[n] in seconds since 1970
    (the event's number where the source knows the order only), action int8[n] (click 0, cart 1, purchase 2)."""

    user: Rows
    item: Rows
    time: NDArray[np.float64]
    action: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.item)

    def of(self, chosen: NDArray[np.bool_] | Rows) -> Events:
        """Some of them."""
        return Events(self.user[chosen], self.item[chosen], self.time[chosen], self.action[chosen])

    def starts(self) -> Rows:
        """int64[users with events + 1]: where each user's events begin, and the end."""
        if not len(self.user):
            return np.zeros(1, np.int64)
        return np.concatenate([[0], np.flatnonzero(np.diff(self.user)) + 1, [len(self.user)]]).astype(np.int64)


@dataclass(frozen=True)
class Cases:
    """What to predict. Of case i: the rows `history[i]`, oldest first, with their `actions[i]` and `times[i]` (as
    Events has them); the `target[i]`; `user[i]`, a row of the store's users; the `query[i]` that led to it, "" without
    one; the moment `time[i]` it is asked; and `seq[i]`, the target event's number, which with the user names the case
    (no numbers at all where the cases are of no store)."""

    history: tuple[Rows, ...]
    actions: tuple[NDArray[np.int8], ...]
    times: tuple[NDArray[np.float64], ...]
    target: Rows
    user: Rows
    query: tuple[str, ...]
    time: NDArray[np.float64]
    seq: Rows = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.target)

    def of(self, chosen: NDArray[np.bool_] | Rows) -> Cases:
        """Some of them, in the order given."""
        rows = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        history, actions = tuple(self.history[row] for row in rows), tuple(self.actions[row] for row in rows)
        times, seq = tuple(self.times[row] for row in rows), self.seq[rows] if len(self.seq) else self.seq
        return Cases(
            history,
            actions,
            times,
            self.target[rows],
            self.user[rows],
            tuple(self.query[row] for row in rows),
            self.time[rows],
            seq,
        )

    def some(self, count: int, seed: int) -> Cases:
        """At most `count` of them (0: all), drawn with the seed, in their order; a smaller sample is part of a larger
        one."""
        if not count or len(self) <= count:
            return self
        return self.of(np.sort(np.random.default_rng(seed).permutation(len(self))[:count]))


@dataclass(frozen=True)
class Task:
    """A shop as all systems see it. `texts` are the items' names with what is known of them, `group` int64[n] the
    item's category (-1: none), `listed` float64[n] since when it may be shown (seconds; -inf: always); `user_ids` names
    the user rows, where they come from a store."""

    name: str
    split: str
    item_ids: tuple[str, ...]
    texts: tuple[str, ...]
    group: Rows
    listed: NDArray[np.float64]
    train: Events
    valid: Cases
    test: Cases
    until: (
        float | None
    )  # the cut of a split in time: nothing fitted may know an event from then on; None where each user has its own
    user_ids: tuple[str, ...] = ()

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @property
    def named(self) -> NDArray[np.bool_]:
        """bool[items]: whether more than an id is known of an item."""
        return np.array([is_named(*one) for one in zip(self.item_ids, self.texts, strict=True)], np.bool_)

    def hash(self) -> str:
        """16 hex digits of everything a system is given and asked: the same figures need the same hash."""
        digest = hashlib.sha256(
            "\n".join((self.split, *self.item_ids, *self.texts, *self.valid.query, *self.test.query)).encode()
        )
        columns = [self.group, self.listed, self.train.user, self.train.item, self.train.time, self.train.action]
        for cases in (self.valid, self.test):
            columns += [cases.target, cases.user, cases.time, *cases.history]
        for column in columns:
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()[:16]


# ── From a store ──────────────────────────────────────────────────────────────────────────────────────────────────────


def read_task(
    store: Store, name: str, split: str = "time", *, start: str = "search", valid_days: int = 30, test_days: int = 30
) -> Task:
    """The task of a store. `split` and the others are those of train/prepare.py. SettingsError for an unknown split, or
    one without dates."""
    catalogue, found, sequences = store.catalogue(), targets(store), store.sequences()
    as_of = starts(found, start)
    if split == "loo":
        parts = split_last_out(found, as_of)
    elif split == "time":
        between = span(store)
        if between is None or between[0].year < 1971:
            raise SettingsError(f"{name} has no dates, so it cannot be split in time; use split loo.")
        parts = split_by_time(found, as_of, between[1], valid_days, test_days)
    else:
        raise SettingsError(f"split is '{split}'; it must be time or loo.")
    events = events_of(sequences)
    row_of = {item_id: row for row, item_id in enumerate(catalogue.item_ids)}
    user_of = {user_id: row for row, user_id in enumerate(sequences.user_ids)}
    target = np.array([row_of[item_id] for item_id in found.item_id], np.int64)
    user, time = np.array([user_of[one] for one in found.user_id], np.int64), _seconds(as_of)
    first = np.searchsorted(events.user, np.arange(len(sequences.user_ids) + 1))

    def cases(part: str) -> Cases:
        chosen = np.flatnonzero(parts.part == part)
        begin, end = first[user[chosen]], first[user[chosen] + 1]
        end = np.array(
            [
                low + np.searchsorted(events.time[low:high], at)
                for low, high, at in zip(begin, end, time[chosen], strict=True)
            ],
            np.int64,
        )
        spans = [slice(low, high) for low, high in zip(begin, end, strict=True)]
        history, actions, times = _cut(events.item, spans), _cut(events.action, spans), _cut(events.time, spans)
        query, seq = tuple(str(found.query[row]) for row in chosen), found.seq[chosen].astype(np.int64)
        return Cases(history, actions, times, target[chosen], user[chosen], query, time[chosen], seq)

    categories = {category: number for number, category in enumerate(sorted(set(catalogue.categories) - {""}))}
    since = _seconds(listed_since(store))
    return Task(
        name=name,
        split=split,
        item_ids=tuple(catalogue.item_ids),
        texts=tuple(catalogue.names),
        group=np.array([categories.get(category, -1) for category in catalogue.categories], np.int64),
        listed=np.where(since <= 0, -np.inf, since),
        train=events.of(_known(events, parts, sequences.user_ids)),
        valid=cases("valid"),
        test=cases("test"),
        until=None if parts.valid_from is None else float(_seconds(np.array([parts.valid_from], "datetime64[us]"))[0]),
        user_ids=tuple(sequences.user_ids),
    )


def events_of(sequences: Sequences) -> Events:
    """What a store hands out as a task has it."""
    return Events(
        sequences.user.astype(np.int64), sequences.item.astype(np.int64), _seconds(sequences.ts), sequences.action
    )


def _known(events: Events, split: Split, user_ids: Sequence[str]) -> NDArray[np.bool_]:
    """bool[events]: what may be fitted on."""
    if split.valid_from is not None:
        return np.asarray(events.time < _seconds(np.array([split.valid_from], "datetime64[us]"))[0])
    until = split.until or {}
    never = np.datetime64("9999-01-01", "us")
    cut = _seconds(
        np.array(
            [np.datetime64(until[user_id], "us") if user_id in until else never for user_id in user_ids],
            "datetime64[us]",
        )
    )
    return np.asarray(events.time < cut[events.user])


def _cut(column: NDArray[Number], spans: Sequence[slice]) -> tuple[NDArray[Number], ...]:
    return tuple(column[span] for span in spans)


def _seconds(times: NDArray[np.datetime64]) -> NDArray[np.float64]:
    return np.asarray((times - np.datetime64(0, "us")) / _SECOND, np.float64)


# ── Protocols ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def only_named(task: Task) -> Task:
    """The task without the items of which nothing but an id is known: no event of theirs, no case that they answer.

    Papers on text-rich products start from such data; a log may name more products than its catalogue does.
    SettingsError where none is named.
    """
    named = task.named
    if not named.any():
        raise SettingsError(f"{task.name} knows no product's name, so none is left with --items named.")
    row_of = np.cumsum(named) - 1

    def of(cases: Cases) -> Cases:
        cases = cases.of(named[cases.target])
        kept = [named[rows] for rows in cases.history]
        history = tuple(row_of[rows[there]] for rows, there in zip(cases.history, kept, strict=True))
        actions = tuple(one[there] for one, there in zip(cases.actions, kept, strict=True))
        times = tuple(one[there] for one, there in zip(cases.times, kept, strict=True))
        return replace(cases, history=history, actions=actions, times=times, target=row_of[cases.target])

    train = task.train.of(named[task.train.item])
    return replace(
        task,
        item_ids=tuple(compress(task.item_ids, named)),
        texts=tuple(compress(task.texts, named)),
        name=f"{task.name}, named items",
        group=task.group[named],
        listed=task.listed[named],
        train=replace(train, item=row_of[train.item]),
        valid=of(task.valid),
        test=of(task.test),
    )


def cold(task: Task) -> Task:
    """F 5.4: the test cases whose target no train event names."""
    return replace(task, test=task.test.of(~np.isin(task.test.target, task.train.item)))


def few_records(cases: Cases, least: int = RECORDS[0], most: int = RECORDS[1]) -> Cases:
    """T 5.1: the cases with `least` to `most` records, the history's events and the target."""
    records = np.array([len(rows) + 1 for rows in cases.history], np.int64)
    return cases.of((records >= least) & (records <= most))


def drawn(task: Task, cases: Cases, seed: int, *, count: int = NEGATIVES, popular: bool = False) -> Rows:
    """T 5.1: int64[n, 1 + count], the target and `count` different items, none of the history and all listed by then;
    uniform, or (`popular`) by their number of train events.

    What is drawn for a case hangs on the seed, its user and its target alone, so a sample of the cases is asked the
    same. SettingsError where the shop has too few items.
    """
    found = np.empty((len(cases), 1 + count), np.int64)
    # An item without an event is drawn when nothing else is left.
    weight = np.log(np.maximum(np.bincount(task.train.item, minlength=task.n_items), 1e-9))
    for row in range(len(cases)):
        may = task.listed < cases.time[row]
        may[cases.history[row]] = False
        may[cases.target[row]] = False
        pool = np.flatnonzero(may)
        if len(pool) < count:
            raise SettingsError(
                f"A case of {task.name} has {len(pool)} items to draw from, too few for {count} beside the target; "
                "use protocol full or category."
            )
        rng = np.random.default_rng([seed, cases.user[row], cases.target[row]])
        if popular:  # the largest of log weight + Gumbel noise are a weighted draw without replacement
            noisy = weight[pool] + rng.gumbel(size=len(pool))
            chosen = pool[np.argpartition(noisy, len(pool) - count)[len(pool) - count :]]
        else:
            chosen = rng.choice(pool, count, replace=False)
        found[row, 0], found[row, 1:] = cases.target[row], chosen
    return found


def fewer_users(task: Task, share: float, seed: int) -> Task:
    """Low resource: train events of a seeded `share` of the users; cases stay the same. A smaller share is part of a
    larger one."""
    if not 0 < share <= 1:
        raise SettingsError(f"The share of users to learn from is {share}; it must be above 0 and at most 1.")
    users = np.unique(task.train.user)
    kept = np.random.default_rng(seed).permutation(users)[: round(share * len(users))]
    return replace(task, train=task.train.of(np.isin(task.train.user, kept)))


# ── Who is asked ──────────────────────────────────────────────────────────────────────────────────────────────────────


class System:
    """Anything that can be asked: the base of every baseline. A subclass has `fit` and `scores`, and says what differs:

        uses            what it reads, of ids, text, query, llm: a board colours by it
        settings_class  the frozen dataclass of its `settings`, which are kept with its figures; with a `seed` among
                        them it is fitted with every seed, and its figures are means
        seen            what it has read beside the task, for the leak detector (train/leaks.py); known after `fit`
        training_cost   of a training that an earlier evaluation kept: its `seconds` count as this one's
        code            modules that decide its answers though its own does not import them: answers are kept by code

    `name` is what it is registered as (evaluation/systems.py). It is made of its settings and the workshop, which holds
    what all systems of an evaluation share: the store, the text encoder, vectors, models (evaluation/workshop.py).
    """

    name: str = "system"
    uses: tuple[str, ...] = ("ids",)
    settings_class: type[Any] | None = None
    settings: Any = None
    seen: tuple[Seen, ...] = ()
    training_cost: Mapping[str, float] = MappingProxyType({})
    code: tuple[str, ...] = ()

    def __init__(self, settings: Any = None, workshop: Any = None) -> None:
        """Makes it without fitting; nothing is read or loaded yet. Most need no workshop."""
        self.settings = self.settings_class() if settings is None and self.settings_class else settings

    def fit(self, task: Task, note: Note) -> None:
        """Learns from `task.train` and may choose by `task.valid`. The test cases are taken out before, and whatever is
        said goes to `note`."""
        raise NotImplementedError

    def scores(self, cases: Cases) -> Scores:
        """float32[cases, items], the higher the better; -inf for an item it cannot rank. Never NaN. The targets are
        hidden (-1)."""
        raise NotImplementedError

    @property
    def seeded(self) -> bool:
        """Whether it draws, so that another seed gives other answers: its settings have one."""
        return is_dataclass(self.settings) and any(one.name == "seed" for one in fields(self.settings))


class Within(System):
    """A system that compares only some items with care, and is told among which to look where a protocol leaves a part
    of the catalogue."""

    def scores_within(self, cases: Cases, allowed: NDArray[np.bool_]) -> Scores:
        """As `scores`; what is not allowed may get any score. allowed: bool[cases, items], the mask that all systems'
        scores get."""
        raise NotImplementedError


class Reranker(System):
    """A system that orders some items of a case, being too slow for all. `scores` is its first stage, of which the
    first `depth` are reranked; `used` are all tokens it has read and written so far."""

    depth: int = 20
    used: Usage = Usage()

    def scores_among(self, cases: Cases, candidates: Rows) -> Scores:
        """float32[cases, c] of the rows candidates int64[cases, c] (-1: none, its score does not count). The order in
        which they are given says nothing, the target may stand anywhere."""
        raise NotImplementedError
