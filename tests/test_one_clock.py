"""The time of an answer begins when its request comes in: waiting for a turn is in it, whichever door it came by."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeLLM

pytest.importorskip("fastapi")
pytest.importorskip("ucp_sdk")

import anyio
import httpx
from serving import Served, copied_shop, serving

from recgraph.errors import LLMTimeout
from recgraph.http.limits import Gate, Limits
from recgraph.service import LEAST_SECONDS, Clock
from recgraph.tools.llm.protocol import Completion, Form, Prompt, Usage

DEADLINE = 2.0
ASKERS = 8
SLACK = 2.0  # seconds that a busy machine may take for what retrieval alone answers


class SlowLLM(FakeLLM):
    """Takes longer for anything than any deadline here, and keeps to the deadline."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int = 64,
        form: Form | None = None,
        adapter: str | None = None,
        deadline: float | None = None,
    ) -> tuple[list[Completion], Usage]:
        assert deadline is not None
        time.sleep(max(0.0, deadline - time.monotonic()))
        raise LLMTimeout("late")

    def score(
        self,
        prompts: Sequence[Prompt],
        *,
        answers: tuple[str, str] = ("Yes", "No"),
        adapter: str | None = None,
        deadline: float | None = None,
    ) -> tuple[list[tuple[float, float]], Usage]:
        raise LLMTimeout("late")


def recommended(url: str, number: int) -> dict[str, Any]:
    return told(httpx.post(f"{url}/v1/recommendations", json={"user_id": "U1", "query": "olive shirt"}, timeout=60))


def streamed(url: str, number: int) -> dict[str, Any]:
    body = {"user_id": "U1", "query": "olive shirt", "stream": True}
    return last_event(httpx.post(f"{url}/v1/recommendations", json=body, timeout=60))


def chatted(url: str, number: int) -> dict[str, Any]:
    body = {"user_id": "U1", "text": "an olive shirt", "thread": str(number)}
    return told(httpx.post(f"{url}/v1/chat", json=body, timeout=60))


def chatted_in_one_thread(url: str, number: int) -> dict[str, Any]:
    return told(httpx.post(f"{url}/v1/chat", json={"user_id": "U1", "text": "an olive shirt"}, timeout=60))


def searched(url: str, number: int) -> dict[str, Any]:
    answer = httpx.post(f"{url}/ucp/catalog/search", json={"query": "olive shirt"}, timeout=60)
    return dict(told(answer)["recgraph"])


def called(url: str, number: int) -> dict[str, Any]:
    call = {"name": "recommend", "arguments": {"user_id": "U1", "query": "olive shirt"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    accepts = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}
    return dict(told(httpx.post(f"{url}/mcp", json=body, headers=accepts, timeout=60))["result"]["structuredContent"])


def told(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def last_event(answer: httpx.Response) -> dict[str, Any]:
    return dict(json.loads(answer.text.strip().split("\n\n")[-1].split("data: ", 1)[1]))


def test_who_would_get_its_turn_too_late_is_let_in_beside_the_others() -> None:
    async def ask() -> None:
        gate, go, order = Gate(1, 10), threading.Event(), []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(gate.run, go.wait)
            await anyio.sleep(0.01)
            tasks.start_soon(gate.run, partial(order.append, "in its turn"))
            await gate.run(partial(order.append, "late"), clock=Clock.of(0.05))
            go.set()
        assert order == ["late", "in its turn"]
        assert gate.inside == 0

    anyio.run(ask)


def test_a_clock_leaves_some_time_to_who_comes_late() -> None:
    clock = Clock.of(10.0)
    assert 9.0 < clock.patience < clock.left <= 10.0
    assert Clock.of(1e-9).left == LEAST_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("ask", [recommended, streamed, chatted, chatted_in_one_thread, searched, called])
def test_who_waited_for_its_turn_is_answered_in_its_time_and_told_what_is_missing(
    ask: Callable[[str, int], dict[str, Any]], loaded_stores: Callable[[str, Path], Path], tmp_path: Path
) -> None:
    shop = copied_shop(loaded_stores, tmp_path)
    with serving(shop, Limits(answering=2), llm=SlowLLM(), deadline=DEADLINE, agents=True) as server:

        def timed(number: int) -> tuple[float, dict[str, Any]]:
            begun = time.monotonic()
            answer = ask(server.url, number)
            return time.monotonic() - begun, answer

        with ThreadPoolExecutor(ASKERS) as pool:
            answers = list(pool.map(timed, range(ASKERS)))
        # Two at a time and each as long as it may would be four times the deadline.
        assert max(seconds for seconds, _ in answers) < DEADLINE + SLACK
        assert all(answer["degraded"] or answer["plan"] for _, answer in answers)
        check_counted(server, ASKERS)


def check_counted(server: Served, answers: int) -> None:
    """Whichever door it came by, an answer is counted."""
    counted = server.client.get("/metrics").text
    assert f'recgraph_node_seconds_count{{node="retrieve"}} {float(answers)}' in counted
    assert 'recgraph_degraded_total{kind="recommend"}' in counted
