"""Whatever an LLM server sends, or does not send: ten products, in time, with what broke in `degraded`; and the process
ends with its answer."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from within import within

pytest.importorskip("langchain_openai", reason="needs recgraph[vllm]")

from wrong_server import (
    CHAT,
    KINDS,
    OF_REDIRECTS,
    QUICK,
    SLOW,
    WrongServer,
    body,
    changed,
    dripped,
    http,
    lacking,
    wrong_server,
)

from recgraph.errors import LLMError, LLMRefused
from recgraph.graph.recommender import Recommender
from recgraph.settings import load_settings
from recgraph.store.db import Store
from recgraph.tools.llm.protocol import Prompt
from recgraph.tools.llm.server import ServerLLM
from recgraph.tools.served.wire import MOST_BYTES

PROMPT = Prompt("Answer Yes or No.", "Red shoes?")
GRACE = 0.2  # seconds after the deadline


@pytest.fixture(scope="module")
def server() -> Iterator[WrongServer]:
    with wrong_server() as started:
        yield started


@pytest.fixture
def well(server: WrongServer) -> WrongServer:
    server.send, server.everywhere, server.redirected = None, False, 0
    return server


@pytest.fixture
def ask(make_store: Callable[..., Store], well: WrongServer) -> Iterator[Callable[..., Any]]:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    chosen = load_settings({}, "/nonexistent", store=str(store.path), summarizer="llm")
    recommender = Recommender(store, chosen, FakeEncoder(), ServerLLM(well.url, api_key="sk-secret"))  # type: ignore[arg-type]

    def _ask(kind: str, deadline: float) -> Any:
        well.send = KINDS[kind]
        return recommender.recommend("U1", "linen shirt", deadline=deadline)

    yield _ask
    recommender.close()


def complete(found: Any) -> None:
    assert len({line.item.item_id for line in found.items}) == 10
    assert all(line.yes is None or 0 <= line.yes <= 1 for line in found.items)
    assert found.summary.text
    text = json.dumps(found.to_dict(), allow_nan=False, ensure_ascii=False)  # NaN is no JSON
    assert not any(mark in text for mark in ("\\u001b", "\u202e", "<|im_end|>", "sk-secret"))
    text.encode()  # no lone surrogate


def test_there_are_more_than_a_hundred_kinds_of_wrong_replies() -> None:
    assert len(KINDS) > 100


@pytest.mark.slow
@pytest.mark.parametrize("kind", QUICK)
def test_a_wrong_reply_costs_the_llm_but_not_the_answer(ask: Callable[..., Any], well: WrongServer, kind: str) -> None:
    """13 of 74 lost the request, and NaN was shown as Yes 100 %."""
    found = ask(kind, 20.0)
    complete(found)
    assert found.degraded or kind == "title of 100 kB"  # which is of the asked-for form
    assert found.timings_ms["total"] < 5000
    assert not well.redirected
    if kind.startswith("logprobs") and kind != "logprobs strings":  # which the client reads as numbers
        assert "rerank" in {note.split(":")[0] for note in found.degraded}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SLOW)
def test_a_reply_without_an_end_is_left_at_the_deadline(ask: Callable[..., Any], kind: str) -> None:
    """104.9 s for a deadline of 5 s."""
    with within(1.5 + GRACE):
        found = ask(kind, 1.5)
    complete(found)
    assert found.degraded


@pytest.mark.parametrize("kind", QUICK)
def test_a_server_that_lists_its_models_wrongly_is_told_of_when_it_is_asked(well: WrongServer, kind: str) -> None:
    well.send, well.everywhere = QUICK[kind], True
    if kind in ("status 401", "status 403"):
        with pytest.raises(LLMRefused, match="RECGRAPH_LLM_API_KEY"):
            ServerLLM(well.url)
        return
    llm = ServerLLM(well.url)
    assert llm.name.isprintable()
    for call in (llm.generate, llm.score):
        with pytest.raises(LLMError):
            call([PROMPT])
    assert not well.redirected


@pytest.mark.slow
def test_a_dripped_list_of_models_holds_nothing_up(well: WrongServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recgraph.tools.llm.server.CONNECT_SECONDS", 0.5)
    well.send, well.everywhere = dripped(http(json.dumps(CHAT).encode()), 0.2), True
    with within(1.5):
        llm = ServerLLM(well.url)
        with pytest.raises(LLMError):
            llm.score([PROMPT], deadline=time.monotonic() + 0.5)


def _places(value: Any, path: str = "") -> Iterator[str]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield f"{path}{key}"
        yield from _places(inner, f"{path}{key}.")


OTHERS = [None, True, -7, 1e308, math.nan, math.inf, "x", "", "\ud800", [], [[]], {}, {"a": 1}, [None]]


@pytest.mark.slow
def test_another_type_at_any_place_is_read_or_garbled(well: WrongServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the places of an answer times fourteen values: never another error, never a number that is none."""
    monkeypatch.setattr("recgraph.tools.served.breaker.FAILURES", 10**9)  # each of them is asked for
    llm = ServerLLM(well.url)
    llm.score([PROMPT])
    wrong = [changed(path, other) for path in _places(CHAT) for other in OTHERS[:: 2 if "usage" in path else 1]]
    for reply in [*wrong, *map(lacking, _places(CHAT))]:
        _asked(llm, well, reply)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "logprobs", "token", "error", "usage", "a"]), inner
        )
    ),
    max_leaves=12,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(JSON, st.tuples(st.sampled_from(list(_places(CHAT))), JSON)))
def test_any_json_is_read_or_garbled(well: WrongServer, drawn: Any) -> None:
    well.send = None
    llm = ServerLLM(well.url)
    llm.score([PROMPT])
    _asked(llm, well, changed(*drawn) if isinstance(drawn, tuple) else drawn)


def _asked(llm: ServerLLM, server: WrongServer, reply: Any) -> None:
    server.send = body(reply)
    try:
        [answer], usage = llm.generate([PROMPT])
        assert answer.text.strip()
        assert min(usage.prompt, usage.completion, usage.cached) >= 0
    except LLMError:
        pass
    try:
        [(yes, no)], _ = llm.score([PROMPT])
        assert math.isfinite(yes)
        assert math.isfinite(no)
    except LLMError:
        pass


def test_a_response_has_a_size(well: WrongServer) -> None:
    llm = ServerLLM(well.url)
    well.send = body(changed("choices.0.message.content", "x" * MOST_BYTES))
    with pytest.raises(LLMError, match="larger than 512 KiB"):
        llm.generate([PROMPT])


@pytest.mark.parametrize("kind", OF_REDIRECTS)
def test_no_redirect_is_followed_and_the_message_says_so(well: WrongServer, kind: str) -> None:
    for key in ("", "sk-secret"):
        llm = ServerLLM(well.url, api_key=key)
        well.send = KINDS[kind]
        with pytest.raises(LLMError, match=r"sends on to another address .* Give the server's own address"):
            llm.generate([PROMPT])
        well.send = None
    assert not well.redirected


PROGRAM = """
import sys, time
sys.path.insert(0, sys.argv[1])
from fakes import FakeEncoder
from recgraph.graph.recommender import Recommender
from recgraph.settings import load_settings
from recgraph.store.db import Store
from recgraph.tools.llm.open import open_llm
settings = load_settings({}, "/nonexistent", store=sys.argv[2], summarizer="llm")
with Recommender(Store.open(sys.argv[2]), settings, FakeEncoder(), open_llm(url=sys.argv[3])) as recommender:
    found = recommender.recommend("U1", "linen shirt", deadline=1.0)
print(len(found.items), time.time(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["silent", "dripped body", "endless headers", "1 GB"])
def test_the_process_ends_with_its_answer(make_store: Callable[..., Store], well: WrongServer, kind: str) -> None:
    """A process stayed 233 s after its answer, for threads that still waited for the server."""
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    place = store.path
    store.close()
    well.send = KINDS[kind]
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), str(place), well.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    items, answered = done.stdout.split()
    assert items == "10"
    assert (
        time.time() - float(answered) < 10
    )  # of a minute that the server goes on; to end takes the interpreter a moment
