"""The compiled graph with the checkpointer of recgraph, run asynchronously: resumed, cancelled, many at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder, FakeLLM

from recgraph.errors import LLMTimeout
from recgraph.graph.recommender import Recommender
from recgraph.settings import Settings
from recgraph.store.db import Store

GOOD = "ID: K2OLIV\nTitle: Harrow Wool Jumper, Olive, M"
Make = Callable[..., Recommender]


@pytest.fixture
def make(make_store: Callable[..., Store], tmp_path: Path) -> Iterator[Make]:
    """make(llm) -> a recommender with checkpoints in a file."""
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    store.close()
    opened: list[Recommender] = []

    def _make(llm: FakeLLM | None = None) -> Recommender:
        parts = Store.open(store.path), Settings(store=str(store.path)), FakeEncoder(), llm or FakeLLM(GOOD)
        opened.append(Recommender(*parts, checkpoint=str(tmp_path / "checkpoints.sqlite")))
        return opened[-1]

    yield _make
    for recommender in opened:
        recommender.close()


def thread(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


def ids(state: Any) -> list[str]:
    return [line.item.item_id for line in state["recommended"]]


def asked(user_id: str = "U1", query: str = "linen shirt") -> Any:
    return {"user_id": user_id, "query": query, "run_id": f"{user_id}-{query}"}


def test_an_async_run_answers_as_a_sync_one_does_and_leaves_the_same_checkpoints(make: Make) -> None:
    recommender = make()
    sync = recommender.graph.invoke(asked(), thread("sync"))
    found = asyncio.run(recommender.graph.ainvoke(asked(), thread("async")))
    assert ids(found) == ids(sync)
    histories = [[one.values.get("recommended") for one in recommender.graph.get_state_history(thread(name))]
                 for name in ("sync", "async")]  # fmt: skip
    assert histories[0] == histories[1]
    assert len(histories[0]) > 8


def test_astream_tells_of_every_node(make: Make) -> None:
    recommender = make()

    async def nodes() -> list[str]:
        return [name async for part in recommender.graph.astream(asked(), thread("t"), stream_mode="updates")
                for name in part]  # fmt: skip

    told = asyncio.run(nodes())
    assert told[:2] == ["load_history", "understand"]
    assert told[-1] == "explain"


def test_a_thread_goes_on_in_the_next_async_turn_of_another_process(make: Make) -> None:
    """What was asked for before stays, read back from the file."""
    first = make()
    asyncio.run(first.graph.ainvoke(asked(query="olive shirts"), thread("t")))
    first.close()
    found = asyncio.run(make().graph.ainvoke(asked(query="under 50"), thread("t")))
    assert (found["wish"].want["color"], found["wish"].price.at_most) == (("Olive",), 50.0)


class Slow(FakeLLM):
    """Takes its time until the deadline or its release, and tells what it was asked for."""

    def __init__(self) -> None:
        super().__init__(GOOD)
        self.begun, self.released, self.calls = threading.Event(), threading.Event(), 0

    def generate(self, prompts: Any, *, deadline: float | None = None, **options: Any) -> Any:
        self.calls += 1
        self.begun.set()
        while not self.released.is_set():
            if deadline is not None and time.monotonic() >= deadline:
                raise LLMTimeout("The deadline passed.")
            time.sleep(0.01)
        return super().generate(prompts, deadline=deadline, **options)


def test_a_run_that_is_cancelled_ends_and_is_resumed_from_what_was_whole(make: Make) -> None:
    """The node at work ends by itself; no node begins after it, and nothing half is in the file."""
    llm = Slow()
    recommender = make(llm)

    async def abandon() -> None:
        run = asyncio.create_task(recommender.graph.ainvoke(asked(), thread("t")))
        await asyncio.to_thread(llm.begun.wait, 20)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        llm.released.set()

    asyncio.run(abandon())
    state = recommender.graph.get_state(thread("t"))
    assert state.next == ("recommend",)
    assert "recommended" not in state.values
    assert (llm.calls, llm.scored) == (1, [])
    found = asyncio.run(recommender.graph.ainvoke(None, thread("t")))
    assert llm.calls == 2
    assert ids(found) == ids(make().graph.invoke(asked(), thread("whole")))


@pytest.mark.slow
def test_twenty_at_once_answer_as_one_after_the_other(make: Make) -> None:
    recommender = make()
    requests = [
        asked(user, query) for user in ("U1", "U2", "U3", "U1") for query in ("", "wool", "boots", "x", "shirt")
    ]
    alone = [ids(recommender.graph.invoke(one, thread(f"alone-{place}"))) for place, one in enumerate(requests)]

    async def together() -> list[Any]:
        return await asyncio.gather(
            *(recommender.graph.ainvoke(one, thread(f"together-{place}")) for place, one in enumerate(requests))
        )

    assert [ids(found) for found in asyncio.run(together())] == alone
    assert recommender._checkpointer is not None
    assert recommender._checkpointer.take_problem() == []


def test_the_tools_of_an_assistant_answer_asynchronously(make: Make) -> None:
    memory, retrieve = make().tools()
    hits, found = asyncio.run(_both(memory.ainvoke({"query": "linen shirt"}), retrieve.ainvoke({"query": "boots"})))
    assert hits == memory.invoke({"query": "linen shirt"})
    assert found == retrieve.invoke({"query": "boots"})
    assert found["products"]


async def _both(first: Any, second: Any) -> Any:
    return await asyncio.gather(first, second)
