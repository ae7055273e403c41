"""The leak detector: what fitted parts have seen (train/evidence.py) against the cut that they may not have seen past.
One leak, and nothing is measured.

    fitted ahead          CORE, the text transformer, the title encoder and the memory's vectors with it, SFT examples:
                          nothing from the cut on (`check_folder`); the ranking learns from validation cases and may
                          know nothing from the test cases on
    fitted to be measured popularity, transitions and query memory of the stage `evaluate` (`check_train`), all systems
                          of `recgraph evaluate` (`check_task`, `fit`): the same
    given with a case     its history and its summary: nothing from the moment on in which it is asked (`check_given`;
                          `check_summaries` of train/summarize.py)

The cut (train/prepare.py) is one moment for all, or in leave-one-out one a user: the moment of the first of their
held-out cases. A system of `recgraph evaluate` is fitted without the test cases, is asked without their targets, and
says in an attribute `seen` what else it read. A part that reads more than it says, by another way than the store it is
fitted on, is not found out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recgraph.errors import SettingsError
from recgraph.store import snapshot
from recgraph.store.db import Store
from recgraph.store.records import Event, Summary
from recgraph.tools.llm.protocol import Usage
from recgraph.train.evidence import Seen, kept, of_examples, of_memory, of_sequences
from recgraph.train.pipeline import needed
from recgraph.train.prepare import read_cases, read_facts
from recgraph.train.task import Cases, Note, Reranker, Rows, Scores, System, Task, Within

_LEAK = "Nothing is measured with such a leak."
_NEVER = np.datetime64("9999-01-01", "us")
HELD_OUT = ("valid", "test")
STAGES = ("id_embeddings", "title_embeddings", "memory", "textformer", "examples")


@dataclass(frozen=True)
class Cut:
    """From when on a fitted part may know nothing: one `moment`, or one for each of `users` (the others hold nothing
    back). `searches`, of leave-one-out, are the held-out cases' own (query, moment)."""

    split: str
    moment: datetime | None = None
    users: Mapping[str, datetime] = field(default_factory=dict)
    searches: frozenset[tuple[str, datetime]] = frozenset()

    @classmethod
    def of(cls, split_folder: Path, *parts: str) -> Cut:
        """The cut of data/prepare/<split>, before the held-out `parts` [valid, test]; what learns from validation cases
        holds to that of test.

        StoreError where it is missing.
        """
        facts, held_out = read_facts(split_folder), parts or HELD_OUT
        if facts["valid_from"]:
            return cls(
                facts["split"], datetime.fromisoformat(facts["valid_from" if "valid" in held_out else "test_from"])
            )
        held = read_cases(split_folder, *held_out)
        return cls._of_users(facts["split"], ((case.user_id, case.as_of, case.query) for case in held))

    @classmethod
    def of_task(cls, task: Task) -> Cut:
        """The cut of a task, as its held-out cases have it."""
        if task.until is not None:
            return cls(task.split, _moment(task.until))
        names = task.user_ids or [f"number {row}" for row in range(_users(task))]
        held = (
            (names[user], _moment(time), query)
            for cases in (task.valid, task.test)
            for user, time, query in _asked(cases)
        )
        return cls._of_users(task.split, held)

    @classmethod
    def _of_users(cls, split: str, held: Iterable[tuple[str, datetime, str]]) -> Cut:
        users: dict[str, datetime] = {}
        searches = set()
        for user_id, moment, query in held:
            users[user_id] = min(moment, users.get(user_id, moment))
            searches |= {(query, moment)} if query else set()
        return cls(split, None, users, frozenset(searches))

    def past(self, seen: Seen) -> int | None:
        """The place in `seen` of what lies furthest past the cut; None where nothing does."""
        if self.moment is not None:
            over = seen.ts - np.datetime64(self.moment, "us")
        else:
            cut = np.array(
                [np.datetime64(self.users[one], "us") if one in self.users else _NEVER for one in seen.user_id],
                "datetime64[us]",
            )
            over = seen.ts - cut
            first = np.datetime64(min(self.users.values(), default=_NEVER.item()), "us")
            for row in [row for row, one in enumerate(seen.user_id) if not one]:
                if not seen.what[row]:
                    over[row] = seen.ts[row] - first
                elif (seen.what[row], seen.ts[row].item()) in self.searches:
                    over[row] = np.timedelta64(0, "us")
        found = np.flatnonzero(over >= np.timedelta64(0, "us"))
        return int(found[np.argmax(over[found])]) if len(found) else None


def refuse(cut: Cut, *pieces: Seen) -> None:
    """SettingsError for the first piece that saw something past the cut: which, what it saw, and what makes it anew."""
    for seen in pieces:
        row = cut.past(seen)
        if row is None:
            continue
        who, what, when = seen.user_id[row], seen.what[row], seen.ts[row].item()
        saw = (
            f"what user {who} did with '{what}'"
            if who
            else f"what a search for '{what}' showed"
            if what
            else "what everybody did"
        )
        limit = cut.moment or cut.users.get(who) or (when if what else min(cut.users.values()))
        again = (
            f"Make it again with: recgraph train prepare && recgraph train {seen.stage}"
            if seen.stage
            else "Fit it on the train part alone."
        )
        raise SettingsError(
            f"{seen.piece} knows {saw} at {when}; the cut of split {cut.split} is {limit}. {_LEAK} {again}"
        )


# ── The pipeline ──────────────────────────────────────────────────────────────────────────────────────────────────────


def check_folder(folder: Path, split_folder: Path, stages: Sequence[str] = STAGES) -> None:
    """Looks at what the stages made below data/ of params.yaml's folder; what is not there is left out.

    SettingsError for a leak, naming the part; StoreError for a part without evidence.
    """
    cut, data = Cut.of(split_folder), folder / "data"
    for stage in stages:
        if stage != "examples" and (data / stage).is_dir():
            refuse(cut, *kept(data / stage, stage))
    if (data / "ranking").is_dir():  # it learns from validation cases
        refuse(Cut.of(split_folder, "test"), *kept(data / "ranking", "ranking"))
    if "examples" in stages and (files := sorted((data / "examples").glob("*.parquet"))):
        with snapshot.open_folder(needed(data / "prepare" / "all", "prepare")) as store:
            refuse(cut, *(of_examples(store, file) for file in files))


def check_train(store: Store, cut: Cut) -> None:
    """Looks at what the stage `evaluate` fits on the train part as it goes. SettingsError for a leak, naming the
    part."""
    events, item_ids = store.sequences(), store.catalogue().item_ids
    counted = [of_sequences(name, "evaluate", events, item_ids) for name in ("Popularity", "Transitions")]
    refuse(cut, *counted, of_memory("The query memory", "evaluate", store))


def check_given(case: str, as_of: datetime | None, history: Sequence[Event], summary: Summary | None) -> None:
    """What a case is given may not know the moment it is asked in or anything later. SettingsError names the case, the
    part and the event."""
    late = [event for event in history if as_of is not None and event.ts >= as_of]
    if late:
        raise SettingsError(
            f"The history of {case} holds event {late[0].seq} of {late[0].ts}, but it is asked at {as_of}: a leak."
        )
    beyond = _rests_on(summary) - {event.seq for event in history} if summary else None
    if summary and beyond:
        raise _late(f"the one of {case}, asked at {as_of}", summary, beyond)


def check_summary(summary: Summary) -> None:
    """A summary rests on nothing later than its last event. SettingsError names it and the event."""
    beyond = {seq for seq in _rests_on(summary) if seq > summary.upto_seq}
    if beyond:
        raise _late(f"the {summary.paradigm} one up to event {summary.upto_seq}", summary, beyond)


def _rests_on(summary: Summary) -> set[int]:
    return {int(seq) for seqs in (summary.event_seqs, *(seqs for _, seqs in summary.sentences)) for seq in seqs}


def _late(which: str, summary: Summary, beyond: set[int]) -> SettingsError:
    told = f"The summaries know what comes later: {which}, rests on event {min(beyond)} of user {summary.user_id}"
    return SettingsError(f"{told}. Make them again with: recgraph train summarize")


# ── recgraph evaluate ─────────────────────────────────────────────────────────────────────────────────────────────────


def check_task(task: Task, names: Iterable[str] = ()) -> None:
    """The train part may hold nothing from the cut on, a case's history nothing from its moment on, and what is chosen
    by (`valid`) comes before what is measured on. SettingsError names the systems that would be fitted on it (`names`),
    the user and the item."""
    for part, cases in (("validation", task.valid), ("test", task.test)):
        last = np.array([times.max(initial=-np.inf) for times in cases.times], np.float64)
        for row in np.flatnonzero(last >= cases.time)[:1]:
            raise SettingsError(
                f"The history of a {part} case of user {_user(task, cases.user[row])} goes on to "
                f"{_moment(last[row])}; it is asked at "
                f"{_moment(cases.time[row])}. {_LEAK}"
            )
    if task.until is not None:
        cut = np.full(_users(task), task.until)
        if len(task.valid) and len(task.test) and task.valid.time.max() >= task.test.time.min():
            raise SettingsError(
                f"A validation case of {task.name} is asked at {_moment(task.valid.time.max())}, "
                "after the first test case."
            )
    else:
        cut = np.full(_users(task), np.inf)
        for cases in (task.valid, task.test):
            np.minimum.at(cut, cases.user, cases.time)
    for row in np.flatnonzero(task.train.time >= cut[task.train.user])[:1]:
        user, time, item = task.train.user[row], task.train.time[row], task.train.item[row]
        raise SettingsError(
            f"{', '.join(names) or 'The systems'} would know what user {_user(task, user)} did with "
            f"'{task.item_ids[item]}' at {_moment(time)}; "
            f"the cut of split {task.split} is {_moment(cut[user])}. {_LEAK}"
        )


def fit(system: System, task: Task, note: Note) -> System:
    """Fits a system without showing it the test cases and gives it back so that it is asked without their targets.

    SettingsError where what it says to have `seen` lies past the cut, and what fitting raises.
    """
    system.fit(replace(task, test=task.test.of(np.zeros(0, np.int64))), note)
    if system.seen:
        refuse(Cut.of_task(task), *system.seen)
    if isinstance(system, Reranker):
        return _UntoldReranker(system)
    return _UntoldWithin(system) if isinstance(system, Within) else _Untold(system)


class _Untold(System):
    """A fitted system that is asked about cases without being told their targets (-1)."""

    def __init__(self, system: System) -> None:
        self.name, self.system = system.name, system

    def scores(self, cases: Cases) -> Scores:
        return self.system.scores(without_targets(cases))


class _UntoldWithin(_Untold, Within):
    """The same of one that is told among which items to look."""

    system: Within

    def scores_within(self, cases: Cases, allowed: NDArray[np.bool_]) -> Scores:
        return self.system.scores_within(without_targets(cases), allowed)


class _UntoldReranker(_Untold, Reranker):
    """The same of one that can also order the items it is given."""

    system: Reranker

    def __init__(self, system: Reranker) -> None:
        super().__init__(system)
        self.depth = system.depth

    @property
    def used(self) -> Usage:  # type: ignore[override]
        """What the system says."""
        return self.system.used

    def scores_among(self, cases: Cases, candidates: Rows) -> Scores:
        return self.system.scores_among(without_targets(cases), candidates)


def without_targets(cases: Cases) -> Cases:
    """The same cases, every target hidden."""
    return replace(cases, target=np.full(len(cases), -1, np.int64))


def _users(task: Task) -> int:
    return 1 + max(
        (int(rows.max()) for rows in (task.train.user, task.valid.user, task.test.user) if len(rows)), default=-1
    )


def _user(task: Task, row: int) -> str:
    return task.user_ids[row] if task.user_ids else f"number {row}"


def _asked(cases: Cases) -> Iterable[tuple[int, float, str]]:
    return zip(cases.user.tolist(), cases.time.tolist(), cases.query, strict=True)


def _moment(seconds: float) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(seconds))).replace(tzinfo=None)
