"""`Assistant`: one conversation turn in, one reply out, for the doors that are no LangGraph clients (terminal, HTTP).

A thread is of one user: the same name under another user is another conversation. Where a thread is kept, the
checkpointer says; the one made here keeps the latest `THREADS` in memory.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from typing import Any, cast

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver

from recgraph.graph.assistant.agent import SECONDS
from recgraph.graph.assistant.talk import SHOWS, TurnContext, build_talk
from recgraph.graph.checkpoints import Checkpoints
from recgraph.graph.recommender import Recommender, Step
from recgraph.tools.wish.understand import MOST_LETTERS

THREADS = 1000  # conversations kept, in memory where no checkpointer is given, or in a file of ours
_KIND = "chat-"  # how the names of their threads begin


@dataclass(frozen=True)
class Reply:
    """What the assistant says. `products` are those this reply shows, as in the public JSON (DESIGN 8) with brand,
    color, category and size; `understood` is the wish that holds now with its `parts` in words; `asked_back` the
    question it asks, "" for none; `run_id` that of the recommendation, "" where none was made, `degraded` and `plan`
    what that did without."""

    text: str
    products: list[dict[str, Any]] = field(default_factory=list)
    run_id: str = ""
    understood: dict[str, Any] = field(default_factory=dict)
    relaxed: list[dict[str, Any]] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)
    plan: list[str] = field(default_factory=list)
    asked_back: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dict(vars(self))


class Assistant:
    """A shop's assistant over a recommender. Thread-safe; turns of one thread are to be sent one after another.

    `model` is any LangChain chat model, which has `seconds` for a reply; without one, or where it fails, written
    sentences answer."""

    def __init__(
        self,
        recommender: Recommender,
        checkpointer: BaseCheckpointSaver[Any] | None = None,
        model: Any = None,
        *,
        shows: int = SHOWS,
        seconds: float = SECONDS,
    ) -> None:
        self._own = InMemorySaver() if checkpointer is None else None
        self.checkpointer = checkpointer or self._own
        self.graph = build_talk(recommender, self.checkpointer, shows, model, seconds)
        self._threads, self._lock = OrderedDict[str, None](), threading.Lock()

    def reply(self, user_id: str, text: str, thread: str = "", deadline: float | None = None) -> Reply:
        """The answer to what a user says in a thread, within `deadline` seconds, or those of the settings."""
        for step in self.stream(user_id, text, thread, deadline):
            if isinstance(step, Reply):
                return step
        raise AssertionError("a turn ends in a reply")

    def stream(
        self, user_id: str, text: str, thread: str = "", deadline: float | None = None
    ) -> Iterator[Step | Reply]:
        """The steps of the recommender, where it is asked, then the reply."""
        asked, config = self._asked(user_id, text, thread)
        state: dict[str, Any] = {}
        parts = cast(Any, self.graph.stream(asked, config, stream_mode=["custom", "values"], **self._kept(deadline)))
        try:
            with closing(parts):
                for kind, part in parts:
                    if kind == "custom":
                        yield Step(**part)
                    else:
                        state = part
        finally:  # also of a turn that nobody listens to any more
            self._forget_oldest(config)
        yield reply_of(state)

    async def areply(self, user_id: str, text: str, thread: str = "", deadline: float | None = None) -> Reply:
        """As `reply`."""
        async for step in self.astream(user_id, text, thread, deadline):
            if isinstance(step, Reply):
                return step
        raise AssertionError("a turn ends in a reply")

    async def astream(
        self, user_id: str, text: str, thread: str = "", deadline: float | None = None
    ) -> AsyncIterator[Step | Reply]:
        """As `stream`."""
        asked, config = self._asked(user_id, text, thread)
        state: dict[str, Any] = {}
        parts = cast(Any, self.graph.astream(asked, config, stream_mode=["custom", "values"], **self._kept(deadline)))
        try:
            async with aclosing(parts):
                async for kind, part in parts:
                    if kind == "custom":
                        yield Step(**part)
                    else:
                        state = part
        finally:
            self._forget_oldest(config)
        yield reply_of(state)

    def forget(self, user_id: str) -> int:
        """Deletes all conversations of a user that the checkpointer keeps; how many there were."""
        owned = {"chat_user": _key(user_id)}
        saver = cast(BaseCheckpointSaver[Any], self.checkpointer)
        threads = {one.config["configurable"]["thread_id"] for one in saver.list(None, filter=owned)}
        for thread in threads:
            saver.delete_thread(thread)
        return len(threads)

    def _kept(self, deadline: float | None) -> dict[str, Any]:
        until = None if deadline is None else time.monotonic() + deadline
        return {"durability": "exit", "context": TurnContext(until)}  # one checkpoint a turn

    def _asked(self, user_id: str, text: str, thread: str) -> tuple[Any, Any]:
        words = text[: MOST_LETTERS + 1].encode("utf-8", "replace").decode()  # lone surrogates stop checkpoints
        config = {
            "configurable": {"thread_id": f"{_KIND}{_key(user_id)}-{_key(thread)}"},
            "metadata": {"chat_user": _key(user_id)},
        }
        return {"messages": [HumanMessage(words)], "user_id": user_id}, config

    def _forget_oldest(self, config: Any) -> None:
        """Keeps the memory of a long-lived process small, and the file in which several keep conversations."""
        thread = config["configurable"]["thread_id"]
        if isinstance(self.checkpointer, Checkpoints):
            self.checkpointer.keep_latest(thread, _KIND, THREADS)
        if self._own is None:
            return
        with self._lock:
            last = self._own.get_tuple(config)
            if last is not None:  # of a thread only its last state is gone on from
                place = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
                self._own.delete_thread(thread)
                self._own.put(cast(Any, place), last.checkpoint, last.metadata, last.checkpoint["channel_versions"])
            self._threads[thread] = None
            self._threads.move_to_end(thread)
            while len(self._threads) > THREADS:
                self._own.delete_thread(self._threads.popitem(last=False)[0])


def reply_of(state: dict[str, Any]) -> Reply:
    """The reply that a state of the graph ends with."""
    last = state["messages"][-1]
    return Reply(last.text, **last.additional_kwargs.get("recgraph", {}))


def _key(text: str) -> str:
    """A name of any length as one that tells nothing of it."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:24]
