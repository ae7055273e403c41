"""What every door offers, in plain data: `Service` over one `Recommender`. HTTP, UCP, MCP and the page call it.

It knows no protocol and no key: who may ask what is for the door to say. All methods are synchronous and thread-safe
and may take as long as an answer does; a door calls them in threads. Errors are those of recgraph.errors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from recgraph import __version__
from recgraph.errors import LLMError, SettingsError
from recgraph.inflight import InFlight

if TYPE_CHECKING:
    from recgraph.graph.assistant.assistant import Assistant
    from recgraph.graph.recommender import Recommender
    from recgraph.store.records import Event, Item, Summary
    from recgraph.tools.wish.wish import Wish

SUMMARY_SECONDS = 10.0  # that a summary may take, where an LLM writes it; then it is counted
MOST_USERS = 1000  # shoppers on one page of them
LEAST_SECONDS = 0.05  # that an answer has where its time was up before its turn came: retrieval alone
_WORKING = 0.1, 0.5  # of its time an answer keeps this share for itself, but not more seconds than these


@dataclass(frozen=True)
class Clock:
    """The time of one answer, which runs from when the request came in: waiting for its turn is in it."""

    until: float  # a moment of time.monotonic()
    patience: float  # seconds that it may wait for its turn

    @classmethod
    def of(cls, seconds: float) -> Clock:
        """Starts it."""
        share, most = _WORKING
        return cls(time.monotonic() + seconds, seconds - min(most, share * seconds))

    @property
    def left(self) -> float:
        """Seconds, and some for who comes late."""
        return max(LEAST_SECONDS, self.until - time.monotonic())


class Service:
    """Recommendations, events, products, summaries, runs and forgetting, as plain data in and out."""

    def __init__(self, recommender: Recommender, chats: str = "") -> None:
        """`chats` is an SQLite file in which several processes keep conversations together."""
        self.recommender, self._chats = recommender, chats
        self._shoppers, self._threads = InFlight(), InFlight()

    # ── Answers ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def clock(self, seconds: float | None = None, most: float = math.inf) -> Clock:
        """That of an answer which may take so long, or as long as the settings say, and `most` at the most. A door
        starts it when the request comes in."""
        return Clock.of(min(seconds or self.recommender.settings.deadline, most))

    def recommend(self, user_id: str, query: str = "", **asked: Any) -> dict[str, Any]:
        """The public JSON of one recommendation (DESIGN 8). Keywords as in `stream`."""
        for told in self.stream(user_id, query, **asked):
            if "items" in told:
                return told
        raise AssertionError("a run ends in a recommendation")

    def stream(self, user_id: str, query: str = "", **asked: Any) -> Iterator[dict[str, Any]]:
        """`{"node", "ms", "detail"}` as each node ends, the public JSON last, which alone has `items`.

        Keywords: `wish` (a `Wish`, or the JSON of one), `exclude` (item ids), `k`, `as_of` (text or a datetime),
        `clock` (a `Clock`; the settings' deadline, from now on, without), `thread`, `new_user`, `mode`, `paradigm`.
        UnknownUser, SettingsError.
        """
        from recgraph.graph.recommendation import Recommendation
        from recgraph.tools.wish.wish import Wish

        wish = asked.pop("wish", None)
        given = Wish.from_dict(wish) if isinstance(wish, Mapping) else wish
        clock: Clock = asked.pop("clock", None) or self.clock()
        with self._shoppers.among(user_id):
            for step in self.recommender.stream(user_id, query, wish=given, deadline=clock.left, **asked):
                if isinstance(step, Recommendation):
                    yield step.to_dict()
                else:
                    yield {"node": step.node, "ms": round(step.ms, 1), "detail": step.detail}

    def filters(
        self,
        want: Mapping[str, Sequence[str]] | None = None,
        avoid: Mapping[str, Sequence[str]] | None = None,
        price: Mapping[str, float | None] | None = None,
    ) -> Wish:
        """A wish of which all is hard, in the shop's spelling; `price` has at_most, at_least, about. SettingsError for
        what no product has; it lists near values."""
        from recgraph.tools.wish.wish import Price

        return self.recommender.filters(want, avoid, Price(**price) if price else None)

    def understand(self, query: str, user_id: str = "", thread: str = "") -> dict[str, Any]:
        """What a query is understood as: a wish as JSON, and its `parts` in words."""
        wish = self.recommender.understand(query, user_id, thread)
        return {**wish.to_dict(), "parts": wish.parts(self.recommender.currency)}

    def items(self, item_ids: Sequence[str]) -> dict[str, Item]:
        """Products by their ids; an unknown id is left out."""
        return self.recommender.store.items(item_ids)

    def chat(self, user_id: str, text: str, thread: str = "", clock: Clock | None = None) -> Iterator[dict[str, Any]]:
        """One turn of a conversation: `{"node", "ms", "detail"}` as each node ends, then the reply, which alone has
        `products` (graph/assistant/assistant.py, `Reply`). Turns of one thread are answered one after another; waiting
        for the one before is in the time of the clock."""
        from recgraph.graph.assistant.assistant import Reply

        clock = clock or self.clock()
        with self._shoppers.among(user_id), self._threads.alone(f"{len(user_id)}:{user_id}:{thread}"):
            for step in self.assistant.stream(user_id, text, thread, clock.left):
                if isinstance(step, Reply):
                    yield step.to_dict()
                else:
                    yield {"node": step.node, "ms": round(step.ms, 1), "detail": step.detail}

    @cached_property
    def assistant(self) -> Assistant:
        """The shop's assistant. Its conversations are in the file of `chats`, or this process keeps the latest."""
        from recgraph.graph.assistant.assistant import Assistant
        from recgraph.graph.checkpoints import Checkpoints
        from recgraph.graph.wiring import serializer

        return Assistant(self.recommender, Checkpoints(self._chats, serializer()) if self._chats else None)

    # ── What happens in the shop ──────────────────────────────────────────────────────────────────────────────────────

    def record(self, events: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Writes what shoppers did; on disk when it returns, and known to the next answer.

        Each has `user_id`, `action` and `item_id`, or `query` for a search; also `ts` (now where it is missing, UTC
        where it has no offset), `position`, and `event_id`: one that this user has had already is `known`, not written
        again. Without an id an event is always new. All or nothing. SettingsError, StoreError, StoreBusy.
        """
        from recgraph.store.records import Event, as_utc

        now = datetime.now(UTC).replace(tzinfo=None)
        made = [
            Event(
                str(one["user_id"]),
                0,
                as_utc(one.get("ts")) or now,
                one["action"],
                str(one.get("item_id") or ""),
                str(one.get("query") or ""),
                one.get("position"),
            )
            for one in events
        ]
        ids = [_event_key(str(one["user_id"]), str(one.get("event_id") or "")) for one in events]
        written = self.recommender.record(made, ids)
        return {"written": len(written), "known": len(made) - len(written)}

    def upsert(self, items: Sequence[Mapping[str, Any]]) -> list[str]:
        """Adds and changes products, all or nothing; fields as those of `Item`. The ids of those that changed."""
        return self.recommender.upsert(items)

    # ── What is known, and why ────────────────────────────────────────────────────────────────────────────────────────

    def users(self, limit: int = 20, like: str = "") -> list[dict[str, Any]]:
        """The most active shoppers whose id contains `like`."""
        return [
            {
                "user_id": row.user_id,
                "events": row.events,
                "purchases": row.purchases,
                "first": row.first.isoformat(),
                "last": row.last.isoformat(),
            }
            for row in self.recommender.store.users(min(limit, MOST_USERS), like)
        ]

    def history(self, user_id: str, limit: int) -> list[dict[str, Any]]:
        """The newest events of a shopper, oldest first. UnknownUser."""
        store = self.recommender.store
        history = store.history(user_id, limit=limit)
        if not history:
            store.require_user(user_id)
        items = store.items(sorted({event.item_id for event in history if event.item_id}))
        return [_event(event, items) for event in history]

    def summary(self, user_id: str) -> dict[str, Any]:
        """What is known of a shopper, in sentences, each with the events it was made from. UnknownUser."""
        from recgraph.graph.nodes import MOST_EVENTS

        store = self.recommender.store
        history = store.history(user_id, limit=MOST_EVENTS)
        if not history:
            store.require_user(user_id)
        items = store.items(sorted({event.item_id for event in history if event.item_id}))
        found, degraded = self._summarized(user_id, history, items)
        by_seq = {event.seq: _event(event, items) for event in history}
        return {
            "user_id": user_id,
            "text": found.text if found else "",
            "made_by": found.model if found else "",
            "sentences": [
                {"text": text, "events": [by_seq[seq] for seq in seqs if seq in by_seq]}
                for text, seqs in (found.sentences if found else ())
            ],
            "degraded": degraded,
        }

    def _summarized(
        self, user_id: str, history: Sequence[Event], items: Mapping[str, Item]
    ) -> tuple[Summary | None, list[str]]:
        """By the summarizer that answers have, from what it wrote before where that is kept; counted where its LLM
        fails."""
        from recgraph.graph.state import RunContext, State
        from recgraph.graph.summary.summarize import build_summarize
        from recgraph.graph.summary.summarizers import profile_fallback

        core, settings = self.recommender, self.recommender.settings
        asked: State = {"user_id": user_id, "paradigm": settings.paradigm, "history": history, "items": items}
        graph = build_summarize(core.summarizer, core.store.summary, block=settings.block, group=settings.merge)
        try:
            made = graph.invoke(asked, context=RunContext.within(SUMMARY_SECONDS))
        except LLMError as error:
            return profile_fallback(asked, core.currency), [f"summarize: counted instead: {error}"]
        return made.get("summary"), list(made.get("degraded") or ())

    def past(self, run_id: str) -> dict[str, Any]:
        """A run of the log, as it was answered: the public JSON, with sources, evidence, plan and what was missing.
        UnknownRun."""
        from recgraph.graph.replay.past import REQUEST
        from recgraph.store.runs import RunLog

        found = RunLog(self.recommender.store.path).find(run_id)
        return {name: value for name, value in found.items() if name != REQUEST}

    def replay(self, run_id: str) -> dict[str, Any]:
        """The same run again, by the request and the data of then, beside what was answered. UnknownRun, StoreError."""
        return self.recommender.replay(run_id).to_dict()

    def forget(self, user_id: str) -> dict[str, int]:
        """Takes a shopper out of everything that is kept, when the answers to them that are worked on have ended; how
        much of what went. All 0 for who is not known. StoreBusy."""
        with self._shoppers.alone(user_id):
            talks = self.assistant.forget(user_id)
            return {**self.recommender.forget(user_id), **({"conversations": talks} if talks else {})}

    # ── How it is ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def warm_up(self) -> None:
        """Makes ready what the first answers need."""
        self.recommender.warm_up()
        _ = self.assistant

    def shop(self) -> dict[str, Any]:
        """What a page tells of the shop; `simulated` is the sentence that says so, "" for a real one."""
        core = self.recommender
        counts = core.store.counts()
        return {
            "name": core.store.meta("name") or "",
            "simulated": core.store.meta("simulated") or "",
            "currency": core.currency,
            "items": counts["items"],
            "users": counts["users"],
            "models": dict(core.models),
        }

    def health(self) -> dict[str, Any]:
        """Version, models and revision: what answers here. StoreError where the store cannot be read."""
        from recgraph.protocols.money import currency_code

        core = self.recommender
        return {
            "version": __version__,
            "shop": core.store.meta("name") or "",
            "currency": core.currency,
            "currency_code": currency_code(core.currency),  # "" where agents can be given no price
            "models": {**core.models, "store_revision": core.store.revision()},
        }


def _event_key(user_id: str, event_id: str) -> str:
    """Under what an event's id is kept: a user's own, so that nobody takes another one's ids."""
    import uuid

    if len(event_id) > 200:
        raise SettingsError(f"event_id has {len(event_id)} characters; it may have 200.")
    return f"{len(user_id)}:{user_id}:{event_id}" if event_id else uuid.uuid4().hex


def _event(event: Event, items: Mapping[str, Item]) -> dict[str, Any]:
    """An event as a person can read it."""
    return {
        "seq": event.seq,
        "ts": event.ts.isoformat(),
        "action": event.action,
        "item_id": event.item_id,
        "title": items[event.item_id].name if event.item_id in items else "",
        "query": event.query,
    }
